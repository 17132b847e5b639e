"""One OpenKBP patient's folder of CSVs as a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.distance import signed_distance
from doseledger.dicom.source import source_digest
from doseledger.ingest.openkbp.files import Patient, read_patient
from doseledger.ingest.patient.case import Origin
from doseledger.ingest.patient.roi_names import NameMatch, match_names

# Raised when the same raw data give another case; part of every case's meta.
CONVERTER_VERSION = "openkbp-1"
# Stored CT values are Hounsfield units + 1000, cut at 0: the highest ones are 4071 and 3976, scanners' limits of 3071
# and 2976 HU, and the brainstem's median is 1030, where brain has about 30 HU.
CT_OFFSET_HU = 1000
# The 12 bits of a scanner; metal was stored beyond them for a few patients.
CT_MOST = 4095
# Halfway between air and water; the CT is already 0 outside the patient.
BODY_LEAST_HU = -500
# Smaller pieces than this, in no way connected to the patient, are the couch or a mask.
BODY_LEAST_PIECE_CC = 10.0


def convert_case(source: Path, origin: Origin, protocol: Protocol) -> Case:
    """Return the case of one OpenKBP patient.

    Parameters
    ----------
    source
        The patient's folder of CSVs, or a zip of it.
    origin
        Its name, `pt_N`, which is its pseudonym too, and what is known of it besides its files.
    protocol
        Which structures and prescription it has.

    Raises
    ------
    SkippedCase
        If the protocol's `skip_when` covers it.
    BadCase
        If a file or a required structure is absent, or a value can't be.
    """
    case_id = origin.case_id
    patient = read_patient(source, case_id)
    if protocol.has_dose and patient.dose_gy is None:
        raise BadCase(case_id, f"no dose.csv, and protocol {protocol.name} asks for a dose; copy it again")
    drawn = [name for name, mask in patient.masks.items() if mask.any()]
    match = match_names(drawn, [name for name in patient.masks if name not in drawn], protocol, case_id)
    nothing = np.zeros(patient.grid.shape_zyx, dtype=np.bool_)
    masks = [
        patient.masks[match.chosen[name]] if name in match.chosen else nothing for name in protocol.structure_names
    ]
    present = [name in match.chosen for name in protocol.structure_names]
    ct_hu = (np.clip(patient.ct_stored, 0, CT_MOST) - CT_OFFSET_HU).astype(np.int16)
    return Case(
        grid=patient.grid,
        ct_hu=ct_hu,
        structure_names=protocol.structure_names,
        masks=np.stack(masks),
        sdf_mm=np.stack([signed_distance(mask, patient.grid, protocol.sdf_clip_mm) for mask in masks]),
        present=np.asarray(present, dtype=np.bool_),
        body=find_body(ct_hu, patient.valid_dose, patient.grid),
        valid_dose=patient.valid_dose,
        full_shape_zyx=patient.grid.shape_zyx,
        crop_start_zyx=(0, 0, 0),
        meta=_meta(patient, origin, protocol, match) | {"source_sha256": origin.sha256 or source_digest(source)},
        dose_gy=patient.dose_gy if protocol.has_dose else None,
        prescription_gy={name: gy for name, gy in protocol.prescription_gy.items() if name in match.chosen},
        n_fractions=protocol.n_fractions if protocol.has_dose else None,
    )


def find_body(ct_hu: NDArray[np.int16], valid_dose: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
    """Return the patient's outline: tissue by a threshold and what may have a dose, airways filled slice by slice.

    Parameters
    ----------
    ct_hu
        (z, y, x).
    valid_dose
        The possible-dose mask: the challenge's own word that there is tissue.
    """
    solid = (ct_hu > BODY_LEAST_HU) | valid_dose
    filled = np.stack([ndimage.binary_fill_holes(layer) for layer in solid])
    pieces, _ = ndimage.label(filled)
    large = np.bincount(pieces.ravel()) * grid.voxel_volume_cc >= BODY_LEAST_PIECE_CC
    large[0] = False
    return np.asarray(large[pieces] | valid_dose, dtype=np.bool_)


def _meta(patient: Patient, origin: Origin, protocol: Protocol, match: NameMatch) -> dict[str, Any]:
    warnings = []
    beyond = int(np.count_nonzero((patient.ct_stored > CT_MOST) | (patient.ct_stored < 0)))
    if beyond:
        warnings.append(f"{beyond} CT values beyond 0 to {CT_MOST} (metal) were cut to that range")
    warnings += [f'"{name}" is no structure of {protocol.name}' for name in match.unmatched]
    return {
        "case_id": origin.case_id,
        "pseudonym": origin.case_id,
        "group": origin.group,
        "site": origin.site,
        "modality": protocol.modality,
        "protocol": protocol.name,
        "converter": CONVERTER_VERSION,
        "body_source": "threshold",
        "aliases_used": dict(match.used),
        "warnings": warnings,
        # Nothing is resampled here, so there is no second grid to compare with.
        "parity": {},
    }
