"""Notes of ingest on a case whose raw data had a fault."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from doseledger.core.case import Case

# Digits that ingest keeps.
DIGITS = 4


def as_noted(before: Case, after: Case) -> Case:
    """Return a case with the DVH that ingest would have noted, had the raw data had its fault.

    Parameters
    ----------
    before, after
        The case without the fault and with it.

    Notes
    -----
    The raw data are not read again: each number moves as far as the same number of the case does,
    so that resampling's own part in it (all that the parity gate sees) stays as it was.
    """
    noted: Any = before.meta.get("parity")
    if not isinstance(noted, dict):
        return after
    parity = {name: _moved(found, before, after, name) for name, found in noted.items()}
    return replace(after, meta={**after.meta, "parity": parity})


def _moved(found: Any, before: Case, after: Case, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    was, now = _measure(before, name), _measure(after, name)
    ways = {key: now[key] - was[key] for key in now if key in was and key in found}
    new = {key: round(found[key] + way, DIGITS) for key, way in ways.items() if math.isfinite(way)}
    return {**found, **new}


def _measure(case: Case, name: str) -> dict[str, float]:
    """The numbers that the parity gate compares, on the case's grid."""
    if name not in case.structure_names:
        return {}
    mask = case.mask(name)
    measured = {"volume_cc": float(mask.sum()) * case.grid.voxel_volume_cc}
    inside = mask & case.valid_dose
    if case.dose_gy is not None and inside.any():
        doses = case.dose_gy[inside].astype(np.float64)
        measured |= {"D95%": float(np.percentile(doses, 5.0)), "mean": float(doses.mean())}
    return measured
