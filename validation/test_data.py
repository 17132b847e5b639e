"""The data gate on the data that are there."""

from __future__ import annotations

from doseledger.core.project.layout import Layout
from doseledger.core.settings import Settings
from doseledger.gates.data.cohort import judge_cohort
from doseledger.gates.digests import data_digest
from doseledger.gates.verdict import enforce, require_token


def test_the_cohort_passes_the_data_gate(layout: Layout, settings: Settings) -> None:
    """Every case, table and split is judged anew."""
    accepted = settings.ingest.accept_failed
    enforce(judge_cohort(layout, accepted, scale=settings.scale, tell=print))


def test_the_verdict_on_disk_is_of_these_data(layout: Layout) -> None:
    """The token that training trusts is about what is here now."""
    require_token(layout.data_verdict.token, data_digest(layout), "data")
