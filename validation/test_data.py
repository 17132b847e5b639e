"""The data gate on the data that are there."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.settings import Settings
from doseledger.gates.data.cohort import judge_cohort
from doseledger.gates.digests import CohortFiles, data_digest
from doseledger.gates.verdict import enforce, require_token


def test_the_cohort_passes_the_data_gate(cohort_files: CohortFiles, settings: Settings) -> None:
    """Every case, table and split is judged anew."""
    enforce(judge_cohort(cohort_files, settings.ingest.accept_failed, workers=settings.ingest.workers, tell=print))


def test_the_verdict_on_disk_is_of_these_data(cohort_files: CohortFiles, verdicts: Path) -> None:
    """The token that training trusts is about what is here now."""
    require_token(verdicts / "data.json", data_digest(cohort_files), "data")
