"""Each tolerance of reading and checking DICOM: just inside passes, just outside is named; no number never passes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import RLELossless, RTStructureSetStorage

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.plan import Arc, Plan
from doseledger.core.project.protocol import Phi
from doseledger.dicom.files.members import check_size
from doseledger.dicom.geometry import Planes, even_step_mm, read_orientation, to_lps
from doseledger.dicom.pixels import read_pixels
from doseledger.dicom.plan.beams import _is_helix
from doseledger.dicom.plan.brachy import _channel_faults
from doseledger.dicom.plan.check import MachineLimits, check_rtplan
from doseledger.dicom.plan.read import _jaws, read_plan
from doseledger.dicom.privacy.deidentify import Pseudonymiser
from doseledger.dicom.read_dose import read_dose
from doseledger.dicom.read_image import _scaled, _slice_step, read_image
from doseledger.dicom.read_structures import Roi, read_contours, slab_thickness_mm
from doseledger.dicom.write.objects import Study, make_uid
from doseledger.dicom.write.plan import BeamDevice, make_plan

EDGES = np.concatenate([np.arange(-200, -100, 10), np.arange(-100, 100, 5), np.arange(100, 201, 10)]).astype(float)
MACHINE = MachineLimits(60, 0.5, 25.0, 6.0, (5.0, 600.0), 0.3)
NO_NUMBERS = [math.nan, math.inf, -math.inf]
N = 4
Change = Callable[[Dataset, float], None]


@pytest.fixture(scope="module")
def written() -> Dataset:
    """An arc of three segments of 6° and 8 MU, a second each; leaves at rest."""
    leaf = np.zeros((N, 2, 60))
    leaf[:, 1] = 25.0
    arc = Arc("A1", 100.0 + 6.0 * np.arange(N), True, 10.0, 0.0, leaf, (-50.0, 50.0), (-60.0, 60.0),
              8.0 * np.arange(N), (0.0, 0.0, 0.0))  # fmt: skip
    structures = Dataset()
    structures.SOPClassUID, structures.SOPInstanceUID = RTStructureSetStorage, "1.2.3"
    study = Study("phantom_1", "phantom^1", "M", make_uid("s"), make_uid("f"), "HFS", "k")
    plan = Plan("TEST", "Generic120", 6.0, (arc,), 28, {"PTV70": 70.0})
    return make_plan(study, plan, BeamDevice(EDGES, 1000.0), structures, {"PTV70": 1})


@pytest.fixture
def rtplan(written: Dataset) -> Dataset:
    return copy.deepcopy(written)


def points(plan: Dataset) -> list[Dataset]:
    return list(plan.BeamSequence[0].ControlPointSequence)


def set_point(k: int, keyword: str) -> Change:
    return lambda plan, value: setattr(points(plan)[k], keyword, str(value))


def set_weights(*fixed: float | None) -> Change:
    """The cumulative weights; None stands for the value."""

    def change(plan: Dataset, value: float) -> None:
        for point, weight in zip(points(plan), fixed, strict=True):
            point.CumulativeMetersetWeight = str(value if weight is None else weight)

    return change


def set_leaf(index: int, first: int = 0) -> Change:
    def change(plan: Dataset, value: float) -> None:
        held: list[float] = []
        for k, point in enumerate(points(plan)):
            devices = list(point.get("BeamLimitingDevicePositionSequence") or [])
            held = [float(v) for v in devices[-1].LeafJawPositions] if devices else held
            if k >= first:
                device = copy.deepcopy(points(plan)[0].BeamLimitingDevicePositionSequence[-1])
                device.LeafJawPositions = [str(value) if i == index else str(v) for i, v in enumerate(held)]
                point.BeamLimitingDevicePositionSequence = [*devices[:-1], device]

    return change


def set_jaw(kind: str, end: int) -> Change:
    def change(plan: Dataset, value: float) -> None:
        for device in points(plan)[0].BeamLimitingDevicePositionSequence:
            if device.RTBeamLimitingDeviceType == kind:
                positions = [str(v) for v in device.LeafJawPositions]
                positions[end] = str(value)
                device.LeafJawPositions = positions

    return change


def set_mu(plan: Dataset, value: float) -> None:
    plan.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = str(value)


def set_isocentre(plan: Dataset, value: float) -> None:
    points(plan)[1].IsocenterPosition = ["0", str(value), "0"]


def set_final(plan: Dataset, value: float) -> None:
    plan.BeamSequence[0].FinalCumulativeMetersetWeight = str(value)


# What is set to a value; a value just inside its limit, one just outside, and what is said of the latter.
CHECKED: dict[str, tuple[Change, float, float, str]] = {
    "first weight": (set_weights(None, 0.25, 0.5, 1.0), 9e-7, 1.1e-6, "the cumulative meterset begins at"),
    "rising weights": (set_weights(0.0, 0.5, None, 1.0), 0.5, 0.4999, "the cumulative meterset falls"),
    "final weight": (set_final, 1.0 + 9e-7, 1.0 + 1.2e-6, "FinalCumulativeMetersetWeight is"),
    "isocentre": (set_isocentre, 0.0109, 0.0112, "the isocentre moves during the beam"),
    "energy": (set_point(0, "NominalBeamEnergy"), 0.0101, 0.0099, "NominalBeamEnergy is 0.0099"),
    "high energy": (set_point(0, "NominalBeamEnergy"), 49.9, 50.1, "NominalBeamEnergy is 50.1"),
    "no energy": (set_point(0, "NominalBeamEnergy"), 6.0, 0.0, "NominalBeamEnergy is 0, wanted 0.01 to 50 MV"),
    "monitor units": (set_mu, 19_999.0, 20_001.0, "a BeamMeterset of 20001 MU, wanted at most 20000"),
    "a billion MU": (set_mu, 200.0, 1e9, "a BeamMeterset of 1e+09 MU"),
    "no MU": (set_mu, 1.0, 0.0, "has no BeamMeterset"),
    "a jaw's place": (set_jaw("ASYMY", 1), 499.9, 500.1, "ASYMY at 500.1 mm, wanted at most 500 mm"),
    "a leaf's place": (set_leaf(60), 499.9, 500.1, "MLCX at 500.1 mm"),
    "crossing leaves": (set_leaf(67), -0.0109, -0.0112, "leaf pair 8 crosses"),
}
OF_A_MACHINE: dict[str, tuple[Change, float, float, str]] = {
    "least gap": (set_leaf(67), 0.4891, 0.4888, "leaf pair 8 is closer than the least gap"),
    "aperture and jaw": (set_leaf(30), -50.0109, -50.0112, "reaches outside the jaws at -50"),
    "leaf speed": (set_leaf(90, first=1), 50.02, 50.03, "moves 25.03 mm in 1.000 s"),
    "gantry speed": (set_mu, 600.59, 600.63, "need the gantry at 0.300°/s"),
    "dose rate": (set_mu, 0.2499, 0.2496, "least 5 MU/min"),
    "gantry at rest": (set_point(1, "GantryAngle"), 100.0109, 100.0112, "GantryRotationDirection is NONE"),
}


def spoilt(plan: Dataset, name: str, change: Change, value: float) -> Dataset:
    changed = copy.deepcopy(plan)
    change(changed, value)
    if name == "gantry at rest":
        for point in points(changed)[2:]:
            point.GantryAngle = str(value)
        for point in points(changed):
            point.GantryRotationDirection = "NONE"
    return changed


@pytest.mark.parametrize("name", [*CHECKED, *OF_A_MACHINE])
def test_a_plan_just_inside_a_limit_passes_and_one_just_outside_is_named(name: str, rtplan: Dataset) -> None:
    change, inside, outside, words = (CHECKED | OF_A_MACHINE)[name]
    machine = MACHINE if name in OF_A_MACHINE else None
    assert not any(words[:14] in line for line in check_rtplan(spoilt(rtplan, name, change, inside), machine))
    found = check_rtplan(spoilt(rtplan, name, change, outside), machine)
    assert any(words in line for line in found), found


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.filterwarnings("ignore:Value exceeds the maximum length")
@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", [name for name in CHECKED if name != "no energy"])
def test_a_plan_with_what_is_no_number_never_passes(name: str, value: float, rtplan: Dataset) -> None:
    with np.errstate(invalid="ignore"):
        found = check_rtplan(spoilt(rtplan, name, CHECKED[name][0], value), MACHINE)
    assert any(f"holds {value:g}, wanted a number" in line for line in found), found


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("keyword", ["GantryAngle", "BeamLimitingDeviceAngle", "PatientSupportAngle"])
def test_an_angle_that_is_no_number_is_named_with_its_control_point(keyword: str, rtplan: Dataset) -> None:
    setattr(points(rtplan)[0], keyword, "nan")
    assert f"Beam 1, control point 0: {keyword} holds nan, wanted a number." in check_rtplan(rtplan)


def test_a_beam_whose_weights_are_all_zero_delivers_nothing(rtplan: Dataset) -> None:
    set_weights(0.0, 0.0, 0.0, 0.0)(rtplan, 0.0)
    set_final(rtplan, 0.0)
    assert "Beam 1: the cumulative meterset is 0 at each control point, wanted a rise." in check_rtplan(rtplan)


# Tolerances of the reader.


@pytest.mark.parametrize(("turn", "is_held"), [(0.049, True), (0.051, False)])
@pytest.mark.parametrize("keyword", ["BeamLimitingDeviceAngle", "PatientSupportAngle"])
def test_a_collimator_or_couch_may_turn_by_the_twentieth_of_a_degree(
    keyword: str, turn: float, is_held: bool, rtplan: Dataset
) -> None:
    setattr(points(rtplan)[1], keyword, str(float(getattr(points(rtplan)[0], keyword)) + turn))
    if is_held:
        read_plan(rtplan, "case_0001")
        return
    with pytest.raises(BadCase, match=f"{keyword} changes during the beam"):
        read_plan(rtplan, "case_0001")


@pytest.mark.parametrize(("way", "is_held"), [(0.0099, True), (0.0101, False)])
def test_an_isocentre_may_move_by_the_hundredth_of_a_mm(way: float, is_held: bool, rtplan: Dataset) -> None:
    set_isocentre(rtplan, way)
    if is_held:
        read_plan(rtplan, "case_0001")
        return
    with pytest.raises(BadCase, match="IsocenterPosition changes during the beam"):
        read_plan(rtplan, "case_0001")


@pytest.mark.parametrize(("way", "is_held"), [(0.0099, True), (0.0101, False)])
def test_a_jaw_that_moves_by_more_than_the_hundredth_of_a_mm_moves(way: float, is_held: bool, rtplan: Dataset) -> None:
    jaw = copy.deepcopy(points(rtplan)[0].BeamLimitingDevicePositionSequence[0])
    jaw.LeafJawPositions = [str(float(jaw.LeafJawPositions[0]) - way), str(jaw.LeafJawPositions[1])]
    leaves = points(rtplan)[2].get("BeamLimitingDevicePositionSequence") or []
    points(rtplan)[2].BeamLimitingDevicePositionSequence = [jaw, *leaves]
    assert (read_plan(rtplan, "case_0001").arcs[0].moving_jaws_mm is None) is is_held


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", ["rising weights", "final weight", "isocentre"])
def test_a_plan_with_what_is_no_number_is_not_read(name: str, value: float, rtplan: Dataset) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(BadCase):
        read_plan(spoilt(rtplan, name, CHECKED[name][0], value), "case_0001")


@pytest.mark.parametrize(("lean", "is_right"), [(9e-4, True), (1.1e-3, False)])
def test_rows_and_columns_stand_at_a_right_angle(lean: float, is_right: bool) -> None:
    dataset = Dataset()
    dataset.ImageOrientationPatient = [1.0, 0.0, 0.0, lean, math.sqrt(1 - lean**2), 0.0]
    if is_right:
        read_orientation(dataset, "case_0001")
        return
    with pytest.raises(BadCase, match="not two unit vectors at a right angle"):
        read_orientation(dataset, "case_0001")


@pytest.mark.parametrize(("excess", "is_unit"), [(9e-4, True), (1.1e-3, False)])
def test_a_direction_is_of_length_one(excess: float, is_unit: bool) -> None:
    dataset = Dataset()
    dataset.ImageOrientationPatient = [1.0 + excess, 0.0, 0.0, 0.0, 1.0, 0.0]
    if is_unit:
        read_orientation(dataset, "case_0001")
        return
    with pytest.raises(BadCase, match="not two unit vectors"):
        read_orientation(dataset, "case_0001")


@pytest.mark.parametrize(("tilt", "is_straight"), [(9e-4, True), (1.1e-3, False)])
def test_an_image_is_tilted_by_less_than_a_thousandth(tilt: float, is_straight: bool) -> None:
    row = np.array([math.sqrt(1 - tilt**2), 0.0, tilt])
    planes = Planes(row, np.array([0.0, 1.0, 0.0]), 1.0, 1.0, np.zeros(3), 3.0)
    if is_straight:
        to_lps(np.zeros((2, 3, 4)), planes, "case_0001", "image")
        return
    with pytest.raises(BadCase, match=r"the image is tilted by 0\.06 degrees"):
        to_lps(np.zeros((2, 3, 4)), planes, "case_0001", "image")


@pytest.mark.parametrize(("off", "is_even"), [(0.0499, True), (0.0501, False)])
def test_a_plane_lies_within_the_twentieth_of_a_mm_of_its_even_place(off: float, is_even: bool) -> None:
    positions = 3.0 * np.arange(6.0)
    positions[2] += off
    assert (even_step_mm(positions) is not None) is is_even


@pytest.mark.parametrize(("off", "is_taken"), [(0.0499, True), (0.0501, False)])
def test_dose_planes_begin_at_zero_or_at_their_first_place(off: float, is_taken: bool, factory: ModuleType) -> None:
    dose = factory.make_patient().rtdose
    # Absolute coordinates: the first of them is the first plane's own.
    first = float(dose.ImagePositionPatient[2])
    dose.GridFrameOffsetVector = [first + off + float(v) for v in dose.GridFrameOffsetVector]
    if is_taken:
        read_dose(dose, "case_0001")
        return
    with pytest.raises(BadCase, match="GridFrameOffsetVector begins at"):
        read_dose(dose, "case_0001")


@pytest.mark.parametrize(("n_points", "off_mm", "is_helix"), [
    (8, 0.0, True), (7, 0.0, False), (20, 0.0, True), (20, 0.09, True), (20, 0.105, False), (20, 0.2, False),
])  # fmt: skip
def test_a_helix_has_eight_points_and_an_even_pitch_to_the_tenth_of_a_mm(
    n_points: int, off_mm: float, is_helix: bool
) -> None:
    items = []
    for k in range(n_points):
        point = Dataset()
        point.IsocenterPosition, point.GantryAngle = [0.0, 0.0, 1.5 * k + (off_mm if k == 3 else 0.0)], (60 * k) % 360
        items.append(point)
    assert _is_helix(items) is is_helix


@pytest.mark.parametrize(("n_bytes", "is_read"), [(1 << 30, True), ((1 << 30) + 1, False)])
def test_a_file_of_more_than_a_gib_is_not_read(n_bytes: int, is_read: bool) -> None:
    with nullcontext() if is_read else pytest.raises(BadInput, match="at most 1073741824 are read"):
        check_size(n_bytes, Path("case_1"))


@pytest.mark.parametrize(("far_mm", "is_taken"), [(10_000.0, True), (-10_000.0, True), (10_001.0, False)])
def test_a_contour_lies_within_ten_metres(far_mm: float, is_taken: bool, factory: ModuleType) -> None:
    polygon = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, far_mm]])
    roi = Roi(1, "PTV", "PTV", "", [factory.make_contour(3.0, polygon)])
    with nullcontext() if is_taken else pytest.raises(BadCase, match="wanted at most 10000 mm from the origin"):
        assert len(read_contours(roi, "case_1").polygons) == 1


@pytest.mark.parametrize(("n", "shown"), [(64, "x" * 64), (65, "x" * 63 + "…"), (5000, "x" * 63 + "…")])
def test_a_rois_name_has_at_most_64_characters(n: int, shown: str) -> None:
    assert Roi(1, "x" * n, "", "", []).name == shown


@pytest.mark.parametrize(("weight", "is_named"), [(1.0, False), (1 + 0.9e-6, False), (1 + 1.2e-6, True)])
def test_the_last_time_weight_of_brachytherapy_is_the_final_one_to_a_millionth(weight: float, is_named: bool) -> None:
    channel = Dataset()
    channel.NumberOfControlPoints, channel.ChannelTotalTime, channel.FinalCumulativeTimeWeight = 2, 10.0, 1.0
    channel.BrachyControlPointSequence = [Dataset(), Dataset()]
    for point, value in zip(channel.BrachyControlPointSequence, (0.0, weight), strict=True):
        point.CumulativeTimeWeight = f"{value:.12g}"
    assert bool(list(_channel_faults(channel, "Channel 1"))) is is_named


def test_dates_move_by_one_to_3650_days_into_the_past() -> None:
    phi = Phi.model_validate({"pseudonym": "^anon_[a-z0-9]+$", "allow": []})
    days = [Pseudonymiser(b"s" * 32, phi, str(number)).shift.days for number in range(2000)]
    assert -3650 <= min(days) < -3600
    assert -50 < max(days) <= -1


@pytest.mark.parametrize(("intercept", "is_whole"), [(-1024.0, True), (1048576.0, True), (1048577.0, False)])
def test_whole_steps_stay_integers_up_to_a_shift_of_a_million(intercept: float, is_whole: bool) -> None:
    found = _scaled(np.array([0, 5], np.int16), 1.0, intercept)
    assert (found.dtype == np.int32) is is_whole
    np.testing.assert_allclose(found, np.rint(np.array([0.0, 5.0]) + intercept))


def test_a_beam_without_jaws_is_open_to_20_cm() -> None:
    np.testing.assert_array_equal(_jaws([{"devices": {}}], ("ASYMX", "X"), "beam 1", "case_1"), [[-200.0, 200.0]])


class Numbers:
    """So many numbers, of which three are given: what a file of millions says without the millions."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[float]:
        return iter((0.0, 0.0, 3.0))


@pytest.mark.parametrize(("n", "is_taken"), [(15_000_000, True), (15_000_001, False)])
def test_a_roi_has_five_million_points(n: int, is_taken: bool) -> None:
    data = SimpleNamespace(value=Numbers(n))
    item: Any = SimpleNamespace(get_item=lambda keyword: data, get=lambda keyword: "CLOSED_PLANAR")
    with nullcontext() if is_taken else pytest.raises(BadCase, match="PTV has more than 5000000 points"):
        assert read_contours(Roi(1, "PTV", "PTV", "", [item]), "case_1").n_ignored == 1


@pytest.mark.parametrize(("n", "is_taken"), [(50_000, True), (50_001, False)])
def test_a_roi_has_fifty_thousand_contours(n: int, is_taken: bool) -> None:
    roi = Roi(1, "PTV", "PTV", "", [Dataset()] * n)
    with nullcontext() if is_taken else pytest.raises(BadCase, match="PTV has 50001 contours, wanted at most 50000"):
        assert read_contours(roi, "case_1").n_ignored == n


@pytest.mark.parametrize(
    ("thick_mm", "is_told"), [("3", True), ("9999", True), ("10000", False), ("0", False), ("-1", False), ("x", False)]
)
def test_a_slab_is_thinner_than_ten_metres(thick_mm: str, is_told: bool) -> None:
    item: Any = {"ContourSlabThickness": thick_mm}
    assert slab_thickness_mm(Roi(1, "PTV", "PTV", "", [item])) == (float(thick_mm) if is_told else None)


@pytest.mark.parametrize(("spread_mm", "is_axial"), [(0.1, True), (0.102, False)])
def test_a_contour_lies_in_a_plane_to_the_tenth_of_a_mm(spread_mm: float, is_axial: bool, factory: ModuleType) -> None:
    item = factory.make_contour(3.0, np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]]))
    item.ContourData = [0, 0, 3, 10, 0, 3, 10, 10, f"{3 + spread_mm:g}"]
    with nullcontext() if is_axial else pytest.raises(BadCase, match=r"spans 0\.10 mm in z, wanted axial planes"):
        read_contours(Roi(1, "PTV", "PTV", "", [item]), "case_1")


@pytest.mark.parametrize(("n_bytes", "is_decoded"), [(1024, True), (1023, False)])
def test_run_lengths_grow_64_times_at_most(n_bytes: int, is_decoded: bool, factory: ModuleType) -> None:
    item = copy.deepcopy(factory.make_patient().ct[0])
    item.Rows, item.Columns = 128, 256
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = RLELossless
    item.PixelData = b"\0" * n_bytes
    words = "can't be decoded" if is_decoded else "too few for 65536 bytes of pixels"
    with pytest.raises(BadInput, match=words):
        read_pixels(item)


@pytest.mark.parametrize(("apart_mm", "is_taken"), [(0.011, True), (0.009, False), (0.0, False)])
def test_slices_a_hundredth_of_a_mm_apart_are_two(apart_mm: float, is_taken: bool) -> None:
    along = np.arange(4) * apart_mm
    if is_taken:
        assert _slice_step(along, "case_1") == pytest.approx(apart_mm)
        return
    with pytest.raises(BadCase, match=r"two slices at position 0\.0\d mm; keep one reconstruction"):
        _slice_step(along, "case_1")


@pytest.mark.parametrize(("pixel_mm", "off_mm", "is_taken"), [
    (2.0, 0.09, True), (2.0, 0.11, False), (0.5, 0.04, True), (0.5, 0.06, False),
])  # fmt: skip
def test_slices_lie_above_one_another_to_a_tenth_of_a_mm_and_of_a_pixel(
    pixel_mm: float, off_mm: float, is_taken: bool, factory: ModuleType
) -> None:
    slices = factory.make_ct(np.zeros((5, 6, 7)), (3.0, pixel_mm, pixel_mm), (0.0, 0.0, 0.0))
    x, y, z = (float(v) for v in slices[2].ImagePositionPatient)
    slices[2].ImagePositionPatient = [x, y + off_mm, z]
    with nullcontext() if is_taken else pytest.raises(BadCase, match="slices are shifted sideways by up to 0"):
        read_image(slices, "case_1")
