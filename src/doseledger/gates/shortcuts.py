"""The shortcut gate: has a network learned this patient's dose, or only where dose usually is?

It holds a trained model against two without insight on the same voxels, spoils its inputs one by one, and compares each
number with the limits of thresholds.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.cohort.predictions import load_prediction
from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.tables import SPLITS, read_table
from doseledger.evaluate.refusals import refuse_seen
from doseledger.gates.ablation import ALTERATIONS, ablate_case, mean_answers, predictor
from doseledger.gates.limits import ShortcutLimit, shortcut_limits
from doseledger.gates.trivial import (
    DistanceRegression,
    Template,
    TemplateFit,
    compare_doses,
    draw_voxels,
    fit_distances,
    mae_ratios,
)
from doseledger.gates.verdict import Finding, Verdict, code_digest, make_verdict, without_explanations

if TYPE_CHECKING:
    from doseledger.learn.predict import Model
    from doseledger.learn.recipe import PredictRecipe

Tell = Callable[[str], None]

JUDGES = ("ablation.py", "limits.py", "shortcuts.py", "trivial.py", "verdict.py")
ANSWERS = frozenset(alteration.name for alteration in ALTERATIONS)
# Without these two, nobody has said what the model must beat.
NEEDED = ("template_mae_ratio", "distance_mae_ratio")
# The voxels and the shuffled image are drawn with this: the same model always gives the same verdict.
DRAW_SEED = 20250601
# Of a large cohort so many cases, evenly spread, tell a mean dose and a regression well enough.
MOST_TRAINING_CASES = 40
TRAINING_VOXELS = 64_000
TEST_VOXELS = 20_000
# Each alteration is a prediction; the answers of the synthetic patients differ little from one to the next.
MOST_ALTERED_CASES = 3
# Numbers are told to so many digits: the last ones are the machine's, not the model's.
DIGITS = 4


@dataclass(frozen=True)
class ShortcutFiles:
    """What the shortcut gate looks at.

    Parameters
    ----------
    checkpoint
        The model.
    predictions_dir
        Its predictions of the test cases.
    cases_dir, splits_csv
        Folder of cases and table of splits.
    thresholds
        thresholds.yaml.
    cohort, model
        Whose limits hold.
    """

    checkpoint: Path
    predictions_dir: Path
    cases_dir: Path
    splits_csv: Path
    thresholds: Path
    cohort: str
    model: str

    def case_path(self, case_id: str) -> Path:
        """Return where a case lies."""
        return self.cases_dir / f"{case_id}.npz"

    def prediction_path(self, case_id: str) -> Path:
        """Return where the prediction of a case lies."""
        return self.predictions_dir / f"{case_id}.npz"


def judge_shortcuts(files: ShortcutFiles, recipe: PredictRecipe, *, fold: int, repeat: int, tell: Tell) -> Verdict:
    """Return the shortcut gate's verdict on a model.

    Parameters
    ----------
    files
        What to look at.
    recipe
        How the model predicts.
    fold, repeat
        Which part of the splits the model was trained and evaluated on.
    tell
        Called with one line for each step.

    Raises
    ------
    BadInput
        If a file or the model's limits are absent, or the limits leave out what a model must beat: a gate that can't
        see its data fails.
    BadCase
        If a case or a prediction is not the one that was trained on or evaluated.
    """
    from doseledger.learn.predict import load_model

    limits = shortcut_limits(files.thresholds, files.cohort, files.model)
    missing = [name for name in NEEDED if name not in {limit.metric for limit in limits}]
    if missing:
        raise BadInput(
            f"{files.thresholds}: shortcuts.{files.cohort}.{files.model} has no limit of {', '.join(missing)}; write "
            "down by how much the model must beat the trivial ones"
        )
    model = load_model(files.checkpoint)
    test = _test_cases(files, model, fold=fold, repeat=repeat)
    rng = np.random.default_rng(DRAW_SEED)
    template, regression, used = _fit(files, model.checkpoint.trained_on, rng)
    tell(f"trivial models fitted to {len(used)} of {len(model.checkpoint.trained_on)} training cases")
    trivial = [_compare(files, case_id, template, regression, rng) for case_id in test]
    answers = _ablate(files, model, recipe, list(test)[:MOST_ALTERED_CASES], tell)
    numbers = {name: _rounded(value) for name, value in (mae_ratios(trivial) | mean_answers(answers)).items()}
    details = {
        "cohort": files.cohort,
        "model": files.model,
        "training_cases": used,
        "numbers": numbers,
        "limits": [_result(numbers, limit) for limit in limits],
        "trivial": [{key: _rounded(value) for key, value in row.items()} for row in trivial],
        "ablation": {
            case_id: {name: _rounded(value) for name, value in row.items()} for case_id, row in answers.items()
        },
    }
    return make_verdict(
        "shortcuts", _digest(files, limits, test, recipe), judge_numbers(numbers, limits, files.model), details
    )


def judge_numbers(numbers: Mapping[str, float], limits: list[ShortcutLimit], model: str) -> list[Finding]:
    """Return which limits a model's numbers miss; a number that is not there misses its limit, unless it only warns.

    Parameters
    ----------
    numbers
        By name; NaN where no case had the input that would be altered.
    limits
        What is wanted.
    model
        Its name, for the message.
    """
    findings = []
    for limit in limits:
        if limit.metric not in numbers:
            known = ", ".join(sorted(numbers))
            message = f"{model}: no number is called {limit.metric}; there are {known}. Mend the limit's name"
            findings.append(Finding("shortcut_absent", "", "error", message, {"metric": limit.metric}))
            continue
        found = numbers[limit.metric]
        if math.isnan(found):
            message = f"{model}: no test case could be asked for {limit.metric} (a single target can't be swapped)"
            findings.append(Finding("shortcut_unasked", "", "warning", message, {"metric": limit.metric}))
        elif not _is_met(found, limit):
            gate = "ablation" if limit.metric in ANSWERS else "trivial_model"
            message = (
                f"{model}: {limit.metric} is {found:.3g}, wanted {limit.operator} {limit.limit:g} ({limit.source})"
            )
            told = {"metric": limit.metric, "found": found, "limit": limit.limit}
            findings.append(Finding(gate, "", limit.severity, message, told))
    return findings


def _test_cases(files: ShortcutFiles, model: Model, *, fold: int, repeat: int) -> dict[str, str]:
    """Return the test cases' SHA256 by name, after making sure that the model has seen none of them."""
    splits = read_table(files.splits_csv, SPLITS)
    rows = splits[(splits["split"] == "test") & (splits["fold"] == fold) & (splits["repeat"] == repeat)]
    if rows.empty:
        raise BadInput(
            f"{files.splits_csv}: no test case in fold {fold}, repeat {repeat}; there is nothing to judge by"
        )
    test = {str(case_id): str(sha256) for case_id, sha256 in zip(rows["case_id"], rows["sha256"], strict=True)}
    trained, selected = model.checkpoint.trained_on.values(), model.checkpoint.selected_on.values()
    for case_id, sha256 in test.items():
        refuse_seen(case_id, sha256, frozenset(trained), frozenset(selected))
        prediction = load_prediction(files.prediction_path(case_id))
        if prediction.checkpoint_sha256 != model.sha256 or prediction.case_sha256 != sha256:
            raise BadCase(case_id, "predicted with another checkpoint, or of the case as it was; predict it again")
    return dict(sorted(test.items()))


def _load(files: ShortcutFiles, case_id: str, sha256: str) -> Case:
    path = files.case_path(case_id)
    found = sha256_of_file(path) if path.is_file() else "absent"
    if found != sha256:
        raise BadCase(
            case_id, f"{path.name} is {found[:12]}, the model knows it as {sha256[:12]}; run ingest and train"
        )
    return Case.load(path)


def _fit(
    files: ShortcutFiles, trained_on: Mapping[str, str], rng: np.random.Generator
) -> tuple[Template, DistanceRegression, list[str]]:
    """Return both trivial models and the cases that they were fitted to: those of the network, thinned evenly."""
    names = sorted(trained_on)
    if len(names) > MOST_TRAINING_CASES:
        names = [names[i] for i in np.linspace(0, len(names) - 1, MOST_TRAINING_CASES).astype(int)]
    template, drawn = TemplateFit(), []
    for case_id in names:
        case = _load(files, case_id, trained_on[case_id])
        template.add(case)
        drawn.append(draw_voxels(case, TRAINING_VOXELS // len(names), rng))
    return template.result(), fit_distances(drawn), names


def _compare(
    files: ShortcutFiles, case_id: str, template: Template, regression: DistanceRegression, rng: np.random.Generator
) -> dict[str, Any]:
    prediction = load_prediction(files.prediction_path(case_id))
    voxels = draw_voxels(_load(files, case_id, prediction.case_sha256), TEST_VOXELS, rng)
    doses: dict[str, NDArray[Any]] = {
        "model": prediction.dose_gy.ravel()[voxels.index],
        "template": template.predict(voxels),
        "distance": regression.predict(voxels),
    }
    return compare_doses(voxels, doses)


def _ablate(
    files: ShortcutFiles, model: Model, recipe: PredictRecipe, case_ids: list[str], tell: Tell
) -> dict[str, dict[str, float]]:
    answers = {}
    predict, patch_zyx = predictor(model, recipe), model.checkpoint.recipe.sampling.patch_zyx
    for number, case_id in enumerate(case_ids):
        rng = np.random.default_rng([DRAW_SEED, number])
        answers[case_id] = ablate_case(Case.load(files.case_path(case_id)), predict, patch_zyx, rng)
        tell(f"{case_id}: " + ", ".join(f"{name} {value:.2f}" for name, value in answers[case_id].items()))
    return answers


def _digest(files: ShortcutFiles, limits: list[ShortcutLimit], test: Mapping[str, str], recipe: PredictRecipe) -> str:
    return sha256_of_json(
        {
            "checkpoint": sha256_of_file(files.checkpoint),
            "predictions": {case_id: sha256_of_file(files.prediction_path(case_id)) for case_id in test},
            "test": dict(test),
            "predict": recipe.model_dump(mode="json"),
            "limits": without_explanations([limit.model_dump(mode="json") for limit in limits]),
            "code": code_digest(Path(__file__).with_name(name) for name in JUDGES),
        }
    )


def _is_met(value: float, limit: ShortcutLimit) -> bool:
    return value <= limit.limit if limit.operator == "<=" else value >= limit.limit


def _result(numbers: Mapping[str, float], limit: ShortcutLimit) -> dict[str, Any]:
    found = numbers.get(limit.metric, math.nan)
    return {
        "metric": limit.metric,
        "found": found,
        "wanted": f"{limit.operator} {limit.limit:g}",
        "severity": limit.severity,
        "ok": not math.isnan(found) and _is_met(found, limit),
        "source": limit.source,
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
