"""Models without insight: mean dose about the target, dose by distance.

A network that does no better has learned where dose usually is and nothing of this patient. Both are fitted to the very
cases that the network was trained on, and all are measured at the same voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput

Floats = NDArray[np.float64]
# The template's lattice: coarser than a case, as a mean over patients has no detail below a few mm.
STEP_MM = 5.0
# How far the lattice reaches from the target's centre along z, y, x: a pelvis or a head and neck, whole.
REACH_MM = (180.0, 180.0, 260.0)
# The regression's trees: with ten times the voxels and trees its error on the synthetic cohort falls by 2 % only.
TREES = 60
LEAVES = 31
# What a model is held against: trivial models, the mean dose of its training patients, what its network adds to.
RIVALS = ("template", "distance", "prior", "base")
# Errors are also compared where the plan gives more than this share of the prescription.
ABOVE_SHARE = 0.10


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a case: what a trivial model may know of them, and the dose that they have.

    Parameters
    ----------
    index
        Flat indices into the case's (z, y, x), ascending.
    offset_mm
        From the centre of the target with the highest prescription, (voxel, 3) as (z, y, x).
    distances_mm
        Signed distance to each structure, clipped as in the case, (voxel, structure).
    dose_gy
        The plan's dose, (voxel,).
    """

    case_id: str
    index: NDArray[np.intp]
    offset_mm: Floats
    distances_mm: NDArray[np.float32]
    dose_gy: NDArray[np.float32]
    prescription_gy: float


def draw_voxels(case: Case, count: int, rng: np.random.Generator) -> Voxels:
    """Return up to `count` voxels of a case, drawn evenly from where a dose is defined in the body.

    Raises
    ------
    BadCase
        If the case has no dose, no prescription, or nothing of its main target.
    """
    if case.dose_gy is None or not case.prescription_gy:
        raise BadCase(case.case_id, "no plan dose or no prescription: no dose model can be compared on it")
    inside = np.flatnonzero(case.body & case.valid_dose)
    if not len(inside):
        raise BadCase(case.case_id, "not one voxel of the body has a dose defined; ingest it again")
    index = np.sort(rng.choice(inside, min(count, len(inside)), replace=False))
    voxels = np.column_stack(np.unravel_index(index, case.grid.shape_zyx))
    names = len(case.structure_names)
    return Voxels(
        case_id=case.case_id,
        index=index,
        offset_mm=case.grid.index_to_mm(voxels) - target_centre_mm(case),
        distances_mm=case.sdf_mm.reshape(names, -1)[:, index].T.astype(np.float32),
        dose_gy=case.dose_gy.ravel()[index],
        prescription_gy=max(case.prescription_gy.values()),
    )


def target_centre_mm(case: Case) -> Floats:
    """Return the centre of the main target in mm, as (z, y, x); see `main_target`."""
    return case.grid.index_to_mm(np.argwhere(case.mask(main_target(case))).mean(axis=0))


def main_target(case: Case) -> str:
    """Return the name of the present target with the highest prescription.

    Raises
    ------
    BadCase
        If no target is there.
    """
    if case.main_target is None:
        raise BadCase(case.case_id, f"none of the targets {', '.join(case.prescription_gy)} is there")
    return case.main_target


@dataclass(frozen=True)
class Template:
    """Mean of the training patients' dose, in units of the prescription, on a lattice about the target's centre."""

    dose: NDArray[np.float32]

    def predict(self, voxels: Voxels) -> Floats:
        """Return the template's dose in Gy at some voxels, (voxel,); beyond the lattice its edge holds."""
        from scipy.ndimage import map_coordinates

        position = (voxels.offset_mm + np.asarray(REACH_MM)) / STEP_MM
        found: Floats = map_coordinates(self.dose, position.T, order=1, mode="nearest")
        return found * voxels.prescription_gy


class TemplateFit:
    """A template in the making: give it one case at a time, as a cohort does not fit into memory."""

    def __init__(self) -> None:
        self._shape = tuple(1 + round(2 * reach / STEP_MM) for reach in REACH_MM)
        self._sum = np.zeros(self._shape, dtype=np.float64)
        self._count = np.zeros(self._shape, dtype=np.int64)

    def add(self, case: Case) -> None:
        """Take a training case in; points beyond its body count for nothing."""
        if case.dose_gy is None or not case.prescription_gy:
            raise BadCase(case.case_id, "no plan dose or no prescription to take a mean of")
        steps = np.stack(np.meshgrid(*(np.arange(n) for n in self._shape), indexing="ij"), axis=-1)
        position = steps * STEP_MM - np.asarray(REACH_MM) + target_centre_mm(case)
        nearest = np.rint(case.grid.mm_to_index(position)).astype(np.intp)
        inside = np.all((nearest >= 0) & (nearest < np.asarray(case.grid.shape_zyx)), axis=-1)
        place = tuple(nearest[inside].T)
        known = np.zeros(self._shape, dtype=bool)
        known[inside] = (case.body & case.valid_dose)[place]
        dose = np.zeros(self._shape, dtype=np.float64)
        dose[inside] = case.dose_gy[place] / max(case.prescription_gy.values())
        self._sum += np.where(known, dose, 0.0)
        self._count += known

    def result(self) -> Template:
        """Return the mean.

        Raises
        ------
        BadInput
            If no case was given.
        """
        if not self._count.any():
            raise BadInput("no training case to take a mean dose of; look at the splits")
        return Template((self._sum / np.maximum(self._count, 1)).astype(np.float32))


@dataclass(frozen=True)
class DistanceRegression:
    """Gradient-boosted trees from the signed distances to all structures to the dose in units of the prescription."""

    trees: Any

    def predict(self, voxels: Voxels) -> Floats:
        """Return the dose in Gy at some voxels, (voxel,)."""
        found: Floats = self.trees.predict(voxels.distances_mm)
        return found * voxels.prescription_gy


def fit_distances(training: Iterable[Voxels]) -> DistanceRegression:
    """Return a regression fitted to voxels of training cases.

    Raises
    ------
    BadInput
        If there are none.

    Notes
    -----
    Histogram gradient boosting (Ke et al., LightGBM, NeurIPS 2017) as scikit-learn has it, without early stopping, so
    that nothing is drawn: equal voxels give equal trees.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    drawn = list(training)
    if not drawn:
        raise BadInput("no training voxels for the regression on distances; look at the splits")
    dose = np.concatenate([voxels.dose_gy / np.float32(voxels.prescription_gy) for voxels in drawn])
    trees = HistGradientBoostingRegressor(
        max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=0.15, early_stopping=False, random_state=0
    )
    # One thread: the sums of several come in another order, and on a busy machine threads wait for each other.
    with threadpool_limits(1):
        trees.fit(np.concatenate([voxels.distances_mm for voxels in drawn]), dose)
    return DistanceRegression(trees)


def mae_ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the model's mean error per each rival's, in the body and above a tenth of the prescription.

    Rivals are both trivial models, the mean dose of the training patients, and what the model's network adds to; the
    last one is left out where it adds to nothing.

    Parameters
    ----------
    rows
        One per test case, as `compare_doses` gives them.
    """
    found = {}
    for rival in (name for name in RIVALS if all(f"{name}_mae_gy" in row for row in rows)):
        for mask in ("", "_above_10_percent"):
            mine, theirs = (np.nanmean([row[f"{who}_mae{mask}_gy"] for row in rows]) for who in ("model", rival))
            # A rival without error can't be beaten: the ratio is then infinite, which misses any limit.
            found[f"{rival}_mae_ratio{mask}"] = float(mine / theirs) if theirs > 0 else math.inf
    return found


def compare_doses(voxels: Voxels, doses_gy: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return a case's mean absolute error of each dose at some voxels, in Gy: `<name>_mae_gy` and above a tenth.

    Parameters
    ----------
    voxels
        Where, and the plan's dose there.
    doses_gy
        Doses (voxel,) by name.
    """
    row: dict[str, Any] = {"case_id": voxels.case_id}
    above = voxels.dose_gy > ABOVE_SHARE * voxels.prescription_gy
    for name, dose_gy in doses_gy.items():
        error = np.abs(dose_gy - voxels.dose_gy)
        row[f"{name}_mae_gy"] = float(error.mean(dtype=np.float64))
        row[f"{name}_mae_above_10_percent_gy"] = float(error[above].mean(dtype=np.float64)) if above.any() else math.nan
    return row
