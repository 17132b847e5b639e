"""NIfTI out is NIfTI in: labels on the image's own voxels, with its own header."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from doseledger.core.case import map_member
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.project.protocol import Protocol
from doseledger.core.schema import load_block
from doseledger.deliver.nifti import label_values, segment_images
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.predictor import Predictor

SHAPE = (20, 22, 24)
RAS = np.array([[1.0, 0, 0, -10], [0, 1.2, 0, -20], [0, 0, 2.0, 30], [0, 0, 0, 1]])


def protocol_of(**changes: Any) -> Protocol:
    block: dict[str, Any] = {
        "name": "brain", "title": "made-up structures", "source": "nifti", "modality": "MR", "spacing_mm": "native",
        "crop": "none", "sdf_clip_mm": 10.0, "patient": {"pattern": r"brain_(\d+)", "cases": 2},
        "structures": [{"name": "Front", "kind": "organ", "label": 3}, {"name": "Back", "kind": "organ", "label": 7}],
    }  # fmt: skip
    return load_block(Protocol, {**block, **changes}, "protocol")


def bright_and_brighter(case: OpenCase) -> dict[str, Any]:
    """What a perfect network would say of `picture`."""
    image = np.asarray(map_member(case.file.path, "ct_hu"))
    labels = (image > 300).astype(np.uint8) + (image > 700).astype(np.uint8)
    return {"labels": labels, "structure_names": np.asarray(["Front", "Back"])}


@pytest.fixture
def predictor() -> Predictor:
    checkpoint: Any = SimpleNamespace(model="seg", structure_names=("Front", "Back"))
    return Predictor(checkpoint, "a" * 64, {"flips": []}, bright_and_brighter, says_labels=True)


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Image of three levels, and the labels of the two brighter ones with the protocol's values."""
    image, label = np.random.default_rng(1).uniform(0, 40, SHAPE).astype(np.float32), np.zeros(SHAPE, np.uint8)
    image[4:12, 6:14, 5:15], label[4:12, 6:14, 5:15] = 500, 3
    image[12:16, 6:14, 5:15], label[12:16, 6:14, 5:15] = 1000, 7
    return image, label


TURNS = {
    "ras": np.eye(4),
    "las": np.diag([-1.0, 1, 1, 1]),
    "permuted": np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 4), (0, 1)])
def test_labels_lie_where_the_image_lies_with_its_shape_affine_and_codes(
    tmp_path: Path, predictor: Predictor, turn: np.ndarray, sform: int, qform: int
) -> None:
    values, wanted = picture()
    affine = turn @ RAS
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine if sform else None, code=sform)
    image.set_qform(affine, code=qform)
    image.header["descrip"] = b"T1 of somebody"
    nibabel.save(image, tmp_path / "in.nii.gz")
    segment_images(predictor, protocol_of(), tmp_path / "in.nii.gz", tmp_path / "out", lambda line: None)
    given, found = (nibabel.load(tmp_path / name) for name in ("in.nii.gz", "out/in.nii.gz"))
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(found.dataobj), wanted)
    assert np.array_equal(found.affine, given.affine)
    for form in ("sform", "qform"):
        ours, theirs = (getattr(one, f"get_{form}")(coded=True) for one in (found, given))
        assert ours[1] == theirs[1]
        np.testing.assert_array_equal(ours[0], theirs[0]) if theirs[1] else None
    assert found.header.get_zooms() == given.header.get_zooms()
    assert found.header["descrip"] == given.header["descrip"]
    assert found.header["xyzt_units"] == given.header["xyzt_units"]


def test_a_model_on_another_grid_labels_the_image_on_its_own(tmp_path: Path, predictor: Predictor) -> None:
    values, wanted = picture()
    nibabel.save(nibabel.Nifti1Image(values, RAS), tmp_path / "in.nii")
    rules = protocol_of(spacing_mm=(1.5, 1.0, 1.0))
    segment_images(predictor, rules, tmp_path / "in.nii", tmp_path / "out", lambda line: None)
    found = np.asanyarray(nibabel.load(tmp_path / "out/in.nii.gz").dataobj)
    assert found.shape == SHAPE
    for value in (3, 7):
        both = 2 * int(((found == value) & (wanted == value)).sum())
        assert both / int((found == value).sum() + (wanted == value).sum()) > 0.85


def test_one_image_that_is_none_is_listed_and_the_others_are_segmented(tmp_path: Path, predictor: Predictor) -> None:
    values, _ = picture()
    (tmp_path / "images").mkdir()
    for name in ("a", "c"):
        nibabel.save(nibabel.Nifti1Image(values, RAS), tmp_path / f"images/{name}.nii.gz")
    (tmp_path / "images/b.nii.gz").write_bytes(b"no image")
    found = segment_images(predictor, protocol_of(), tmp_path, tmp_path / "out", lambda line: None)
    assert sorted(found["segmented"]) == ["a", "c"]
    assert "b.nii.gz" in found["failed"]["b"]
    record = json.loads((tmp_path / "out/segmentations.json").read_text())
    assert record["labels"] == {"Front": 3, "Back": 7}
    assert record["settings"] == {"flips": []}
    assert (tmp_path / "out/a.nii.gz").read_bytes() == (tmp_path / "out/c.nii.gz").read_bytes()


def test_a_full_disk_leaves_no_record_of_labels_that_were(
    tmp_path: Path, predictor: Predictor, fill_disk: Callable[[Path, int], None]
) -> None:
    nibabel.save(nibabel.Nifti1Image(picture()[0], RAS), tmp_path / "a.nii.gz")
    segment_images(predictor, protocol_of(), tmp_path / "a.nii.gz", tmp_path / "out", lambda line: None)
    fill_disk(tmp_path / "out", 1)
    with pytest.raises(NotReady, match=r"segmentations\.json: can't be written: the disk is full"):
        segment_images(predictor, protocol_of(), tmp_path / "a.nii.gz", tmp_path / "out", lambda line: None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_folder_without_images_and_a_dose_model_are_refused(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(BadInput, match=r"no \.nii and no \.nii\.gz"):
        segment_images(predictor, protocol_of(), tmp_path, tmp_path / "out", lambda line: None)
    dose = Predictor(predictor.checkpoint, "a" * 64, {}, bright_and_brighter)
    with pytest.raises(BadInput, match="seg predicts a dose"):
        segment_images(dose, protocol_of(), tmp_path, tmp_path / "out", lambda line: None)


def test_structures_without_a_label_in_the_protocol_count_from_one() -> None:
    assert label_values(("Other", "Front"), protocol_of()) == {"Other": 1, "Front": 2}
