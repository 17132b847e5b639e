"""Files of a new cohort, made from those of another one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_protocol
from doseledger.core.tables import RAW, TEST_SET
from doseledger.ingest.survey.proposals import Proposals, with_doubts, with_proposals

# It is part of paths and of names of DVC's stages.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Where a block of a thresholds.yaml begins.
BLOCK = re.compile(r"([A-Za-z_]\w*):")
LIMITS_FILE = "thresholds.yaml"


@dataclass(frozen=True)
class NewCohort:
    """What was made.

    Parameters
    ----------
    written, kept
        Files that were written, and files that were there already and stay.
    n_proposed
        Names that a survey proposes, for a person to confirm.
    """

    written: list[Path]
    kept: list[Path]
    n_proposed: int


def refuse_taken(layout: Layout, like: str) -> None:
    """Do nothing if a cohort of this name can be made like another one.

    Raises
    ------
    BadInput
        If the name can't be one or is taken, or there is no such other cohort, or its protocol is not settled.
    """
    name = layout.cohort
    if not NAME.fullmatch(name):
        raise BadInput(f"cohort {name!r}: wanted letters, digits, `_` and `-`, the first a letter or a digit")
    folder = layout.cohorts / name
    if folder.exists():
        raise BadInput(
            f"{folder} is there already, and nothing in it is overwritten; `doseledger cohort check {name}` names what "
            "it lacks"
        )
    twins = [path.name for path in layout.cohorts.iterdir() if path.name.casefold() == name.casefold()]
    if twins:
        raise BadInput(
            f"cohort {name!r} is {twins[0]!r} where capitals do not count, as on many disks; name it otherwise"
        )
    source = Layout(layout.root, like)
    proposed = load_protocol(source.protocol).proposed
    if proposed:
        raise BadInput(
            f"{source.protocol}: names of {', '.join(proposed)} are proposed and not confirmed; settle them before "
            "another cohort is made like it"
        )


def make_cohort(layout: Layout, like: str, proposals: Proposals, doubts: Sequence[str] = ()) -> NewCohort:
    """Return what was written of a new cohort; no file that is there is touched.

    Parameters
    ----------
    layout
        Where its files belong.
    like
        The cohort whose protocol, goals, suite and limits are copied: from then on an edit to one is none to the other.
    proposals
        Names that its protocol proposes, by structure.
    doubts
        What a survey found against the protocol, kept in it as comments until a person has settled it.

    Raises
    ------
    BadInput
        As `refuse_taken`, or a file of the other cohort can't be read.
    """
    refuse_taken(layout, like)
    folder, source = layout.cohorts / layout.cohort, Layout(layout.root, like)
    texts = {
        folder / "protocol.yaml": with_doubts(with_proposals(_text(source.protocol), proposals), doubts),
        folder / "goals.yaml": _text(source.goals),
        folder / "suite.json": _text(source.suite),
        folder / LIMITS_FILE: _limits(source),
        layout.test_set: _header(TEST_SET.columns),
        # Where cases were packed before, the list is theirs.
        layout.raw_list: _header(RAW.columns),
    }
    kept = [path for path in texts if path.exists()]
    for path, text in texts.items():
        if path not in kept:
            write_text(path, text)
    written = [path for path in texts if path not in kept]
    return NewCohort(written, kept, sum(len(names) for names in proposals.values()))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _header(columns: dict[str, object]) -> str:
    return ",".join(columns) + "\n"


def _limits(source: Layout) -> str:
    """All limits that hold for a cohort, as text: blocks of its own, and of the cohort that it is `like`."""
    paths = [path for folder in source.folders if (path := folder / LIMITS_FILE).is_file()]
    if len(paths) == 1:
        return _text(paths[0])
    blocks: dict[str, str] = {}
    for path in reversed(paths):
        blocks |= _blocks(path)
    return "".join(blocks.values())


def _blocks(path: Path) -> dict[str, str]:
    """Text of each block by its key, with the comment right above it; a comment of the whole file is left out."""
    blocks: dict[str, str] = {}
    key, above = "", ""
    for line in _text(path).splitlines(keepends=True):
        found = BLOCK.match(line)
        if line.startswith("#"):
            above += line
        elif found:
            key, above, blocks[found[1]] = found[1], "", above + line
        elif line.strip() and key:
            above, blocks[key] = "", blocks[key] + above + line
        else:
            above = ""
    if set(blocks) != set(read_yaml(path)):
        raise BadInput(f"{path}: wanted YAML with each block's key at the start of a line; write it so, to copy it")
    return blocks
