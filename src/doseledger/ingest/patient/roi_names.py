"""ROIs matched to structures by exact names, never by parts of names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypedDict

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol, Structure, folded
from doseledger.ingest.names.clues import NO_CLUES, Clues
from doseledger.ingest.patient.absent import Absence, refuse_absent


class AliasUse(TypedDict):
    """Which ROI a structure was read from, and the further ROIs that would have matched too."""

    roi: str
    others: list[str]


@dataclass(frozen=True)
class NameMatch:
    """The result of matching names.

    Parameters
    ----------
    used
        The same with what else would have matched, where the ROI's name is not the structure's own.
    unmatched
        Names of ROIs that no structure claims, those without contours too.
    """

    chosen: dict[str, str]
    used: dict[str, AliasUse]
    unmatched: list[str]
    absent: list[Structure]


def match_names(
    rois: list[str],
    empty: Collection[str],
    protocol: Protocol,
    case_id: str,
    clues: Callable[[Collection[str]], Clues] | None = None,
) -> NameMatch:
    """Return which ROI stands for each structure of a protocol.

    Parameters
    ----------
    empty
        Those of them that have no contours.
    protocol
        Its structures' aliases are in order of preference: the first that is drawn wins, the others are recorded.
    clues
        Called only where a structure that matters is absent, with the names of the ROIs that no structure claims:
        what is known of them, and of the plan.

    Raises
    ------
    BadCase
        If two ROIs that a structure could be have the same folded name, or a required structure has no ROI.
    SkippedCase
        If the protocol's `skip_when` covers what is absent, and neither the plan nor an unclaimed ROI says otherwise.
    """
    match = claim_names(rois, empty, protocol, case_id)
    covered = protocol.skip_when.any_absent if protocol.skip_when else []
    if any(structure.required or structure.name in covered for structure in match.absent):
        free = [name for name in match.unmatched if name not in empty]
        known = clues(free) if clues is not None else NO_CLUES
        hollow = [name for name in rois if name in empty]
        refuse_absent(Absence(match.absent, free, hollow, match.chosen, known), protocol, case_id)
    return match


def claim_names(rois: list[str], empty: Collection[str], protocol: Protocol, case_id: str) -> NameMatch:
    """Return which ROI stands for each structure, whatever is absent.

    Raises
    ------
    BadCase
        If two ROIs that a structure could be have the same folded name.
    """
    claimed = {name for structure in protocol.structures for name in structure.folded_names}
    drawn = _by_folded_name([name for name in rois if name not in empty], claimed, case_id)
    chosen: dict[str, str] = {}
    used: dict[str, AliasUse] = {}
    for structure in protocol.structures:
        hits = [drawn[name] for name in structure.folded_names if name in drawn]
        if hits:
            chosen[structure.name] = hits[0]
            if hits[0] != structure.name or len(hits) > 1:
                used[structure.name] = AliasUse(roi=hits[0], others=hits[1:])
    body = {folded(name) for name in protocol.body_names}
    unmatched = [name for name in dict.fromkeys(rois) if folded(name) not in claimed | body]
    absent = [structure for structure in protocol.structures if structure.name not in chosen]
    return NameMatch(chosen, used, unmatched, absent)


def _by_folded_name(drawn: list[str], claimed: Collection[str], case_id: str) -> dict[str, str]:
    """Names of drawn ROIs by what they are folded to; two of one name matter only where a structure claims it."""
    names: dict[str, str] = {}
    for name in drawn:
        key = folded(name)
        if key in names and key in claimed:
            raise BadCase(
                case_id,
                f'two ROIs are called "{names[key]}" and "{name}", which is one name once case, spaces, _ and - are '
                "folded; rename one",
            )
        names.setdefault(key, name)
    return names
