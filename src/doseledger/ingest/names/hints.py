"""Proposals of ROIs for an absent structure, for people to confirm.

A proposal is never a match (docs/decisions/0003). It has a floor of likeness, it never goes across left and right, and
one ROI is proposed for one structure only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from scipy.optimize import linear_sum_assignment

from doseledger.core.project.protocol import Protocol, Structure, folded
from doseledger.ingest.names.nomenclature import NameParts, Side, load_organs, read_name

# Prescriptions are round numbers; 0.1 Gy allows for a fraction dose that was rounded to 1 cGy.
DOSE_TOLERANCE_GY = 0.1
# Names that share less of their letters are no more alike than Rectum and Sacrum (0.5) or PTV56 and PTV70 (0.6).
LEAST_LIKENESS = 0.7
# How much each kind of evidence counts; only their order matters.
BY_PLAN, BY_NAME, BY_PART_OF_NAME, BY_DOSE_IN_NAME, BY_NEAR_ORGAN, BY_BEING_LAST = 1.0, 0.97, 0.9, 0.93, 0.75, 0.4
# Of a structure that has a side, an ROI that shows none.
WITHOUT_SIDE = 0.9
# ROI types that are no structure of a patient: DICOM PS3.3 C.8.8.8.1.
NO_STRUCTURE = frozenset({
    "EXTERNAL", "SUPPORT", "FIXATION", "BOLUS", "MARKER", "REGISTRATION", "ISOCENTER", "DOSE_REGION",
    "DOSE_MEASUREMENT", "CONTROL", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP", "BRACHY_CHNL_SHLD",
})  # fmt: skip
TARGET_TYPES = frozenset({"PTV", "CTV", "GTV"})


@dataclass(frozen=True)
class Clue:
    """An unclaimed ROI, and what DICOM says of it beside its name.

    Parameters
    ----------
    kind
        RT ROI Interpreted Type; empty where none is given.
    side
        Where its contours lie, from the body's middle; empty where that is not known.
    doses_gy
        What the plan prescribes to it.
    """

    name: str
    kind: str = ""
    side: Side = ""
    doses_gy: tuple[float, ...] = ()

    @property
    def parts(self) -> NameParts:
        """What the name says."""
        return read_name(self.name)

    @property
    def target(self) -> str:
        """PTV, CTV or GTV, by its name or else its type; empty for anything else."""
        return self.parts.target or (self.kind if self.kind in TARGET_TYPES else "")


@dataclass(frozen=True)
class Hint:
    """An ROI that may be a structure: its name, why, and how likely on a scale of our own from 0 to 1."""

    roi: str
    why: str
    likeness: float


@dataclass(frozen=True)
class _Wanted:
    """What is known of an absent structure."""

    structure: Structure
    dose_gy: float | None
    cores: tuple[str, ...]
    organs: frozenset[str]
    near: frozenset[str]
    side: Side
    targets: frozenset[str]


def find_hints(absent: Sequence[Structure], free: Sequence[Clue], protocol: Protocol) -> dict[str, Hint]:
    """Return the ROI that may be meant, by structure, of those that any is like.

    Parameters
    ----------
    free
        Drawn ROIs that no structure claims, in any order.
    protocol
        Whose prescription the targets have.

    Notes
    -----
    One ROI for one structure: the assignment whose likenesses sum to the most (Kuhn and Munkres).
    """
    clues = sorted(free, key=lambda clue: (folded(clue.name), clue.name))
    wanted = [_describe(structure, protocol) for structure in absent]
    if not clues or not wanted:
        return {}
    last_ptv = _last_ptv(wanted, clues)
    pairs = [[_compare(item, clue, last_ptv) for clue in clues] for item in wanted]
    likeness = np.asarray([[hint.likeness if hint else 0.0 for hint in row] for row in pairs])
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    found = {}
    for row, column in zip(rows, columns, strict=True):
        hint = pairs[row][column]
        if hint is not None:
            found[wanted[row].structure.name] = hint
    return found


def _describe(structure: Structure, protocol: Protocol) -> _Wanted:
    names = [read_name(name) for name in (structure.name, *structure.aliases)]
    organs = frozenset(parts.organ for parts in names if parts.organ and not parts.is_help)
    near = frozenset(other for organ in organs for other in load_organs()[organ].near) - organs
    return _Wanted(
        structure=structure,
        dose_gy=protocol.prescription_gy.get(structure.name),
        cores=tuple(dict.fromkeys(parts.core for parts in names)),
        organs=organs,
        near=near,
        side=next((parts.side for parts in names if parts.side), ""),
        targets=frozenset(parts.target for parts in names) - {""},
    )


def _last_ptv(wanted: Sequence[_Wanted], clues: Sequence[Clue]) -> str:
    """The only PTV that is left where only one target is looked for; empty otherwise."""
    targets = [item for item in wanted if item.structure.kind == "target"]
    ptvs = [clue.name for clue in clues if clue.target == "PTV" and not clue.parts.is_help]
    return ptvs[0] if len(targets) == len(ptvs) == 1 else ""


def _compare(wanted: _Wanted, clue: Clue, last_ptv: str) -> Hint | None:
    """What speaks for an ROI's being a structure; None where something speaks against it, or nothing for it."""
    if clue.kind in NO_STRUCTURE or _other_side(wanted.side, clue):
        return None
    if wanted.structure.kind == "target":
        return _compare_target(wanted, clue, last_ptv)
    return _compare_organ(wanted, clue)


def _other_side(wanted: Side, clue: Clue) -> bool:
    said = [side for side in (clue.parts.side, clue.side) if side]
    if wanted in ("L", "R"):
        return any(side != wanted for side in said)
    # The left half of a structure that has no side is not the structure; only its name tells, for any organ may lie
    # on one side.
    return bool(clue.parts.side in ("L", "R") and not clue.parts.target)


def _compare_target(wanted: _Wanted, clue: Clue, last_ptv: str) -> Hint | None:
    parts, dose = clue.parts, wanted.dose_gy
    if clue.doses_gy and dose is not None:
        if any(abs(found - dose) <= DOSE_TOLERANCE_GY for found in clue.doses_gy):
            return Hint(clue.name, f"the plan prescribes it {dose:g} Gy", BY_PLAN)
        return None
    classes = wanted.targets or frozenset({"PTV"})
    if parts.is_help or clue.target not in classes:
        return None
    if parts.doses_gy and dose is not None:
        if len(parts.doses_gy) == 1 and abs(parts.doses_gy[0] - dose) <= DOSE_TOLERANCE_GY:
            return Hint(clue.name, f"its name says {dose:g} Gy", BY_DOSE_IN_NAME)
        return None
    # "PTV" alone is like every PTV.
    alike = _likeness(wanted, parts) if parts.core != parts.target.lower() else 0.0
    if alike >= LEAST_LIKENESS:
        return Hint(clue.name, "", alike * BY_PART_OF_NAME)
    if clue.name == last_ptv:
        return Hint(clue.name, "the only PTV that no structure claims", BY_BEING_LAST)
    return None


def _compare_organ(wanted: _Wanted, clue: Clue) -> Hint | None:
    parts = clue.parts
    if parts.is_help or (clue.target and clue.target not in wanted.targets):
        return None
    factor = WITHOUT_SIDE if wanted.side and not (parts.side or clue.side) else 1.0
    alike = _likeness(wanted, parts)
    if parts.organ in wanted.organs and parts.organ:
        # One that is spelt as the protocol spells it comes before one of another language.
        share = (BY_NAME if parts.whole else BY_PART_OF_NAME) * (0.98 + 0.02 * alike)
        return Hint(clue.name, f"a name of {parts.organ}", factor * share)
    if parts.organ in wanted.near:
        return Hint(clue.name, f"a name of {parts.organ}", factor * BY_NEAR_ORGAN)
    if not parts.organ and alike >= LEAST_LIKENESS:
        return Hint(clue.name, "", factor * alike * BY_PART_OF_NAME)
    return None


def _likeness(wanted: _Wanted, parts: NameParts) -> float:
    """Share of letters that a name has in common with the structure's nearest, sides left out."""
    return max(SequenceMatcher(None, core, parts.core, autojunk=False).ratio() for core in wanted.cores)
