"""DVH statistics in the clinic's grammar, exact on the sorted dose samples.

A structure's dose is a set of samples, each with a volume: whole voxels, or voxels weighted by the part of them that
the structure covers. The curves are in `curves`; nothing here goes through a histogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.grid import MOST_OUTSIDE_PERCENT
from doseledger.core.types import Array, Box, Floats, Mask
from doseledger.dosimetry.dvh.grammar import Measure, Statistic, parse_statistic

EMPTY = "the structure is absent or smaller than a voxel: no sample lies in it"


@dataclass(frozen=True)
class StructureDose:
    """Dose of one structure as samples, coldest first.

    Parameters
    ----------
    dose_gy
        Dose of each sample, ascending, (sample,).
    weights
        Part of a voxel that each sample stands for, (sample,), 0 < w ≤ 1; None where each is a whole voxel.
    voxel_volume_cc
        Volume of a whole voxel in cm³.
    """

    dose_gy: Array
    weights: Floats | None
    voxel_volume_cc: float

    @cached_property
    def volume_cc(self) -> float:
        """Volume of the structure in cm³."""
        whole = float(len(self.dose_gy)) if self.weights is None else float(self.weights.sum())
        return whole * self.voxel_volume_cc

    @cached_property
    def _cold_volume(self) -> Floats:
        # Volume colder than the middle of each sample, from 0 at the first to 1 at the last.
        weights = np.ones(len(self.dose_gy)) if self.weights is None else self.weights
        middle = np.cumsum(weights) - weights / 2.0
        return (middle - middle[0]) / (middle[-1] - middle[0])

    def dose_at_fraction(self, fraction: float) -> float:
        """Return the least dose in Gy of the hottest part, `fraction` of the volume from 0 to 1.

        Notes
        -----
        Linear between the middles of the sorted samples, so that 1 gives the minimum and 0 the maximum; for equal
        weights this is definition 7 of Hyndman & Fan, Am Stat 50:361 (1996), numpy's percentile.
        """
        n = len(self.dose_gy)
        if n == 1:
            return float(self.dose_gy[0])
        if self.weights is not None:
            return float(np.interp(1.0 - fraction, self._cold_volume, self.dose_gy))
        position = (n - 1) * (1.0 - fraction)
        low = min(int(position), n - 2)
        below, above = float(self.dose_gy[low]), float(self.dose_gy[low + 1])
        return below + (position - low) * (above - below)

    def fraction_at_dose(self, dose_gy: float) -> float:
        """Return the part of the volume, 0 to 1, that has at least this dose in Gy."""
        first = int(np.searchsorted(self.dose_gy, dose_gy, side="left"))
        if self.weights is None:
            return (len(self.dose_gy) - first) / len(self.dose_gy)
        return float(self.weights[first:].sum() / self.weights.sum())

    def mean_gy(self) -> float:
        """Return the mean dose in Gy."""
        if self.weights is None:
            return float(self.dose_gy.mean(dtype=np.float64))
        return float(np.average(self.dose_gy, weights=self.weights))

    def measure(
        self,
        statistic: Statistic,
        prescription_gy: float | None = None,
        whole: tuple[Array, float] | None = None,
    ) -> Measure:
        """Return the value of a statistic.

        Parameters
        ----------
        prescription_gy
            The dose that is 100 %.
        whole
            For CI and R50: the dose in Gy on the whole grid, any shape, finite, and the volume of its voxels in cm³.

        Raises
        ------
        BadInput
            If the statistic needs a prescription or the whole dose, and it is not given.
        """
        unit = statistic.unit
        if statistic.name == "volume":
            return Measure(self.volume_cc, unit)
        if len(self.dose_gy) == 0:
            return Measure(math.nan, unit, EMPTY)
        if statistic.needs_prescription and not (prescription_gy is not None and prescription_gy > 0):
            raise BadInput(
                f"{statistic.name} in {statistic.unit!r} is relative to a prescription, found {prescription_gy}; "
                "give the target's prescribed dose in Gy, or ask for an absolute dose"
            )
        if statistic.needs_whole_dose:
            return self._index(statistic, prescription_gy or math.nan, whole)
        if statistic.kind == "index":
            return self._homogeneity()
        if statistic.kind in ("volume_at_gy", "volume_at_percent"):
            scale = 1.0 if statistic.kind == "volume_at_gy" else (prescription_gy or math.nan) / 100.0
            fraction = self.fraction_at_dose(statistic.level * scale)
            return Measure(fraction * (self.volume_cc if unit == "cc" else 100.0), unit)
        if statistic.kind == "dose_at_cc" and statistic.level > self.volume_cc * (1 + 1e-9):
            return Measure(math.nan, unit, f"the structure has {self.volume_cc:.3g} cc, less than {statistic.level:g}")
        dose = self._dose(statistic)
        return Measure(dose if unit == "Gy" else 100.0 * dose / (prescription_gy or math.nan), unit)

    def _dose(self, statistic: Statistic) -> float:
        if statistic.kind == "dose_at_percent":
            return self.dose_at_fraction(statistic.level / 100.0)
        if statistic.kind == "dose_at_cc":
            return self.dose_at_fraction(min(1.0, statistic.level / self.volume_cc))
        if statistic.name == "mean":
            return self.mean_gy()
        return float(self.dose_gy[0] if statistic.name == "min" else self.dose_gy[-1])

    def _homogeneity(self) -> Measure:
        # ICRU Report 83 (2010), equation 3.4: (D2% − D98%) / D50%.
        near_max, near_min, median = (self.dose_at_fraction(f) for f in (0.02, 0.98, 0.50))
        if median <= 0:
            return Measure(math.nan, "1", "D50% is 0 Gy, HI would divide by it")
        return Measure((near_max - near_min) / median, "1")

    def _index(self, statistic: Statistic, prescription_gy: float, whole: tuple[Array, float] | None) -> Measure:
        # CI is Paddick's (J Neurosurg 93 Suppl 3:219, 2000): TV_PIV² / (TV · PIV), with PIV the volume of at least the
        # prescription anywhere on the grid. R50 (RTOG 0813) is the volume of at least half the prescription over TV.
        if whole is None:
            raise BadInput(f"{statistic.name} needs the dose outside the structure too: ask for it of a whole dose")
        level_gy = prescription_gy * (0.5 if statistic.name == "R50" else 1.0)
        isodose_cc = float(np.count_nonzero(whole[0] >= level_gy)) * whole[1]
        if statistic.name == "R50":
            return Measure(isodose_cc / self.volume_cc, "1")
        if isodose_cc == 0:
            return Measure(math.nan, "1", f"no voxel has the prescription of {level_gy:g} Gy")
        # Fraction² times volume, not (fraction · volume)² over it: 1 stays 1.
        return Measure(self.fraction_at_dose(level_gy) ** 2 * self.volume_cc / isodose_cc, "1")


class SampledDose(NamedTuple):
    """Dose samples of a structure, and the volume of it in cm³ that the dose grid does not reach."""

    samples: StructureDose
    outside_cc: float

    @property
    def whole_cc(self) -> float:
        """Volume of the structure in cm³, whether a dose is known there or not."""
        return self.samples.volume_cc + self.outside_cc

    @property
    def outside_percent(self) -> float:
        """Part of the structure that the dose grid does not reach; NaN for one without volume."""
        return 100.0 * self.outside_cc / self.whole_cc if self.whole_cc > 0 else math.nan

    @property
    def lacking(self) -> str:
        """Why the structure has no dose as a whole; empty where it has one."""
        if not self.outside_percent > MOST_OUTSIDE_PERCENT:
            return ""
        if len(self.samples.dose_gy) == 0:
            return "the dose grid does not reach it"
        return f"{self.outside_percent:.1f} % of it lies beyond the dose grid"

    def measure(
        self,
        statistic: Statistic,
        prescription_gy: float | None = None,
        whole: tuple[Array, float] | None = None,
    ) -> Measure:
        """Return a statistic of the whole structure; NaN and a reason for one that needs dose where none is known.

        Parameters
        ----------
        prescription_gy
            The dose that is 100 %.
        whole
            For CI and R50: the dose in Gy on the whole grid and the volume of its voxels in cm³.

        Raises
        ------
        BadInput
            If the statistic needs a prescription or the whole dose, and it is not given.
        """
        found = self.samples.measure(statistic, prescription_gy, whole)
        if statistic.name == "volume":
            return Measure(self.whole_cc, statistic.unit)
        return Measure(math.nan, statistic.unit, self.lacking) if self.lacking else found


def structure_dose(dose_gy: Array, coverage: Array, voxel_volume_cc: float) -> StructureDose:
    """Return the sorted dose samples of one structure.

    Parameters
    ----------
    dose_gy
        Dose in Gy, any shape.
    coverage
        Same shape: bool mask, or the part of each voxel that the structure covers, 0 to 1.
    voxel_volume_cc
        Volume of a voxel in cm³.

    Raises
    ------
    BadInput
        If shapes differ, or the dose in the structure is not finite.
    """
    if dose_gy.shape != coverage.shape:
        raise BadInput(f"a dose of {dose_gy.shape} voxels and a structure of {coverage.shape} are not on one grid")
    inside = coverage if coverage.dtype == np.bool_ else coverage > 0
    dose = dose_gy[inside]
    if not np.all(np.isfinite(dose)):
        raise BadInput(f"the dose is not finite in {int(np.count_nonzero(~np.isfinite(dose)))} voxels of the structure")
    if coverage.dtype == np.bool_:
        return StructureDose(np.sort(dose), None, voxel_volume_cc)
    order = np.argsort(dose, kind="stable")
    return StructureDose(dose[order], coverage[inside].astype(np.float64)[order], voxel_volume_cc)


def reached_dose(dose_gy: Array, mask: Mask, voxel_volume_cc: float, reach: Box) -> SampledDose:
    """Return the dose samples of a structure where its dose is known, and the volume of the rest.

    Parameters
    ----------
    dose_gy
        Dose in Gy, (z, y, x).
    mask
        bool (z, y, x).
    voxel_volume_cc
        Volume of a voxel in cm³.
    reach
        Voxels where a dose is known: what stands beyond them is none, be it 0.

    Raises
    ------
    BadInput
        As `structure_dose`.
    """
    if dose_gy.shape != mask.shape:
        raise BadInput(f"a dose of {dose_gy.shape} voxels and a structure of {mask.shape} are not on one grid")
    known = mask[reach]
    n_beyond = int(np.count_nonzero(mask)) - int(np.count_nonzero(known))
    return SampledDose(structure_dose(dose_gy[reach], known, voxel_volume_cc), n_beyond * voxel_volume_cc)


def dvh_statistics(
    dose_gy: Array,
    coverage: Array,
    voxel_volume_cc: float,
    names: Sequence[str],
    prescription_gy: float | None = None,
) -> dict[str, Measure]:
    """Return statistics of one structure by their names in the clinic's grammar.

    Parameters
    ----------
    dose_gy
        Dose in Gy on the whole grid, any shape.
    coverage
        Same shape: bool mask, or the part of each voxel that the structure covers, 0 to 1.
    voxel_volume_cc
        Volume of a voxel in cm³.
    names
        `D95%`, `D2cc`, `V70Gy`, `V95%`, `mean`, `HI`, `CI` and the like.
    prescription_gy
        The dose that is 100 %.

    Raises
    ------
    BadInput
        As `structure_dose` and `StructureDose.measure`, or if a name is not of the grammar.

    Examples
    --------
    >>> ramp = np.linspace(60, 80, 2001)
    >>> dvh_statistics(ramp, np.ones(2001, bool), 0.01, ["D95%", "mean"])["D95%"].value
    61.0
    """
    samples, whole = structure_dose(dose_gy, coverage, voxel_volume_cc), (dose_gy, voxel_volume_cc)
    return {name: samples.measure(parse_statistic(name), prescription_gy, whole) for name in names}
