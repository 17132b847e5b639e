"""The page of a predicted patient, and the table of all on the console."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.browser import open_browser
from fixtures.known import assert_known_page

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.text.sheet import as_text
from doseledger.deliver.dose import PredictedPatient
from doseledger.deliver.measured import Yardstick, measure_dose
from doseledger.report.figures.overview import plot_prediction
from doseledger.report.page import write_page
from doseledger.report.prediction import ONE_DOSE, page_maker, predictions_table, tell_prediction

STATISTICS = {"target": ["D95%", "mean"], "organ": ["mean"]}
SHA = {name: name[0] * 64 for name in ("checkpoint_sha256", "code_sha256", "input_sha256", "case_sha256")}


@pytest.fixture
def patient(make_case: Callable[..., Case], repository: Path) -> Callable[..., tuple[PredictedPatient, str]]:
    """patient(drawn=True) -> a patient with a dose of 0.97 of the plan's, and the page of it."""
    cohort = repository / "validation/cohorts/phantom"
    protocol, goals = load_protocol(cohort / "protocol.yaml"), load_goals(cohort / "goals.yaml")

    def build(*, drawn: bool = False, **changes: Any) -> tuple[PredictedPatient, str]:
        case = make_case("anon_1")
        assert case.dose_gy is not None
        arrays = {"dose_gy": np.where(case.body, np.float32(0.97) * case.dose_gy, np.float32(0))}
        if drawn:
            arrays["dose_sd_gy"] = np.full_like(case.dose_gy, 1.5)
        record = {
            "case_id": "anon_1", "model": "dose_unet", "epoch": 9, "program": "0.1.0", "protocol": protocol.name,
            "protocol_sha256": "p" * 64, "prescription_gy": dict(protocol.prescription_gy), "n_fractions": 28,
            "registered_as": ["dose_unet@v0.2.0"], "commit": "abc", "dirty": False, **SHA,
            "mean_gy": {"PTV70": 68.0}, "highest_gy": 74.0, "undeliverable_gy": None, "seen_before": [],
            "warnings": ["Rectum ends within the target"], "seen_before_was_judged_by": "folder name and PatientID",
            **measure_dose(case, arrays, protocol, Yardstick(STATISTICS, protocol, goals)), **changes,
        }  # fmt: skip
        found = PredictedPatient(case, arrays, record)
        return found, page_maker(repository / "reports/templates", protocol, goals, 40)(found).args[0]

    return build


def test_the_page_shows_dose_goals_uncertainty_deliverability_and_what_made_it(patient: Any) -> None:
    made, page = patient()
    assert tell_prediction(made.record) in page
    for wanted in (
        "PREDICTED, NOT CALCULATED", "A model made this dose", "Rectum ends within the target", ONE_DOSE,
        "no plan was made of this dose",
        "Predicted dose of anon_1 as wash on axial, coronal and sagittal slices", "dose_unet@v0.2.0", *SHA.values(),
    ):  # fmt: skip
        assert wanted in page, wanted
    assert len(re.findall(r"<td class=\"(?:good|bad|warn|muted)\">(?:met|acceptable|missed|not judged)", page)) == len(
        made.record["goals"]
    )
    assert_known_page(Path(__file__).parent / "known" / "prediction_of_one_dose.txt", page)
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_the_page_tells_a_dose_that_was_projected_from_one_whose_distance_was_measured(patient: Any) -> None:
    _, measured = patient(undeliverable_gy=1.5, settings={"project": False})
    _, projected = patient(undeliverable_gy=1.5, settings={"project": True})
    assert "it lies 1.50 Gy from the nearest that the protocol" in measured
    assert "The dose is the nearest that" not in measured
    assert "The dose is the nearest that" in projected


def test_a_dose_too_low_for_a_picture_is_a_bad_case(patient: Any) -> None:
    made, _ = patient()
    low = np.minimum(made.arrays["dose_gy"], np.float32(13.9))
    with pytest.raises(BadCase, match=r"no dose reaches 14\.0 Gy anywhere"):
        plot_prediction(made.case, low, None, {})


def test_the_page_is_the_same_in_every_byte_and_shows_spread_where_doses_were_drawn(patient: Any) -> None:
    _, page = patient(drawn=True, undeliverable_gy=0.41, settings={"project": True})
    assert_known_page(Path(__file__).parent / "known" / "prediction.txt", page)
    assert page == patient(drawn=True, undeliverable_gy=0.41, settings={"project": True})[1]
    assert "Below: the spread of the drawn doses." in page
    assert "on average it lies 0.41 Gy from what the model told" in page


def test_the_page_is_written_beside_its_pdf_and_both_are_the_same_again(patient: Any, tmp_path: Path) -> None:
    _, page = patient()
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        assert write_page(page, folder / "report.html", folder / "report.pdf") == ""
        written.append([(folder / name).read_bytes() for name in ("report.html", "report.pdf")])
    assert written[0] == written[1]
    assert written[0][1].startswith(b"%PDF-")


def test_a_patient_without_a_target_is_not_drawn(patient: Any, make_case: Callable[..., Case]) -> None:
    made, _ = patient()
    bare = PredictedPatient(make_case("anon_1", absent=("PTV70", "PTV56")), made.arrays, made.record)
    with pytest.raises(BadCase, match="no target with a prescription is present"):
        page_maker(Path("none"), load_protocol_of(made), None, 40)(bare)


def load_protocol_of(made: PredictedPatient) -> Any:
    root = Path(__file__).resolve().parents[2]
    return load_protocol(root / "validation/cohorts/phantom/protocol.yaml")


def test_the_console_has_a_row_a_patient_with_verdicts_as_words(patient: Any) -> None:
    record = patient()[0].record
    goals = [{**record["goals"][0], "met": False, "acceptable": False}, {**record["goals"][1], "met": True}]
    found = {"predicted": {"anon_1": {**record, "goals": goals}}, "failed": {"anon_2": "no RTSTRUCT"}}
    plain = as_text(predictions_table(found), colour=False).splitlines()
    assert [re.split(r"  +", line) for line in plain] == [
        ["Patient", "State", "Mean of targets (Gy)", "Highest (Gy)", "Goals", "Remarks"],
        ["anon_1", "predicted", "PTV70 68.0", "74.0", "1 of 2 met", "1 warning"],
        ["anon_2", "failed", "no RTSTRUCT"],
    ]
    coloured = as_text(predictions_table(found), colour=True)
    assert "\033[31m1 of 2 met" in coloured
    assert "\033[31mfailed" in coloured


def test_a_browser_shows_the_page_on_a_phone_without_a_complaint_or_a_sideways_scroll(
    patient: Any, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(patient()[1], encoding="utf-8")
    with open_browser(tmp_path) as browser:
        browser.open(path, width=390, height=800)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("[...document.images].every((one) => one.alt && one.naturalWidth > 0)")
        assert browser.run("[...document.querySelectorAll('th')].every((one) => one.scope === 'col')")
        assert browser.complaints == []
        assert browser.requests == [path.as_uri()]
