"""The drift gate on the test cases: are they of the kind that is trained on?"""

from __future__ import annotations

from doseledger.core.project.layout import Layout
from doseledger.core.settings import Settings
from doseledger.gates.drift.judge import judge_drift
from doseledger.gates.verdict import enforce, require_token


def test_the_test_cases_pass_the_drift_gate(layout: Layout, settings: Settings) -> None:
    """Case by case and as a batch they are like the training cases, and the verdict on disk is about them.

    A cohort with fewer than five training cases fails: nothing can be said of drift there.
    """
    scale = settings.scale
    verdict = judge_drift(layout, fold=settings.fold, repeat=settings.repeat, scale=scale, tell=print)
    enforce(verdict)
    require_token(layout.drift_verdict.token, verdict.digest, "drift")
