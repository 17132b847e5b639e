"""The engine in water against published 6 MV values, and against what physics demands of any engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.planning.dose.engine import compute_dose, dose_at_points, outline
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.geometry import beam_frame
from doseledger.planning.machine.linac import Machine

DATA = Path(__file__).parents[1] / "data"
Dose = Callable[..., np.ndarray]

# BJR Supplement 25 (1996), table 5.4.1, 6 MV, SSD 100 cm: field in mm, % depth dose at 100 and at 200 mm, as cited by
# TRS-398 users for beam quality; no part of the fit of the machine.
BJR25_PDD = [(60.0, 64.9, 36.4), (70.0, 65.7, 37.2), (100.0, 67.5, 39.3)]

# TrueBeam Representative Beam Data for Eclipse (Varian, 2011), like the two tables truebeam_6mv_*.csv in data/; no part
# of the fit. Side of the square in mm to output factor: surface 950 mm from the source, 50 mm deep.
TRUEBEAM_OUTPUT = {30: 0.880, 40: 0.906, 50: 0.928, 70: 0.963, 150: 1.039, 200: 1.067}
# Fields formed by the leaves, jaws at 100 mm, 100 mm deep: side in mm, lowest and highest output factor that two thirds
# of Siemens and Elekta machines have at 6 MV. Followill et al., J Appl Clin Med Phys 13(5):282, 2012, tables 2 and 3.
RPC_LEAF_FIELDS = [(60.0, 0.906, 0.940), (40.0, 0.845, 0.893), (30.0, 0.812, 0.854), (20.0, 0.754, 0.797)]
TRUEBEAM_SCANS = [(side, depth) for side in (40, 60, 80, 100) for depth in (15, 50, 100)] + [(40, 200), (100, 200)]


@pytest.fixture(scope="module")
def dose_in_water(machine: Machine, make_plan: Callable[..., Plan]) -> Dose:
    """dose_in_water(arc, points_xyz): one fraction, in a half space of water whose surface is at y = surface_mm."""

    def dose(arc: Arc, points_xyz: np.ndarray, surface_mm: float = 0.0, relative: float = 1.0) -> np.ndarray:
        # Two layers of air, so that the surface is one between voxels as in any CT.
        grid = Grid((41, 83, 41), (10.0, 5.0, 10.0), (-200.0, surface_mm - 7.5, -200.0))
        water = DensityMap(np.full(grid.shape_zyx, relative, dtype=np.float32), grid)
        water.relative[:, :2] = 0.0
        return dose_at_points(make_plan(arc), water, machine, np.asarray(points_xyz, dtype=np.float32), 1)

    return dose


def axis(y_mm: np.ndarray) -> np.ndarray:
    return np.stack([0 * y_mm, y_mm, 0 * y_mm], axis=-1)


@pytest.mark.parametrize(("side", "at_100", "at_200"), BJR25_PDD)
def test_depth_dose_is_within_2_percent_of_the_maximum_of_bjr_supplement_25(
    dose_in_water: Dose, make_field: Callable[..., Arc], side: float, at_100: float, at_200: float
) -> None:
    depth = np.arange(1.0, 301.0)
    dose = dose_in_water(make_field(side), axis(depth))
    percent = 100 * dose / dose.max()
    assert depth[percent.argmax()] == pytest.approx(15.0, abs=2.0)
    assert percent[depth == 100] == pytest.approx(at_100, abs=2.0)
    assert percent[depth == 200] == pytest.approx(at_200, abs=2.0)


def test_depth_dose_is_within_1_percent_of_the_measured_tissue_phantom_ratios(
    dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    table = np.loadtxt(DATA / "artiste_6mv_tpr.csv", delimiter=",")
    depths, sides = table[1:, 0], table[0, 1:]
    for side in (40.0, 60.0, 80.0, 100.0):
        measured = table[1:, 1:][:, sides == side].ravel()
        keep = (depths >= 14) & (depths <= 200)
        found = np.array([dose_in_water(make_field(side), [[0, 0, 0]], surface_mm=-d)[0] for d in depths[keep]])
        found /= dose_in_water(make_field(side), [[0, 0, 0]], surface_mm=-50.0)[0]
        worst = np.abs(found - measured[keep]).max() / measured.max()
        assert worst < 0.01, f"{side:g} mm: off by {100 * worst:.2f} % of the maximum"


@pytest.mark.parametrize(("side", "least", "most"), RPC_LEAF_FIELDS)
def test_small_fields_of_leaves_have_the_output_that_was_measured_on_many_machines(
    dose_in_water: Dose, make_field: Callable[..., Arc], machine: Machine, side: float, least: float, most: float
) -> None:
    open_field = make_field(100.0)
    boundary = machine.leaves.boundary_mm
    inside = np.abs(0.5 * (boundary[1:] + boundary[:-1])) < side / 2
    # Closed pairs meet behind the jaw.
    leaf = np.where(inside, np.array([[-side / 2], [side / 2]]), -60.0)
    small = replace(open_field, leaf_mm=np.stack([leaf, leaf]))
    at = axis(np.array([100.0]))
    assert least < float(dose_in_water(small, at)[0] / dose_in_water(open_field, at)[0]) < most


def test_output_factors_are_within_1_percent_of_the_measured_ones(
    dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    table = np.loadtxt(DATA / "artiste_6mv_output.csv", delimiter=",")
    wanted = table[(table[:, 0] >= 19) & (table[:, 0] <= 200)]
    reference = dose_in_water(make_field(100.0), [[0, 0, 0]], surface_mm=-50.0)[0]
    found = [dose_in_water(make_field(side), [[0, 0, 0]], surface_mm=-50.0)[0] / reference for side in wanted[:, 0]]
    assert np.abs(np.array(found) / wanted[:, 1] - 1).max() < 0.01


def test_the_reference_field_gives_the_reference_dose_per_mu(
    machine: Machine, dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    dose = dose_in_water(make_field(100.0, mu=100.0), [[0, 0, 0]], surface_mm=-100.0)[0]
    assert dose == pytest.approx(100 * machine.beam.reference_gy_per_mu, rel=1e-3)


@pytest.mark.parametrize("side", [40.0, 60.0, 100.0])
@pytest.mark.parametrize("depth", [50.0, 100.0])
def test_profiles_are_flat_inside_and_their_penumbra_is_that_of_a_linac(
    dose_in_water: Dose, make_field: Callable[..., Arc], side: float, depth: float
) -> None:
    x = np.arange(-90.0, 90.01, 0.5)
    points = np.stack([x, 0 * x, 0 * x], axis=-1)
    dose = dose_in_water(make_field(side), points, surface_mm=-depth)
    percent = 100 * dose / dose[len(x) // 2]
    # IEC 60976: the flattened area of fields of 5 to 10 cm ends 10 mm inside their edges; there the greatest dose over
    # the least is at most 1.06. Measured beams keep well within it (1.5 % in the case below), so 2 % about their mean.
    inside = np.abs(x) <= side / 2 - 10.0
    if side >= 50:
        assert percent[inside].max() / percent[inside].min() < 1.06
        assert np.abs(percent[inside] / percent[inside].mean() - 1).max() < 0.03
    right = x > 0
    edge = [float(np.interp(-level, -percent[right], x[right])) for level in (80.0, 50.0, 20.0)]
    assert edge[1] == pytest.approx(side / 2, abs=0.5)
    # 80 to 20 %: 5.7 mm at 16 mm (6 MV, 40 × 40 cm, ion chamber: selftest18_RFA300 of kegge13/BistroMath), 3.7 ± 0.3 mm
    # at 100 mm of a 1 cm field (film: J Appl Clin Med Phys 12(3):142, 2011, table 2).
    assert 3.7 - 0.3 < edge[2] - edge[0] < 5.7 + 2.0


def seen_by_chamber(profile: tuple[np.ndarray, np.ndarray], width_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A half profile, from the axis on, as a chamber sees it whose round cavity is as wide as that."""
    fine, percent = profile
    step = fine[1] - fine[0]
    reach = int(np.ceil(width_mm / 2 / step)) - 1
    chord = np.sqrt((width_mm / 2) ** 2 - (step * np.arange(-reach, reach + 1)) ** 2)
    both_sides = np.concatenate([percent[reach:0:-1], percent])
    seen = np.convolve(both_sides, chord, mode="valid")
    return fine[: len(seen)], 100 * seen / seen[0]


def assert_profile_is_near(
    profile: tuple[np.ndarray, np.ndarray], at: np.ndarray, measured: np.ndarray, half_width: float
) -> None:
    """2 % of the maximum inside 80 % of the width, 2 mm in the penumbra, 2 % where the tail is flat."""
    fine, percent = profile
    inside = at <= 0.8 * half_width
    off = np.interp(at, fine, percent) - measured
    assert inside.sum() >= 4
    assert np.abs(off[inside]).max() < 2.0
    # In the penumbra a dose is found no farther off than 2 mm; outside the field a tail is as flat as the middle.
    edge = [float(np.interp(-level, -measured, at) - np.interp(-level, -percent, fine)) for level in (80, 50, 20)]
    assert np.abs(edge).max() < 2.0
    assert np.abs(off[at >= half_width + 9.0]).max() < 2.0


def profile_in_water(dose_in_water: Dose, field: Arc, depth: float) -> tuple[np.ndarray, np.ndarray]:
    fine = np.arange(0.0, 120.0, 0.1)
    dose = dose_in_water(field, np.stack([fine, 0 * fine + depth, 0 * fine], axis=-1))
    return fine, 100 * dose / dose[0]


@pytest.mark.parametrize("scan", [1, 2, 3, 4])
def test_profiles_are_within_2_percent_or_2_mm_of_measured_ones(
    dose_in_water: Dose, make_field: Callable[..., Arc], scan: int
) -> None:
    # 100 × 100 mm at the surface, 1 m from the source, of machines that had no part in the fit; data/README.md.
    table = np.loadtxt(DATA / "clinac_6mv_profiles.csv", delimiter=",")
    depth, at, measured = table[table[:, 0] == scan][:, 1:].T
    profile = profile_in_water(dose_in_water, make_field(100.0), depth[0])
    assert_profile_is_near(profile, at, measured, 50.0 * (1 + depth[0] / 1000.0))


@pytest.mark.parametrize(("side", "depth"), TRUEBEAM_SCANS)
def test_profiles_of_40_to_100_mm_are_within_2_percent_or_2_mm_of_a_truebeam_s(
    dose_in_water: Dose, make_field: Callable[..., Arc], side: float, depth: float
) -> None:
    table = np.loadtxt(DATA / "truebeam_6mv_profiles.csv", delimiter=",")
    at, measured = table[(table[:, 0] == side) & (table[:, 1] == depth)][:, 2:].T
    profile = profile_in_water(dose_in_water, make_field(side), depth)
    half_width = side / 2 * (1 + depth / 1000.0)
    assert_profile_is_near(profile, at, measured, half_width)
    # The chamber widened what was measured: the limits hold for our profile widened alike, too.
    assert_profile_is_near(seen_by_chamber(profile, 6.0), at, measured, half_width)


@pytest.mark.parametrize("side", [40.0, 60.0, 80.0, 100.0])
def test_depth_dose_is_within_2_percent_of_the_maximum_of_a_truebeam_s(
    dose_in_water: Dose, make_field: Callable[..., Arc], side: float
) -> None:
    table = np.loadtxt(DATA / "truebeam_6mv_depth_dose.csv", delimiter=",")
    at, measured = table[table[:, 0] == side][:, 1:].T
    depth = np.arange(1.0, 301.0)
    dose = dose_in_water(make_field(side), axis(depth))
    assert np.abs(100 * np.interp(at, depth, dose) / dose.max() - measured).max() < 2.0


def test_output_factors_are_within_3_percent_of_a_truebeam_s(
    dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    found = {
        side: dose_in_water(make_field(side), [[0, 0, 0]], surface_mm=-50.0)[0] for side in (*TRUEBEAM_OUTPUT, 100)
    }
    for side, measured in TRUEBEAM_OUTPUT.items():
        assert found[side] / found[100] == pytest.approx(measured, rel=0.03)


def test_a_field_edge_moves_by_less_than_a_leaf_or_a_node(dose_in_water: Dose, make_field: Callable[..., Arc]) -> None:
    y = np.arange(20.0, 45.0, 0.25)
    points = np.stack([0 * y, 0 * y, y], axis=-1)
    edges = []
    for jaw in (30.0, 30.6, 31.2, 33.7):
        dose = dose_in_water(make_field(60.0, jaw_y_mm=(-30.0, jaw)), points, surface_mm=-50.0)
        middle = dose_in_water(make_field(60.0, jaw_y_mm=(-30.0, jaw)), [[0, 0, 0]], surface_mm=-50.0)[0]
        edges.append(float(np.interp(-50.0, -100 * dose / middle, y)))
    assert np.diff(edges) == pytest.approx([0.6, 0.6, 2.5], abs=0.15)


def test_dose_falls_with_the_inverse_square_of_the_distance(
    dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    # The same depth at two distances from the source, in a field so wide in angle that scatter is the same.
    near = dose_in_water(make_field(100.0), [[0, -200.0 + 50, 0]], surface_mm=-200.0)[0]
    far = dose_in_water(make_field(100.0), [[0, 100.0 + 50, 0]], surface_mm=100.0)[0]
    assert near / far == pytest.approx((1150.0 / 850.0) ** 2, rel=1e-3)


def test_dose_is_linear_in_monitor_units(dose_in_water: Dose, make_field: Callable[..., Arc]) -> None:
    points = axis(np.arange(5.0, 200.0, 10))
    assert dose_in_water(make_field(mu=230.0), points) == pytest.approx(
        2.3 * dose_in_water(make_field(), points), rel=1e-5
    )


def test_two_halves_of_a_field_make_the_whole(dose_in_water: Dose, make_field: Callable[..., Arc]) -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform([-80, 5, -80], [80, 250, 80], size=(400, 3))
    whole = dose_in_water(make_field(100.0), points)
    left = dose_in_water(make_field(100.0, jaw_x_mm=(-50.0, 7.0)), points)
    right = dose_in_water(make_field(100.0, jaw_x_mm=(7.0, 50.0)), points)
    # What is left are straight lines between nodes of maps that lie elsewhere.
    assert np.abs(left + right - whole).max() < 0.01 * float(whole.max())


def test_a_symmetric_field_gives_a_symmetric_dose(dose_in_water: Dose, make_field: Callable[..., Arc]) -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform([-70, 5, -70], [70, 250, 70], size=(200, 3))
    dose = dose_in_water(make_field(100.0), points)
    for mirror in ((-1, 1, 1), (1, 1, -1)):
        assert dose_in_water(make_field(100.0), points * mirror) == pytest.approx(dose, abs=0.01 * float(dose.max()))
    assert dose_in_water(make_field(100.0), points[:, [2, 1, 0]]) == pytest.approx(dose, abs=0.01 * float(dose.max()))


def test_turning_collimator_and_points_together_changes_nothing(
    dose_in_water: Dose, make_field: Callable[..., Arc]
) -> None:
    rng = np.random.default_rng(6)
    points = rng.uniform([-60, 5, -60], [60, 250, 60], size=(200, 3))
    oblong = {"jaw_x_mm": (-20.0, 50.0), "jaw_y_mm": (-35.0, 10.0)}
    dose = dose_in_water(make_field(**oblong), points)
    angle = np.deg2rad(30.0)
    x, z = points[:, 0], points[:, 2]
    moved = np.stack(
        [x * np.cos(angle) - z * np.sin(angle), points[:, 1], x * np.sin(angle) + z * np.cos(angle)], axis=-1
    )
    turned = dose_in_water(make_field(collimator_deg=30.0, **oblong), moved)
    assert turned == pytest.approx(dose, abs=0.02 * float(dose.max()))


@pytest.mark.parametrize(("couch", "gantry"), [(0.0, 60.0), (25.0, 60.0), (90.0, 90.0), (300.0, 45.0)])
def test_depth_is_followed_from_every_side_of_a_ball(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc], couch: float, gantry: float
) -> None:
    # A fan's planes follow the axis of the CT that the beam crosses most squarely: which one must not matter.
    grid = Grid((101, 101, 101), (2.5, 2.5, 2.5), (-125.0, -125.0, -125.0))
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    ball = DensityMap(np.clip((100.0 - np.sqrt(x**2 + y**2 + z**2)) / 2.5 + 0.5, 0, 1).astype(np.float32), grid)

    def dose(gantry_deg: float, couch_deg: float) -> np.ndarray:
        field = make_field(80.0, gantry_deg=gantry_deg, couch_deg=couch_deg)
        frame = beam_frame(field, gantry_deg, machine.source_axis_mm)
        seen = np.random.default_rng(8).uniform(-60, 60, (200, 3))
        axes = np.stack([frame.across_xyz, frame.along_xyz, frame.down_xyz])
        return dose_at_points(make_plan(field), ball, machine, (seen @ axes).astype(np.float32), 1)

    upright = dose(0.0, 0.0)
    assert np.abs(dose(gantry, couch) - upright).max() < 0.01 * float(upright.max())


def test_a_slab_of_half_density_counts_for_half_its_depth(dose_in_water: Dose, make_field: Callable[..., Arc]) -> None:
    light = dose_in_water(make_field(), axis(np.array([200.0])), relative=0.5)[0]
    dense = dose_in_water(make_field(), axis(np.array([100.0])))[0]
    assert light / dense == pytest.approx((1100.0 / 1200.0) ** 2, rel=2e-3)


def test_an_oblique_surface_is_followed_along_each_ray(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    # A wedge of water whose surface rises by 30° towards +x: depth at (x, 100, 0) along the ray from the source.
    grid = Grid((21, 161, 161), (10.0, 2.0, 2.0), (-100.0, -119.0, -160.0))
    _, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    slope = np.tan(np.deg2rad(30.0))
    water = DensityMap((y > -slope * x).astype(np.float32), grid)
    at = np.array([[-30.0, 100.0, 0.0], [0.0, 100.0, 0.0], [30.0, 100.0, 0.0]])
    found = dose_at_points(make_plan(make_field(140.0)), water, machine, at.astype(np.float32), 1)
    source = np.array([0.0, -1000.0, 0.0])
    ray = at - source
    entry = -(source[1] + slope * source[0]) / (ray[:, 1] + slope * ray[:, 0])
    depth = np.linalg.norm(ray, axis=1) * (1 - entry)
    flat = Grid((21, 161, 161), (10.0, 2.0, 2.0), (-100.0, 1.0, -160.0))
    slab = DensityMap(np.ones(flat.shape_zyx, dtype=np.float32), flat)
    for k, d in enumerate(depth):
        # The same place in the beam, behind a flat surface at the depth that its own ray has.
        shift = 100.0 - d * ray[k, 1] / np.linalg.norm(ray[k])
        moved = DensityMap(slab.relative, Grid(flat.shape_zyx, flat.spacing_mm, (-100.0, shift + 1.0, -160.0)))
        wanted = dose_at_points(make_plan(make_field(140.0)), moved, machine, at[k : k + 1].astype(np.float32), 1)[0]
        assert found[k] == pytest.approx(wanted, rel=0.01)


def test_gas_lets_more_through_and_bone_less(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    grid = Grid((21, 60, 41), (5.0, 5.0, 5.0), (-50.0, 2.5, -100.0))
    behind = {}
    for name, hu in (("water", 0), ("gas", -1000), ("bone", 1000)):
        ct = np.zeros(grid.shape_zyx, dtype=np.int16)
        ct[:, 10:16] = hu
        dose = compute_dose(make_plan(make_field(60.0)), ct, grid, machine, grid, 1)
        behind[name] = float(dose[10, 30, 20])
    # 30 mm less, or 30 · 1000/1950 mm more, at about 0.43 % a mm and the narrower scatter of a 60 mm field.
    assert behind["gas"] / behind["water"] == pytest.approx(np.exp(0.0047 * 30), rel=0.02)
    assert behind["bone"] / behind["water"] == pytest.approx(np.exp(-0.0047 * 15.4), rel=0.02)


def test_dose_outside_the_patient_is_zero_and_all_fractions_count(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    grid = Grid((21, 40, 40), (5.0, 5.0, 5.0), (-50.0, -97.5, -97.5))
    _, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    ct = np.where(x**2 + y**2 < 80**2, 0, -1000).astype(np.int16)
    ct[:, 20:22, 18:22] = -900
    inside = outline(ct, grid, grid)
    assert inside[10, 20, 20], "gas is inside the patient"
    once = compute_dose(make_plan(make_field()), ct, grid, machine, grid, 2)
    course = compute_dose(make_plan(make_field(), n_fractions=28), ct, grid, machine, grid, 2)
    assert once.dtype == np.float32
    assert np.all(once[~inside] == 0)
    assert course == pytest.approx(28 * once, rel=1e-5)


def test_jaws_that_move_give_the_mean_of_their_ways(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    water = DensityMap(np.ones((41, 61, 41), dtype=np.float32), Grid((41, 61, 41), (5.0, 5.0, 5.0), (-100, -100, -100)))
    points = np.array([[0.0, 0, 0], [30.0, 0, 0], [0.0, 20, 30]], dtype=np.float32)
    still = make_field(80.0)
    same = np.array([[-40.0, 40.0, -40.0, 40.0]] * 2)
    held = dose_at_points(make_plan(still), water, machine, points, 1)
    moving = dose_at_points(make_plan(make_field(80.0, moving_jaws_mm=same)), water, machine, points, 1)
    assert moving == pytest.approx(held, rel=1e-6)
    opening = np.array([[-40.0, 20.0, -40.0, 40.0], [-40.0, 40.0, -40.0, 40.0]])
    half = dose_at_points(make_plan(make_field(80.0, moving_jaws_mm=opening)), water, machine, points, 8)
    assert 0.3 < half[1] / held[1] < 0.7


def test_a_plan_of_another_machine_is_refused(
    machine: Machine, make_plan: Callable[..., Plan], make_field: Callable[..., Arc]
) -> None:
    grid = Grid((4, 4, 4), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    ct = np.zeros(grid.shape_zyx, dtype=np.int16)
    other = Plan("test", "LinacX", 6.0, (make_field(),), 1)
    with pytest.raises(BadInput, match=r"LinacX, not for Generic120"):
        compute_dose(other, ct, grid, machine, grid, 2)
    few = make_plan(make_field(leaf_mm=np.zeros((2, 2, 40))))
    with pytest.raises(BadInput, match="40 leaf pairs, Generic120 has 60"):
        compute_dose(few, ct, grid, machine, grid, 2)
    with pytest.raises(BadInput, match="does not fit its grid"):
        compute_dose(make_plan(make_field()), ct[1:], grid, machine, grid, 2)
