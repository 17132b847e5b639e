"""Every sentence that a faulty RTPLAN gets, and no other one."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from pydicom import Dataset

from doseledger.dicom.plan.check import MachineLimits, check_rtplan

# Four pairs of leaves; 40 mm/s and 6°/s at most, 10 to 600 MU/min, a turning gantry at 0.5°/s at least.
MACHINE = MachineLimits(4, 0.5, 40.0, 6.0, (10.0, 600.0), 0.5)
Change = Callable[[Dataset], object]


@pytest.fixture
def rtplan(factory: ModuleType) -> Dataset:
    """An arc of four control points, 10° and 20 MU apart, and a portal image; all that may be said is said."""
    plan = factory.make_rtplan(28, [(70.0, 2)])
    arc, portal, setup, structures, used = factory.make_beam((0.0, 0.1, 0.2, 0.4)), *(Dataset() for _ in range(4))
    for k, point in enumerate(arc.ControlPointSequence):
        point.GantryAngle, point.GantryRotationDirection = 350.0 + 10.0 * k, "CW" if k < 3 else "NONE"
        point.GantryAngle %= 360.0
    portal.BeamNumber, portal.TreatmentDeliveryType = 9, "OPEN_PORTFILM"
    plan.BeamSequence = [arc, portal]
    used.ReferencedBeamNumber = 9
    group = plan.FractionGroupSequence[0]
    group.ReferencedBeamSequence[0].BeamMeterset, group.NumberOfBeams = 80.0, 2
    group.ReferencedBeamSequence.append(used)
    setup.PatientSetupNumber, arc.ReferencedPatientSetupNumber = 3, 3
    structures.ReferencedSOPInstanceUID = "1.2.3.400.1"
    plan.PatientSetupSequence, plan.ReferencedStructureSetSequence = [setup], [structures]
    plan.RTPlanGeometry = "PATIENT"
    return plan


def arc(plan: Dataset) -> Dataset:
    return plan.BeamSequence[0]


def point(plan: Dataset, k: int) -> Dataset:
    return arc(plan).ControlPointSequence[k]


def group(plan: Dataset) -> Dataset:
    return plan.FractionGroupSequence[0]


def used(plan: Dataset) -> Dataset:
    return group(plan).ReferencedBeamSequence[0]


def put(item: Dataset, **values: object) -> None:
    for keyword, value in values.items():
        setattr(item, keyword, value)


def place(plan: Dataset, k: int, kind: str, positions: list[float]) -> None:
    """Set what a device does at a control point, beside what others do there."""
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, positions
    there = point(plan, k).get("BeamLimitingDevicePositionSequence") or []
    kept = [other for other in there if other.RTBeamLimitingDeviceType != kind]
    point(plan, k).BeamLimitingDevicePositionSequence = [*kept, item]


def along_y(plan: Dataset, jaw: str = "ASYMY") -> None:
    """Turn the leaves: MLCY, whose travel is bounded by the Y jaws."""
    for device in arc(plan).BeamLimitingDeviceSequence:
        device.RTBeamLimitingDeviceType = {"MLCX": "MLCY"}.get(device.RTBeamLimitingDeviceType, "ASYMX")
    point(plan, 0).BeamLimitingDevicePositionSequence = []
    place(plan, 0, jaw, [-50.0, 60.0])
    place(plan, 0, "MLCY", [-10.0, -11.0, -12.0, -50.02, 10.0, 11.0, 12.0, 13.0])


# A change, and what the check says of it, whatever the machine.
FAULTS: dict[str, tuple[Change, list[str]]] = {
    "sound": (lambda p: None, []),
    "two beams of one number": (
        lambda p: put(p.BeamSequence[1], BeamNumber=1),
        ["Beam number 1 is given 2 times, wanted once.",
         "Fraction group 1 refers to beam 9, which is not in the plan (beams [1, 1])."],
    ),
    "no fraction group": (
        lambda p: put(p, FractionGroupSequence=[]),
        ["The plan has no fraction group (FractionGroupSequence): nothing says how often and with how many MU."],
    ),
    "a fraction group that says nothing": (
        lambda p: put(group(p), NumberOfBeams=None, NumberOfFractionsPlanned=None, ReferencedBeamSequence=[]),
        ["Fraction group 1: NumberOfFractionsPlanned is None, wanted at least 1.",
         "Beam 1 treats, but no fraction group refers to it."],
    ),
    "one beam too many said": (
        lambda p: put(group(p), NumberOfBeams=3), ["Fraction group 1: NumberOfBeams is 3, it refers to 2 beams."],
    ),
    "one fraction": (lambda p: put(group(p), NumberOfFractionsPlanned=1), []),
    "a reference without a number": (
        lambda p: put(used(p), ReferencedBeamNumber=None),
        ["Fraction group 1: NumberOfBeams is 2, it refers to 1 beams.",
         "Beam 1 treats, but no fraction group refers to it."],
    ),
    "no meterset": (
        lambda p: put(used(p), BeamMeterset=None), ["Fraction group 1: beam 1 has no BeamMeterset; wanted its MU."],
    ),
    "a negative meterset": (
        lambda p: put(used(p), BeamMeterset=-1.0), ["Fraction group 1: beam 1 has no BeamMeterset; wanted its MU."],
    ),
    "the most that a beam delivers": (
        lambda p: (put(used(p), BeamMeterset=20_000.0), [put(q, GantryRotationDirection="NONE", GantryAngle=0.0)
                                                         for q in arc(p).ControlPointSequence]), [],
    ),
    "more than a beam delivers": (
        lambda p: (put(used(p), BeamMeterset=20_001.0), [put(q, GantryRotationDirection="NONE", GantryAngle=0.0)
                                                         for q in arc(p).ControlPointSequence]),
        ["Fraction group 1: beam 1 has a BeamMeterset of 20001 MU, wanted at most 20000."],
    ),
    "a portal image with as many MU": (
        lambda p: put(group(p).ReferencedBeamSequence[1], BeamMeterset=20_001.0), [],
    ),
    "a setup that is not there": (
        lambda p: put(p.PatientSetupSequence[0], PatientSetupNumber=4),
        ["Beam 1 refers to patient setup 3, which is not in the plan."],
    ),
    "no structure set": (
        lambda p: put(p, ReferencedStructureSetSequence=[]),
        ["The plan is for a patient (RTPlanGeometry), but refers to no structure set."],
    ),
    "no structure set for a machine's plan": (
        lambda p: put(p, ReferencedStructureSetSequence=[], RTPlanGeometry="TREATMENT_DEVICE"), [],
    ),
    "no count of control points": (
        lambda p: put(arc(p), NumberOfControlPoints=None),
        ["Beam 1: NumberOfControlPoints is None, it has 4 control points."],
    ),
    "a lone control point": (
        lambda p: put(arc(p), ControlPointSequence=arc(p).ControlPointSequence[:1], NumberOfControlPoints=1,
                      FinalCumulativeMetersetWeight=0.0),
        ["Beam 1 has 1 control points, wanted at least 2.",
         "Beam 1: the cumulative meterset is 0 at each control point, wanted a rise."],
    ),
    "two control points": (
        lambda p: put(arc(p), ControlPointSequence=arc(p).ControlPointSequence[:2], NumberOfControlPoints=2,
                      FinalCumulativeMetersetWeight=0.1), [],
    ),
    "no control point": (
        lambda p: put(arc(p), ControlPointSequence=[], NumberOfControlPoints=0),
        ["Beam 1 has 0 control points, wanted at least 2."],
    ),
    "control points out of order": (
        lambda p: (put(point(p, 1), ControlPointIndex=2), put(point(p, 2), ControlPointIndex=1)),
        ["Beam 1, control point 1: ControlPointIndex is 2, wanted 1."],
    ),
    "an isocentre that comes late": (
        lambda p: (put(point(p, 0), IsocenterPosition=None), put(point(p, 1), IsocenterPosition=[1.0, 2.0, 3.0])),
        ["Beam 1 has no isocentre: IsocenterPosition is absent from its first control point."],
    ),
    "an isocentre of two numbers": (
        lambda p: put(point(p, 0), IsocenterPosition=[1.0, 2.0]),
        ["Beam 1: the isocentre must be x, y and z in mm, found [[1.0, 2.0]]."],
    ),
    "an isocentre that moves backwards": (
        lambda p: put(point(p, 2), IsocenterPosition=[1.0, 1.98, 3.0]),
        ["Beam 1: the isocentre moves during the beam."],
    ),
    "the least energy": (lambda p: put(point(p, 0), NominalBeamEnergy=0.01), []),
    "less than the least energy": (
        lambda p: put(point(p, 0), NominalBeamEnergy=0.009),
        ["Beam 1, control point 0: NominalBeamEnergy is 0.009, wanted 0.01 to 50 MV."],
    ),
    "the greatest energy": (lambda p: put(point(p, 1), NominalBeamEnergy=50.0), []),
    "more than the greatest energy": (
        lambda p: put(point(p, 1), NominalBeamEnergy=51.0),
        ["Beam 1, control point 1: NominalBeamEnergy is 51, wanted 0.01 to 50 MV."],
    ),
    "no weight": (
        lambda p: put(point(p, 2), CumulativeMetersetWeight=None),
        ["Beam 1, control point 2: no CumulativeMetersetWeight."],
    ),
    "no angle": (
        lambda p: put(point(p, 0), GantryAngle=None), ["Beam 1: the first control point has no GantryAngle."],
    ),
    "no weight from the first": (
        lambda p: [put(q, CumulativeMetersetWeight=0.0) for q in arc(p).ControlPointSequence],
        ["Beam 1: the cumulative meterset is 0 at each control point, wanted a rise.",
         "Beam 1: FinalCumulativeMetersetWeight is 0.4, the last control point has 0."],
    ),
    "weights that begin below zero": (
        lambda p: put(point(p, 0), CumulativeMetersetWeight=-0.1),
        ["Beam 1, control point 0: the cumulative meterset begins at -0.1, wanted 0."],
    ),
    "weights that fall": (
        lambda p: put(point(p, 2), CumulativeMetersetWeight=0.05),
        ["Beam 1, control point 2: the cumulative meterset falls from 0.1 to 0.05."],
    ),
    "weights that rest": (
        lambda p: (put(point(p, 2), CumulativeMetersetWeight=0.1), put(point(p, 2), GantryAngle=0.0)), [],
    ),
    "no final weight": (
        lambda p: put(arc(p), FinalCumulativeMetersetWeight=None),
        ["Beam 1: FinalCumulativeMetersetWeight is None, the last control point has 0.4."],
    ),
    "a final weight that is larger": (
        lambda p: put(arc(p), FinalCumulativeMetersetWeight=0.5),
        ["Beam 1: FinalCumulativeMetersetWeight is 0.5, the last control point has 0.4."],
    ),
    "a final weight that is smaller": (
        lambda p: put(arc(p), FinalCumulativeMetersetWeight=0.3),
        ["Beam 1: FinalCumulativeMetersetWeight is 0.3, the last control point has 0.4."],
    ),
    "no boundaries": (
        lambda p: put(arc(p).BeamLimitingDeviceSequence[2], LeafPositionBoundaries=None),
        ["Beam 1: MLCX has no LeafPositionBoundaries."],
    ),
    "boundaries of another device": (
        lambda p: put(arc(p).BeamLimitingDeviceSequence[2], RTBeamLimitingDeviceType="MLCY"),
        ["Beam 1: MLCX has no LeafPositionBoundaries."],
    ),
    "no device but jaws": (
        lambda p: [put(item, RTBeamLimitingDeviceType="ASYMX") for item in
                   point(p, 0).BeamLimitingDevicePositionSequence], [],
    ),
    "fewer boundaries": (
        lambda p: put(arc(p).BeamLimitingDeviceSequence[2], LeafPositionBoundaries=[-20.0, 0.0, 20.0]),
        ["Beam 1, control point 0: 8 leaf positions, wanted 4 for 2 pairs."],
    ),
    "an odd leaf without boundaries": (
        lambda p: (put(arc(p).BeamLimitingDeviceSequence[2], LeafPositionBoundaries=None),
                   place(p, 0, "MLCX", [-10.0, 10.0, 11.0])),
        ["Beam 1: MLCX has no LeafPositionBoundaries.",
         "Beam 1, control point 0: 3 leaf positions, wanted two of each pair."],
    ),
    "a jaw far out, and one just within": (
        lambda p: (place(p, 1, "ASYMX", [-500.0, 500.0]), place(p, 2, "ASYMY", [-510.0, 60.0])),
        ["Beam 1, control point 2: ASYMY at 510 mm, wanted at most 500 mm.",
         "Beam 1, control point 3: ASYMY at 510 mm, wanted at most 500 mm."],
    ),
    "a pair that crosses": (
        lambda p: place(p, 2, "MLCX", [-10.0, 11.5, -12.0, -13.0, 10.0, 11.0, 12.0, 13.0]),
        [f"Beam 1, control point {k}: leaf pair 2 crosses: gap -0.50 mm, least 0 mm." for k in (2, 3)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_gets_these_sentences_and_no_other(name: str, rtplan: Dataset) -> None:
    change, wanted = FAULTS[name]
    change(rtplan)
    assert check_rtplan(rtplan) == wanted


# A change, and what the check says of it on this machine.
OF_THE_MACHINE: dict[str, tuple[Change, list[str]]] = {
    "sound": (lambda p: None, []),
    "fewer leaves": (
        lambda p: (put(arc(p).BeamLimitingDeviceSequence[2], LeafPositionBoundaries=[-20.0, 0.0, 20.0]),
                   place(p, 0, "MLCX", [-10.0, -11.0, 10.0, 11.0])),
        ["Beam 1 has 2 leaf pairs, the machine has 4."],
    ),
    "a pair that is nearly closed": (
        lambda p: place(p, 3, "MLCX", [-10.0, -11.0, -12.0, 12.6, 10.0, 11.0, 12.0, 13.0]),
        ["Beam 1, control point 3: leaf pair 4 is closer than the least gap: gap 0.40 mm, least 0.5 mm."],
    ),
    "a pair at the least gap": (
        lambda p: place(p, 3, "MLCX", [-10.0, -11.0, -12.0, 12.5, 10.0, 11.0, 12.0, 13.0]), [],
    ),
    "a closed pair": (
        lambda p: place(p, 3, "MLCX", [-10.0, -11.0, -12.0, 13.0, 10.0, 11.0, 12.0, 13.0]),
        ["Beam 1, control point 3: leaf pair 4 is closer than the least gap: gap 0.00 mm, least 0.5 mm."],
    ),
    "leaves at either jaw": (
        lambda p: place(p, 3, "MLCX", [-30.01, -11.0, -12.0, -13.0, 10.0, 11.0, 12.0, 40.01]), [],
    ),
    "a leaf beyond the lower jaw": (
        lambda p: place(p, 3, "MLCX", [-10.0, -11.0, -30.02, -30.05, 10.0, 11.0, 12.0, 13.0]),
        ["Beam 1, control point 3: the aperture of leaf pair 3, -30.02 to 12.00 mm, reaches outside the jaws at -30 "
         "and 40 mm."],
    ),
    "a leaf beyond the upper jaw": (
        lambda p: place(p, 3, "MLCX", [-10.0, -11.0, -12.0, -13.0, 10.0, 40.02, 12.0, 13.0]),
        ["Beam 1, control point 3: the aperture of leaf pair 2, -11.00 to 40.02 mm, reaches outside the jaws at -30 "
         "and 40 mm."],
    ),
    "outer leaves beyond a jaw and under the others": (
        lambda p: (place(p, 3, "ASYMY", [-20.0, 20.0]),
                   place(p, 3, "MLCX", [-31.0, -11.0, -12.0, -13.0, 10.0, 11.0, 12.0, 41.0])), [],
    ),
    "outer leaves beyond a jaw and shown by the lower one": (
        lambda p: (place(p, 3, "ASYMY", [-20.1, 20.0]),
                   place(p, 3, "MLCX", [-31.0, -11.0, -12.0, -13.0, 10.0, 11.0, 12.0, 41.0])),
        ["Beam 1, control point 3: the aperture of leaf pair 1, -31.00 to 10.00 mm, reaches outside the jaws at -30 "
         "and 40 mm."],
    ),
    "outer leaves beyond a jaw and shown by the upper one": (
        lambda p: (place(p, 3, "ASYMY", [-20.0, 20.1]),
                   place(p, 3, "MLCX", [-31.0, -11.0, -12.0, -13.0, 10.0, 11.0, 12.0, 41.0])),
        ["Beam 1, control point 3: the aperture of leaf pair 4, -13.00 to 41.00 mm, reaches outside the jaws at -30 "
         "and 40 mm."],
    ),
    "jaws of one position": (
        lambda p: (place(p, 3, "ASYMX", [5.0]), place(p, 3, "ASYMY", [30.0])), [],
    ),
    "jaws by their short names": (
        lambda p: [put(item, RTBeamLimitingDeviceType={"ASYMX": "X", "ASYMY": "Y"}.get(item.RTBeamLimitingDeviceType,
                                                                                      item.RTBeamLimitingDeviceType))
                   for item in point(p, 0).BeamLimitingDevicePositionSequence]
        + [place(p, 3, "X", [-12.5, 40.0]), place(p, 3, "Y", [-50.0, 20.0])], [],
    ),
    "leaves along Y": (
        along_y,
        [f"Beam 1, control point {k}: the aperture of leaf pair 4, -50.02 to 13.00 mm, reaches outside the jaws at -50 "
         "and 60 mm." for k in range(4)],
    ),
    "leaves along Y between jaws of a short name": (
        lambda p: along_y(p, "Y"),
        [f"Beam 1, control point {k}: the aperture of leaf pair 4, -50.02 to 13.00 mm, reaches outside the jaws at -50 "
         "and 60 mm." for k in range(4)],
    ),
    "a leaf at full speed": (
        lambda p: (place(p, 0, "ASYMX", [-90.0, 90.0]),
                   place(p, 1, "MLCX", [-10.0, -11.0, -12.0, -13.0, 10.0, 11.0, 12.0, 13.0 + 66.68])), [],
    ),
    "a leaf of the second bank that is too fast": (
        lambda p: (place(p, 0, "ASYMX", [-90.0, 120.0]),
                   [place(p, k, "MLCX", [-10.0, -11.0, -12.0, -13.0, 10.0, 11.0, 93.1, 13.0]) for k in (1, 2, 3)]),
        ["Beam 1, control point 1: leaf 3 of bank 2 moves 81.10 mm in 2.000 s, 40.5 mm/s, at most 40 mm/s."],
    ),
    "a leaf of the first bank that is too fast at the end": (
        lambda p: (place(p, 0, "ASYMX", [-300.0, 120.0]),
                   place(p, 3, "MLCX", [-10.0, -171.1, -12.0, -13.0, 10.0, 11.0, 12.0, 13.0])),
        ["Beam 1, control point 3: leaf 2 of bank 1 moves 160.10 mm in 4.000 s, 40.0 mm/s, at most 40 mm/s."],
    ),
    "as many MU as the slowest gantry allows": (lambda p: put(used(p), BeamMeterset=400.0), []),
    "more MU than the slowest gantry allows": (
        lambda p: put(used(p), BeamMeterset=404.0),
        ["Beam 1, control point 3: 202.00 MU over 10.00° need the gantry at 0.495°/s, least 0.5°/s."],
    ),
    "as few MU as the least dose rate allows": (lambda p: put(used(p), BeamMeterset=1.1101), []),
    "fewer MU than the least dose rate allows": (
        lambda p: put(used(p), BeamMeterset=1.1),
        [f"Beam 1, control point {k}: the dose rate is 9.90 MU/min, least 10 MU/min." for k in (1, 2)],
    ),
    "no MU in a segment": (
        lambda p: put(point(p, 1), CumulativeMetersetWeight=0.0),
        ["Beam 1, control point 1: the dose rate is 0.00 MU/min, least 10 MU/min."],
    ),
    "a gantry that moves without a direction": (
        lambda p: [put(q, GantryRotationDirection="NONE") for q in arc(p).ControlPointSequence[1:2]],
        ["Beam 1, control point 1: the gantry moves, but GantryRotationDirection is NONE."],
    ),
    "a gantry that rests but for rounding": (
        lambda p: [put(q, GantryRotationDirection="NONE", GantryAngle=0.011 * (k % 2))
                   for k, q in enumerate(arc(p).ControlPointSequence)], [],
    ),
    "a gantry that rests but for more than rounding": (
        lambda p: [put(q, GantryRotationDirection="NONE", GantryAngle=0.012 * (k == 1))
                   for k, q in enumerate(arc(p).ControlPointSequence)],
        [f"Beam 1, control point {k}: the gantry moves, but GantryRotationDirection is NONE." for k in (0, 1)],
    ),
    "weights that end at nothing": (
        lambda p: ([put(q, CumulativeMetersetWeight=0.0) for q in arc(p).ControlPointSequence],
                   put(arc(p), FinalCumulativeMetersetWeight=0.0)),
        ["Beam 1: the cumulative meterset is 0 at each control point, wanted a rise."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_MACHINE)
def test_on_a_machine_of_known_limits_a_plan_gets_these_sentences_and_no_other(name: str, rtplan: Dataset) -> None:
    change, wanted = OF_THE_MACHINE[name]
    change(rtplan)
    assert check_rtplan(rtplan, MACHINE) == wanted


def test_turned_anticlockwise_the_same_way_takes_the_same_time(rtplan: Dataset) -> None:
    # From 10° by 0° to 340°: 10° each at 600 MU/min; clockwise it would be 350° at 6°/s, and 20 MU/min.
    for k in range(4):
        put(point(rtplan, k), GantryAngle=(10.0 - 10.0 * k) % 360.0, GantryRotationDirection="CC")
    put(used(rtplan), BeamMeterset=404.0)
    assert check_rtplan(rtplan, MACHINE) == OF_THE_MACHINE["more MU than the slowest gantry allows"][1]
    for k in range(4):
        put(point(rtplan, k), GantryRotationDirection="CW")
    put(used(rtplan), BeamMeterset=36.0)
    assert check_rtplan(rtplan, MACHINE) == [
        f"Beam 1, control point {k}: the dose rate is 9.26 MU/min, least 10 MU/min." for k in (1, 2)
    ]


def test_without_a_meterset_no_speed_is_looked_at(rtplan: Dataset) -> None:
    put(used(rtplan), BeamMeterset=None)
    place(rtplan, 1, "MLCX", [-10.0, -11.0, -12.0, -13.0, 39.0, 11.0, 12.0, 13.0])
    assert check_rtplan(rtplan, MACHINE) == ["Fraction group 1: beam 1 has no BeamMeterset; wanted its MU."]


def test_a_value_that_is_no_number_is_named_where_it_stands_and_nothing_else_is_looked_at(rtplan: Dataset) -> None:
    rtplan.BeamSequence[0].NumberOfControlPoints = 7
    rtplan.BeamSequence[1].SourceAxisDistance = float("nan")
    rtplan["FractionGroupSequence"][0].add_new("BeamDose", "FL", float("inf"))
    arc(rtplan).ControlPointSequence[2].add_new("GantryPitchAngle", "FL", float("-inf"))
    arc(rtplan).BeamLimitingDeviceSequence[1].add_new("SourceToBeamLimitingDeviceDistance", "FD", float("nan"))
    assert check_rtplan(rtplan) == [
        "The plan, FractionGroup 1: BeamDose holds inf, wanted a number.",
        "Beam 1, BeamLimitingDevice 2: SourceToBeamLimitingDeviceDistance holds nan, wanted a number.",
        "Beam 1, control point 2: GantryPitchAngle holds -inf, wanted a number.",
        "Beam 9: SourceAxisDistance holds nan, wanted a number.",
    ]


@pytest.mark.parametrize(("last", "final", "passes"), [
    (100.0, 100.00009, True), (100.0, 99.99991, True), (100.0, 100.00011, False), (100.0, 99.99989, False),
    (0.4, 0.4000009, True), (0.4, 0.4000011, False), (0.4, 0.3999989, False),
])  # fmt: skip
def test_the_final_weight_may_differ_by_a_millionth_of_itself_or_of_one(
    last: float, final: float, passes: bool, rtplan: Dataset
) -> None:
    for k in range(4):
        point(rtplan, k).CumulativeMetersetWeight = k / 3 * last
    arc(rtplan).FinalCumulativeMetersetWeight = final
    assert (check_rtplan(rtplan) == []) == passes


def spots(positions: int | None, scanned: list[float] | None, weights: list[float] | float | None) -> Dataset:
    ion = Dataset()
    ion.ControlPointIndex, ion.CumulativeMetersetWeight, ion.GantryAngle = 0, 0.0, 0.0
    ion.NumberOfScanSpotPositions, ion.ScanSpotPositionMap, ion.ScanSpotMetersetWeights = positions, scanned, weights
    ion.NominalBeamEnergy = 0.5
    return ion


@pytest.mark.parametrize(
    ("first", "energy", "wanted"),
    [
        (spots(2, [0.0, 1.0, 2.0, 3.0], [1.0, 1.0]), 0.5, []),
        (spots(1, [0.0, 1.0], 1.0), 0.5, []),
        (spots(None, [0.0], None), None, []),
        (spots(3, None, [1.0, 1.0]), 0.5,
         ["Beam 1, control point 0: ScanSpotPositionMap has 0 values, wanted 6 for 3 spots.",
          "Beam 1, control point 0: ScanSpotMetersetWeights has 2 values, wanted 3 for 3 spots."]),
        (spots(1, [0.0, 1.0], 1.0), 0.0,
         ["Beam 1: the first control point has NominalBeamEnergy 0.0, wanted MeV a nucleon."]),
    ],
)  # fmt: skip
def test_spots_of_an_ion_beam_are_counted_and_only_its_first_point_needs_an_energy(
    first: Dataset, energy: float | None, wanted: list[str], rtplan: Dataset
) -> None:
    beam, last = rtplan.BeamSequence[0], spots(1, [0.0, 1.0], 1.0)
    first.NominalBeamEnergy, last.NominalBeamEnergy = energy, None
    first.IsocenterPosition, last.ControlPointIndex, last.CumulativeMetersetWeight = [0.0, 0.0, 0.0], 1, 0.4
    beam.IonControlPointSequence, beam.NumberOfControlPoints = [first, last], 2
    del beam.ControlPointSequence
    rtplan.IonBeamSequence = rtplan.BeamSequence
    del rtplan.BeamSequence
    assert check_rtplan(rtplan) == wanted
