"""The verdict on a model: metrics, shortcuts, drift of the test cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doseledger.core.errors import BadInput, DoseledgerError
from doseledger.core.files import sha256_of_json
from doseledger.core.project.layout import ModelLayout
from doseledger.gates.limits import borrowed_limits, load_thresholds
from doseledger.gates.model.metrics import judge_metrics
from doseledger.gates.model.shortcuts import judge_shortcuts
from doseledger.gates.model.standing import Standing, find_standing
from doseledger.gates.verdict import Finding, Verdict, make_verdict, read_findings, verdict_as_json

# What stands for the digest of a verdict where the gate could not judge.
NOT_JUDGED = "not judged"


def judge_model(at: ModelLayout, *, fold: int, repeat: int) -> Verdict:
    """Return the verdict on a trained and evaluated model; the stage `gate` enforces it, after the report.

    Parameters
    ----------
    at
        Where the files of the model and its cohort lie; the drift of the test cases was judged before.

    Returns
    -------
    Verdict
        Its findings are those of all three; `details` holds each one's verdict by name, as JSON values, and the
        model's `standing`: the state of its badge, one sentence, the reasons.

    Notes
    -----
    It never raises for what is wrong with a model: a judge that can't see its files, or has no limits, fails.
    """
    parts = {
        "metrics": _part("metrics", lambda: judge_metrics(at, fold=fold, repeat=repeat)),
        "shortcuts": _part("shortcuts", lambda: judge_shortcuts(at, fold=fold, repeat=repeat)),
        "drift": _part("drift", lambda: read_findings(at.layout.drift_verdict.findings)),
    }
    findings = [Finding(**item) for part in parts.values() for item in part["findings"]]
    digest = sha256_of_json({name: part["digest"] for name, part in parts.items()})
    standing = _standing(at, parts).as_json()
    details = {"cohort": at.layout.cohort, "model": at.name, "standing": standing, **parts}
    return make_verdict("model", digest, findings, details)


def _standing(at: ModelLayout, parts: dict[str, dict[str, Any]]) -> Standing:
    try:
        return find_standing(parts, load_thresholds(at.layout).badge, borrowed_limits(at.layout))
    except BadInput:
        # Then metrics and shortcuts could not be judged either, and say so.
        return find_standing(parts, None, {})


def _part(name: str, judge: Callable[[], Verdict]) -> dict[str, Any]:
    try:
        return verdict_as_json(judge())
    except DoseledgerError as error:
        return _unseen(name, error)


def _unseen(name: str, error: DoseledgerError) -> dict[str, Any]:
    finding = Finding(f"{name}_unseen", "", "error", str(error))
    return verdict_as_json(make_verdict(name, NOT_JUDGED, [finding], {}))
