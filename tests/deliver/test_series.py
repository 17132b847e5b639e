"""DICOM image series in, RTSTRUCT and DICOM SEG out: on the series' own voxels; one bad patient is listed."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import map_member
from doseledger.core.cleaning import Cleaning, clean_labels
from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.deliver.series import SeriesRequest, describe_structures, segment_patients
from doseledger.deliver.structure_objects import read_back
from doseledger.deliver.structures import StructuresRequest
from doseledger.dicom.read_image import read_image
from doseledger.ingest.patient.case import Origin, convert_case
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.predictor import Predictor

PLAIN = StructuresRequest(("rtstruct",))
SILENT = {"tell": lambda line: None}


def bright(case: OpenCase) -> dict[str, Any]:
    """What a perfect network would say of `patient`: the rectum is bright, the bowel is not there."""
    labels = (np.asarray(map_member(case.file.path, "ct_hu")) > 100).astype(np.uint8)
    labels, said = clean_labels(labels, 2, Cleaning(largest_part=True))
    return {"labels": labels, "structure_names": np.asarray(["Rectum", "Bowel"]), "cleaned": np.asarray(said)}


@pytest.fixture
def predictor() -> Predictor:
    nothing: frozenset[str] = frozenset()
    checkpoint: Any = SimpleNamespace(
        model="seg", structure_names=("Rectum", "Bowel"), epoch=1, all_trained_on={}, all_selected_on={}, seen=nothing
    )
    return Predictor(checkpoint, "a" * 64, {"flips": []}, bright, says_labels=True)


def rules(factory: ModuleType, **changes: Any) -> Protocol:
    return Protocol.model_validate({**factory.PROTOCOL, **changes})


NATIVE = {"spacing_mm": "native", "crop": "none"}


def patient(factory: ModuleType, folder: Path, position: str = "HFS") -> tuple[Path, np.ndarray]:
    """Folder of an image series with a bright block and a speck, whole patient else; and the block's mask in LPS."""
    z, y, x = np.meshgrid(
        *(o + s * np.arange(n) for o, s, n in zip(factory.ORIGIN, factory.SPACING, factory.SHAPE, strict=True)),
        indexing="ij",
    )
    inside = (x > -50) & (x < 50) & (y > -45) & (y < 45)
    block = (np.abs(x - 10) < 14) & (np.abs(y + 5) < 10) & (np.abs(z) < 14)
    values = np.where(inside, 40.0, -1000.0)
    values[block] = 300.0
    values[2, 30, 20] = 300.0
    whole = factory.make_patient(position)
    whole.ct[:] = factory.make_ct(values, factory.SPACING, factory.ORIGIN, position=position)
    return whole.save(folder), block


def request(predictor: Predictor, protocol: Protocol, written: StructuresRequest = PLAIN) -> SeriesRequest:
    return SeriesRequest(predictor, protocol, written)


@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_a_patients_series_gets_the_structures_on_its_own_voxels_and_what_was_cleaned(
    factory: ModuleType, predictor: Predictor, tmp_path: Path, position: str
) -> None:
    folder, block = patient(factory, tmp_path / "anon_1", position)
    found = segment_patients(
        {"anon_1": folder}, request(predictor, rules(factory, **NATIVE)), tmp_path / "out", **SILENT
    )
    assert found["failed"] == {}
    written = pydicom.dcmread(tmp_path / "out/anon_1/rtstruct.dcm")
    slices = [pydicom.dcmread(path) for path in folder.glob("CT*")]
    grid = read_image(slices, "anon_1").grid
    assert read_back(written, grid, "anon_1") == {"Rectum": pytest.approx(block.sum() * grid.voxel_volume_cc)}
    sent_back = tmp_path / "again"
    sent_back.mkdir()
    for number, dataset in enumerate([*slices, written]):
        dataset.save_as(sent_back / f"{dataset.Modality}_{number}.dcm", enforce_file_format=True)
    only = {"objects": ["ct", "rtstruct"], "skip_when": None, "prescription_gy": {}, "n_fractions": None}
    structures = [{"name": "Rectum", "kind": "organ"}]
    read = convert_case(sent_back, Origin("anon_1"), rules(factory, **NATIVE, **only, structures=structures))
    np.testing.assert_array_equal(read.mask("Rectum"), block)
    done = found["segmented"]["anon_1"]
    assert (done["absent"], done["structures"]["Rectum"]["cleaned"]) == (["Bowel"], "largest of 2 parts (-1 voxels)")
    assert written.StructureSetROISequence[0].ROIDescription == "predicted; largest of 2 parts (-1 voxels)"
    assert not (tmp_path / "out/anon_1/seg.dcm").exists()
    assert "anon_1: Rectum" in describe_structures(found)[0]
    assert not any("only its place" in text for text in done["warnings"])
    record = json.loads((tmp_path / "out/segmentations.json").read_text())
    assert (record["model"], record["protocol"], record["settings"]) == ("seg", "tiny_sib", {"flips": []})


def test_a_model_on_a_cropped_coarser_grid_gives_the_series_its_volume(
    factory: ModuleType, predictor: Predictor, tmp_path: Path
) -> None:
    folder, block = patient(factory, tmp_path / "anon_1")
    rough = rules(factory, spacing_mm=[4.0, 3.0, 3.0])
    both = replace(PLAIN, formats=("rtstruct", "seg"))
    found = segment_patients({"anon_1": folder}, request(predictor, rough, both), tmp_path / "out", **SILENT)
    grid = read_image([pydicom.dcmread(path) for path in folder.glob("CT*")], "anon_1").grid
    volume = read_back(pydicom.dcmread(tmp_path / "out/anon_1/rtstruct.dcm"), grid, "anon_1")["Rectum"]
    assert volume == pytest.approx(block.sum() * grid.voxel_volume_cc, rel=0.12)
    row = found["segmented"]["anon_1"]["structures"]["Rectum"]
    assert row["written_volume_cc"] == pytest.approx(row["volume_cc"], rel=0.01)
    assert (tmp_path / "out/anon_1/seg.dcm").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is absent (Debian package dicom3tools)")
@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_a_validator_of_dicom_finds_no_error_in_what_a_series_gets(
    factory: ModuleType, predictor: Predictor, tmp_path: Path, position: str
) -> None:
    folder, _ = patient(factory, tmp_path / "anon_1", position)
    both = request(predictor, rules(factory, **NATIVE), replace(PLAIN, formats=("rtstruct", "seg")))
    segment_patients({"anon_1": folder}, both, tmp_path / "out", **SILENT)
    for name in ("rtstruct.dcm", "seg.dcm"):
        path = tmp_path / "out/anon_1" / name
        said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True)
        assert [line for line in (said.stdout + said.stderr).splitlines() if "Error" in line] == []


def test_the_structures_that_a_patient_came_with_change_nothing(
    factory: ModuleType, predictor: Predictor, tmp_path: Path
) -> None:
    folder, _ = patient(factory, tmp_path / "anon_1")
    bare, _ = patient(factory, tmp_path / "bare")
    for path in bare.iterdir():
        if not path.name.startswith("CT"):
            path.unlink()
    for name, source in (("a", folder), ("b", bare)):
        segment_patients({"anon_1": source}, request(predictor, rules(factory)), tmp_path / name, **SILENT)
    volumes = [json.loads((tmp_path / name / "anon_1/structures.json").read_text())["structures"] for name in "ab"]
    assert volumes[0] == volumes[1]


def test_what_can_not_be_segmented_is_listed_with_its_reason_and_the_rest_goes_on(
    factory: ModuleType, predictor: Predictor, tmp_path: Path
) -> None:
    sources = {}
    for name in ("good", "gap", "two", "dark", "none", "half"):
        sources[name], _ = patient(factory, tmp_path / name)
    sorted(sources["gap"].glob("CT*"))[9].unlink()
    for path in sorted(sources["two"].glob("CT*"))[:4]:
        another = pydicom.dcmread(path)
        another.SeriesInstanceUID, another.SOPInstanceUID = "1.2.3.999", f"{another.SOPInstanceUID}.9"
        another.save_as(sources["two"] / f"other_{path.name}")
    whole = factory.make_patient()
    whole.save(sources["dark"])
    for path in sources["none"].glob("CT*"):
        path.unlink()
    cut = sorted(sources["half"].glob("CT*"))[3]
    cut.write_bytes(cut.read_bytes()[:-4000])
    (tmp_path / "out/gap").mkdir(parents=True)
    (tmp_path / "out/gap/rtstruct.dcm").write_bytes(b"of a run before")
    found = segment_patients(sources, request(predictor, rules(factory)), tmp_path / "out", **SILENT)
    assert list(found["segmented"]) == ["good"]
    failed = found["failed"]
    assert "spac" in failed["gap"] or "missing" in failed["gap"]
    assert "2 image series could be the planning scan (20 files with CT_000.dcm; 4 files with other_" in failed["two"]
    assert "nothing of Rectum, Bowel was found" in failed["dark"]
    assert "no CT among the files" in failed["none"]
    assert "CT_003.dcm" in failed["half"]
    assert not (tmp_path / "out/gap/rtstruct.dcm").exists()


def test_an_mr_series_is_given_to_a_model_of_nifti_on_that_models_scale(
    factory: ModuleType, predictor: Predictor, tmp_path: Path
) -> None:
    folder, block = patient(factory, tmp_path / "anon_1")
    for path in folder.glob("CT*"):
        dataset = pydicom.dcmread(path)
        dataset.Modality, dataset.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.PixelData = (7 * dataset.pixel_array.astype(np.uint16)).tobytes()
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.save_as(path)
    seen = []

    def watch(case: OpenCase) -> dict[str, Any]:
        seen.append(np.percentile(np.asarray(map_member(case.file.path, "ct_hu")), (0, 50, 100)))
        labels = (np.asarray(map_member(case.file.path, "ct_hu")) > 900).astype(np.uint8)
        return {"labels": labels, "structure_names": np.asarray(["Rectum"])}

    made = {
        "name": "mr", "title": "MR", "source": "nifti", "modality": "MR", "spacing_mm": "native", "crop": "none",
        "sdf_clip_mm": 10.0, "structures": [{"name": "Rectum", "kind": "organ", "label": 1}],
    }  # fmt: skip
    network = replace(predictor, predict=watch)
    found = segment_patients({"a": folder}, request(network, Protocol.model_validate(made)), tmp_path / "out", **SILENT)
    assert found["failed"] == {}
    assert seen[0][2] <= 1100
    row = found["segmented"]["a"]["structures"]["Rectum"]
    assert row["written_volume_cc"] == pytest.approx((block.sum() + 1) * np.prod(factory.SPACING) / 1000, rel=1e-3)


def test_a_dose_model_and_options_of_dicom_with_nifti_are_refused(
    factory: ModuleType, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="seg predicts a dose"):
        segment_patients({}, request(replace(predictor, says_labels=False), rules(factory)), tmp_path, **SILENT)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    arguments = ["segment", "dose_unet", str(tmp_path), str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*arguments, "--identity"])
    assert isinstance(found.exception, SystemExit | BadInput)
    assert "holds NIfTI; --batch, --format, --own-names and --identity are for DICOM" in found.output + str(
        found.exception
    )


def test_the_command_segments_a_patient_with_the_cohorts_protocol(
    factory: ModuleType, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    folder, _ = patient(factory, tmp_path / "anon_1")
    monkeypatch.setattr("doseledger.learn.kinds.open_predictor", lambda path, recipe: predictor)
    assert load_protocol(repository / "validation/cohorts/phantom/protocol.yaml").source == "dicom"
    arguments = ["segment", "dose_unet", str(folder), str(tmp_path / "out"), "--format", "seg"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "Rectum" in found.output
    assert [path.name for path in sorted((tmp_path / "out/anon_1").iterdir())] == ["seg.dcm", "structures.json"]
