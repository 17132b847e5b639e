"""The data report of a cohort: what it says, what it leads to, and what it refuses."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.known import assert_known_page

from doseledger.core.case import Case
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, write_json, write_text
from doseledger.core.pool.cluster import local
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_protocol
from doseledger.core.settings import Settings
from doseledger.gates.drill.faults import choose_faults
from doseledger.gates.drill.limits import summarise_fault
from doseledger.report.data import (
    DataFacts,
    data_context,
    load_data_facts,
    make_data_report,
    shown_in_slices,
    slices_sentence,
)
from doseledger.report.figures.feature_figures import MOST_PANELS, group_features
from doseledger.report.page import render_page
from doseledger.report.tables.data_tables import drift_features_table, features_table

DRIFT = {
    "cases": [
        {"case_id": "case_0006", "distance": 1.2, "ratio": 1.3, "features": {"Rectum_volume_cc": 3.1}, "changed": {}},
        {"case_id": "case_0007", "distance": 0.8, "ratio": 0.7, "features": {}, "changed": {"n_fractions": 5.0}},
    ],
    "features": [
        {"feature": "body_volume_cc", "reference": 100.0, "new": 90.0, "ks_p": None, "ks_p_adjusted": None,
         "psi": None, "psi_limit": 0.25},
        {"feature": "Rectum_volume_cc", "reference": 60.0, "new": 90.0, "ks_p": 0.001, "ks_p_adjusted": 0.01,
         "psi": 0.5, "psi_limit": 0.25},
    ],
    "limits": {"alpha": 0.05},
}  # fmt: skip


def judged(root: Path) -> Layout:
    """A finished run's cohort, with findings of both gates."""
    layout = Layout(root, "phantom")
    found = read_json(layout.data_verdict.findings)
    expectation = {
        "column": "PTV70_volume_cc", "type": "expect", "wanted": "10 to 400", "min": 1.0, "max": 500.0, "n_cases": 8,
        "n_unexpected": 1, "ok": False, "severity": "warning", "reason": "A prostate with a margin.",
    }  # fmt: skip
    details = {"cohort": layout.cohort, "expectations": [expectation]}
    write_json(layout.data_verdict.findings, {**found, "details": details})
    drift = {**found, "gate": "drift", "findings": [], "details": {**DRIFT, "cohort": layout.cohort}}
    write_json(layout.drift_verdict.findings, drift)
    return layout


@pytest.fixture
def layout(finished_run: Any, tmp_path: Path) -> Layout:
    """A cohort that a test may change."""
    shutil.copytree(finished_run.at.layout.root, tmp_path / "project")
    return judged(tmp_path / "project")


def make(layout: Layout, settings: Settings) -> Layout:
    make_data_report(layout, settings, lambda line: None)
    return layout


def facts_of(layout: Layout) -> DataFacts:
    protocol = load_protocol(layout.protocol)
    return load_data_facts(layout, protocol, fold=0, repeat=0, tell=lambda line: None)


def write_drill(layout: Layout, digest: str) -> None:
    """A drill in which one case shows one fault from its largest size on and another one not at all."""
    nothing, error = {"errors": [], "warnings": []}, {"errors": ["sdf_not_mm"], "warnings": []}
    whole, sized = choose_faults(["dose_cgy", "sdf_scaled"])
    faults = [
        summarise_fault(whole, {"case_0001": [nothing]}),
        summarise_fault(sized, {"case_0001": [*[nothing] * 3, error]}),
    ]
    found = {"digest": digest, "seed": 1, "cases": ["case_0001"], "n_others": 7, "faults": faults}
    write_json(layout.drill, found)


def page_of(layout: Layout) -> str:
    """The page without its figures."""
    facts = facts_of(layout)
    context = data_context(
        layout.cohort, load_protocol(layout.protocol), facts, {"slices": (), "features": (), "drill": ()}, []
    )
    return render_page(layout.templates, "data_report.html.j2", context)


def test_the_page_holds_the_cohort_leads_to_the_gates_pages_and_is_the_same_again(
    layout: Layout, finished_run: Any, tmp_path: Path
) -> None:
    for page in (layout.data_page, layout.drift_page):
        write_text(page, "<html></html>")
    write_drill(layout, read_json(layout.data_verdict.findings)["digest"])
    make(layout, finished_run.settings)
    text = layout.data_report.read_text()
    # It leads to the gates' pages beside it, and nowhere else.
    outside = [a for a in re.findall(r'(?:src|href)="([^"]{0,80})', text) if not a.startswith(("data:image/", "#"))]
    assert outside == ["data.html", "drift.html"]
    assert str(tmp_path) not in text
    cases = pd.read_csv(layout.cases_csv)
    for needed in (
        *cases["sha256"], *cases["pseudonym"], "not a simultaneous integrated boost", "The test set is unlocked",
        "case_0006, case_0007, case_0008", "A prostate with a margin.", "1 beyond", "Rectum volume +3.1",
        "fractions = 5", "a warning to read", "PTV70", "Of 2 kinds 1 are not seen", "sdf_not_mm (50)",
        "held against 7 others", "Detection limits: Dose; the table says the same",
        "<figcaption>case_0001, ", "Axial and coronal slice of case_0008 with the contours of structures",
    ):  # fmt: skip
        assert str(needed) in text, needed
    loaded = [Case.load(layout.cases / f"{case_id}.npz") for case_id in cases["case_id"]]
    volumes = [case.mask("PTV70").sum() * case.grid.voxel_volume_cc for case in loaded]
    row = re.search(r"<td class=\"long\">PTV70 volume \(cc\)</td>(.*?)</tr>", text)
    assert row is not None
    cells = re.findall(r">([^<]*)</td>", row[1])
    assert cells[:3] == ["8", f"{np.median(volumes):.4g}", f"{min(volumes):.4g} to {max(volumes):.4g}"]
    assert layout.data_report_pdf.read_bytes().startswith(b"%PDF-")
    assert {path.suffix for path in layout.data_figures.iterdir()} == {".png", ".svg", ".pdf"}
    assert_known_page(Path(__file__).parent / "known" / "data.txt", text)
    before = layout.data_report.read_bytes(), layout.data_report_pdf.read_bytes()
    make_data_report(layout, finished_run.settings, lambda line: None, scale=local(1))
    assert (layout.data_report.read_bytes(), layout.data_report_pdf.read_bytes()) == before


def test_a_page_that_was_not_written_is_not_led_to(layout: Layout, finished_run: Any) -> None:
    text = make(layout, finished_run.settings).data_report.read_text()
    assert "drift.html" not in text


def test_the_page_has_no_raw_name_of_a_feature_no_backtick_and_no_long_text_where_lines_do_not_break(
    layout: Layout,
) -> None:
    findings = read_json(layout.data_verdict.findings)
    (expectation,) = findings["details"]["expectations"]
    wanted = {"wanted": "at most 50, in the cases with Bladder_volume_cc >= 150"}
    findings["details"]["expectations"] = [{**expectation, **wanted}, {**expectation, "column": ""}]
    write_json(layout.data_verdict.findings, findings)
    text = page_of(layout)
    assert "in the cases with Bladder volume (cc) ≥ 150" in text
    shown = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    assert not re.findall(r"\b\w+_(?:cc|hu|mm|percent|gy)\b|`", shown)
    # Cells of numbers are not broken: a sentence in one would push the rest of the table off a printed page.
    assert max(map(len, re.findall(r'<td class="number[^>]*>([^<]*)', text))) <= 30


def test_without_the_drift_gate_the_page_says_so(layout: Layout) -> None:
    layout.drift_verdict.findings.unlink()
    assert "The drift gate was not asked" in page_of(layout)


def test_detection_limits_that_nobody_measured_or_of_other_data_are_not_shown(layout: Layout) -> None:
    assert "Nobody has measured from which size on the gates see a fault here" in page_of(layout)
    write_drill(layout, "0" * 64)
    text = page_of(layout)
    assert "were measured on other data, limits or code; run <code>doseledger drill</code> again" in text
    assert "sdf_not_mm (50)" not in text


def test_a_failed_gate_is_red(layout: Layout, finished_run: Any) -> None:
    findings = read_json(layout.data_verdict.findings)
    error = {"gate": "sdf_sign", "case_id": "case_0001", "severity": "error", "message": "case_0001: inside out"}
    changes = {"ok": False, "findings": [error], "counts": {"error": 1, "warning": 0}}
    write_json(layout.data_verdict.findings, {**findings, **changes})
    text = make(layout, finished_run.settings).data_report.read_text()
    assert "A GATE FAILED" in text
    assert "The data gate failed." in text
    assert "inside out" in text
    assert "data report · GATE FAILED" in text


def test_a_missing_file_is_named(layout: Layout) -> None:
    layout.data_verdict.findings.unlink()
    with pytest.raises(NotReady, match=r"1 file\(s\) are missing: .*data_findings\.json.*`dvc repro report_data`"):
        facts_of(layout)


def test_findings_of_another_cohort_are_refused(layout: Layout) -> None:
    findings = read_json(layout.data_verdict.findings)
    write_json(layout.data_verdict.findings, {**findings, "details": {"cohort": "prostate"}})
    with pytest.raises(BadInput, match="findings of the cohort 'prostate', wanted 'phantom'"):
        facts_of(layout)


def test_a_case_that_is_not_the_one_in_the_table_is_refused(layout: Layout) -> None:
    digest = pd.read_csv(layout.cases_csv)["sha256"].iloc[2]
    layout.cases_csv.write_text(layout.cases_csv.read_text().replace(digest, "0" * 64))
    with pytest.raises(BadInput, match=r"case_0003: case_0003\.npz is not the one in cases\.csv"):
        facts_of(layout)


def test_with_many_cases_those_that_a_gate_names_are_shown_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doseledger.report.data.MOST_SLICES", 3)
    finding = {"gate": "placement", "case_id": "case_0007", "severity": "error", "message": "case_0007: swapped"}
    names = [f"case_{n:04}" for n in range(1, 9)]
    facts = DataFacts(
        run={}, cases=pd.DataFrame({"case_id": names}), skipped=pd.DataFrame(), splits=pd.DataFrame(),
        test_set=pd.DataFrame(), verdict={"findings": [finding, {**finding, "case_id": None}]}, drift=None,
        drill=({}, ""), features=pd.DataFrame(),
    )  # fmt: skip
    assert shown_in_slices(facts) == ["case_0001", "case_0002", "case_0007"]
    assert slices_sentence(facts).startswith("3 of 8 cases, those that the data gate names first.")


def test_features_without_a_test_come_last_and_have_a_dash() -> None:
    table = drift_features_table(DRIFT)
    assert [row[0].text for row in table.rows] == ["Rectum volume (cc)", "body volume (cc)"]
    assert [cell.state for cell in table.rows[0][3:5]] == ["bad", "warn"]
    assert table.rows[1][3].text == "–"


def test_a_feature_has_its_median_in_each_part() -> None:
    features = pd.DataFrame({"PTV70_volume_cc": [10.0, 20.0, 60.0, np.nan]}, index=["a", "b", "c", "d"])
    parts = pd.Series({"a": "train", "b": "train", "c": "test"})
    row = [cell.text for cell in features_table(features, parts).rows[0]]
    assert row == ["PTV70 volume (cc)", "3", "20", "10 to 60", "15", "–", "60"]


def test_a_figure_holds_no_more_panels_than_a_page() -> None:
    groups = group_features([f"s{n}_volume_cc" for n in range(MOST_PANELS + 3)] + ["PTV70_d95_percent"], ["PTV70"])
    assert {title: len(names) for title, names in groups.items()} == {
        "Volumes (1)": MOST_PANELS,
        "Volumes (2)": 3,
        "Dose in the targets": 1,
    }
