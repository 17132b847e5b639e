"""Sphere, cylinder and cone drawn as contours in a linear gradient, through DICOM files, against their formulas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.optimize import brentq

from doseledger.core.grid import Grid
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct, make_dose
from doseledger.evaluate.files.dvh import dvh_of_rtdose

RADIUS_MM, HALF_MM = 14.2, 15.0
CENTRE_GY = 40.0
# Slices whose outer faces are the ends of the cylinder and of the cone, as contours can't say where between slices a
# structure ends.
IMAGE = Grid((40, 80, 80), (1.0, 0.8, 0.8), (-19.5, -31.7, -31.3))
DOSE = Grid((24, 30, 30), (2.5, 2.5, 2.5), (-28.1, -36.2, -35.9))
PERCENTS = (99, 98, 95, 80, 50, 20, 5, 2, 1)
HOTTEST_CC = (0.03, 2.0)
STATISTICS = [
    "volume",
    "min",
    "mean",
    "max",
    "D0.03cc",
    "D2cc",
    *(f"D{percent}%" for percent in PERCENTS),
    *(f"V{gy}Gy" for gy in (28, 33, 38, 43, 48)),
]


def cylinder_above(z: float) -> float:
    return float(np.clip((HALF_MM - z) / (2 * HALF_MM), 0, 1))


def disc_above(x: float) -> float:
    c = np.clip(x / RADIUS_MM, -1, 1)
    return float((np.arccos(c) - c * np.sqrt(1 - c**2)) / np.pi)


def sphere_above(z: float) -> float:
    h = np.clip(RADIUS_MM - z, 0, 2 * RADIUS_MM)
    return float(h**2 * (3 * RADIUS_MM - h) / (4 * RADIUS_MM**3))


CYLINDER_CC = np.pi * RADIUS_MM**2 * 2 * HALF_MM / 1000
# Radius at a height; fraction of the volume above a level along an axis; volume; axis of the gradient.
SHAPES: dict[str, tuple[Callable[[float], float], Callable[[float], float], float, int]] = {
    "cylinder along z": (lambda z: RADIUS_MM if abs(z) < HALF_MM else 0.0, cylinder_above, CYLINDER_CC, 0),
    "cylinder along x": (lambda z: RADIUS_MM if abs(z) < HALF_MM else 0.0, disc_above, CYLINDER_CC, 2),
    "sphere along y": (
        lambda z: float(np.sqrt(max(RADIUS_MM**2 - z**2, 0.0))), sphere_above, 4 / 3 * np.pi * RADIUS_MM**3 / 1000, 1,
    ),
    "cone along z": (
        lambda z: RADIUS_MM * (HALF_MM - z) / (2 * HALF_MM) if abs(z) < HALF_MM else 0.0,
        lambda z: cylinder_above(z) ** 3, CYLINDER_CC / 3, 0,
    ),
}  # fmt: skip


def draw_circles(structures: pydicom.Dataset, radius: Callable[[float], float]) -> None:
    """Put circles in the place of contours traced on pixels, which would cut the tip of the cone."""
    items = structures.ROIContourSequence[0].ContourSequence
    model, angle = items[0], np.arange(360) * np.pi / 180
    drawn = []
    for z in IMAGE.axes_mm()[0]:
        if radius(z) > 0:
            item = copy.deepcopy(model)
            points = np.c_[radius(z) * np.cos(angle), radius(z) * np.sin(angle), np.full(360, z)]
            item.ContourData, item.NumberOfContourPoints = [f"{value:.5f}" for value in points.ravel()], 360
            drawn.append(item)
    structures.ROIContourSequence[0].ContourSequence = drawn


@pytest.mark.parametrize("name", SHAPES)
def test_the_dvh_of_contours_is_that_of_the_formula(name: str, tmp_path: Path) -> None:
    radius, above, volume_cc, axis = SHAPES[name]
    _, y, x = np.meshgrid(*IMAGE.axes_mm(), indexing="ij")
    radii = np.array([radius(level) for level in IMAGE.axes_mm()[0]])[:, None, None]
    surface = np.where(radii > 0, np.hypot(x, y) - radii, 1.0)
    study = Study("phantom_1", "phantom^1", "M", make_uid("study"), make_uid("frame"), "HFS", "key")
    images = make_ct(study, np.zeros(IMAGE.shape_zyx, np.int16), IMAGE)
    structures = make_structure_set(study, [Roi("Shape", surface, "ORGAN")], IMAGE, images)
    draw_circles(structures, radius)
    gradient = np.meshgrid(*DOSE.axes_mm(), indexing="ij")[axis]
    for path, dataset in (
        ("rs.dcm", structures),
        ("rd.dcm", make_dose(study, CENTRE_GY + gradient, DOSE, structures=structures)),
    ):
        (tmp_path / path).write_bytes(to_bytes(dataset))
    found = dvh_of_rtdose(tmp_path / "rs.dcm", tmp_path / "rd.dcm", STATISTICS)["structures"]["Shape"]["statistics"]
    assert found["volume"]["value"] == pytest.approx(volume_cc, rel=0.005)
    for percent in PERCENTS:
        wanted = CENTRE_GY + brentq(lambda level, p=percent: above(level) - p / 100, -20, 20)
        assert found[f"D{percent}%"]["value"] == pytest.approx(wanted, abs=0.1), percent
    for cc in HOTTEST_CC:
        wanted = CENTRE_GY + brentq(lambda level, p=cc / volume_cc: above(level) - p, -20, 20)
        assert found[f"D{cc:g}cc"]["value"] == pytest.approx(wanted, abs=0.1), cc
    reach = (-HALF_MM, HALF_MM) if axis == 0 else (-RADIUS_MM, RADIUS_MM)
    for text, level in zip(("min", "max"), reach, strict=True):
        assert found[text]["value"] == pytest.approx(CENTRE_GY + level, abs=0.1), text
    mean = CENTRE_GY + (-HALF_MM / 2 if name.startswith("cone") else 0.0)
    assert found["mean"]["value"] == pytest.approx(mean, abs=0.1)
    for gy in (28, 33, 38, 43, 48):
        assert found[f"V{gy}Gy"]["value"] == pytest.approx(100 * above(gy - CENTRE_GY), abs=0.5), gy
