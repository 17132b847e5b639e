"""Lacks of a cohort that keep its pipeline from running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from doseledger.core.errors import BadInput
from doseledger.core.project.layout import SYNTHETIC_COHORT, Layout
from doseledger.core.project.protocol import Protocol, load_goals, load_protocol
from doseledger.core.settings import Settings
from doseledger.core.tables import RAW, TEST_SET, read_table
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import plural
from doseledger.dosimetry.goals import lint_goals
from doseledger.gates.limits import Thresholds, load_thresholds
from doseledger.gates.suites import read_suite
from doseledger.ingest.sources import SOURCES
from doseledger.ingest.survey.proposals import find_doubts
from doseledger.ledger.provenance.git import ask_git

# Ends of the names of features that are of one structure; and what has such names and is none.
OF_STRUCTURE = (
    "volume_cc", "median_hu", "mean_gy", "d98_percent", "d95_percent", "d50_percent", "d2_percent", "v95_percent",
    "beyond_hotter_percent",
)  # fmt: skip
NO_STRUCTURE = frozenset({"body", "dose_body"})
# What the source of a limit says that was borrowed.
TO_BE_SET = "to be set"
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

    Raises
    ------
    BadInput
        If there is no cohort of this name; the nearest is named.
    """
    protocol_path = layout.folders[0] / "protocol.yaml"
    unread: list[Lack] = []
    protocol = _read(lambda: load_protocol(layout.protocol), protocol_path, unread)
    lacks = [*_raw_lacks(layout, "dicom" if protocol is None else protocol.source), *unread]
    if protocol is not None:
        lacks += [
            Lack(
                str(layout.protocol),
                f"{structure}: proposed by a survey, not confirmed: {_list(names)}",
                "delete the names that are wrong, then the line `proposed:`: what is left are aliases",
            )
            for structure, names in protocol.proposed.items()
        ]
        lacks += [
            Lack(
                str(layout.protocol),
                f"a survey found: {doubt}",
                "write what the clinic prescribes and draws, then delete the line `# SURVEY:` of each",
            )
            for doubt in find_doubts(layout.protocol.read_text(encoding="utf-8"))
        ]
        lacks += _goal_lacks(layout, protocol)
        lacks += _suite_lacks(layout, protocol)
    limits = _read(lambda: load_thresholds(layout), layout.folders[0] / "thresholds.yaml", lacks)
    if limits is not None:
        lacks += _limit_lacks(layout, limits, protocol, settings)
    _read(lambda: read_table(layout.test_set, TEST_SET), layout.test_set, lacks)
    return [*lacks, *_git_lacks(layout)]


def find_notes(layout: Layout, settings: Settings) -> list[str]:
    """Return what is worth knowing of a cohort and keeps nothing from running."""
    notes = []
    borrowed = _borrowed(layout)
    if borrowed:
        notes.append(f"limits to be set from your own first results: {_list(borrowed)}")
    if settings.cohort != layout.cohort:
        notes.append(f"{layout.params} works on {settings.cohort}; `dvc exp run -S cohort={layout.cohort}` on this one")
    return notes


def _borrowed(layout: Layout) -> list[str]:
    """Limits whose source says that they are still to be set."""
    try:
        limits = load_thresholds(layout)
    except BadInput:
        return []
    found = [limit for block in (limits.metrics, limits.shortcuts) for items in block.values() for limit in items]
    return sorted({limit.metric for limit in found if TO_BE_SET in limit.source})


def _read(read: Callable[[], Found], path: Path, lacks: list[Lack]) -> Found | None:
    """What a file holds; None, and a lack, where it can't be had."""
    try:
        return read()
    except BadInput as error:
        lacks.append(Lack(str(path), _without(str(error), path), "mend it, or write it"))
        return None


def _raw_lacks(layout: Layout, source: str) -> Iterator[Lack]:
    if layout.cohort == SYNTHETIC_COHORT:
        return
    pack = f"`doseledger raw pack CLEAN --cohort {layout.cohort}` with the folder of de-identified cases"
    record = _record(layout)
    try:
        there = set(SOURCES[source].find(layout.raw))
    except BadInput as error:
        fetch = f"`dvc pull {record}`" if record.is_file() else pack
        yield Lack(str(layout.raw), _without(str(error), layout.raw), fetch)
        there = set()
    else:
        if not record.is_file():
            yield Lack(str(record), "DVC does not know the raw cases", f"`dvc add {layout.raw}`")
    try:
        listed = set(read_table(layout.raw_list, RAW)["case_id"])
    except BadInput as error:
        yield Lack(str(layout.raw_list), _without(str(error), layout.raw_list), pack)
        return
    for what, names in (("not listed", there - listed), ("listed and not there", listed - there if there else set())):
        if names:
            yield Lack(str(layout.raw_list), f"{plural(len(names), 'case')} {what}: {_list(sorted(names))}", pack)


def _git_lacks(layout: Layout) -> Iterator[Lack]:
    """Files that no commit will hold; none where no Git repository is at work."""
    places = (layout.folders[0], layout.raw_list, _record(layout))
    listed = ask_git(
        layout.root, "ls-files", "-z", "--others", "--exclude-standard", "--",
        *(path.relative_to(layout.root).as_posix() for path in places),
    )  # fmt: skip
    if names := [name for name in (listed or "").split("\0") if name]:
        add = f"`git add {' '.join(dict.fromkeys(_top(name, layout) for name in names))}`, then commit"
        yield Lack("Git", f"{plural(len(names), 'file')} of this cohort unknown to it: {_list(names)}", add)


def _top(name: str, layout: Layout) -> str:
    own = layout.folders[0].relative_to(layout.root)
    return own.as_posix() if own in Path(name).parents else name


def _record(layout: Layout) -> Path:
    """What DVC keeps of the raw cases."""
    return layout.raw.with_name(f"{layout.raw.name}.dvc")


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
        str(column).removesuffix(f"_{end}")
        for item in items or []
        for key, value in item["kwargs"].items()
        if key.startswith("column")
        for column in (value if isinstance(value, list) else [value])
        for end in OF_STRUCTURE
        if str(column).endswith(f"_{end}")
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
    return first_of(names, MOST_NAMED)


def describe_lacks(layout: Layout, lacks: list[Lack], notes: list[str]) -> str:
    """Return the lines that a terminal shows: what each file lacks and what to do, and notes."""
    lines: list[str] = []
    for (where, do), group in groupby(lacks, key=lambda lack: (lack.where, lack.do)):
        lines += [where, *(f"  {lack.found}" for lack in group), f"  → {do}"]
    lines += [f"note: {note}" for note in notes]
    if not lacks:
        lines.append(f"{layout.cohort} has all that its pipeline needs")
    return "\n".join(lines)
