"""Each ROI by itself: what another one, rounding, order or a copy must not move; ROIs that can't be measured; reach."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.text.sheet import as_text
from doseledger.evaluate.files.dvh import describe_lines, dvh_of_case, dvh_of_rtdose

Rois = dict[str, list[tuple[float, np.ndarray]]]
STATISTICS = ["volume", "min", "mean", "max", "D95%", "D2cc"]
DISC_MM, HOLE_MM, PART_MM = 20.0, 10.0, 8.0


def circle(radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(64) / 64
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def area_cm2(radius: float) -> float:
    return 32 * radius**2 * math.sin(2 * math.pi / 64) / 100


def planes(slice_mm: float, n: int = 10, off_mm: float = 0.0) -> list[float]:
    return [slice_mm * (k - (n - 1) / 2) + off_mm for k in range(n)]


def ring(slice_mm: float, hole_off_mm: float = 0.0, part_off_mm: float = 0.0) -> list[tuple[float, np.ndarray]]:
    """A disc with a hole, and a part apart."""
    drawn = [(z, circle(DISC_MM)) for z in planes(slice_mm)]
    drawn += [(z + hole_off_mm, circle(HOLE_MM)) for z in planes(slice_mm)]
    return drawn + [(z + part_off_mm, circle(PART_MM, 40.0)) for z in planes(slice_mm)]


def ring_cc(slice_mm: float) -> float:
    return (area_cm2(DISC_MM) - area_cm2(HOLE_MM) + area_cm2(PART_MM)) * slice_mm


@pytest.fixture(scope="module")
def dose(factory: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dose") / "rd.dcm"
    rtdose = factory.make_rtdose(factory.ramp_gy, (24, 36, 36), (3.0, 4.0, 4.0), (-34.5, -70.0, -70.0))
    rtdose.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def measure(factory: ModuleType, dose: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(rois: Rois, change: Callable[[pydicom.Dataset], None] = lambda ds: None, **options: Any) -> dict[str, Any]:
        structures = factory.make_rtstruct(rois, [], {})
        change(structures)
        structures.save_as(tmp_path / "rs.dcm", enforce_file_format=True)
        return dvh_of_rtdose(tmp_path / "rs.dcm", options.get("dose", dose), STATISTICS)

    return run


def value(found: dict[str, Any], name: str, statistic: str = "volume") -> float:
    return float(found["structures"][name]["statistics"][statistic]["value"])


RNG = np.random.default_rng(8)
Drawn = list[tuple[float, np.ndarray]]
CHANGES: dict[str, Callable[[Drawn], Drawn]] = {
    "z jittered": lambda drawn: [(z + float(RNG.uniform(-0.12, 0.12)), p) for z, p in drawn],
    "z rounded to 0.1 mm": lambda drawn: [(round(z + 1e-9, 1), p) for z, p in drawn],
    "reordered": lambda drawn: [drawn[i] for i in RNG.permutation(len(drawn))],
    "run the other way": lambda drawn: [(z, p[::-1]) for z, p in drawn],
    "cut in halves": lambda drawn: [
        half for z, p in drawn for half in ((z, p[:33]), (z, np.vstack([p[32:], p[:1]])))
    ],
    "some there twice": lambda drawn: drawn + [(z + 0.01, np.round(p[::-1], 1)) for z, p in drawn[3:6]],
    "all there twice": lambda drawn: drawn + [(z, np.roll(p, 7, axis=0)) for z, p in drawn],
    "a hole 0.06 mm off": lambda drawn: [(z + 0.06 * (len(p) == 64 and p[0, 0] == HOLE_MM), p) for z, p in drawn],
}  # fmt: skip


@pytest.mark.parametrize("slice_mm", [1.0, 1.25, 3.0])
@pytest.mark.parametrize("change", CHANGES)
def test_no_volume_and_no_dvh_of_another_roi_moves(
    change: str, slice_mm: float, measure: Callable[..., dict[str, Any]]
) -> None:
    rois = {"Ring": ring(slice_mm), "Disc": [(z, circle(15.0, -30.0)) for z in planes(slice_mm, 12)]}
    before = measure(rois)
    after = measure(rois | {"Ring": CHANGES[change](rois["Ring"])})
    assert value(before, "Ring") == pytest.approx(ring_cc(slice_mm), rel=0.002)
    assert after["structures"]["Disc"] == before["structures"]["Disc"]
    slack = 0.01 if "jittered" in change else 0.004
    assert value(after, "Ring") == pytest.approx(value(before, "Ring"), rel=slack)
    assert value(after, "Ring", "mean") == pytest.approx(value(before, "Ring", "mean"), abs=0.05)


OTHERS: dict[str, Drawn] = {
    "rounded to 0.1 mm": [(round(z, 1), circle(10.0, 0.0, 40.0)) for z in planes(1.25, 20, 0.07)],
    "half a slice off": [(z, circle(10.0, 0.0, 40.0)) for z in planes(3.0, 8, 1.5)],
    "on other slices": [(z, circle(10.0, 0.0, 40.0)) for z in planes(2.0, 9, 0.3)],
    "on one slice": [(0.0, circle(10.0, 0.0, 40.0))],
    "with a gap": [(z, circle(10.0, 0.0, 40.0)) for z in (-21.0, -18.0, -15.0, 15.0, 18.0)],
    "few and far apart": [(z, circle(10.0, 0.0, 40.0)) for z in (-28.5, -10.5, 10.5, 28.5)],
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_unrelated_roi_moves_no_dvh(other: str, measure: Callable[..., dict[str, Any]]) -> None:
    rois = {"Ring": ring(3.0), "Disc": [(z, circle(15.0, -30.0)) for z in planes(3.0, 12)]}
    alone, beside = measure(rois), measure({"Other": OTHERS[other], **rois})
    assert {name: beside["structures"][name] for name in rois} == alone["structures"]


@pytest.mark.parametrize("off_mm", [1.5, 0.9])
def test_a_part_between_the_slices_has_slabs_of_its_own(off_mm: float, measure: Callable[..., dict[str, Any]]) -> None:
    found = measure({"Ring": ring(3.0, part_off_mm=off_mm)})
    assert value(found, "Ring") == pytest.approx(ring_cc(3.0), rel=0.002)
    assert found["structures"]["Ring"]["warnings"] == []


def test_an_roi_whose_contours_stand_in_two_items_is_one(measure: Callable[..., dict[str, Any]]) -> None:
    def split(structures: pydicom.Dataset) -> None:
        item = structures.ROIContourSequence[0]
        second = copy.deepcopy(item)
        item.ContourSequence, second.ContourSequence = item.ContourSequence[::2], item.ContourSequence[1::2]
        structures.ROIContourSequence.append(second)

    rois = {"Ring": ring(3.0), "Disc": [(z, circle(15.0, -30.0)) for z in planes(3.0, 12)]}
    whole, halves = measure(rois), measure(rois, split)
    assert halves["structures"]["Disc"] == whole["structures"]["Disc"]
    assert value(halves, "Ring") == pytest.approx(value(whole, "Ring"), rel=1e-3)


def bend_contour(structures: pydicom.Dataset) -> None:
    """Turn the last ROI's first contour into a sagittal one."""
    item = structures.ROIContourSequence[-1].ContourSequence[0]
    item.ContourData = [float(v) for x, y in circle(10.0) for v in (0.0, x, y)]


def other_frame(structures: pydicom.Dataset) -> None:
    structures.StructureSetROISequence[-1].ReferencedFrameOfReferenceUID = "1.2.3.99"


def spoil_points(structures: pydicom.Dataset) -> None:
    structures.ROIContourSequence[-1].ContourSequence[0].ContourData = [0.0, 1.0, 2.0, 3.0]


def move_far(structures: pydicom.Dataset) -> None:
    item = structures.ROIContourSequence[-1].ContourSequence[0]
    item.ContourData = [1e300 * float(v) for v in item.ContourData]


BAD: dict[str, tuple[Drawn, Callable[[pydicom.Dataset], None], str]] = {
    "sagittal": (OTHERS["on other slices"], bend_contour, "spans 20.00 mm in z, wanted axial planes"),
    "another frame": (OTHERS["on other slices"], other_frame, "are in different frames of reference"),
    "with a gap": (OTHERS["with a gap"], lambda ds: None, "no contour on 9 slices between z -15.0 and 15.0 mm"),
    "few planes": (OTHERS["few and far apart"], lambda ds: None, "contours are 18.0 mm apart, wanted at most 10 mm"),
    "one slice": (OTHERS["on one slice"], lambda ds: None, "all contours lie on one slice"),
    "no triples": (OTHERS["on other slices"], spoil_points, "is not a list of (x, y, z) in mm"),
    "far away": (OTHERS["on other slices"], move_far, "wanted at most 10000 mm from the origin"),
    "empty": ([], lambda ds: None, "the ROI has no closed contours"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_roi_costs_its_own_dvh_and_has_its_reason(how: str, measure: Callable[..., dict[str, Any]]) -> None:
    drawn, change, reason = BAD[how]
    rois = {"Ring": ring(3.0), "Odd": drawn}
    alone, found = measure({"Ring": rois["Ring"]}), measure(rois, change)
    assert reason in found["structures"]["Odd"]["reason"]
    assert "statistics" not in found["structures"]["Odd"]
    assert found["structures"]["Ring"] == alone["structures"]["Ring"]
    assert any(line.startswith("Odd: ") and reason in line for line in describe_lines(found))


def test_where_every_roi_is_bad_the_reasons_are_said(measure: Callable[..., dict[str, Any]]) -> None:
    rois = {f"Odd{k}": OTHERS["with a gap"] for k in range(7)}
    with pytest.raises(BadInput, match=r"no structure of rs\.dcm has a DVH on rd\.dcm: Odd0: .*9 slices.*; and 2 more"):
        measure(rois)


def test_one_slice_whose_thickness_the_file_says_has_a_volume(measure: Callable[..., dict[str, Any]]) -> None:
    def thicken(structures: pydicom.Dataset) -> None:
        structures.ROIContourSequence[0].ContourSequence[0].ContourSlabThickness = 2.5

    found = measure({"Wire": [(0.0, circle(10.0))]}, thicken)
    assert value(found, "Wire") == pytest.approx(area_cm2(10.0) * 0.25, rel=0.002)
    assert found["structures"]["Wire"]["contour_spacing_mm"] == 2.5


def test_what_is_left_out_of_an_roi_is_told(measure: Callable[..., dict[str, Any]]) -> None:
    drawn = [(z, circle(15.0)) for z in planes(3.0)]

    def add_point(structures: pydicom.Dataset) -> None:
        item = copy.deepcopy(structures.ROIContourSequence[0].ContourSequence[0])
        item.ContourGeometricType, item.ContourData = "POINT", [0.0, 0.0, 0.0]
        structures.ROIContourSequence[0].ContourSequence.append(item)

    found = measure({"Disc": [*drawn, drawn[2]]}, add_point)["structures"]["Disc"]
    assert found["warnings"] == [
        "1 contours of Disc enclose nothing (points or open): left out",
        "1 contours of Disc are exact repeats and count once",
    ]


def test_a_dose_that_nothing_ties_to_the_structures_is_measured_and_told(
    measure: Callable[..., dict[str, Any]], dose: Path, tmp_path: Path
) -> None:
    rois = {"Disc": [(z, circle(15.0)) for z in planes(3.0)]}
    assert measure(rois)["dose"]["warnings"] == []
    other = pydicom.dcmread(dose)
    other.FrameOfReferenceUID, other.PatientID = "", "somebody"
    other.save_as(tmp_path / "other.dcm", enforce_file_format=True)
    found = measure(rois, dose=tmp_path / "other.dcm")
    assert found["dose"]["warnings"] == [
        "other.dcm names no frame of reference: nothing says that the structures lie in its dose",
        "rs.dcm and other.dcm have different PatientIDs: are they of one patient?",
    ]
    assert "warning: other.dcm names no frame" in describe_lines(found)[1]
    assert value(found, "Disc") == value(measure(rois), "Disc")


def test_a_fault_of_the_dose_is_said_with_the_doses_name_alone(
    measure: Callable[..., dict[str, Any]], dose: Path, tmp_path: Path
) -> None:
    other = pydicom.dcmread(dose)
    other.DoseUnits = "RELATIVE"
    other.save_as(tmp_path / "rd_bad.dcm", enforce_file_format=True)
    with pytest.raises(BadCase, match=r"^rd_bad\.dcm: RTDOSE has DoseUnits RELATIVE"):
        measure({"Disc": [(z, circle(15.0)) for z in planes(3.0)]}, dose=tmp_path / "rd_bad.dcm")


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_name_longer_than_dicom_allows_is_cut_short(measure: Callable[..., dict[str, Any]]) -> None:
    def rename(structures: pydicom.Dataset) -> None:
        structures.StructureSetROISequence[0].ROIName = "x" * 5000

    [name] = measure({"Disc": [(z, circle(15.0)) for z in planes(3.0)]}, rename)["structures"]
    assert name == "x" * 63 + "…"


@pytest.fixture(scope="module")
def low_dose(factory: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dose from z = -12 to 6 mm only: six planes of 3 mm."""
    path = tmp_path_factory.mktemp("low") / "rd.dcm"
    rtdose = factory.make_rtdose(factory.ramp_gy, (6, 36, 36), (3.0, 4.0, 4.0), (-10.5, -70.0, -70.0))
    rtdose.save_as(path, enforce_file_format=True)
    return path


def test_an_roi_that_the_dose_grid_cuts_has_its_own_volume_and_no_statistics_of_the_whole(
    measure: Callable[..., dict[str, Any]], low_dose: Path
) -> None:
    disc = [(z, circle(15.0)) for z in planes(3.0)]
    found = measure({"Disc": disc, "Low": disc[1:7]}, dose=low_dose)
    cut = found["structures"]["Disc"]
    assert value(found, "Disc") == pytest.approx(area_cm2(15.0) * 3.0, rel=0.002)
    # From z = -12 to 6 mm of -15 to 15 mm.
    assert cut["covered_percent"] == pytest.approx(60.0, abs=0.2)
    assert cut["outside_dose_grid_cc"] == pytest.approx(area_cm2(15.0) * 1.2, rel=0.005)
    for text in set(STATISTICS) - {"volume"}:
        assert math.isnan(cut["statistics"][text]["value"])
        assert (
            cut["statistics"][text]["reason"] == f"{100 - cut['covered_percent']:.1f} % of it lies beyond the dose grid"
        )
    assert cut["curve"] == {"dose_gy": [], "volume_percent": []}
    part = cut["covered_part"]
    assert part["volume_cc"] == pytest.approx(area_cm2(15.0) * 1.8, rel=0.005)
    # The ramp falls by 0.1 Gy a mm along z, and the part's middle is at z = -3 mm.
    assert part["statistics"]["mean"]["value"] == pytest.approx(60.3, abs=0.02)
    assert part["curve"]["volume_percent"][0] == 100.0
    whole = found["structures"]["Low"]
    assert (whole["covered_percent"], whole["covered_part"]) == (100.0, None)
    assert value(found, "Low", "mean") == pytest.approx(60.3, abs=0.02)
    lines = describe_lines(found)
    assert lines[1].startswith("Disc: volume 21.17 cc, no min or mean or max or D95% or D2cc (40.0 % of it lies beyond")
    assert lines[2].startswith("  its part that the dose covers, 60.0 %: volume 12.70 cc, min")
    # On a terminal values stand in a table, and below it what it can't hold.
    table = describe_lines(found, lambda table: as_text(table, colour=False))
    row = next(line.split() for line in table if line.startswith("Disc "))
    assert row[:4] == ["Disc", "21.17", "cc", "–"]
    assert [line[:45] for line in table if line.startswith("Disc:")] == [
        "Disc: no min or mean or max or D95% or D2cc ("
    ]
    assert not [line for line in table if line.startswith("Low:")]
    assert describe_lines(found, lambda table: "") == lines


def test_an_roi_that_the_dose_grid_does_not_reach_has_its_volume_and_nothing_else(
    measure: Callable[..., dict[str, Any]], low_dose: Path
) -> None:
    node = [(z, circle(10.0)) for z in planes(3.0, 6, 20.0)]
    found = measure({"Low": [(z, circle(15.0)) for z in planes(3.0, 4, -4.5)], "Node": node}, dose=low_dose)
    assert value(found, "Node") == pytest.approx(area_cm2(10.0) * 1.8, rel=0.002)
    beyond = found["structures"]["Node"]
    assert (beyond["covered_percent"], beyond["covered_part"]) == (0.0, None)
    assert beyond["statistics"]["mean"]["reason"] == "the dose grid does not reach it"
    assert "Node: volume 5.65 cc, no min or mean or max or D95% or D2cc (the dose grid does not reach it)" in (
        describe_lines(found)
    )


@pytest.mark.parametrize(("off_mm", "is_whole"), [(0.0, True), (0.015, True), (0.03, False)])
def test_a_thousandth_beyond_the_dose_grid_is_left_out_and_more_is_not(
    off_mm: float, is_whole: bool, measure: Callable[..., dict[str, Any]], low_dose: Path
) -> None:
    # Its last slab ends at 6 mm, where the dose does: 0.1 % of 18 mm are 0.018 mm.
    found = measure({"Disc": [(z, circle(15.0)) for z in planes(3.0, 6, -3.0 + off_mm)]}, dose=low_dose)
    assert (found["structures"]["Disc"]["statistics"]["mean"]["reason"] == "") == is_whole


def test_a_case_knows_how_far_its_plans_dose_reached(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    rectum = np.argwhere(case.mask("Rectum"))
    # A dose grid that ends in the middle of the rectum's slices, with its edge on the border of two voxels.
    stop = int(rectum[:, 0].min() + np.ptp(rectum[:, 0]) // 2)
    case.meta["native_dose_grid"] = {
        "shape_zyx": [stop, *case.grid.shape_zyx[1:]],
        "spacing_mm": list(case.grid.spacing_mm),
        "origin_mm": list(case.grid.origin_mm),
    }
    assert case.dose_gy is not None
    case.dose_gy[stop:] = 0.0
    case.save(tmp_path / "case_0001.npz")
    found = dvh_of_case(tmp_path / "case_0001.npz", ["volume", "min", "mean"])["structures"]["Rectum"]
    outside = float((rectum[:, 0] >= stop).mean())
    assert found["covered_percent"] == pytest.approx(100 * (1 - outside), abs=5.0)
    assert "% of it lies beyond the dose grid" in found["statistics"]["mean"]["reason"]
    assert found["covered_part"]["statistics"]["min"]["value"] > 0.0
    assert found["statistics"]["volume"]["value"] == pytest.approx(
        case.mask("Rectum").sum() * case.grid.voxel_volume_cc, rel=0.1
    )
