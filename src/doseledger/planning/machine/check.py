"""Deliverability check of a plan: each limit at each control point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from doseledger.core.plan import Arc, Plan
from doseledger.core.types import Mask
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
            for at, text in check(arc, machine):
                found.append(f"Beam {arc.name}{text}" if at is None else f"Beam {arc.name}, control point {at}: {text}")
    return found


# A control point, or None for the whole beam, and the rest of the sentence.
Faults = Iterator[tuple[int | None, str]]


def _places(broken: Mask) -> list[int]:
    """Return the control points (or segments) of an array at which anything is broken."""
    return [int(k) for k in np.flatnonzero(broken.reshape(len(broken), -1).any(axis=1))]


def _numbers(arc: Arc, machine: Machine) -> Faults:
    isocentre = np.asarray(arc.isocentre_xyz_mm)
    if isocentre.shape != (3,) or not np.all(np.isfinite(isocentre)):
        yield None, f" has no isocentre: found {arc.isocentre_xyz_mm}, wanted x, y and z in mm."
    for name, values in (("leaf", arc.leaf_mm), ("meterset", arc.meterset_mu), ("gantry", arc.gantry_deg)):
        for k in _places(~np.isfinite(values)):
            yield k, f"a {name} value is not a number."
    for k in _places((arc.gantry_deg < 0) | (arc.gantry_deg >= 360)):
        yield k, f"gantry at {arc.gantry_deg[k]:g}°, wanted 0 ≤ angle < 360°."


def _jaws(arc: Arc, machine: Machine) -> Faults:
    least = machine.jaws.min_opening_mm
    for name, (one, two), (low, high) in (
        ("X", arc.jaw_x_mm, machine.jaws.x_mm),
        ("Y", arc.jaw_y_mm, machine.jaws.y_mm),
    ):
        if one < low - SLACK_MM or two > high + SLACK_MM:
            yield None, f": jaws {name} at {one:g} and {two:g} mm, limits {low:g} and {high:g} mm."
        if two - one < least - SLACK_MM:
            yield None, f": jaws {name} open by {two - one:g} mm, least opening {least:g} mm."


def _leaves(arc: Arc, machine: Machine) -> Faults:
    leaves, (x1, x2) = machine.leaves, arc.jaw_x_mm
    gap = arc.leaf_mm[:, 1] - arc.leaf_mm[:, 0]
    for k in _places(gap < leaves.min_gap_mm - SLACK_MM):
        pair = int(np.argmin(gap[k]))
        word = "crosses" if gap[k, pair] < 0 else "is closer than the least gap"
        yield k, f"leaf pair {pair + 1} {word}: gap {gap[k, pair]:.2f} mm, least {leaves.min_gap_mm:g} mm."
    low, high = leaves.travel_mm
    for k in _places((arc.leaf_mm < low - SLACK_MM) | (arc.leaf_mm > high + SLACK_MM)):
        tip = arc.leaf_mm[k].ravel()[np.argmax(np.abs(arc.leaf_mm[k]))]
        yield k, f"a leaf tip at {tip:.2f} mm, travel {low:g} to {high:g} mm."
    span = np.ptp(arc.leaf_mm, axis=2)
    for k in _places(span > leaves.max_span_mm + 2 * SLACK_MM):
        yield k, f"tips of one bank {span[k].max():.2f} mm apart, at most {leaves.max_span_mm:g} mm."
    # Leaf pairs between the Y jaws at least in part.
    seen = (leaves.boundary_mm[1:] > arc.jaw_y_mm[0]) & (leaves.boundary_mm[:-1] < arc.jaw_y_mm[1])
    outside = seen & ((arc.leaf_mm[:, 0] < x1 - SLACK_MM) | (arc.leaf_mm[:, 1] > x2 + SLACK_MM))
    for k in _places(outside):
        pair = int(np.flatnonzero(outside[k])[0])
        left, right = arc.leaf_mm[k, :, pair]
        aperture = f"the aperture of leaf pair {pair + 1}, {left:.2f} to {right:.2f} mm"
        yield k, f"{aperture}, reaches outside the jaws at {x1:g} and {x2:g} mm."


def _neighbours(arc: Arc, machine: Machine) -> Faults:
    if machine.leaves.interdigitation:
        return
    left, right = arc.leaf_mm[:, 0], arc.leaf_mm[:, 1]
    least = machine.leaves.min_gap_mm - SLACK_MM
    tight = (right[:, 1:] - left[:, :-1] < least) | (right[:, :-1] - left[:, 1:] < least)
    for k in _places(tight):
        pair = int(np.flatnonzero(tight[k])[0])
        yield k, f"leaf pairs {pair + 1} and {pair + 2} interdigitate, which {machine.name} does not allow."


def _meterset(arc: Arc, machine: Machine) -> Faults:
    mu = arc.meterset_mu
    if abs(mu[0]) > LEAST_MU:
        yield 0, f"the meterset begins at {mu[0]:g} MU, wanted 0."
    for k in _places(arc.segment_mu < 0):
        yield k + 1, f"the meterset falls from {mu[k]:.4f} to {mu[k + 1]:.4f} MU, it must not fall."
    if mu[-1] <= LEAST_MU:
        yield None, " delivers no monitor units."


def _speeds(arc: Arc, machine: Machine) -> Faults:
    turn = np.abs(gantry_turn_deg(arc))
    if arc.clockwise is None and np.ptp(arc.gantry_deg) > 0:
        yield None, f": the gantry moves from {arc.gantry_deg[0]:g}°, but has no sense of rotation."
    if arc.clockwise is None:
        # A gantry at rest waits for the leaves: dose rate and leaf speed bind nothing.
        return
    mu = np.maximum(arc.segment_mu, 0.0)
    for k in _places((turn <= 0) & (mu > LEAST_MU)):
        yield k + 1, f"{mu[k]:.3f} MU while the gantry of an arc stands still."
    if turn.sum() > 360.0 + 1e-6:
        yield None, f" turns by {turn.sum():.1f}°, at most 360°: do the angles follow its sense of rotation?"
    time = machine.fastest_segment_s(turn, mu)
    moving = turn > 0
    speed = np.divide(turn, time, out=np.full(len(turn), np.inf), where=time > 0)
    slowest = machine.gantry.min_speed_deg_s
    for k in _places(moving & (speed < slowest * (1 - SLACK_RATE))):
        asked = f"{mu[k]:.2f} MU over {turn[k]:.2f}° need the gantry at {speed[k]:.3f}°/s"
        yield k + 1, f"{asked}, least {slowest:g}°/s."
    rate = 60.0 * np.divide(mu, time, out=np.zeros(len(turn)), where=time > 0)
    least = machine.dose_rate.min_mu_min
    for k in _places(moving & (rate < least * (1 - SLACK_RATE))):
        asked = f"{mu[k]:.4f} MU at the gantry's full speed are {rate[k]:.2f} MU/min"
        yield k + 1, f"{asked}, least {least:g} MU/min."
    way, fastest = np.abs(np.diff(arc.leaf_mm, axis=0)), machine.leaves.max_speed_mm_s
    for k in _places(way > (fastest * time + 2 * SLACK_MM)[:, None, None]):
        bank, pair = np.unravel_index(int(np.argmax(way[k])), way[k].shape)
        far, pace = way[k].max(), way[k].max() / max(time[k], 1e-9)
        moved = f"leaf {pair + 1} of bank X{bank + 1} moves {far:.2f} mm in {time[k]:.3f} s, {pace:.1f} mm/s"
        yield k + 1, f"{moved}, at most {fastest:g} mm/s."
