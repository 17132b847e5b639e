"""The summary of one case."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.files import to_json
from doseledger.core.grid import Grid
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


def test_a_small_case_is_described_whole_and_in_lines(make_case: MakeCase) -> None:
    grid = Grid((2, 2, 3), (3.0, 2.0, 5.0), (-10.0, 0.0, 4.0))
    masks = np.zeros((2, 2, 2, 3), bool)
    masks[0, 0, :, 1:] = True
    native = {"shape_zyx": [2, 2, 2], "spacing_mm": [3.0, 2.0, 5.0], "origin_mm": [-10.0, 0.0, 4.0]}
    case = dataclasses.replace(
        make_case(), grid=grid, structure_names=("A", "B"), masks=masks, present=np.array([True, False]),
        ct_hu=np.arange(-5, 7, dtype=np.int16).reshape(2, 2, 3), body=masks[0] | masks[0][::-1], valid_dose=masks[0],
        dose_gy=np.arange(12, dtype=np.float32).reshape(2, 2, 3), sdf_mm=np.zeros(masks.shape, np.float16),
        full_shape_zyx=(9, 8, 7), crop_start_zyx=(1, 2, 3), prescription_gy={"A": 70.0},
        meta={"case_id": "c", "source_sha256": "s", "warnings": ["w"], "modality": "CT", "n_slices": 4, "group": "",
              "native_dose_grid": native},
    )  # fmt: skip
    found = describe_case(case)
    assert found == {
        "case_id": "c",
        "grid": {
            "axes": "z, y, x; LPS (+x left, +y posterior, +z head)", "shape_zyx": [2, 2, 3],
            "spacing_mm": [3.0, 2.0, 5.0],
            "origin_mm": [-10.0, 0.0, 4.0], "last_voxel_mm": [-7.0, 2.0, 14.0], "voxel_volume_cc": pytest.approx(0.03),
            "full_shape_zyx": [9, 8, 7], "crop_start_zyx": [1, 2, 3],
        },
        "image": {"modality": "CT", "min_hu": -4.0, "mean_hu": 1.0, "max_hu": 6.0},
        "structures": {
            "A": {
                "present": True, "voxels": 4, "volume_cc": pytest.approx(0.12), "centre_mm": [-10.0, 1.0, 11.5],
                "dose": {"min_gy": 1.0, "mean_gy": 2.5, "max_gy": 4.0, "beyond_dose_grid_percent": 50.0},
            },
            "B": {"present": False, "voxels": 0, "volume_cc": 0.0},
        },
        "body": {"voxels": 8, "volume_cc": pytest.approx(0.24)},
        "dose": {
            "min_gy": 1.0, "mean_gy": 6.0, "max_gy": 11.0, "max_anywhere_gy": 11.0, "valid_voxels": 4, "finite": True,
        },
        "prescription_gy": {"A": 70.0}, "n_fractions": 28, "source_sha256": "s", "warnings": ["w"],
        "meta": {"modality": "CT", "n_slices": 4, "group": "", "native_dose_grid": native},
    }  # fmt: skip
    lines = case_as_text(found).splitlines()
    assert lines[:5] == [
        "c: CT, 2 x 2 x 3 voxels of 3 x 2 x 5 mm (z, y, x; LPS)", "body 0 cm³, −4.0 to 6.0, mean 1.0 HU",
        "dose in the body 1.0 to 11.0, mean 6.0 Gy", "prescribed A 70 Gy in 28 fractions", "",
    ]  # fmt: skip
    assert lines[-5:] == ["absent: B", "warning: w", "modality: CT", "slices: 4", "source SHA256 s; all of it: --json"]
    assert [line.split() for line in lines if line.startswith("A ")] == [
        ["A", "0.12", "1.0", "to", "4.0,", "mean", "2.5"]
    ]
    nobody = describe_case(dataclasses.replace(case, body=np.zeros_like(case.body), dose_gy=None))
    assert nobody["image"] == {"modality": "CT", "min_hu": None, "mean_hu": None, "max_hu": None}
