"""The summary of a case that `doseledger case show` prints."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case


def describe_case(case: Case) -> dict[str, Any]:
    """Return a summary of a case as JSON values: grid in mm, structures in cm³, dose in Gy, prescription, source.

    Parameters
    ----------
    case
        A loaded case.

    Returns
    -------
    dict
        `case_id`, `grid`, `image`, `structures` ({name: {present, voxels, volume_cc, …}}), `body`, `dose` (None where
        the case has none), `prescription_gy`, `n_fractions`, `source_sha256`, `warnings` and the rest of `meta`.
    """
    warnings = case.meta.get("warnings", [])
    named = ("case_id", "source_sha256", "warnings")
    return {
        "case_id": case.case_id,
        "grid": _describe_grid(case),
        "image": {"modality": case.meta.get("modality"), **_range(case.ct_hu[case.body], "hu")},
        "structures": {name: _describe_structure(case, name) for name in case.structure_names},
        "body": {"voxels": int(case.body.sum()), "volume_cc": _volume_cc(case, case.body)},
        "dose": _describe_dose(case),
        "prescription_gy": dict(case.prescription_gy),
        "n_fractions": case.n_fractions,
        "source_sha256": case.meta.get("source_sha256"),
        "warnings": list(warnings),
        "meta": {key: value for key, value in case.meta.items() if key not in named},
    }


def _describe_grid(case: Case) -> dict[str, Any]:
    first, last = case.grid.extent_mm
    return {
        "axes": "z, y, x; LPS (+x left, +y posterior, +z head)",
        "shape_zyx": list(case.grid.shape_zyx),
        "spacing_mm": list(case.grid.spacing_mm),
        "origin_mm": list(first),
        "last_voxel_mm": list(last),
        "voxel_volume_cc": case.grid.voxel_volume_cc,
        "full_shape_zyx": list(case.full_shape_zyx),
        "crop_start_zyx": list(case.crop_start_zyx),
    }


def _describe_structure(case: Case, name: str) -> dict[str, Any]:
    index = case.structure_names.index(name)
    mask = case.masks[index]
    summary: dict[str, Any] = {
        "present": bool(case.present[index]),
        "voxels": int(mask.sum()),
        "volume_cc": _volume_cc(case, mask),
    }
    if mask.any():
        centre = case.grid.index_to_mm(np.argwhere(mask).mean(axis=0))
        summary["centre_mm"] = [float(value) for value in centre]
        if case.dose_gy is not None:
            known = case.dose_gy[case.reach][mask[case.reach]]
            summary["dose"] = _range(known, "gy")
            if len(known) < summary["voxels"]:
                summary["dose"]["beyond_dose_grid_percent"] = 100.0 * (1.0 - len(known) / summary["voxels"])
    return summary


def _describe_dose(case: Case) -> dict[str, Any] | None:
    if case.dose_gy is None:
        return None
    return {
        **_range(case.dose_gy[case.body], "gy"),
        "max_anywhere_gy": float(case.dose_gy.max()),
        "valid_voxels": int(case.valid_dose.sum()),
        "finite": bool(np.isfinite(case.dose_gy).all()),
    }


def _volume_cc(case: Case, mask: NDArray[np.bool_]) -> float:
    return float(mask.sum()) * case.grid.voxel_volume_cc


def _range(values: NDArray[Any], unit: str) -> dict[str, float | None]:
    """Least, mean and greatest of some values; None where there are none."""
    if values.size == 0:
        return {f"min_{unit}": None, f"mean_{unit}": None, f"max_{unit}": None}
    return {
        f"min_{unit}": float(values.min()),
        f"mean_{unit}": float(values.mean(dtype=np.float64)),
        f"max_{unit}": float(values.max()),
    }
