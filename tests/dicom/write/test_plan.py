"""Plans written as RTPLAN and read back; the same beams in the patient whatever the position."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from doseledger.core.errors import BadInput
from doseledger.core.plan import Arc, Plan
from doseledger.dicom.plan.read import read_plan, read_prescription
from doseledger.dicom.position import check_position, turn_plan
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.plan import BeamDevice, make_plan

EDGES = np.concatenate([np.arange(-200, -100, 10), np.arange(-100, 100, 5), np.arange(100, 201, 10)]).astype(float)
DEVICE = BeamDevice(EDGES, 1000.0)
POSITIONS = ("HFS", "HFP", "FFS", "FFP")


def make_arc(name: str, clockwise: bool, n: int = 9) -> Arc:
    rng = np.random.default_rng(len(name))
    low = rng.uniform(-40.0, 0.0, (n, 60))
    angles = np.linspace(181.0, 539.0, n) % 360.0
    return Arc(
        name=name,
        gantry_deg=angles if clockwise else angles[::-1].copy(),
        clockwise=clockwise,
        collimator_deg=20.0,
        couch_deg=0.0,
        leaf_mm=np.stack([low, low + rng.uniform(1.0, 30.0, (n, 60))], axis=1),
        jaw_x_mm=(-60.0, 70.0),
        jaw_y_mm=(-80.0, 85.0),
        meterset_mu=np.concatenate([[0.0], np.cumsum(rng.uniform(1.0, 9.0, n - 1))]),
        isocentre_xyz_mm=(10.0, -20.0, 35.0),
    )


PLAN = Plan("TEST", "Generic120", 6.0, (make_arc("A1", True), make_arc("A22", False)), 28, {"PTV70": 70.0})


def structures() -> Dataset:
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
    return item


def write(plan: Plan, position: str = "HFS") -> Dataset:
    study = Study("phantom_1", "phantom^1", "M", make_uid("s"), make_uid("f"), check_position(position), "k")
    written = make_plan(study, plan, DEVICE, structures(), {"PTV70": 2, "PTV56": 3})
    return dcmread(io.BytesIO(to_bytes(written)))


def assert_same(found: Plan, wanted: Plan) -> None:
    for ours, theirs in zip(found.arcs, wanted.arcs, strict=True):
        assert (ours.name, ours.clockwise) == (theirs.name, theirs.clockwise)
        np.testing.assert_allclose(ours.gantry_deg, theirs.gantry_deg, atol=1e-4)
        np.testing.assert_allclose(ours.leaf_mm, theirs.leaf_mm, atol=1e-4)
        np.testing.assert_allclose(ours.meterset_mu, theirs.meterset_mu, atol=1e-6)
        assert (ours.jaw_x_mm, ours.jaw_y_mm) == (theirs.jaw_x_mm, theirs.jaw_y_mm)
        assert ours.collimator_deg == pytest.approx(theirs.collimator_deg)
        np.testing.assert_allclose(ours.isocentre_xyz_mm, theirs.isocentre_xyz_mm, atol=1e-4)


def test_a_plan_reads_back_as_it_was() -> None:
    read = read_plan(write(PLAN), "case")
    assert_same(read, PLAN)
    assert (read.n_fractions, read.machine, read.energy_mv) == (28, "Generic120", 6.0)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_plan_of_any_position_reads_back_once_it_is_turned(position: str) -> None:
    dataset = write(PLAN, position)
    assert dataset.PatientSetupSequence[0].PatientPosition == position
    assert_same(turn_plan(read_plan(dataset, "case"), check_position(position)), PLAN)


def test_every_target_has_its_own_prescribed_dose() -> None:
    plan = replace(PLAN, prescription_gy={"PTV70": 70.0, "PTV56": 56.0})
    prescription = read_prescription(write(plan), "case")
    assert [(t.roi_number, t.dose_gy) for t in prescription.targets] == [(2, 70.0), (3, 56.0)]


def test_jaws_that_follow_the_aperture_are_written_at_every_control_point() -> None:
    jaws = np.column_stack([np.linspace(-60, -40, 9), np.full(9, 70.0), np.full(9, -80.0), np.full(9, 85.0)])
    plan = replace(PLAN, arcs=(replace(PLAN.arcs[0], moving_jaws_mm=jaws),))
    np.testing.assert_allclose(read_plan(write(plan), "case").arcs[0].moving_jaws_mm, jaws)


def test_a_static_field_has_no_rotation() -> None:
    arc = replace(PLAN.arcs[0], gantry_deg=np.full(9, 30.0), clockwise=None)
    dataset = write(replace(PLAN, arcs=(arc,)))
    points = dataset.BeamSequence[0].ControlPointSequence
    assert points[0].GantryRotationDirection == "NONE"
    assert "GantryAngle" not in points[1]
    assert read_plan(dataset, "case").arcs[0].clockwise is None


def iec_axes(position: str) -> NDArray[np.float64]:
    """Rows: the fixed system's X, Y, Z in LPS; Y points to the gantry, Z up (IEC 61217, DICOM PS3.3 C.8.8.25.6)."""
    up = np.array([0.0, -1.0, 0.0]) if position[2] == "S" else np.array([0.0, 1.0, 0.0])
    to_gantry = np.array([0.0, 0.0, 1.0]) if position[:2] == "HF" else np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(to_gantry, up), to_gantry, up])


def beam_axes(gantry_deg: float, collimator_deg: float, position: str) -> NDArray[np.float64]:
    """Rows in LPS: towards the source, and the collimator's X and Y axes."""
    g, c = np.deg2rad(gantry_deg), np.deg2rad(collimator_deg)
    source, across, along = (np.sin(g), 0, np.cos(g)), (np.cos(g), 0, -np.sin(g)), (0.0, 1.0, 0.0)
    x = np.cos(c) * np.asarray(across) + np.sin(c) * np.asarray(along)
    y = np.cos(c) * np.asarray(along) - np.sin(c) * np.asarray(across)
    return np.stack([source, x, y]) @ iec_axes(position)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_turned_plan_has_the_same_beams_in_the_patient(position: str) -> None:
    for was, now in zip(PLAN.arcs, turn_plan(PLAN, check_position(position)).arcs, strict=True):
        for before, after in zip(was.gantry_deg, now.gantry_deg, strict=True):
            np.testing.assert_allclose(
                beam_axes(after, now.collimator_deg, position), beam_axes(before, was.collimator_deg, "HFS"), atol=1e-12
            )
        turn = np.diff(now.gantry_deg) % 360.0
        assert np.all((turn > 0) & (turn < 180)) == bool(now.clockwise)


def test_what_can_not_be_written_is_refused() -> None:
    with pytest.raises(BadInput, match="no ROI for the prescribed target PTV63"):
        write(replace(PLAN, prescription_gy={"PTV63": 63.0}))
    with pytest.raises(BadInput, match="couch at 10°"):
        write(replace(PLAN, arcs=(replace(PLAN.arcs[0], couch_deg=10.0),)), "FFP")
    with pytest.raises(BadInput, match="delivers no monitor units"):
        write(replace(PLAN, arcs=(replace(PLAN.arcs[0], meterset_mu=np.zeros(9)),)))
    with pytest.raises(BadInput, match="40 leaf pairs, but 61 boundaries"):
        write(replace(PLAN, arcs=(replace(PLAN.arcs[0], leaf_mm=PLAN.arcs[0].leaf_mm[:, :, :40]),)))
    with pytest.raises(BadInput, match="patient position 'HFDL'"):
        check_position("HFDL")
