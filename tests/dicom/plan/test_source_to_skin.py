"""Source to skin: known for a cylinder, the same in every position, left out where it is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset

from doseledger.core.errors import BadInput
from doseledger.core.grid import Grid
from doseledger.core.plan import Arc, Plan
from doseledger.dicom.plan.source_to_skin import Body, source_to_skin_mm
from doseledger.dicom.position import check_position
from doseledger.dicom.write.objects import Study
from doseledger.dicom.write.plan import BeamDevice, make_plan
from doseledger.planning.machine.geometry import beam_frame

GRID = Grid((9, 70, 90), (5.0, 3.0, 3.0), (-20.0, -100.0, -130.0))
RADII_MM = 80.0, 110.0
ANGLES = np.asarray([0.0, 30.0, 90.0, 180.0, 200.0, 270.0, 330.0])


def cylinder() -> Body:
    """An elliptical cylinder about z, 80 mm deep and 110 mm to either side, as a field of mm near its surface."""
    _, y, x = GRID.axes_mm()
    ratio = np.hypot(y[:, None] / RADII_MM[0], x[None, :] / RADII_MM[1])
    return Body(np.broadcast_to((ratio - 1.0) * 90.0, GRID.shape_zyx), GRID)


def make_arc(angles: np.ndarray = ANGLES, isocentre: tuple[float, float, float] = (0.0, 0.0, 5.0)) -> Arc:
    n = len(angles)
    leaves = np.stack([np.full((n, 4), -10.0), np.full((n, 4), 10.0)], axis=1)
    return Arc("A1", angles, True, 0.0, 0.0, leaves, (-20.0, 20.0), (-20.0, 20.0), np.linspace(0.0, 50.0, n), isocentre)


def test_the_skin_of_an_ellipse_is_where_geometry_has_it() -> None:
    angle = np.deg2rad(ANGLES)
    depth = 1.0 / np.hypot(np.cos(angle) / RADII_MM[0], np.sin(angle) / RADII_MM[1])
    np.testing.assert_allclose(source_to_skin_mm(make_arc(), cylinder(), 1000.0), 1000.0 - depth, atol=0.3)


def test_a_mask_gives_the_skin_to_half_a_voxel() -> None:
    body = cylinder()
    wanted = source_to_skin_mm(make_arc(), body, 1000.0)
    found = source_to_skin_mm(make_arc(), Body(body.surface < 0, GRID), 1000.0)
    assert np.abs(found - wanted).max() <= 1.5 * np.sqrt(2.0)


def test_an_isocentre_moved_towards_the_source_is_as_much_farther_from_the_skin_behind() -> None:
    moved = source_to_skin_mm(make_arc(isocentre=(0.0, -30.0, 5.0)), cylinder(), 1000.0)
    # Anterior of the middle by 30 mm: less tissue before it from the front (0 degrees), more from behind (180).
    np.testing.assert_allclose(moved[[0, 3]], [950.0, 890.0], atol=0.1)


def test_a_turned_couch_turns_the_way_into_the_patient() -> None:
    long = Grid((201, 70, 90), (2.0, 3.0, 3.0), (-200.0, -100.0, -130.0))
    z, y, x = np.meshgrid(*long.axes_mm(), indexing="ij")
    # Cut off at z = 60 mm (towards the head), the isocentre at z = 5.
    field = np.maximum((np.hypot(y / RADII_MM[0], x / RADII_MM[1]) - 1.0) * 90.0, z - 60.0)
    beside = make_arc(np.asarray([90.0, 90.0]))
    turned = source_to_skin_mm(replace(beside, couch_deg=270.0), Body(field, long), 1000.0)
    # With the couch at 270 degrees the gantry at 90 looks along the patient, from the head.
    np.testing.assert_allclose(turned, 1000.0 - 55.0, atol=0.1)


@pytest.mark.parametrize(("gantry_deg", "couch_deg"), [(30.0, 0.0), (140.0, 20.0), (290.0, 335.0)])
def test_the_dose_engines_own_source_lies_that_far_from_the_skin(gantry_deg: float, couch_deg: float) -> None:
    long = Grid((101, 70, 90), (5.0, 3.0, 3.0), (-250.0, -100.0, -130.0))
    z, y, x = np.meshgrid(*long.axes_mm(), indexing="ij")
    # Not the same towards head and feet, so that the couch's sense shows.
    body = Body((np.hypot((y + 0.1 * z) / RADII_MM[0], (x - 0.2 * z) / RADII_MM[1]) - 1.0) * 90.0, long)
    arc = replace(make_arc(np.full(2, gantry_deg)), couch_deg=couch_deg)
    frame = beam_frame(arc, gantry_deg, 1000.0)
    at = frame.source_xyz_mm + source_to_skin_mm(arc, body, 1000.0)[0] * frame.down_xyz
    at_x, at_y, at_z = at
    ratio = np.hypot((at_y + 0.1 * at_z) / RADII_MM[0], (at_x - 0.2 * at_z) / RADII_MM[1])
    assert ratio == pytest.approx(1.0, abs=4e-3)


@pytest.mark.parametrize("isocentre", [(0.0, 0.0, 500.0), (0.0, 400.0, 5.0)])
def test_an_axis_that_misses_the_patient_meets_no_skin(isocentre: tuple[float, float, float]) -> None:
    sideways = make_arc(np.asarray([90.0, 270.0]), isocentre)
    assert np.isnan(source_to_skin_mm(sideways, cylinder(), 1000.0)).all()


def test_skin_beyond_the_image_is_not_known() -> None:
    body = cylinder()
    part = GRID.inside((slice(0, 9), slice(0, 70), slice(0, 60)))
    found = source_to_skin_mm(make_arc(), Body(body.surface[:, :, :60], part), 1000.0)
    # The image ends on the patient's left, at gantry 90.
    np.testing.assert_array_equal(np.isnan(found), ANGLES == 90.0)


def test_an_axis_along_the_first_slice_meets_the_skin_there() -> None:
    first = source_to_skin_mm(make_arc(isocentre=(0.0, 0.0, -20.0)), cylinder(), 1000.0)
    np.testing.assert_allclose(first, source_to_skin_mm(make_arc(), cylinder(), 1000.0), atol=1e-6)


def test_an_outline_off_its_grid_is_refused() -> None:
    with pytest.raises(BadInput, match="does not fit its grid"):
        source_to_skin_mm(make_arc(), Body(np.ones((2, 2, 2), np.bool_), GRID), 1000.0)


def written(arc: Arc, position: str = "HFS", body: Body | None = None) -> list[Dataset]:
    structures = Dataset()
    structures.SOPClassUID, structures.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
    study = Study("phantom_1", "phantom^1", "M", "1.2.4", "1.2.5", check_position(position), "k")
    device = BeamDevice(np.asarray([-20.0, -10.0, 0.0, 10.0, 20.0]), 1000.0)
    plan = make_plan(study, Plan("TEST", "M", 6.0, (arc,), 5, {}), device, structures, {}, body)
    return list(plan.BeamSequence[0].ControlPointSequence)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_the_distance_stands_at_every_control_point_of_an_arc_in_every_position(position: str) -> None:
    points = written(make_arc(), position, cylinder())
    wanted = source_to_skin_mm(make_arc(), cylinder(), 1000.0)
    np.testing.assert_allclose([float(point.SourceToSurfaceDistance) for point in points], wanted, atol=0.06)


def test_a_static_field_says_it_once_and_a_plan_without_an_outline_not_at_all() -> None:
    still = replace(make_arc(np.full(3, 30.0)), clockwise=None)
    assert ["SourceToSurfaceDistance" in point for point in written(still, body=cylinder())] == [True, False, False]
    assert not any("SourceToSurfaceDistance" in point for point in written(make_arc()))
    missed = make_arc(isocentre=(0.0, 0.0, 500.0))
    assert not any("SourceToSurfaceDistance" in point for point in written(missed, body=cylinder()))
