"""Differentiable DVH statistics, and the DVH and moment terms of the loss.

Each statistic has the true value and a smooth gradient: a soft D95 that weighs every voxel by a wide sigmoid once read
35.6 Gy where 70.0 was true, and pulled the dose there.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from doseledger.core.errors import BadInput

STATISTIC = re.compile(r"^(?:D(?P<percent>\d+(?:\.\d+)?)%|V(?P<gy>\d+(?:\.\d+)?)Gy|(?P<mean>mean))$")
# Voxels of a structure in a patch under which a DVH of it says nothing.
LEAST_VOXELS = 20


def dose_at_volume(dose: Tensor, volume_percent: float, width_percent: float) -> Tensor:
    """Return the dose that the hottest `volume_percent` of the voxels receive, in the dose's unit.

    Parameters
    ----------
    dose
        Doses (n,) of one structure's voxels.
    volume_percent
        0 to 100.
    width_percent
        Standard deviation of the Gaussian over ranks by which the neighbours of the quantile share its gradient, in
        percent of the volume.

    Notes
    -----
    The value is the quantile itself, linear between ranks; the gradient is that of a weighted mean of order statistics
    around it (an L-estimator; the step from one to the other is "straight-through", Bengio et al. 2013).
    """
    ordered, n = dose.float().sort().values, len(dose)
    position = (1.0 - volume_percent / 100.0) * (n - 1)
    below = min(int(position), n - 1)
    value = torch.lerp(ordered[below], ordered[min(below + 1, n - 1)], position - below)
    distance = torch.arange(n, device=dose.device, dtype=torch.float32) - position
    # At least a rank wide: in a small structure the quantile's own neighbours must have a part in it.
    weights = torch.exp(-0.5 * (distance / max(width_percent / 100.0 * n, 1.0)) ** 2)
    soft = (ordered * weights).sum() / weights.sum()
    return soft + (value - soft).detach()


def volume_at_dose(dose: Tensor, level: float, width: float) -> Tensor:
    """Return the share in percent of the voxels (n,) that receive at least `level`.

    Notes
    -----
    The value is the true one; the gradient is that of a sigmoid of `width` around the level, in the dose's unit.
    """
    soft = torch.sigmoid((dose.float() - level) / width).mean()
    value = (dose >= level).float().mean()
    return 100.0 * (soft + (value - soft).detach())


def read_statistics(names: list[str]) -> list[tuple[str, float]]:
    """Return ("D", percent), ("V", Gy) or ("mean", 0) for each name.

    Raises
    ------
    BadInput
        If a name is none of `D95%`, `V20Gy`, `mean`.
    """
    statistics = []
    for name in names:
        match = STATISTIC.match(name)
        if match is None:
            raise BadInput(f"loss.dvh_statistics: {name!r} is not one of D<percent>%, V<dose>Gy, mean")
        if match["percent"]:
            statistics.append(("D", float(match["percent"])))
        else:
            statistics.append(("V", float(match["gy"])) if match["gy"] else ("mean", 0.0))
    return statistics


class DvhTerm:
    """Mean difference of DVH statistics, each on the scale of the dose (1 % of volume counts as 1 % of dose)."""

    def __init__(self, statistics: list[list[tuple[str, float]]], scale_gy: float, soft: tuple[float, float]) -> None:
        self.statistics, self.scale_gy = statistics, scale_gy
        self.soft_percent, self.soft_gy = soft

    def _value(self, dose: Tensor, kind: str, argument: float) -> Tensor:
        if kind == "mean":
            return dose.float().mean()
        if kind == "D":
            return dose_at_volume(dose, argument, self.soft_percent)
        return volume_at_dose(dose, argument / self.scale_gy, self.soft_gy / self.scale_gy) / 100.0

    def __call__(self, prediction: Tensor, reference: Tensor, masks: Tensor) -> Tensor:
        """Return the mean absolute difference over all statistics of structures (batch, structure, z, y, x)."""
        differences = []
        for sample in range(len(prediction)):
            for structure, statistics in enumerate(self.statistics):
                inside = masks[sample, structure]
                if not statistics or int(inside.sum()) < LEAST_VOXELS:
                    continue
                mine, theirs = prediction[sample, 0][inside], reference[sample, 0][inside]
                differences += [(self._value(mine, *s) - self._value(theirs, *s)).abs() for s in statistics]
        return torch.stack(differences).mean() if differences else prediction.sum() * 0.0


def moment_term(prediction: Tensor, reference: Tensor, masks: Tensor, orders: list[float]) -> Tensor:
    """Return the mean absolute difference of generalised means of the dose, over structures and orders.

    Notes
    -----
    Jhanwar et al. 2022 (Phys Med Biol 67:185017): the moments (1/n Σ d^p)^(1/p) stand for a DVH without sorting.
    """
    differences = []
    for sample in range(len(prediction)):
        for inside in masks[sample]:
            if int(inside.sum()) < LEAST_VOXELS:
                continue
            # The root's slope is infinite at 0: an organ without dose is kept off it by a thousandth of the scale.
            mine = prediction[sample, 0][inside].float().clamp_min(1e-3)
            theirs = reference[sample, 0][inside].float().clamp_min(1e-3)
            differences += [((mine**p).mean() ** (1 / p) - (theirs**p).mean() ** (1 / p)).abs() for p in orders]
    return torch.stack(differences).mean() if differences else prediction.sum() * 0.0
