"""The drift gate on the test cases: are they of the kind that is trained on?"""

from __future__ import annotations

from pathlib import Path

from doseledger.core.settings import Settings
from doseledger.gates.digests import CohortFiles
from doseledger.gates.drift.judge import DriftFiles, judge_drift
from doseledger.gates.verdict import enforce, require_token


def test_the_test_cases_pass_the_drift_gate(cohort_files: CohortFiles, settings: Settings, verdicts: Path) -> None:
    """Case by case and as a batch they are like the training cases, and the verdict on disk is about them.

    A cohort with fewer than five training cases fails: nothing can be said of drift there.
    """
    its = cohort_files
    files = DriftFiles(its.cases_dir, "test", its.cases_dir, its.splits_csv, its.protocol, its.thresholds, its.cohort)
    verdict = judge_drift(
        files, fold=settings.fold, repeat=settings.repeat, workers=settings.ingest.workers, tell=print
    )
    enforce(verdict)
    require_token(verdicts / "drift.json", verdict.digest, "drift")
