"""Contours as clinics export them, through the whole conversion: rounded, repeated, off their slices, out of reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.ingest.patient.case import Origin, convert_case

Points = np.ndarray


@pytest.fixture
def convert(factory: ModuleType, tmp_path: Path) -> Callable[..., Case]:
    def run(patient: Any, **changes: Any) -> Case:
        protocol = Protocol.model_validate({**factory.PROTOCOL, **changes})
        return convert_case(patient.save(tmp_path / "raw"), Origin("anon_1"), protocol)

    return run


@pytest.fixture(scope="module")
def plain(factory: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = factory.make_patient().save(tmp_path_factory.mktemp("plain") / "raw")
    return convert_case(folder, Origin("anon_1"), Protocol.model_validate(factory.PROTOCOL))


def contours_of(patient: Any, name: str) -> list[Dataset]:
    number = patient.roi(name).ROINumber
    item = next(item for item in patient.rtstruct.ROIContourSequence if item.ReferencedROINumber == number)
    return list(item.ContourSequence)


def redraw(patient: Any, name: str, contours: list[Dataset]) -> None:
    number = patient.roi(name).ROINumber
    item = next(item for item in patient.rtstruct.ROIContourSequence if item.ReferencedROINumber == number)
    item.ContourSequence = contours


def changed(contour: Dataset, change: Callable[[Points], Points]) -> Dataset:
    item = Dataset()
    points = change(np.asarray(contour.ContourData, dtype=float).reshape(-1, 3))
    item.ContourGeometricType, item.NumberOfContourPoints = contour.ContourGeometricType, len(points)
    item.ContourData = [round(float(value), 4) for value in points.ravel()]
    return item


COPIES: dict[str, Callable[[Points], Points]] = {
    "begun elsewhere": lambda p: np.roll(p, 11, axis=0),
    "reversed": lambda p: p[::-1],
    "rounded": lambda p: np.round(p, 1),
    "on a plane 0.06 mm off": lambda p: p[::-1] + np.array([0.0, 0.0, 0.06]),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("n_copies", [2, 6])
def test_copies_of_contours_count_once_and_are_told(
    how: str, n_copies: int, factory: ModuleType, convert: Callable[..., Case], plain: Case
) -> None:
    patient = factory.make_patient()
    drawn = contours_of(patient, "PTV_70")
    redraw(patient, "PTV_70", drawn + [changed(item, COPIES[how]) for item in drawn[:n_copies]])
    case = convert(patient)
    np.testing.assert_array_equal(case.masks, plain.masks)
    assert case.meta["parity"]["PTV70"] == plain.meta["parity"]["PTV70"]
    [warning] = case.meta["warnings"]
    assert warning.startswith(f"{n_copies} contours of PTV70 are near-copies of others and count once, at z ")


@pytest.mark.parametrize("off_mm", [0.04, -0.06, 0.2])
def test_one_structure_off_its_slices_moves_no_mask(
    off_mm: float, factory: ModuleType, convert: Callable[..., Case], plain: Case
) -> None:
    patient = factory.make_patient()
    redraw(
        patient,
        "Rect",
        [changed(item, lambda p: p + np.array([0, 0, off_mm])) for item in contours_of(patient, "Rect")],
    )
    case = convert(patient)
    np.testing.assert_array_equal(case.masks, plain.masks)
    assert case.meta["warnings"] == []


def test_an_optional_structure_that_is_not_axial_is_absent_and_costs_nothing_else(
    factory: ModuleType, convert: Callable[..., Case], plain: Case
) -> None:
    patient = factory.make_patient()
    upright = changed(contours_of(patient, "Rect")[0], lambda p: p[:, [2, 0, 1]])
    patient.rtstruct.StructureSetROISequence.append(Dataset())
    patient.rtstruct.StructureSetROISequence[-1].update({"ROINumber": 99, "ROIName": "Bowel"})
    patient.rtstruct.ROIContourSequence.append(Dataset())
    patient.rtstruct.ROIContourSequence[-1].ReferencedROINumber = 99
    patient.rtstruct.ROIContourSequence[-1].ContourSequence = [upright]
    case = convert(patient)
    np.testing.assert_array_equal(case.masks, plain.masks)
    assert case.meta["warnings"][0].startswith("Bowel is taken as absent: a contour of Bowel spans 18.00 mm in z")


def test_an_outline_a_rounding_beyond_half_a_slice_is_whole(factory: ModuleType, convert: Callable[..., Case]) -> None:
    patient = factory.make_patient()
    drawn = contours_of(patient, "BODY")
    # Half a slice beyond the last one, as a system that rounds writes it.
    redraw(patient, "BODY", [changed(item, lambda p: p + np.array([0, 0, 1.55])) for item in drawn])
    assert convert(patient).meta["warnings"] == []


def test_a_target_cut_by_the_dose_grid_is_refused_with_its_part_beyond(
    factory: ModuleType, convert: Callable[..., Case]
) -> None:
    patient = factory.make_patient()
    patient.rtdose = factory.make_rtdose(factory.ramp_gy, (20, 34, 34), (3.0, 4.0, 4.0), (-6.0, -66.0, -66.0))
    # PTV70 begins at -10.5 mm and PTV56 at -16.5 mm, the dose at -7.5 mm.
    with pytest.raises(BadCase, match=r"16\.7 % of PTV70 and 30\.0 % of PTV56 lie beyond the RTDOSE grid"):
        convert(patient)
    patient.rtdose = factory.make_rtdose(factory.ramp_gy, (8, 34, 34), (3.0, 4.0, 4.0), (40.0, -66.0, -66.0))
    with pytest.raises(BadCase, match=r"100\.0 % of PTV70 and 100\.0 % of PTV56 lie beyond the RTDOSE grid; compute"):
        convert(patient)


def test_an_organ_cut_by_the_dose_grid_keeps_its_volume(
    factory: ModuleType, convert: Callable[..., Case], plain: Case
) -> None:
    patient = factory.make_patient()
    # The rectum reaches from -19.5 to 16.5 mm, the dose begins at -16.5 mm: 1 of 12 slices.
    patient.rtdose = factory.make_rtdose(factory.ramp_gy, (20, 34, 34), (3.0, 4.0, 4.0), (-15.0, -66.0, -66.0))
    case = convert(patient)
    parity = case.meta["parity"]["Rectum"]
    assert parity["volume_cc"] == plain.meta["parity"]["Rectum"]["volume_cc"]
    assert parity["outside_percent"] == pytest.approx(100 / 12, abs=0.01)
    assert "8.3 % of Rectum lies beyond the RTDOSE grid" in case.meta["warnings"]


def test_more_contours_or_points_than_anybody_draws_are_refused(factory: ModuleType) -> None:
    rtstruct = factory.make_rtstruct({"Rectum": [(0.0, factory.circle(0, 0, 9))]}, [], {})
    [roi] = read_rois(rtstruct, "anon_1")
    roi.items.extend(roi.items * 50_000)
    with pytest.raises(BadCase, match="Rectum has 50001 contours, wanted at most 50000"):
        read_contours(roi, "anon_1")
    del roi.items[1:]
    text = b"1\\2\\3\\" * 5_000_000 + b"1\\2\\3 "
    # As it stands in a file, not yet parsed.
    roi.items[0][0x30060050] = RawDataElement(Tag(0x30060050), "DS", len(text), text, 0, False, True)
    with pytest.raises(BadCase, match="Rectum has more than 5000000 points in its contours"):
        read_contours(roi, "anon_1")
