"""Absent structures of a case: outside the protocol, or lost under another name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from doseledger.core.errors import BadCase, SkippedCase
from doseledger.core.project.protocol import Protocol, Structure, folded
from doseledger.core.text.lists import first_of
from doseledger.ingest.names.clues import Clues
from doseledger.ingest.names.hints import DOSE_TOLERANCE_GY, Clue, Hint, find_hints

# How many unclaimed ROIs a message spells out.
MOST_NAMED = 8


@dataclass(frozen=True)
class Absence:
    """What a case lacks, and what it has instead.

    Parameters
    ----------
    free
        Drawn ROIs that no structure claims.
    chosen
        ROI by structure, of those that are there.
    """

    absent: list[Structure]
    free: list[str]
    hollow: list[str]
    chosen: Mapping[str, str]
    clues: Clues


def refuse_absent(absence: Absence, protocol: Protocol, case_id: str) -> None:
    """Refuse a case that lacks a structure which is required, or which `skip_when` covers.

    Raises
    ------
    SkippedCase
        If what `skip_when` names is absent, the plan knows nothing of it, and no unclaimed ROI may be it.
    BadCase
        If a required structure is absent: which names were tried, and which ROI may be meant.

    Notes
    -----
    A case is outside the protocol only if nothing says otherwise: a target under another name is a lost target.
    """
    hints = find_hints(absence.absent, [absence.clues.of(name) for name in absence.free], protocol)
    rule = protocol.skip_when
    covered = [structure for structure in absence.absent if rule and structure.name in rule.any_absent]
    signs = _signs(absence, covered, hints, protocol)
    if rule and covered and not signs:
        what = "; ".join(_complain(structure, absence, hints) for structure in covered)
        raise SkippedCase(case_id, f"{rule.reason}: {what}")
    lacking = [structure for structure in absence.absent if structure.required or structure in covered]
    if lacking:
        what = "; ".join(_complain(structure, absence, hints) for structure in lacking)
        if rule and signs:
            what += f'. It is not skipped as "{rule.reason}": {"; ".join(signs)}'
        raise BadCase(case_id, f"{what}. Rename it, or add the alias to {protocol.name}.yaml.")


def _complain(structure: Structure, absence: Absence, hints: Mapping[str, Hint]) -> str:
    hollow = [name for name in absence.hollow if folded(name) in structure.folded_names]
    aliases = f" (aliases {', '.join(structure.aliases)})" if structure.aliases else ""
    text = f"no ROI matches {structure.name}{aliases}"
    if hollow:
        text = f'the ROI "{hollow[0]}" of {structure.name} has no contours'
    hint = hints.get(structure.name)
    if hint is not None:
        return f'{text}; nearest is "{hint.roi}"' + (f" ({hint.why})" if hint.why else "")
    helps = [name for name in absence.free if _is_help_of(absence.clues.of(name), structure)]
    if helps:
        return f"{text}; only what was made for planning is named like it: {_quoted(helps)}"
    like = [name for name in absence.free if bool(absence.clues.of(name).target) == (structure.kind == "target")]
    return text if hollow or not like else f"{text}; unclaimed ROIs are {_quoted(like)}"


def _is_help_of(clue: Clue, structure: Structure) -> bool:
    return clue.parts.is_help and any(alias in folded(clue.name) for alias in structure.folded_names)


def _signs(absence: Absence, covered: list[Structure], hints: Mapping[str, Hint], protocol: Protocol) -> list[str]:
    """What says that a structure which `skip_when` covers was meant to be there."""
    targets = [structure.name for structure in covered if structure.kind == "target"]
    wanted_gy = [protocol.prescription_gy[name] for name in targets if name in protocol.prescription_gy]
    signs = []
    if targets:
        doses = _second_doses_gy(absence, wanted_gy, protocol)
        if doses:
            signs.append(f"the plan prescribes {' and '.join(f'{dose:g}' for dose in doses)} Gy besides")
        ptvs = [name for name in absence.free if _may_be_target(absence.clues.of(name), wanted_gy)]
        if ptvs:
            signs.append(f"unclaimed {'target is' if len(ptvs) == 1 else 'targets are'} {_quoted(ptvs)}")
    organs = [hints[s.name].roi for s in covered if s.kind == "organ" and s.name in hints]
    if organs:
        signs.append(f"{_quoted(organs)} may be it")
    return signs


def _second_doses_gy(absence: Absence, wanted_gy: list[float], protocol: Protocol) -> list[float]:
    """Doses that the plan prescribes beyond one for each target that is there, or to the absent one."""
    found = [gy for name, gy in protocol.prescription_gy.items() if name in absence.chosen]
    doses = sorted({target.dose_gy for target in absence.clues.targets})
    others = [dose for dose in doses if not _among(dose, found)]
    return others if len(doses) > len(found) else [dose for dose in others if _among(dose, wanted_gy)]


def _among(dose_gy: float, doses_gy: list[float]) -> bool:
    return any(abs(dose_gy - other) <= DOSE_TOLERANCE_GY for other in doses_gy)


def _may_be_target(clue: Clue, wanted_gy: list[float]) -> bool:
    """Whether an unclaimed ROI is a PTV, or a target or a planning help at the dose of an absent one."""
    said = (*clue.parts.doses_gy, *clue.doses_gy)
    at_dose = any(_among(dose, wanted_gy) for dose in said)
    return bool(clue.target or clue.doses_gy) and (at_dose or (clue.target == "PTV" and not clue.parts.is_help))


def _quoted(names: list[str]) -> str:
    return first_of([f'"{name}"' for name in sorted(names)], MOST_NAMED)
