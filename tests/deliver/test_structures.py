"""Masks of cases and predictions as RTSTRUCT and DICOM SEG: read back as they were, linked, and naming nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.deliver.masks import read_masks
from doseledger.deliver.structure_objects import read_back
from doseledger.deliver.structures import StructuresRequest, check_formats, write_structures
from doseledger.dicom.contours import fill, stack_contours
from doseledger.dicom.read_structures import read_contours, read_rois
from doseledger.dicom.source import lenient, read_file
from doseledger.dicom.write.objects import Study, make_uid, to_bytes
from doseledger.dicom.write.structures import Roi, make_structure_set
from doseledger.dicom.write.volumes import make_ct
from doseledger.ingest.patient.case import Origin, convert_case

PROTOCOLS = Path(__file__).parents[1] / "ingest" / "patient" / "protocols"
PLAIN = StructuresRequest()


@pytest.fixture(scope="module")
def protocol(factory: ModuleType) -> Protocol:
    """CT and structures alone, on the CT's own grid."""
    fields = {**factory.PROTOCOL, "objects": ["ct", "rtstruct"], "spacing_mm": "native", "crop": "none"}
    return Protocol.model_validate(fields)


@pytest.fixture
def patient(factory: ModuleType, tmp_path: Path) -> Path:
    """Folder of a tiny patient's CT and RTSTRUCT."""
    whole = factory.make_patient()
    folder = whole.save(tmp_path / "anon_1")
    for path in folder.iterdir():
        if not path.name.startswith(("CT", "RTSTRUCT")):
            path.unlink()
    return folder


@pytest.fixture
def case(patient: Path, protocol: Protocol, tmp_path: Path) -> Path:
    path = tmp_path / "anon_1.npz"
    convert_case(patient, Origin("anon_1"), protocol).save(path)
    return path


def changed(path: Path, change: Callable[[Case], Case]) -> Path:
    change(Case.load(path)).save(path)
    return path


def put_back(patient: Path, out: Path) -> None:
    """What was written takes the place of the structure set that the patient came with."""
    for path in patient.glob("RTSTRUCT*"):
        path.unlink()
    for name in ("rtstruct.dcm", "seg.dcm"):
        shutil.copy(out / name, patient)


def test_a_case_goes_out_as_rtstruct_and_comes_in_again_voxel_for_voxel(
    patient: Path, case: Path, protocol: Protocol, tmp_path: Path
) -> None:
    summary = write_structures(case, patient, tmp_path / "out", replace(PLAIN, own_names=True))
    put_back(patient, tmp_path / "out")
    before, after = Case.load(case), convert_case(patient, Origin("anon_1"), protocol)
    np.testing.assert_array_equal(after.masks, before.masks)
    np.testing.assert_array_equal(after.body, before.body)
    assert after.meta["body_source"] == "ROI BODY"
    assert (summary["absent"], summary["files"]) == (["Bowel"], ["rtstruct.dcm", "seg.dcm"])
    for row in summary["structures"].values():
        assert row["volume_cc"] == row["image_volume_cc"] == row["written_volume_cc"]
    assert json.loads((tmp_path / "out" / "structures.json").read_text())["structures"] == summary["structures"]


def test_the_segmentation_holds_the_same_voxels_under_names_and_codes(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    import highdicom

    write_structures(case, patient, tmp_path / "out", PLAIN)
    read = highdicom.seg.segread(tmp_path / "out" / "seg.dcm")
    codes = {item.SegmentLabel: item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in read.SegmentSequence}
    assert codes == {"PTV_7000": "228793007", "PTV_5600": "228793007", "Rectum": "34402009", "External": "38266002"}
    volume = read.get_volume(combine_segments=False)
    masks = Case.load(case)
    found = dict(zip(codes, np.moveaxis(volume.array, -1, 0), strict=True))
    # The frames of this head-first supine CT run as the grid's slices do.
    first = Case.load(case).grid.origin_mm[::-1]
    inside = found["Rectum"].any(axis=(1, 2))
    assert volume.position[:2] == pytest.approx(first[:2])
    assert inside.sum() == masks.mask("Rectum").any(axis=(1, 2)).sum()
    np.testing.assert_array_equal(
        found["Rectum"][inside] > 0, masks.mask("Rectum")[masks.mask("Rectum").any(axis=(1, 2))]
    )


def test_names_types_colours_and_links_are_those_of_the_structures(patient: Path, case: Path, tmp_path: Path) -> None:
    write_structures(case, patient, tmp_path / "out", PLAIN)
    found = pydicom.dcmread(tmp_path / "out" / "rtstruct.dcm")
    names = {item.ROINumber: item.ROIName for item in found.StructureSetROISequence}
    types = {names[item.ReferencedROINumber]: item.RTROIInterpretedType for item in found.RTROIObservationsSequence}
    assert types == {"PTV_7000": "PTV", "PTV_5600": "PTV", "Rectum": "ORGAN", "External": "EXTERNAL"}
    colours = {names[item.ReferencedROINumber]: list(item.ROIDisplayColor) for item in found.ROIContourSequence}
    assert (colours["Rectum"], colours["PTV_7000"]) == ([150, 75, 0], [255, 0, 0])
    image = pydicom.dcmread(next(patient.glob("CT*")))
    (frame,) = found.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID == found.FrameOfReferenceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in patient.glob("CT*")}
    assert {str(item.ReferencedSOPInstanceUID) for item in series.ContourImageSequence} == uids
    assert found.StudyInstanceUID == image.StudyInstanceUID
    assert found.SeriesInstanceUID != image.SeriesInstanceUID
    assert (found.ApprovalStatus, found.StructureSetDescription) == ("UNAPPROVED", "not cleaned")


# dicompyler-core uses what pydicom is about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dicompyler_reads_the_same_structures(
    patient: Path, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dicompyler-core 0.5.6 asks for a function that pydicom 3 no longer has.
    monkeypatch.setattr("pydicom.dicomio.read_file", pydicom.dcmread, raising=False)
    parser = pytest.importorskip("dicompylercore.dicomparser")
    write_structures(case, patient, tmp_path / "out", PLAIN)
    read = parser.DicomParser(str(tmp_path / "out" / "rtstruct.dcm"))
    structures = {item["name"]: item for item in read.GetStructures().values()}
    assert {name for name, item in structures.items() if not item["empty"]} == set(structures)
    assert structures["Rectum"]["type"] == "ORGAN"
    planes = read.GetStructureCoordinates(structures["Rectum"]["id"])
    thickness = read.CalculatePlaneThickness(planes)
    assert (len(planes), thickness) == (12, pytest.approx(3.0))
    area = [abs(_area(np.asarray(contour["data"])[:, :2])) for plane in planes.values() for contour in plane]
    wanted = float(Case.load(case).mask("Rectum").sum()) * 15.0
    assert sum(area) * thickness == pytest.approx(wanted, rel=0.01)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_dciodvfy_finds_no_error(patient: Path, case: Path, tmp_path: Path) -> None:
    write_structures(case, patient, tmp_path / "out", PLAIN)
    for name in ("rtstruct.dcm", "seg.dcm"):
        said = subprocess.run(["dciodvfy", tmp_path / "out" / name], capture_output=True, text=True, check=False).stderr
        # The tiny CT's own pseudonym is no name of the standard's present form.
        assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_the_same_masks_give_the_same_bytes_and_cleaned_ones_other_uids(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    cleaned = replace(PLAIN, fill_holes=("all",))
    for name, request in (("one", PLAIN), ("two", PLAIN), ("three", cleaned)):
        write_structures(case, patient, tmp_path / name, request)
    for name in ("rtstruct.dcm", "seg.dcm"):
        one, two, three = (tmp_path / folder / name for folder in ("one", "two", "three"))
        assert one.read_bytes() == two.read_bytes()
        assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(three).SOPInstanceUID


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_full_disk_leaves_the_old_objects_and_their_record(
    patient: Path, case: Path, tmp_path: Path, fill_disk: Callable[[Path, int], None], after: int
) -> None:
    write_structures(case, patient, tmp_path / "out", PLAIN)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    fill_disk(tmp_path / "out", after)
    with pytest.raises(NotReady, match="the disk is full"):
        write_structures(case, patient, tmp_path / "out", replace(PLAIN, fill_holes=("all",)))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_cleaning_is_done_where_it_is_asked_for_and_stands_in_the_objects(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    def spoiled(whole: Case) -> Case:
        masks = whole.masks.copy()
        rectum = masks[whole.structure_names.index("Rectum")]
        z, y, x = (int(at) for at in np.argwhere(rectum).mean(axis=0))
        rectum[z, y, x] = False
        rectum[1:3, 1:3, 1:3] = True
        return replace(whole, masks=masks)

    wanted = int(Case.load(case).mask("Rectum").sum())
    request = StructuresRequest(largest_part=("Rectum",), fill_holes=("Rectum",), own_names=True)
    summary = write_structures(changed(case, spoiled), patient, tmp_path / "out", request)
    said = "largest of 2 parts (-8 voxels), holes filled (+1 voxels)"
    assert summary["structures"]["Rectum"]["cleaned"] == said
    assert summary["structures"]["Rectum"]["written_volume_cc"] == pytest.approx(wanted * 0.015)
    assert summary["structures"]["PTV70"]["cleaned"] == ""
    structures, segments = (pydicom.dcmread(tmp_path / "out" / f"{name}.dcm") for name in ("rtstruct", "seg"))
    entry = next(item for item in structures.StructureSetROISequence if item.ROIName == "Rectum")
    assert (entry.ROIDescription, entry.ROIGenerationAlgorithm) == (f"as in the case; {said}", "SEMIAUTOMATIC")
    assert len(entry.ROIGenerationDescription) <= 64
    assert structures.StructureSetDescription == "cleaned: largest part of 1, holes of 1 structures"
    segment = next(item for item in segments.SegmentSequence if item.SegmentLabel == "Rectum")
    assert (segment.SegmentDescription, segment.SegmentAlgorithmType) == (f"as in the case; {said}", "SEMIAUTOMATIC")


def save_prediction(path: Path, case: Path, **changes: Any) -> Path:
    whole = Case.load(case)
    arrays: dict[str, Any] = {
        "masks": whole.masks.astype(np.uint8),
        "structure_names": np.asarray(whole.structure_names),
        "spacing_mm": np.asarray(whole.grid.spacing_mm),
        "origin_mm": np.asarray(whole.grid.origin_mm),
        "meta": np.asarray(json.dumps({"case_id": "anon_1", "model": "seg_unet"})),
    }
    write_npz(path, {name: array for name, array in {**arrays, **changes}.items() if array is not None})
    return path


def test_predicted_masks_say_that_they_are_predicted_and_by_which_model(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    prediction = save_prediction(tmp_path / "prediction.npz", case)
    summary = write_structures(prediction, patient, tmp_path / "out", PLAIN)
    structures, segments = (pydicom.dcmread(tmp_path / "out" / f"{name}.dcm") for name in ("rtstruct", "seg"))
    assert (structures.StructureSetLabel, structures.SeriesDescription) == ("PREDICTED", "PREDICTED structures")
    assert structures.StructureSetROISequence[0].ROIGenerationAlgorithm == "AUTOMATIC"
    assert structures.ManufacturerModelName == "STRUCTURES (research) seg_unet"
    assert segments.SegmentSequence[0].SegmentAlgorithmName == "seg_unet"
    assert "a prediction holds no image: only its place was compared with this one's" in summary["warnings"]


def labels_of(case: Path) -> dict[str, Any]:
    """The same masks as a segmentation writes them: one label map; of two that overlap the first has the voxel."""
    whole = Case.load(case)
    labels = np.zeros(whole.grid.shape_zyx, np.uint8)
    for place in range(len(whole.masks), 0, -1):
        labels[whole.masks[place - 1]] = place
    return {"labels": labels, "masks": None}


def test_a_segmentations_label_map_is_read_as_one_mask_a_structure_and_written(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    changes = labels_of(case)
    prediction = save_prediction(tmp_path / "prediction.npz", case, **changes)
    found = read_masks(prediction)
    names = Case.load(case).structure_names
    assert (found.model, found.absent) == ("seg_unet", ["Bowel"])
    assert sorted(found.masks) == sorted(set(names) - {"Bowel"})
    for place, name in enumerate(names, start=1):
        if name in found.masks:
            np.testing.assert_array_equal(found.masks[name], changes["labels"] == place)
    summary = write_structures(prediction, patient, tmp_path / "out", PLAIN)
    for name, row in summary["structures"].items():
        assert row["written_volume_cc"] == pytest.approx(found.masks[name].sum() * found.grid.voxel_volume_cc)
    read = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    assert len(read.SegmentSequence) == len(found.masks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: np.where(labels == 1, 9, labels).astype(np.uint8), "hold label 9 for 4 names, wanted 0 to 4"),
        (lambda labels: labels.astype(np.float32), r"hold float32 \(20, 50, 60\) for 4 names"),
        (lambda labels: labels[None], r"hold uint8 \(1, 20, 50, 60\) for 4 names"),
    ],
    ids=["a label of no structure", "no integers", "four axes"],
)
def test_labels_that_are_none_are_refused_and_no_voxel_is_dropped(
    case: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    labels = labels_of(case)
    prediction = save_prediction(tmp_path / "prediction.npz", case, **{**labels, "labels": change(labels["labels"])})
    with pytest.raises(BadCase, match=message):
        read_masks(prediction)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": None}, "has no masks; it holds meta, origin_mm, spacing_mm, structure_names"),
        ({"structure_names": np.asarray(["Rectum"])}, r"masks are uint8 \(4, 20, 50, 60\) for 1 names, wanted 0 and 1"),
    ],
)
def test_a_prediction_without_masks_is_refused_by_what_it_lacks(
    patient: Path, case: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    prediction = save_prediction(tmp_path / "prediction.npz", case, **changes)
    with pytest.raises(BadCase, match=message):
        write_structures(prediction, patient, tmp_path / "out", PLAIN)
    with pytest.raises(BadCase, match="no such file"):
        write_structures(tmp_path / "nothing.npz", patient, tmp_path / "out", PLAIN)


def test_another_patients_image_of_the_same_size_is_refused(factory: ModuleType, case: Path, tmp_path: Path) -> None:
    other = factory.make_patient()
    for image in other.ct:
        image.RescaleIntercept = -1030.0
    with pytest.raises(
        BadCase, match="the image is not the one of the case: values differ by up to 6 inside the patient"
    ):
        write_structures(case, other.save(tmp_path / "other"), tmp_path / "out", PLAIN)
    assert not (tmp_path / "out").exists()


def test_an_image_that_lies_elsewhere_is_refused(factory: ModuleType, case: Path, tmp_path: Path) -> None:
    other = factory.make_patient()
    for image in other.ct:
        image.ImagePositionPatient[2] += 30.0
    with pytest.raises(BadCase, match=r"the masks lie from \(-30.0, .* the image from \(0.0, .*name the series"):
        write_structures(case, other.save(tmp_path / "other"), tmp_path / "out", PLAIN)


def test_what_is_not_there_can_not_be_asked_for(patient: Path, case: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="anon_1: no structure Liver; there are PTV70, PTV56, Rectum, BODY"):
        write_structures(case, patient, tmp_path / "out", StructuresRequest(only=("Liver",)))
    with pytest.raises(BadCase, match="none of the structures that were asked for is there"):
        write_structures(case, patient, tmp_path / "out", StructuresRequest(only=("Bowel",)))
    with pytest.raises(BadInput, match="--format 'nifti': wanted rtstruct or seg"):
        check_formats(["nifti"])


def test_a_person_is_named_only_where_it_is_asked_for(factory: ModuleType, case: Path, tmp_path: Path) -> None:
    clinic = factory.make_patient()
    for image in clinic.ct:
        image.PatientName, image.PatientID, image.PatientBirthDate, image.StudyDate = (
            "Doe^Jane",
            "77",
            "19500102",
            "20240101",
        )
    folder = clinic.save(tmp_path / "clinic")
    for identity in (False, True):
        out = tmp_path / str(identity)
        summary = write_structures(case, folder, out, replace(PLAIN, identity=identity))
        assert summary["identity"] == ("as in the image" if identity else "PatientID alone")
        for name in ("rtstruct.dcm", "seg.dcm"):
            found = pydicom.dcmread(out / name)
            wanted = ("77", "Doe^Jane", "19500102", "20240101") if identity else ("77", "77", "", "")
            said = (found.PatientID, found.PatientName, found.PatientBirthDate, found.StudyDate)
            assert tuple(map(str, said)) == wanted


def test_masks_on_another_grid_keep_their_volume_on_the_images_voxels(
    factory: ModuleType, patient: Path, tmp_path: Path
) -> None:
    fields = {**factory.PROTOCOL, "objects": ["ct", "rtstruct"], "spacing_mm": [2.0, 1.5, 1.5]}
    path = tmp_path / "anon_1.npz"
    convert_case(patient, Origin("anon_1"), Protocol.model_validate(fields)).save(path)
    summary = write_structures(path, patient, tmp_path / "out", replace(PLAIN, only=("PTV56", "Rectum", "PTV70")))
    for name, row in summary["structures"].items():
        assert row["image_volume_cc"] == pytest.approx(row["volume_cc"], rel=0.05), name
        assert row["written_volume_cc"] == row["image_volume_cc"], name


def test_a_structure_smaller_than_the_images_voxels_is_left_out_and_the_others_are_written(
    patient: Path, case: Path, tmp_path: Path
) -> None:
    # The masks' own grid is finer: a speck between the image's pixel centres.
    whole = Case.load(case)
    fine = Grid((36, 60, 60), (1.5, 1.0, 1.0), (-29.0, -40.3, -30.2))
    masks = np.zeros((2, *fine.shape_zyx), np.uint8)
    masks[0, 10:20, 10:30, 10:30] = 1
    masks[1, 5, 6, 6] = 1
    changes = {"masks": masks, "structure_names": np.asarray(["Rectum", "Lens_L"])}
    changes |= {"spacing_mm": np.asarray(fine.spacing_mm), "origin_mm": np.asarray(fine.origin_mm)}
    assert whole.grid.spacing_mm == (3.0, 2.5, 2.0)
    prediction = save_prediction(tmp_path / "prediction.npz", case, **changes)
    arguments = ["structures", "write", str(prediction), str(patient), str(tmp_path / "out"), "--json"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 1
    assert isinstance(found.exception, BadInput)
    assert "not written: Lens_L: no voxel centre of the image lies inside it" in str(found.exception)
    assert list(json.loads(found.stdout)["structures"]) == ["Lens_L", "Rectum"]
    assert [item.ROIName for item in pydicom.dcmread(tmp_path / "out" / "rtstruct.dcm").StructureSetROISequence] == [
        "Rectum"
    ]


def test_the_command_writes_one_format_of_one_structure(patient: Path, case: Path, tmp_path: Path) -> None:
    arguments = ["structures", "write", str(case), str(patient), str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*arguments, "--format", "rtstruct", "--structure", "Rectum"])
    assert found.exit_code == 0, found.output
    assert "1 structures in" in found.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rtstruct.dcm", "structures.json"]


def test_a_real_sarcoma_goes_out_and_comes_in_again_voxel_for_voxel(shared_data: Path, tmp_path: Path) -> None:
    protocol = load_protocol(PROTOCOLS / "sts.yaml")
    images = shared_data / "dicom" / "sts_001" / "CT" / "dicom" / "image"
    case = convert_case(shared_data / "dicom" / "sts_001", Origin("STS_001"), protocol)
    case.save(tmp_path / "STS_001.npz")
    summary = write_structures(tmp_path / "STS_001.npz", images, tmp_path / "out", replace(PLAIN, only=("GTV",)))
    assert summary["structures"]["GTV"]["written_volume_cc"] == pytest.approx(117_145 * case.grid.voxel_volume_cc)
    (tmp_path / "back").mkdir()
    for path in (*images.iterdir(), tmp_path / "out" / "rtstruct.dcm", tmp_path / "out" / "seg.dcm"):
        shutil.copy(path, tmp_path / "back")
    after = convert_case(tmp_path / "back", Origin("STS_001"), protocol)
    np.testing.assert_array_equal(after.mask("GTV"), case.mask("GTV"))
    assert after.meta["warnings"] == []


def test_every_structure_of_a_real_breast_plan_comes_back_from_its_contours(shared_data: Path) -> None:
    with lenient():
        dataset = read_file(shared_data / "dicom" / "dicompyler_breast_imrt" / "rtss.dcm", "RTSTRUCT")
        drawn = {roi.name: read_contours(roi, "breast").polygons for roi in read_rois(dataset, "breast") if roi.items}
    z = np.unique([z for z, _ in drawn["BODY"]])
    # 97 of the 98 slices are missing: they lay where the outline was drawn. Every other pixel of them will do.
    grid = Grid((len(z), 256, 256), (float(np.diff(z).mean()), 2.148438, 2.148438), (float(z[0]), -524.0, -275.0))
    masks = {}
    for name, contours in drawn.items():
        masks[name] = fill(stack_contours(contours, grid, "breast", name)[0], grid)
    study = Study("anon_1", "anon_1", "", make_uid("s"), make_uid("f"), "HFS", "breast")
    images = make_ct(study, np.zeros(grid.shape_zyx, np.int16), grid)
    rois = [Roi(name, mask, "ORGAN", smooth=True) for name, mask in masks.items()]
    volumes = read_back(make_structure_set(study, rois, grid, images), grid, "breast")
    assert len(volumes) == 9
    for name, mask in masks.items():
        assert volumes[name] == pytest.approx(mask.sum() * grid.voxel_volume_cc, rel=1e-9), name
    assert len(to_bytes(images[0])) > 0
