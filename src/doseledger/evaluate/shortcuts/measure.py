"""Answers to spoiled inputs, and errors beside models without insight."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.layout import ModelLayout
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.core.types import Tell
from doseledger.evaluate.predictions import load_labels, load_prediction
from doseledger.evaluate.refusals import refuse_seen, refuse_unfit
from doseledger.evaluate.shortcuts.ablation import Dose, Predict, ablate_case, mean_answers
from doseledger.evaluate.shortcuts.labels import LabelTemplate, blank_dice, compare_with_template, template_numbers
from doseledger.evaluate.shortcuts.trivial import (
    DistanceRegression,
    Template,
    TemplateFit,
    Voxels,
    compare_doses,
    draw_voxels,
    fit_distances,
    mae_ratios,
)
from doseledger.learn.data.inputs import CaseFile, InputSpec, OpenCase, open_case, save_case
from doseledger.learn.data.patches import as_tensors, read_inputs
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.predict.predictor import Opener, Predictor, predictor_of

Rival = Callable[[OpenCase], Dose]
# The voxels and the shuffled image are drawn with this: the same model always gives the same numbers.
DRAW_SEED = 20250601
# Of a large cohort so many cases, evenly spread, tell a mean dose and a regression well enough.
MOST_TRAINING_CASES = 40
TRAINING_VOXELS = 64_000
TEST_VOXELS = 20_000
# Each alteration is a prediction; the answers of the synthetic patients differ little from one to the next.
MOST_ALTERED_CASES = 3
# Numbers are told to so many digits: the last ones are the machine's, not the model's.
DIGITS = 4
# What a mean dose is told of a case: the same whatever the model itself sees.
MEAN_SEES = {"structures": "sdf", "prescription": "numbers", "place": "targets", "physics": []}


def measure_shortcuts(
    at: ModelLayout, model: Predictor | Opener, *, fold: int, repeat: int, scale: Scale = HERE, tell: Tell
) -> dict[str, Any]:
    """Return a model's errors beside trivial models' and its own base's, and its answers to spoiled inputs, as JSON.

    Parameters
    ----------
    at
        Where the model's predictions and the cohort's cases and splits lie.

    Returns
    -------
    dict
        `checkpoint_sha256`, `test_cases` (SHA256 by case), `training_cases` that the trivial models were fitted to,
        `trivial` (a row per test case, see `trivial.compare_doses`) and `ablation` (answers by case, see `ablation`).

    Raises
    ------
    BadInput
        If a file is absent, or there is no test case.
    BadCase
        If a case or a prediction is not the one that was trained on or evaluated.
    """
    predictor = predictor_of(model)
    test = _test_cases(at, predictor, fold=fold, repeat=repeat)
    if predictor.says_labels:
        return _measure_labels(at, predictor, test, tell)
    rng = np.random.default_rng(DRAW_SEED)
    template, regression, used = _fit(at, predictor.checkpoint.trained_on, rng)
    tell(f"trivial models fitted to {len(used)} of {len(predictor.checkpoint.trained_on)} training cases")
    mean_dose, rivals = _mean_dose(at, predictor, used), {}
    for case_id, sha256 in test.items():
        # Drawn one case after the other, wherever it is then compared.
        voxels = draw_voxels(_load(at, case_id, sha256), TEST_VOXELS, rng)
        known = {"template": template.predict(voxels), "distance": regression.predict(voxels)}
        # Without physics maps: a mean dose sees none.
        prior_gy = mean_dose(open_case(_file(at, case_id, sha256))).ravel()[voxels.index]
        rivals[case_id] = (case_id, sha256, voxels, {**known, "prior": prior_gy})
    trivial = over_cases(partial(_compare, at, model), rivals, scale, tell=tell).complete().values()
    altered = {case_id: (case_id, number) for number, case_id in enumerate(list(test)[:MOST_ALTERED_CASES])}
    answers = over_cases(partial(_ablate, at, model), altered, scale, tell=tell, note=_listed).complete()
    return {
        "checkpoint_sha256": predictor.sha256,
        "test_cases": test,
        "training_cases": used,
        "trivial": [_rounded(row) for row in trivial],
        "ablation": {case_id: _rounded(row) for case_id, row in answers.items()},
    }


def _measure_labels(at: ModelLayout, predictor: Predictor, test: dict[str, str], tell: Tell) -> dict[str, Any]:
    """Return what `measure_shortcuts` does, of a segmentation."""
    checkpoint = predictor.checkpoint
    template, names = LabelTemplate(checkpoint.structure_names), _thinned(sorted(checkpoint.trained_on))
    for case_id in names:
        template.add(_load(at, case_id, checkpoint.trained_on[case_id]))
    tell(f"template of the labels of {len(names)} training cases")
    rows = [compare_with_template(at, template, _load(at, case_id, sha256)) for case_id, sha256 in test.items()]
    answers = {}
    for case_id in list(test)[:MOST_ALTERED_CASES]:
        answers[case_id] = {"blank_dice": blank_dice(predictor, _load(at, case_id, test[case_id]))}
        tell(f"{case_id}: Dice {answers[case_id]['blank_dice']:.2f} on a blank image")
    return {
        "checkpoint_sha256": predictor.sha256,
        "test_cases": test,
        "training_cases": names,
        "trivial": [_rounded(row) for row in rows],
        "ablation": {case_id: _rounded(row) for case_id, row in answers.items()},
    }


def _thinned(names: list[str]) -> list[str]:
    if len(names) <= MOST_TRAINING_CASES:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, MOST_TRAINING_CASES).astype(int)]


def _test_cases(at: ModelLayout, predictor: Predictor, *, fold: int, repeat: int) -> dict[str, str]:
    """Return the test cases' SHA256 by name, after making sure that the model has seen none of them."""
    rows = rows_of_fold(read_table(at.layout.splits, SPLITS), fold, repeat, "test")
    if rows.empty:
        raise BadInput(
            f"{at.layout.splits}: no test case in fold {fold}, repeat {repeat}; there is nothing to judge by"
        )
    test = {str(case_id): str(sha256) for case_id, sha256 in zip(rows["case_id"], rows["sha256"], strict=True)}
    checkpoint = predictor.checkpoint
    trained, selected = checkpoint.all_trained_on.values(), checkpoint.all_selected_on.values()
    for case_id, sha256 in test.items():
        refuse_seen(case_id, sha256, frozenset(trained), frozenset(selected))
        load = load_labels if predictor.says_labels else load_prediction
        prediction = load(at.predictions / f"{case_id}.npz")
        if prediction.checkpoint_sha256 != predictor.sha256 or prediction.case_sha256 != sha256:
            raise BadCase(case_id, "predicted with another checkpoint, or of the case as it was; predict it again")
    return dict(sorted(test.items()))


def _file(at: ModelLayout, case_id: str, sha256: str) -> CaseFile:
    return CaseFile(case_id, at.layout.cases / f"{case_id}.npz", sha256)


def _load(at: ModelLayout, case_id: str, sha256: str) -> Case:
    path = _file(at, case_id, sha256).path
    found = sha256_of_file(path) if path.is_file() else "absent"
    if found != sha256:
        raise BadCase(
            case_id, f"{path.name} is {found[:12]}, the model knows it as {sha256[:12]}; run ingest and train"
        )
    return Case.load(path)


def _fit(
    at: ModelLayout, trained_on: Mapping[str, str], rng: np.random.Generator
) -> tuple[Template, DistanceRegression, list[str]]:
    """Return both trivial models and the cases that they were fitted to: those of the network, thinned evenly."""
    names = _thinned(sorted(trained_on))
    template, drawn = TemplateFit(), []
    for case_id in names:
        case = _load(at, case_id, trained_on[case_id])
        template.add(case)
        drawn.append(draw_voxels(case, TRAINING_VOXELS // len(names), rng))
    return template.result(), fit_distances(drawn), names


def _mean_dose(at: ModelLayout, predictor: Predictor, names: list[str]) -> Rival:
    """Return the mean dose of training cases as a model: what is known of a patient before any model says a word."""
    checkpoint = predictor.checkpoint
    seen = checkpoint.spec.recipe.model_copy(update=MEAN_SEES)
    spec = InputSpec(checkpoint.structure_names, checkpoint.target_names, seen)
    mean = MeanDose(spec)
    mean.fit([open_case(_file(at, name, checkpoint.trained_on[name])) for name in names])

    def tell(case: OpenCase) -> Dose:
        sample = as_tensors(read_inputs(case, spec, case.whole))
        with torch.inference_mode():
            dose = mean(sample["image"][None], sample["condition"][None])[0, 0]
        return dose.numpy() * np.float32(seen.dose_scale_gy)

    return tell


def _opened(file: CaseFile, predictor: Predictor, folder: Path) -> OpenCase:
    """Return a case with the physics maps that a model sees, made into a folder."""
    # It loads numba, which whoever judges a model's numbers has no use for.
    from doseledger.ingest.physics import with_physics

    return open_case(with_physics(file, predictor.checkpoint.beams, folder))


def _base_dose(at: ModelLayout, predictor: Predictor, case_id: str, sha256: str) -> dict[str, Dose]:
    """Return the dose of a case that the model's network adds to, if it adds to something."""
    if predictor.prior is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="prior_") as folder:
        return {"base": predictor.prior(_opened(_file(at, case_id, sha256), predictor, Path(folder)))}


def _compare(
    at: ModelLayout,
    model: Predictor | Opener,
    case_id: str,
    sha256: str,
    voxels: Voxels,
    rivals_gy: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """Return the errors of a case's prediction, of the trivial models and of what the network adds to."""
    prediction = load_prediction(at.predictions / f"{case_id}.npz")
    refuse_unfit(_load(at, case_id, sha256), prediction.dose_gy, prediction.grid)
    base_gy = _base_dose(at, predictor_of(model), case_id, sha256)
    doses: dict[str, NDArray[Any]] = {
        "model": prediction.dose_gy.ravel()[voxels.index],
        **rivals_gy,
        **{name: dose_gy.ravel()[voxels.index] for name, dose_gy in base_gy.items()},
    }
    return compare_doses(voxels, doses)


def _ablate(at: ModelLayout, model: Predictor | Opener, case_id: str, number: int) -> dict[str, float]:
    """Return the answers of a model to a case's spoiled inputs."""
    predictor, case = predictor_of(model), Case.load(at.layout.cases / f"{case_id}.npz")
    # Beams come from outside a window: what they do to a case can't be cut out of it.
    beams, window = predictor.checkpoint.beams, predictor.window_zyx
    patch_zyx = case.grid.shape_zyx if beams is not None or window is None else window
    rng = np.random.default_rng([DRAW_SEED, number])
    return ablate_case(case, predict_by(predictor), patch_zyx, rng)


def _listed(answers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in answers.items())


def predict_by(predictor: Predictor) -> Predict:
    """Return a model as a function from a case to its dose; the case goes through a file, as any other does."""

    def predict(case: Case) -> Dose:
        with tempfile.TemporaryDirectory(prefix="ablation_") as folder:
            return predictor.predict(_opened(save_case(case, Path(folder)), predictor, Path(folder)))["dose_gy"]

    return predict


def shortcut_numbers(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return a model's numbers by name, taken anew from the rows of its cases; NaN where no case gave one."""

    def known(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: math.nan if value is None else value for key, value in row.items()}

    answers = {case_id: known(row) for case_id, row in measured["ablation"].items()}
    rows = [known(row) for row in measured["trivial"]]
    if rows and "template_dice" in rows[0]:
        numbers = template_numbers(rows, answers)
        return {name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()}
    numbers = mae_ratios(rows) | mean_answers(answers)
    return {name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()}


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with numbers at four digits, and None where there is none."""
    return {
        key: (None if math.isnan(value) else float(f"{value:.{DIGITS}g}")) if isinstance(value, float) else value
        for key, value in row.items()
    }
