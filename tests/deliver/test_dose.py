"""From a patient's CT and RTSTRUCT to a predicted RTDOSE: the dose, its links, and who is refused or warned of."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, LostCases, NotReady
from doseledger.core.files import read_yaml, sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.settings import Settings, load_settings
from doseledger.deliver.deliverable import refuse_undeliverable
from doseledger.deliver.dose import (
    DicomRequest,
    PageWriter,
    PredictedPatient,
    dose_on_grid,
    find_patients,
    predict_folder,
    protocol_of_prediction,
    read_prescription_options,
)
from doseledger.deliver.seen import SeenCases, seen_cases
from doseledger.dicom.read_dose import read_dose
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.ingest.physics import field_case
from doseledger.learn.data.inputs import CaseFile, InputSpec, OpenCase, open_case
from doseledger.learn.kinds import load_recipe, open_predictor, recipe_of
from doseledger.learn.networks.denoiser import build_noise_network
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict.cases import Model, dose_predictor, load_model, predict_case
from doseledger.learn.recipes.diffusion import DiffusionRecipe
from doseledger.learn.recipes.dose import PredictRecipe, Recipe
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint
from doseledger.planning.fields.maps import field_dose, physics_maps

PREDICT = PredictRecipe(overlap=0.25, windows_at_once=2, mirror_average=True, project=False, spacing_tolerance=0.25)
UNSEEN = SeenCases({}, {})
NAMES, TARGETS = ("PTV70", "PTV56", "Rectum", "Bowel"), ("PTV70", "PTV56")
SMALL = {
    "name": "film_unet", "stem_stride_zyx": [1, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The network here is too small to gain by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def settings(repository: Path) -> Settings:
    """The shipped settings with a network that is built in an instant."""
    shipped = load_settings(repository / "params.yaml")
    base = shipped.model_base
    changes = {"inputs": {**base["inputs"], "physics": []}, "sampling": {**base["sampling"], "patch_zyx": [8, 16, 16]}}
    # A network by itself, on no trees.
    blocks = {**shipped.blocks, "dose_unet": {"kind": "dose"}}
    return shipped.model_copy(update={"model_base": {**base, "network": SMALL, **changes}, "blocks": blocks})


@pytest.fixture(scope="module")
def recipe(settings: Settings) -> Recipe:
    """A dose network's, small."""
    found = recipe_of(settings, "dose_unet")
    assert isinstance(found, Recipe)
    return found


def save_model(path: Path, recipe: Recipe, names: tuple[str, ...], targets: tuple[str, ...]) -> Path:
    """A model with random weights that gives about 35 Gy, nowhere the same, and heeds its conditions."""
    spec = InputSpec(names, targets, recipe.inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = dose_network(recipe, spec)
        for name, weight in network.named_parameters():
            if "film" in name:
                torch.nn.init.normal_(weight, std=0.3)
            if name == "head.dose.bias":
                torch.nn.init.constant_(weight, 0.5)
    content = Checkpoint(
        model="dose_unet",
        recipe=recipe.trained_part(),
        settings={},
        structure_names=names,
        target_names=targets,
        spacing_range_mm=((3.0, 2.5, 2.5), (3.0, 2.5, 2.5)),
        trained_on={"anon_007": "0" * 64},
        selected_on={"anon_chose": "1" * 64},
        epoch=1,
        scores={},
        weights=network.state_dict(),
    )
    save_checkpoint(path, content)
    return path


@pytest.fixture(scope="module")
def checkpoint(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "best.ckpt", recipe, NAMES, TARGETS)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load_model(checkpoint)


@pytest.fixture
def protocol(factory: Any) -> Protocol:
    return Protocol.model_validate(factory.PROTOCOL)


@pytest.fixture
def predicted(
    protocol: Protocol, model: Model, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], Path, list[str]]]:
    """predict({"anon_1": patient}) -> the summary, the folder of results, and what was told."""

    def run(patients: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], Path, list[str]]:
        lines: list[str] = []
        sources = {name: patient.save(tmp_path / "in" / name) for name, patient in patients.items()}
        values: dict[str, Any] = {
            "predictor": dose_predictor(model, PREDICT),
            "seen": UNSEEN,
            "grid_mm": None,
            "bits": 16,
        }
        doses, fractions = changes.pop("prescription_gy", {}), changes.pop("fractions", None)
        out = tmp_path / changes.pop("out", "out")
        request = DicomRequest(protocol=protocol_of_prediction(protocol, doses, fractions), **{**values, **changes})
        return predict_folder(sources, request, out, lines.append), out, lines

    return run


def named_patient(factory: Any) -> Any:
    """A patient as a clinic exports them: a name in the clinic's own character set, a birthday, dates."""
    patient = factory.make_patient()
    for item in patient.all:
        item.SpecificCharacterSet = "ISO_IR 100"
        item.PatientName, item.PatientBirthDate, item.PatientSex = "Müller^Jörg", "19500102", "M"
        item.PatientID, item.StudyDate, item.StudyID, item.AccessionNumber = "4711", "20240506", "S1", "A9"
        item.IssuerOfPatientID = "Clinic"
    return patient


def read_back(out: Path, name: str = "anon_1") -> tuple[pydicom.Dataset, pydicom.Dataset, np.ndarray]:
    dose, plan = (pydicom.dcmread(out / name / f"{what}.dcm") for what in ("rtdose", "rtplan"))
    with np.load(out / f"{name}.npz") as npz:
        return dose, plan, npz["dose_gy"]


def test_the_rtdose_is_the_prediction_of_the_ingested_case_to_half_a_stored_unit(
    factory: Any, protocol: Protocol, model: Model, predicted: Any, tmp_path: Path
) -> None:
    patient = factory.make_patient()
    _, out, _ = predicted({"anon_1": patient})
    dataset, _, from_dicom = read_back(out)
    # The same patient by way of ingest, with dose and plan.
    case = convert_case(tmp_path / "in" / "anon_1", Origin("anon_1"), protocol)
    path = tmp_path / "anon_1.npz"
    case.save(path)
    ingested = predict_case(model, open_case(CaseFile("anon_1", path, sha256_of_file(path))), PREDICT)
    assert ingested.std() > 1.0
    np.testing.assert_array_equal(from_dicom, ingested)
    dose = read_dose(dataset, "anon_1")
    assert dose.grid.same_as(Grid(case.full_shape_zyx, case.grid.spacing_mm, whole_origin(case)))
    z, y, x = case.crop_start_zyx
    nz, ny, nx = case.grid.shape_zyx
    cut = dose.dose_gy[z : z + nz, y : y + ny, x : x + nx]
    unit_gy = float(dataset.DoseGridScaling)
    assert unit_gy == pytest.approx(ingested.max() / (2**16 - 2), rel=1e-6)
    assert np.abs(cut - ingested).max() <= 0.5 * unit_gy + 1e-5
    assert dose.dose_gy.min() == 0.0
    assert np.count_nonzero(dose.dose_gy) == np.count_nonzero(cut)
    assert not cut[~case.body].any()
    assert (cut[case.body] > 0).mean() > 0.9


def test_ingest_reads_the_written_files_as_a_plan_and_its_dose(
    factory: Any, protocol: Protocol, predicted: Any, tmp_path: Path
) -> None:
    patient = factory.make_patient()
    _, out, _ = predicted({"anon_1": patient})
    dataset, _, dose_gy = read_back(out)
    folder = without(tmp_path / "back", patient.save(tmp_path / "back"))
    for name in ("rtdose.dcm", "rtplan.dcm"):
        shutil.copy(out / "anon_1" / name, folder)
    # The series' description says what it is, which ingest would ask to be allowed by name.
    case = convert_case(folder, Origin("anon_1"), protocol.model_copy(update={"phi": None}))
    assert case.dose_gy is not None
    assert np.abs(case.dose_gy - dose_gy).max() <= 0.5 * float(dataset.DoseGridScaling) + 1e-5
    assert (case.prescription_gy, case.n_fractions) == ({"PTV70": 70.0, "PTV56": 56.0}, 28)
    assert case.meta["warnings"] == []
    assert case.meta["plan"]["n_beams"] == 0
    assert case.meta["plan"]["faults"]


def whole_origin(case: Case) -> tuple[float, float, float]:
    z, y, x = case.grid.index_to_mm(-np.asarray(case.crop_start_zyx))
    return float(z), float(y), float(x)


def test_dose_and_plan_in_the_folder_are_not_needed_and_change_nothing(factory: Any, predicted: Any) -> None:
    whole, bare = factory.make_patient(), factory.make_patient()
    bare.save = lambda folder: without(folder, factory.make_patient().save(folder))  # type: ignore[method-assign]
    predicted({"anon_1": whole}, out="whole")
    _, out, _ = predicted({"anon_2": bare}, out="bare")
    np.testing.assert_array_equal(read_back(out, "anon_2")[2], read_back(out.with_name("whole"))[2])


def without(folder: Path, saved: Path) -> Path:
    for path in [*folder.glob("RTDOSE*"), *folder.glob("RTPLAN*")]:
        path.unlink()
    return saved


def test_the_rtdose_is_linked_to_image_and_structures_and_says_everywhere_that_it_was_predicted(
    factory: Any, predicted: Any, model: Model
) -> None:
    patient = named_patient(factory)
    _, out, _ = predicted({"anon_1": patient})
    dose, plan, _ = read_back(out)
    for item in (dose, plan):
        assert item.FrameOfReferenceUID == patient.ct[0].FrameOfReferenceUID
        assert item.StudyInstanceUID == patient.ct[0].StudyInstanceUID
        assert str(item.PatientName) == "Müller^Jörg"
        assert (item.PatientID, item.PatientBirthDate, item.PatientSex) == ("4711", "19500102", "M")
        assert (item.StudyDate, item.StudyID, item.AccessionNumber) == ("20240506", "S1", "A9")
        assert item.IssuerOfPatientID == "Clinic"
        assert item.SeriesDescription == "PREDICTED dose, dose_unet"
        assert "PREDICTED" in item.ManufacturerModelName
        assert item.SeriesInstanceUID != patient.ct[0].SeriesInstanceUID
    assert dose.DoseComment == f"PREDICTED by a network ({model.sha256[:12]}), not calculated"
    assert (dose.DoseUnits, dose.DoseType, dose.DoseSummationType) == ("GY", "PHYSICAL", "PLAN")
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert plan.SOPInstanceUID != patient.rtplan.SOPInstanceUID
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == patient.rtstruct.SOPInstanceUID
    assert (plan.RTPlanLabel, plan.PlanIntent, plan.ApprovalStatus) == ("PREDICTED", "RESEARCH", "UNAPPROVED")
    assert plan.FractionGroupSequence[0].NumberOfBeams == 0
    assert "BeamSequence" not in plan
    wanted = {
        (int(item.ReferencedROINumber), float(item.TargetPrescriptionDose)) for item in plan.DoseReferenceSequence
    }
    assert wanted == {(patient.roi("PTV_70").ROINumber, 70.0), (patient.roi("PTV56").ROINumber, 56.0)}


def test_the_npz_and_the_summary_do_not_name_the_patient(factory: Any, predicted: Any) -> None:
    _, out, _ = predicted({"anon_1": named_patient(factory)})
    for path in (out / "anon_1.npz", out / "anon_1/prediction.json"):
        for secret in ("Müller".encode(), b"4711", b"19500102", b"20240506"):
            assert secret not in path.read_bytes()


# dicompyler-core uses what pydicom is about to drop.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [16, 32])
def test_pydicom_and_dicompyler_read_the_same_dose(
    factory: Any, predicted: Any, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = predicted({"anon_1": named_patient(factory)}, bits=bits)
    dataset, _, dose_gy = read_back(out)
    stored = dataset.pixel_array
    assert stored.dtype == {16: np.uint16, 32: np.uint32}[bits]
    assert float(dataset.DoseGridScaling) * stored.max() == pytest.approx(dose_gy.max(), rel=1e-6)
    # dicompyler-core 0.5.6 asks for a function that pydicom 3 no longer has.
    monkeypatch.setattr("pydicom.dicomio.read_file", pydicom.dcmread, raising=False)
    dicomparser = pytest.importorskip("dicompylercore.dicomparser")
    parsed = dicomparser.DicomParser(str(out / "anon_1" / "rtdose.dcm")).GetDoseData()
    assert parsed["dosemax"] * float(parsed["dosegridscaling"]) == pytest.approx(dose_gy.max(), rel=1e-6)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is absent (Debian package dicom3tools)")
def test_a_validator_of_dicom_finds_no_error_in_dose_and_plan(factory: Any, predicted: Any) -> None:
    # 16 bits: the validator aborts on 32.
    _, out, _ = predicted({"anon_1": named_patient(factory)}, bits=16)
    assert errors_of_dicom(out / "anon_1") == []


def errors_of_dicom(folder: Path) -> list[str]:
    """What dciodvfy calls an error in the plan and the dose of a folder."""
    errors = []
    for name in ("rtplan", "rtdose"):
        said = subprocess.run(["dciodvfy", "-new", folder / f"{name}.dcm"], capture_output=True, text=True)
        errors += [line for line in (said.stdout + said.stderr).splitlines() if "Error" in line]
    return errors


@pytest.mark.parametrize("position", ["HFP", "FFS", "FFP"])
def test_the_dose_lies_where_it_did_in_every_position_of_the_patient(
    factory: Any, predicted: Any, position: str
) -> None:
    predicted({"anon_1": factory.make_patient()}, out="HFS")
    _, out, _ = predicted({"anon_2": factory.make_patient(position)}, out=position)
    turned, straight = (
        read_dose(read_back(folder, name)[0], name)
        for folder, name in ((out, "anon_2"), (out.with_name("HFS"), "anon_1"))
    )
    assert turned.grid.same_as(straight.grid)
    assert np.abs(turned.dose_gy - straight.dose_gy).max() < 2e-3


def healthy_case(make_case: Callable[..., Case]) -> Case:
    case = make_case()
    margin = {name: np.ascontiguousarray(getattr(case, name)[..., 2:22, 3:37, 1:47]) for name in
              ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy")}  # fmt: skip
    grid = case.grid.cropped((2, 3, 1), (20, 34, 46))
    return replace(case, grid=grid, crop_start_zyx=(2, 3, 1), **margin)


def test_interpolated_dose_keeps_its_level_up_to_the_skin_and_is_zero_beyond(make_case: Callable[..., Case]) -> None:
    case = healthy_case(make_case)
    flat = np.where(case.body, np.float32(50.0), np.float32(0.0))
    dose_gy, grid = dose_on_grid(case, flat, 2.5)
    assert grid.spacing_mm == (2.5, 2.5, 2.5)
    # 50 Gy or nothing: no skin that is half a dose.
    assert np.unique(np.round(dose_gy, 3)).tolist() == [0.0, 50.0]
    body_cc = case.body.sum() * case.grid.voxel_volume_cc
    assert (dose_gy > 0).sum() * grid.voxel_volume_cc == pytest.approx(body_cc, rel=0.02)


def test_a_linear_dose_is_interpolated_exactly_inside_the_body(make_case: Callable[..., Case]) -> None:
    case = healthy_case(make_case)
    z, y, x = np.meshgrid(*case.grid.axes_mm(), indexing="ij")
    ramp = np.where(case.body, 40.0 + 0.1 * x - 0.05 * y + 0.02 * z, 0.0).astype(np.float32)
    dose_gy, grid = dose_on_grid(case, ramp, 3.5)
    z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
    deep = ((y / 90.0) ** 2 + (x / 115.0) ** 2 < 1.0) & (np.abs(z - case.grid.axes_mm()[0].mean()) < 50.0)
    np.testing.assert_allclose(dose_gy[deep], (40.0 + 0.1 * x - 0.05 * y + 0.02 * z)[deep], atol=1e-3)


def test_without_another_grid_every_voxel_keeps_its_value_at_its_place(make_case: Callable[..., Case]) -> None:
    case = healthy_case(make_case)
    assert case.dose_gy is not None
    dose_gy, grid = dose_on_grid(case, case.dose_gy, None)
    assert dose_gy.shape == case.full_shape_zyx
    np.testing.assert_array_equal(dose_gy[2:22, 3:37, 1:47], case.dose_gy)
    assert grid.cropped((2, 3, 1), (20, 34, 46)).same_as(case.grid)


def test_one_bad_patient_never_sinks_the_batch_and_nothing_of_it_is_left(factory: Any, predicted: Any) -> None:
    good, bad = factory.make_patient(), factory.make_patient()
    predicted({"anon_1": good, "anon_2": bad})
    bad.drop_roi("Rect")
    summary, out, lines = predicted({"anon_1": good, "anon_2": bad})
    assert list(summary["predicted"]) == ["anon_1"]
    assert "no ROI matches Rectum" in summary["failed"]["anon_2"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "anon_1.npz", "anon_1/prediction.json", "anon_1/rtdose.dcm", "anon_1/rtplan.dcm", "anon_2/prediction.json",
    ]  # fmt: skip
    record = json.loads((out / "anon_2/prediction.json").read_text())
    assert record["failed"] == summary["failed"]["anon_2"]
    assert record["checkpoint_sha256"] == summary["checkpoint_sha256"]
    assert any(line.startswith("[2/2] anon_2: no ROI matches Rectum") for line in lines)


def test_a_record_of_one_patient_outlives_the_prediction_of_the_next(factory: Any, predicted: Any) -> None:
    _, out, _ = predicted({"anon_1": factory.make_patient()})
    before = (out / "anon_1/prediction.json").read_bytes()
    predicted({"anon_2": factory.make_patient()})
    assert (out / "anon_1/prediction.json").read_bytes() == before
    record = json.loads(before)
    assert record["case_id"] == "anon_1"
    assert len({record[f"{what}_sha256"] for what in ("input", "case", "checkpoint", "code", "protocol")}) == 5
    assert json.loads((out / "anon_2/prediction.json").read_text())["case_id"] == "anon_2"


def test_a_page_that_cannot_be_drawn_does_not_cost_the_dose(factory: Any, predicted: Any) -> None:
    def fails(patient: PredictedPatient) -> PageWriter:
        raise BadCase(patient.case.case_id, "no dose reaches 14.0 Gy anywhere in the body")

    summary, out, lines = predicted({"anon_1": factory.make_patient()}, page=fails)
    assert list(summary["predicted"]) == ["anon_1"]
    assert "WARNING: anon_1: no page: no dose reaches 14.0 Gy anywhere in the body" in lines
    assert not (out / "anon_1/report.html").exists()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_full_disk_leaves_no_plan_without_its_dose_and_no_summary_of_what_was(
    factory: Any, predicted: Any, tmp_path: Path, fill_disk: Callable[[Path, int], None], after: int
) -> None:
    _, out, _ = predicted({"anon_1": factory.make_patient()})
    fill_disk(out, after)
    with pytest.raises(NotReady, match="the disk is full; free some space, and run the command again"):
        predicted({"anon_1": factory.make_patient()})
    assert [path for path in out.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: [delattr(item, "FrameOfReferenceUID") for item in p.ct], "no FrameOfReferenceUID: a dose could not"),
        (lambda p: [setattr(item, "PatientPosition", "HFDL") for item in p.ct], "patient position 'HFDL': wanted one"),
        (lambda p: p.drop_roi("PTV56"), "not a simultaneous integrated boost"),
        (lambda p: p.ct.pop(7), "1 slices of the usual 3 mm are missing"),
    ],
)
def test_a_patient_whose_dose_could_not_be_placed_or_predicted_is_refused(
    factory: Any, predicted: Any, change: Callable[[Any], Any], message: str
) -> None:
    patient = factory.make_patient()
    change(patient)
    summary, _, _ = predicted({"anon_1": patient})
    assert message in summary["failed"]["anon_1"]


def with_beams(protocol: Protocol) -> Protocol:
    """The protocol with nine fields, as a clinic's own may have."""
    beams = {
        "gantry_deg": [40.0 * k for k in range(9)],
        "bixel_mm": 5.0,
        "margin_mm": 10.0,
        "kernel_weights": [1.0, 1.0, 1.0, 1.0],
        "maps": ["conformal"],
    }
    return Protocol.model_validate({**protocol.model_dump(), "beams": beams})


def test_a_dose_that_beams_can_give_is_told_with_its_distance_and_one_that_nothing_delivers_is_refused(
    factory: Any, protocol: Protocol, model: Model, tmp_path: Path
) -> None:
    source = factory.make_patient().save(tmp_path / "in" / "anon_1")
    beams = with_beams(protocol)
    case = convert_case(source, Origin("anon_1"), beams)
    open_fields = physics_maps(field_case(case), beams.beams)["conformal"]
    wanted = np.zeros(case.grid.shape_zyx, dtype=np.float32)
    for name, gy in case.prescription_gy.items():
        wanted[case.mask(name)] = gy
    request = DicomRequest(dose_predictor(model, PREDICT), beams, UNSEEN, None, 16)
    told: list[str] = []
    for out, dose_gy in (("fields", open_fields), ("targets", wanted)):
        answer = replace(request.predictor, predict=lambda _, dose_gy=dose_gy: {"dose_gy": dose_gy})
        summary = predict_folder({"anon_1": source}, replace(request, predictor=answer), tmp_path / out, told.append)
        if out == "fields":
            # What the fields give themselves is 0 away, but for voxels between the points.
            assert summary["predicted"]["anon_1"]["undeliverable_gy"] < 1.0
        else:
            assert "from the nearest that 9 beams can give, at most 6.5 % is wanted" in summary["failed"]["anon_1"]
            assert list((tmp_path / out).rglob("*.dcm")) == []


def test_a_patient_whose_target_no_field_reaches_is_refused_and_the_others_are_predicted(
    factory: Any, protocol: Protocol, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {name: factory.make_patient().save(tmp_path / "in" / name) for name in ("anon_1", "anon_2")}
    beams = with_beams(protocol)
    case = convert_case(sources["anon_1"], Origin("anon_1"), beams)
    dose_gy = physics_maps(field_case(case), beams.beams)["conformal"]
    answer = replace(dose_predictor(model, PREDICT), predict=lambda _: {"dose_gy": dose_gy})
    request = DicomRequest(answer, beams, UNSEEN, None, 16)

    def reach(case: Any, beams: Any) -> Any:
        if not reached:
            reached.append(case)
            raise BadInput("a target reaches beyond the largest field")
        return field_dose(case, beams)

    reached: list[Any] = []
    monkeypatch.setattr("doseledger.ingest.physics.field_dose", reach)
    summary = predict_folder(sources, request, tmp_path / "out", lambda line: None)
    assert "a target reaches beyond the largest field" in summary["failed"]["anon_1"]
    assert list(summary["predicted"]) == ["anon_2"]


@pytest.mark.parametrize(("apart_gy", "sound"), [(4.54, True), (4.56, False), (float("nan"), False)])
def test_the_limit_of_what_can_be_delivered_is_six_and_a_half_percent_of_the_prescription(
    factory: Any, protocol: Protocol, tmp_path: Path, apart_gy: float, sound: bool
) -> None:
    source = factory.make_patient().save(tmp_path / "anon_1")
    beams = with_beams(protocol)
    case = convert_case(source, Origin("anon_1"), beams)
    assert max(case.prescription_gy.values()) == 70.0
    if sound:
        refuse_undeliverable(case, apart_gy, beams.beams)
    else:
        with pytest.raises(BadCase, match="no machine could deliver"):
            refuse_undeliverable(case, apart_gy, beams.beams)


def test_a_fault_of_the_model_is_not_laid_at_the_patients_door(factory: Any, predicted: Any, model: Model) -> None:
    def fails(case: OpenCase) -> Any:
        raise ValueError("shapes of the weights do not fit")

    broken = replace(dose_predictor(model, PREDICT), predict=fails)
    with pytest.raises(LostCases, match=r"anon_1: ValueError: shapes of the weights .*no fault of their data"):
        predicted({"anon_1": factory.make_patient()}, predictor=broken)


def test_a_patient_that_the_model_knows_is_warned_of_by_name_id_and_image(
    factory: Any, predicted: Any, model: Model, protocol: Protocol, tmp_path: Path
) -> None:
    known = model.checkpoint
    by_name = seen_cases(known.trained_on, known.selected_on, None)
    summary, _, lines = predicted({"anon_chose": factory.make_patient()}, seen=by_name)
    assert [line for line in lines if line.startswith("WARNING")] == [
        "WARNING: anon_chose: the model was selected on a case of this name: its dose here is no test of the model",
        "WARNING: anon_chose: the model was trained on a case of this PatientID: its dose here is no test of the model",
    ]
    assert summary["seen_before_was_judged_by"] == "folder name and PatientID, with the names of 2 cases"
    # Renamed throughout: the image alone gives it away, though the case was ingested with dose and plan.
    case = convert_case(factory.make_patient().save(tmp_path / "known"), Origin("anon_007"), protocol)
    case.save(tmp_path / "cases" / "anon_007.npz")
    by_image = seen_cases(known.trained_on, known.selected_on, tmp_path / "cases")
    renamed = factory.make_patient()
    for item in renamed.all:
        item.PatientID = "anon_999"
    summary, _, _ = predicted({"anon_1": renamed}, seen=by_image)
    assert summary["predicted"]["anon_1"]["seen_before"] == [
        "the model was trained on this very image (anon_007): its dose here is no test of it"
    ]
    assert summary["seen_before_was_judged_by"].startswith("the image, with those of 1 cases, and folder name")
    summary, _, _ = predicted({"anon_1": renamed}, seen=by_name)
    assert summary["predicted"]["anon_1"]["seen_before"] == []


def test_a_folder_without_the_models_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds none of the 1 cases that the model was trained on"):
        seen_cases({"case_0001": "0" * 64}, {}, tmp_path)


def test_another_prescription_is_another_dose_and_stands_in_the_plan(factory: Any, predicted: Any) -> None:
    predicted({"anon_1": factory.make_patient()}, out="plain")
    doses = read_prescription_options(["PTV70=60", " PTV56=50.4 "])
    summary, out, _ = predicted({"anon_1": factory.make_patient()}, prescription_gy=doses, fractions=20)
    assert summary["prescription_gy"] == {"PTV70": 60.0, "PTV56": 50.4}
    _, plan, changed = read_back(out)
    assert [float(item.TargetPrescriptionDose) for item in plan.DoseReferenceSequence] == [60.0, 50.4]
    assert plan.FractionGroupSequence[0].NumberOfFractionsPlanned == 20
    assert np.abs(changed - read_back(out.with_name("plain"))[2]).max() > 0.01


@pytest.mark.parametrize("options", [["PTV70"], ["PTV70=much"], ["PTV70=-3"], ["PTV70=70", "PTV70=60"]])
def test_a_prescription_in_another_form_is_refused(options: list[str]) -> None:
    with pytest.raises(BadInput, match="wanted TARGET=GY, each target once"):
        read_prescription_options(options)


def test_a_prescription_to_what_is_no_target_is_refused(protocol: Protocol) -> None:
    with pytest.raises(BadInput, match="--prescription names Rectum; targets of tiny_sib: PTV70, PTV56"):
        protocol_of_prediction(protocol, {"Rectum": 50.0}, None)
    with pytest.raises(BadInput, match="protocol tiny_sib reads openkbp, no DICOM"):
        protocol_of_prediction(protocol.model_copy(update={"source": "openkbp"}), {}, None)


def test_the_same_prediction_has_the_same_bytes_and_another_one_other_uids(factory: Any, predicted: Any) -> None:
    patient = factory.make_patient()
    for out in ("one", "two"):
        predicted({"anon_1": patient}, out=out)
    _, other, _ = predicted({"anon_1": patient}, out="three", grid_mm=3.0)
    one, two = (other.with_name(name) / "anon_1" for name in ("one", "two"))
    for name in ("rtdose.dcm", "rtplan.dcm"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        ours, theirs = pydicom.dcmread(one / name), pydicom.dcmread(other / "anon_1" / name)
        assert ours.SOPInstanceUID != theirs.SOPInstanceUID


def test_the_command_predicts_one_patient_or_a_batch_and_fails_when_one_failed(
    factory: Any, checkpoint: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruamel.yaml import YAML

    # The command looks for its project from where it is run.
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "reports/templates", tmp_path / "reports/templates")
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")
    with (tmp_path / "tiny.yaml").open("w") as stream:
        YAML(typ="safe").dump(factory.PROTOCOL, stream)
    factory.make_patient().save(tmp_path / "in" / "anon_1")
    (tmp_path / "in" / "anon_2").mkdir()
    (tmp_path / "in" / "anon_2" / "letter.txt").write_text("no DICOM")
    fixed = ["--protocol", str(tmp_path / "tiny.yaml"), "--json"]
    one, all_of_them = str(tmp_path / "in" / "anon_1"), str(tmp_path / "in")
    runner = CliRunner()
    single = runner.invoke(app, ["deliver", "dose", str(checkpoint), one, str(tmp_path / "one"), *fixed])
    assert single.exit_code == 0, single.output
    assert list(json.loads(single.stdout)["predicted"]) == ["anon_1"]
    assert "there are no clinical goals" in (tmp_path / "one/anon_1/report.html").read_text()
    batch = runner.invoke(
        app, ["deliver", "dose", str(checkpoint), all_of_them, str(tmp_path / "all"), "--batch", *fixed]
    )
    assert batch.exit_code == 1
    assert isinstance(batch.exception, BadInput)
    assert "anon_2: none of the 1 files is DICOM" in str(batch.exception)
    assert (tmp_path / "all" / "anon_1" / "rtdose.dcm").is_file()
    wrong = runner.invoke(app, ["deliver", "dose", str(checkpoint), one, str(tmp_path / "x"), *fixed, "--bits", "8"])
    assert "wanted 16 or 32 bits" in str(wrong.exception)


def test_a_patient_who_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder or zip of a patient"):
        find_patients(tmp_path / "nobody", batch=False)
    (tmp_path / "anon_1.zip").touch()
    assert list(find_patients(tmp_path / "anon_1.zip", batch=False)) == ["anon_1"]


def test_a_real_patient_gets_a_dose_in_the_frame_of_their_image(
    recipe: Recipe, repository: Path, shared_data: Path, tmp_path: Path
) -> None:
    path = save_model(tmp_path / "best.ckpt", recipe, ("PTV", "Parotid_L", "Larynx"), ("PTV",))
    protocol = load_protocol(repository / "tests" / "ingest" / "patient" / "protocols" / "becker_hn.yaml")
    source = shared_data / "dicom" / "proknow_becker_hn"
    # Only one parotid is drawn: there is nothing that a mirrored patient could swap it for.
    unmirrored = PREDICT.model_copy(update={"mirror_average": False})
    predictor = dose_predictor(load_model(path), unmirrored)
    request = DicomRequest(predictor, protocol_of_prediction(protocol, {}, None), UNSEEN, None, 16)
    summary = predict_folder({"becker": source}, request, tmp_path, lambda line: None)
    assert summary["failed"] == {}
    dose, plan, dose_gy = read_back(tmp_path, "becker")
    files = {item.Modality: item for item in (pydicom.dcmread(file, force=True) for file in source.rglob("*.dcm"))}
    assert dose.FrameOfReferenceUID == files["CT"].FrameOfReferenceUID
    assert str(dose.PatientName) == str(files["CT"].PatientName)
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == files["RTSTRUCT"].SOPInstanceUID
    assert read_dose(dose, "becker").dose_gy.max() == pytest.approx(dose_gy.max(), rel=1e-4)
    if shutil.which("dciodvfy") is not None:
        assert errors_of_dicom(tmp_path / "becker") == []


def test_a_diffusion_gives_the_mean_of_its_doses_and_keeps_their_spread_beside_it(
    repository: Path, settings: Settings, predicted: Any, factory: Any, tmp_path: Path
) -> None:
    block = read_yaml(repository / "models/recipes/dose_diffusion.yaml")["dose_diffusion"]
    block["diffusion"]["residual"] = False
    recipe = load_recipe(block, settings.model_base, "test")
    assert isinstance(recipe, DiffusionRecipe)
    spec = InputSpec(NAMES, TARGETS, recipe.inputs)
    spacing = (3.0, 2.5, 2.5)
    content = Checkpoint(
        model="dose_diffusion", recipe=recipe.trained_part(), settings={}, structure_names=NAMES, target_names=TARGETS,
        spacing_range_mm=(spacing, spacing), trained_on={}, selected_on={}, epoch=1, scores={},
        weights=build_noise_network(recipe, spec).state_dict(),
        extras={"base": None, "scale": {"centre": 0.5, "width": 0.5, "most": 1.2}},
    )  # fmt: skip
    save_checkpoint(tmp_path / "diffusion.ckpt", content)
    drawn = {"samples": 2, "steps": 2, "sampler": "euler"}
    short = {**block, "predict": {**block["predict"], **drawn}}
    with_diffusion = settings.model_copy(update={"blocks": {**settings.blocks, "dose_diffusion": short}})
    predictor = open_predictor(tmp_path / "diffusion.ckpt", recipe_of(with_diffusion, "dose_diffusion"))
    summary, out, _ = predicted({"anon_1": factory.make_patient()}, predictor=predictor)
    assert summary["settings"]["samples"] == 2
    with np.load(out / "anon_1.npz") as npz:
        dose_gy, spread_gy = npz["dose_gy"], npz["dose_sd_gy"]
    assert spread_gy.max() > 0
    dataset, _, _ = read_back(out)
    assert dataset.SeriesDescription == "PREDICTED dose, dose_diffusion"
    assert float(dataset.DoseGridScaling) * dataset.pixel_array.max() == pytest.approx(dose_gy.max(), rel=1e-6)
