"""The page of a survey: every word of it, with and without a protocol."""

from __future__ import annotations

from pathlib import Path

from fixtures.dump import fill_dump
from fixtures.known import assert_known_page

from doseledger.core.pool.cluster import HERE
from doseledger.core.project.protocol import load_protocol
from doseledger.ingest.survey.cohort import survey_dump
from doseledger.report.survey import write_survey_page


def test_the_page_of_a_raw_export_says_what_it_said(repository: Path, tmp_path: Path) -> None:
    dump = fill_dump(tmp_path / "Doe_Jane", 3, 12)
    protocol = load_protocol(repository / "validation/cohorts/prostate/protocol.yaml")
    for name, rules in (("survey", protocol), ("survey_without_protocol", None)):
        found = survey_dump(dump, rules, pictures=rules is not None, scale=HERE, tell=lambda line: None)
        write_survey_page(found, repository / "reports/templates", tmp_path / "page.html")
        assert_known_page(Path(__file__).parent / "known" / f"{name}.txt", (tmp_path / "page.html").read_text())
