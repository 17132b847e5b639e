"""Complexity of apertures: modulation score, small gaps, leaf travel, speeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan
from doseledger.core.types import Floats, Mask
from doseledger.planning.machine.geometry import gantry_turn_deg
from doseledger.planning.machine.linac import Machine

# A pair of leaves that is closer counts as closed: machines park closed pairs at a gap of half a millimetre or so.
CLOSED_MM = 1.0
# Gaps below which an open pair counts as a small aperture, as in the paper.
SMALL_MM = (2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Apertures:
    """What leaves and jaws of one beam leave open.

    Parameters
    ----------
    left_mm, right_mm
        Ends of each pair's gap within the jaws, (control point, pair).
    width_mm
        How much of each pair the Y jaws show, (control point, pair).
    """

    left_mm: Floats
    right_mm: Floats
    width_mm: Floats

    @property
    def gap_mm(self) -> Floats:
        """Opening of each pair, (control point, pair); 0 behind a jaw."""
        return np.where(self.width_mm > 0, np.maximum(0.0, self.right_mm - self.left_mm), 0.0)

    @property
    def open(self) -> Mask:
        """Which pairs are open, bool (control point, pair)."""
        return np.asarray(self.gap_mm > CLOSED_MM, dtype=np.bool_)

    @property
    def area_mm2(self) -> Floats:
        """Open area at each control point, (control point,)."""
        return np.asarray((np.where(self.open, self.gap_mm, 0.0) * self.width_mm).sum(axis=1))

    @property
    def perimeter_mm(self) -> Floats:
        """Length of the open area's edge at each control point, leaf ends and leaf sides, (control point,)."""
        shut = ~self.open
        left, right = np.where(shut, 0.0, self.left_mm), np.where(shut, 0.0, self.right_mm)
        none = np.zeros((len(left), 1))
        left, right = np.hstack([none, left, none]), np.hstack([none, right, none])
        common = np.minimum(right[:, 1:], right[:, :-1]) - np.maximum(left[:, 1:], left[:, :-1])
        gap = right - left
        sides = gap[:, 1:] + gap[:, :-1] - 2.0 * np.maximum(0.0, common)
        return np.asarray(2.0 * np.where(shut, 0.0, self.width_mm).sum(axis=1) + sides.sum(axis=1))


@dataclass(frozen=True)
class Speeds:
    """How a machine delivers each segment at its fastest.

    Parameters
    ----------
    time_s
        Time of each segment, (segment,).
    gantry_deg_s, dose_rate_mu_min, leaf_mm_s
        Speed of the gantry, dose rate, and speed of the fastest leaf, (segment,); 0 where nothing happens.
    """

    time_s: Floats
    gantry_deg_s: Floats
    dose_rate_mu_min: Floats
    leaf_mm_s: Floats


@dataclass(frozen=True)
class Complexity:
    """Complexity of one beam or of a plan; means over segments are weighted by their monitor units.

    Parameters
    ----------
    mu
        Monitor units of a fraction.
    modulation_score
        1 for one open rectangle, towards 0 with modulation.
    small_aperture_percent
        Share of open leaf pairs whose gap is below each of `SMALL_MM`, in percent.
    leaf_travel_mm
        Mean way of the leaves that move and are in the field at any time; of a plan the mean of its beams.
    edge_per_area_mm
        Mean of perimeter over area in 1/mm.
    area_cm2
        Mean open area.
    """

    mu: float
    modulation_score: float
    small_aperture_percent: dict[float, float]
    leaf_travel_mm: float
    edge_per_area_mm: float
    area_cm2: float


def apertures_of(arc: Arc, boundary_mm: Floats | None) -> Apertures:
    """Return the apertures of a beam at its control points.

    Parameters
    ----------
    boundary_mm
        Edges of the leaf pairs along Y, (pair + 1,); None for a beam without leaves, whose aperture the jaws make.

    Raises
    ------
    BadInput
        If the beam has leaves and the boundaries are not those of as many.
    """
    n, n_pairs = arc.n_control_points, arc.leaf_mm.shape[2]
    held = np.array([*arc.jaw_x_mm, *arc.jaw_y_mm])
    jaws = np.broadcast_to(held, (n, 4)) if arc.moving_jaws_mm is None else arc.moving_jaws_mm
    x1, x2, y1, y2 = (jaws[:, k : k + 1] for k in range(4))
    if n_pairs == 0:
        return Apertures(x1.copy(), x2.copy(), y2 - y1)
    if boundary_mm is None or len(boundary_mm) != n_pairs + 1:
        found = "none" if boundary_mm is None else str(len(boundary_mm))
        raise BadInput(
            f"beam {arc.name}: {n_pairs} leaf pairs need {n_pairs + 1} leaf boundaries, found {found}; "
            "export the plan with its LeafPositionBoundaries"
        )
    left, right = np.clip(arc.leaf_mm[:, 0], x1, x2), np.clip(arc.leaf_mm[:, 1], x1, x2)
    shown = np.minimum(boundary_mm[None, 1:], y2) - np.maximum(boundary_mm[None, :-1], y1)
    return Apertures(left, right, np.maximum(0.0, shown))


def modulation_score(apertures: Apertures, segment_mu: Floats) -> float:
    """Return the modulation complexity score of a beam, 0 to 1; NaN without monitor units.

    Notes
    -----
    A. L. McNiven, M. B. Sharpe & T. G. Purdie, Med Phys 37:505, 2010, eq. 1 to 4; between two control points the means
    of both are taken (L. Masi et al., Med Phys 40:071718, 2013), which for step and shoot is the same.
    """
    leaf, area = _leaf_variability(apertures), _area_variability(apertures)
    between = 0.25 * (leaf[1:] + leaf[:-1]) * (area[1:] + area[:-1])
    return _weighted(between, segment_mu)


def _leaf_variability(apertures: Apertures) -> Floats:
    """Return how alike neighbouring leaves of a bank are, times over both banks, (control point,)."""
    found = np.ones(len(apertures.left_mm))
    for k, there in enumerate(apertures.open):
        for tips in (apertures.left_mm[k, there], apertures.right_mm[k, there]):
            spread = float(np.ptp(tips)) if len(tips) > 1 else 0.0
            if spread > 0:
                found[k] *= np.mean(spread - np.abs(np.diff(tips))) / spread
        if not there.any():
            found[k] = 0.0
    return found


def _area_variability(apertures: Apertures) -> Floats:
    """Return the opening over the greatest that the beam's leaves ever make together, (control point,)."""
    there = apertures.open
    left = np.where(there, apertures.left_mm, np.inf).min(axis=0)
    right = np.where(there, apertures.right_mm, -np.inf).max(axis=0)
    used = there.any(axis=0)
    whole = float((right[used] - left[used]).sum())
    if whole == 0:
        return np.zeros(len(there))
    return np.asarray(np.where(there, apertures.gap_mm, 0.0).sum(axis=1) / whole)


def small_aperture_percent(apertures: Apertures, segment_mu: Floats, below_mm: float) -> float:
    """Return the share of open leaf pairs whose gap is below a width, in percent, weighted by monitor units.

    Notes
    -----
    S. B. Crowe et al., Australas Phys Eng Sci Med 37:475, 2014: the small aperture score.
    """
    n_open = apertures.open.sum(axis=1)
    n_small = (apertures.open & (apertures.gap_mm < below_mm)).sum(axis=1)
    share = np.divide(n_small, n_open, out=np.zeros(len(n_open)), where=n_open > 0)
    return _weighted(50.0 * (share[1:] + share[:-1]), segment_mu)


def edge_per_area_mm(apertures: Apertures, segment_mu: Floats) -> float:
    """Return the mean of perimeter over area in 1/mm, weighted by monitor units; control points all shut are left out.

    Notes
    -----
    J. Götstedt, A. Karlsson Hauer & A. Bäck, Med Phys 42:3911, 2015: circumference over area.
    """
    area, edge = apertures.area_mm2, apertures.perimeter_mm
    ratio = np.divide(edge, area, out=np.full(len(area), np.nan), where=area > 0)
    # Each control point has half the monitor units of the segments beside it.
    mu = 0.5 * (np.append(0.0, segment_mu) + np.append(segment_mu, 0.0))
    there = np.isfinite(ratio)
    return _weighted(ratio[there], mu[there])


def leaf_travel_mm(arc: Arc, apertures: Apertures) -> float:
    """Return the mean way in mm of the leaves that move and are in the field at any time; 0 where none does.

    Notes
    -----
    L. Masi et al., Med Phys 40:071718, 2013: leaf travel.
    """
    if arc.leaf_mm.shape[2] == 0:
        return 0.0
    way = np.abs(np.diff(arc.leaf_mm, axis=0)).sum(axis=0)[:, apertures.open.any(axis=0)]
    moved = way[way > 0]
    return float(moved.mean()) if len(moved) else 0.0


def speeds_of(arc: Arc, machine: Machine) -> Speeds:
    """Return how fast gantry, dose and leaves run in each segment when a machine delivers it as fast as it can."""
    turn, mu = np.abs(gantry_turn_deg(arc)), np.maximum(arc.segment_mu, 0.0)
    way = np.abs(np.diff(arc.leaf_mm, axis=0)).reshape(len(mu), -1).max(axis=1, initial=0.0)
    time = np.maximum(machine.fastest_segment_s(turn, mu), way / machine.leaves.max_speed_mm_s)
    per_s = np.divide(1.0, time, out=np.zeros(len(time)), where=time > 0)
    return Speeds(time, turn * per_s, 60.0 * mu * per_s, way * per_s)


def beam_complexity(arc: Arc, boundary_mm: Floats | None) -> Complexity:
    """Return the complexity of one beam; see `apertures_of`."""
    apertures, mu = apertures_of(arc, boundary_mm), arc.segment_mu
    return Complexity(
        mu=float(arc.meterset_mu[-1]),
        modulation_score=modulation_score(apertures, mu),
        small_aperture_percent={below: small_aperture_percent(apertures, mu, below) for below in SMALL_MM},
        leaf_travel_mm=leaf_travel_mm(arc, apertures),
        edge_per_area_mm=edge_per_area_mm(apertures, mu),
        area_cm2=_weighted(0.005 * (apertures.area_mm2[1:] + apertures.area_mm2[:-1]), mu),
    )


def plan_complexity(beams: list[Complexity]) -> Complexity:
    """Return the complexity of a plan: the mean of its beams, weighted by their monitor units."""
    mu = np.array([beam.mu for beam in beams])
    small = {s: _weighted(np.array([b.small_aperture_percent[s] for b in beams]), mu) for s in SMALL_MM}
    mean = {
        name: _weighted(np.array([getattr(beam, name) for beam in beams]), mu)
        for name in ("modulation_score", "edge_per_area_mm", "area_cm2")
    }
    travel = float(np.mean([beam.leaf_travel_mm for beam in beams])) if beams else np.nan
    return Complexity(mu=float(mu.sum()), small_aperture_percent=small, leaf_travel_mm=travel, **mean)


def mu_per_gy(plan: Plan) -> float | None:
    """Return the monitor units of a fraction over the highest prescribed dose of a fraction; None without one."""
    highest = max(plan.prescription_gy.values(), default=0.0)
    return plan.total_mu * plan.n_fractions / highest if highest > 0 and plan.n_fractions > 0 else None


def _weighted(values: Floats, weights: Floats) -> float:
    """Return the weighted mean, over what has a weight; NaN where nothing has."""
    used = weights > 0
    return float(np.average(values[used], weights=weights[used])) if used.any() else float("nan")
