"""Every fault of an RTPLAN that a validator of form lets pass is named; a good plan has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RTPlanStorage, RTStructureSetStorage

from doseledger.core.errors import BadCase
from doseledger.core.plan import Arc, Plan
from doseledger.dicom.plan.check import MachineLimits, check_rtplan
from doseledger.dicom.plan.read import read_plan, read_prescription, summarise_plan
from doseledger.dicom.write.objects import Study, make_uid
from doseledger.dicom.write.plan import BeamDevice, make_plan

EDGES = np.concatenate([np.arange(-200, -100, 10), np.arange(-100, 100, 5), np.arange(100, 201, 10)]).astype(float)
LIMITS = MachineLimits(60, 0.5, 25.0, 6.0, (5.0, 600.0), 0.3)
N = 10


def make_arc(name: str) -> Arc:
    # 4° a segment take 0.67 s; leaves creep by 3 mm, 4 MU a segment.
    low = -20.0 + 3.0 * (np.arange(N) % 2)[:, None] + np.zeros((N, 60))
    return Arc(
        name=name, gantry_deg=np.arange(N) * 4.0, clockwise=True, collimator_deg=10.0, couch_deg=0.0,
        leaf_mm=np.stack([low, low + 30.0], axis=1), jaw_x_mm=(-40.0, 40.0), jaw_y_mm=(-50.0, 50.0),
        meterset_mu=4.0 * np.arange(N), isocentre_xyz_mm=(0.0, 0.0, 0.0),
    )  # fmt: skip


@pytest.fixture
def rtplan() -> Dataset:
    plan = Plan("TEST", "Generic120", 6.0, (make_arc("A1"), make_arc("A2")), 28, {"PTV70": 70.0})
    structures = Dataset()
    structures.SOPClassUID, structures.SOPInstanceUID = RTStructureSetStorage, "1.2.3"
    study = Study("phantom_1", "phantom^1", "M", make_uid("s"), make_uid("f"), "HFS", "k")
    made = make_plan(study, plan, BeamDevice(EDGES, 1000.0), structures, {"PTV70": 1})
    assert made.SOPClassUID == RTPlanStorage
    return copy.deepcopy(made)


def test_a_good_plan_has_no_fault(rtplan: Dataset) -> None:
    assert check_rtplan(rtplan, LIMITS) == []
    assert check_rtplan(rtplan) == []


def points(ds: Dataset) -> list[Dataset]:
    return list(ds.BeamSequence[0].ControlPointSequence)


def leaves(ds: Dataset, k: int) -> Dataset:
    return points(ds)[k].BeamLimitingDevicePositionSequence[-1]


def set_leaf(ds: Dataset, k: int, index: int, value: float) -> None:
    values = [float(v) for v in leaves(ds, k).LeafJawPositions]
    values[index] = value
    leaves(ds, k).LeafJawPositions = values


def wrong_count(ds: Dataset) -> None:
    ds.BeamSequence[0].NumberOfControlPoints = N + 1


def falling_meterset(ds: Dataset) -> None:
    points(ds)[5].CumulativeMetersetWeight = "0.2"


def no_isocentre(ds: Dataset) -> None:
    del points(ds)[0].IsocenterPosition


def missing_leaves(ds: Dataset) -> None:
    leaves(ds, 3).LeafJawPositions = [float(v) for v in leaves(ds, 3).LeafJawPositions][:-2]


def other_collimator(ds: Dataset) -> None:
    ds.BeamSequence[0].BeamLimitingDeviceSequence[-1].LeafPositionBoundaries = list(np.linspace(-200, 200, 41))
    for k in range(N):
        leaves(ds, k).LeafJawPositions = [-20.0] * 40 + [10.0] * 40


def crossed_leaves(ds: Dataset) -> None:
    set_leaf(ds, 4, 30, 11.5)
    set_leaf(ds, 4, 90, 9.0)


def dangling_beam(ds: Dataset) -> None:
    ds.FractionGroupSequence[0].ReferencedBeamSequence[1].ReferencedBeamNumber = 7


def no_fraction_group(ds: Dataset) -> None:
    del ds.FractionGroupSequence


def leaf_too_fast(ds: Dataset) -> None:
    # From −20 to 8 mm in 0.67 s: 42 mm/s.
    set_leaf(ds, 5, 30, 8.0)


def outside_jaws(ds: Dataset) -> None:
    for k in range(N):
        set_leaf(ds, k, 90, 45.0)


def meterset_not_from_zero(ds: Dataset) -> None:
    points(ds)[0].CumulativeMetersetWeight = "0.05"


def wrong_final_weight(ds: Dataset) -> None:
    ds.BeamSequence[0].FinalCumulativeMetersetWeight = "100"


def no_meterset(ds: Dataset) -> None:
    del ds.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset


def no_fractions(ds: Dataset) -> None:
    ds.FractionGroupSequence[0].NumberOfFractionsPlanned = 0


def moving_isocentre(ds: Dataset) -> None:
    points(ds)[4].IsocenterPosition = [0.0, 0.0, 5.0]


def dangling_setup(ds: Dataset) -> None:
    ds.BeamSequence[1].ReferencedPatientSetupNumber = 4


def no_structure_set(ds: Dataset) -> None:
    del ds.ReferencedStructureSetSequence


def too_many_mu(ds: Dataset) -> None:
    ds.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = "2000"


def too_few_mu(ds: Dataset) -> None:
    ds.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = "0.3"


def no_rotation(ds: Dataset) -> None:
    for point in points(ds):
        point.GantryRotationDirection = "NONE"


def no_weight(ds: Dataset) -> None:
    del points(ds)[6].CumulativeMetersetWeight


def no_angle(ds: Dataset) -> None:
    for point in points(ds):
        del point.GantryAngle


def wrong_index(ds: Dataset) -> None:
    points(ds)[3].ControlPointIndex = 30


def no_beam(ds: Dataset) -> None:
    ds.BeamSequence = []


def unreferenced_beam(ds: Dataset) -> None:
    group = ds.FractionGroupSequence[0]
    group.ReferencedBeamSequence = group.ReferencedBeamSequence[:1]
    group.NumberOfBeams = 1


def same_number(ds: Dataset) -> None:
    ds.BeamSequence[1].BeamNumber = 1


MUTANTS: list[tuple[Callable[[Dataset], None], str]] = [
    (wrong_count, "NumberOfControlPoints is 11, it has 10"),
    (falling_meterset, "control point 5: the cumulative meterset falls"),
    (no_isocentre, "has no isocentre"),
    (missing_leaves, "118 leaf positions, wanted 120"),
    (other_collimator, "has 40 leaf pairs, the machine has 60"),
    (crossed_leaves, "control point 4: leaf pair 31 crosses"),
    (dangling_beam, "refers to beam 7, which is not in the plan"),
    (no_fraction_group, "no fraction group"),
    (leaf_too_fast, "control point 5: leaf 31 of bank 1 moves 28.00 mm in 0.667 s, 42.0 mm/s"),
    (outside_jaws, "leaf pair 31, -20.00 to 45.00 mm, reaches outside the jaws"),
    (meterset_not_from_zero, "begins at 0.05, wanted 0"),
    (wrong_final_weight, "FinalCumulativeMetersetWeight is 100"),
    (no_meterset, "beam 1 has no BeamMeterset"),
    (no_fractions, "NumberOfFractionsPlanned is 0"),
    (moving_isocentre, "the isocentre moves"),
    (dangling_setup, "refers to patient setup 4"),
    (no_structure_set, "refers to no structure set"),
    (too_many_mu, "need the gantry at 0.180°/s, least 0.3°/s"),
    (too_few_mu, "the dose rate is 3.00 MU/min, least 5 MU/min"),
    (no_rotation, "the gantry moves, but GantryRotationDirection is NONE"),
    (no_weight, "control point 6: no CumulativeMetersetWeight"),
    (no_angle, "the first control point has no GantryAngle"),
    (wrong_index, "control point 3: ControlPointIndex is 30, wanted 3"),
    (no_beam, "The plan has no beam"),
    (unreferenced_beam, "Beam 2 treats, but no fraction group refers to it"),
    (same_number, "Beam number 1 is given 2 times"),
]


@pytest.mark.parametrize(("mutate", "message"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_each_fault_is_named(rtplan: Dataset, mutate: Callable[[Dataset], None], message: str) -> None:
    mutate(rtplan)
    found = check_rtplan(rtplan, LIMITS)
    assert any(message in sentence for sentence in found), found
    # One fault should not drown in a hundred complaints.
    assert len(found) <= 3 * N


def test_a_leaf_under_the_y_jaws_may_lie_anywhere(rtplan: Dataset) -> None:
    for k in range(N):
        set_leaf(rtplan, k, 60, 80.0)
    assert check_rtplan(rtplan, LIMITS) == []


def test_a_gantry_at_rest_waits_for_its_leaves(rtplan: Dataset) -> None:
    for point in points(rtplan):
        point.GantryAngle, point.GantryRotationDirection = "0", "NONE"
    set_leaf(rtplan, 5, 30, 8.0)
    assert check_rtplan(rtplan, LIMITS) == []


def test_on_an_unknown_machine_a_jaw_may_cut_an_aperture(rtplan: Dataset) -> None:
    outside_jaws(rtplan)
    assert any("reaches outside the jaws" in sentence for sentence in check_rtplan(rtplan, LIMITS))
    assert check_rtplan(rtplan) == []


def test_a_setup_field_needs_neither_meterset_nor_positions(rtplan: Dataset) -> None:
    setup, used = Dataset(), Dataset()
    setup.BeamNumber, setup.BeamName, setup.TreatmentDeliveryType = 3, "CBCT", "SETUP"
    rtplan.BeamSequence.append(setup)
    used.ReferencedBeamNumber = 3
    group = rtplan.FractionGroupSequence[0]
    group.ReferencedBeamSequence.append(used)
    group.NumberOfBeams = 3
    assert check_rtplan(rtplan, LIMITS) == []
    for beam in rtplan.BeamSequence:
        beam.TreatmentDeliveryType = "SETUP"
    assert "The plan has no beam that treats (BeamSequence)." in check_rtplan(rtplan, LIMITS)


def test_a_fault_calls_a_beam_by_its_number_alone(rtplan: Dataset) -> None:
    rtplan.BeamSequence[0].BeamName = "Doe left"
    falling_meterset(rtplan)
    (fault,) = check_rtplan(rtplan)
    assert fault.startswith("Beam 1, control point 5: the cumulative meterset falls")


@pytest.mark.parametrize(
    "name",
    ["proknow_becker_hn/RP.dcm", "dicompyler_breast_imrt/rtplan.dcm", "rtplans/original_rtplan.dcm",
     "rtplans/templates_vmat_example.dcm", "rtplans/multi_fraction_groups_rtplan.dcm"],
)  # fmt: skip
def test_real_plans_have_no_fault(shared_data: Path, name: str) -> None:
    assert check_rtplan(dcmread(shared_data / "dicom" / name, force=True)) == []


def helix(ds: Dataset, pitch_mm: float = 1.5) -> Dataset:
    """The first beam with a table that moves evenly while the gantry turns, as a helical machine writes it."""
    for k, point in enumerate(points(ds)):
        point.IsocenterPosition, point.GantryAngle = [0.0, 0.0, pitch_mm * k], (60 * k) % 360
    return ds


def test_where_the_table_moves_during_the_beam_the_isocentre_may_move_with_it(rtplan: Dataset) -> None:
    assert check_rtplan(helix(rtplan)) == []
    points(rtplan)[4].IsocenterPosition = [0.0, 0.0, 60.0]
    assert "Beam 1: the isocentre moves during the beam." in check_rtplan(rtplan)
    for k, point in enumerate(points(rtplan)):
        point.TableTopLongitudinalPosition = 10.0 * k
    assert check_rtplan(rtplan) == []
    assert summarise_plan(rtplan)["technique"] == "helical"
    with pytest.raises(BadCase, match=r"the table moves during the beam \(helical delivery\), which is not supported"):
        read_plan(rtplan, "case_1")


def ions(ds: Dataset) -> Dataset:
    """The plan with its beams as ion beams of scanned spots."""
    for beam in ds.BeamSequence:
        beam.RadiationType, beam.IonControlPointSequence = "PROTON", beam.ControlPointSequence
        del beam.ControlPointSequence, beam.BeamLimitingDeviceSequence
        for point in beam.IonControlPointSequence:
            if "BeamLimitingDevicePositionSequence" in point:
                del point.BeamLimitingDevicePositionSequence
            point.NominalBeamEnergy, point.NumberOfScanSpotPositions = 150.0, 2
            point.ScanSpotPositionMap, point.ScanSpotMetersetWeights = [0.0, 0.0, 1.0, 0.0], [0.5, 0.5]
    ds.IonBeamSequence = ds.BeamSequence
    del ds.BeamSequence
    return ds


def test_an_ion_plan_is_asked_for_its_spots_and_not_for_leaves(rtplan: Dataset) -> None:
    assert check_rtplan(ions(rtplan)) == []
    summary = summarise_plan(rtplan)
    assert (summary["technique"], summary["radiation"], summary["n_beams"]) == ("ion", ["PROTON"], 2)
    assert summary["energies_mv"] == [150.0]
    assert read_prescription(rtplan, "case_1").n_fractions == {1: 28}
    rtplan.IonBeamSequence[0].IonControlPointSequence[3].ScanSpotMetersetWeights = [1.0, 0.0, 0.0]
    rtplan.IonBeamSequence[1].IonControlPointSequence[0].NominalBeamEnergy = None
    assert check_rtplan(rtplan) == [
        "Beam 1, control point 3: ScanSpotMetersetWeights has 3 values, wanted 2 for 2 spots.",
        "Beam 2: the first control point has NominalBeamEnergy None, wanted MeV a nucleon.",
    ]
    with pytest.raises(BadCase, match=r"the RTPLAN is one of ion beams \(RT Ion Plan\)"):
        read_plan(rtplan, "case_1")


def brachy(ds: Dataset) -> Dataset:
    """The plan with one applicator of one channel in place of beams."""
    del ds.BeamSequence
    setup, channel, used = Dataset(), Dataset(), Dataset()
    dwell = []
    for k in range(4):
        point = Dataset()
        point.ControlPointIndex, point.CumulativeTimeWeight = k, 10.0 * k
        dwell.append(point)
    channel.ChannelNumber, channel.NumberOfControlPoints, channel.ChannelTotalTime = 1, 4, 30.0
    channel.FinalCumulativeTimeWeight, channel.BrachyControlPointSequence = 30.0, dwell
    setup.ApplicationSetupNumber, setup.ChannelSequence = 1, [channel]
    ds.ApplicationSetupSequence = [setup]
    group = ds.FractionGroupSequence[0]
    used.ReferencedBrachyApplicationSetupNumber = 1
    group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = 0, 1
    del group.ReferencedBeamSequence
    group.ReferencedBrachyApplicationSetupSequence = [used]
    return ds


def test_a_brachytherapy_plan_is_asked_for_its_channels_and_not_for_beams(rtplan: Dataset) -> None:
    assert check_rtplan(brachy(rtplan)) == []
    assert summarise_plan(rtplan)["technique"] == "brachy"
    with pytest.raises(BadCase, match="the RTPLAN is one of brachytherapy"):
        read_plan(rtplan, "case_1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda ds, setup, channel: setattr(channel, "NumberOfControlPoints", 5),
            "NumberOfControlPoints is 5, it has 4",
        ),
        (lambda ds, setup, channel: setattr(channel, "FinalCumulativeTimeWeight", 20), "is 20, the last control point"),
        (lambda ds, setup, channel: setattr(channel, "ChannelTotalTime", None), "ChannelTotalTime is None"),
        (
            lambda ds, setup, channel: setattr(channel.BrachyControlPointSequence[2], "CumulativeTimeWeight", 5),
            "control point 2: the cumulative time weight is 5.0, wanted at least 10",
        ),
        (lambda ds, setup, channel: setattr(setup, "ChannelSequence", []), "has no channel"),
        (
            lambda ds, setup, channel: setattr(setup, "ApplicationSetupNumber", 2),
            "refers to application setup 1, which",
        ),
        (
            lambda ds, setup, channel: setattr(setup, "ApplicationSetupNumber", 2),
            "setup 2 treats, but no fraction group",
        ),
        (
            lambda ds, setup, channel: setattr(ds.FractionGroupSequence[0], "NumberOfBrachyApplicationSetups", 2),
            "NumberOfBrachyApplicationSetups is 2, it refers to 1",
        ),
    ],
)
def test_each_fault_of_a_brachytherapy_plan_is_named(rtplan: Dataset, change, message: str) -> None:
    setup = brachy(rtplan).ApplicationSetupSequence[0]
    change(rtplan, setup, setup.ChannelSequence[0])
    assert any(message in sentence for sentence in check_rtplan(rtplan)), check_rtplan(rtplan)


def test_electrons_need_no_leaves(rtplan: Dataset) -> None:
    for beam in rtplan.BeamSequence:
        beam.RadiationType = "ELECTRON"
        for point in beam.ControlPointSequence:
            if "BeamLimitingDevicePositionSequence" in point:
                del point.BeamLimitingDevicePositionSequence
    assert check_rtplan(rtplan) == []
    with pytest.raises(BadCase, match="radiation is ELECTRON, wanted PHOTON"):
        read_plan(rtplan, "case_1")
