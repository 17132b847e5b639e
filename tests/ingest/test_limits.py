"""Each tolerance of ingest: just inside passes, just outside is refused; no number ends anybody else's ingest."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import Dataset

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.plan.read import TargetDose
from doseledger.ingest.body import fill_body
from doseledger.ingest.cohort import IngestCount, IngestRun, ingest
from doseledger.ingest.names.hints import Clue, find_hints
from doseledger.ingest.nifti.case import find_support
from doseledger.ingest.nifti.volume import read_volume
from doseledger.ingest.openkbp.case import find_body
from doseledger.ingest.openkbp.files import _check_whole, _read_spacing, to_zyx
from doseledger.ingest.outcome import outcome_table
from doseledger.ingest.patient import read as read_patient
from doseledger.ingest.patient.absent import _quoted
from doseledger.ingest.patient.case import Origin, _judge_reach, convert_case
from doseledger.ingest.patient.prescription import _check_target
from doseledger.ingest.patient.roi_names import NameMatch
from doseledger.ingest.survey.rois import volume_cc


@pytest.fixture
def protocol(factory: ModuleType) -> Protocol:
    return Protocol.model_validate({**factory.PROTOCOL, "spacing_mm": [6.0, 5.0, 5.0]})


@pytest.mark.parametrize(
    ("dose_gy", "is_taken"),
    [(70.0, True), (70.099, True), (69.901, True), (70.101, False), (69.899, False), (73.9, False), (0.0, False),
     (math.nan, False), (math.inf, False), (-math.inf, False)],
)  # fmt: skip
def test_a_prescription_may_be_off_by_a_tenth_of_a_gray(dose_gy: float, is_taken: bool, protocol: Protocol) -> None:
    match = NameMatch(chosen={"PTV70": "PTV_70"}, used={}, unmatched=[], absent={})
    target = TargetDose(dose_gy, None, "PTV70")
    if is_taken:
        _check_target(target, [], match, protocol, "case_0001")
        return
    with pytest.raises(BadCase, match="wrong prescription: the RTPLAN gives PTV70"):
        _check_target(target, [], match, protocol, "case_0001")


@pytest.mark.parametrize(
    ("percent", "is_taken"), [(0.0, True), (0.099, True), (0.101, False), (math.nan, False), (math.inf, False)]
)
def test_the_dose_grid_may_miss_a_thousandth_of_a_target(percent: float, is_taken: bool, protocol: Protocol) -> None:
    shares = {"PTV70": {"outside_percent": percent}, "Rectum": {"outside_percent": 50.0}}
    meta: dict[str, Any] = {"case_id": "case_0001", "parity": shares, "warnings": []}
    if is_taken:
        _judge_reach(protocol, meta)
        assert meta["warnings"][-1] == "50.0 % of Rectum lies beyond the RTDOSE grid"
        return
    with pytest.raises(BadCase, match="of PTV70 lies beyond the RTDOSE grid"):
        _judge_reach(protocol, meta)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_meterset_that_is_no_number_is_a_fault_of_its_plan_and_ends_no_ingest(
    value: str, factory: ModuleType, protocol: Protocol, tmp_path: Path
) -> None:
    sound, spoilt = factory.make_patient(), factory.make_patient()
    spoilt.rtplan.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = value
    spoilt.rtplan.BeamSequence[0].ControlPointSequence[0].NominalBeamEnergy = value
    sound.save(tmp_path / "raw" / "anon_1")
    spoilt.save(tmp_path / "raw" / "anon_2")
    count = ingest(tmp_path / "raw", tmp_path / "out", protocol, IngestRun(), print)
    assert count == IngestCount(2, 0, 0, 0)
    plan = Case.load(tmp_path / "out" / "anon_2.npz").meta["plan"]
    assert plan.keys() == {"faults"}
    assert any(f"BeamMeterset holds {value}, wanted a number" in fault for fault in plan["faults"])
    assert any(f"NominalBeamEnergy holds {value}, wanted a number" in fault for fault in plan["faults"])


def test_a_case_whose_meta_holds_no_number_is_a_bad_case_and_no_crash(
    factory: ModuleType, protocol: Protocol, tmp_path: Path
) -> None:
    case = convert_case(factory.make_patient().save(tmp_path / "raw"), Origin("anon_1"), protocol)
    case.meta["parity"]["PTV70"]["mean"] = math.nan
    with pytest.raises(BadCase, match="anon_1: its meta holds NaN or infinity"):
        case.save(tmp_path / "anon_1.npz")


@pytest.mark.parametrize(
    ("spacing_mm", "is_taken"),
    [("100.0", True), ("100.1", False), ("109", False), ("0.01", True), ("0.0099", False), ("1e-308", False),
     ("0", False), ("nan", False)],
)  # fmt: skip
def test_an_openkbp_voxel_has_a_hundredth_of_a_mm_to_100_mm(spacing_mm: str, is_taken: bool) -> None:
    content = f"3.5\n{spacing_mm}\n2.5\n".encode()
    if is_taken:
        assert _read_spacing(content, "pt_1") == (2.5, 3.5, float(spacing_mm))
        return
    with pytest.raises(BadCase, match=r"wanted three sizes of 0\.01 to 100 mm"):
        _read_spacing(content, "pt_1")


@pytest.mark.parametrize(("n_all", "is_whole"), [(2001, True), (1999, False), (700, False)])
@pytest.mark.parametrize("name", ["ct", "dose"])
def test_a_thousandth_of_the_possible_dose_may_lie_behind_the_last_value(name: str, n_all: int, is_whole: bool) -> None:
    ordered = np.zeros(128**3)
    ordered[500_000 : 500_000 + n_all] = 1.0
    possible = to_zyx(ordered.reshape(128, 128, 128)).copy()
    ordered[500_000 + n_all - 2 :] = 0.0
    whole = {"ct": possible, "dose": possible, name: to_zyx(ordered.reshape(128, 128, 128))}
    with nullcontext() if is_whole else pytest.raises(BadCase, match=rf"{name}\.csv ends before the patient does"):
        _check_whole(whole["ct"], whole["dose"], {"possible_dose_mask": possible > 0}, "pt_1")


@pytest.mark.parametrize(("hu", "is_body"), [(-499, True), (-500, False), (-450, True), (-550, False)])
def test_tissue_is_denser_than_minus_500_hu(hu: int, is_body: bool) -> None:
    ct_hu = np.full((4, 20, 20), -1000, np.int16)
    ct_hu[:, 2:18, 2:18] = hu
    grid = Grid(ct_hu.shape, (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    assert find_body(ct_hu, np.zeros(ct_hu.shape, np.bool_), grid).any() == is_body
    if is_body:
        assert fill_body(ct_hu, "case_0001").any()
        return
    with pytest.raises(BadCase, match="nothing is above -500 HU"):
        fill_body(ct_hu, "case_0001")


@pytest.mark.parametrize(("n", "is_body"), [(10, True), (9, False), (8, False)])
def test_a_piece_of_tissue_below_ten_cc_is_no_body(n: int, is_body: bool) -> None:
    ct_hu = np.full((1, 1, 40), -1000, np.int16)
    ct_hu[..., 5 : 5 + n] = 0
    body = find_body(ct_hu, np.zeros(ct_hu.shape, np.bool_), Grid(ct_hu.shape, (10.0, 10.0, 10.0), (0.0, 0.0, 0.0)))
    assert body.any() == is_body


@pytest.mark.parametrize(("wide", "is_kept"), [(4, False), (5, True), (6, True)])
def test_an_outline_of_the_image_is_five_voxels_wide_at_the_least(wide: int, is_kept: bool) -> None:
    # Opened by two voxels: what is no wider, the couch say, goes.
    ct_hu = np.full((2, 20, 20), -1000, np.int16)
    ct_hu[:, 4:16, 4 : 4 + wide] = 0
    with nullcontext() if is_kept else pytest.raises(BadCase, match="no outline"):
        assert fill_body(ct_hu, "case_0001").any()


@pytest.mark.parametrize(("apart_mm", "n_planes"), [(0.1, 1), (0.0999, 1), (0.105, 2), (0.3, 2)])
def test_contours_a_tenth_of_a_mm_apart_are_one_plane_of_a_survey(apart_mm: float, n_planes: int) -> None:
    square = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    far = square + 20.0
    # One plane of two squares and one of one, 5 mm apart; or three planes, whose step is their median distance.
    found = volume_cc([(0.0, square), (apart_mm, far), (5.0, square)], None)
    steps = [5.0] if n_planes == 1 else [apart_mm, 5.0 - apart_mm]
    assert found == pytest.approx(300.0 * float(np.median(steps)) / 1000.0)


@pytest.mark.parametrize(("n", "n_rows"), [(20, 20), (21, 1), (60, 1)])
def test_more_than_twenty_sound_cases_are_one_row(n: int, n_rows: int) -> None:
    rows = [{"case": f"c{k}", "state": "converted", "reason": "", "what_to_do": ""} for k in range(n)]
    assert len(outcome_table(rows).rows) == n_rows


@pytest.mark.parametrize(("n", "more"), [(8, ""), (9, " and 1 more"), (30, " and 22 more")])
def test_eight_names_are_listed(n: int, more: str) -> None:
    assert _quoted([f"n{k:02d}" for k in range(n)]) == ", ".join(f'"n{k:02d}"' for k in range(8)) + more


@pytest.mark.parametrize(("n", "n_listed"), [(20, 20), (21, 21), (60, 21)])
def test_twenty_faults_of_a_plan_are_listed(n: int, n_listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_patient, "check_rtplan", lambda rtplan: [f"fault {k}." for k in range(n)])
    monkeypatch.setattr(read_patient, "summarise_plan", lambda rtplan: {})
    listed = read_patient._describe_plan(Dataset())["faults"]
    assert len(listed) == n_listed
    assert (listed[-1] == f"And {n - 20} faults more.") is (n > 20)


@pytest.mark.parametrize(("dose_gy", "is_meant"), [(56.0, True), (56.09, True), (55.91, True), (56.11, False)])
def test_a_target_is_proposed_up_to_a_tenth_of_a_gray_from_its_prescription(
    dose_gy: float, is_meant: bool, protocol: Protocol
) -> None:
    clue = Clue("Niederdosis", "PTV", "", (dose_gy,))
    assert bool(find_hints([protocol.structure("PTV56")], [clue], protocol)) is is_meant


@pytest.mark.parametrize(("off_mm", "is_one"), [(0.099, True), (0.101, False), (0.3, False)])
def test_sform_and_qform_may_lie_a_tenth_of_a_mm_apart(off_mm: float, is_one: bool) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    moved = np.eye(4)
    moved[1, 3] = off_mm
    image.set_qform(moved, code=1)
    with nullcontext() if is_one else pytest.raises(BadCase, match=r"by its sform 0.* mm away from its qform"):
        read_volume(image.to_bytes(), "x.nii", "x")


@pytest.mark.parametrize(("lean", "is_right"), [(0.0009, True), (0.0011, False), (0.003, False)])
def test_axes_of_a_volume_may_lean_by_a_thousandth(lean: float, is_right: bool) -> None:
    affine = np.eye(4)
    affine[0, 1] = lean
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    with nullcontext() if is_right else pytest.raises(BadCase, match="not at right angles"):
        read_volume(image.to_bytes(), "x.nii", "x")


@pytest.mark.parametrize(("degrees", "is_tilted"), [(0.009, False), (0.011, True), (0.03, True)])
def test_a_volume_is_tilted_from_the_hundredth_of_a_degree_on(degrees: float, is_tilted: bool) -> None:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    image.set_qform(None, code=0)
    assert (read_volume(image.to_bytes(), "x.nii", "x").tilt_deg > 0) is is_tilted


@pytest.mark.parametrize(("n_filled", "is_seen"), [(30, True), (29, False), (10, False)])
def test_a_value_of_a_twentieth_of_the_faces_fills_what_was_not_scanned(n_filled: int, is_seen: bool) -> None:
    # Six faces of 100 voxels; edges are counted on each.
    image = np.arange(1000, dtype=np.float64).reshape(10, 10, 10) + 1.0
    inner = [(y, x) for y in range(1, 9) for x in range(1, 9)]
    for y, x in inner[:n_filled]:
        image[0, y, x] = 0.0
    assert (not find_support(image).all()) is is_seen
