"""Members of a folder or a zip: names, sizes, contents, digest."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from doseledger.core.damage import DAMAGED, check_zip, describe
from doseledger.core.errors import BadCase, BadInput

# What file browsers and archivers leave behind; never part of a patient.
IGNORED_NAMES = frozenset({"DICOMDIR", "Thumbs.db", "desktop.ini"})
# No file of a patient is larger: an enhanced CT of 1000 slices has half a gigabyte.
LARGEST_FILE_BYTES = 1 << 30


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return hidden or path.name in IGNORED_NAMES


def _without_common_folder(names: list[str]) -> dict[str, str]:
    """Names without the folders that all of them share, so that a zip of a folder equals the folder."""
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return {name: "/".join(p[shared:]) for name, p in zip(names, parts, strict=True)}


def read_members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file of a case, sorted by name; hidden files and folders are left out.

    Raises
    ------
    BadCase
        If the zip can't be read, names a file twice or outside of it, or would unpack to far more than it holds; if a
        file is too large for a patient's; or if there is none.
    """
    try:
        yield from _folder_members(source) if source.is_dir() else _zip_members(source)
    except BadInput as error:
        raise BadCase(source.stem, str(error)) from error


def _folder_members(source: Path) -> Iterator[tuple[str, bytes]]:
    files = [path for path in source.rglob("*") if path.is_file()]
    names = [path.relative_to(source).as_posix() for path in files]
    short = _without_common_folder([name for name in names if not _is_junk(name)])
    for name in sorted(short, key=short.__getitem__):
        try:
            check_size((source / name).stat().st_size, source)
            content = (source / name).read_bytes()
        except OSError as error:
            # The path that the error names may name a person.
            raise BadCase(source.stem, f"a file of {source.name} can't be read ({error.strerror})") from None
        yield short[name], content
    if not short:
        raise BadCase(source.stem, f"{source.name} holds no files; export the patient again")


def _zip_members(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(source) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_names([info.filename for info in infos], source)
            check_zip(archive, source.name)
            short = _without_common_folder([info.filename for info in infos if not _is_junk(info.filename)])
            for name in sorted(short, key=short.__getitem__):
                check_size(archive.getinfo(name).file_size, source)
                yield short[name], archive.read(name)
    except DAMAGED as error:
        reason = describe(error)
        raise BadCase(source.stem, f"{source.name} can't be read as a zip ({reason}); pack it again") from error
    if not short:
        raise BadCase(source.stem, f"{source.name} holds no files; export the patient again")


def check_size(n_bytes: int, source: Path) -> None:
    """Refuse a file that is too large for a patient's, before it is read.

    Raises
    ------
    BadInput
        Naming folder, zip or file, and the sizes.
    """
    if n_bytes > LARGEST_FILE_BYTES:
        raise BadInput(
            f"{source.name} holds a file of {n_bytes} bytes, at most {LARGEST_FILE_BYTES} are read; leave it out"
        )


def _check_names(names: list[str], source: Path) -> None:
    """Refuse names that are there twice, or lead out of the archive; names themselves are not repeated."""
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    astray = sum(path.is_absolute() or ".." in path.parts or str(path)[1:2] == ":" for path in paths)
    if astray:
        raise BadInput(f"{source.name} has {astray} names that lead out of it (absolute, or with ..); pack it again")
    kept = [path for path in paths if not _is_junk(path.as_posix())]
    twice = len(kept) - len(set(kept))
    if twice:
        raise BadInput(f"{source.name} has {twice} names twice, and which file counts can't be told; pack it again")


def source_digest(source: Path) -> str:
    """Return the SHA256 of a case's raw files, in hex: the same for a folder and for any zip of it.

    Notes
    -----
    Over each file's name, length and content in the order of names; dates, permissions, compression and a common
    leading folder do not count.
    """
    digest = hashlib.sha256()
    for name, content in read_members(source):
        digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def links_of(source: Path) -> list[str]:
    """Return what is to be said of symbolic links in a case's folder: those to files are read, others left out."""
    links = [path for path in source.rglob("*") if path.is_symlink()] if source.is_dir() else []
    followed = sum(path.is_file() for path in links)
    notes = [f"{followed} files are symbolic links: what they point to may change unseen"] if followed else []
    if len(links) > followed:
        notes.append(f"{len(links) - followed} symbolic links to folders, or to nothing, were left out")
    return notes
