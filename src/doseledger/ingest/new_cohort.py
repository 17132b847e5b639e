"""Files of a new cohort: a protocol of its own, everything else that of the cohort it is like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.core.layout import LIKE_FILE, Layout
from doseledger.core.protocol import load_protocol
from doseledger.core.tables import RAW, TEST_SET
from doseledger.ingest.survey.proposals import Proposals, with_proposals

# It is part of paths and of names of DVC's stages.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LIKE = "# whose files hold where this folder has none\nlike: {}\n"


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
    source = Layout(layout.root, like)
    proposed = load_protocol(source.protocol).proposed
    if proposed:
        raise BadInput(
            f"{source.protocol}: names of {', '.join(proposed)} are proposed and not confirmed; settle them before "
            "another cohort is made like it"
        )


def make_cohort(layout: Layout, like: str, proposals: Proposals) -> NewCohort:
    """Return what was written of a new cohort; no file that is there is touched.

    Parameters
    ----------
    layout
        Where its files belong.
    like
        The cohort whose protocol it begins with, and whose goals, suite and limits hold until it has its own.
    proposals
        Names that its protocol proposes, by structure.

    Raises
    ------
    BadInput
        As `refuse_taken`.
    """
    refuse_taken(layout, like)
    folder = layout.cohorts / layout.cohort
    protocol = Layout(layout.root, like).protocol.read_text(encoding="utf-8")
    texts = {
        folder / "protocol.yaml": with_proposals(protocol, proposals),
        layout.test_set: _header(TEST_SET.columns),
        # Where cases were packed before, the list is theirs.
        layout.raw_list: _header(RAW.columns),
        folder / LIKE_FILE: LIKE.format(like),
    }
    kept = [path for path in texts if path.exists()]
    for path, text in texts.items():
        if path not in kept:
            write_text(path, text)
    written = [path for path in texts if path not in kept]
    return NewCohort(written, kept, sum(len(names) for names in proposals.values()))


def _header(columns: dict[str, object]) -> str:
    return ",".join(columns) + "\n"
