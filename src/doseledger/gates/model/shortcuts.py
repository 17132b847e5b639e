"""The shortcut gate: this patient's dose learned, or the usual one.

It holds what was measured of a model (evaluate/shortcuts/measure.py) against the limits of thresholds.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doseledger.core.code import code_digest
from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, sha256_of_file, sha256_of_json
from doseledger.core.project.layout import ModelLayout
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.evaluate.shortcuts.ablation import ALTERATIONS
from doseledger.gates.limits import ShortcutLimit, load_thresholds
from doseledger.gates.verdict import Finding, Verdict, make_verdict, without_explanations

ANSWERS = frozenset(alteration.name for alteration in ALTERATIONS) | {"blank_dice"}
MEASURED = ("checkpoint_sha256", "test_cases", "training_cases", "trivial", "ablation")


def judge_shortcuts(at: ModelLayout, *, fold: int, repeat: int) -> Verdict:
    """Return whether a model looks at the patient, by its shortcut limits.

    Parameters
    ----------
    at
        Where the model's measured shortcuts and checkpoint and the cohort's splits and limits lie.

    Raises
    ------
    BadInput
        If a file or the model's limits are absent, or the limits leave out what a model must beat: a gate that can't
        see its data fails.
    NotReady
        If there is no checkpoint.
    """
    limits = load_thresholds(at.layout).shortcuts_of(at.name)
    measured = read_measured(at.shortcuts)
    # Here, as it brings torch, which no report of a cohort needs.
    from doseledger.evaluate.shortcuts.measure import shortcut_numbers

    if not at.checkpoint.is_file():
        raise NotReady(f"{at.checkpoint}: no such checkpoint; run train first")
    cohort = rows_of_fold(read_table(at.layout.splits, SPLITS), fold, repeat)
    test = cohort[cohort["split"] == "test"]
    limits = [limit for limit in limits if len(cohort) > limit.above_cases]
    findings = _judge_age(at, measured, dict(zip(test["case_id"], test["sha256"], strict=True)))
    refusal = f"{at.shortcuts}: not what `doseledger shortcuts` writes of a model; run it again"
    with refuse_damage(lambda reason: BadInput(refusal)):
        numbers = shortcut_numbers(measured)
    findings += judge_numbers(numbers, limits, at.name)
    details = {
        "cohort": at.layout.cohort,
        "model": at.name,
        "training_cases": measured["training_cases"],
        "numbers": numbers,
        "limits": [_result(numbers, limit) for limit in limits],
        "trivial": measured["trivial"],
        "ablation": measured["ablation"],
    }
    digest = sha256_of_json(
        {
            "measured": sha256_of_file(at.shortcuts),
            "checkpoint": sha256_of_file(at.checkpoint),
            "splits": sha256_of_file(at.layout.splits),
            "limits": without_explanations([limit.model_dump(mode="json") for limit in limits]),
            "code": code_digest(__name__),
        }
    )
    return make_verdict("shortcuts", digest, findings, details)


def read_measured(path: Path) -> dict[str, Any]:
    """Return what `measure_shortcuts` found, as it was written.

    Raises
    ------
    BadInput
        If the file is absent or something else.
    """
    measured = read_json(path)
    is_whole = isinstance(measured, dict) and set(measured) == set(MEASURED) and measured["trivial"]
    tested = measured["test_cases"] if is_whole else None
    if not isinstance(tested, dict) or not all(isinstance(digest, str) for digest in tested.values()):
        raise BadInput(f"{path}: not what `doseledger shortcuts` writes of a model; run it again")
    return measured


def _judge_age(at: ModelLayout, measured: Mapping[str, Any], test: Mapping[str, str]) -> list[Finding]:
    """Judge whether the numbers are of this model and of these test cases."""
    findings = []
    if measured["checkpoint_sha256"] != sha256_of_file(at.checkpoint):
        message = f"{at.name}: {at.shortcuts.name} is of another checkpoint; measure the shortcuts again"
        findings.append(Finding("shortcut_stale", "", "error", message))
    changed = sorted(set(measured["test_cases"].items()) ^ set(test.items()))
    if changed or not test:
        names = ", ".join(sorted({case_id for case_id, _ in changed})) or "there is no test case"
        message = f"{at.name}: {at.shortcuts.name} is not of the present test cases ({names}); measure again"
        findings.append(Finding("shortcut_stale", "", "error", message))
    return findings


def judge_numbers(numbers: Mapping[str, float], limits: list[ShortcutLimit], model: str) -> list[Finding]:
    """Return which limits a model's numbers miss.

    A limit of an unknown number is an error, a number that no case could give a warning.

    Parameters
    ----------
    numbers
        By name; NaN where no case had the input that would be altered.
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
        elif not limit.is_met(found):
            gate = "ablation" if limit.metric in ANSWERS else "trivial_model"
            message = (
                f"{model}: {limit.metric} is {found:.3g}, wanted {limit.operator} {limit.limit:g} ({limit.source})"
            )
            told = {"metric": limit.metric, "found": found, "limit": limit.limit}
            findings.append(Finding(gate, "", limit.severity, message, told))
    return findings


def _result(numbers: Mapping[str, float], limit: ShortcutLimit) -> dict[str, Any]:
    found = numbers.get(limit.metric, math.nan)
    return {
        "metric": limit.metric,
        "found": found,
        "wanted": f"{limit.operator} {limit.limit:g}",
        "severity": limit.severity,
        "ok": limit.is_met(found),
        "provisional": limit.provisional,
        "source": limit.source,
    }
