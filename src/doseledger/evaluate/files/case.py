"""The summary of a case that `doseledger case show` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.text.sheet import as_text, make_table


def describe_case(case: Case) -> dict[str, Any]:
    """Return a summary of a case as JSON values: grid in mm, structures in cm³, dose in Gy, prescription, source.

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


def case_as_text(found: Mapping[str, Any]) -> str:
    """Return the summary of a case as lines for people: grid, image, dose, prescription, a table of structures, origin.

    Parameters
    ----------
    found
        As `describe_case` returned it.
    """
    grid, image, dose = found["grid"], found["image"], found["dose"]
    lines = [
        f"{found['case_id']}: {image['modality']}, {_times(grid['shape_zyx'])} voxels of {_times(grid['spacing_mm'])} "
        "mm (z, y, x; LPS)",
        f"body {found['body']['volume_cc']:.0f} cm³, {_spread(image, 'hu', 'HU')}",
        "no dose" if dose is None else f"dose in the body {_spread(dose, 'gy', 'Gy')}",
    ]
    if found["prescription_gy"]:
        targets = ", ".join(f"{name} {gy:g} Gy" for name, gy in found["prescription_gy"].items())
        lines.append(f"prescribed {targets} in {found['n_fractions']} fractions")
    rows = [
        (name, f"{one['volume_cc']:.2f}", _spread(one.get("dose", {}), "gy", ""))
        for name, one in found["structures"].items()
        if one["present"]
    ]
    if rows:
        lines += ["", as_text(make_table("", ("Structure", "#cm³", "#Dose (Gy)"), rows), colour=False)]
    absent = [name for name, one in found["structures"].items() if not one["present"]]
    lines += [f"absent: {', '.join(absent)}"] if absent else []
    lines += [f"warning: {text}" for text in found["warnings"]]
    plain = {key: value for key, value in found["meta"].items() if isinstance(value, (str, int, float)) and value != ""}
    lines += [f"{key.removeprefix('n_').replace('_', ' ')}: {value}" for key, value in plain.items()]
    return "\n".join([*lines, f"source SHA256 {found['source_sha256']}; all of it: --json"])


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _spread(found: Mapping[str, Any], key: str, unit: str) -> str:
    """Least, mean and greatest as words; empty where there are none."""
    least, mean, most = (found.get(f"{name}_{key}") for name in ("min", "mean", "max"))
    if least is None or mean is None or most is None:
        return ""
    return f"{least:.1f} to {most:.1f}, mean {mean:.1f} {unit}".rstrip().replace("-", "−")


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
