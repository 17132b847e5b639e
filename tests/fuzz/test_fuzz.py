"""Damaged input of every kind: refused by name, or read as it was; no hang, no flood, nothing written or run elsewhere.

A few inputs a kind here; `make fuzz` takes many. An input is told by kind, seed and number, and comes again by them.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fuzz.archives import bundle_kind, checkpoint_kind, npz_kind
from fuzz.kinds import Kind, Told
from fuzz.patients import dicom_kind, openkbp_kind
from fuzz.volumes import nifti_kind
from fuzz.watch import read_watched
from fuzz.words import log_kind, project_kind

from doseledger.core.project.protocol import load_protocol

KINDS = ("dicom", "openkbp", "npz", "checkpoint", "bundle", "project", "log", "nifti")
# As many a kind, in slices that a process takes one after the other.
COUNT, SEED = int(os.environ.get("FUZZ_COUNT", "12")), int(os.environ.get("FUZZ_SEED", "1"))
SLICE = 100
# `kind:seed:number`: that input alone.
ONLY = os.environ.get("FUZZ_ONLY", "")
MOST_SHOWN = 10


def slices() -> list[tuple[str, int, range]]:
    if ONLY:
        kind, seed, number = ONLY.split(":")
        return [(kind, int(seed), range(int(number), int(number) + 1))]
    wanted = os.environ.get("FUZZ_KINDS", ",".join(KINDS)).split(",")
    starts = range(0, COUNT, SLICE)
    return [(kind, SEED, range(start, min(COUNT, start + SLICE))) for kind in wanted for start in starts]


@pytest.fixture(scope="session")
def sound() -> dict[str, tuple[Kind, Path, dict[str, Any]]]:
    """Kinds whose sound input was written, with what each reader makes of it."""
    return {}


@pytest.fixture
def open_kind(
    sound: dict[str, tuple[Kind, Path, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    factory: ModuleType,
    repository: Path,
) -> Callable[[str], tuple[Kind, Path, dict[str, Any]]]:
    """A kind by its name, its sound input, and what each reader makes of it."""
    make: dict[str, Callable[[], Kind]] = {
        "dicom": lambda: dicom_kind(factory),
        "openkbp": lambda: openkbp_kind(load_protocol(repository / "validation/cohorts/openkbp/protocol.yaml")),
        "npz": lambda: npz_kind(request.getfixturevalue("make_case"), repository / "validation/contracts"),
        "checkpoint": lambda: checkpoint_kind(_checkpoint_writer(request)),
        "bundle": lambda: bundle_kind(request.getfixturevalue("order")),
        "project": lambda: project_kind(request.getfixturevalue("finished_run").at.layout.root, repository),
        "log": log_kind,
        "nifti": nifti_kind,
    }

    def find(name: str) -> tuple[Kind, Path, dict[str, Any]]:
        if name not in sound:
            folder = tmp_path_factory.mktemp(name)
            kind = make[name]()
            kind.make(folder / "sound")
            results = {}
            for reader, read in kind.readers.items():
                (folder / "out").mkdir()
                results[reader] = read(folder / "sound", folder / "out")
                shutil.rmtree(folder / "out")
            sound[name] = (kind, folder / "sound", results)
        return sound[name]

    return find


def _checkpoint_writer(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    made = request.getfixturevalue("finished_run").at.checkpoint
    return lambda path: shutil.copy(made, path)


# The watch has a clock of its own, of the processor: a slice of many may take long on a busy machine.
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "seed", "numbers"), slices(), ids=lambda value: str(value).replace(" ", ""))
def test_damaged_input_is_refused_by_name_or_read_as_it_was(
    name: str,
    seed: int,
    numbers: range,
    open_kind: Callable[[str], tuple[Kind, Path, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    kind, sound, expected = open_kind(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    counts: Counter[str] = Counter()
    faults = []
    for number in numbers:
        spoilt_folder, out = tmp_path / "spoilt", tmp_path / "out"
        shutil.copytree(sound, spoilt_folder)
        spoilt = kind.spoil(random.Random(f"{name}:{seed}:{number}"), spoilt_folder)
        for reader in spoilt.readers or kind.readers:
            out.mkdir()
            read = partial(kind.readers[reader], spoilt_folder, out)
            outcome, words, value = read_watched(read, tmp_path, spoilt.named)
            if outcome == "ok" and spoilt.shows and isinstance(value, Told) and not value.said:
                changed = value.differs(expected[reader])
                outcome, words = (
                    ("silent", f"changed without a word: {', '.join(map(str, changed))}") if changed else ("ok", "")
                )
            counts[outcome] += 1
            if outcome not in ("ok", "refused"):
                faults.append(f"FUZZ_ONLY={name}:{seed}:{number} {reader}: {outcome} ({spoilt.words})\n{words}")
            shutil.rmtree(out)
        shutil.rmtree(spoilt_folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    record_property("fuzz", {"kind": name, "inputs": len(numbers), "peak_mb": peak_mb, **counts})
    shown = "\n".join(faults[:MOST_SHOWN])
    if faults:
        again = f"{len(faults)} faults; each again by its FUZZ_ONLY and `python -m pytest tests/fuzz`:"
        pytest.fail(f"{again}\n{shown}", pytrace=False)
