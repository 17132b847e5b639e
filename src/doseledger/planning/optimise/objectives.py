"""Planning objectives: penalty and slope by the dose at sampled points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.core.types import Floats, Indices
from doseledger.planning.optimise.patient import PlanStyle

Kind = Literal["min_dose", "max_dose", "dvh_max", "dvh_min", "mean_max", "uniform", "ring", "mimic", "mimic_max"]
# The whole outline less the targets, as a structure of objectives.
NORMAL_TISSUE = "NormalTissue"
# A ring's limit begins to fall this far outside a target: no photon beam falls off sooner.
RING_START_MM = 2.0


@dataclass(frozen=True)
class Objective:
    """One thing asked of a plan, as a quadratic penalty.

    Parameters
    ----------
    structure
        Name of a mask, or `NormalTissue`. Of a target, what lies in a target of higher dose is left out.
    kind
        `min_dose`, `max_dose`: no point below, above. `uniform`: all at the dose. `mean_max`: the mean not above.
        `dvh_max`, `dvh_min`: at most, at least `volume_percent` of the structure gets more than the dose.
        `ring`: no point above a limit that falls with the distance from each target of more than the dose, from
        that target's dose down to `dose_gy`. `mimic`, `mimic_max`: each point at, not above, the patient's
        `wanted_dose_gy`.
    dose_gy
        Total dose of the plan in Gy.
    weight
        Times the mean squared violation in Gy².
    volume_percent
        For the DVH kinds, which have none without it.
    falloff_mm
        For `ring`: the distance in which what is above `dose_gy` falls to 1/e.
    """

    structure: str
    kind: Kind
    dose_gy: float
    weight: float
    volume_percent: float | None = None
    falloff_mm: float | None = None

    def __post_init__(self) -> None:
        name = f"objective {self.kind} of {self.structure}"
        if not (keeps(self.weight, least=0.0) and keeps(self.dose_gy, least=0.0)):
            raise BadInput(f"{name}: weight and dose must be numbers and not negative")
        volume, falloff_mm = self.volume_percent, self.falloff_mm
        if self.kind in ("dvh_max", "dvh_min") and (volume is None or not keeps(volume, least=0.0) or volume >= 100):
            raise BadInput(f"{name}: volume_percent {volume} not in 0..100")
        if self.kind == "ring" and (falloff_mm is None or not keeps(falloff_mm) or falloff_mm <= 0):
            raise BadInput(f"{name}: falloff_mm {falloff_mm}, wanted a positive number")

    @property
    def volume_share(self) -> float:
        """Share of the structure that a DVH kind is about, 0 to 1; NaN for the others."""
        return math.nan if self.volume_percent is None else self.volume_percent / 100.0

    @property
    def falloff(self) -> float:
        """Distance in mm in which a ring falls; NaN for the others."""
        return math.nan if self.falloff_mm is None else self.falloff_mm


@dataclass(frozen=True)
class PointObjective:
    """An objective on the points that stand for its structure.

    Parameters
    ----------
    limit_gy
        Dose of each, (point,).
    """

    objective: Objective
    points: Indices
    limit_gy: Floats

    def value_and_slope(self, dose_gy: NDArray[np.floating]) -> tuple[float, Floats]:
        """Return the penalty, and its slope by the dose of each of its own points, (point,)."""
        dose = dose_gy[self.points].astype(np.float64)
        scale = self.objective.weight / len(self.points)
        if self.objective.kind == "mean_max":
            over = max(0.0, float(dose.mean()) - self.objective.dose_gy)
            return self.objective.weight * over**2, np.full(len(dose), 2.0 * scale * over)
        off = self._violation(dose, dose - self.limit_gy)
        return scale * float(off @ off), 2.0 * scale * off

    def _violation(self, dose: Floats, off: Floats) -> Floats:
        """By how much each point is off what is asked, 0 where it isn't."""
        kind = self.objective.kind
        if kind in ("uniform", "mimic"):
            return off
        too_much = kind in ("max_dose", "ring", "mimic_max", "dvh_max")
        wrong = np.maximum(off, 0.0) if too_much else np.minimum(off, 0.0)
        if kind not in ("dvh_max", "dvh_min"):
            return wrong
        # Q. Wu, R. Mohan, Med Phys 27:701, 2000: of the points on the wrong side, those count that are nearest to
        # the right one, as many as there are too many.
        n = len(dose)
        share = self.objective.volume_share * n
        rank = n - 1 - int(share) if too_much else min(n - 1, n - int(np.ceil(share)))
        turning_point = np.partition(dose, rank)[rank]
        return np.where(dose <= turning_point if too_much else dose >= turning_point, wrong, 0.0)


def total_value_and_slope(objectives: list[PointObjective], dose_gy: NDArray[np.floating]) -> tuple[float, Floats]:
    """Return the sum of penalties and its slope by the dose of every point, (point,)."""
    total = 0.0
    slope = np.zeros(len(dose_gy), dtype=np.float64)
    for objective in objectives:
        value, part = objective.value_and_slope(dose_gy)
        total += value
        # Points are drawn without repetition within an objective, so plain indexing adds each once.
        slope[objective.points] += part
    return total, slope


def ring_limit_gy(objective: Objective, distance_mm: dict[str, Floats], prescription_gy: dict[str, float]) -> Floats:
    """Return the limit of each point of a ring, (point,), from the points' distances to the targets in mm."""
    floor = objective.dose_gy
    limit = np.full(len(next(iter(distance_mm.values()))), floor)
    for name, distance in distance_mm.items():
        if prescription_gy[name] > floor and name != objective.structure:
            above = np.exp(-np.maximum(0.0, distance - RING_START_MM) / objective.falloff)
            limit = np.maximum(limit, floor + (prescription_gy[name] - floor) * above)
    return limit


# What organs are held to, beyond the clinical goals of PMC7736505 table 1 so that these are met with room to spare:
# (kind, dose in Gy, volume in %, weight).
ORGAN_OBJECTIVES: dict[str, list[tuple[Kind, float, float, float]]] = {
    "Rectum": [
        ("dvh_max", 40.0, 35.0, 1.0), ("dvh_max", 55.0, 15.0, 2.0), ("dvh_max", 64.0, 7.0, 3.0),
        ("max_dose", 71.0, 0.0, 2.0), ("mean_max", 0.0, 0.0, 0.01),
    ],
    "Bladder": [
        ("dvh_max", 42.0, 38.0, 1.0), ("dvh_max", 54.0, 20.0, 1.5), ("dvh_max", 64.0, 11.0, 2.0),
        ("max_dose", 72.0, 0.0, 2.0), ("mean_max", 0.0, 0.0, 0.007),
    ],
    "Femur_L": [("max_dose", 42.0, 0.0, 2.0), ("mean_max", 0.0, 0.0, 0.01)],
    "Femur_R": [("max_dose", 42.0, 0.0, 2.0), ("mean_max", 0.0, 0.0, 0.01)],
    "Bowel": [("max_dose", 45.0, 0.0, 4.0), ("mean_max", 0.0, 0.0, 0.01)],
}  # fmt: skip


def sib_objectives(prescription_gy: dict[str, float], organs: list[str], style: PlanStyle) -> list[Objective]:
    """Return the objectives of a simultaneous integrated boost.

    Parameters
    ----------
    prescription_gy
        Dose of each target.
    organs
        Organs that are there; those without objectives of their own count as normal tissue.
    style
        How the planner weighs them.
    """
    wanted: list[Objective] = []
    highest = max(prescription_gy.values())
    for name, dose in prescription_gy.items():
        weight = 30.0 * style.target_weight
        wanted.append(Objective(name, "min_dose", 1.005 * dose, weight))
        if dose == highest:
            wanted.append(Objective(name, "max_dose", 1.035 * dose, weight))
        else:
            # Beside a hotter target the dose has to fall first: a ring, whose floor is this target's own maximum.
            wanted.append(Objective(name, "ring", 1.04 * dose, 0.5 * weight, falloff_mm=5.0))
    for organ in organs:
        for kind, dose, volume, weight in ORGAN_OBJECTIVES.get(organ, []):
            wanted.append(Objective(organ, kind, dose, weight * style.organ_weight(organ), volume))
    floor = 0.25 * highest
    wanted.append(Objective(NORMAL_TISSUE, "ring", floor, 4.0 * style.ring_weight, falloff_mm=style.falloff_mm))
    return wanted
