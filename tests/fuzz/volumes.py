"""Damaged NIfTI: images and labels, loose or packed, and the dataset.json beside them."""

from __future__ import annotations

import gzip
import random
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from fuzz.damage import ODD, damage_bytes, damage_json
from fuzz.kinds import Kind, Reader, Spoilt, Told, rewrite, silent

from doseledger.core.case import map_member
from doseledger.core.project.protocol import Protocol
from doseledger.deliver.nifti import segment_images
from doseledger.ingest.nifti.case import convert_case
from doseledger.ingest.nifti.files import digest_volumes, find_volumes, members_to_pack, read_label_names
from doseledger.ingest.patient.case import Origin
from doseledger.ingest.sources import labels_of
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.predict.predictor import Predictor

CASE_ID = "brain_1"
IMAGE, LABEL, DATASET = f"imagesTr/{CASE_ID}_0000.nii.gz", f"labelsTr/{CASE_ID}.nii", "dataset.json"
HEADER_BYTES, VOXELS_FROM = 348, 352
# Where fields of a NIfTI-1 header lie, and of which type they are (nifti1.h).
FIELDS = {
    "sizeof_hdr": (0, "i"), "dim": (40, "8h"), "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "pixdim": (76, "8f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"), "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "6f"),
    "srow": (280, "12f"), "magic": (344, "4B"),
}  # fmt: skip
WHOLE = (-32768, -1, 0, 1, 2, 3, 4, 7, 16, 64, 128, 255, 348, 32767, 2**31 - 1)
SINGLE = (float("nan"), float("inf"), -1.0, 0.0, 1e-30, 1e-3, 0.5, 3.0, 352.5, 1e9, 3e38)


def nifti_kind() -> Kind:
    """One pair of an MR data set as nnU-Net keeps it; the image packed, the label not."""
    structures = [{"name": "Front", "kind": "organ", "label": 1}, {"name": "Back", "kind": "organ", "label": 2}]
    protocol = Protocol.model_validate({
        "name": "brain", "title": "made-up structures", "source": "nifti", "modality": "MR", "spacing_mm": [2, 2, 2],
        "crop": "none", "sdf_clip_mm": 10.0, "structures": structures,
    })  # fmt: skip

    def convert(folder: Path, out: Path) -> Told:
        case = convert_case(find_volumes(folder)[CASE_ID], Origin(CASE_ID), protocol)
        names = ("ct_hu", "masks", "sdf_mm", "present", "body", "grid")
        return Told({name: getattr(case, name) for name in names}, bool(case.meta["warnings"]))

    def dataset(folder: Path) -> Path:
        return next(iter(sorted(folder.rglob(DATASET))), folder / DATASET)

    def segment(folder: Path, out: Path) -> object:
        # The case that it makes on the way lies in a temporary folder.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(out))
            return segment_images(_predictor(), protocol, folder, out, silent)["segmented"]

    readers: dict[str, Reader] = {
        "convert": convert,
        "digest": lambda folder, out: (digest_volumes(find_volumes(folder)), labels_of(find_volumes(folder))),
        "pack": lambda folder, out: members_to_pack(find_volumes(folder)[CASE_ID]),
        "names": lambda folder, out: read_label_names(dataset(folder)),
        "segment": segment,
    }
    return Kind(_make, _spoil, readers)


def _make(folder: Path) -> None:
    rng, affine = np.random.default_rng(3), np.diag([-2.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = 30.0, -40.0, 50.0
    label = np.zeros((9, 10, 8), np.uint8)
    label[1:4, 2:5, 3:6], label[5, 5:7, 6:8] = 1, 2
    for name, values in ((IMAGE, (100 + 400 * rng.random(label.shape)).astype(np.float32)), (LABEL, label)):
        volume = nibabel.Nifti1Image(values, affine)
        volume.set_qform(affine, code=1)
        content = volume.to_bytes()
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    (folder / DATASET).write_text(
        '{"labels": {"background": 0, "Front": 1, "Back": 2}, "channel_names": {"0": "MR"}, "file_ending": ".nii.gz"}'
    )


def _predictor() -> Predictor:
    """Says of every bright voxel that it is of the first structure."""

    def bright(case: OpenCase) -> dict[str, Any]:
        image = np.asarray(map_member(case.file.path, "ct_hu"))
        return {"labels": (image > 500).astype(np.uint8), "structure_names": np.asarray(["Front", "Back"])}

    checkpoint: Any = SimpleNamespace(model="seg", structure_names=("Front", "Back"))
    return Predictor(checkpoint, "a" * 64, {"flips": []}, bright, says_labels=True)


def _spoil(rng: random.Random, folder: Path) -> Spoilt:
    path, kind = folder / rng.choice((IMAGE, IMAGE, LABEL, LABEL, DATASET)), rng.randrange(10)
    named = (CASE_ID, path.name, str(folder), DATASET)
    shows = False
    if path.name == DATASET:
        words = rewrite(path, lambda content: damage_json(rng, content))
    elif kind < 4:
        words = rewrite(path, lambda content: _repacked(path, _damage_field(rng, _plain(content))))
    elif kind < 6:
        # The checksum of a packed file tells every change; a plain one's form tells another length.
        before = path.read_bytes()
        words = rewrite(path, lambda content: damage_bytes(rng, content, head=HEADER_BYTES))
        after = path.read_bytes()
        is_header = before[:VOXELS_FROM] != after[:VOXELS_FROM]
        shows = path.name.endswith("gz") or (len(after) != len(before) and not is_header)
    elif kind < 8:
        words = rewrite(path, lambda content: _repacked(path, _damage_voxels(rng, _plain(content))))
        shows = "odd" not in words and len(_plain(path.read_bytes())) != _sound_length(path)
    else:
        words = _move(rng, folder, path)
    readers: tuple[str, ...] = ()
    if rng.random() < 0.15:
        words += "; " + _pack(rng, folder)
        readers, shows = ("convert", "digest", "pack"), False
    return Spoilt(words, named, readers, shows)


def _plain(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _repacked(path: Path, content: bytes) -> bytes:
    return gzip.compress(content, mtime=0) if path.name.endswith("gz") else content


def _sound_length(path: Path) -> int:
    return VOXELS_FROM + 9 * 10 * 8 * (4 if path.name.endswith("gz") else 1)


def _damage_field(rng: random.Random, content: bytes) -> bytes:
    """Another value in one number of one field of the header."""
    at, form = FIELDS[rng.choice(list(FIELDS))]
    values = list(struct.unpack_from(f"<{form}", content, at))
    letter = form[-1]
    low, high = {"h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1), "B": (0, 255), "f": (0, 0)}[letter]
    value: Any = rng.choice(SINGLE) if letter == "f" else min(high, max(low, rng.choice(WHOLE)))
    values[rng.randrange(len(values))] = value
    data = bytearray(content)
    struct.pack_into(f"<{form}", data, at, *values)
    return bytes(data)


def _damage_voxels(rng: random.Random, content: bytes) -> bytes:
    """Voxels cut, repeated, more than there are, or of a value that no voxel has."""
    at, kind = rng.randrange(VOXELS_FROM, len(content)), rng.randrange(4)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at : at + rng.choice((1, 4, 80))] + content[at:]
    if kind == 2:
        return content + bytes(rng.choice((1, 4, 4096, 1 << 22)))
    value = rng.choice((b"\xff" * 4, b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x00" * 4))
    return content[:at] + value + content[at + 4 :]


def _move(rng: random.Random, folder: Path, path: Path) -> str:
    """A file that is elsewhere, there twice, of another name, or an empty one or a folder in its place."""
    kind = rng.randrange(6)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        shutil.copy2(path, path.with_name(f"{CASE_ID}.NII" if path.name.endswith("gz") else f"{CASE_ID}.nii.gz"))
    elif kind == 3:
        path.unlink()
        path.mkdir()
    elif kind == 4:
        path.unlink()
        path.symlink_to(rng.choice(("/etc/passwd", "/nowhere", path.name)))
    else:
        shutil.copy2(folder / IMAGE, folder / LABEL)
    return f"{path.name}: moved, kind {kind}"


def _pack(rng: random.Random, folder: Path) -> str:
    """The pair in a zip named after the case, with a word of its own too many."""
    kind = rng.randrange(6)
    contents = {
        f"{role}.nii{'.gz' if name.endswith('gz') else ''}": (folder / name).read_bytes()
        for role, name in (("image", IMAGE), ("label", LABEL))
        if (folder / name).is_file()
    }
    for inner in ("imagesTr", "labelsTr"):
        shutil.rmtree(folder / inner)
    target = folder / f"{CASE_ID}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if kind == 0 else zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        if kind == 1:
            archive.writestr("../../image.nii", b"x")
        elif kind == 2:
            archive.writestr(str(rng.choice(ODD))[:300].translate({0: "?", 0xD83D: "?"}) or "x", b"x")
        elif kind == 3:
            with archive.open(zipfile.ZipInfo("image_2.nii"), "w") as stream:
                stream.write(bytes(1 << 20))
    if kind > 3:
        rewrite(target, lambda content: damage_bytes(rng, content))
    return f"{target.name}: kind {kind}"
