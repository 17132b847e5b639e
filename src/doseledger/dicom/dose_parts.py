"""RTDOSE files of one plan: a volume, planes to stack, or beams to sum."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pydicom

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid, resample_linear
from doseledger.core.text.lists import first_of
from doseledger.dicom.pixels import n_frames
from doseledger.dicom.plan.beams import metersets, treatment_beams
from doseledger.dicom.read_dose import PLAN, Dose, read_dose, stack_planes
from doseledger.dicom.source import in_file, label_of
from doseledger.dicom.values import items_of, text_of, whole

BEAM, FRACTION = "BEAM", "FRACTION"
# What is summed, the coarser first: the dose of a fraction group holds those of its beams.
SUMMED = (FRACTION, BEAM)
MOST_NAMED = 5


def choose_parts(doses: list[pydicom.Dataset], plans: list[pydicom.Dataset], case_id: str) -> list[pydicom.Dataset]:
    """Return the files that the dose of a whole plan is made of: one volume, or all its planes, or all its beams.

    Parameters
    ----------
    plans
        The plans that may be the treated one: a dose of another plan gives way.

    Raises
    ------
    BadCase
        If more than one dose of a plan is there, or none and nothing that could be summed.
    """
    if len(doses) == 1:
        return doses
    plan_uids = {text_of(plan, "SOPInstanceUID") for plan in plans}
    kinds: dict[str, list[pydicom.Dataset]] = {}
    for dose in doses:
        with in_file(dose, case_id):
            kinds.setdefault(text_of(dose, "DoseSummationType"), []).append(dose)
    whole_plan = _of_plans(kinds.get(PLAN, []), plan_uids)
    volumes = [dose for dose in whole_plan if not _is_plane(dose)]
    if len(volumes) > 1:
        raise BadCase(
            case_id,
            f"{len(volumes)} files could be the RTDOSE of a whole plan, wanted one{_names(volumes, ': ')}; leave only "
            "the treated one",
        )
    summed = {kind: _of_plans(kinds.get(kind, []), plan_uids) for kind in SUMMED}
    exact = [found for kind, found in summed.items() if any(_is_exact(found, kind, plan) for plan in plans)]
    for found in (volumes, whole_plan, *exact, *summed.values()):
        if found:
            return found
    said = ", ".join(f"{len(items)} of {kind or 'none'}" for kind, items in sorted(kinds.items()))
    raise BadCase(
        case_id, f"found {len(doses)} RTDOSE, by DoseSummationType {said}; wanted one of PLAN: export the plan's dose"
    )


def _is_exact(parts: list[pydicom.Dataset], kind: str, plan: pydicom.Dataset) -> bool:
    """Whether some doses are those of all beams, or of all fraction groups, of a plan."""
    try:
        return bool(parts and _by_number(parts, kind, plan, ""))
    except BadCase:
        return False


def _of_plans(doses: list[pydicom.Dataset], plan_uids: set[str]) -> list[pydicom.Dataset]:
    """Those doses that refer to one of some plans; all where none does."""
    return [dose for dose in doses if _plan_references(dose) & plan_uids] or doses


def _plan_references(dose: pydicom.Dataset) -> set[str]:
    items = items_of(dose, "ReferencedRTPlanSequence")
    return {text_of(item, "ReferencedSOPInstanceUID") for item in items} - {""}


def _is_plane(dose: pydicom.Dataset) -> bool:
    try:
        return n_frames(dose) == 1
    except BadInput:
        # Whoever reads it says what is wrong.
        return False


def read_parts(parts: list[pydicom.Dataset], rtplan: pydicom.Dataset | None, case_id: str) -> tuple[Dose, list[str]]:
    """Return the total dose of a plan in Gy, and notes of how it was put together.

    Parameters
    ----------
    parts
        From `choose_parts`.
    rtplan
        The plan that they are of; without it only a dose of a whole plan is one.

    Raises
    ------
    BadCase
        As `read_dose` does; or naming the beams or fraction groups that are missing, there twice, or not named.

    Notes
    -----
    By DICOM PS3.3 C.8.8.3 a dose of BEAM or FRACTION is that of the *entire delivery* of the beams or of the fraction
    group, so the plan's dose is their plain sum. It is taken on their own grid; on grids that differ, on the first
    one's within the box that all of them cover.
    """
    with in_file(parts[0], case_id):
        kind = text_of(parts[0], "DoseSummationType")
    if kind not in SUMMED:
        if len(parts) == 1:
            return read_dose(parts[0], case_id), []
        _check_one_plan(parts, case_id)
        return stack_planes(parts, case_id), [f"the dose was stacked from {len(parts)} RTDOSE files of one plane each"]
    groups = _by_number(parts, kind, rtplan, case_id)
    doses = [
        read_dose(files[0], case_id, kind) if len(files) == 1 else stack_planes(files, case_id, kind)
        for files in groups.values()
    ]
    numbers = ", ".join(str(number) for named in groups for number in named)
    what = "beams" if kind == BEAM else "fraction groups"
    notes = [f"the dose is the sum of {len(doses)} RTDOSE of DoseSummationType {kind}: {what} {numbers}"]
    total = _summed(doses, case_id)
    if not all(dose.grid.same_as(doses[0].grid) for dose in doses):
        notes.append(f"the doses lie on different grids and were resampled to that of {what} {next(iter(groups))[0]}")
    return total, notes


def _check_one_plan(parts: list[pydicom.Dataset], case_id: str) -> None:
    plans = {tuple(sorted(_plan_references(part))) for part in parts}
    frames = {text_of(part, "FrameOfReferenceUID") for part in parts}
    if len(plans) > 1 or len(frames) > 1:
        raise BadCase(
            case_id,
            f"found {len(parts)} RTDOSE of one plane each, which refer to {len(plans)} plans in {len(frames)} frames "
            "of reference; wanted all planes of one dose",
        )


def _by_number(
    parts: list[pydicom.Dataset], kind: str, rtplan: pydicom.Dataset | None, case_id: str
) -> dict[tuple[int, ...], list[pydicom.Dataset]]:
    """Files by the beams, or the fraction group, that they are the dose of: together exactly the plan's."""
    what = "beams" if kind == BEAM else "fraction groups"
    intro = f"found {len(parts)} RTDOSE of DoseSummationType {kind}{_names(parts, ' (', ')')}, wanted one of PLAN"
    advice = "export the plan's total dose"
    if rtplan is None:
        raise BadCase(case_id, f"{intro}; they can be summed only beside the RTPLAN that they are of. Export it too")
    with in_file(rtplan, case_id):
        wanted = _numbers_of_plan(rtplan, kind)
        uid = text_of(rtplan, "SOPInstanceUID")
    groups: dict[tuple[int, ...], list[pydicom.Dataset]] = {}
    silent = []
    for part in parts:
        with in_file(part, case_id):
            numbers = _numbers_of_dose(part, kind, uid)
        if not numbers and kind == FRACTION and len(parts) == len(wanted) == 1 and uid in _plan_references(part):
            numbers = tuple(wanted)
        if numbers:
            groups.setdefault(numbers, []).append(part)
        else:
            silent.append(part)
    if silent:
        raise BadCase(
            case_id,
            f"{intro}; {len(silent)} of them{_names(silent, ' (', ')')} name no {what} of this RTPLAN, so nobody knows "
            f"what their sum would be: {advice}",
        )
    found = Counter(number for named in groups for number in named)
    wrong = [
        *(f"{number} is missing" for number in sorted(wanted - set(found))),
        *(f"{number} is not in the plan" for number in sorted(set(found) - wanted)),
        *(f"{number} is there {count} times" for number, count in sorted(found.items()) if count > 1),
        *(
            f"{', '.join(map(str, named))} has {len(files)} files"
            for named, files in sorted(groups.items())
            if len(files) > 1 and not all(map(_is_plane, files))
        ),
    ]
    if wrong:
        of_plan = ", ".join(map(str, sorted(wanted)))
        raise BadCase(case_id, f"{intro}; of the plan's {what} {of_plan}: {'; '.join(wrong)}. {advice.capitalize()}")
    return dict(sorted(groups.items()))


def _numbers_of_plan(rtplan: pydicom.Dataset, kind: str) -> set[int]:
    """Numbers of the plan's treating beams that a fraction group gives a meterset, or of its fraction groups."""
    groups = items_of(rtplan, "FractionGroupSequence")
    if kind == FRACTION:
        return {whole(group, "FractionGroupNumber") for group in groups}
    given = {number for group in groups for number in metersets(group)}
    treating = {whole(beam, "BeamNumber") for beam in treatment_beams(rtplan)}
    return treating & given if given else treating


def _numbers_of_dose(dose: pydicom.Dataset, kind: str, plan_uid: str) -> tuple[int, ...]:
    """Beams or fraction groups of a plan that a dose says it is of."""
    groups = [
        group
        for item in items_of(dose, "ReferencedRTPlanSequence")
        if text_of(item, "ReferencedSOPInstanceUID") == plan_uid
        for group in items_of(item, "ReferencedFractionGroupSequence")
    ]
    if kind == FRACTION:
        numbers = [whole(group, "ReferencedFractionGroupNumber") for group in groups]
    else:
        beams = [beam for group in groups for beam in items_of(group, "ReferencedBeamSequence")]
        numbers = [whole(beam, "ReferencedBeamNumber") for beam in beams]
    return tuple(sorted(numbers))


def _summed(doses: list[Dose], case_id: str) -> Dose:
    grid = doses[0].grid
    if not all(dose.grid.same_as(grid) for dose in doses):
        grid = _covered_by_all([dose.grid for dose in doses], case_id)
    total = np.zeros(grid.shape_zyx, dtype=np.float64)
    for dose in doses:
        if dose.grid.same_as(grid):
            total += dose.dose_gy
        else:
            total += resample_linear(dose.dose_gy, dose.grid, grid, 0.0)
    return Dose(total.astype(np.float32), grid)


def _covered_by_all(grids: list[Grid], case_id: str) -> Grid:
    """The first grid, without the planes of voxels that another one does not reach."""
    first = grids[0]
    low = np.max([grid.extent_mm[0] for grid in grids], axis=0)
    high = np.min([grid.extent_mm[1] for grid in grids], axis=0)
    start = np.ceil(first.mm_to_index(low) - 1e-3).astype(int)
    stop = np.floor(first.mm_to_index(high) + 1e-3).astype(int) + 1
    if np.any(stop - start < 1):
        raise BadCase(case_id, "the RTDOSE to be summed cover no place in common; export the plan's total dose")
    z, y, x = (int(value) for value in start)
    depth, height, width = (int(value) for value in stop - start)
    return first.cropped((z, y, x), (depth, height, width))


def _names(datasets: list[pydicom.Dataset], before: str, after: str = "") -> str:
    labels = [label for label in map(label_of, datasets) if label]
    if not labels:
        return ""
    return f"{before}{first_of(labels, MOST_NAMED)}{after}"
