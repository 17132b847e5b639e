"""What a plan is made of, written out: objectives, starting arcs, drawn points, and the search's own steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.arcs import _normalised_start, _remedy, _reported, _thinned, isocentre_of
from doseledger.planning.optimise.bound import _Adam, free_fluence_penalty
from doseledger.planning.optimise.descent import _Memory, descend
from doseledger.planning.optimise.mimic import mimic_objectives
from doseledger.planning.optimise.objectives import (
    NORMAL_TISSUE,
    Objective,
    PointObjective,
    ring_limit_gy,
    sib_objectives,
    total_value_and_slope,
)
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlanStyle
from doseledger.planning.optimise.sampling import sampled_points
from doseledger.planning.optimise.start import _jaws, _row_extent, outline_of, start_arcs


def row(one: Objective) -> tuple[object, ...]:
    return one.structure, one.kind, one.dose_gy, one.weight, one.volume_percent, one.falloff_mm


def test_a_boost_is_asked_for_target_by_target_organ_by_organ_and_of_the_tissue() -> None:
    style = PlanStyle(target_weight=2.0, ring_weight=3.0, organ_weights={"Rectum": 5.0, "Bowel": 0.5}, falloff_mm=11.0)
    found = sib_objectives({"High": 80.0, "Low": 60.0}, ["Rectum", "Lens", "Bladder", "Femur_L", "Bowel"], style)
    assert [row(one) for one in found] == [
        ("High", "min_dose", pytest.approx(80.4), 60.0, None, None),
        ("High", "max_dose", pytest.approx(82.8), 60.0, None, None),
        ("Low", "min_dose", pytest.approx(60.3), 60.0, None, None),
        ("Low", "ring", pytest.approx(62.4), 30.0, None, 5.0),
        ("Rectum", "dvh_max", 40.0, 5.0, 35.0, None), ("Rectum", "dvh_max", 55.0, 10.0, 15.0, None),
        ("Rectum", "dvh_max", 64.0, 15.0, 7.0, None), ("Rectum", "max_dose", 71.0, 10.0, 0.0, None),
        ("Rectum", "mean_max", 0.0, 0.05, 0.0, None),
        ("Bladder", "dvh_max", 42.0, 1.0, 38.0, None), ("Bladder", "dvh_max", 54.0, 1.5, 20.0, None),
        ("Bladder", "dvh_max", 64.0, 2.0, 11.0, None), ("Bladder", "max_dose", 72.0, 2.0, 0.0, None),
        ("Bladder", "mean_max", 0.0, 0.007, 0.0, None),
        ("Femur_L", "max_dose", 42.0, 2.0, 0.0, None), ("Femur_L", "mean_max", 0.0, 0.01, 0.0, None),
        ("Bowel", "max_dose", 45.0, 2.0, 0.0, None), ("Bowel", "mean_max", 0.0, 0.005, 0.0, None),
        (NORMAL_TISSUE, "ring", 20.0, 12.0, None, 11.0),
    ]  # fmt: skip
    right = sib_objectives({"High": 80.0}, ["Femur_R"], PlanStyle())
    assert [row(one)[1:4] for one in right[2:4]] == [("max_dose", 42.0, 2.0), ("mean_max", 0.0, 0.01)]
    assert row(right[-1]) == (NORMAL_TISSUE, "ring", 20.0, 4.0, None, 18.0)
    assert (PlanStyle().collimator_deg, PlanStyle().jaw_margin_mm) == ((15.0, 345.0), 8.0)


def test_only_dvh_kinds_have_a_share_and_only_rings_a_fall_off() -> None:
    plain = Objective("Organ", "max_dose", 30.0, 1.0)
    assert np.isnan([plain.volume_share, plain.falloff]).all()
    assert Objective("Organ", "dvh_max", 30.0, 1.0, 35.0).volume_share == 0.35
    assert Objective("Organ", "ring", 30.0, 1.0, falloff_mm=7.0).falloff == 7.0


@pytest.mark.parametrize(("kind", "percent", "limit", "counted"), [
    # A limit of its own for each point, and the points in an order of their own: 50, 20, 70, 30 Gy.
    ("min_dose", None, [60, 10, 80, 40], [-10, 0, -10, -10]), ("max_dose", None, [40, 20, 80, 25], [10, 0, 0, 5]),
    ("ring", None, [40, 20, 80, 25], [10, 0, 0, 5]), ("mimic_max", None, [40, 20, 80, 25], [10, 0, 0, 5]),
    ("mimic", None, [60, 10, 80, 40], [-10, 10, -10, -10]), ("uniform", None, [60, 10, 80, 40], [-10, 10, -10, -10]),
    # A quarter, half and three quarters of four points above 25 Gy, of which 50, 70 and 30 lie above.
    ("dvh_max", 25.0, [25] * 4, [25, 0, 0, 5]), ("dvh_max", 50.0, [25] * 4, [0, 0, 0, 5]),
    ("dvh_max", 75.0, [25] * 4, [0, 0, 0, 0]), ("dvh_max", 0.0, [25] * 4, [25, 0, 45, 5]),
    # At least so much above 60 Gy, where 70 lies alone.
    ("dvh_min", 25.0, [60] * 4, [0, 0, 0, 0]), ("dvh_min", 50.0, [60] * 4, [-10, 0, 0, 0]),
    ("dvh_min", 75.0, [60] * 4, [-10, 0, 0, -30]), ("dvh_min", 0.0, [80] * 4, [0, 0, -10, 0]),
])  # fmt: skip
def test_each_kind_counts_its_own_points(
    kind: Any, percent: float | None, limit: list[float], counted: list[float]
) -> None:
    objective = Objective("Organ", kind, 1.0, 3.0, percent, falloff_mm=1.0)
    asked = PointObjective(objective, np.array([4, 1, 3, 0]), np.array(limit, float))
    value, slope = asked.value_and_slope(np.array([30.0, 20.0, 999.0, 70.0, 50.0], np.float32))
    off = np.array(counted, float)
    assert value == pytest.approx(3.0 * (off**2).mean())
    assert slope == pytest.approx(2.0 * 3.0 * off / 4)
    total, whole = total_value_and_slope([asked, asked], np.array([30.0, 20.0, 999.0, 70.0, 50.0]))
    assert total == pytest.approx(2 * value)
    assert whole == pytest.approx(2 * np.array([slope[3], slope[1], 0.0, slope[2], slope[0]]))


def test_the_mean_is_held_as_a_whole() -> None:
    asked = PointObjective(Objective("Organ", "mean_max", 25.0, 3.0), np.array([1, 3]), np.zeros(2))
    value, slope = asked.value_and_slope(np.array([0.0, 20.0, 99.0, 40.0]))
    assert value == pytest.approx(3.0 * 25.0)
    assert slope.tolist() == [15.0, 15.0]


def test_a_ring_about_a_target_does_not_hold_that_target_and_ends_at_targets_of_its_floor() -> None:
    ring = Objective("Low", "ring", 30.0, 1.0, falloff_mm=4.0)
    distance = {"High": np.array([1.0, 6.0, 60.0]), "Low": np.zeros(3), "Floor": np.zeros(3)}
    found = ring_limit_gy(ring, distance, {"High": 70.0, "Low": 50.0, "Floor": 30.0})
    assert found == pytest.approx([70.0, 30.0 + 40.0 / np.e, 30.0], abs=1e-4)


@pytest.fixture(scope="module")
def tiny(machine: Machine) -> Patient:
    """A box of 2 × 3 × 4 mm voxels with a boost in a target, an organ in its corner, and another out of the body."""
    grid = Grid((30, 24, 40), (2.0, 3.0, 4.0), (-29.0, -40.0, -77.0))
    body = np.zeros(grid.shape_zyx, bool)
    body[:, 2:22, 2:38] = True
    low, high, organ, out = (np.zeros_like(body) for _ in range(4))
    low[8:22, 6:16, 14:26] = True
    high[10:18, 8:14, 16:22] = True
    organ[20:28, 14:20, 24:30] = True
    out[0:4, 0:2, 0:4] = True
    masks = {"Low": low, "Organ": organ, "High": high, "Outside": out}
    return Patient("tiny", np.where(body, 0, -1000).astype(np.int16), grid, masks, body, {"Low": 50.0, "High": 70.0}, 5)


def test_a_wanted_dose_is_asked_for_voxel_by_voxel_and_covers_95_percent(tiny: Patient) -> None:
    rng = np.random.default_rng(1)
    wanted = (tiny.body * rng.uniform(10, 60, tiny.body.shape)).astype(np.float32)
    found = mimic_objectives(
        replace(tiny, wanted_dose_gy=wanted, masks={**tiny.masks, "None": np.zeros_like(tiny.body)})
    )
    level = {
        name: [np.percentile(wanted[tiny.masks[name]], 100 - v) for v in (5, 20, 50)] for name in ("Organ", "Outside")
    }
    rows: list[tuple[object, ...]] = [(NORMAL_TISSUE, "mimic", 0.0, 100.0, None, None)]
    low = np.percentile(wanted[tiny.masks["Low"]], 5)
    rows += [("Low", "mimic", 0.0, 16.0, None, None), ("Low", "min_dose", pytest.approx(low), 40.0, None, None)]
    for name in ("Organ", "High", "Outside"):
        if name == "High":
            rows += [(name, "mimic", 0.0, 16.0, None, None), (name, "min_dose", pytest.approx(70.35), 40.0, None, None)]
        else:
            rows.append((name, "mimic_max", 0.0, 1.0, None, None))
            rows += [
                (name, "dvh_max", pytest.approx(gy), 1.0, v, None)
                for v, gy in zip((5.0, 20.0, 50.0), level[name], strict=True)
            ]
    assert [row(one) for one in found] == rows


def test_points_stand_for_their_structures_by_their_shares(tiny: Patient) -> None:
    ring = Objective(NORMAL_TISSUE, "ring", 20.0, 1.0, falloff_mm=15.0)
    asked = [Objective(name, "max_dose", 10.0, 1.0) for name in ("Organ", "Low", "Outside", "High", "Nobody", "Organ")]
    points, found = sampled_points(tiny, [*asked, ring], 300, np.random.default_rng(2))
    # Voxels are thinned to about 3 mm: every other slice, each line, each column. Outside the body nothing is drawn.
    drawn = {one.objective.structure: points[one.points] for one in found}
    assert [one.objective.structure for one in found] == ["Organ", "Low", "High", "Organ", NORMAL_TISSUE]
    assert {name: len(each) for name, each in drawn.items()} == {
        "Organ": 18,
        "Low": 120,
        "High": 60,
        NORMAL_TISSUE: 180,
    }
    assert (points.shape, points.dtype) == ((18 + 120 + 60 + 180, 3), np.float32)
    assert found[0].points.tolist() == list(range(18)) == found[3].points.tolist()
    assert found[1].points.tolist() == list(range(18, 138))
    for name, each in drawn.items():
        index = tiny.grid.mm_to_index(each[:, ::-1])
        assert index == pytest.approx(np.round(index), abs=1e-4)
        z, y, x = np.round(index).astype(int).T
        assert (z % 2 == 0).all()
        assert np.unique(z).tolist() != [0]
        assert (np.diff(np.ravel_multi_index((z, y, x), tiny.body.shape)) > 0).all()
        targets = tiny.masks["Low"] | tiny.masks["High"]
        region = {"Low": tiny.masks["Low"] & ~tiny.masks["High"], NORMAL_TISSUE: tiny.body & ~targets}
        assert region.get(name, tiny.masks.get(name))[z, y, x].all()
    # Each point of the ring has the limit of its own distances.
    distance = {
        name: np.array([np.linalg.norm(np.argwhere(tiny.masks[name][::2]) * [4, 3, 4] - at, axis=1).min() for at in
                        np.round(tiny.grid.mm_to_index(drawn[NORMAL_TISSUE][:, ::-1])) / [2, 1, 1] * [4, 3, 4]])
        for name in ("Low", "High")
    }  # fmt: skip
    assert found[4].limit_gy == pytest.approx(ring_limit_gy(ring, distance, tiny.prescription_gy), abs=1e-4)
    assert found[0].limit_gy.tolist() == [10.0] * 18
    few, held = sampled_points(tiny, [Objective("High", "max_dose", 10.0, 1.0)], 10_000, np.random.default_rng(2))
    assert len(few) == len(held[0].points) == 4 * 6 * 6


def test_normal_tissue_is_drawn_within_60_mm_of_a_target_or_where_a_dose_is_wanted(tiny: Patient) -> None:
    grid = Grid((4, 4, 60), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    body = np.ones(grid.shape_zyx, bool)
    target = np.zeros_like(body)
    target[..., :2] = True
    wanted = np.zeros(body.shape, np.float32)
    wanted[..., 30:40], wanted[..., 40:50] = 0.0599 * 50.0, 0.0601 * 50.0
    plain = Patient("long", np.zeros(body.shape, np.int16), grid, {"Low": target}, body, {"Low": 50.0}, 5)
    objective = [Objective(NORMAL_TISSUE, "max_dose", 20.0, 1.0)]
    for patient, columns in (
        (plain, range(2, 21)),
        (replace(plain, wanted_dose_gy=wanted), [*range(2, 21), *range(40, 50)]),
    ):
        points, _ = sampled_points(patient, objective, 5000, np.random.default_rng(1))
        assert np.unique(points[:, 0]).tolist() == [3.0 * column for column in columns]
    mimic = [Objective(NORMAL_TISSUE, "mimic_max", 0.0, 1.0), Objective(NORMAL_TISSUE, "mimic", 0.0, 1.0)]
    points, asked = sampled_points(replace(plain, wanted_dose_gy=wanted), mimic, 5000, np.random.default_rng(1))
    for one in asked:
        assert one.limit_gy == pytest.approx(wanted[0, 0, np.round(points[one.points, 0] / 3.0).astype(int)])
    for kind in ("mimic", "mimic_max"):
        with pytest.raises(BadInput, match=f"long: a {kind} objective needs the patient's wanted_dose_gy"):
            sampled_points(plain, [Objective("Low", kind, 0.0, 1.0)], 100, np.random.default_rng(1))  # type: ignore[arg-type]


def test_arcs_start_from_181_to_179_degrees_and_back_with_half_apertures_that_sweep(machine: Machine) -> None:
    # Two points: at gantry 0 the target is seen from -20 to 30 mm across and from -12 to 17 along, at the isocentre.
    points = np.array([[-20.0, 0.0, -12.0], [30.0, 0.0, 17.0]], np.float32)
    arcs = start_arcs(points, (0.0, 0.0, 0.0), machine, PlanStyle(collimator_deg=(0.0, 10.0, 0.0)), 4)
    assert [(arc.name, arc.clockwise, arc.collimator_deg, arc.couch_deg) for arc in arcs] == [
        ("ARC1", True, 0.0, 0.0), ("ARC2", False, 10.0, 0.0), ("ARC3", True, 0.0, 0.0),
    ]  # fmt: skip
    assert arcs[0].gantry_deg.tolist() == [181.0, 270.5, 0.0, 89.5, 179.0]
    assert arcs[1].gantry_deg.tolist() == [179.0, 89.5, 0.0, 270.5, 181.0]
    assert arcs[0].meterset_mu.tolist() == [0.0, 100.0, 200.0, 300.0, 400.0]
    assert arcs[0].isocentre_xyz_mm == (0.0, 0.0, 0.0)
    # Whole mm within the target's projection and 8 mm more; from behind, its left is its right, and a little nearer.
    assert arcs[0].jaw_x_mm == (-38.0, 38.0)
    assert arcs[0].jaw_y_mm == (-20.0, 25.0)
    leaf = arcs[0].leaf_mm
    pairs = np.flatnonzero((machine.leaves.boundary_mm[:-1] <= -12) & (machine.leaves.boundary_mm[1:] > -12))
    seen = next(iter(pairs))
    # At gantry 0 this pair sees the point at -20 alone: from -24 to -16. Six half sweeps in four steps: the wave is at
    # |1.5 · 2 mod 2 - 1| = 0 there, for the second arc, half a sweep behind, at 1.
    width = 0.45 * 8.0
    assert leaf[2, :, seen] == pytest.approx([-24.0, -24.0 + width], abs=1e-4)
    assert arcs[2].leaf_mm[2, :, seen] == pytest.approx([-24.0, -24.0 + width], abs=1e-4)
    # At the start the wave is at 1: the aperture lies at the right end, of what is seen from behind.
    right = leaf[0, 1, seen]
    assert right == pytest.approx(20.0 * np.cos(np.deg2rad(1)) + 4.0, abs=0.05)
    assert leaf[0, 1, seen] - leaf[0, 0, seen] == pytest.approx(width, abs=1e-4)
    # A quarter of the way: |1.5 mod 2 - 1| = 0.5, in the middle.
    low, high = outline_of(arcs[0], points, machine, 4.0)[1, :, seen]
    assert leaf[1, 0, seen] == pytest.approx(low + 0.5 * (high - low) * 0.55, abs=1e-4)
    # The second arc is half a sweep behind.
    first, second = (outline_of(arc, points, machine, 4.0) for arc in arcs[:2])
    place = [(arc.leaf_mm[:, 0] - of[:, 0])[:, seen] / ((of[:, 1] - of[:, 0]) * 0.55 + 1e-9)[:, seen]
             for arc, of in ((arcs[0], first), (arcs[1], second))]  # fmt: skip
    assert place[0] == pytest.approx([1.0, 0.5, 0.0, 0.5, 1.0], abs=1e-3)
    assert place[1][[0, 4]] == pytest.approx([0.0, 0.0], abs=1e-3)


@pytest.mark.parametrize(("low", "high", "turn", "jaws"), [
    (-60.3, 70.7, (0, 2), (-60, 70)), (-80.2, 90.4, (0, 2), (-80, 69)), (-80.2, 90.4, (1, 2), (-59, 90)),
    (-80.2, 90.4, (0, 1), (-80, 69)), (-80.2, 90.4, (1, 3), (-69, 80)), (-75.0, 75.0, (1, 2), (-75, 75)),
    (-130.0, 20.5, (0, 1), (-100, 20)), (-20.5, 130.0, (1, 2), (-20, 100)),
])  # fmt: skip
def test_jaws_are_whole_mm_within_their_limits_and_share_what_a_span_cannot_cover(
    low: float, high: float, turn: tuple[int, int], jaws: tuple[float, float]
) -> None:
    found = _jaws(low, high, (-100.0, 100.0), 150.0, turn)
    assert found == jaws


def test_a_pair_opens_where_it_sees_the_target_and_lies_shut_in_its_middle_elsewhere() -> None:
    seen = np.array([[-10.0, -3.0], [5.0, -3.0], [20.0, 12.0], [40.0, 99.0], [-50.0, -99.0]])
    left, right = _row_extent(seen, np.array([-10.0, -5.0, 0.0, 5.0, 15.0]), (-30.0, 22.0), 4.0)
    # Points beyond the leaves count for the outermost ones; the mean lies at 1 mm.
    assert left == pytest.approx([-30.0, -14.0, 1.0, 16.0])
    assert right == pytest.approx([-30.0, 9.0, 1.0, 22.0])


def test_the_isocentre_is_the_hottest_targets_middle_to_the_mm(tiny: Patient) -> None:
    # Slices 10 to 17 of 2 mm from -29, lines 8 to 13 of 3 mm from -40, columns 16 to 21 of 4 mm from -77.
    assert isocentre_of(tiny) == (-3.0, -8.0, -2.0)
    assert isocentre_of(replace(tiny, isocentre_xyz_mm=(1.5, 2.5, 3.5))) == (1.5, 2.5, 3.5)
    assert tiny.hottest_target == "High"


def test_a_mask_is_thinned_to_about_3_mm(tiny: Patient) -> None:
    fine = Grid((9, 9, 9), (1.0, 1.4, 2.2), (5.0, 6.0, 7.0))
    points = _thinned(np.ones((9, 9, 9), bool), fine)
    assert points.dtype == np.float32
    assert np.unique(points[:, 0]) == pytest.approx(7.0 + 2.2 * np.arange(9))
    assert np.unique(points[:, 1]) == pytest.approx(6.0 + 2.8 * np.arange(5))
    assert np.unique(points[:, 2]) == pytest.approx([5.0, 8.0, 11.0])


def test_what_to_do_hangs_on_how_far_the_plan_is_from_the_dose_to_mimic(tiny: Patient) -> None:
    wanted = np.full(tiny.body.shape, 7.0, np.float32)
    wanted[:5] = 7.01
    wishing = replace(tiny, wanted_dose_gy=wanted)
    dose = np.full(tiny.body.shape, 99.0, np.float32)
    more = "give the optimiser more iterations or points (deliver.iterations, deliver.n_points)"
    # Above a tenth of 70 Gy alone counts.
    for off, words in ((2.9, more), (3.1, "the dose to mimic is 3.1 Gy from the plan's on average")):
        dose[:5] = 7.01 + off
        assert _remedy(wishing, dose, tiny.grid).startswith(words)
    nothing = replace(tiny, wanted_dose_gy=np.zeros_like(wanted))
    assert _remedy(nothing, dose, tiny.grid).startswith("the dose to mimic is inf Gy")
    assert _remedy(tiny, dose, tiny.grid) == "give the optimiser more iterations, or its target more weight"


@pytest.mark.parametrize(("change", "message"), [
    ({"ct_hu": np.zeros((1, 2, 3), np.int16)}, r"ct_hu has \(1, 2, 3\) voxels, its grid has \(30, 24, 40\)"),
    ({"body": np.zeros((1, 2, 3), bool)}, r"body has \(1, 2, 3\) voxels"),
    ({"wanted_dose_gy": np.zeros((1, 2, 3), np.float32)}, r"wanted_dose_gy has \(1, 2, 3\) voxels"),
    ({"prescription_gy": {}}, "a plan needs a target with a prescription, and a body; found none"),
    ({"body": np.zeros((30, 24, 40), bool)}, "a plan needs a target with a prescription, and a body; found none"),
    ({"prescription_gy": {"Missing": 1.0}}, "target Missing has a prescription but no voxels"),
    ({"ct_grid": Grid((1, 2, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))}, r"its grid has \(1, 2, 3\)"),
])  # fmt: skip
def test_a_patient_whose_arrays_and_targets_do_not_fit_is_refused(
    change: dict[str, Any], message: str, tiny: Patient
) -> None:
    with pytest.raises(BadCase, match=f"tiny: .*{message}"):
        replace(tiny, **change)


def test_a_target_without_a_voxel_is_refused_and_another_grid_of_the_ct_is_its_own(tiny: Patient) -> None:
    with pytest.raises(BadCase, match="target High has a prescription but no voxels"):
        replace(tiny, masks={**tiny.masks, "High": np.zeros_like(tiny.body)})
    other = Grid((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert replace(tiny, ct_grid=other, ct_hu=np.zeros((2, 3, 4), np.int16)).image_grid is other
    assert tiny.image_grid is tiny.grid


def test_the_search_learns_only_what_bends_upwards_and_forgets_all_but_three() -> None:
    memory = _Memory()
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    memory.learn(one, 1.01e-4 * one + other)
    memory.learn(one, 0.99e-4 * one + other)
    assert len(memory.pairs) == 1
    for k in range(5):
        memory.learn(one, (k + 1) * one)
    memory.forget()
    assert [float(change[0]) for _, change in memory.pairs] == [3.0, 4.0, 5.0]
    # Before any step: against the slope, by its mean size, one unit at most.
    assert _Memory().direction(np.array([3.0, -1.0, 0.0, 0.5])) == pytest.approx([-1.0, 0.62, 0.0, -0.31], abs=0.01)


class Valley:
    """A penalty of two variables that asks for a shorter step now and then: |x|, whose slope has no end."""

    def __init__(self) -> None:
        self.places: list[float] = []

    def value_and_slope(self, arcs: Any) -> tuple[float, np.ndarray]:
        at = arcs[0].at
        self.places.append(float(at[0]))
        return float(abs(at[0]) + 0.1 * at[1] ** 2), np.array([np.sign(at[0]), 0.2 * at[1]])

    def variables(self, arcs: Any) -> np.ndarray:
        return arcs[0].at

    def units(self, arcs: Any, leaf: float, mu: float) -> np.ndarray:
        return np.array([leaf, mu])

    def with_variables(self, arcs: Any, wanted: np.ndarray) -> Any:
        return (SimpleNamespace(at=wanted, segment_mu=arcs[0].segment_mu),)


def test_a_step_that_rises_is_cut_to_a_third_and_the_fourth_try_is_taken_as_it_is() -> None:
    valley: Any = Valley()
    start: Any = (SimpleNamespace(at=np.array([0.01, 0.0]), segment_mu=np.array([90.0, 110.0])),)
    steps: list[tuple[int, int, float]] = []
    best, value = descend(valley, start, 6, lambda *words: steps.append(words))
    # One unit against the slope, then 0.35 of that, 0.35² and 0.35³: each ends beyond the valley, higher than it began.
    step = np.sqrt(2.0)
    tried = [0.01, *(0.01 - min(step, 1.0) * 0.35**k for k in range(4))]
    assert valley.places[:5] == pytest.approx(tried)
    # From the last of them the search goes on.
    assert abs(valley.places[5]) < 0.2
    assert len(valley.places) == 7
    assert [k for k, *_ in steps] == list(range(7))
    assert value == pytest.approx(min(v for *_, v in steps))
    assert best[0].at[0] == pytest.approx(min(valley.places, key=abs))


def test_adam_steps_by_the_mean_slope_over_its_spread() -> None:
    adam = _Adam(np.zeros(2), np.zeros(2))
    assert adam.step(np.array([2.0, -8.0])) == pytest.approx([1.0, -1.0])
    # Means 0.7 · 0.3 · 2 and 0.3 · 4 over 1 - 0.7²; squares 0.9 · 0.1 · 4 and 0.1 · 16 over 1 - 0.9².
    first, second = (0.21 * 2 + 0.3 * 4) / 0.51, (0.09 * 4 + 0.1 * 16) / 0.19
    assert adam.step(np.array([4.0, 0.0]))[0] == pytest.approx(first / np.sqrt(second))
    assert adam.steps == 2
    assert _Adam(np.zeros(1), np.zeros(1)).step(np.zeros(1)).tolist() == [0.0]


def test_free_fluence_falls_by_half_a_cosine_and_never_below_nothing() -> None:
    """One cell that gives its own dose: the penalty of each step can be followed by hand."""
    operator: Any = SimpleNamespace(
        spread=SimpleNamespace(pairs=slice(0, 1)), passed=lambda leaf: np.full((1, 1, 2), 0.5, np.float32),
        dose_of_fluence=lambda f: f[0, 0].astype(np.float32), adjoint_of_fluence=lambda s: s[None, None],
    )  # fmt: skip
    arc: Any = SimpleNamespace(leaf_mm=np.zeros((2, 2, 3)), segment_mu=np.array([20.0]))
    asked = [PointObjective(Objective("T", "uniform", 1.0, 1.0), np.arange(2), np.array([30.0, 0.0]))]
    problem: Any = SimpleNamespace(operators=[operator], asked=asked, n_fractions=2)
    # Both cells begin at 10 MU, 20 Gy in two fractions: ((20 - 30)² + 20²) / 2.
    assert free_fluence_penalty(problem, (arc,), 1) == pytest.approx(250.0)
    # The first step is 0.08 of the mean: 10.8 and 9.2.
    assert free_fluence_penalty(problem, (arc,), 2) == pytest.approx(((21.6 - 30) ** 2 + 18.4**2) / 2, rel=1e-6)
    far = free_fluence_penalty(problem, (arc,), 200)
    assert far < 1e-2


def test_a_start_brings_the_hottest_targets_mean_to_its_prescription(
    tiny: Patient, make_field: Callable[..., Arc]
) -> None:
    arc = make_field(100.0, mu=80.0)
    asked = [PointObjective(Objective(name, "max_dose", 1.0, 1.0), np.array(at), np.zeros(2))
             for name, at in (("Low", [0, 1]), ("High", [2, 3]))]  # fmt: skip
    problem: Any = SimpleNamespace(
        asked=asked,
        dose=lambda arcs: np.array([9.0, 9.0, 20.0, 30.0]) * sum(arc.meterset_mu[-1] for arc in arcs) / 100,
        feasible=lambda arc, leaf, mu: replace(arc, leaf_mm=leaf, meterset_mu=np.append(0.0, np.cumsum(mu))),
    )  # fmt: skip
    # 80 MU give 25 · 0.8 = 20 Gy on average; 70 are wanted.
    (found,) = _normalised_start(problem, (arc,), tiny)
    assert found.meterset_mu.tolist() == [0.0, pytest.approx(280.0)]
    problem.asked = asked[:1]
    assert _normalised_start(problem, (arc,), tiny)[0].meterset_mu.tolist() == [0.0, 80.0]


def reported(tiny: Patient, machine: Machine, arc: Arc, gy: float) -> Any:
    """The report of a plan of one field that gives the boost a D95% of about so many Gy in five fractions."""
    density = DensityMap(np.where(tiny.body, 1.0, 0.0).astype(np.float32), tiny.grid)
    patient = replace(tiny, prescription_gy={"Low": 5.0, "High": gy})
    plan = Plan("tiny", machine.name, 6.0, (arc,), 5)
    settings = OptimiserSettings(4, 9, (4.0, 4.0, 4.0), 1)
    return _reported(patient, machine, (plan, density), settings, (12.5, 7.5))


def test_a_plan_is_scaled_to_the_d95_of_the_hottest_target_within_15_percent(
    tiny: Patient, machine: Machine, make_field: Callable[..., Arc]
) -> None:
    arc = make_field(100.0, mu=1000.0)
    made = reported(tiny, machine, arc, 45.0)
    assert (made.objective, made.iterations, made.free_fluence_objective) == (12.5, 9, 7.5)
    assert made.plan.arcs[0].meterset_mu[1] == pytest.approx(1000.0 * made.scale)
    # The body's box on voxels of 4 mm; nothing outside it.
    assert made.dose_grid.spacing_mm == (4.0, 4.0, 4.0)
    assert made.dose_gy.shape == made.dose_grid.shape_zyx
    covered = 45.0 / made.scale
    assert 0.88 < made.scale < 1.12
    at = made.dose_grid.mm_to_index(tiny.grid.index_to_mm(np.argwhere(tiny.masks["High"])))
    nearest = made.dose_gy[tuple(np.clip(np.round(at).astype(int), 0, np.array(made.dose_gy.shape) - 1).T)]
    assert np.percentile(nearest, 5) == pytest.approx(45.0, rel=0.02)
    for share, is_kept in ((1.149, True), (1.151, False), (0.871, True), (0.868, False)):
        if is_kept:
            assert reported(tiny, machine, arc, share * covered).scale == pytest.approx(share, rel=1e-3)
        else:
            with pytest.raises(BadCase, match=f"High has D95% {covered:.1f} Gy, too far from"):
                reported(tiny, machine, arc, share * covered)
