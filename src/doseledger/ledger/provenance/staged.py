"""Data, models and pages that Git must not hold: tracked, or staged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from doseledger.core.errors import NotReady
from doseledger.core.project.layout import PROJECT_FOLDERS
from doseledger.ledger.provenance.git import ask_git
from doseledger.ledger.provenance.revisions import read_blobs
from doseledger.ledger.provenance.stamp import cached_outs

# Where a file's own mark begins, the mark, and what such a file is.
MARKS = (
    (128, b"DICM", "DICOM"),
    (344, b"n+1\0", "a NIfTI image"),
    (344, b"ni1\0", "a NIfTI header"),
    (0, b"PK\x03\x04", "a ZIP: packed data, arrays (NPZ) or weights"),
    (0, b"PK\x05\x06", "an empty ZIP"),
    (0, b"\x1f\x8b", "gzip: packed data or an image (.nii.gz)"),
    (0, b"BZh", "bzip2: packed data"),
    (0, b"\xfd7zXZ", "xz: packed data"),
    (0, b"7z\xbc\xaf", "7z: packed data"),
    (0, b"\x93NUMPY", "an array (NPY)"),
    (0, b"\x89HDF\r\n", "HDF5"),
    (0, b"SQLite format 3", "a database"),
    (0, b"%PDF-", "a PDF page"),
    (257, b"ustar", "a tar: packed data"),
    (0, b"PAR1", "a Parquet table"),
)
# Kinds of files that bear no sure mark.
SUFFIXES = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "DICOM"),
    **dict.fromkeys((".nii", ".mha", ".mhd", ".nrrd", ".raw", ".hdr", ".img"), "an image"),
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".safetensors", ".onnx"), "weights"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "a pickle"),
    **dict.fromkeys((".npz", ".npy", ".h5", ".zarr"), "arrays"),
    **dict.fromkeys((".html", ".htm"), "a page"),
}
# DICOM without its preamble begins with a small group number, an even element, and often the length of a UID.
BARE_DICOM = (b"\x02\x00\x00\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")


@dataclass(frozen=True)
class StagedFile:
    """A file that the next commit would hold and should not.

    Parameters
    ----------
    path
        Relative to the project.
    why
        What it is, or where it lies.
    """

    path: str
    why: str


def data_in_git(root: Path) -> list[str]:
    """Return the tracked files that the ignore rules name, and those below outs of DVC, whatever became of the rules.

    A file that is staged counts as tracked. A `.gitignore` that DVC wrote beside an out holds no data.
    """
    listed = ask_git(root, "ls-files", "--cached", "--ignored", "--exclude-standard", "-z") or ""
    if outs := cached_outs(root):
        # `models/*/*` is every model of every cohort, and matches the recipes, which Git keeps.
        own = (f":(exclude){folder}" for folder in PROJECT_FOLDERS)
        listed += ask_git(root, "ls-files", "--cached", "-z", "--", *outs, *own) or ""
    return sorted({path for path in listed.split("\0") if path and Path(path).name != ".gitignore"})


def staged_data(root: Path) -> list[StagedFile]:
    """Return what is staged and is no code, settings or text: by where it lies, and by what it is.

    Raises
    ------
    NotReady
        If there is no Git repository.
    """
    listed = ask_git(root, "diff", "--cached", "--name-only", "--no-renames", "--diff-filter=AM", "--relative", "-z")
    if listed is None:
        raise NotReady(f"{root}: no Git repository, so nothing is staged")
    staged = [path for path in listed.split("\0") if path]
    elsewhere = set(data_in_git(root)) & set(staged)
    found = [StagedFile(path, "data of DVC or this machine, by its place") for path in sorted(elsewhere)]
    rest = [path for path in staged if path not in elsewhere]
    # Of the index and not of the tree: that is what the commit will hold.
    content = read_blobs(root, [("", path) for path in rest])
    found += [StagedFile(path, why) for (_, path), data in content.items() for why in _kinds(path, data)]
    return sorted(found, key=lambda file: file.path)


def _kinds(path: str, data: bytes) -> Iterator[str]:
    """What a file is that Git should not hold, once; nothing of one that it may."""
    for start, mark, what in MARKS:
        if data[start : start + len(mark)] == mark:
            yield what
            return
    # Text never begins with a zero byte second.
    if data[:4] in BARE_DICOM:
        yield "DICOM without preamble"
    elif (suffix := PurePosixPath(path).suffix.casefold()) in SUFFIXES:
        yield SUFFIXES[suffix]
