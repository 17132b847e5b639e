"""A structure that the plan's dose grid cuts: what a case's array holds beyond that grid is in no statistic."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Goal, GoalSet, Protocol, load_goals, load_protocol
from doseledger.core.settings import EvaluateSettings
from doseledger.evaluate.case import Yardsticks, absolute_errors, evaluate_case
from doseledger.evaluate.files.case import describe_case
from doseledger.evaluate.files.dvh import dvh_of_case
from doseledger.gates.features import measure_case
from doseledger.report.case_pages import NO_GAMMA, name_cut, structure_curves
from doseledger.report.figures.views import Comparison

MakeCase = Callable[..., Case]
# Their caudal slices lie beyond the dose grid of the case below; the targets lie within it.
CUT = ["Rectum", "Femur_L", "Femur_R"]


def with_dose_from(case: Case, first_slice: int) -> Case:
    """The case, planned on a dose grid that begins at a slice; ingest leaves 0 Gy before it."""
    assert case.dose_gy is not None
    grid = case.grid.cropped((first_slice, 0, 0), (case.grid.shape_zyx[0] - first_slice, *case.grid.shape_zyx[1:]))
    native = {name: list(getattr(grid, name)) for name in ("shape_zyx", "spacing_mm", "origin_mm")}
    covered = np.zeros(case.grid.shape_zyx, dtype=bool)
    covered[first_slice:] = True
    return replace(
        case,
        dose_gy=np.where(covered, case.dose_gy, np.float32(0.0)),
        valid_dose=case.body & covered,
        meta={**case.meta, "native_dose_grid": native},
    )


@pytest.fixture
def whole(make_case: MakeCase) -> Case:
    return make_case()


@pytest.fixture
def cut(whole: Case) -> Case:
    first = int(np.argwhere(whole.mask("PTV56"))[:, 0].min())
    case = with_dose_from(whole, first)
    assert [name for name in case.present_names if case.lacks_dose(name)] == CUT
    return case


@pytest.fixture(scope="module")
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")


@pytest.fixture(scope="module")
def yardsticks(repository: Path, protocol: Protocol) -> Yardsticks:
    goals = load_goals(repository / "validation/cohorts/phantom/goals.yaml")
    remainder = Goal(
        structure="Rectum", statistic="mean", operator="<=", limit=40.0, unit="Gy", minus=["Bowel"], source="a test"
    )
    settings = EvaluateSettings(
        gamma=[],
        surface_tolerance_mm=1.0,
        verify_gamma_points=0,
        dvh_statistics={"target": ["D95%", "CI", "R50"], "organ": ["mean", "min", "D2cc", "V20Gy", "volume"]},
    )
    return Yardsticks(protocol, GoalSet(**{**dict(goals), "goals": [*goals.goals, remainder]}), settings)


def measured(case: Case, yardsticks: Yardsticks, beyond_gy: float = 0.0) -> dict[str, Any]:
    """All that is measured of a case and a prediction, with so much dose in both arrays beyond the dose grid."""
    assert case.dose_gy is not None
    known = np.zeros(case.grid.shape_zyx, dtype=bool)
    known[case.reach] = True
    plan = np.where(known, case.dose_gy, np.float32(beyond_gy))
    prediction = np.where(known, 1.05 * case.dose_gy, np.float32(beyond_gy)).astype(np.float32)
    case = replace(case, dose_gy=plan)
    found = evaluate_case(case, prediction, yardsticks, np.random.default_rng(1))
    curves = structure_curves(
        Comparison(case, prediction, NO_GAMMA, np.full(plan.shape, np.nan, np.float32)), yardsticks.protocol
    )
    features = measure_case(case, yardsticks.protocol)
    return {
        "dvh": {(row["structure"], row["statistic"]): row for row in found.dvh},
        "goals": found.goals,
        "errors": {name: found.row[f"mae_{name}_gy"] for name in case.structure_names},
        "features": {name: features[f"{name}_mean_gy"] for name in case.structure_names},
        "show": {name: row.get("dose") for name, row in describe_case(case)["structures"].items()},
        "curves": {curve.name: (curve.plan_percent.tolist(), curve.predicted_percent.tolist()) for curve in curves},
    }


def test_what_the_array_holds_beyond_the_dose_grid_moves_no_number(cut: Case, yardsticks: Yardsticks) -> None:
    zero, hot = measured(cut, yardsticks, 0.0), measured(cut, yardsticks, 65.0)
    for name in zero:
        # As text: NaN is not equal to itself. Curves are drawn on bins up to the highest dose anywhere in reach.
        assert str(zero[name]) == str(hot[name]), name


def test_a_cut_organ_has_no_value_and_a_reason_and_the_others_have_theirs(
    cut: Case, whole: Case, yardsticks: Yardsticks
) -> None:
    found, before = measured(cut, yardsticks), measured(whole, yardsticks)
    for (name, statistic), row in found["dvh"].items():
        if name in CUT and statistic != "volume":
            assert all(math.isnan(row[column]) for column in ("plan", "prediction", "difference"))
            assert "% of it lies beyond the dose grid" in row["reason"]
        # CI and R50 are of the dose everywhere, and end with its grid.
        elif name != "Bowel" and statistic not in ("CI", "R50"):
            assert row["plan"] == before["dvh"][name, statistic]["plan"], (name, statistic)
    assert all(math.isnan(found["features"][name]) for name in CUT)
    assert found["features"]["Bladder"] == before["features"]["Bladder"]
    assert set(before["curves"]) - set(found["curves"]) == set(CUT)


def test_a_volume_is_of_the_whole_structure(cut: Case, whole: Case, yardsticks: Yardsticks) -> None:
    for name in CUT:
        volume_cc = measured(cut, yardsticks)["dvh"][name, "volume"]["plan"]
        assert volume_cc == pytest.approx(whole.mask(name).sum() * whole.grid.voxel_volume_cc)


def test_a_goal_of_a_cut_organ_is_neither_met_nor_missed(cut: Case, yardsticks: Yardsticks) -> None:
    rows = [row for row in measured(cut, yardsticks)["goals"] if row["structure"] == "Rectum"]
    assert rows
    for row in rows:
        assert (row["plan_met"], row["prediction_met"], row["plan_acceptable"]) == (None, None, None)
        assert "% of it lies beyond the dose grid" in row["reason"]
    assert rows[-1]["reason"].endswith("; Bowel absent: nothing taken away for it")


def test_an_error_in_a_cut_organ_is_of_the_part_that_has_a_dose(cut: Case) -> None:
    assert cut.dose_gy is not None
    prediction = np.where(cut.valid_dose, cut.dose_gy + np.float32(2.0), np.float32(0.0)).astype(np.float32)
    errors = absolute_errors(cut, prediction)
    for name in ("Rectum", "Bladder"):
        assert errors[f"mae_{name}_gy"] == pytest.approx(2.0, abs=1e-5)
    # The body is whole: the plan counts as 0 Gy beyond its grid, and so does the prediction.
    share = cut.valid_dose.sum() / cut.body.sum()
    assert errors["mae_body_gy"] == pytest.approx(2.0 * share, rel=1e-4)


def test_a_case_shows_the_dose_of_the_part_that_has_one_and_how_much_has_none(
    cut: Case, yardsticks: Yardsticks
) -> None:
    shown = measured(cut, yardsticks)["show"]
    rectum = cut.mask("Rectum")
    beyond = rectum.sum() - rectum[cut.reach].sum()
    assert shown["Rectum"]["beyond_dose_grid_percent"] == pytest.approx(100 * beyond / rectum.sum())
    assert shown["Rectum"]["min_gy"] > 0.0
    assert "beyond_dose_grid_percent" not in shown["Bladder"]


def test_a_caption_names_whose_curve_is_not_drawn(cut: Case, whole: Case) -> None:
    assert name_cut(cut).startswith(" Without Rectum, Femur_L, Femur_R: no dose is known in part")
    assert name_cut(whole) == ""


def test_the_dvh_of_a_prediction_ends_with_the_plans_dose_grid_too(cut: Case, tmp_path: Path) -> None:
    cut.save(tmp_path / "cases/case_0001.npz")
    meta = {"case_id": "case_0001", "case_sha256": "0", "checkpoint_sha256": "0", "trained_on": [], "selected_on": []}
    np.savez(
        tmp_path / "case_0001.npz", dose_gy=cut.dose_gy, spacing_mm=cut.grid.spacing_mm,
        origin_mm=cut.grid.origin_mm, meta=json.dumps(meta),
    )  # fmt: skip
    found = dvh_of_case(tmp_path / "cases/case_0001.npz", ["mean"], dose_path=tmp_path / "case_0001.npz")["structures"]
    assert "% of it lies beyond the dose grid" in found["Rectum"]["statistics"]["mean"]["reason"]
    assert found["Bladder"]["statistics"]["mean"]["reason"] == ""


@pytest.mark.parametrize(("n_beyond", "lacks"), [(0, False), (10, False), (11, True)])
def test_a_thousandth_beyond_is_left_out_and_more_is_not(whole: Case, n_beyond: int, lacks: bool) -> None:
    masks = whole.masks.copy()
    rectum = masks[whole.structure_names.index("Rectum")]
    rectum[:] = False
    rectum[3].flat[:n_beyond] = True
    rectum[4:].flat[: 10_000 - n_beyond] = True
    assert with_dose_from(replace(whole, masks=masks), 4).lacks_dose("Rectum") is lacks


def test_a_case_that_does_not_say_where_its_dose_lies_has_it_everywhere(whole: Case) -> None:
    silent = replace(whole, meta={key: value for key, value in whole.meta.items() if key != "native_dose_grid"})
    assert silent.dose_gy is not None
    assert silent.dose_gy[silent.reach].shape == silent.grid.shape_zyx
    assert not any(silent.lacks_dose(name) for name in silent.structure_names)


def test_a_dose_grid_of_somewhere_else_reaches_nothing(whole: Case, protocol: Protocol, tmp_path: Path) -> None:
    native = {**whole.meta["native_dose_grid"], "origin_mm": [5000.0, 0.0, 0.0]}
    lost = replace(whole, meta={**whole.meta, "native_dose_grid": native})
    assert all(lost.lacks_dose(name) for name in lost.present_names)
    features = measure_case(lost, protocol)
    assert all(math.isnan(float(features[name])) for name in ("Rectum_mean_gy", "PTV70_d95_percent"))
    lost.save(tmp_path / "case_0001.npz")
    with pytest.raises(BadCase, match="the plan's dose grid does not reach the case; ingest it with its own RTDOSE"):
        dvh_of_case(tmp_path / "case_0001.npz")
