"""Deliverability check of a plan: each limit at each control point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from doseledger.core.limit import breaks, keeps
from doseledger.core.plan import MOST_BEAM_MU, Arc, Plan
from doseledger.planning.machine.geometry import gantry_turn_deg
from doseledger.planning.machine.linac import Machine

# Files carry positions to 0.01 mm; a limit is broken beyond this.
SLACK_MM = 0.011
# Relative slack of rates: meterset weights are written with about nine digits.
SLACK_RATE = 1e-3
# Meterset below which a segment counts as none at all.
LEAST_MU = 1e-6


def check_plan(plan: Plan, machine: Machine) -> list[str]:
    """Return what stops a machine from delivering a plan, a sentence each; empty if nothing does.

    Parameters
    ----------
    plan
        The plan, in memory.
    machine
        The machine it is to run on.

    Notes
    -----
    Leaves must keep up with the gantry at the speed that the meterset allows: the machine could slow the gantry for a
    leaf, but a plan that counts on it is not delivered in the time that was planned.
    """
    found = []
    if plan.machine != machine.name:
        found.append(f"The plan is for machine {plan.machine}, checked against {machine.name}.")
    if plan.energy_mv != machine.beam.energy_mv:
        found.append(f"The plan asks for {plan.energy_mv:g} MV, {machine.name} has {machine.beam.energy_mv:g} MV.")
    if plan.n_fractions < 1:
        found.append(f"The plan has {plan.n_fractions} fractions, wanted at least 1.")
    if not plan.arcs:
        found.append("The plan has no beam.")
    for arc in plan.arcs:
        pairs = arc.leaf_mm.shape[2]
        if pairs != machine.leaves.n_pairs:
            found.append(f"Beam {arc.name} has {pairs} leaf pairs, {machine.name} has {machine.leaves.n_pairs}.")
            continue
        for check in (_numbers, _jaws, _leaves, _neighbours, _meterset, _speeds):
            found.extend(check(arc, machine))
    return found


def _places(broken: NDArray[np.bool_]) -> list[int]:
    """Return the control points (or segments) of an array at which anything is broken."""
    return [int(k) for k in np.flatnonzero(broken.reshape(len(broken), -1).any(axis=1))]


def _numbers(arc: Arc, machine: Machine) -> Iterator[str]:
    isocentre = np.asarray(arc.isocentre_xyz_mm)
    if isocentre.shape != (3,) or not np.all(np.isfinite(isocentre)):
        yield f"Beam {arc.name} has no isocentre: found {arc.isocentre_xyz_mm}, wanted x, y and z in mm."
    for name, values in (("leaf", arc.leaf_mm), ("meterset", arc.meterset_mu), ("gantry", arc.gantry_deg)):
        for k in _places(~np.isfinite(values)):
            yield f"Beam {arc.name}, control point {k}: a {name} value is not a number."
    for name, angle in (("collimator", arc.collimator_deg), ("couch", arc.couch_deg)):
        if not np.isfinite(angle):
            yield f"Beam {arc.name}: the {name} angle is not a number."
    for k in _places(breaks(arc.gantry_deg, least=0.0) | (arc.gantry_deg >= 360)):
        yield f"Beam {arc.name}, control point {k}: gantry at {arc.gantry_deg[k]:g}°, wanted 0 ≤ angle < 360°."


def _jaws(arc: Arc, machine: Machine) -> Iterator[str]:
    for name, jaw, limit in (("X", arc.jaw_x_mm, machine.jaws.x_mm), ("Y", arc.jaw_y_mm, machine.jaws.y_mm)):
        if breaks(jaw, least=limit[0] - SLACK_MM, most=limit[1] + SLACK_MM).any():
            yield (
                f"Beam {arc.name}: jaws {name} at {jaw[0]:g} and {jaw[1]:g} mm, "
                f"limits {limit[0]:g} and {limit[1]:g} mm."
            )
        if not keeps(jaw[1] - jaw[0], least=machine.jaws.min_opening_mm - SLACK_MM):
            yield (
                f"Beam {arc.name}: jaws {name} open by {jaw[1] - jaw[0]:g} mm, "
                f"least opening {machine.jaws.min_opening_mm:g} mm."
            )


def _leaves(arc: Arc, machine: Machine) -> Iterator[str]:
    leaves = machine.leaves
    gap = arc.leaf_mm[:, 1] - arc.leaf_mm[:, 0]
    for k in _places(breaks(gap, least=leaves.min_gap_mm - SLACK_MM)):
        pair = int(np.argmin(gap[k]))
        word = "crosses" if gap[k, pair] < 0 else "is closer than the least gap"
        yield (
            f"Beam {arc.name}, control point {k}: leaf pair {pair + 1} {word}: "
            f"gap {gap[k, pair]:.2f} mm, least {leaves.min_gap_mm:g} mm."
        )
    for k in _places(breaks(arc.leaf_mm, least=leaves.travel_mm[0] - SLACK_MM, most=leaves.travel_mm[1] + SLACK_MM)):
        tip = arc.leaf_mm[k].ravel()[np.argmax(np.abs(arc.leaf_mm[k]))]
        low, high = leaves.travel_mm
        yield f"Beam {arc.name}, control point {k}: a leaf tip at {tip:.2f} mm, travel {low:g} to {high:g} mm."
    span = np.ptp(arc.leaf_mm, axis=2)
    for k in _places(breaks(span, most=leaves.max_span_mm + 2 * SLACK_MM)):
        yield (
            f"Beam {arc.name}, control point {k}: tips of one bank {span[k].max():.2f} mm apart, "
            f"at most {leaves.max_span_mm:g} mm."
        )
    seen = _within_jaw_y(arc, machine)
    low, high = arc.jaw_x_mm
    outside = breaks(arc.leaf_mm[:, 0], least=low - SLACK_MM) | breaks(arc.leaf_mm[:, 1], most=high + SLACK_MM)
    for k in _places(outside & seen):
        pair = int(np.flatnonzero(outside[k] & seen)[0])
        left, right = arc.leaf_mm[k, :, pair]
        yield (
            f"Beam {arc.name}, control point {k}: the aperture of leaf pair {pair + 1}, {left:.2f} to {right:.2f} mm, "
            f"reaches outside the jaws at {arc.jaw_x_mm[0]:g} and {arc.jaw_x_mm[1]:g} mm."
        )


def _within_jaw_y(arc: Arc, machine: Machine) -> NDArray[np.bool_]:
    """Return which leaf pairs lie between the Y jaws at least in part."""
    boundary = machine.leaves.boundary_mm
    return np.asarray((boundary[1:] > arc.jaw_y_mm[0]) & (boundary[:-1] < arc.jaw_y_mm[1]), dtype=np.bool_)


def _neighbours(arc: Arc, machine: Machine) -> Iterator[str]:
    if machine.leaves.interdigitation:
        return
    left, right = arc.leaf_mm[:, 0], arc.leaf_mm[:, 1]
    above = right[:, 1:] - left[:, :-1]
    below = right[:, :-1] - left[:, 1:]
    least = machine.leaves.min_gap_mm - SLACK_MM
    clash = breaks(np.minimum(above, below), least=least)
    for k in _places(clash):
        pair = int(np.flatnonzero(clash[k])[0])
        yield (
            f"Beam {arc.name}, control point {k}: leaf pairs {pair + 1} and {pair + 2} interdigitate, "
            f"which {machine.name} does not allow."
        )


def _meterset(arc: Arc, machine: Machine) -> Iterator[str]:
    if not keeps(abs(arc.meterset_mu[0]), most=LEAST_MU):
        yield f"Beam {arc.name}, control point 0: the meterset begins at {arc.meterset_mu[0]:g} MU, wanted 0."
    for k in _places(breaks(arc.segment_mu, least=0.0)):
        yield (
            f"Beam {arc.name}, control point {k + 1}: the meterset falls from {arc.meterset_mu[k]:.4f} "
            f"to {arc.meterset_mu[k + 1]:.4f} MU, it must not fall."
        )
    if arc.meterset_mu[-1] <= LEAST_MU:
        yield f"Beam {arc.name} delivers no monitor units."
    elif not keeps(arc.meterset_mu[-1], most=MOST_BEAM_MU):
        yield f"Beam {arc.name} delivers {arc.meterset_mu[-1]:g} MU, wanted at most {MOST_BEAM_MU:g} MU."


def _speeds(arc: Arc, machine: Machine) -> Iterator[str]:
    turn = np.abs(gantry_turn_deg(arc))
    if arc.clockwise is None and np.ptp(arc.gantry_deg) > 0:
        yield f"Beam {arc.name}: the gantry moves from {arc.gantry_deg[0]:g}°, but has no sense of rotation."
        return
    if arc.clockwise is None:
        # A gantry at rest waits for the leaves: dose rate and leaf speed bind nothing.
        return
    mu = np.maximum(arc.segment_mu, 0.0)
    for k in _places((turn <= 0) & (mu > LEAST_MU)):
        yield f"Beam {arc.name}, control point {k + 1}: {mu[k]:.3f} MU while the gantry of an arc stands still."
    if not keeps(turn.sum(), most=360.0 + 1e-6):
        yield f"Beam {arc.name} turns by {turn.sum():.1f}°, at most 360°: do the angles follow its sense of rotation?"
    time = machine.fastest_segment_s(turn, mu)
    moving = turn > 0
    speed = np.divide(turn, time, out=np.full(len(turn), np.inf), where=time > 0)
    slowest = machine.gantry.min_speed_deg_s
    for k in _places(moving & breaks(np.where(moving, speed, slowest), least=slowest * (1 - SLACK_RATE))):
        yield (
            f"Beam {arc.name}, control point {k + 1}: {mu[k]:.2f} MU over {turn[k]:.2f}° need the gantry at "
            f"{speed[k]:.3f}°/s, least {slowest:g}°/s."
        )
    rate = 60.0 * np.divide(mu, time, out=np.zeros(len(turn)), where=time > 0)
    least = machine.dose_rate.min_mu_min
    for k in _places(moving & breaks(rate, least=least * (1 - SLACK_RATE))):
        yield (
            f"Beam {arc.name}, control point {k + 1}: {mu[k]:.4f} MU at the gantry's full speed are "
            f"{rate[k]:.2f} MU/min, least {least:g} MU/min."
        )
    way = np.abs(np.diff(arc.leaf_mm, axis=0))
    allowed = machine.leaves.max_speed_mm_s * time + 2 * SLACK_MM
    for k in _places(breaks(way, most=allowed[:, None, None])):
        bank, pair = np.unravel_index(int(np.argmax(way[k])), way[k].shape)
        yield (
            f"Beam {arc.name}, control point {k + 1}: leaf {pair + 1} of bank X{bank + 1} moves "
            f"{way[k].max():.2f} mm in {time[k]:.3f} s, {way[k].max() / max(time[k], 1e-9):.1f} mm/s, at most "
            f"{machine.leaves.max_speed_mm_s:g} mm/s."
        )
