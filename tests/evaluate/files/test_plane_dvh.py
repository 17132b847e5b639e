"""A dose of one plane: discs and rectangles in a linear gradient, whose area DVH a formula gives."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.optimize import brentq
from skimage.measure import points_in_poly
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.dicom.distance import signed_distance
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct, make_dose
from doseledger.evaluate.files.dvh import describe_lines, dvh_of_case, dvh_of_rtdose

RADIUS_MM, HALF_MM, CENTRE_GY = 14.2, 15.0, 40.0
IMAGE = Grid((10, 40, 40), (3.0, 1.6, 1.6), (-13.5, -31.7, -31.3))
PERCENTS = (98, 95, 50, 2)
STATISTICS = ["min", "mean", "max", *(f"D{percent}%" for percent in PERCENTS), "V48Gy", "volume", "D2cc", "V48Gy[cc]"]
STUDY = Study("phantom_1", "phantom^1", "M", make_uid("study"), make_uid("frame"), "HFS", "key")


def disc_above(level: float) -> float:
    c = np.clip(level / RADIUS_MM, -1, 1)
    return float((np.arccos(c) - c * np.sqrt(1 - c**2)) / np.pi)


def write_structures(path: Path, heights_mm: dict[str, list[float]]) -> Path:
    """Write circles about the origin at some heights for each ROI."""
    surface = np.full(IMAGE.shape_zyx, -1.0)
    surface[:, [0, -1]], surface[:, :, [0, -1]] = 1.0, 1.0
    images = make_ct(STUDY, np.zeros(IMAGE.shape_zyx, np.int16), IMAGE)
    structures = make_structure_set(STUDY, [Roi(name, surface, "ORGAN") for name in heights_mm], IMAGE, images)
    angle = np.arange(360) * np.pi / 180
    for roi, heights in zip(structures.ROIContourSequence, heights_mm.values(), strict=True):
        drawn = []
        for z in heights:
            item = copy.deepcopy(roi.ContourSequence[0])
            points = np.c_[RADIUS_MM * np.cos(angle), RADIUS_MM * np.sin(angle), np.full(360, z)]
            item.ContourData, item.NumberOfContourPoints = [f"{value:.5f}" for value in points.ravel()], 360
            drawn.append(item)
        roi.ContourSequence = drawn
    path.write_bytes(to_bytes(structures))
    return path


def write_plane(path: Path, z_mm: float, gradient_axis: int = 2, n: int = 30) -> Path:
    """Write an axial plane of dose, 1 Gy/mm along an axis."""
    grid = Grid((1, n, n), (1.0, 2.5, 2.5), (z_mm, -36.2, -35.9))
    gradient = np.meshgrid(*grid.axes_mm(), indexing="ij")[gradient_axis]
    path.write_bytes(to_bytes(make_dose(STUDY, CENTRE_GY + gradient, grid)))
    return path


def stand_up(path: Path, x_mm: float) -> Path:
    """Turn an axial plane into a sagittal one: its columns run along y, its rows down from the head."""
    dose = pydicom.dcmread(path)
    dose.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dose.ImagePositionPatient = [x_mm, -35.9, 36.2]
    dose.SliceThickness = None
    dose.save_as(path)
    return path


CYLINDER_Z = [float(z) for z in np.arange(-13.5, 14, 3.0)]


def test_a_plane_has_the_area_dvh_of_the_disc_that_it_cuts(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": CYLINDER_Z, "Above": [16.5, 19.5]})
    found = dvh_of_rtdose(structures, write_plane(tmp_path / "rd.dcm", 1.0), STATISTICS)
    assert found["plane"] == {
        "axis": "z", "position_mm": 1.0, "dose_slice_thickness_mm": 1.0, "shares_are_of": "area",
    }  # fmt: skip
    disc = found["structures"]["Disc"]
    assert disc["contour_spacing_mm"] == pytest.approx(3.0)
    values = {name: entry["value"] for name, entry in disc["statistics"].items()}
    assert disc["area_cm2"] == pytest.approx(math.pi * RADIUS_MM**2 / 100, rel=0.002)
    assert values["min"] == pytest.approx(CENTRE_GY - RADIUS_MM, abs=0.01)
    assert values["max"] == pytest.approx(CENTRE_GY + RADIUS_MM, abs=0.01)
    assert values["mean"] == pytest.approx(CENTRE_GY, abs=0.01)
    for percent in PERCENTS:
        wanted = CENTRE_GY + brentq(lambda x, p=percent: disc_above(x) - p / 100, -20, 20)
        assert values[f"D{percent}%"] == pytest.approx(wanted, abs=0.03), percent
    assert values["V48Gy"] == pytest.approx(100 * disc_above(8.0), abs=0.1)
    for name in ("volume", "D2cc", "V48Gy[cc]"):
        assert math.isnan(values[name])
        assert disc["statistics"][name]["reason"] == "one plane has no volume"
    assert disc["curve"]["area_percent"][0] == 100.0
    assert "volume_percent" not in disc["curve"]
    wanted = {"reason": "it does not meet the plane: its contours reach from z 16.5 to 19.5 mm"}
    assert found["structures"]["Above"] == wanted


def test_an_upright_plane_cuts_a_rectangle_out_of_a_cylinder(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Cylinder": CYLINDER_Z})
    rtdose = stand_up(write_plane(tmp_path / "rd.dcm", 0.0, gradient_axis=2), x_mm=5.0)
    found = dvh_of_rtdose(structures, rtdose, ["min", "max", "D95%", "mean"])
    assert (found["plane"]["axis"], found["plane"]["position_mm"]) == ("x", 5.0)
    assert found["plane"]["dose_slice_thickness_mm"] is None
    half_chord = math.sqrt(RADIUS_MM**2 - 25.0)
    cylinder = found["structures"]["Cylinder"]
    assert cylinder["area_cm2"] == pytest.approx(2 * half_chord * 2 * HALF_MM / 100, rel=0.002)
    values = {name: entry["value"] for name, entry in cylinder["statistics"].items()}
    # The dose rises along y: evenly over the chord.
    for name, wanted in {"min": -1.0, "max": 1.0, "mean": 0.0, "D95%": -0.9}.items():
        assert values[name] == pytest.approx(CENTRE_GY + wanted * half_chord, abs=0.03), name


def test_a_plane_says_so_before_its_numbers(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": CYLINDER_Z})
    rtdose = write_plane(tmp_path / "rd.dcm", 1.0)
    lines = describe_lines(dvh_of_rtdose(structures, rtdose))
    assert lines[1].startswith("one plane at z = 1.00 mm: areas, not volumes (dose slice 1 mm thick). Percents are")
    assert lines[2].startswith("Disc: area 6.33 cm², min 25.80 Gy")
    assert "D2cc" not in lines[2]
    shown = CliRunner().invoke(app, ["dose", "dvh", str(structures), str(rtdose), "--json"])
    statistics = json.loads(shown.output)["structures"]["Disc"]["statistics"]
    assert statistics["D2cc"] == {"value": None, "unit": "Gy", "reason": "one plane has no volume"}


def test_what_lies_beyond_the_edges_of_the_plane_is_told(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": CYLINDER_Z})
    found = dvh_of_rtdose(structures, write_plane(tmp_path / "rd.dcm", 1.0, n=15), ["mean"])["structures"]["Disc"]
    whole = math.pi * RADIUS_MM**2 / 100
    assert found["outside_dose_grid_cm2"] > 0.1 * whole
    assert found["area_cm2"] == pytest.approx(whole, rel=0.002)
    assert found["covered_part"]["area_cm2"] == pytest.approx(whole - found["outside_dose_grid_cm2"], rel=0.002)
    assert "% of it lies beyond the dose grid" in found["statistics"]["mean"]["reason"]
    assert found["covered_part"]["statistics"]["mean"]["value"] == pytest.approx(CENTRE_GY, abs=10.0)


def test_a_plane_that_no_structure_meets_is_refused(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": CYLINDER_Z})
    with pytest.raises(BadInput, match=r"a plane at z = 200\.0 mm, which no structure of rs\.dcm meets"):
        dvh_of_rtdose(structures, write_plane(tmp_path / "rd.dcm", 200.0))


def test_one_frame_of_a_clinics_dose_has_the_mean_of_its_pixels(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "dicompyler_breast_imrt"
    dose = pydicom.dcmread(folder / "rtdose.dcm")
    # A plane through heart and breast, on which contours are drawn.
    frame = round((-41.44 - float(dose.ImagePositionPatient[2])) / 3.0)
    values = dose.pixel_array[frame]
    dose.ImagePositionPatient[2] = float(dose.ImagePositionPatient[2]) + dose.GridFrameOffsetVector[frame]
    dose.NumberOfFrames, dose.GridFrameOffsetVector, dose.PixelData = 1, [0.0], values.tobytes()
    dose.save_as(tmp_path / "rd.dcm")
    found = dvh_of_rtdose(folder / "rtss.dcm", tmp_path / "rd.dcm", ["mean"])["structures"]
    left, top, _ = map(float, dose.ImagePositionPatient)
    y, x = (np.indices(values.shape) * 2.5) + np.array([top, left])[:, None, None]
    rois = pydicom.dcmread(folder / "rtss.dcm")
    numbers = {str(item.ROIName): int(item.ROINumber) for item in rois.StructureSetROISequence}
    for name in ("Heart", "Breast"):
        items = next(i for i in rois.ROIContourSequence if int(i.ReferencedROINumber) == numbers[name]).ContourSequence
        planes = [np.array(item.ContourData, dtype=float).reshape(-1, 3) for item in items]
        contour = next(points for points in planes if abs(points[0, 2] - float(dose.ImagePositionPatient[2])) < 0.1)
        inside = points_in_poly(np.c_[x.ravel(), y.ravel()], contour[:, :2]).reshape(values.shape)
        mean = float((values[inside] * float(dose.DoseGridScaling)).mean())
        assert found[name]["statistics"]["mean"]["value"] == pytest.approx(mean, rel=0.02), name
        assert found[name]["area_cm2"] == pytest.approx(inside.sum() * 0.0625, rel=0.02), name
    assert "it does not meet the plane" in found["Nodes"]["reason"]


def test_contours_on_one_slice_need_a_plane_on_that_slice(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": [1.5]})
    found = dvh_of_rtdose(structures, write_plane(tmp_path / "rd.dcm", 1.5), ["mean"])
    assert found["structures"]["Disc"]["contour_spacing_mm"] is None
    assert found["structures"]["Disc"]["statistics"]["mean"]["value"] == pytest.approx(CENTRE_GY, abs=0.01)
    with pytest.raises(BadInput, match="which no structure"):
        dvh_of_rtdose(structures, write_plane(tmp_path / "off.dcm", 2.0))
    with pytest.raises(BadInput, match="Disc: all contours lie on one slice"):
        dvh_of_rtdose(structures, stand_up(write_plane(tmp_path / "up.dcm", 0.0), 5.0))


def test_a_volume_of_dose_is_no_plane(tmp_path: Path) -> None:
    structures = write_structures(tmp_path / "rs.dcm", {"Disc": CYLINDER_Z})
    grid = Grid((14, 30, 30), (2.5, 2.5, 2.5), (-16.3, -36.2, -35.9))
    (tmp_path / "rd.dcm").write_bytes(to_bytes(make_dose(STUDY, np.full(grid.shape_zyx, 2.0), grid)))
    assert dvh_of_rtdose(structures, tmp_path / "rd.dcm", ["D2cc"])["plane"] is None
    one_slice = write_structures(tmp_path / "one.dcm", {"Disc": [1.5]})
    with pytest.raises(BadInput, match=r"no structure of one\.dcm has a DVH on rd\.dcm: Disc: all contours lie on one"):
        dvh_of_rtdose(one_slice, tmp_path / "rd.dcm", ["D2cc"])


def test_a_case_of_one_slice_is_a_plane(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    middle = int(np.argmax(case.mask("Rectum").sum(axis=(1, 2))))
    cut = slice(middle, middle + 1)
    grid = case.grid.cropped((middle, 0, 0), (1, *case.grid.shape_zyx[1:]))
    masks = case.masks[:, cut]
    assert case.dose_gy is not None
    flat = replace(
        case, grid=grid, masks=masks, present=masks.any(axis=(1, 2, 3)), full_shape_zyx=grid.shape_zyx,
        ct_hu=case.ct_hu[cut], body=case.body[cut], valid_dose=case.valid_dose[cut], dose_gy=case.dose_gy[cut],
        # In the plane, as nothing is known beside it.
        sdf_mm=np.stack([signed_distance(mask, grid, 50.0) for mask in masks]),
    )  # fmt: skip
    flat.save(tmp_path / "case_0001.npz")
    found = dvh_of_case(tmp_path / "case_0001.npz", ["mean", "D2cc"])
    assert found["plane"]["axis"] == "z"
    assert found["plane"]["dose_slice_thickness_mm"] == case.grid.spacing_mm[0]
    rectum = found["structures"]["Rectum"]
    pixel_cm2 = case.grid.spacing_mm[1] * case.grid.spacing_mm[2] / 100
    assert rectum["area_cm2"] == pytest.approx(int(flat.mask("Rectum").sum()) * pixel_cm2, rel=0.1)
    assert rectum["statistics"]["D2cc"]["reason"] == "one plane has no volume"
