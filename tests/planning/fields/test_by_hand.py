"""Fields, their points and their penalty by hand, on voxels of three sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Beams, GenericPlan
from doseledger.planning.fields import fluence, maps
from doseledger.planning.fields.fluence import _roughness, fit_fluence, mean_square
from doseledger.planning.fields.maps import FieldCase, _gathered, _generic_penalty, _prescribed, _scale, field_dose
from doseledger.planning.fields.operator import (
    FieldOperator,
    _field_towards,
    _filled_points,
    field_machine,
    isocentre_xyz,
)
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, ring_limit_gy


def beams(**changes: Any) -> Beams:
    values: dict[str, Any] = {"gantry_deg": [0.0, 90.0], "bixel_mm": 5.0, "margin_mm": 6.0, "maps": ["conformal"],
                              "kernel_weights": (1.0, 2.0, 3.0, 0.5), "plan": None}  # fmt: skip
    return Beams(**{**values, **changes})


@pytest.mark.parametrize(("bixel_mm", "rows"), [(5.0, 80), (10.0, 40), (7.5, 54)])
def test_the_machine_of_fields_has_bixels_for_leaves_and_an_even_beam(
    machine: Machine, bixel_mm: float, rows: int
) -> None:
    found = field_machine(beams(bixel_mm=bixel_mm))
    assert found.leaves.runs == [(rows, bixel_mm)]
    assert set(found.beam.fluence_relative) == {1.0}
    assert len(found.beam.fluence_relative) == len(machine.beam.fluence_relative)
    assert found.beam.leaf_transmission == 0.0
    assert found.beam.amplitude == [
        [a * w for a, w in zip(row, (1.0, 2.0, 3.0, 0.5), strict=True)] for row in machine.beam.amplitude
    ]
    same = {"amplitude": machine.beam.amplitude, "fluence_relative": machine.beam.fluence_relative,
            "leaf_transmission": machine.beam.leaf_transmission}  # fmt: skip
    assert found.beam.model_copy(update=same) == machine.beam
    other = machine.model_copy(update={"source_axis_mm": 900.0})
    assert field_machine(beams(), other).source_axis_mm == 900.0


def test_thick_voxels_of_a_target_get_several_points() -> None:
    grid = Grid((1, 2, 3), (11.0, 5.0, 4.0), (10.0, 20.0, 30.0))
    targets = np.zeros(grid.shape_zyx, bool)
    targets[0, 1, 2] = True
    found = _filled_points(targets, grid, 5.0)
    # Three points along z, a third of 11 mm apart; one along y and x.
    wanted = [[38.0, 25.0, 10.0 + 11.0 * k / 3] for k in (-1, 0, 1)]
    assert found[np.argsort(found[:, 2])] == pytest.approx(np.array(wanted))
    fine = _filled_points(targets, grid, 2.0)
    assert len(fine) == 6 * 3 * 2
    assert sorted(set(fine[:, 0].round(6))) == [37.0, 39.0]
    assert sorted(set(fine[:, 1].round(6))) == pytest.approx([25.0 - 5 / 3, 25.0, 25.0 + 5 / 3])
    assert isocentre_xyz(targets, grid) == (38.0, 25.0, 10.0)


def test_a_field_holds_the_bixels_within_the_margin_of_what_it_sees(machine: Machine) -> None:
    points = np.array([[-7.0, 0.0, 3.0], [11.0, 0.0, 3.0]])
    arc, mask = _field_towards(points, 360.0, (0.0, 0.0, 0.0), beams(margin_mm=6.0), machine)
    assert (arc.name, arc.gantry_deg.tolist(), arc.clockwise) == ("360", [0.0, 0.0], None)
    assert (arc.collimator_deg, arc.couch_deg, arc.meterset_mu.tolist()) == (0.0, 0.0, [0.0, 1.0])
    # Bixels -2 and 2 across, 0 along; two more on either side fit the margin, of which 6 mm reach one.
    assert arc.jaw_x_mm == (-20.0, 25.0)
    assert arc.jaw_y_mm == (-10.0, 15.0)
    column, row = np.meshgrid(np.arange(-4, 5), np.arange(-2, 3))
    near = np.minimum(np.hypot(column + 2, row), np.hypot(column - 2, row)) * 5.0 <= 6.0
    assert mask.tolist() == near.tolist()
    assert mask.flags.c_contiguous


@pytest.mark.parametrize(("x_mm", "z_mm", "is_taken"), [
    (189.0, 0.0, True), (190.1, 0.0, False), (-189.9, 0.0, True), (-190.1, 0.0, False), (0.0, 189.0, True),
    (0.0, 190.1, False), (0.0, -190.1, False),
])  # fmt: skip
def test_a_field_ends_at_200_mm_from_its_axis(x_mm: float, z_mm: float, is_taken: bool, machine: Machine) -> None:
    points = np.array([[0.0, 0.0, 0.0], [x_mm, 0.0, z_mm]])
    if is_taken:
        _field_towards(points, 0.0, (0.0, 0.0, 0.0), beams(), machine)
    else:
        with pytest.raises(BadInput, match="a field ends at 200 mm"):
            _field_towards(points, 0.0, (0.0, 0.0, 0.0), beams(), machine)


def test_rough_is_the_mean_squared_step_and_its_slope() -> None:
    shares = np.array([1.0, 4.0, 2.0])
    value, slope = _roughness(shares, np.array([0, 1]), np.array([1, 2]))
    assert value == pytest.approx((9.0 + 4.0) / 2)
    assert slope == pytest.approx([-6.0 / 2, (6.0 + 4.0) / 2, -4.0 / 2])
    none = np.array([], dtype=np.intp)
    assert _roughness(shares, none, none)[0] == 0.0


def test_a_weighted_distance_is_one_for_no_dose_and_has_its_slope() -> None:
    wanted, weight = np.array([10.0, 20.0], np.float32), np.array([3.0, 0.5], np.float32)
    penalty = mean_square(wanted, weight)
    assert penalty(np.zeros(2, np.float32))[0] == pytest.approx(1.0)
    value, slope = penalty(np.array([12.0, 17.0], np.float32))
    assert value == pytest.approx((3 * 4 + 0.5 * 9) / (300 + 200))
    assert slope == pytest.approx([2 * 3 * 2 / 500, 2 * 0.5 * -3 / 500])
    assert mean_square(0 * wanted, weight)(wanted)[0] > 1e9


def test_fluence_is_searched_in_units_of_its_mean_and_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def search(function: Any, start: np.ndarray, **words: Any) -> Any:
        asked.append((function(start + np.array([0.5, 0.0, -0.5])), start.tolist(), words))
        return SimpleNamespace(x=np.array([2.0, -1.0, 0.5]))

    monkeypatch.setattr(fluence, "minimize", search)
    operator: Any = SimpleNamespace(
        neighbours=lambda: (np.array([0, 1]), np.array([1, 2])), dose=lambda weights: weights * 10.0,
        adjoint=lambda slope: slope * 10.0,
    )  # fmt: skip
    penalty: Any = lambda dose: (float(dose.sum()), np.full(3, 1.0))  # noqa: E731
    found = fit_fluence(operator, penalty, np.array([1.0, 2.0, 3.0]), smoothness=0.1, evaluations=17)
    assert found.tolist() == [4.0, 0.0, 1.0]
    (value, slope), start, words = asked[0]
    assert start == [0.5, 1.0, 1.5]
    # Shares of 1, 1, 1 are weights of 2: 60 in all, and no step between them.
    assert value == pytest.approx(60.0)
    assert slope == pytest.approx([20.0] * 3)
    assert words == {"jac": True, "method": "L-BFGS-B", "bounds": [(0.0, None)] * 3,
                     "options": {"maxfun": 17, "maxiter": 17, "ftol": 1e-9, "gtol": 0.0}}  # fmt: skip


def test_a_dose_is_scaled_to_the_mean_of_its_highest_prescription() -> None:
    dose, wanted = np.array([2.0, 4.0, 9.0], np.float32), np.array([60.0, 60.0, 50.0], np.float32)
    assert _scale(dose, wanted) == pytest.approx(20.0)
    assert _prescribed(dose, wanted).tolist() == [40.0, 80.0, 180.0]


def test_bixels_gather_the_mean_of_what_the_points_that_they_see_ask_for() -> None:
    seen = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], np.float32)
    operator: Any = SimpleNamespace(adjoint=lambda slope: seen @ slope)
    open_dose, wanted = np.array([2.0, 5.0, 1.0], np.float32), np.array([60.0, 50.0, 0.0], np.float32)
    # 30 and 10 are asked; the first bixel sees them by 1 and a half, the second the latter alone.
    assert _gathered(operator, open_dose, wanted) == pytest.approx([(30 + 5) / 1.5, 10.0])


@pytest.fixture
def known() -> FieldCase:
    """A low target about a high one, an organ that they cut, and another; voxels of 2 × 3 × 6 mm."""
    grid = Grid((13, 9, 7), (2.0, 3.0, 6.0), (-12.0, -12.0, -18.0))
    body = np.ones(grid.shape_zyx, bool)
    body[:, 0] = False
    low, high, organ, other = (np.zeros_like(body) for _ in range(4))
    low[2:9, 2:7, 1:5], high[4:7, 3:6, 2:4] = True, True
    organ[6:12, 3:8, 3:6], other[0:2, 6:9, 0:3] = True, True
    masks = {"Low": low, "Organ": organ, "High": high, "Other": other}
    return FieldCase(np.where(body, 0, -1000).astype(np.int16), grid, body, masks, {"Low": 50.0, "High": 70.0})


def test_the_highest_prescription_holds_where_targets_overlap(known: FieldCase) -> None:
    wanted = np.where(known.masks["High"], 70.0, np.where(known.masks["Low"], 50.0, 0.0))
    assert np.array_equal(known.wanted_gy, wanted)
    assert np.array_equal(known.targets, known.masks["Low"])
    assert known.wanted_gy.dtype == np.float32


def test_points_lie_on_a_lattice_of_at_most_5_mm_in_the_cases_middle(known: FieldCase) -> None:
    fields = field_dose(known, beams(bixel_mm=10.0))
    # Every second slice, each line and column; 13 slices from the first on.
    assert fields.lattice == (slice(0, None, 2), slice(0, None, 1), slice(0, None, 1))
    assert fields.grid == Grid((7, 9, 7), (4.0, 3.0, 6.0), (-12.0, -12.0, -18.0))
    assert np.array_equal(fields.inside, (known.body | known.targets)[::2])
    assert np.array_equal(fields.at_points(known.ct_hu), known.ct_hu[::2][fields.inside])
    cut = FieldCase(known.ct_hu[:12], Grid((12, 9, 7), (2.0, 3.0, 1.2), (-12.0, -12.0, -18.0)), known.body[:12],
                    {name: mask[:12] for name, mask in known.masks.items()}, known.prescription_gy)  # fmt: skip
    # Twelve slices of two: the last one is left over; seven columns of four: three are left over, one at the start.
    thin = field_dose(cut, beams(bixel_mm=10.0))
    assert thin.lattice == (slice(0, None, 2), slice(0, None, 1), slice(1, None, 4))
    assert thin.grid == Grid((6, 9, 2), (4.0, 3.0, 4.8), (-12.0, -12.0, -16.8))
    ramp = np.broadcast_to(np.arange(7)[:, None, None] * 8.0, fields.grid.shape_zyx).astype(np.float32)
    back = fields.on_case(ramp[fields.inside])
    assert back[:, 4, 3] == pytest.approx(4.0 * np.arange(13))
    assert not back[:, 0].any()
    # Beyond the skin the nearest point holds: no air is drawn in.
    assert back[:, 1, 0] == pytest.approx(4.0 * np.arange(13))


def test_the_generic_plan_asks_targets_tissue_and_organs_once_each(
    known: FieldCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = GenericPlan(floor_share=0.3, ring_weight=4.0, falloff_mm=9.0, organ_max_gy={"Organ": 40.0},
                       organ_mean_weight=0.5, smoothness=1e-3, evaluations=8)  # fmt: skip
    inside = known.body
    fields: Any = SimpleNamespace(case=known, inside=inside, at_points=lambda volume: volume[inside])
    asked: list[Any] = []
    monkeypatch.setattr(
        maps, "total_value_and_slope", lambda found, dose: asked.extend(found) or (4900.0, np.full(3, 9.8))
    )
    value, slope = _generic_penalty(fields, plan)(np.zeros(3, np.float32))
    assert (value, slope.tolist()) == (pytest.approx(1.0), pytest.approx([0.002] * 3))
    rows = [(one.objective.structure, one.objective.kind, one.objective.dose_gy, one.objective.weight) for one in asked]
    assert rows == [
        ("High", "min_dose", 70.0, 30.0), ("High", "max_dose", pytest.approx(73.5), 15.0),
        ("Low", "min_dose", 50.0, 30.0), ("Low", "max_dose", pytest.approx(52.5), 15.0),
        (NORMAL_TISSUE, "ring", 21.0, 4.0), ("Organ", "max_dose", 40.0, 2.0), ("Organ", "mean_max", 0.0, 0.5),
        ("Other", "mean_max", 0.0, 0.5),
    ]  # fmt: skip
    targets = known.targets
    where = {"High": known.masks["High"], "Low": known.masks["Low"] & ~known.masks["High"], NORMAL_TISSUE: ~targets,
             "Organ": known.masks["Organ"] & ~targets, "Other": known.masks["Other"] & ~targets}  # fmt: skip
    for one in asked:
        assert one.points.tolist() == np.flatnonzero(where[one.objective.structure][inside]).tolist()
        if one.objective.kind != "ring":
            assert set(one.limit_gy.tolist()) == {one.objective.dose_gy}
    ring = asked[4]
    voxels = np.argwhere(inside) * known.grid.spacing_mm
    distance = {
        name: np.array(
            [np.linalg.norm(np.argwhere(known.masks[name]) * known.grid.spacing_mm - at, axis=1).min() for at in voxels]
        )
        for name in ("High", "Low")
    }
    limit = ring_limit_gy(ring.objective, distance, {"Low": 50.0, "High": 70.0})
    assert ring.limit_gy == pytest.approx(limit[~targets[inside]])
    assert ring.objective.falloff_mm == 9.0


def test_bixels_are_told_apart_by_field_row_and_column() -> None:
    """Two fields of other sizes: each bixel's cells get its weight, and give their slopes back to it."""
    rng = np.random.default_rng(3)
    shapes, operators = ((2, 6), (3, 4)), []
    for shape in shapes:
        by_cell = rng.random((5, *shape)).astype(np.float32)
        operators.append(SimpleNamespace(
            n_points=5, spread=SimpleNamespace(primary=np.ones(shape)), by_cell=by_cell,
            dose_of_fluence=lambda fluence, by_cell=by_cell: np.einsum("prk,rk->p", by_cell, fluence[0]),
            adjoint_of_fluence=lambda slope, by_cell=by_cell: np.einsum("prk,p->rk", by_cell, slope)[None],
        ))  # fmt: skip
    bixels = (np.array([0, 0, 1, 1]), np.array([1, 0, 2, 0]), np.array([2, 0, 1, 0]))
    found = FieldOperator(operators, bixels, 2)  # type: ignore[arg-type]
    weights, slope = np.array([1.0, 2.0, 3.0, 4.0]), rng.random(5).astype(np.float32)
    columns = [
        operators[f].by_cell[:, r, 2 * c] + operators[f].by_cell[:, r, 2 * c + 1]
        for f, r, c in zip(*bixels, strict=True)
    ]
    assert found.n_bixels == 4
    assert found.dose(weights) == pytest.approx(np.stack(columns, axis=1) @ weights, rel=1e-5)
    assert found.adjoint(slope) == pytest.approx(np.stack(columns) @ slope, rel=1e-5)
    line = FieldOperator(operators, (np.zeros(3, int), np.array([0, 0, 1]), np.array([0, 1, 1])), 2)  # type: ignore[arg-type]
    first, second = line.neighbours()
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (1, 2)]
