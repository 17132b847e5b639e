"""One patient's DICOM-RT, checked as a whole before it is resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol, folded
from doseledger.dicom.contours import Contour, Stack, beyond_image, stack_contours
from doseledger.dicom.dose_parts import read_parts
from doseledger.dicom.plan.check import check_rtplan
from doseledger.dicom.plan.read import read_prescription, summarise_plan
from doseledger.dicom.privacy.phi import refuse_phi
from doseledger.dicom.read import CaseObjects, Link, gather_objects
from doseledger.dicom.read_dose import Dose
from doseledger.dicom.read_image import AIR_HU, Image, read_image, read_scanner
from doseledger.dicom.read_structures import Roi, read_contours, read_rois
from doseledger.dicom.source import SourceFile, lenient, scan_source
from doseledger.dicom.values import MALFORMED, text_of
from doseledger.ingest.body import BODY_THRESHOLD_HU, find_body_roi
from doseledger.ingest.names.clues import gather_clues
from doseledger.ingest.patient.prescription import check_prescription
from doseledger.ingest.patient.roi_names import AliasUse, NameMatch, match_names

# One attribute that is wrong at each control point of an arc is one fault, not two hundred.
MOST_FAULTS = 20


@dataclass(frozen=True)
class Patient:
    """What a protocol needs of one patient, each on the grid that it came on.

    Parameters
    ----------
    patient_id
        Patient ID as it stands in the image.
    scanner
        What the image says of its scanner, from `read_image.read_scanner`.
    image, dose
        Dose is None where the protocol asks for none.
    stacks
        Planes of contours by structure, of those that are there, in the protocol's order.
    body, body_source
        Planes of the outline, None where it must be found in the image; and where it comes from.
    n_fractions
        The plan's where there is one, else the protocol's.
    plan
        Summary of the plan, and under `faults` what `check_rtplan` says is wrong with it; None without one.
    n_absent_images
        Images that the structure set names and that are not there.
    aliases_used
        From `roi_names.match_names`.
    unmatched_rois
        Drawn or not, the ROIs that no structure claims: `roi`, and `type` where the structure set gives one.
    warnings
        Everything odd that is no reason to refuse.
    names
        What ROIs and the plan's targets are called, folded: all that aliases are compared with.
    """

    patient_id: str
    scanner: dict[str, str]
    image: Image
    dose: Dose | None
    stacks: dict[str, Stack]
    body: Stack | None
    body_source: str
    n_fractions: int | None
    plan: dict[str, Any] | None
    n_absent_images: int
    aliases_used: dict[str, AliasUse]
    unmatched_rois: list[dict[str, str]]
    warnings: list[str]
    names: tuple[str, ...]


def read_patient(source: Path, protocol: Protocol, case_id: str, link: Link = "references") -> Patient:
    """Return what a protocol needs of the patient in a folder or zip.

    Parameters
    ----------
    source
        Folder or zip of one patient.
    link
        How objects are told to belong together, as `gather_objects` has it.

    Raises
    ------
    SkippedCase
        If the protocol's `skip_when` covers the patient, and nothing identifies them.
    BadCase
        If anything identifies the patient, or anything needed is missing, malformed or inconsistent.
    """
    with lenient() as heard:
        scan = scan_source(source)
        identifying = None
        try:
            refuse_phi(scan.files, protocol.phi, case_id)
        except BadCase as error:
            identifying = error
        try:
            patient = _read_checked(scan.files, protocol, case_id, link)
        except BadCase as error:
            if identifying is None:
                raise
            # Both are said at once: whoever mends the export should not find the second complaint a day later. A
            # finding outweighs a skip: what identifies a patient never counts as sound.
            raise BadCase(case_id, f"{error.reason.rstrip('.')}. Besides, it {identifying.reason}") from error
        except BadInput as error:
            # A grid that can't be: larger than any patient's, say.
            raise BadCase(case_id, f"malformed DICOM: {error}; export the patient again") from error
        except MALFORMED as error:
            # Only a missing attribute's name is repeated: the text of other errors may hold a value.
            what = f": {error}" if isinstance(error, AttributeError) else ""
            raise BadCase(
                case_id, f"malformed DICOM ({type(error).__name__}{what}); export the patient again"
            ) from error
    if identifying is not None:
        raise identifying
    patient.warnings.extend([*scan.notes, *heard.notes()])
    if scan.strangers:
        patient.warnings.append(f"{len(scan.strangers)} files are no DICOM and were left out")
    return patient


def _read_checked(files: list[SourceFile], protocol: Protocol, case_id: str, link: Link) -> Patient:
    objects = gather_objects(files, protocol.objects, protocol.modality, case_id, link)
    warnings = list(objects.warnings)
    rois = read_rois(objects.rtstruct, case_id) if objects.rtstruct is not None else []
    # The image first: what is skipped for its structures must be sound otherwise.
    image = read_image(objects.slices, case_id, objects.absent_note)
    warnings += image.notes
    if image.n_padded:
        warnings.append(f"{image.n_padded} padding pixels were set to {AIR_HU} HU")
    match = match_rois(rois, objects.rtplan, protocol, case_id)
    n_fractions = protocol.n_fractions
    if objects.rtplan is not None:
        n_fractions, notes = check_prescription(objects.rtplan, rois, match, protocol, case_id)
        warnings += notes
    rois_here = [roi for roi in rois if _in_frame(roi, objects)]
    try:
        stacks = _read_stacks(rois_here, match, image.grid, protocol, case_id, warnings)
    except BadCase as error:
        note = f"; {objects.absent_note}" if objects.absent_note else ""
        raise BadCase(case_id, f"{error.reason}{note}") from error
    dose = None
    if objects.dose_parts:
        dose, notes = read_parts(objects.dose_parts, objects.dose_plan, case_id)
        warnings += notes
    body_roi = find_body_roi(rois_here, protocol)
    body = _read_outline(body_roi, image.grid, case_id, warnings) if body_roi is not None else None
    return Patient(
        patient_id=text_of(objects.slices[0], "PatientID"),
        scanner=read_scanner(objects.slices),
        image=image,
        dose=dose,
        stacks=stacks,
        body=body,
        body_source=f"ROI {body_roi.name}" if body_roi is not None else f"threshold {BODY_THRESHOLD_HU} HU",
        n_fractions=n_fractions,
        plan=_describe_plan(objects.rtplan) if objects.rtplan is not None else None,
        n_absent_images=objects.n_absent_images,
        aliases_used=match.used,
        unmatched_rois=_describe_unmatched(rois, match, body_roi),
        warnings=warnings,
        names=_names(rois, objects.rtplan, case_id),
    )


def _names(rois: list[Roi], rtplan: Dataset | None, case_id: str) -> tuple[str, ...]:
    targets = read_prescription(rtplan, case_id).targets if rtplan is not None else ()
    said = [*(roi.name for roi in rois), *(target.description for target in targets)]
    return tuple(sorted({folded(name) for name in said}))


def match_rois(rois: list[Roi], rtplan: Dataset | None, protocol: Protocol, case_id: str) -> NameMatch:
    """Return which ROI stands for each structure, with all that a structure set and a plan know of them.

    Raises
    ------
    BadCase, SkippedCase
        As `roi_names.match_names`.
    """
    drawn = [roi.name for roi in rois if roi.items]
    hollow = [roi.name for roi in rois if roi.name not in drawn]
    return match_names(
        [*drawn, *hollow], hollow, protocol, case_id, lambda names: gather_clues(rois, rtplan, protocol, case_id, names)
    )


def _describe_unmatched(rois: list[Roi], match: NameMatch, body: Roi | None) -> list[dict[str, str]]:
    kinds = {roi.name: roi.interpreted_type for roi in rois}
    names = [name for name in match.unmatched if body is None or name != body.name]
    return [{"roi": name, **({"type": kinds[name]} if kinds[name] else {})} for name in names]


def _describe_plan(rtplan: Dataset) -> dict[str, Any]:
    """The plan's summary and faults; these fail no conversion: the data gate decides."""
    summary: dict[str, Any] = {}
    try:
        faults = check_rtplan(rtplan)
    except BadInput as error:
        faults = [f"The plan can't be checked: {error}."]
    except MALFORMED as error:
        # As above, only the kind of error is repeated: its text may hold a value.
        faults = [f"The plan is so malformed that it can't be checked ({type(error).__name__})."]
    try:
        summary = summarise_plan(rtplan)
    except BadInput as error:
        faults = faults or [f"The plan can't be summarised: {error}."]
    more = len(faults) - MOST_FAULTS
    listed = [*faults[:MOST_FAULTS], f"And {more} faults more."] if more > 0 else faults
    return {**summary, "faults": listed}


def _in_frame(roi: Roi, objects: CaseObjects) -> bool:
    """Whether an ROI is drawn in the image's frame of reference, as far as either says."""
    frame = text_of(objects.slices[0], "FrameOfReferenceUID")
    return not roi.frame_of_reference_uid or not frame or roi.frame_of_reference_uid == frame


def _read_stacks(
    rois: list[Roi], match: NameMatch, image_grid: Grid, protocol: Protocol, case_id: str, warnings: list[str]
) -> dict[str, Stack]:
    """Planes of the protocol's structures, those that are there; warnings are added to the list."""
    by_name = {roi.name: roi for roi in rois if roi.items}
    stacks: dict[str, Stack] = {}
    for structure in protocol.structures:
        name = match.chosen.get(structure.name)
        if name is None:
            continue
        try:
            if name not in by_name:
                raise BadCase(case_id, f"{name} is drawn in another frame of reference than the image; register it")
            polygons = _read_polygons(by_name[name], case_id, warnings)
            stacks[structure.name], notes = stack_contours(polygons, image_grid, case_id, structure.name)
            warnings += notes
        except BadCase as error:
            # An optional structure that can't be had whole is absent, and said to be: never there in part.
            if structure.required:
                raise
            warnings.append(f"{structure.name} is taken as absent: {error.reason}")
    return stacks


def _read_outline(roi: Roi, image_grid: Grid, case_id: str, warnings: list[str]) -> Stack:
    """Planes of the outline; unlike a structure it may go on beyond the image, as the patient does."""
    polygons = _read_polygons(roi, case_id, warnings)
    beyond = beyond_image(np.asarray([z for z, _ in polygons]), image_grid)
    within = [contour for contour, is_beyond in zip(polygons, beyond, strict=True) if not is_beyond]
    if len(within) < len(polygons):
        warnings.append(f"{len(polygons) - len(within)} contours of {roi.name} lie beyond the image and were left out")
    if not within:
        raise BadCase(case_id, f"all contours of {roi.name} lie beyond the image; export the whole series")
    stack, notes = stack_contours(within, image_grid, case_id, roi.name)
    warnings += notes
    return stack


def _read_polygons(roi: Roi, case_id: str, warnings: list[str]) -> list[Contour]:
    """An ROI's closed contours; what was left out is added to the warnings."""
    contours = read_contours(roi, case_id)
    warnings += contours.notes(roi.name)
    if not contours.polygons:
        raise BadCase(case_id, f"{roi.name} has no closed contour; draw it, or delete the ROI")
    return contours.polygons
