"""One patient's DICOM-RT -> one Case: everything onto one grid, or a refusal that says why."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.cohort.body import BODY_THRESHOLD_HU, find_body_roi
from doseledger.cohort.native_dvh import native_statistics
from doseledger.cohort.place import Placed, place, place_structure
from doseledger.cohort.prescription import check_prescription
from doseledger.cohort.roi_names import NameMatch, match_names
from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.protocol import Protocol
from doseledger.dicom.contours import Stack, stack_contours
from doseledger.dicom.phi import refuse_phi
from doseledger.dicom.read import CaseObjects, gather_objects
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_image import AIR_HU, read_image
from doseledger.dicom.read_plan import summarise_plan
from doseledger.dicom.read_structures import Roi, read_contours, read_rois
from doseledger.dicom.source import lenient, read_source, source_digest

# Raised when the same raw data give another case; part of every case's meta.
CONVERTER_VERSION = "1"
# A target that reaches beyond the dose grid by more than this part of its volume has no DVH.
MOST_TARGET_OUTSIDE_PERCENT = 0.1


@dataclass(frozen=True)
class Origin:
    """What is known of a case besides its files.

    Parameters
    ----------
    case_id
        Its name.
    group, site
        What it is held together with in splits, and where it comes from.
    sha256
        Digest of its raw files; None to compute it.
    """

    case_id: str
    group: str = "unknown"
    site: str = "unknown"
    sha256: str | None = None


@dataclass(frozen=True)
class _Drawn:
    """What the structure set holds of the protocol: planes of contours by structure, and the outline's."""

    stacks: dict[str, Stack]
    body: Stack | None
    body_source: str
    match: NameMatch


def convert_case(source: Path, origin: Origin, protocol: Protocol) -> Case:
    """Return the case of one folder or zip of DICOM.

    Parameters
    ----------
    source
        Folder or zip of one patient.
    origin
        Its name and what is known of it besides its files.
    protocol
        Which objects and structures it needs, and its grid.

    Raises
    ------
    SkippedCase
        If the protocol's `skip_when` covers it.
    BadCase
        If anything identifies the patient, or anything needed is missing, inconsistent or can't be resampled honestly.
    """
    case_id = origin.case_id
    warnings: list[str] = []
    with lenient():
        files, strangers = read_source(source)
        if strangers:
            warnings.append(f"{len(strangers)} files are no DICOM and were left out")
        refuse_phi(files, protocol.phi, case_id)
        objects = gather_objects(files, protocol.objects, protocol.modality, case_id)
        warnings += objects.warnings
        rois = read_rois(objects.rtstruct, case_id) if objects.rtstruct is not None else []
        match = match_names([roi.name for roi in rois], {roi.name for roi in rois if not roi.items}, protocol, case_id)
        image = read_image(objects.slices, case_id, objects.absent_note)
        if image.n_padded:
            warnings.append(f"{image.n_padded} padding pixels were set to {AIR_HU} HU")
        if objects.rtplan is not None:
            warnings += check_prescription(objects.rtplan, rois, match, protocol, case_id)
        frame = str(objects.slices[0].get("FrameOfReferenceUID") or "")
        drawn = _read_drawn([_in_frame(roi, frame) for roi in rois], match, image.grid, protocol, case_id, warnings)
        dose = read_dose(objects.rtdose, case_id) if objects.rtdose is not None else None
        meta = _meta(origin, protocol, objects, warnings)
    placed = place(image, drawn.body, dose, protocol, case_id)
    meta |= {
        "source_sha256": origin.sha256 or source_digest(source),
        "aliases_used": drawn.match.used,
        "unmatched_rois": drawn.match.unmatched,
        "body_source": drawn.body_source,
        "native_image_grid": _describe(image.grid),
        "native_dose_grid": _describe(dose.grid) if dose is not None else None,
        "parity": {name: native_statistics(stack, image.grid, dose) for name, stack in drawn.stacks.items()}
        if dose is not None
        else {},
    }
    return _assemble(placed, drawn, protocol, meta)


def _in_frame(roi: Roi, frame: str) -> tuple[Roi, bool]:
    """An ROI, and whether it is drawn in the image's frame of reference, as far as is said."""
    return roi, not (roi.frame_of_reference_uid and frame and roi.frame_of_reference_uid != frame)


def _read_drawn(
    rois: list[tuple[Roi, bool]],
    match: NameMatch,
    image_grid: Grid,
    protocol: Protocol,
    case_id: str,
    warnings: list[str],
) -> _Drawn:
    """Contours of the protocol's structures, those that are there, as planes; warnings are added to the list."""
    by_name = {roi.name: (roi, here) for roi, here in rois}
    stacks: dict[str, Stack] = {}
    for structure in protocol.structures:
        if structure.name not in match.chosen:
            continue
        roi, here = by_name[match.chosen[structure.name]]
        if not here:
            raise BadCase(case_id, f"{roi.name} is drawn in another frame of reference than the image; register it")
        try:
            stacks[structure.name] = _stack(roi, structure.name, image_grid, case_id, warnings)
        except BadCase as error:
            # An optional structure that can't be had whole is absent, said aloud: never there in part.
            if structure.required:
                raise
            warnings.append(f"{structure.name} is taken as absent: {error.reason}")
    body_roi = find_body_roi([roi for roi, here in rois if here], protocol)
    if body_roi is None:
        return _Drawn(stacks, None, f"threshold {BODY_THRESHOLD_HU} HU", match)
    body = _stack(body_roi, body_roi.name, image_grid, case_id, warnings, cut=True)
    unmatched = [item for item in match.unmatched if item["roi"] != body_roi.name]
    return _Drawn(stacks, body, f"ROI {body_roi.name}", replace(match, unmatched=unmatched))


def _stack(roi: Roi, name: str, image_grid: Grid, case_id: str, warnings: list[str], *, cut: bool = False) -> Stack:
    """An ROI's planes; `cut` leaves out what lies beyond the image, as an outline may."""
    contours = read_contours(roi, case_id)
    polygons = contours.polygons
    if contours.n_ignored:
        warnings.append(
            f"{contours.n_ignored} contours of {roi.name} enclose nothing (points or open) and were left out"
        )
    if contours.n_repeated:
        warnings.append(f"{contours.n_repeated} contours of {roi.name} are exact repeats and count once")
    if cut:
        half = image_grid.spacing_mm[0] / 2
        low, high = image_grid.extent_mm[0][0] - half, image_grid.extent_mm[1][0] + half
        within = [(z, points) for z, points in polygons if low <= z <= high]
        if len(within) < len(polygons):
            warnings.append(
                f"{len(polygons) - len(within)} contours of {roi.name} lie beyond the image and were left out"
            )
        polygons = within
    if not polygons:
        raise BadCase(case_id, f"{roi.name} has no closed contour; draw it, or delete the ROI")
    stack, notes = stack_contours(polygons, image_grid, case_id, name)
    warnings.extend(notes)
    return stack


def _meta(origin: Origin, protocol: Protocol, objects: CaseObjects, warnings: list[str]) -> dict[str, Any]:
    """What is known of a case before it lies on its grid. The list of warnings is shared, and grows on."""
    patient = str(objects.slices[0].get("PatientID") or "")
    pattern = protocol.phi.pseudonym if protocol.phi else ""
    if not re.fullmatch(pattern, origin.case_id):
        warnings.append("the case's name does not match the protocol's pattern of pseudonyms; does it name a patient?")
    return {
        "case_id": origin.case_id,
        "pseudonym": patient if patient and re.fullmatch(pattern, patient) else origin.case_id,
        "group": origin.group,
        "site": origin.site,
        "modality": protocol.modality,
        "protocol": protocol.name,
        "converter_version": CONVERTER_VERSION,
        "n_absent_images": objects.n_absent_images,
        "plan": summarise_plan(objects.rtplan) if objects.rtplan is not None else None,
        "warnings": warnings,
    }


def _describe(grid: Grid) -> dict[str, Any]:
    return {key: list(value) for key, value in asdict(grid).items()}


def _assemble(placed: Placed, drawn: _Drawn, protocol: Protocol, meta: dict[str, Any]) -> Case:
    """The case on its cropped grid; what became of each structure on it is added to meta."""
    case_id, warnings = str(meta["case_id"]), meta["warnings"]
    names = protocol.structure_names
    shape = placed.ct_hu[placed.box].shape
    masks = np.zeros((len(names), *shape), dtype=np.bool_)
    sdf_mm = np.full((len(names), *shape), protocol.sdf_clip_mm, dtype=np.float16)
    for index, name in enumerate(names):
        if name not in drawn.stacks:
            continue
        placement = place_structure(drawn.stacks[name], placed, protocol.sdf_clip_mm)
        if placement is None:
            reason = f"{name} has contours, but no voxel centre lies inside them: it is smaller than the grid"
            if protocol.structure(name).required:
                raise BadCase(case_id, f"{reason}; use a finer spacing_mm, or make it optional")
            warnings.append(f"{reason}; it is taken as absent")
            meta["parity"].pop(name, None)
            continue
        masks[index], sdf_mm[index] = placement.mask, placement.sdf_mm
        _note_coverage(name, placement.outside_percent, protocol, meta)
    present = np.asarray([mask.any() for mask in masks], dtype=np.bool_)
    targets = [name for name, there in zip(names, present, strict=True) if there and name in protocol.prescription_gy]
    body = np.ascontiguousarray(placed.body[placed.box])
    start = (placed.box[0].start, placed.box[1].start, placed.box[2].start)
    return Case(
        grid=placed.grid.cropped(start, (shape[0], shape[1], shape[2])),
        ct_hu=np.ascontiguousarray(placed.ct_hu[placed.box]),
        structure_names=names,
        masks=masks,
        sdf_mm=sdf_mm,
        present=present,
        body=body,
        # Beyond the dose grid nothing is known: a zero there is no dose.
        valid_dose=body & placed.covered[placed.box],
        full_shape_zyx=placed.grid.shape_zyx,
        crop_start_zyx=start,
        meta=meta,
        dose_gy=np.ascontiguousarray(placed.dose_gy[placed.box]) if placed.dose_gy is not None else None,
        prescription_gy={name: protocol.prescription_gy[name] for name in targets},
        n_fractions=protocol.n_fractions,
    )


def _note_coverage(name: str, outside_percent: float, protocol: Protocol, meta: dict[str, Any]) -> None:
    """Say how much of a structure the dose grid misses; a target must lie within it."""
    if name not in meta["parity"]:
        return
    meta["parity"][name]["outside_percent"] = outside_percent
    if protocol.structure(name).kind == "target" and outside_percent > MOST_TARGET_OUTSIDE_PERCENT:
        raise BadCase(
            str(meta["case_id"]),
            f"{outside_percent:.1f} % of {name} lies beyond the RTDOSE grid; compute the dose on a grid that holds it",
        )
    if outside_percent > 0:
        meta["warnings"].append(f"{outside_percent:.1f} % of {name} lies beyond the RTDOSE grid")
