"""RTDOSE: unit, scaling, the two kinds of frame offsets, and every patient orientation."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.read_dose import read_dose, read_dose_grid

SHAPE, SPACING, ORIGIN = (5, 6, 7), (3.0, 2.5, 2.0), (-12.0, 4.0, -9.0)
POSITIONS = ["HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"]


def dose_of(z, y, x):
    return 40.0 + 0.5 * x + 0.25 * y - 0.125 * z


def expected() -> np.ndarray:
    axes = [o + s * np.arange(n) for o, s, n in zip(ORIGIN, SPACING, SHAPE, strict=True)]
    return dose_of(*np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("position", POSITIONS)
def test_every_patient_position_gives_the_same_dose(factory, position):
    dose = read_dose(factory.make_rtdose(dose_of, SHAPE, SPACING, ORIGIN, position), "case_1")
    assert dose.grid.same_as(Grid(SHAPE, SPACING, ORIGIN))
    assert dose.dose_gy.dtype == np.float32
    np.testing.assert_allclose(dose.dose_gy, expected(), atol=2e-6)


@pytest.mark.parametrize("position", ["HFS", "HFP", "HFDL"])
def test_absolute_frame_offsets_are_the_planes_own_z(factory, position):
    dataset = factory.make_rtdose(dose_of, SHAPE, SPACING, ORIGIN, position)
    dataset.GridFrameOffsetVector = [-12.0 + 3.0 * k for k in range(5)]
    dose = read_dose(dataset, "case_1")
    assert dose.grid.same_as(Grid(SHAPE, SPACING, ORIGIN))
    np.testing.assert_allclose(dose.dose_gy, expected(), atol=2e-6)


def test_falling_offsets_are_read_downwards(factory):
    dataset = factory.make_rtdose(dose_of, SHAPE, SPACING, ORIGIN)
    dataset.GridFrameOffsetVector = [-3.0 * k for k in range(5)]
    dose = read_dose(dataset, "case_1")
    assert dose.grid.origin_mm[0] == pytest.approx(-24.0)
    np.testing.assert_allclose(dose.dose_gy, expected()[::-1], atol=2e-6)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("DoseUnits", "RELATIVE", "DoseUnits RELATIVE, wanted GY"),
        ("DoseType", "EFFECTIVE", "DoseType EFFECTIVE, wanted PHYSICAL"),
        ("DoseSummationType", "BEAM", "DoseSummationType BEAM, wanted PLAN"),
        ("DoseSummationType", "FRACTION", "DoseSummationType FRACTION, wanted PLAN"),
        ("GridFrameOffsetVector", [0, 3, 6, 9, 13], "planes are uneven: steps from 3 to 4 mm"),
        ("GridFrameOffsetVector", [0, 3, 6], "GridFrameOffsetVector of the RTDOSE has 3 finite values, wanted 5"),
        ("GridFrameOffsetVector", [50, 53, 56, 59, 62], "begins at 50, neither 0 nor the first plane's -12 mm"),
        ("DoseGridScaling", None, "DoseGridScaling of the RTDOSE is empty, wanted"),
        ("DoseGridScaling", 0, "DoseGridScaling 0.0; wanted"),
        ("DoseGridScaling", -1e-6, "DoseGridScaling -1e-06; wanted"),
        ("RescaleSlope", -1, "RescaleSlope -1 beside DoseGridScaling"),
        ("RescaleIntercept", 10, "RescaleIntercept 10 beside DoseGridScaling"),
        ("ImageOrientationPatient", [0.6, 0.8, 0, -0.8, 0.6, 0], "the RTDOSE is tilted by"),
    ],
)
def test_what_is_no_plan_dose_in_gy_on_an_even_grid_is_refused(factory, keyword, value, message):
    dataset = factory.make_rtdose(dose_of, SHAPE, SPACING, ORIGIN)
    setattr(dataset, keyword, value)
    with pytest.raises(BadCase, match=message):
        read_dose(dataset, "case_1")


# In which directions of LPS the axes of IEC's fixed system point for a patient in each position: x to the right of
# someone who faces the gantry, y towards the gantry, z up (IEC 61217, couch at 0). Head first on the left side, say, up
# is the patient's right, -x.
FIXED_IN_LPS = {
    "HFS": ("+x", "+z", "-y"),
    "HFP": ("-x", "+z", "+y"),
    "FFS": ("-x", "-z", "-y"),
    "FFP": ("+x", "-z", "+y"),
    "HFDL": ("-y", "+z", "-x"),
    "HFDR": ("+y", "+z", "+x"),
    "FFDL": ("+y", "-z", "-x"),
    "FFDR": ("-y", "-z", "+x"),
}


@pytest.mark.parametrize("position", POSITIONS)
def test_orientations_of_a_planning_system_give_the_expected_room_coordinates(shared_data, position):
    folder = shared_data / "dicom" / "rtdose_orientations"
    dataset = pydicom.dcmread(folder / f"RD.DICOMORIENT.Dose_{position}_empty.dcm", force=True)
    z, y, x = read_dose_grid(dataset, position).axes_mm()
    axes = {"x": x, "y": y, "z": z}
    wanted = json.loads((folder / "expected_fixed_xyz.json").read_text())[position]
    for (sign, axis), room in zip(FIXED_IN_LPS[position], wanted, strict=True):
        found = np.sort(axes[axis] if sign == "+" else -axes[axis])
        np.testing.assert_allclose(found, room, atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_orientations_of_a_planning_system_give_the_expected_dicom_axes(shared_data, position):
    folder = shared_data / "dicom" / "rtdose_orientations"
    dataset = pydicom.dcmread(folder / f"RD.DICOMORIENT.Dose_{position}_empty.dcm", force=True)
    z, y, x = read_dose_grid(dataset, position).axes_mm()
    wanted = json.loads((folder / "expected_dicom_xyz.json").read_text())[position]
    orientation = np.array(dataset.ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    signs = (orientation[:3] + orientation[3:] + normal).round()
    # The file gives an axis along which an index falls as its negative: measured along the index.
    for found, index_sign, given in zip((x, y, z), signs, wanted, strict=True):
        np.testing.assert_allclose(found, np.sort(index_sign * np.asarray(given)), atol=1e-6)


def test_a_dose_without_pixels_is_refused(shared_data):
    folder = shared_data / "dicom" / "rtdose_orientations"
    dataset = pydicom.dcmread(folder / "RD.DICOMORIENT.Dose_HFS_empty.dcm", force=True)
    with pytest.raises(BadCase, match="RTDOSE pixels can't be decoded"):
        read_dose(dataset, "case_1")
