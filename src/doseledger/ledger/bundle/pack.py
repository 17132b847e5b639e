"""Packing of data, run and reports into one self-describing archive.

NAME.tar (or NAME.tar.001, …) holds the files and, first of all, what they are: README.md, manifest.json and .md,
files.csv, SHA256SUMS and the contract. NAME.tar.index.json beside it holds the digests of the parts, of each block of
4 MiB and of SHA256SUMS, which can't stand inside. Whoever has the index's own digest can hold every byte to it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes, write_json
from doseledger.core.text.lists import bulleted
from doseledger.core.types import Tell
from doseledger.ledger.bundle.bitrot import recorded_files
from doseledger.ledger.bundle.manifest import FORMAT_VERSION, OWN, SUMS, Entry, Index, Source, measure, stamp
from doseledger.ledger.bundle.parts import (
    BLOCK_BYTES,
    PartWriter,
    check_names,
    find_parts,
    member_head,
    require_space,
    scratch_folder,
)
from doseledger.ledger.bundle.raw_dicom import refuse_raw_dicom
from doseledger.ledger.bundle.record import SUFFIX, Order, describe_bundle
from doseledger.ledger.bundle.sources import bundle_name, gather
from doseledger.parity.check import FileCheck, check_data_set
from doseledger.parity.contract import load_contract

INDEX_SUFFIX = ".index.json"
# How many findings of a contract a refusal spells out.
MOST_SHOWN = 8


def pack(out: Path, order: Order, cache: Path | None, tell: Tell) -> dict[str, Any]:
    """Return the index of a bundle that was written whole, `NAME.tar.index.json` as JSON values.

    Parameters
    ----------
    out
        NAME.tar; nothing of that name may be there. Written beside it first, and moved when whole.
    cache
        DVC's cache, by which the files of recorded folders are known; None where there is no DVC project.

    Raises
    ------
    BadInput
        If a name, a link, an array of objects, a broken contract, a file that is not what dvc.lock records, raw DICOM
        that nobody asked for, or a file that changes while it is packed stands in the way. Nothing is left behind then.
    NotReady
        If the disk has no room for it.
    BadCase
        If raw DICOM may identify a patient.
    """
    _refuse_taken(out)
    recorded = recorded_files(order.root, cache) if cache is not None else {}
    sources = gather(order.wanted, order.root, recorded)
    check_names([*OWN, *(source.name for source in sources)], str(out))
    stamps = [stamp(source.path) for source in sources]
    n_dicom = refuse_raw_dicom({source.name: source.path for source in sources}, order.dicom_protocol)
    checks = _keep_contract(order, tell)
    entries: list[Entry] = []
    for number, (source, before) in enumerate(zip(sources, stamps, strict=True), start=1):
        entries.append(measure(source, checks.get(source.name), before))
        tell(f"[{number}/{len(sources)}] {source.name}")
    own = describe_bundle(out.name.removesuffix(SUFFIX), order, entries, n_dicom)
    require_space(out.parent, sum(entry.size for entry in entries))
    with scratch_folder(out) as scratch:
        writer = PartWriter(scratch, out.name, order.part_bytes)
        _write_archive(writer, own, sources, entries)
        content = {
            "format": FORMAT_VERSION,
            "bundle": out.name,
            "scenario": order.scenario,
            "size": writer.tell(),
            "parts": writer.parts,
            "block_bytes": BLOCK_BYTES,
            "blocks": writer.blocks,
            "sums_sha256": sha256_of_bytes(own[SUMS]),
            "audit": order.audit,
        }
        index = Index.model_validate(content).model_dump()
        write_json(scratch / f"{out.name}{INDEX_SUFFIX}", index)
        # The index comes last: an archive without one is known to be unfinished.
        for name in (*(part.name for part in writer.parts), f"{out.name}{INDEX_SUFFIX}"):
            (scratch / name).rename(out.with_name(name))
    return index


def index_path(archive: Path) -> Path:
    """Return where the index of an archive lies."""
    return archive.with_name(f"{archive.name}{INDEX_SUFFIX}")


def _refuse_taken(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise BadInput(f"{out}: wanted a name that ends in {SUFFIX}")
    taken = [path.name for path in (out, index_path(out), *find_parts(out)) if path.exists()]
    if taken:
        raise BadInput(f"{out}: {', '.join(taken)} is there already; a bundle is never overwritten, give another name")


def _keep_contract(order: Order, tell: Tell) -> dict[str, FileCheck]:
    """What the contract says of each NPZ of the data, by its name in the bundle; anything amiss is a refusal."""
    if not order.wanted.data:
        return {}
    if order.contract is None:
        raise BadInput("data are packed under a contract: give --contract (docs/reference/contracts.md)")
    contract = load_contract(order.contract)
    found: dict[str, FileCheck] = {}
    for folder in order.wanted.data:
        check = check_data_set(folder, contract)
        lines = check.lines
        if lines:
            shown = bulleted(lines, MOST_SHOWN)
            raise BadInput(f"{folder}: breaks the contract {contract.name} in {len(lines)} place(s):{shown}")
        tell(f"{folder}: {len(check.files)} file(s) keep the contract {contract.name}")
        place = bundle_name(folder, order.root, "data")
        found |= {f"{place}/{name}": item for name, item in check.files.items()}
    return found


def _write_archive(writer: PartWriter, own: dict[str, bytes], sources: list[Source], entries: list[Entry]) -> None:
    # POSIX.1-2001: names of any length and alphabet, sizes beyond 8 GiB, and the same bytes for the same members.
    with writer, tarfile.open(fileobj=writer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for key in OWN:
            if key in own:
                archive.addfile(member_head(key, len(own[key])), io.BytesIO(own[key]))
        for source, entry in zip(sources, entries, strict=True):
            with source.path.open("rb") as stream:
                watched = _Watched(stream)
                try:
                    archive.addfile(member_head(entry.path, entry.size), watched)
                except OSError as error:
                    # tarfile says so where a file ends before its size is reached.
                    if "unexpected end of data" not in str(error):
                        raise
                    raise _changed(entry) from error
                if watched.digest.hexdigest() != entry.sha256 or stream.read(1):
                    raise _changed(entry)


def _changed(entry: Entry) -> BadInput:
    return BadInput(f"{entry.path}: changed while it was packed; let what writes it end, and pack again")


class _Watched(io.RawIOBase):
    """A file whose digest is taken as it is read."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        return content
