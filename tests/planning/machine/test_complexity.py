"""Complexity of apertures drawn by hand, whose scores can be written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan
from doseledger.planning.machine.complexity import (
    apertures_of,
    beam_complexity,
    edge_per_area_mm,
    leaf_travel_mm,
    modulation_score,
    mu_per_gy,
    plan_complexity,
    small_aperture_percent,
    speeds_of,
)
from doseledger.planning.machine.linac import Machine

# Four pairs of 10 mm.
EDGES = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
SQUARE = [(-20.0, 20.0)] * 4
STEPS = [(-20.0, 20.0), (-20.0, 20.0), (-20.0, 0.0), (-20.0, 0.0)]
SHUT = [(0.0, 0.0)] * 4


def beam(*points: list[tuple[float, float]], mu: tuple[float, ...] | None = None, **change: object) -> Arc:
    """A beam with one control point for each list of (left, right) by pair, and monitor units by segment."""
    leaf = np.array(points, dtype=np.float64).transpose(0, 2, 1)
    n = len(points)
    meterset = np.concatenate([[0.0], np.cumsum(mu if mu is not None else [10.0] * (n - 1))])
    still = {"gantry_deg": np.zeros(n), "clockwise": None}
    values = {
        "name": "B1", "collimator_deg": 0.0, "couch_deg": 0.0, "leaf_mm": leaf, "jaw_x_mm": (-50.0, 50.0),
        "jaw_y_mm": (-20.0, 20.0), "meterset_mu": meterset, "isocentre_xyz_mm": (0.0, 0.0, 0.0),
    }  # fmt: skip
    return Arc(**{**still, **values, **change})  # type: ignore[arg-type]


def score(arc: Arc, edges: np.ndarray = EDGES) -> float:
    return modulation_score(apertures_of(arc, edges), arc.segment_mu)


def test_one_open_square_is_not_modulated_and_has_a_side_over_area_of_4_over_its_side() -> None:
    found = beam_complexity(beam(SQUARE, SQUARE), EDGES)
    assert found.modulation_score == 1.0
    assert found.edge_per_area_mm == pytest.approx(4 / 40)
    assert found.area_cm2 == pytest.approx(16.0)
    assert found.leaf_travel_mm == 0.0
    assert found.small_aperture_percent == {2.0: 0.0, 5.0: 0.0, 10.0: 0.0, 20.0: 0.0}


def test_a_step_in_one_bank_takes_a_third_of_its_likeness() -> None:
    # The right bank spans 20 mm with one step of 20 mm among three: (20 + 0 + 20) / 3 / 20. Its areas are as great as
    # ever in the beam.
    assert score(beam(STEPS, STEPS)) == pytest.approx(2 / 3)


def test_openings_count_against_the_greatest_of_the_beam() -> None:
    # Square: likeness 1, all of the 160 mm. Steps: likeness 2/3, 120 mm of 160.
    between = (1 + 2 / 3) / 2 * (1 + 120 / 160) / 2
    assert score(beam(SQUARE, STEPS)) == pytest.approx(between)
    # Step and shoot: what moves without dose has no weight.
    arc = beam(SQUARE, SQUARE, STEPS, STEPS, mu=(30.0, 0.0, 10.0))
    assert score(arc) == pytest.approx((30 * 1 + 10 * 2 / 3 * 120 / 160) / 40)


def test_shut_control_points_score_nothing_and_a_beam_without_dose_has_no_score() -> None:
    assert score(beam(SHUT, SHUT)) == 0.0
    assert np.isnan(score(beam(SQUARE, SQUARE, mu=(0.0,))))


def test_the_score_does_not_know_the_scale_of_monitor_units_or_the_order_of_pairs() -> None:
    arc = beam(SQUARE, STEPS, [(-5.0, 3.0), (-8.0, 9.0), (0.0, 0.2), (-3.0, 12.0)], mu=(3.0, 9.0))
    doubled = replace(arc, meterset_mu=2 * arc.meterset_mu)
    mirrored = replace(arc, leaf_mm=arc.leaf_mm[:, :, ::-1])
    swapped = replace(arc, leaf_mm=-arc.leaf_mm[:, ::-1])
    assert score(doubled) == pytest.approx(score(arc))
    assert score(mirrored) == pytest.approx(score(arc))
    assert score(swapped) == pytest.approx(score(arc))
    assert 0 < score(arc) < 1


def test_the_edge_of_two_touching_strips_is_what_lies_outside() -> None:
    # An L: two pairs 40 mm wide, two 20 mm; 40 + 40 + 20 + 20 along X, twice 40 along Y.
    arc = beam(STEPS, STEPS)
    found = apertures_of(arc, EDGES)
    assert found.perimeter_mm[0] == pytest.approx(160.0)
    assert found.area_mm2[0] == pytest.approx(1200.0)
    apart = apertures_of(beam([(-20.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 20.0)] * 1, SHUT), EDGES)
    assert apart.perimeter_mm[0] == pytest.approx(2 * 60.0)
    assert edge_per_area_mm(apart, np.array([10.0])) == pytest.approx(120 / 400)


def test_small_gaps_are_a_share_of_the_open_pairs_by_monitor_units() -> None:
    narrow = [(-4.0, 4.0), (0.0, 15.0), (0.0, 0.5), (0.0, 0.5)]
    arc = beam(narrow, narrow, SQUARE, SQUARE, mu=(30.0, 0.0, 10.0))
    apertures = apertures_of(arc, EDGES)
    assert small_aperture_percent(apertures, arc.segment_mu, 10.0) == pytest.approx(50 * 30 / 40)
    assert small_aperture_percent(apertures, arc.segment_mu, 20.0) == pytest.approx(100 * 30 / 40)
    assert small_aperture_percent(apertures, arc.segment_mu, 5.0) == 0.0


def test_jaws_cut_apertures_and_hide_pairs() -> None:
    arc = beam(SQUARE, SQUARE, jaw_x_mm=(-10.0, 50.0), jaw_y_mm=(-5.0, 20.0))
    found = apertures_of(arc, EDGES)
    assert found.gap_mm[0].tolist() == [0.0, 30.0, 30.0, 30.0]
    assert found.area_mm2[0] == pytest.approx(30 * 25)
    assert found.perimeter_mm[0] == pytest.approx(2 * (30 + 25))
    moving = np.array([[-10.0, 50.0, -5.0, 20.0], [-50.0, 50.0, -20.0, 20.0]])
    follow = apertures_of(replace(arc, moving_jaws_mm=moving), EDGES)
    assert follow.area_mm2.tolist() == [750.0, 1600.0]


def test_a_beam_without_leaves_is_as_open_as_its_jaws() -> None:
    arc = beam(SQUARE, SQUARE)
    bare = beam_complexity(replace(arc, leaf_mm=np.zeros((2, 2, 0)), jaw_x_mm=(-30.0, 30.0)), None)
    assert (bare.modulation_score, bare.area_cm2, bare.leaf_travel_mm) == (1.0, pytest.approx(24.0), 0.0)


def test_leaf_travel_is_the_mean_way_of_the_leaves_that_move_in_the_field() -> None:
    moved = [(-20.0, 20.0), (-20.0, 20.0), (-20.0, 20.0), (-10.0, 14.0)]
    arc = beam(SQUARE, moved, SQUARE)
    # Of eight leaves two move: 20 and 12 mm.
    assert leaf_travel_mm(arc, apertures_of(arc, EDGES)) == pytest.approx(16.0)


def test_leaves_without_their_boundaries_are_refused() -> None:
    with pytest.raises(BadInput, match="beam B1: 4 leaf pairs need 5 leaf boundaries, found none"):
        apertures_of(beam(SQUARE, SQUARE), None)
    with pytest.raises(BadInput, match="found 4; export the plan with its LeafPositionBoundaries"):
        apertures_of(beam(SQUARE, SQUARE), EDGES[1:])


def test_speeds_are_those_of_the_slowest_part(machine: Machine) -> None:
    n = machine.leaves.n_pairs
    leaf = np.zeros((4, 2, n))
    leaf[:, 1] = 50.0
    leaf[3, 1, 5] = 100.0
    angle = np.array([10.0, 16.0, 22.0, 28.0])
    arc = beam(
        SQUARE, SQUARE, SQUARE, SQUARE, mu=(5.0, 20.0, 5.0), leaf_mm=leaf, gantry_deg=angle, clockwise=True
    )  # fmt: skip
    found = speeds_of(arc, machine)
    # 6° take 1 s; 20 MU take 2 s; a leaf's 50 mm take 2 s.
    assert found.time_s == pytest.approx([1.0, 2.0, 2.0])
    assert found.gantry_deg_s == pytest.approx([6.0, 3.0, 3.0])
    assert found.dose_rate_mu_min == pytest.approx([300.0, 600.0, 150.0])
    assert found.leaf_mm_s == pytest.approx([0.0, 0.0, 25.0])


def test_a_plan_is_the_mean_of_its_beams_by_monitor_units(make_plan: Callable[..., Plan]) -> None:
    square, steps = beam(SQUARE, SQUARE, mu=(30.0,)), beam(STEPS, STEPS, mu=(10.0,))
    whole = plan_complexity([beam_complexity(square, EDGES), beam_complexity(steps, EDGES)])
    assert whole.modulation_score == pytest.approx((30 + 10 * 2 / 3) / 40)
    assert whole.mu == 40.0
    plan = replace(make_plan(square, steps, n_fractions=20), prescription_gy={"PTV": 40.0, "PTV_low": 30.0})
    assert mu_per_gy(plan) == pytest.approx(20.0)
    assert mu_per_gy(replace(plan, prescription_gy={})) is None


def test_an_irregular_beam_has_the_complexity_that_a_plain_sum_gives() -> None:
    """Four control points, seven uneven pairs, of which some are shut or behind a jaw, and unequal monitor units."""
    rng = np.random.default_rng(4)
    edges = np.array([-40.0, -30.0, -22.0, -10.0, 0.0, 5.0, 20.0, 31.0])
    left = rng.uniform(-40, 20, (4, 7))
    gap = rng.choice([0.5, 1.0, 3.0, 8.0, 15.0, 40.0], (4, 7))
    leaf = np.stack([left, left + gap], axis=1)
    leaf[2:, :, 4] = 0.0
    arc = replace(
        beam(*[[(0.0, 1.0)] * 7] * 4, mu=(5.0, 0.0, 20.0)), leaf_mm=leaf, jaw_x_mm=(-30.0, 45.0), jaw_y_mm=(-35.0, 18.0)
    )
    mu = np.array([5.0, 0.0, 20.0])
    low, high = np.clip(leaf[:, 0], -30, 45), np.clip(leaf[:, 1], -30, 45)
    shown = np.clip(np.minimum(edges[1:], 18) - np.maximum(edges[:-1], -35), 0, None)
    open_, opening = (high - low > 1.0) & (shown > 0), high - low
    area, edge, alike, whole = [], [], [], 0.0
    for k in range(4):
        there = np.flatnonzero(open_[k])
        area.append(sum(opening[k, p] * shown[p] for p in there))
        sides = 0.0
        for p in range(-1, 7):
            one, other = (q if 0 <= q < 7 and open_[k, q] else None for q in (p, p + 1))
            a, b = (0.0 if q is None else opening[k, q] for q in (one, other))
            both = 0.0
            if one is not None and other is not None:
                both = max(0.0, min(high[k, one], high[k, other]) - max(low[k, one], low[k, other]))
            sides += a + b - 2 * both
        edge.append(2 * shown[there].sum() + sides)
        product = 1.0
        for tips in (low[k, there], high[k, there]):
            spread = np.ptp(tips)
            product *= sum(spread - abs(b - a) for a, b in pairwise(tips)) / ((len(tips) - 1) * spread)
        alike.append(product)
    used = open_.any(axis=0)
    for p in np.flatnonzero(used):
        rows = open_[:, p]
        whole += high[rows, p].max() - low[rows, p].min()
    share = [opening[k][open_[k]].sum() / whole for k in range(4)]
    found = beam_complexity(arc, edges)
    middle = [(a + b) / 2 for a, b in pairwise(alike)]
    opened = [(a + b) / 2 for a, b in pairwise(share)]
    assert found.mu == 25.0
    assert found.modulation_score == pytest.approx(np.average(np.multiply(middle, opened), weights=mu))
    means = [(a + b) / 200 for a, b in pairwise(area)]
    assert found.area_cm2 == pytest.approx(np.average(means, weights=mu))
    half = np.array([2.5, 2.5, 10.0, 10.0])
    assert found.edge_per_area_mm == pytest.approx(np.average(np.divide(edge, area), weights=half))
    for below in (2.0, 5.0, 10.0, 20.0):
        small = [100 * (opening[k][open_[k]] < below).mean() for k in range(4)]
        pairs = [(a + b) / 2 for a, b in pairwise(small)]
        assert found.small_aperture_percent[below] == pytest.approx(np.average(pairs, weights=mu)), below
    way = np.abs(np.diff(leaf, axis=0)).sum(axis=0)[:, used]
    assert found.leaf_travel_mm == pytest.approx(way.mean())
    assert 0 < found.modulation_score < 0.6
    assert 0 < found.small_aperture_percent[5.0] < found.small_aperture_percent[20.0]


def test_a_pair_of_one_mm_is_shut_and_a_lone_open_pair_is_alike() -> None:
    lone = [(-20.0, 20.0), (3.0, 4.0), (3.0, 4.0), (3.0, 4.0)]
    assert score(beam(lone, lone)) == 1.0
    assert np.isnan(edge_per_area_mm(apertures_of(beam(SHUT, SHUT), EDGES), np.array([10.0])))
    half_shut = apertures_of(beam(SHUT, SQUARE, SQUARE, mu=(4.0, 2.0)), EDGES)
    assert edge_per_area_mm(half_shut, np.array([4.0, 2.0])) == pytest.approx(0.1)
    assert leaf_travel_mm(beam(SHUT, SHUT), apertures_of(beam(SHUT, SHUT), EDGES)) == 0.0


def test_a_gap_is_nothing_behind_a_jaw_and_where_leaves_cross() -> None:
    arc = beam([(-20.0, 20.0), (5.0, -5.0), (-20.0, 20.0), (-20.0, 20.0)], SQUARE, jaw_y_mm=(-20.0, 10.0))
    assert apertures_of(arc, EDGES).gap_mm[0].tolist() == [40.0, 0.0, 40.0, 0.0]


def test_where_nothing_happens_nothing_has_a_speed(machine: Machine) -> None:
    arc = beam(SQUARE, SQUARE, SQUARE, mu=(0.0, 10.0))
    found = speeds_of(arc, machine)
    assert (found.time_s.tolist(), found.gantry_deg_s.tolist()) == ([0.0, 1.0], [0.0, 0.0])
    assert (found.dose_rate_mu_min.tolist(), found.leaf_mm_s.tolist()) == ([0.0, 600.0], [0.0, 0.0])
    bare = speeds_of(replace(arc, leaf_mm=np.zeros((3, 2, 0))), machine)
    assert bare.time_s.tolist() == [0.0, 1.0]


def test_a_plans_travel_is_the_mean_of_its_beams_and_mu_per_gy_that_of_the_highest_dose(
    make_plan: Callable[..., Plan],
) -> None:
    way = [(-20.0, 20.0), (-20.0, 20.0), (-20.0, 20.0), (-10.0, 14.0)]
    one = beam_complexity(beam(SQUARE, way, mu=(30.0,)), EDGES)
    other = beam_complexity(beam(STEPS, STEPS, mu=(10.0,)), EDGES)
    whole = plan_complexity([one, other])
    assert whole.leaf_travel_mm == pytest.approx(4.0)
    assert whole.area_cm2 == pytest.approx((30 * one.area_cm2 + 10 * other.area_cm2) / 40)
    assert whole.edge_per_area_mm == pytest.approx((30 * one.edge_per_area_mm + 10 * other.edge_per_area_mm) / 40)
    assert whole.small_aperture_percent == {2.0: 0.0, 5.0: 0.0, 10.0: 0.0, 20.0: 0.0}
    assert np.isnan(plan_complexity([]).leaf_travel_mm)
    plan = replace(make_plan(beam(SQUARE, SQUARE), n_fractions=0), prescription_gy={"PTV": 40.0})
    assert mu_per_gy(plan) is None
    assert mu_per_gy(replace(plan, n_fractions=2)) == pytest.approx(0.5)
    assert mu_per_gy(replace(plan, n_fractions=2, prescription_gy={"PTV": 0.0})) is None
