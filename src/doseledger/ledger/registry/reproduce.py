"""Predictions made again, and compared with the recorded ones."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.core.tables import SPLITS, write_table
from doseledger.evaluate.predictions import load_any

Tell = Callable[[str], None]
PROCESSORS = Path("/proc/cpuinfo")
# A virtual machine may name its processor without saying which it is: the numbers do.
PROCESSOR_KEYS = ("model name", "cpu family", "model", "stepping")
# By which a person holds torch, oneDNN and MKL to a part of what the processor can do.
INSTRUCTION_LIMITS = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A case predicted again beside its recorded prediction.

    Parameters
    ----------
    identical
        Whether every voxel's dose has the same bits.
    max_difference_gy
        Largest difference between two voxels, in Gy.
    """

    case_id: str
    identical: bool
    max_difference_gy: float


def this_machine() -> dict[str, Any]:
    """Return what decides a prediction's last bits here: processor, its instructions in use, device, threads, torch.

    No name of the host is in it.
    """
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return {
        "processor": _processor(),
        "instructions": [torch.backends.cpu.get_cpu_capability(), *_instruction_limits()],
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    if PROCESSORS.is_file():
        first = PROCESSORS.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
        words = [f"{key} {said[key]}".removeprefix("model name ") for key in PROCESSOR_KEYS if key in said]
        if words:
            return ", ".join(words)
    return platform.machine()


def _instruction_limits() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in INSTRUCTION_LIMITS if name in os.environ]


@contextmanager
def threads_of(machine: Mapping[str, Any]) -> Iterator[None]:
    """Use as many threads as another machine did while the block runs: sums are taken in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(int(machine["threads"]))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict_again(
    checkpoint: Path, cases: Path, recorded: Path, case_ids: Sequence[str], tell: Tell
) -> list[Comparison]:
    """Return how predictions made now compare with recorded ones, case by case.

    Parameters
    ----------
    cases
        Folder of `<case>.npz`.
    tell
        Called with one line per case.

    Raises
    ------
    NotReady
        If a case is not the one that was predicted: other data give another dose, and that proves nothing.
    BadInput
        If a recorded prediction is another checkpoint's.
    """
    from doseledger.ingest.physics import projected, with_physics
    from doseledger.learn.data.inputs import CaseFile
    from doseledger.learn.kinds import open_as
    from doseledger.learn.predict.predictor import SplitPart, predict_part

    found = []
    with tempfile.TemporaryDirectory(prefix="doseledger-") as folder:
        for case_id in case_ids:
            before = load_any(recorded / f"{case_id}.npz")
            _refuse_others(checkpoint, cases / f"{case_id}.npz", before.case_sha256, before.checkpoint_sha256)
            # The very road of the stage: a table of splits that deals this one case to the test set.
            row = {"case_id": case_id, "pseudonym": case_id, "group": "", "sha256": before.case_sha256}
            splits, out = Path(folder) / f"{case_id}.csv", Path(folder) / "predictions"
            write_table(splits, pd.DataFrame([{**row, "repeat": 0, "fold": 0, "split": "test"}]), SPLITS)
            predictor = projected(open_as(checkpoint, before.settings))
            file = CaseFile(case_id, cases / f"{case_id}.npz", before.case_sha256)
            with_physics(file, predictor.checkpoint.beams, Path(folder))
            predict_part(predictor, SplitPart(cases, splits, "test", 0, 0, Path(folder) / "physics"), out, tell=tell)
            after = load_any(out / f"{case_id}.npz")
            found.append(_compare(case_id, before.values, after.values))
    return found


def _refuse_others(checkpoint: Path, case: Path, case_sha256: str, checkpoint_sha256: str) -> None:
    if not case.is_file():
        raise NotReady(f"{case}: no such case; give the folder of cases that the recorded predictions are of")
    if sha256_of_file(case) != case_sha256:
        raise NotReady(
            f"{case}: not the case that was predicted (other bytes); take the one that the model's commit names"
        )
    if sha256_of_file(checkpoint) != checkpoint_sha256:
        raise BadInput(
            f"{case.stem}: its recorded prediction is of checkpoint {checkpoint_sha256[:12]}…, not of this one; "
            "predict again, and register that"
        )


def _compare(case_id: str, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> Comparison:
    if before.shape != after.shape:
        raise BadInput(f"{case_id}: predicted {after.shape} voxels, recorded are {before.shape}; report this")
    difference = float(np.abs(after.astype(np.float64) - before.astype(np.float64)).max(initial=0.0))
    return Comparison(case_id, before.tobytes() == after.tobytes(), difference)
