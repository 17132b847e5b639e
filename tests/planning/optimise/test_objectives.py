"""Objectives: known penalties, slopes against differences, and the points that stand for structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.errors import BadCase, BadInput
from doseledger.planning.optimise.objectives import (
    NORMAL_TISSUE,
    Kind,
    Objective,
    PointObjective,
    ring_limit_gy,
    sib_objectives,
    total_value_and_slope,
)
from doseledger.planning.optimise.patient import Patient, PlanStyle
from doseledger.planning.optimise.sampling import sampled_points

NAN, INF = float("nan"), float("inf")
DOSE = np.array([10.0, 20.0, 30.0, 40.0, 50.0])


def on_all(kind: str, dose_gy: float, volume: float = 0.0) -> PointObjective:
    objective = Objective("Organ", kind, dose_gy, 2.0, volume, falloff_mm=1.0)  # type: ignore[arg-type]
    return PointObjective(objective, np.arange(5), np.full(5, dose_gy))


@pytest.mark.parametrize(
    ("kind", "dose", "volume", "value"),
    [
        ("min_dose", 25.0, 0.0, 2 * (15**2 + 5**2) / 5),
        ("max_dose", 35.0, 0.0, 2 * (5**2 + 15**2) / 5),
        ("uniform", 30.0, 0.0, 2 * 1000 / 5),
        ("mean_max", 28.0, 0.0, 2 * 2**2),
        ("mean_max", 31.0, 0.0, 0.0),
        # 40 % may be above: the hottest two are let off, of the rest only 30 Gy is too high.
        ("dvh_max", 22.0, 40.0, 2 * 8**2 / 5),
        ("dvh_max", 35.0, 40.0, 0.0),
        # 60 % must be above 35: of the five only two are; the nearest of the cold ones counts.
        ("dvh_min", 35.0, 60.0, 2 * 5**2 / 5),
        ("dvh_min", 35.0, 40.0, 0.0),
    ],
)
def test_the_penalty_of_five_points_is_what_a_hand_makes_it(
    kind: str, dose: float, volume: float, value: float
) -> None:
    assert on_all(kind, dose, volume).value_and_slope(DOSE)[0] == pytest.approx(value)


@pytest.mark.parametrize("volume_percent", [0.0, 99.9])
@pytest.mark.parametrize("kind", ["dvh_max", "dvh_min"])
def test_any_volume_short_of_the_whole_may_be_asked_of(kind: Kind, volume_percent: float) -> None:
    assert Objective("Rectum", kind, 50.0, 0.0, volume_percent).volume_share == pytest.approx(volume_percent / 100.0)


@pytest.mark.parametrize("kind", ["min_dose", "max_dose", "uniform", "mean_max", "dvh_max", "dvh_min"])
def test_the_slope_agrees_with_differences(kind: str) -> None:
    asked = [on_all(kind, 26.0, 40.0)]
    _, slope = total_value_and_slope(asked, DOSE)
    for k in range(5):
        up, down = DOSE.copy(), DOSE.copy()
        up[k] += 1e-4
        down[k] -= 1e-4
        change = total_value_and_slope(asked, up)[0] - total_value_and_slope(asked, down)[0]
        assert slope[k] == pytest.approx(change / 2e-4, abs=1e-6)


def test_a_ring_falls_from_the_hottest_target_that_is_near() -> None:
    ring = Objective(NORMAL_TISSUE, "ring", 20.0, 1.0, falloff_mm=10.0)
    distance = {"PTV70": np.array([0.0, 12.0, 500.0]), "PTV56": np.array([0.0, 0.0, 12.0])}
    limit = ring_limit_gy(ring, distance, {"PTV70": 70.0, "PTV56": 56.0})
    assert limit.tolist() == pytest.approx([70.0, 56.0, 20.0 + 36.0 / np.e])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({key: v}, "must be numbers and not negative") for key in ("weight", "dose_gy") for v in (-1e-9, NAN, INF)),
        *(({"kind": kind, "volume_percent": volume}, rf"{kind} of Rectum: volume_percent {volume} not in")
          for kind in ("dvh_max", "dvh_min") for volume in (None, -0.1, 100.0, NAN)),
        *(({"kind": "ring", "falloff_mm": mm}, f"falloff_mm {mm}, wanted") for mm in (None, 0.0, -1.0, NAN, INF)),
    ],
)  # fmt: skip
def test_an_objective_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Objective(**{"structure": "Rectum", "kind": "max_dose", "dose_gy": 50.0, "weight": 1.0, **change})  # type: ignore[arg-type]


def test_points_lie_in_their_structures_and_a_cooler_target_leaves_out_the_hotter(pelvis: Patient) -> None:
    objectives = sib_objectives(pelvis.prescription_gy, ["Rectum", "Bladder", "Femur_L"], PlanStyle())
    points, asked = sampled_points(pelvis, objectives, 2000, np.random.default_rng(1))
    for one in asked:
        index = np.round(pelvis.grid.mm_to_index(points[one.points][:, ::-1])).astype(int)
        name = one.objective.structure
        inside = pelvis.body if name == NORMAL_TISSUE else pelvis.masks[name]
        assert np.all(inside[tuple(index.T)])
        if name == "PTV56":
            assert not np.any(pelvis.masks["PTV70"][tuple(index.T)])


def test_a_heavier_style_weighs_its_organ_more() -> None:
    plain = sib_objectives({"PTV70": 70.0}, ["Rectum"], PlanStyle())
    sparing = sib_objectives({"PTV70": 70.0}, ["Rectum"], PlanStyle(organ_weights={"Rectum": 3.0}))
    ratio = [b.weight / a.weight for a, b in zip(plain, sparing, strict=True) if a.structure == "Rectum"]
    assert ratio == pytest.approx([3.0] * len(ratio))


def test_a_patient_without_a_target_or_with_a_misfit_mask_is_refused(pelvis: Patient) -> None:
    with pytest.raises(BadCase, match="pelvis: target PTV60 has a prescription but no voxels"):
        replace(pelvis, prescription_gy={"PTV60": 60.0})
    with pytest.raises(BadCase, match="Rectum has"):
        replace(pelvis, masks={**pelvis.masks, "Rectum": pelvis.masks["Rectum"][1:]})
    mimic = [Objective("PTV70", "mimic", 0.0, 1.0)]
    with pytest.raises(BadInput, match="wanted_dose_gy"):
        sampled_points(pelvis, mimic, 100, np.random.default_rng(1))
    with pytest.raises(BadInput, match="no objective names a structure"):
        sampled_points(pelvis, [Objective("Larynx", "max_dose", 0.0, 1.0)], 100, np.random.default_rng(1))
