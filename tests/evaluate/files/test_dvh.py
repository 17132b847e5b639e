"""DVHs straight from DICOM: the planning system's own stored DVHs and dicompyler-core as references."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.evaluate.files.dvh import describe_lines, dvh_of_case, dvh_of_rtdose

PRESCRIBED_GY = 14.0


@pytest.fixture(scope="module")
def breast(shared_data: Path) -> Path:
    return shared_data / "dicom" / "dicompyler_breast_imrt"


@pytest.fixture(scope="module")
def ours(breast: Path) -> dict[str, Any]:
    return dvh_of_rtdose(breast / "rtss.dcm", breast / "rtdose.dcm")


def stored_dvhs(breast: Path) -> dict[str, dict[str, float]]:
    """Mean and maximum of the planning system: stored in percent of 14 Gy, whatever DoseUnits says."""
    names = {
        int(item.ROINumber): str(item.ROIName) for item in pydicom.dcmread(breast / "rtss.dcm").StructureSetROISequence
    }
    return {
        names[int(item.DVHReferencedROISequence[0].ReferencedROINumber)]: {
            "mean": float(item.DVHMeanDose) / 100 * PRESCRIBED_GY,
            "max": float(item.DVHMaximumDose) / 100 * PRESCRIBED_GY,
            "volume": float(item.DVHData[1]),
        }
        for item in pydicom.dcmread(breast / "rtdose.dcm").DVHSequence
    }


@pytest.mark.parametrize("name", ["Heart", "Lt Lung", "Tumor Bed"])
def test_means_are_those_of_the_planning_system(name: str, breast: Path, ours: dict[str, Any]) -> None:
    wanted, found = stored_dvhs(breast)[name], ours["structures"][name]["statistics"]
    assert found["mean"]["value"] == pytest.approx(wanted["mean"], rel=0.01, abs=0.02)
    # The lung's rim lies in the edge of a beam: the system's points miss 0.11 Gy of what its own dose has on a contour,
    # and ours is the solid's maximum.
    assert found["max"]["value"] == pytest.approx(wanted["max"], abs=0.15 if name == "Lt Lung" else 0.005)
    assert found["volume"]["value"] == pytest.approx(wanted["volume"], rel=0.03)


@pytest.mark.parametrize("name", ["BODY", "Breast", "Heart", "Tumor Bed Block"])
def test_maxima_are_those_of_the_planning_system(name: str, breast: Path, ours: dict[str, Any]) -> None:
    found = ours["structures"][name]["statistics"]["max"]["value"]
    assert found == pytest.approx(stored_dvhs(breast)[name]["max"], abs=0.005)


@pytest.mark.parametrize(("name", "slack_gy"), [("BODY", 0.03), ("Breast", 0.01), ("Lt Lung", 0.1), ("Heart", 0.01)])
def test_hottest_hundredths_of_a_cc_are_those_of_the_planning_system(
    name: str, slack_gy: float, breast: Path, ours: dict[str, Any]
) -> None:
    numbers = {str(i.ROIName): int(i.ROINumber) for i in pydicom.dcmread(breast / "rtss.dcm").StructureSetROISequence}
    stored = {
        int(item.DVHReferencedROISequence[0].ReferencedROINumber): np.array(item.DVHData, dtype=float)
        for item in pydicom.dcmread(breast / "rtdose.dcm").DVHSequence
    }[numbers[name]]
    # Pairs of a bin's width in Gy, here in Gy indeed, and the volume in cc at or above its lower edge.
    edges_gy = np.concatenate([[0.0], np.cumsum(stored[0::2])[:-1]])
    wanted = float(np.interp(0.03, stored[1::2][::-1], edges_gy[::-1]))
    assert ours["structures"][name]["statistics"]["D0.03cc"]["value"] == pytest.approx(wanted, abs=slack_gy)


def test_an_roi_without_contours_says_so(ours: dict[str, Any]) -> None:
    empty = [name for name, found in ours["structures"].items() if "reason" in found]
    assert len(empty) == 1
    assert ours["structures"][empty[0]] == {"reason": "the ROI has no closed contours"}


def test_the_curve_falls_from_100_percent_to_the_hottest_point(ours: dict[str, Any]) -> None:
    curve = ours["structures"]["Heart"]["curve"]
    assert curve["volume_percent"][0] == 100.0
    assert np.all(np.diff(curve["volume_percent"]) <= 0)
    assert curve["dose_gy"][-1] == pytest.approx(ours["structures"]["Heart"]["statistics"]["max"]["value"])


# It also uses what pydicom, numpy and scikit-image are about to drop.
@pytest.mark.filterwarnings("ignore")
def test_statistics_agree_with_dicompyler_as_far_as_programs_do(
    breast: Path, ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # dicompyler-core 0.5.6 asks for a name that pydicom 3 no longer has.
    dicomio = importlib.import_module("pydicom.dicomio")
    monkeypatch.setattr(dicomio, "read_file", pydicom.dcmread, raising=False)
    dvhcalc = pytest.importorskip("dicompylercore.dvhcalc", reason="dicompyler-core is not installed")
    numbers = {
        str(item.ROIName): int(item.ROINumber) for item in pydicom.dcmread(breast / "rtss.dcm").StructureSetROISequence
    }
    for name in ("Heart", "Tumor Bed"):
        peer = dvhcalc.get_dvh(str(breast / "rtss.dcm"), str(breast / "rtdose.dcm"), numbers[name])
        found = ours["structures"][name]["statistics"]
        assert found["mean"]["value"] == pytest.approx(float(peer.mean), abs=0.1)
        assert found["D95%"]["value"] == pytest.approx(float(peer.statistic("D95").value), abs=0.5)
        assert found["D2%"]["value"] == pytest.approx(float(peer.statistic("D2").value), abs=0.5)
        assert found["volume"]["value"] == pytest.approx(float(peer.volume), rel=0.03)


def test_files_of_another_kind_and_unknown_statistics_are_refused(breast: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is RTDOSE, wanted RTSTRUCT"):
        dvh_of_rtdose(breast / "rtdose.dcm", breast / "rtdose.dcm")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="is no DICOM, wanted RTDOSE"):
        dvh_of_rtdose(breast / "rtss.dcm", tmp_path / "notes.txt")
    with pytest.raises(BadInput, match="can't be read"):
        dvh_of_rtdose(tmp_path / "absent.dcm", breast / "rtdose.dcm")
    with pytest.raises(BadInput, match="statistic 'D95' is not known"):
        dvh_of_rtdose(breast / "rtss.dcm", breast / "rtdose.dcm", ["D95"])


def test_conformity_looks_at_the_whole_dose(breast: Path) -> None:
    wanted = ["CI", "R50", "HI", "volume", "V95%[cc]"]
    found = dvh_of_rtdose(breast / "rtss.dcm", breast / "rtdose.dcm", wanted, prescription_gy=PRESCRIBED_GY)
    tumour_bed = {name: one["value"] for name, one in found["structures"]["Tumor Bed"]["statistics"].items()}
    dose = pydicom.dcmread(breast / "rtdose.dcm")
    dose_gy, voxel_cc = dose.pixel_array * float(dose.DoseGridScaling), 2.5 * 2.5 * 3.0 / 1000.0
    half_cc = np.count_nonzero(dose_gy >= PRESCRIBED_GY / 2) * voxel_cc
    assert tumour_bed["R50"] == pytest.approx(half_cc / tumour_bed["volume"], rel=0.01)
    # Of 13 cc all have the prescription, and so does what lies about them.
    assert 0 < tumour_bed["CI"] < 0.5
    line = next(line for line in describe_lines(found) if line.startswith("Tumor Bed:"))
    assert f"HI {tumour_bed['HI']:.2f}, volume" in line


def test_structures_and_dose_of_different_frames_are_refused(breast: Path, tmp_path: Path) -> None:
    dose = pydicom.dcmread(breast / "rtdose.dcm")
    dose.FrameOfReferenceUID = "1.2.3"
    dose.save_as(tmp_path / "rtdose.dcm")
    with pytest.raises(BadInput, match=r"no structure of rtss\.dcm has a DVH.*different frames of reference"):
        dvh_of_rtdose(breast / "rtss.dcm", tmp_path / "rtdose.dcm")


def test_two_rois_of_one_name_are_told_apart_by_their_number(breast: Path, tmp_path: Path) -> None:
    structures = pydicom.dcmread(breast / "rtss.dcm")
    items = {str(item.ROIName): item for item in structures.StructureSetROISequence}
    number = int(items["Tumor Bed"].ROINumber)
    items["Tumor Bed"].ROIName = "Heart"
    structures.save_as(tmp_path / "rtss.dcm")
    found = dvh_of_rtdose(tmp_path / "rtss.dcm", breast / "rtdose.dcm", ["mean"])["structures"]
    assert "Heart" not in found
    assert found[f"Heart (ROI {number})"]["statistics"]["mean"]["value"] > 14.0


def test_a_case_has_the_dvh_of_its_structures(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    case.save(tmp_path / "case_0001.npz")
    found = dvh_of_case(tmp_path / "case_0001.npz")
    assert case.dose_gy is not None
    rectum = case.dose_gy[case.mask("Rectum")]
    assert found["structures"]["Rectum"]["statistics"]["mean"]["value"] == pytest.approx(rectum.mean(), abs=0.5)
    assert found["structures"]["Bowel"] == {"reason": "the structure is absent"}
    meta = {"case_id": "case_0002", "case_sha256": "0", "checkpoint_sha256": "0", "trained_on": [], "selected_on": []}
    np.savez(
        tmp_path / "case_0002.npz", dose_gy=case.dose_gy, spacing_mm=case.grid.spacing_mm,
        origin_mm=case.grid.origin_mm, meta=json.dumps(meta),
    )  # fmt: skip
    with pytest.raises(BadCase, match=r"case_0002\.npz is a prediction of case_0002; give its own"):
        dvh_of_case(tmp_path / "case_0001.npz", dose_path=tmp_path / "case_0002.npz")
