"""The gamma criterion: percent, distance, cutoff, normalisation, search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from doseledger.core.errors import BadInput


@dataclass(frozen=True)
class GammaCriteria:
    """Criteria of a gamma comparison.

    Parameters
    ----------
    gamma_percent
        Dose criterion in percent: of the normalisation, or of each point's own reference dose where `local`.
    gamma_mm
        Distance criterion in mm.
    cutoff_percent
        Points whose reference dose is below this percent of the normalisation are left out (NaN).
    local
        Local in place of global dose criterion.
    interp_fraction
        Search steps per `gamma_mm`.
    max_gamma
        Gamma is searched up to this value, and larger ones are given as this value; may be infinite.
    normalisation_gy
        Dose in Gy that stands for 100 %; None for the maximum of the reference.

    Raises
    ------
    BadInput
        If a number is outside its range.
    """

    gamma_percent: float
    gamma_mm: float
    cutoff_percent: float
    local: bool
    interp_fraction: float
    max_gamma: float
    normalisation_gy: float | None = None

    def __post_init__(self) -> None:
        for name, low, strict in (
            ("gamma_percent", 0, True),
            ("gamma_mm", 0, True),
            ("cutoff_percent", 0, False),
            ("interp_fraction", 1, False),
            ("max_gamma", 1, True),
            ("normalisation_gy", 0, True),
        ):
            value = getattr(self, name)
            if name == "normalisation_gy" and value is None:
                continue
            if not (value > low or (value == low and not strict)) or (math.isinf(value) and name != "max_gamma"):
                raise BadInput(
                    f"gamma: {name} is {value}; it must be {'more than' if strict else 'at least'} {low}"
                    f"{'' if name == 'max_gamma' else ' and finite'}. Mend it in the criteria."
                )
