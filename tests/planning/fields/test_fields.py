"""Fixed fields: dose and adjoint are one matrix, neighbours share an edge, and maps are those of a known pelvis."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Beams, GenericPlan
from doseledger.planning.fields.fluence import fit_fluence, mean_square
from doseledger.planning.fields.maps import FieldCase, FieldDose, field_dose, nearest_dose, physics_maps
from doseledger.planning.fields.operator import open_fields
from doseledger.planning.optimise.patient import Patient

PLAN = GenericPlan(
    floor_share=0.3, ring_weight=1.0, falloff_mm=20.0, organ_max_gy={"Rectum": 40.0}, organ_mean_weight=0.05,
    smoothness=1e-3, evaluations=8,
)  # fmt: skip
BEAMS = Beams(
    gantry_deg=[0.0, 100.0], bixel_mm=10.0, margin_mm=7.0, kernel_weights=(1.0, 1.0, 1.0, 1.0),
    maps=["conformal", "gathered", "plan"], plan=PLAN,
)  # fmt: skip


@pytest.fixture(scope="module")
def case(pelvis: Patient) -> FieldCase:
    thin = (slice(None, None, 2),) * 3
    grid = pelvis.grid
    coarse = type(grid)(
        pelvis.body[thin].shape,
        tuple(2 * s for s in grid.spacing_mm),
        grid.origin_mm,  # type: ignore[arg-type]
    )
    masks = {name: mask[thin] for name, mask in pelvis.masks.items()}
    return FieldCase(pelvis.ct_hu[thin], coarse, pelvis.body[thin], masks, pelvis.prescription_gy)


@pytest.fixture(scope="module")
def fields(case: FieldCase) -> FieldDose:
    return field_dose(case, BEAMS)


def test_the_adjoint_is_that_of_the_dose(fields: FieldDose) -> None:
    operator, rng = fields.operator, np.random.default_rng(1)
    weights = rng.uniform(0.0, 2.0, operator.n_bixels)
    slope = rng.normal(size=int(fields.inside.sum())).astype(np.float32)
    assert float(operator.dose(weights) @ slope) == pytest.approx(float(weights @ operator.adjoint(slope)), rel=1e-4)
    single = np.zeros(operator.n_bixels)
    single[3] = 1.0
    assert float(operator.dose(single).sum()) == pytest.approx(
        float(operator.adjoint(np.ones(len(slope), np.float32))[3]), rel=1e-4
    )


def test_neighbours_are_of_one_field_and_share_an_edge(fields: FieldDose) -> None:
    first, second = fields.operator.neighbours()
    field, row, column = fields.operator.bixels
    assert (field[first] == field[second]).all()
    assert (np.abs(row[first] - row[second]) + np.abs(column[first] - column[second]) == 1).all()
    pairs = {(int(a), int(b)) for a, b in zip(first, second, strict=True)}
    assert len(pairs) == len(first)
    whole = {(f, r, c) for f, r, c in zip(field.tolist(), row.tolist(), column.tolist(), strict=True)}
    beside = sum(((f, r + 1, c) in whole) + ((f, r, c + 1) in whole) for f, r, c in whole)
    assert len(pairs) == beside


def test_bixels_lie_within_the_margin_of_the_targets(case: FieldCase) -> None:
    def count(margin_mm: float) -> list[int]:
        beams = BEAMS.model_copy(update={"margin_mm": margin_mm})
        return [int(mask.sum()) for mask in open_fields(case.ct_hu, case.grid, case.targets, beams)[1]]

    assert count(0.0) == count(9.9) < count(10.0) == count(14.1) < count(14.2)
    with pytest.raises(BadInput, match="no voxel of any target is there to open a field to"):
        open_fields(case.ct_hu, case.grid, np.zeros_like(case.targets), BEAMS)


def test_fluence_is_fitted_to_a_dose_that_it_can_give(fields: FieldDose) -> None:
    operator, rng = fields.operator, np.random.default_rng(2)
    true = rng.uniform(0.5, 1.5, operator.n_bixels)
    wanted = operator.dose(true)
    penalty = mean_square(wanted, np.ones_like(wanted))
    assert penalty(np.zeros_like(wanted))[0] == pytest.approx(1.0)
    start = np.full(operator.n_bixels, 0.4)
    found = fit_fluence(operator, penalty, start, smoothness=0.0, evaluations=60)
    assert penalty(operator.dose(found))[0] < 1e-4
    assert found.min() >= 0.0
    smooth = fit_fluence(operator, penalty, start, smoothness=10.0, evaluations=60)
    assert smooth.std() < 0.3 * found.std()


# Mean dose in Gy of PTV70, PTV56 outside it, rectum, bladder, left femur, body.
KNOWN = {
    "conformal": [70.000, 67.191, 30.986, 33.690, 25.457, 9.854],
    "gathered": [70.000, 59.875, 29.810, 30.300, 24.934, 9.532],
    "plan": [71.415, 57.979, 28.748, 28.636, 25.411, 9.637],
}


def means(case: FieldCase, dose_gy: np.ndarray) -> list[float]:
    low = case.masks["PTV56"] & ~case.masks["PTV70"]
    parts = [case.masks["PTV70"], low, *(case.masks[name] for name in ("Rectum", "Bladder", "Femur_L")), case.body]
    return [float(dose_gy[part].mean()) for part in parts]


def test_maps_of_the_pelvis_are_what_they_were(case: FieldCase) -> None:
    maps = physics_maps(case, BEAMS)
    assert list(maps) == ["conformal", "gathered", "plan"]
    for name, dose_gy in maps.items():
        assert means(case, dose_gy) == pytest.approx(KNOWN[name], rel=5e-3), name
        assert not dose_gy[~case.body].any()


def test_the_nearest_dose_to_a_dose_of_the_fields_is_that_dose(case: FieldCase, fields: FieldDose) -> None:
    wanted = fields.on_case(fields.operator.dose(np.full(fields.operator.n_bixels, 0.7)))
    found = nearest_dose(fields, wanted)
    assert float(np.abs(found - wanted)[case.body].mean()) < 0.01 * float(wanted.max())
