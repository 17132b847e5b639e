"""What ingest says at its end: a row a case, and which optional structures were lost."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import NotReady
from doseledger.core.files import read_json, write_json
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import STRUCTURES, read_table
from doseledger.ingest import cohort
from doseledger.ingest.cohort import IngestRun, ingest
from doseledger.ingest.found import describe_lost
from doseledger.ingest.outcome import describe_outcome, outcome_rows, outcome_table, refuse_nothing, split_advice


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def protocol(factory) -> Protocol:
    return Protocol.model_validate({**factory.PROTOCOL, "spacing_mm": [6.0, 5.0, 5.0]})


def with_roi(factory, name: str):
    """A patient with one more ROI."""
    patient = factory.make_patient()
    rois = {
        "BODY": factory.stacked(factory.rectangle(*factory.BODY), factory.Z_MM),
        "PTV_70": factory.stacked(factory.circle(0.3, -10.1, 12.0), factory.Z_MM[7:13]),
        "PTV56": factory.stacked(factory.circle(0.3, -10.1, 20.0), factory.Z_MM[5:15]),
        "Rect": factory.stacked(factory.circle(0.2, 30.3, 9.0), factory.Z_MM[4:16]),
        name: factory.stacked(factory.circle(30.0, 0.0, 9.0), factory.Z_MM[4:16]),
    }
    patient.rtstruct = factory.make_rtstruct(rois, patient.ct, {"BODY": "EXTERNAL"})
    return patient


def test_an_optional_structure_that_is_lost_by_its_name_is_said_with_the_rois_that_may_be_it(
    factory, protocol, tmp_path
):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number, name in enumerate(["Bowel", "Dünndarm", "Dünndarm", "Penis"], start=1):
        with_roi(factory, name).save(raw / f"anon_{number}")
    broken = factory.make_patient()
    broken.roi("Rect").ROIName = "Enddarm"
    broken.save(raw / "anon_5")
    ingest(raw, out, protocol, IngestRun(), quiet)
    table = read_table(out / "structures.csv", STRUCTURES).set_index("structure")
    assert table.loc["Bowel"].to_dict() == {
        "required": False, "cases": 4, "found": 1, "may_be_cases": 2, "may_be": '"Dünndarm" (2)',
    }  # fmt: skip
    assert table["found"].drop("Bowel").unique().tolist() == [4]
    text = describe_outcome(out)
    assert 'Bowel: found in 1 of 4; unclaimed ROIs that may be it: "Dünndarm" (2). Rename them, or add the' in text
    rows = {row["case"]: row for row in outcome_rows(out)}
    assert rows["anon_5"]["state"] == "failed"
    assert rows["anon_5"]["reason"].endswith('nearest is "Enddarm" (a name of Rectum)')
    assert rows["anon_5"]["what_to_do"] == "Rename it, or add the alias to tiny_sib.yaml"
    assert rows["anon_1"] == {"case": "anon_1", "state": "converted", "reason": "", "what_to_do": ""}


def test_nothing_is_said_of_structures_that_all_cases_have():
    row = {"structure": "Bowel", "required": False, "cases": 3, "found": 3, "may_be_cases": 0, "may_be": ""}
    assert describe_lost(pd.DataFrame([row])) == []
    assert describe_lost(pd.DataFrame([{**row, "found": 2}])) == ["Bowel: found in 2 of 3"]


@pytest.mark.parametrize(
    ("text", "reason", "advice"),
    [
        ("the image is tilted by 2.00 degrees; resampling it would blur. Reconstruct it before export",
         "the image is tilted by 2.00 degrees; resampling it would blur", "Reconstruct it before export"),
        ("2 slices missing; export the whole series. Besides, it may identify the patient: PatientName. Run `x`, or y",
         "2 slices missing. Besides, it may identify the patient: PatientName",
         "export the whole series; Run `x`, or y"),
        ("export it again", "export it again", "export it again"),
        ("no advice at all", "no advice at all", ""),
    ],
)  # fmt: skip
def test_a_reason_is_parted_from_its_advice_and_no_word_is_lost(text, reason, advice):
    assert split_advice(text) == (reason, advice)


def test_many_sound_cases_are_one_row_and_trouble_is_never_folded_away():
    sound = [{"case": f"c{i}", "state": "converted", "reason": "", "what_to_do": ""} for i in range(200)]
    bad = [{"case": f"b{i}", "state": "failed", "reason": "x " * 100, "what_to_do": ""} for i in range(30)]
    cells = outcome_table([*bad, *sound]).rows
    assert [row[0].text for row in cells if row[0].text][-2:] == ["b29", "200 cases"]


def test_by_hand_an_ingest_that_converts_nothing_exits_1_and_in_a_stage_it_does_not(
    factory, protocol, tmp_path, monkeypatch
):
    with pytest.raises(NotReady, match="nothing was converted"):
        refuse_nothing(0)
    patient = factory.make_patient()
    patient.ct.pop(7)
    patient.save(tmp_path / "raw" / "anon_1")
    write_json(tmp_path / "tiny.yaml", protocol.model_dump(mode="json"))
    arguments = ["ingest", str(tmp_path / "raw"), str(tmp_path / "out"), "--protocol", str(tmp_path / "tiny.yaml")]
    monkeypatch.delenv("DVC_STAGE", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, NotReady)
    assert "anon_1  failed" in result.stdout
    monkeypatch.setenv("DVC_STAGE", "ingest")
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_new_synonym_tells_failed_cases_anew_and_converts_no_sound_one(factory, protocol, tmp_path, monkeypatch):
    factory.make_patient().save(tmp_path / "raw" / "anon_1")
    broken = factory.make_patient()
    broken.roi("Rect").ROIName = "Enddarm"
    broken.save(tmp_path / "raw" / "anon_2")
    run = IngestRun(index=tmp_path / "index.json")
    ingest(tmp_path / "raw", tmp_path / "out", protocol, run, quiet)
    monkeypatch.setattr(cohort, "_hints", lambda: "another")
    told: list[str] = []
    count = ingest(tmp_path / "raw", tmp_path / "out", protocol, run, told.append)
    assert (count.converted, count.reused, count.failed) == (0, 1, 1)
    assert [line.split(":")[0] for line in told] == ["[1/1] anon_2"]
    assert read_json(run.index)["anon_2"]["hints"] == "another"
