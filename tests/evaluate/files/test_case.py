"""The summary of one case."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.files import to_json
from doseledger.evaluate.files.case import case_as_text, describe_case

MakeCase = Callable[..., Case]


def test_volumes_are_voxels_times_voxel_volume(make_case: MakeCase) -> None:
    case = make_case()
    found = describe_case(case)["structures"]["PTV70"]
    assert found["voxels"] == int(case.mask("PTV70").sum())
    assert found["volume_cc"] == pytest.approx(found["voxels"] * 6.0**3 / 1000)
    # An ellipsoid of 24, 21 and 24 mm holds 50.7 cc.
    assert found["volume_cc"] == pytest.approx(4 / 3 * np.pi * 2.4 * 2.1 * 2.4, rel=0.05)


def test_an_absent_structure_is_there_with_no_voxels_and_no_dose(make_case: MakeCase) -> None:
    found = describe_case(make_case())["structures"]["Bowel"]
    assert found == {"present": False, "voxels": 0, "volume_cc": 0.0}


def test_dose_statistics_are_of_the_body_and_the_prescription_is_told(make_case: MakeCase) -> None:
    case = make_case()
    found = describe_case(case)
    assert case.dose_gy is not None
    assert found["dose"]["mean_gy"] == pytest.approx(float(case.dose_gy[case.body].mean()), rel=1e-5)
    assert found["prescription_gy"] == {"PTV70": 70.0, "PTV56": 56.0}
    assert found["n_fractions"] == 28
    assert found["source_sha256"] == case.meta["source_sha256"]


def test_centre_is_in_patient_coordinates(make_case: MakeCase) -> None:
    found = describe_case(make_case())["structures"]
    # +x is the patient's left.
    assert found["Femur_L"]["centre_mm"][2] > 80 > -80 > found["Femur_R"]["centre_mm"][2]


def test_a_case_without_dose_says_none(make_case: MakeCase) -> None:
    case = dataclasses.replace(make_case(), dose_gy=None, prescription_gy={}, n_fractions=None)
    found = describe_case(case)
    assert found["dose"] is None
    assert "dose" not in found["structures"]["PTV70"]


def test_the_summary_is_plain_json_and_keeps_warnings_of_the_import(make_case: MakeCase) -> None:
    case = make_case()
    case.meta["warnings"] = ["one referenced image is absent"]
    found = json.loads(to_json(describe_case(case)))
    assert found["warnings"] == ["one referenced image is absent"]
    assert found["grid"]["shape_zyx"] == [24, 40, 48]
    assert found["meta"]["protocol"] == "prostate_sib"


def test_for_people_a_case_is_a_few_lines_with_a_table_of_its_structures(make_case: MakeCase) -> None:
    case = make_case()
    lines = case_as_text(describe_case(case)).splitlines()
    assert lines[0].startswith(f"{case.case_id}: CT, ")
    assert lines[0].endswith("mm (z, y, x; LPS)")
    assert any(line.startswith("dose in the body ") and line.endswith(" Gy") for line in lines)
    rows = {line.split()[0] for line in lines if " to " in line}
    present = [name for name, there in zip(case.structure_names, case.present, strict=True) if there]
    assert set(present) <= rows
    assert len(lines) < 40
    without = case_as_text(describe_case(dataclasses.replace(case, dose_gy=None)))
    assert "\nno dose\n" in without
