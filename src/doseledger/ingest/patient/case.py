"""One patient's DICOM-RT on one grid, or a refusal that says why."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import MOST_OUTSIDE_PERCENT, Grid
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.read import Link
from doseledger.dicom.source import source_digest
from doseledger.ingest.patient.native_dvh import native_statistics
from doseledger.ingest.patient.place import Placed, place, place_structure
from doseledger.ingest.patient.read import Patient, read_patient

# Raised when the same raw data give another case; part of every case's meta.
CONVERTER_VERSION = "4"


@dataclass(frozen=True)
class Origin:
    """What is known of a case besides its files.

    Parameters
    ----------
    group, site
        What it is held together with in splits, and where it comes from.
    sha256
        Digest of its raw files; None to compute it.
    link
        How its objects are told to belong together, as `dicom.read.gather_objects` has it.
    """

    case_id: str
    group: str = "unknown"
    site: str = "unknown"
    sha256: str | None = None
    link: Link = "references"


@dataclass(frozen=True)
class Converted:
    """A case, and what its files call things.

    Parameters
    ----------
    names
        Each name that an alias could match, folded: an alias that is none of them changes nothing of the case. None
        where that is not known.
    """

    case: Case
    names: tuple[str, ...] | None = None


def convert_case(source: Path, origin: Origin, protocol: Protocol) -> Case:
    """Return the case of one folder or zip of DICOM; see `convert`."""
    return convert(source, origin, protocol).case


def convert(source: Path, origin: Origin, protocol: Protocol) -> Converted:
    """Return the case of one folder or zip of DICOM, and the names in its files.

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
    try:
        patient = read_patient(source, protocol, origin.case_id, origin.link)
        meta = _meta(origin, protocol, patient, origin.sha256 or source_digest(source))
        placed = place(patient.image, patient.body, patient.dose, protocol, origin.case_id)
        return Converted(_assemble(placed, patient, protocol, meta), patient.names)
    except BadInput as error:
        # A grid that no patient has: a spacing or a gap that can't be.
        raise BadCase(origin.case_id, str(error)) from error


def _meta(origin: Origin, protocol: Protocol, patient: Patient, sha256: str) -> dict[str, Any]:
    """What is known of a case before it lies on its grid."""
    pattern = protocol.phi.pseudonym if protocol.phi else ""
    dose, warnings = patient.dose, list(patient.warnings)
    if protocol.phi and not re.fullmatch(pattern, origin.case_id):
        warnings.append("the case's name does not match the protocol's pattern of pseudonyms; does it name a patient?")
    is_pseudonym = bool(patient.patient_id and re.fullmatch(pattern, patient.patient_id))
    # Only where it is not the usual: how objects were found is part of what a case is.
    link = {} if origin.link == "references" else {"link": origin.link}
    parity = {}
    if dose is not None:
        parity = {name: native_statistics(stack, patient.image.grid, dose) for name, stack in patient.stacks.items()}
    return {
        "case_id": origin.case_id,
        "pseudonym": patient.patient_id if is_pseudonym else origin.case_id,
        "group": origin.group,
        "site": origin.site,
        "modality": protocol.modality,
        "scanner": patient.scanner,
        "protocol": protocol.name,
        "source_sha256": sha256,
        "converter_version": CONVERTER_VERSION,
        "aliases_used": patient.aliases_used,
        "unmatched_rois": patient.unmatched_rois,
        "body_source": patient.body_source,
        "n_absent_images": patient.n_absent_images,
        "native_image_grid": _describe(patient.image.grid),
        "native_dose_grid": _describe(dose.grid) if dose is not None else None,
        "parity": parity,
        "plan": patient.plan,
        "warnings": warnings,
        **link,
    }


def _describe(grid: Grid) -> dict[str, Any]:
    return {key: list(value) for key, value in asdict(grid).items()}


def _assemble(placed: Placed, patient: Patient, protocol: Protocol, meta: dict[str, Any]) -> Case:
    """The case on its cropped grid; what became of each structure on it is added to meta."""
    case_id, warnings = str(meta["case_id"]), meta["warnings"]
    names = protocol.structure_names
    shape = placed.ct_hu[placed.box].shape
    masks = np.zeros((len(names), *shape), dtype=np.bool_)
    sdf_mm = np.full((len(names), *shape), protocol.sdf_clip_mm, dtype=np.float16)
    for index, name in enumerate(names):
        if name not in patient.stacks:
            continue
        placement = place_structure(patient.stacks[name], placed, protocol.sdf_clip_mm)
        if placement is None:
            reason = f"{name} has contours, but no voxel centre lies inside them: it is smaller than the grid"
            if protocol.structure(name).required:
                raise BadCase(case_id, f"{reason}; use a finer spacing_mm, or make it optional")
            warnings.append(f"{reason}; it is taken as absent")
            meta["parity"].pop(name, None)
            continue
        masks[index], sdf_mm[index] = placement.mask, placement.sdf_mm
        if name in meta["parity"]:
            meta["parity"][name]["outside_percent"] = placement.outside_percent
    _judge_reach(protocol, meta)
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
        n_fractions=patient.n_fractions,
    )


def _judge_reach(protocol: Protocol, meta: dict[str, Any]) -> None:
    """Say how much of each structure the dose grid misses; targets must lie within it."""
    shares = {name: found["outside_percent"] for name, found in meta["parity"].items()}
    beyond = {name: percent for name, percent in shares.items() if not keeps(percent, most=0.0)}
    lost = [
        f"{percent:.1f} % of {name}"
        for name, percent in beyond.items()
        if protocol.structure(name).kind == "target" and not keeps(percent, most=MOST_OUTSIDE_PERCENT)
    ]
    if lost:
        lie, them = ("lies", "it") if len(lost) == 1 else ("lie", "them")
        raise BadCase(
            str(meta["case_id"]),
            f"{' and '.join(lost)} {lie} beyond the RTDOSE grid; compute the dose on a grid that holds {them}",
        )
    meta["warnings"] += [f"{percent:.1f} % of {name} lies beyond the RTDOSE grid" for name, percent in beyond.items()]
