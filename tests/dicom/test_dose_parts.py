"""Doses in parts: summed or stacked where the plan names exactly these, else refused with what is missing."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.dose_parts import choose_parts, read_parts
from doseledger.dicom.read_dose import read_dose

SHAPE, SPACING, ORIGIN = (5, 6, 7), (3.0, 2.5, 2.0), (-12.0, 4.0, -9.0)


def of_beam(number: int):
    return lambda z, y, x: number * (4.0 + 0.05 * x + 0.025 * y - 0.0125 * z)


def total(z, y, x):
    return of_beam(1)(z, y, x) + of_beam(2)(z, y, x)


@pytest.fixture
def plan(factory) -> pydicom.Dataset:
    made = factory.make_rtplan(28, [(70.0, 2)])
    second, used = copy.deepcopy(made.BeamSequence[0]), copy.deepcopy(made.FractionGroupSequence[0])
    second.BeamNumber = 2
    setup = copy.deepcopy(second)
    setup.BeamNumber, setup.TreatmentDeliveryType = 3, "SETUP"
    made.BeamSequence = [*made.BeamSequence, second, setup]
    item = copy.deepcopy(used.ReferencedBeamSequence[0])
    item.ReferencedBeamNumber = 2
    made.FractionGroupSequence[0].ReferencedBeamSequence = [*used.ReferencedBeamSequence, item]
    return made


@pytest.fixture
def part(factory, plan):
    def make(number: int, kind: str = "BEAM", shape=SHAPE, spacing=SPACING, origin=ORIGIN) -> pydicom.Dataset:
        dose = factory.make_rtdose(of_beam(number), shape, spacing, origin)
        dose.DoseSummationType, dose.file_label = kind, f"RD{number}.dcm"
        dose.SOPInstanceUID = f"1.2.3.500.{number}"
        refer(dose, plan, [number], kind)
        return dose

    return make


def refer(dose: pydicom.Dataset, plan: pydicom.Dataset, numbers: list[int], kind: str = "BEAM") -> None:
    """Let a dose say of which beams, or of which fraction group, it is."""
    link, group = pydicom.Dataset(), pydicom.Dataset()
    link.ReferencedSOPInstanceUID = plan.SOPInstanceUID
    group.ReferencedFractionGroupNumber = numbers[0] if kind == "FRACTION" else 1
    if kind == "BEAM":
        beams = []
        for number in numbers:
            beam = pydicom.Dataset()
            beam.ReferencedBeamNumber = number
            beams.append(beam)
        group.ReferencedBeamSequence = beams
    link.ReferencedFractionGroupSequence = [group]
    dose.ReferencedRTPlanSequence = [link]


def expected(function, grid: Grid) -> np.ndarray:
    return function(*np.meshgrid(*grid.axes_mm(), indexing="ij"))


def test_beams_that_are_exactly_the_plans_are_summed_on_their_own_grid(plan, part):
    doses = [part(2), part(1)]
    parts = choose_parts(doses, [plan], "case_1")
    dose, notes = read_parts(parts, plan, "case_1")
    assert dose.grid.same_as(Grid(SHAPE, SPACING, ORIGIN))
    np.testing.assert_allclose(dose.dose_gy, expected(total, dose.grid), atol=4e-6)
    assert notes == ["the dose is the sum of 2 RTDOSE of DoseSummationType BEAM: beams 1, 2"]


def test_one_file_may_hold_several_beams(plan, part, factory):
    both = part(1)
    refer(both, plan, [2, 1])
    _, notes = read_parts([both], plan, "case_1")
    assert notes[0].endswith("beams 1, 2")


def test_beams_on_other_grids_are_resampled_and_said_to_be(plan, part):
    doses = [part(1), part(2, shape=(9, 12, 14), spacing=(2.0, 1.5, 1.5), origin=(-11.0, 3.0, -10.0))]
    dose, notes = read_parts(doses, plan, "case_1")
    np.testing.assert_allclose(dose.dose_gy, expected(total, dose.grid), atol=4e-5)
    # Only where both are known: nothing is said of a place that one of them does not reach.
    assert dose.grid.extent_mm[0] == pytest.approx((-9.0, 4.0, -9.0))
    assert notes[1] == "the doses lie on different grids and were resampled to that of beams 1"
    far = part(2, origin=(500.0, 3.0, -10.0))
    with pytest.raises(BadCase, match="cover no place in common"):
        read_parts([part(1), far], plan, "case_1")


def silent(doses, plan):
    del doses[1].ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doses, plan: doses.pop(), "of the plan's beams 1, 2: 2 is missing"),
        (lambda doses, plan: refer(doses[1], plan, [1]), r"2 is missing; 1 has 2 files"),
        (lambda doses, plan: refer(doses[1], plan, [2, 1]), "1 is there 2 times"),
        (lambda doses, plan: refer(doses[1], plan, [2, 7]), "7 is not in the plan"),
        (silent, r"1 of them \(RD2.dcm\) name no beams of this RTPLAN"),
        (lambda doses, plan: setattr(plan, "SOPInstanceUID", "1.2.9"), "name no beams of this RTPLAN"),
    ],
)
def test_beams_that_are_not_exactly_the_plans_are_refused_with_the_names(plan, part, change, message):
    doses = [part(1), part(2)]
    change(doses, plan)
    with pytest.raises(
        BadCase, match=rf"RTDOSE of DoseSummationType BEAM \(RD1.dcm.*, wanted one of PLAN; .*{message}"
    ):
        read_parts(doses, plan, "case_1")


def test_beams_without_their_plan_are_refused(part):
    with pytest.raises(BadCase, match="can be summed only beside the RTPLAN that they are of"):
        read_parts([part(1), part(2)], None, "case_1")


def test_the_only_fraction_group_is_the_plan(plan, part):
    one = part(1, "FRACTION")
    dose, notes = read_parts([one], plan, "case_1")
    np.testing.assert_allclose(dose.dose_gy, expected(of_beam(1), dose.grid), atol=4e-6)
    assert "fraction groups 1" in notes[0]
    del one.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence
    read_parts([one], plan, "case_1")
    second = copy.deepcopy(plan.FractionGroupSequence[0])
    second.FractionGroupNumber = 2
    plan.FractionGroupSequence = [*plan.FractionGroupSequence, second]
    with pytest.raises(BadCase, match="name no fraction groups of this RTPLAN"):
        read_parts([one], plan, "case_1")
    dose, _ = read_parts([part(1, "FRACTION"), part(2, "FRACTION")], plan, "case_1")
    np.testing.assert_allclose(dose.dose_gy, expected(total, dose.grid), atol=4e-6)


@pytest.mark.parametrize("kind", ["BEAM_SESSION", "MULTI_PLAN", "CONTROL_POINT"])
def test_a_dose_that_is_no_sum_of_beams_is_named_for_what_it_is(plan, part, kind):
    with pytest.raises(BadCase, match=rf"DoseSummationType {kind}, wanted PLAN \({kind} is a dose of"):
        read_parts([part(1, kind)], plan, "case_1")
    with pytest.raises(BadCase, match=f"found 2 RTDOSE, by DoseSummationType 2 of {kind}; wanted one of PLAN"):
        choose_parts([part(1, kind), part(2, kind)], [], "case_1")


def planes_of(dose: pydicom.Dataset) -> list[pydicom.Dataset]:
    """A file a plane, each with a scaling of its own."""
    made = []
    for index, plane in enumerate(dose.pixel_array):
        one = copy.deepcopy(dose)
        one.NumberOfFrames, one.GridFrameOffsetVector = 1, [0.0]
        x, y, z = (float(v) for v in dose.ImagePositionPatient)
        one.ImagePositionPatient = [x, y, z + SPACING[0] * index]
        scaling = float(dose.DoseGridScaling) * (1 + index)
        one.DoseGridScaling, one.SOPInstanceUID = scaling, f"1.2.3.500.9.{index}"
        one.PixelData = np.rint(plane / (1 + index)).astype(np.uint32).tobytes()
        one["PixelData"].VR = "OW"
        made.append(one)
    return made


def test_planes_of_one_file_each_are_stacked_by_position(part, plan):
    whole = part(1, "PLAN")
    planes = planes_of(whole)
    rng = np.random.default_rng(2)
    parts = choose_parts([planes[i] for i in rng.permutation(len(planes))], [], "case_1")
    dose, notes = read_parts(parts, plan, "case_1")
    wanted = read_dose(whole, "case_1")
    assert dose.grid.same_as(wanted.grid)
    np.testing.assert_allclose(dose.dose_gy, wanted.dose_gy, atol=1e-5)
    assert notes == ["the dose was stacked from 5 RTDOSE files of one plane each"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda planes: planes.pop(2), "4 RTDOSE planes are uneven: steps from 3 to 6 mm; is one missing"),
        (lambda planes: planes.append(copy.deepcopy(planes[0])), "6 RTDOSE planes are uneven: steps from 0 to 3"),
        (lambda planes: setattr(planes[1], "PixelSpacing", [3, 3]), "planes differ in size, spacing"),
        (lambda planes: setattr(planes[1], "ImagePositionPatient", [-9, 8, -9]), "planes differ in size, spacing"),
        (lambda planes: setattr(planes[1], "FrameOfReferenceUID", "1.9"), "2 frames of reference"),
        (lambda planes: setattr(planes[1], "DoseUnits", "RELATIVE"), "DoseUnits RELATIVE, wanted GY"),
    ],
)
def test_planes_that_are_no_stack_are_refused(part, plan, change, message):
    planes = planes_of(part(1, "PLAN"))
    change(planes)
    with pytest.raises(BadCase, match=message):
        read_parts(planes, plan, "case_1")


def test_a_fraction_dose_that_is_not_the_whole_plan_keeps_nobody_from_summing_the_beams(plan, part):
    plan.FractionGroupSequence.append(pydicom.Dataset())
    plan.FractionGroupSequence[1].FractionGroupNumber = 2
    doses = [part(1), part(2), part(1, "FRACTION")]
    assert choose_parts(doses, [plan], "case_1") == doses[:2]
    assert choose_parts(doses[1:], [plan], "case_1") == [doses[2]]


def test_planes_of_beams_are_stacked_and_then_summed(part, plan):
    dose, _ = read_parts([*planes_of(part(1)), *planes_of(part(2))], plan, "case_1")
    np.testing.assert_allclose(dose.dose_gy, expected(total, dose.grid), atol=2e-5)


def test_of_two_doses_of_whole_plans_the_one_of_the_plan_that_is_there_is_taken(part, plan):
    doses = [part(1, "PLAN"), part(2, "PLAN")]
    with pytest.raises(BadCase, match=r"2 files could be the RTDOSE of a whole plan, wanted one: RD1.dcm, RD2.dcm;"):
        choose_parts(doses, [plan], "case_1")
    doses[0].ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = "1.2.9"
    assert choose_parts(doses, [plan], "case_1") == [doses[1]]
