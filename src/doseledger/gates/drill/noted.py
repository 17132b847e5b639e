"""Notes of ingest on a case whose raw data had a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from doseledger.core.case import Case
from doseledger.ingest.patient.native_dvh import DIGITS, PERCENTILES


def as_noted(before: Case, after: Case) -> Case:
    """Return a case with the DVH that ingest would have noted, had the raw data had its fault.

    Notes
    -----
    The raw data are not read again: each number moves as far as the same number of the case does,
    so that resampling's own part in it (all that the parity gate sees) stays as it was.
    """
    parity: Any = before.meta.get("parity")
    noted = {}
    for name, found in (parity or {}).items():
        was, now = _measure(before, name), _measure(after, name)
        keys = found.keys() & was.keys() & now.keys()
        noted[name] = {**found, **{k: round(found[k] + now[k] - was[k], DIGITS) for k in keys}}
    return replace(after, meta={**after.meta, "parity": noted}) if noted else after


def _measure(case: Case, name: str) -> dict[str, float]:
    mask = case.mask(name)
    measured = {"volume_cc": float(mask.sum()) * case.grid.voxel_volume_cc}
    inside = mask & case.valid_dose
    if case.dose_gy is not None and inside.any():
        doses = case.dose_gy[inside].astype(np.float64)
        measured |= {key: float(np.percentile(doses, q)) for key, q in PERCENTILES.items()}
        measured |= {"mean": float(doses.mean()), "max": float(doses.max())}
    return measured
