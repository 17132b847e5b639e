"""A bundle against its own word, packed or unpacked: every changed, missing or added file and damaged block is named.

What vouches for what: the index for each part, each block and SHA256SUMS; SHA256SUMS for every file inside;
manifest.json for stages and arrays. Whoever was told the index's digest by another way needs to trust nothing else.
"""

from __future__ import annotations

import hashlib
import tarfile
from io import BufferedReader
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.fanout import Tell
from doseledger.core.files import read_json, sha256_of_file
from doseledger.core.schema import load_block
from doseledger.ledger.bundle.manifest import SUMS
from doseledger.ledger.bundle.outcome import BundleCheck, Index, compare_sums, digest_of
from doseledger.ledger.bundle.pack import INDEX_SUFFIX, index_path
from doseledger.ledger.bundle.parts import PartReader, find_parts, open_reader
from doseledger.ledger.bundle.record import FORMAT_VERSION
from doseledger.ledger.bundle.unpacked import verify_folder


def verify_bundle(bundle: Path, index_sha256: str, tell: Tell) -> BundleCheck:
    """Return what of a bundle is not as it was packed.

    Parameters
    ----------
    bundle
        NAME.tar, one of its parts or its index; or a folder that it was unpacked to.
    index_sha256
        Digest of the index (of SHA256SUMS for a folder) as the sender gave it by another way; empty without one.
    tell
        Called with one line a step.

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
    block_bytes = index.block_bytes
    found: list[tuple[int, int]] = []
    with PartReader(paths) as stream:
        for number, wanted in enumerate(index.blocks):
            start = number * block_bytes
            stream.seek(start)
            content = _read_up_to(stream, block_bytes)
            if hashlib.sha256(content).hexdigest() != wanted:
                stop = min(start + block_bytes, index.size)
                if found and found[-1][1] == start:
                    found[-1] = (found[-1][0], stop)
                else:
                    found.append((start, stop))
    tell(f"{len(index.blocks)} block(s) read, {len(found)} damaged range(s)")
    return found


def _read_up_to(stream: PartReader, size: int) -> bytes:
    pieces: list[bytes] = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _touched(start: int, stop: int, members: dict[str, tarfile.TarInfo]) -> list[str]:
    return [name for name, head in members.items() if head.offset_data < stop and head.offset_data + head.size > start]


def _place(start: int, stop: int, index: Index, touched: list[str]) -> str:
    parts, first = [], 0
    for part in index.parts:
        if first < stop and first + part.size > start:
            parts.append(part.name)
        first += part.size
    shown = ", ".join(touched[:3]) + (f" and {len(touched) - 3} more" if len(touched) > 3 else "")
    where = f"; there lies {shown}" if shown else ""
    return f"{', '.join(parts)}: bytes {start} to {stop - 1} of the archive are not what was packed{where}"


def _check_members(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], damaged: list[tuple[int, int]], sums_sha256: str
) -> list[str]:
    """What differs between the members and SHA256SUMS; those that no damaged block touches are as they were packed."""
    doubtful = {name for start, stop in damaged for name in _touched(start, stop, members)}

    def is_changed(name: str, wanted: str) -> bool:
        if name not in doubtful:
            return False
        stream = tar.extractfile(members[name])
        # What tarfile gives of a plain file; of anything else there is nothing to read.
        return not isinstance(stream, BufferedReader) or digest_of(stream) != wanted

    if SUMS not in members:
        return [f"{SUMS}: missing, so nothing says what the files should be"]
    stream = tar.extractfile(members[SUMS])
    content = stream.read() if stream is not None else b""
    return compare_sums(content, sums_sha256, set(members) - {SUMS}, is_changed)
