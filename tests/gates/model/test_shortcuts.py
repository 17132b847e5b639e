"""The shortcut gate fails a network that does not look at the patient, and passes one that answers as physics says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from doseledger.cli.evaluate import app
from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import read_yaml, sha256_of_file, to_json, write_json
from doseledger.core.pool.cluster import HERE, local
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, write_table
from doseledger.evaluate.shortcuts.ablation import ALTERATIONS, Dose, ablate_case, cut_window, without_nearest_organ
from doseledger.evaluate.shortcuts.measure import measure_shortcuts, predict_by
from doseledger.evaluate.shortcuts.trivial import TemplateFit, compare_doses, draw_voxels, fit_distances, mae_ratios
from doseledger.gates.limits import NEEDED, ShortcutLimit
from doseledger.gates.model.shortcuts import MEASURED, judge_numbers, judge_shortcuts, read_measured
from doseledger.gates.verdict import Verdict
from doseledger.learn.data.inputs import CaseFile, InputSpec, open_case
from doseledger.learn.kinds import full_block, load_recipe, open_predictor
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict.cases import dose_predictor, load_model
from doseledger.learn.predict.predictor import Opener
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

MakeCase = Callable[..., Case]
WINDOW = (24, 40, 48)
PARTS = {"case_0001": "train", "case_0002": "train", "case_0003": "train", "case_0004": "val", "case_0005": "test"}


def physical_dose(case: Case) -> Dose:
    """Each target gets its prescription, the dose falls off around it; tissue matters little, organs not at all."""
    dose = np.zeros(case.grid.shape_zyx, dtype=np.float32)
    for name, prescription_gy in case.prescription_gy.items():
        outside_mm = np.maximum(case.sdf_mm[case.structure_names.index(name)].astype(np.float32), 0.0)
        far = outside_mm >= float(case.sdf_mm.max())
        dose = np.maximum(dose, np.where(far, 0.0, prescription_gy * np.exp(-outside_mm / 20.0)))
    return np.where(case.body, dose * (1.0 - case.ct_hu / 2000.0), 0.0).astype(np.float32)


def constant_dose(case: Case) -> Dose:
    return np.where(case.body, 30.0, 0.0).astype(np.float32)


def answers_of(predict: Callable[[Case], Dose], case: Case) -> dict[str, float]:
    return ablate_case(case, predict, WINDOW, np.random.default_rng(1))


def test_a_physical_dose_answers_every_alteration_as_physics_says(make_case: MakeCase) -> None:
    found = answers_of(physical_dose, make_case())
    assert found["prescription_gain"] == pytest.approx(1.0, abs=1e-3)
    assert found["prescription_swap_share"] == pytest.approx(1.0, abs=0.05)
    assert found["target_swap_share"] == pytest.approx(1.0, abs=0.05)
    assert found["target_drop_share"] == pytest.approx(1.0, abs=0.05)
    assert found["target_move_share"] == pytest.approx(1.0, abs=0.05)
    assert 0.05 < found["ct_shuffle_change_gy"] < 3.5
    assert found["organ_drop_change_gy"] == 0.0


def test_a_dose_that_looks_at_nothing_answers_nothing(make_case: MakeCase) -> None:
    found = answers_of(constant_dose, make_case())
    assert set(found) == {alteration.name for alteration in ALTERATIONS}
    assert set(found.values()) == {0.0}


def test_a_dose_read_off_the_image_gives_itself_away(make_case: MakeCase) -> None:
    def from_image(case: Case) -> Dose:
        return np.where(case.body, 30.0 + case.ct_hu / 10.0, 0.0).astype(np.float32)

    found = answers_of(from_image, make_case())
    assert found["ct_shuffle_change_gy"] > 3.5
    assert found["target_move_share"] == 0.0


def test_a_dose_that_hangs_on_an_organ_gives_itself_away(make_case: MakeCase) -> None:
    def if_bladder(case: Case) -> Dose:
        return physical_dose(case) * np.float32(1.0 if case.present[case.structure_names.index("Bladder")] else 0.5)

    case = make_case()
    altered = without_nearest_organ(case, np.random.default_rng(1))
    assert altered is not None
    assert set(case.present_names) - set(altered.present_names) == {"Bladder"}
    assert answers_of(if_bladder, case)["organ_drop_change_gy"] == pytest.approx(35.0, abs=1.0)


def test_a_single_target_is_not_asked_to_swap(make_case: MakeCase) -> None:
    case = replace(make_case(), prescription_gy={"PTV70": 70.0})
    found = answers_of(physical_dose, case)
    assert np.isnan(found["target_swap_share"])
    assert np.isnan(found["prescription_swap_share"])
    assert found["target_drop_share"] > 1.5
    limit = ShortcutLimit(metric="target_swap_share", operator=">=", limit=0.5, severity="error", source="physics")
    (finding,) = judge_numbers(found, [limit], "m")
    assert (finding.gate, finding.severity) == ("shortcut_unasked", "warning")


def test_a_window_is_cut_about_the_target_and_keeps_its_place(make_case: MakeCase) -> None:
    case = make_case()
    window = cut_window(case, (10, 20, 22))
    assert window.grid.shape_zyx == (10, 20, 22)
    assert window.mask("PTV70").sum() > 0.9 * case.mask("PTV70").sum()
    start = window.crop_start_zyx
    assert window.grid.origin_mm == pytest.approx(case.grid.index_to_mm(np.asarray(start)))
    box = tuple(slice(a, a + n) for a, n in zip(start, (10, 20, 22), strict=True))
    assert np.array_equal(window.ct_hu, case.ct_hu[box])
    assert cut_window(case, (999, 999, 999)).grid == case.grid


def test_a_case_without_its_targets_is_named(make_case: MakeCase) -> None:
    case = make_case(absent=("PTV70", "PTV56"))
    with pytest.raises(BadCase, match="none of the targets PTV70, PTV56 is there"):
        ablate_case(case, physical_dose, WINDOW, np.random.default_rng(1))
    with pytest.raises(BadCase, match="no plan dose"):
        draw_voxels(replace(make_case(), dose_gy=None), 10, np.random.default_rng(1))


def test_the_template_of_one_patient_is_that_patients_dose(make_case: MakeCase) -> None:
    case = make_case()
    fit = TemplateFit()
    fit.add(case)
    voxels = draw_voxels(case, 5000, np.random.default_rng(1))
    error = np.abs(fit.result().predict(voxels) - voxels.dose_gy)
    # The lattice takes the nearest voxel, so it errs by what the dose changes over half a voxel of 6 mm.
    assert error.mean() < 2.0
    doubled = replace(voxels, prescription_gy=140.0)
    assert np.allclose(fit.result().predict(doubled), 2.0 * fit.result().predict(voxels))
    with pytest.raises(BadInput, match="no training case"):
        TemplateFit().result()


def test_a_dose_that_is_a_function_of_distances_is_found_by_the_regression(make_case: MakeCase) -> None:
    rng = np.random.default_rng(1)
    cases = [make_case(f"case_{i:04d}", seed=i) for i in range(1, 5)]
    cases = [replace(case, dose_gy=physical_dose(replace(case, ct_hu=0 * case.ct_hu))) for case in cases]
    drawn = [draw_voxels(case, 4000, rng) for case in cases]
    error = np.abs(fit_distances(drawn[:3]).predict(drawn[3]) - drawn[3].dose_gy)
    assert error.mean() < 0.5
    with pytest.raises(BadInput, match="no training voxels"):
        fit_distances([])


def test_ratios_are_of_mean_errors_and_a_perfect_rival_can_not_be_beaten(make_case: MakeCase) -> None:
    voxels = draw_voxels(make_case(), 1000, np.random.default_rng(1))
    doses = {
        "model": voxels.dose_gy + 2,
        "template": voxels.dose_gy - 4,
        "distance": voxels.dose_gy,
        "prior": voxels.dose_gy + 1,
    }
    found = mae_ratios([compare_doses(voxels, doses)] * 2)
    assert found["template_mae_ratio"] == pytest.approx(0.5)
    assert found["template_mae_ratio_above_10_percent"] == pytest.approx(0.5)
    assert found["distance_mae_ratio"] == np.inf
    assert found["prior_mae_ratio"] == pytest.approx(2.0)


# The whole gate on files.


@pytest.fixture
def recipe(repository: Path) -> Recipe:
    settings = load_settings(repository / "params.yaml")
    block = json.loads(json.dumps(full_block(settings.model("dose_unet"), settings.model_base, "test")))
    block["sampling"]["patch_zyx"] = [16, 24, 32]
    block["network"] |= {"channels": [4, 8], "convolutions": [1, 1], "embedding": 8}
    # On a prior even an untrained network follows the targets; wanted here is one that does not.
    block["prior"] = "none"
    block["inputs"]["physics"] = []
    recipe = load_recipe(block, {}, "test")
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.fixture
def at(layout: Layout, make_case: MakeCase, recipe: Recipe) -> ModelLayout:
    """Five patients, an untrained network, and the plans themselves as its predictions."""
    torch.set_num_threads(1)
    at = layout.model("dose_unet")
    rows, digests = [], {}
    for seed, (case_id, part) in enumerate(PARTS.items()):
        case = make_case(case_id, seed=seed)
        path = layout.cases / f"{case_id}.npz"
        case.save(path)
        digests[case_id] = sha256_of_file(path)
        shared = {"repeat": 0, "fold": 0, "pseudonym": case_id, "group": "A", "split": part}
        rows.append({"case_id": case_id, "sha256": digests[case_id], **shared})
    write_table(layout.splits, pd.DataFrame(rows), SPLITS)
    spec = InputSpec(case.structure_names, ("PTV70", "PTV56"), recipe.inputs)
    torch.manual_seed(1)
    network = dose_network(recipe, spec)
    save_checkpoint(
        at.checkpoint,
        Checkpoint(
            model="dose_unet",
            recipe=recipe.trained_part(),
            settings={},
            structure_names=spec.structure_names,
            target_names=spec.target_names,
            spacing_range_mm=(case.grid.spacing_mm, case.grid.spacing_mm),
            trained_on={c: digests[c] for c in PARTS if PARTS[c] == "train"},
            selected_on={"case_0004": digests["case_0004"]},
            epoch=1,
            scores={},
            weights=network.state_dict(),
        ),
    )
    assert case.dose_gy is not None
    write_prediction(at, case, case.dose_gy)
    return at


def case_path(at: ModelLayout, case_id: str) -> Path:
    return at.layout.cases / f"{case_id}.npz"


def write_limits(at: ModelLayout, limits: list[dict[str, Any]]) -> None:
    path = at.layout.cohorts / "phantom/thresholds.yaml"
    write_json(path, {**read_yaml(path), "shortcuts": {"dose_unet": limits}})  # JSON is YAML too


def write_prediction(at: ModelLayout, case: Case, dose_gy: np.ndarray, **changes: Any) -> None:
    meta = {
        "case_id": case.case_id,
        "case_sha256": sha256_of_file(case_path(at, case.case_id)),
        "checkpoint_sha256": sha256_of_file(at.checkpoint),
        "trained_on": [],
        "selected_on": [],
        **changes,
    }
    arrays = {
        "dose_gy": dose_gy.astype(np.float32),
        "spacing_mm": np.asarray(case.grid.spacing_mm),
        "origin_mm": np.asarray(case.grid.origin_mm),
        "meta": np.asarray(json.dumps(meta)),
    }
    at.predictions.mkdir(parents=True, exist_ok=True)
    write_npz(at.predictions / f"{case.case_id}.npz", arrays)


def measure(at: ModelLayout, recipe: Recipe) -> None:
    predictor = open_predictor(at.checkpoint, recipe)
    write_json(at.shortcuts, measure_shortcuts(at, predictor, fold=0, repeat=0, tell=lambda line: None))


def test_another_process_measures_the_same(at: ModelLayout, recipe: Recipe) -> None:
    opener = Opener(open_predictor, at.checkpoint, recipe)
    here, there = (
        measure_shortcuts(at, opener, fold=0, repeat=0, scale=scale, tell=lambda line: None)
        for scale in (HERE, local(1))
    )
    assert to_json(here) == to_json(there)


def judged(at: ModelLayout, recipe: Recipe) -> Verdict:
    measure(at, recipe)
    return judge_shortcuts(at, fold=0, repeat=0)


def test_an_untrained_network_fails_as_it_does_not_look_at_the_targets(at: ModelLayout, recipe: Recipe) -> None:
    verdict = judged(at, recipe)
    assert not verdict.ok
    missed = {finding.numbers["metric"] for finding in verdict.errors}
    assert "target_move_share" in missed
    assert verdict.details["numbers"]["template_mae_ratio"] == 0.0
    assert verdict.details["training_cases"] == ["case_0001", "case_0002", "case_0003"]
    assert judged(at, recipe) == verdict


@pytest.mark.parametrize(("above_cases", "holds"), [(0, True), (4, True), (5, False)])
def test_a_limit_for_large_cohorts_holds_for_those_alone(
    at: ModelLayout, recipe: Recipe, above_cases: int, holds: bool
) -> None:
    kept = [
        {"metric": name, "operator": "<=", "limit": 9.0, "severity": "error", "source": "a test"} for name in NEEDED
    ]
    asked = {**kept[0], "metric": "prior_mae_ratio", "operator": ">=", "above_cases": above_cases}
    write_limits(at, [*kept, asked])
    missed = [finding.numbers["metric"] for finding in judged(at, recipe).errors]
    assert missed == (["prior_mae_ratio"] if holds else [])


def test_one_dose_everywhere_loses_against_both_trivial_models(at: ModelLayout, recipe: Recipe) -> None:
    case = Case.load(case_path(at, "case_0005"))
    write_prediction(at, case, constant_dose(case))
    found = [finding for finding in judged(at, recipe).errors if finding.gate == "trivial_model"]
    assert {finding.numbers["metric"] for finding in found} == {"distance_mae_ratio", "template_mae_ratio"}
    assert all(finding.numbers["found"] > 2.0 for finding in found)


def test_the_template_passed_off_as_a_model_is_warned_of(at: ModelLayout, recipe: Recipe) -> None:
    fit = TemplateFit()
    for number in (1, 2, 3):
        fit.add(Case.load(case_path(at, f"case_{number:04d}")))
    case = Case.load(case_path(at, "case_0005"))
    voxels = draw_voxels(case, 10**9, np.random.default_rng(1))
    dose = np.zeros(case.grid.shape_zyx)
    dose.ravel()[voxels.index] = fit.result().predict(voxels)
    write_prediction(at, case, dose)
    verdict = judged(at, recipe)
    assert verdict.details["numbers"]["template_mae_ratio"] == pytest.approx(1.0, abs=1e-3)
    (finding,) = [item for item in verdict.findings if item.numbers["metric"] == "template_mae_ratio"]
    assert finding.severity == "warning"


def test_what_a_network_adds_to_passed_off_as_a_model_is_warned_of(at: ModelLayout, recipe: Recipe) -> None:
    names = ("case_0001", "case_0002", "case_0003")
    training = [open_case(CaseFile(n, case_path(at, n), sha256_of_file(case_path(at, n)))) for n in names]
    checkpoint = load_checkpoint(at.checkpoint)
    part = checkpoint.recipe.model_copy(update={"prior": "mean_dose"})
    network = dose_network(part, checkpoint.spec, training)
    save_checkpoint(at.checkpoint, replace(checkpoint, recipe=part, weights=network.state_dict()))
    alone = load_model(at.checkpoint).prior_alone()
    assert alone is not None
    case = Case.load(case_path(at, "case_0005"))
    dose = predict_by(dose_predictor(alone, recipe.predict))(case)
    write_prediction(at, case, dose)
    verdict = judged(at, recipe)
    # What it adds to is the mean dose of its training cases, whose edges no training has moved yet.
    assert verdict.details["numbers"]["base_mae_ratio"] == 1.0
    assert verdict.details["numbers"]["prior_mae_ratio"] == pytest.approx(1.0, abs=1e-3)
    (finding,) = [item for item in verdict.findings if item.numbers["metric"] == "prior_mae_ratio"]
    assert finding.severity == "warning"
    write_prediction(at, case, 0.5 * (dose + case.dose_gy))
    assert judged(at, recipe).details["numbers"]["prior_mae_ratio"] == pytest.approx(0.5, abs=1e-3)


def test_a_network_that_adds_to_nothing_is_held_against_the_mean_dose_too(at: ModelLayout, recipe: Recipe) -> None:
    case = Case.load(case_path(at, "case_0005"))
    write_prediction(at, case, np.zeros(case.grid.shape_zyx))
    numbers = judged(at, recipe).details["numbers"]
    assert numbers["prior_mae_ratio"] > 2.0
    assert "base_mae_ratio" not in numbers


def test_limits_that_leave_out_a_trivial_model_are_refused(at: ModelLayout) -> None:
    limit = {"metric": "template_mae_ratio", "operator": "<=", "limit": 1.0, "severity": "error", "source": "x"}
    write_limits(at, [limit])
    with pytest.raises(BadInput, match="have no limit of distance_mae_ratio"):
        judge_shortcuts(at, fold=0, repeat=0)
    with pytest.raises(BadInput, match=r"no limits under shortcuts\.other, nor under shortcuts\.default"):
        judge_shortcuts(at.layout.model("other"), fold=0, repeat=0)


def test_numbers_of_another_model_or_of_other_test_cases_are_stale(at: ModelLayout, recipe: Recipe) -> None:
    measure(at, recipe)
    value = json.loads(at.shortcuts.read_text())

    def stale(fold: int = 0) -> list[str]:
        verdict = judge_shortcuts(at, fold=fold, repeat=0)
        return [finding.message for finding in verdict.errors if finding.gate == "shortcut_stale"]

    write_json(at.shortcuts, {**value, "checkpoint_sha256": "e" * 64})
    assert stale() == ["dose_unet: shortcuts.json is of another checkpoint; measure the shortcuts again"]
    write_json(at.shortcuts, {**value, "test_cases": {"case_0004": "a" * 64}})
    (other,) = stale()
    assert "is not of the present test cases (case_0004, case_0005)" in other
    (message,) = stale(fold=4)
    assert "case_0004" in message


def test_what_is_no_measurement_is_refused(at: ModelLayout) -> None:
    with pytest.raises(BadInput, match="no such file"):
        judge_shortcuts(at, fold=0, repeat=0)
    write_json(at.shortcuts, {"numbers": {"template_mae_ratio": 0.1}})
    with pytest.raises(BadInput, match="not what `doseledger shortcuts` writes"):
        judge_shortcuts(at, fold=0, repeat=0)


def test_a_limit_of_a_number_that_there_is_not_is_an_error() -> None:
    limit = ShortcutLimit(metric="targte_move_share", operator=">=", limit=0.3, severity="warning", source="x")
    (finding,) = judge_numbers({"target_move_share": 0.6}, [limit], "m")
    assert (finding.gate, finding.severity) == ("shortcut_absent", "error")
    assert "no number is called targte_move_share; there are target_move_share" in finding.message


def test_a_prediction_of_another_checkpoint_or_with_nan_or_a_changed_case_is_refused(
    at: ModelLayout, recipe: Recipe
) -> None:
    case = Case.load(case_path(at, "case_0005"))
    write_prediction(at, case, case.dose_gy, checkpoint_sha256="e" * 64)  # type: ignore[arg-type]
    with pytest.raises(BadCase, match="predicted with another checkpoint"):
        judged(at, recipe)
    assert case.dose_gy is not None
    write_prediction(at, case, np.where(case.mask("PTV70"), np.nan, case.dose_gy))
    with pytest.raises(BadCase, match="the prediction is not finite"):
        judged(at, recipe)
    write_prediction(at, case, case.dose_gy)
    replace(Case.load(case_path(at, "case_0002")), n_fractions=30).save(case_path(at, "case_0002"))
    with pytest.raises(BadCase, match=r"case_0002: case_0002\.npz is .* the model knows"):
        judged(at, recipe)


def test_a_fold_without_a_test_case_is_no_judgement(at: ModelLayout, recipe: Recipe) -> None:
    with pytest.raises(BadInput, match="no test case in fold 4"):
        measure_shortcuts(at, open_predictor(at.checkpoint, recipe), fold=4, repeat=0, tell=print)


def test_the_command_measures_as_the_pipeline_calls_it(at: ModelLayout, enter_project: Callable[[], None]) -> None:
    enter_project()
    shown = CliRunner().invoke(app, ["shortcuts", "dose_unet"])
    assert shown.exit_code == 0, shown.output
    assert "template_mae_ratio: 0" in shown.output
    assert json.loads(at.shortcuts.read_text())["training_cases"] == ["case_0001", "case_0002", "case_0003"]
    at.layout.model("dose_unet").code.joinpath("shortcuts.json").unlink()
    assert isinstance(CliRunner().invoke(app, ["shortcuts", "dose_unet"]).exception, NotReady)


@pytest.mark.parametrize("tested", [[], [["case_1", "a"]], "case_1", None, 7, {"case_1": None}, {"case_1": ["a"]}])
def test_shortcuts_whose_test_cases_are_no_table_are_refused_by_name(tested: Any, tmp_path: Path) -> None:
    whole = {key: {"a": 1} for key in MEASURED}
    write_json(tmp_path / "shortcuts.json", {**whole, "test_cases": {"case_1": "a"}})
    assert read_measured(tmp_path / "shortcuts.json")["test_cases"] == {"case_1": "a"}
    write_json(tmp_path / "shortcuts.json", {**whole, "test_cases": tested})
    with pytest.raises(BadInput, match=r"shortcuts\.json: not what `doseledger shortcuts` writes of a model"):
        read_measured(tmp_path / "shortcuts.json")
