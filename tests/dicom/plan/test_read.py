"""RTPLAN: every control point with what it leaves out filled in; what a Plan can't hold is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from doseledger.core.errors import BadCase
from doseledger.dicom.plan.read import read_plan, read_prescription, summarise_plan
from doseledger.dicom.source import lenient, parse_dataset


@pytest.fixture
def plan(factory):
    return factory.make_rtplan(28, [(70.0, 2), (56.0, 3)])


def read_real(shared_data, name: str) -> pydicom.Dataset:
    return parse_dataset((shared_data / "dicom" / name).read_bytes())


def test_a_static_field_is_read_whole(plan):
    found = read_plan(plan, "case_1")
    (arc,) = found.arcs
    assert (found.n_fractions, found.energy_mv, found.total_mu) == (28, 6.0, 200.0)
    assert (arc.clockwise, arc.collimator_deg, arc.couch_deg) == (None, 5.0, 0.0)
    assert (arc.jaw_x_mm, arc.jaw_y_mm, arc.moving_jaws_mm) == ((-30.0, 40.0), (-50.0, 60.0), None)
    np.testing.assert_array_equal(arc.leaf_mm[0], [[-10, -11, -12, -13], [10, 11, 12, 13]])
    np.testing.assert_array_equal(arc.meterset_mu, [0.0, 200.0])
    assert arc.isocentre_xyz_mm == (1.0, 2.0, 3.0)


def test_what_a_control_point_leaves_out_is_as_it_was_before(plan, factory):
    beam = factory.make_beam((0.0, 0.25, 1.0))
    middle = beam.ControlPointSequence[1]
    middle.GantryAngle, middle.GantryRotationDirection = 350.0, "CC"
    middle.BeamLimitingDevicePositionSequence = [factory.make_positions("MLCX", [-5, -5, -5, -5, 5, 5, 5, 5])]
    beam.BeamType = "DYNAMIC"
    plan.BeamSequence = [beam]
    (arc,) = read_plan(plan, "case_1").arcs
    np.testing.assert_array_equal(arc.gantry_deg, [10.0, 350.0, 350.0])
    np.testing.assert_array_equal(arc.leaf_mm[2], arc.leaf_mm[1])
    assert not np.array_equal(arc.leaf_mm[1], arc.leaf_mm[0])
    np.testing.assert_array_equal(arc.meterset_mu, [0.0, 50.0, 200.0])
    assert arc.clockwise is False
    assert arc.jaw_x_mm == (-30.0, 40.0)


def test_jaws_that_move_are_kept_point_by_point(plan, factory):
    beam = factory.make_beam((0.0, 0.5, 1.0))
    beam.ControlPointSequence[1].BeamLimitingDevicePositionSequence = [factory.make_positions("ASYMX", [-35, 20])]
    plan.BeamSequence = [beam]
    (arc,) = read_plan(plan, "case_1").arcs
    assert arc.jaw_x_mm == (-35.0, 40.0)
    np.testing.assert_array_equal(arc.moving_jaws_mm[:, 0], [-30, -35, -35])
    np.testing.assert_array_equal(arc.moving_jaws_mm[:, 1], [40, 20, 20])


def test_jaws_of_a_thousand_positions_are_refused_in_few_words(plan, factory):
    beam = factory.make_beam((0.0, 1.0))
    beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence[0] = factory.make_positions("ASYMX", [1.0] * 1000)
    plan.BeamSequence = [beam]
    with pytest.raises(BadCase, match="jaws ASYMX have 1000 positions, wanted two rising positions"):
        read_plan(plan, "case_1")


def test_setup_fields_and_beams_without_meterset_are_no_part_of_the_plan(plan, factory):
    setup = factory.make_beam()
    setup.BeamNumber, setup.TreatmentDeliveryType = 2, "SETUP"
    plan.BeamSequence = [setup, *plan.BeamSequence]
    assert [arc.name for arc in read_plan(plan, "case_1").arcs] == ["AP"]
    assert summarise_plan(plan)["n_beams"] == 1


def change_point(keyword, value):
    return lambda plan: setattr(plan.BeamSequence[0].ControlPointSequence[1], keyword, value)


def change_beam(keyword, value):
    return lambda plan: setattr(plan.BeamSequence[0], keyword, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_beam("NumberOfWedges", 1), "NumberOfWedges is 1"),
        (change_beam("RadiationType", "ELECTRON"), "radiation is ELECTRON, wanted PHOTON"),
        (change_beam("NumberOfControlPoints", 5), "2 control points, the beam says 5"),
        (change_beam("FinalCumulativeMetersetWeight", 0), "ends at 0.0"),
        (change_point("CumulativeMetersetWeight", -1.0), "cumulative meterset falls"),
        (change_point("BeamLimitingDeviceAngle", 45.0), "BeamLimitingDeviceAngle changes during the beam"),
        (change_point("IsocenterPosition", [1, 2, 30]), "IsocenterPosition changes during the beam"),
        (lambda p: delattr(p.BeamSequence[0].ControlPointSequence[0], "IsocenterPosition"), "no IsocenterPosition"),
        (lambda p: delattr(p, "FractionGroupSequence"), "fraction groups"),
        (
            lambda p: setattr(p.FractionGroupSequence[0].ReferencedBeamSequence[0], "ReferencedBeamNumber", 9),
            "no treat",
        ),
    ],
)
def test_what_a_plan_cannot_hold_is_refused(plan, change, message):
    change(plan)
    with pytest.raises(BadCase, match=message):
        read_plan(plan, "case_1")


def test_a_dose_to_a_point_is_no_prescription(plan):
    plan.DoseReferenceSequence[0].DoseReferenceStructureType = "COORDINATES"
    targets = read_prescription(plan, "case_1").targets
    assert [(t.dose_gy, t.roi_number) for t in targets] == [(56.0, 3)]


def test_a_real_arc_of_110_control_points(shared_data):
    dataset = read_real(shared_data, "rtplans/TinyVMAT_TinyFS_TinyVMAT.dcm")
    with lenient():
        plan = read_plan(dataset, "tiny")
    (arc,) = plan.arcs
    assert arc.n_control_points == 110
    assert arc.clockwise is True
    assert plan.total_mu == pytest.approx(598.839783)
    assert arc.leaf_mm.shape == (110, 2, 80)
    assert np.all(arc.leaf_mm[:, 0] <= arc.leaf_mm[:, 1])
    assert arc.moving_jaws_mm is not None
    assert summarise_plan(dataset)["technique"] == "arc"


def test_two_arcs_turn_against_each_other(shared_data):
    with lenient():
        plan = read_plan(read_real(shared_data, "rtplans/templates_vmat_example.dcm"), "two")
    assert [(arc.n_control_points, arc.clockwise) for arc in plan.arcs] == [(32, True), (31, False)]


def test_of_two_fraction_groups_one_must_be_named(shared_data):
    dataset = read_real(shared_data, "rtplans/multi_fraction_groups_rtplan.dcm")
    with lenient():
        with pytest.raises(BadCase, match=r"fraction groups \[1, 2\]; name the one"):
            read_plan(dataset, "two")
        first, boost = read_plan(dataset, "two", 1), read_plan(dataset, "two", 2)
        prescription = read_prescription(dataset, "two")
    assert (first.n_fractions, boost.n_fractions) == (16, 4)
    assert len(first.arcs) == len(boost.arcs) == 3
    assert prescription.n_fractions == {1: 16, 2: 4}
    assert [target.dose_gy for target in prescription.targets] == [42.4, 10.0]


def test_a_sliding_window_field_keeps_every_leaf_position(shared_data):
    dataset = read_real(shared_data, "dicompyler_breast_imrt/rtplan.dcm")
    with lenient():
        with pytest.raises(BadCase, match=r"energies \[6.0, 10.0\]"):
            read_plan(dataset, "breast")
        summary = summarise_plan(dataset)
    assert (summary["technique"], summary["n_beams"], summary["mu_per_fraction"]) == ("imrt", 4, 367.0)
