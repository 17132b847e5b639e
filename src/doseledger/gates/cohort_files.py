"""Everything that a cohort lacks before its pipeline can run, named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from doseledger.core.errors import BadInput
from doseledger.core.layout import SYNTHETIC_COHORT, Layout
from doseledger.core.protocol import Protocol, load_goals, load_protocol
from doseledger.core.settings import Settings
from doseledger.core.sheet import plural
from doseledger.core.tables import RAW, TEST_SET, read_table
from doseledger.dosimetry.goals import lint_goals
from doseledger.gates.limits import Thresholds, load_thresholds
from doseledger.gates.suites import read_suite
from doseledger.ingest.pack import find_sources

# Ends of the names of features that are of one structure; and what has such names and is none.
OF_STRUCTURE = (
    "volume_cc", "median_hu", "mean_gy", "d98_percent", "d95_percent", "d50_percent", "d2_percent", "v95_percent",
)  # fmt: skip
NO_STRUCTURE = frozenset({"body", "dose_body"})
# Names that a line lists.
MOST_NAMED = 5
Found = TypeVar("Found")


@dataclass(frozen=True)
class Lack:
    """One thing that keeps a cohort's pipeline from running: where, what is wrong, what to do."""

    where: str
    found: str
    do: str


def find_lacks(layout: Layout, settings: Settings) -> list[Lack]:
    """Return everything that a cohort lacks, in the order in which the pipeline would meet it.

    Parameters
    ----------
    layout
        Of the cohort.
    settings
        Which models are trained.

    Raises
    ------
    BadInput
        If there is no cohort of this name; the nearest is named.
    """
    protocol_path = layout.folders[0] / "protocol.yaml"
    lacks = [*_raw_lacks(layout)]
    protocol = _read(lambda: load_protocol(layout.protocol), protocol_path, lacks)
    if protocol is not None:
        lacks += [
            Lack(
                str(layout.protocol),
                f"{structure}: proposed and confirmed by nobody: {_list(names)}",
                "delete the names that are wrong, and the line `proposed:` to take the others as aliases",
            )
            for structure, names in protocol.proposed.items()
        ]
        lacks += _goal_lacks(layout, protocol)
        lacks += _suite_lacks(layout, protocol)
    limits = _read(lambda: load_thresholds(layout), layout.folders[0] / "thresholds.yaml", lacks)
    if limits is not None:
        lacks += _limit_lacks(layout, limits, protocol, settings)
    _read(lambda: read_table(layout.test_set, TEST_SET), layout.test_set, lacks)
    return lacks


def find_notes(layout: Layout, settings: Settings) -> list[str]:
    """Return what is worth knowing of a cohort and keeps nothing from running."""
    notes = []
    own = layout.folders[0]
    for name, what in (("protocol.yaml", "protocol"), ("goals.yaml", "goals"), ("thresholds.yaml", "limits")):
        if not (own / name).is_file():
            holder = next((folder.name for folder in layout.folders if (folder / name).is_file()), "none")
            notes.append(f"{what}: those of {holder} hold; write {own / name} where they don't suit")
    if settings.cohort != layout.cohort:
        notes.append(f"{layout.params} works on {settings.cohort}; `dvc exp run -S cohort={layout.cohort}` on this one")
    return notes


def _read(read: Callable[[], Found], path: Path, lacks: list[Lack]) -> Found | None:
    """What a file holds; None, and a lack, where it can't be had."""
    try:
        return read()
    except BadInput as error:
        lacks.append(Lack(str(path), _without(str(error), path), "mend it, or write it"))
        return None


def _raw_lacks(layout: Layout) -> Iterator[Lack]:
    if layout.cohort == SYNTHETIC_COHORT:
        return
    pack = f"`doseledger raw pack CLEAN --cohort {layout.cohort}` with the folder of de-identified cases"
    record = layout.raw.with_name(f"{layout.raw.name}.dvc")
    try:
        there = set(find_sources(layout.raw))
    except BadInput as error:
        fetch = f"`dvc pull {record}`" if record.is_file() else pack
        yield Lack(str(layout.raw), _without(str(error), layout.raw), fetch)
        there = set()
    else:
        if not record.is_file():
            yield Lack(str(record), "DVC does not know the raw cases", f"`dvc add {layout.raw}`, then commit that file")
    try:
        listed = set(read_table(layout.raw_list, RAW)["case_id"])
    except BadInput as error:
        yield Lack(str(layout.raw_list), _without(str(error), layout.raw_list), pack)
        return
    for what, names in (("not listed", there - listed), ("listed and not there", listed - there if there else set())):
        if names:
            yield Lack(str(layout.raw_list), f"{plural(len(names), 'case')} {what}: {_list(sorted(names))}", pack)


def _without(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")


def _goal_lacks(layout: Layout, protocol: Protocol) -> Iterator[Lack]:
    lacks: list[Lack] = []
    goals = _read(lambda: load_goals(layout.goals), layout.folders[0] / "goals.yaml", lacks)
    yield from lacks
    if goals is not None:
        for fault in lint_goals(goals, protocol):
            yield Lack(str(layout.goals), fault, f"write {layout.folders[0] / 'goals.yaml'} for this protocol")


def _suite_lacks(layout: Layout, protocol: Protocol) -> Iterator[Lack]:
    lacks: list[Lack] = []
    items = _read(lambda: read_suite(layout.suite), layout.folders[0] / "suite.json", lacks)
    yield from lacks
    names = {
        str(value).removesuffix(f"_{end}")
        for item in items or []
        for key, value in item["kwargs"].items()
        if key in ("column", "column_A", "column_B")
        for end in OF_STRUCTURE
        if str(value).endswith(f"_{end}")
    }
    strangers = sorted(names - NO_STRUCTURE - set(protocol.structure_names))
    if strangers:
        found = f"expects something of {_list(strangers)}, which protocol {protocol.name} does not know"
        yield Lack(str(layout.suite), found, f"write {layout.folders[0] / 'suite.json'} without it")


def _limit_lacks(layout: Layout, limits: Thresholds, protocol: Protocol | None, settings: Settings) -> Iterator[Lack]:
    own = layout.folders[0] / "thresholds.yaml"
    for model in settings.models:
        for limits_of in (limits.metrics_of, limits.shortcuts_of):
            try:
                limits_of(model)
            except BadInput as error:
                yield Lack(str(own), f"{model}: {error}", "write them, each with its source")
    if protocol is None:
        return
    data = limits.data
    named = [name for pair in data.exclusive for name in pair.structures]
    named += [name for pair in data.contains for name in (pair.outer, pair.inner)]
    named += [name for pair in data.order for name in (pair.lower, pair.higher)]
    strangers = sorted(set(named) - set(protocol.structure_names))
    if strangers:
        found = f"data: limits of {_list(strangers)}, which protocol {protocol.name} does not know"
        yield Lack(str(own), found, "write a block `data` without them")


def _list(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def describe_lacks(layout: Layout, lacks: list[Lack], notes: list[str]) -> str:
    """Return the lines that a terminal shows: each lack with what to do, and notes."""
    lines = [f"{lack.where}: {lack.found}\n  → {lack.do}" for lack in lacks]
    lines += [f"note: {note}" for note in notes]
    word = "has all that its pipeline needs" if not lacks else f"lacks {plural(len(lacks), 'thing')}"
    return "\n".join([*lines, f"{layout.cohort} {word}"])
