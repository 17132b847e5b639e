"""Which ROI of a structure set is which structure of the protocol: exact names after folding, never parts of names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypedDict

from doseledger.core.errors import BadCase, SkippedCase
from doseledger.core.protocol import Protocol, Structure, folded


class Unmatched(TypedDict):
    """An ROI that no structure claims, and the name of the protocol that comes nearest."""

    roi: str
    nearest: str


class AliasUse(TypedDict):
    """Which ROI a structure was read from, and the further ROIs that would have matched too."""

    roi: str
    others: list[str]


@dataclass(frozen=True)
class NameMatch:
    """The result of matching names.

    Parameters
    ----------
    chosen
        ROI name by structure, of the structures that are there.
    used
        The same with what else would have matched, where the ROI's name is not the structure's own.
    unmatched
        ROIs that no structure claims.
    """

    chosen: dict[str, str]
    used: dict[str, AliasUse]
    unmatched: list[Unmatched]


def match_names(rois: list[str], empty: Collection[str], protocol: Protocol, case_id: str) -> NameMatch:
    """Return which ROI stands for each structure of a protocol.

    Parameters
    ----------
    rois
        Names of all ROIs.
    empty
        Those of them that have no contours.
    protocol
        Its structures' aliases are in order of preference: the first that is drawn wins, the others are recorded.
    case_id
        Who the errors name.

    Raises
    ------
    BadCase
        If two ROIs have the same folded name, or a required structure has no ROI.
    SkippedCase
        If the protocol's `skip_when` covers what is absent.
    """
    names: dict[str, str] = {}
    for name in rois:
        key = folded(name)
        if key in names:
            raise BadCase(
                case_id,
                f'two ROIs are called "{names[key]}" and "{name}", which is one name once case, spaces, _ and - are '
                "folded; rename one",
            )
        names[key] = name
    with_contours = {key: name for key, name in names.items() if name not in empty}
    chosen: dict[str, str] = {}
    used: dict[str, AliasUse] = {}
    for structure in protocol.structures:
        hits = [with_contours[name] for name in structure.folded_names if name in with_contours]
        if hits:
            chosen[structure.name] = hits[0]
            if hits[0] != structure.name or len(hits) > 1:
                used[structure.name] = AliasUse(roi=hits[0], others=hits[1:])
    known = {alias: s.name for s in protocol.structures for alias in (s.name, *s.aliases)}
    body = {folded(name) for name in protocol.body_names}
    claimed = {name for s in protocol.structures for name in s.folded_names} | body
    unmatched = [
        Unmatched(roi=name, nearest=_nearest(name, known)) for key, name in names.items() if key not in claimed
    ]
    _check_absent(chosen, [item["roi"] for item in unmatched], empty, protocol, case_id)
    return NameMatch(chosen, used, unmatched)


def _check_absent(
    chosen: dict[str, str], unmatched: list[str], empty: Collection[str], protocol: Protocol, case_id: str
) -> None:
    absent = [structure for structure in protocol.structures if structure.name not in chosen]
    rule = protocol.skip_when
    covered = [structure for structure in absent if rule and structure.name in rule.any_absent]
    if rule and covered:
        what = "; ".join(_complaint(structure, unmatched, empty) for structure in covered)
        raise SkippedCase(case_id, f"{rule.reason}: {what}")
    required = [structure for structure in absent if structure.required]
    if required:
        what = "; ".join(_complaint(structure, unmatched, empty) for structure in required)
        raise BadCase(case_id, f"{what}. Rename it, or add the alias to {protocol.name}.yaml.")


def _complaint(structure: Structure, unmatched: list[str], empty: Collection[str]) -> str:
    hollow = [name for name in empty if folded(name) in structure.folded_names]
    if hollow:
        return f'the ROI "{hollow[0]}" of {structure.name} has no contours'
    aliases = f" (aliases {', '.join(structure.aliases)})" if structure.aliases else ""
    text = f"no ROI matches {structure.name}{aliases}"
    if unmatched:
        nearest = max(
            unmatched, key=lambda name: max(_likeness(name, alias) for alias in (structure.name, *structure.aliases))
        )
        text += f'; nearest is "{nearest}"'
    return text


def _likeness(first: str, second: str) -> float:
    return SequenceMatcher(None, folded(first), folded(second), autojunk=False).ratio()


def _nearest(name: str, known: Collection[str]) -> str:
    return max(known, key=lambda alias: _likeness(name, alias))
