"""Verification of a bundle against its index and manifest, packed or unpacked.

What vouches for what: the index for each part, each block and SHA256SUMS; SHA256SUMS for every file inside;
manifest.json for stages and arrays. Whoever was told the index's digest by another way needs to trust nothing else.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, GateFailed
from doseledger.core.files import read_json, sha256_of_file
from doseledger.core.schema import load_block
from doseledger.core.text.lists import bulleted, first_of
from doseledger.core.types import Tell
from doseledger.ledger.bundle.manifest import (
    CONTRACT,
    FORMAT_VERSION,
    KEPT,
    MANIFEST,
    SUMS,
    Entry,
    Index,
    Manifest,
    array_forms,
    read_sums,
)
from doseledger.ledger.bundle.pack import INDEX_SUFFIX, index_path
from doseledger.ledger.bundle.parts import PartReader, find_parts, open_reader, opened
from doseledger.parity.arrays import array_heads
from doseledger.parity.check import check_file
from doseledger.parity.contract import load_contract

# How many findings an error message spells out.
MOST_SHOWN = 20


@dataclass(frozen=True)
class BundleCheck:
    """What was found.

    Parameters
    ----------
    findings
        One line each; none where every byte is as it was packed.
    """

    bundle: str
    findings: list[str] = field(default_factory=list)
    n_files: int = 0
    n_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {"ok": not self.findings, **asdict(self)}


def enforce_whole(check: BundleCheck) -> None:
    """Do nothing if nothing was found.

    Raises
    ------
    GateFailed
        Spelling out what was found.
    """
    if check.findings:
        shown = bulleted(check.findings, MOST_SHOWN)
        raise GateFailed(f"{check.bundle}: not what was packed, {len(check.findings)} finding(s):{shown}")


def verify_bundle(bundle: Path, index_sha256: str, tell: Tell) -> BundleCheck:
    """Return what of a bundle is not as it was packed.

    Parameters
    ----------
    bundle
        NAME.tar, one of its parts or its index; or a folder that it was unpacked to.
    index_sha256
        Digest of the index (of SHA256SUMS for a folder) as the sender gave it by another way; empty without one.

    Raises
    ------
    BadInput
        If there is no bundle, or no index beside it.
    """
    if bundle.is_dir():
        return verify_folder(bundle, index_sha256)
    archive = archive_of(bundle)
    index = read_index(archive)
    findings = []
    if index_sha256 and sha256_of_file(index_path(archive)) != index_sha256.lower():
        findings.append(f"{index_path(archive).name}: not the index whose digest was given; ask the sender for it")
    paths, part_findings = _check_parts(archive, index)
    findings += part_findings
    damaged = _damaged_blocks(paths, index, tell) if paths else []
    n_files = n_bytes = 0
    if len(paths) == len(index.parts):
        try:
            with open_reader(paths, archive.name) as (tar, members):
                findings += [_place(start, stop, index, _touched(start, stop, members)) for start, stop in damaged]
                findings += _check_members(tar, members, damaged, index.sums_sha256)
                n_files, n_bytes = len(members), sum(head.size for head in members.values())
        except BadInput as error:
            findings += [_place(start, stop, index, []) for start, stop in damaged]
            findings.append(str(error))
    return BundleCheck(archive.name, findings, n_files, n_bytes)


def archive_of(bundle: Path) -> Path:
    """Return the path NAME.tar of a bundle that is named by its archive, its index or one of its parts."""
    name = bundle.name.removesuffix(INDEX_SUFFIX)
    stem, dot, number = name.rpartition(".")
    if dot and len(number) == 3 and number.isdigit():
        name = stem
    return bundle.with_name(name)


def read_index(archive: Path) -> Index:
    """Return the index beside an archive.

    Raises
    ------
    BadInput
        If there is none, or it is not of its form.
    """
    path = index_path(archive)
    if not path.is_file():
        raise BadInput(
            f"{archive}: no {path.name} beside it, so nothing says what it should be; a bundle comes with its index, "
            "ask the sender for it (a pack that was stopped leaves none: pack again)"
        )
    index = load_block(Index, read_json(path), str(path))
    if index.format != FORMAT_VERSION:
        raise BadInput(f"{path}: format {index.format}, this version reads {FORMAT_VERSION}; update doseledger")
    names = [part.name for part in index.parts]
    if any(archive_of(Path(name)).name != archive.name for name in names):
        raise BadInput(f"{path}: names parts of another archive ({', '.join(names)}); keep the index beside its own")
    if sum(part.size for part in index.parts) != index.size or len(index.blocks) != -(-index.size // index.block_bytes):
        raise BadInput(f"{path}: its parts and blocks do not add up to {index.size} bytes; ask the sender for it")
    return index


def _check_parts(archive: Path, index: Index) -> tuple[list[Path], list[str]]:
    """The parts that are there, up to the first that is missing, and what is wrong with their number and sizes."""
    findings: list[str] = []
    wanted = {part.name: part for part in index.parts}
    paths: list[Path] = []
    for name, part in wanted.items():
        path = archive.with_name(name)
        if not path.is_file():
            findings.append(f"{name}: this part is missing; ask the sender for it")
            continue
        size = path.stat().st_size
        if size != part.size:
            what = f"{part.size - size} bytes short" if size < part.size else f"{size - part.size} bytes too long"
            findings.append(f"{name}: {what} ({size}, wanted {part.size}); copy it again")
        paths.append(path)
    there = [archive, *find_parts(archive)]
    findings += [
        f"{path.name}: no part of this bundle; take it away"
        for path in there
        if path.is_file() and path.name not in wanted
    ]
    return (paths if len(paths) == len(wanted) else []), findings


def _damaged_blocks(paths: list[Path], index: Index, tell: Tell) -> list[tuple[int, int]]:
    """Ranges of bytes of the archive that are not what was written; neighbours are one range."""
    found: list[tuple[int, int]] = []
    with PartReader(paths) as raw, io.BufferedReader(raw) as stream:
        for number, wanted in enumerate(index.blocks):
            if hashlib.sha256(stream.read(index.block_bytes)).hexdigest() != wanted:
                start = number * index.block_bytes
                stop = min(start + index.block_bytes, index.size)
                if found and found[-1][1] == start:
                    found[-1] = (found[-1][0], stop)
                else:
                    found.append((start, stop))
    tell(f"{len(index.blocks)} block(s) read, {len(found)} damaged range(s)")
    return found


def _touched(start: int, stop: int, members: dict[str, tarfile.TarInfo]) -> list[str]:
    return [name for name, head in members.items() if head.offset_data < stop and head.offset_data + head.size > start]


def _place(start: int, stop: int, index: Index, touched: list[str]) -> str:
    parts, first = [], 0
    for part in index.parts:
        if first < stop and first + part.size > start:
            parts.append(part.name)
        first += part.size
    where = f"; there lies {first_of(touched, 3)}" if touched else ""
    return f"{', '.join(parts)}: bytes {start} to {stop - 1} of the archive are not what was packed{where}"


def _check_members(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], damaged: list[tuple[int, int]], sums_sha256: str
) -> list[str]:
    """What differs between the members and SHA256SUMS; those that no damaged block touches are as they were packed."""
    doubtful = {name for start, stop in damaged for name in _touched(start, stop, members)}

    def is_changed(name: str, wanted: str) -> bool:
        return name in doubtful and hashlib.file_digest(opened(tar, members[name]), "sha256").hexdigest() != wanted

    if SUMS not in members:
        return [f"{SUMS}: missing, so nothing says what the files should be"]
    return compare_sums(opened(tar, members[SUMS]).read(), sums_sha256, set(members) - {SUMS}, is_changed)


def compare_sums(content: bytes, wanted: str, there: set[str], is_changed: Callable[[str, str], bool]) -> list[str]:
    """Return what differs between the files that are there and SHA256SUMS.

    Parameters
    ----------
    wanted
        Its own digest; empty where none is known.
    is_changed
        Says of a name and a digest whether the file has another.
    """
    findings = []
    if wanted and hashlib.sha256(content).hexdigest() != wanted:
        findings.append(f"{SUMS}: changed, so what it says of the other files is worth nothing")
    try:
        sums = read_sums(content.decode("utf-8", errors="replace"), SUMS)
    except BadInput as error:
        return [*findings, str(error)]
    findings += [f"{name}: missing" for name in sorted(set(sums) - there)]
    findings += [f"{name}: added, the bundle was packed without it" for name in sorted(there - set(sums))]
    return findings + [f"{name}: changed" for name in sorted(there & set(sums)) if is_changed(name, sums[name])]


def _files_below(folder: Path) -> Iterator[str]:
    for path, below, names in os.walk(folder):
        # A link to a folder is listed among the folders, and is not one.
        links = [name for name in below if Path(path, name).is_symlink()]
        for name in [*names, *links]:
            yield Path(path, name).relative_to(folder).as_posix()


def verify_folder(folder: Path, sums_sha256: str) -> BundleCheck:
    """Return what of an unpacked bundle is not as it was packed.

    Parameters
    ----------
    sums_sha256
        Digest that SHA256SUMS must have; empty where none is known.

    Raises
    ------
    BadInput
        If the folder holds no bundle.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise BadInput(f"{folder}: no {SUMS} in it, so this is no unpacked bundle")
    there = set(_files_below(folder))
    links = sorted(name for name in there if (folder / name).is_symlink())
    findings = [f"{name}: a symbolic link, a bundle holds none" for name in links]
    findings += compare_sums(
        sums.read_bytes(),
        sums_sha256.lower(),
        there - {SUMS} - set(links),
        lambda name, wanted: sha256_of_file(folder / name) != wanted,
    )
    if not findings:
        findings = compare_manifest(folder)
    return BundleCheck(folder.name, findings, len(there), sum((folder / name).lstat().st_size for name in there))


def compare_manifest(folder: Path) -> list[str]:
    """Return what differs between an unpacked bundle measured anew, its arrays and contract too, and its manifest."""
    manifest = load_block(Manifest, read_json(folder / MANIFEST), MANIFEST)
    contract = load_contract(folder / CONTRACT, manifest.contract.name) if manifest.contract else None
    sums = read_sums((folder / SUMS).read_text(encoding="utf-8"), SUMS)
    findings: list[str] = []
    for entry in manifest.files:
        if entry.path not in sums:
            findings.append(f"{entry.path}: in {MANIFEST} and not in {SUMS}")
            continue
        findings += [f"{entry.path}: {text}" for text in _compare_entry(folder, entry, sums[entry.path])]
        if entry.contract == KEPT and contract is not None:
            # The contract's pattern is about names below the data set's folder; arrays are what counts here.
            findings += check_file(folder, entry.path, contract).lines
    return findings


def _compare_entry(folder: Path, entry: Entry, sha256: str) -> list[str]:
    """What differs between a file and its entry; its digest was taken already, against SHA256SUMS."""
    path = folder / entry.path
    found: list[str] = []
    if (path.stat().st_size, sha256) != (entry.size, entry.sha256):
        found.append(f"{path.stat().st_size} bytes, SHA256 {sha256}; the manifest has {entry.size} and {entry.sha256}")
    if entry.arrays:
        arrays = array_forms(array_heads(path))
        found += [
            f"array {name} is {arrays.get(name)}, the manifest has {entry.arrays.get(name)}"
            for name in sorted(set(arrays) | set(entry.arrays))
            if arrays.get(name) != entry.arrays.get(name)
        ]
    return found
