"""Records of a bundle: index, manifest, table of files and SHA256SUMS."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from doseledger.core.errors import BadInput
from doseledger.core.files import CHUNK_BYTES
from doseledger.core.schema import Block
from doseledger.parity.arrays import ArrayHead, array_heads
from doseledger.parity.check import NPZ, FileCheck

FORMAT_VERSION = 1
MOST_BLOCK_BYTES = 1 << 28
MANIFEST, TABLE, SUMS, README, PAGE, CONTRACT = (
    "manifest.json", "files.csv", "SHA256SUMS", "README.md", "manifest.md", "contract.yaml",
)  # fmt: skip
# Files about the bundle itself, at its top; nothing else may have these names.
OWN = (README, PAGE, MANIFEST, TABLE, SUMS, CONTRACT)
COLUMNS = ("path", "role", "stage", "size", "sha256", "array", "dtype", "shape", "contract")
KEPT, NONE = "kept", "none"
# Size in bytes, and time of last change in nanoseconds.
Stamp = tuple[int, int]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
# A plain name of a file beside the index, never a path.
PlainName = Annotated[str, Field(pattern=r"^[^/\\\\]+$")]


class Part(Block):
    """One file of an archive, or the whole of it."""

    name: PlainName
    size: Count
    sha256: Digest


class AuditRow(Block):
    """The head of the sender's audit log when the bundle was packed."""

    length: Count
    sha256: Digest
    log_id: str


class Index(Block):
    """NAME.tar.index.json: digests of the parts, of each block of the archive and of SHA256SUMS."""

    format: int
    bundle: PlainName
    scenario: str
    size: Count
    parts: Annotated[list[Part], Field(min_length=1)]
    # So much is read at once.
    block_bytes: Annotated[int, Field(ge=1, le=MOST_BLOCK_BYTES)]
    blocks: list[Digest]
    sums_sha256: Digest
    audit: AuditRow | None


class Entry(Block):
    """A file of a bundle, measured.

    Parameters
    ----------
    role, stage, parameters
        As in `Source`.
    contract
        `kept` for an NPZ under the contract, else `none`.
    arrays
        Of an NPZ: by name its dtype and shape.
    md5
        What DVC recorded of it, and it was found to be; empty where nothing was recorded.
    """

    path: str
    role: str
    stage: str
    size: Count
    sha256: Digest
    contract: str
    arrays: dict[str, dict[str, Any]] = Field(default_factory=dict)
    md5: str = ""
    parameters: dict[str, Any] | None = None


class ContractRow(Block):
    """The contract that the data of a bundle keep."""

    name: str
    title: str
    sha256: Digest


class Manifest(Block):
    """manifest.json: the files of a bundle, and the code, machines and stages that made them."""

    format: int
    name: str
    scenario: str
    doseledger: str
    code: dict[str, Any]
    environment: list[dict[str, Any]]
    audit: AuditRow | None
    contract: ContractRow | None
    totals: dict[str, Any]
    raw_dicom: Count
    stages: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    files: list[Entry]


@dataclass(frozen=True)
class Source:
    """A file that goes into a bundle.

    Parameters
    ----------
    path
        Where it is now.
    name
        What it is called in the bundle.
    role
        data, run, report, file, evidence or provenance.
    stage
        The stage that made it; empty where none did.
    md5
        What DVC recorded of it; empty where it did not.
    parameters
        From the JSON beside an opaque file.
    """

    path: Path
    name: str
    role: str
    stage: str = ""
    md5: str = ""
    parameters: dict[str, Any] | None = None


def stamp(path: Path) -> Stamp:
    """Return size and time of last change of a file: they differ once somebody has written to it."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def array_forms(heads: Mapping[str, ArrayHead]) -> dict[str, dict[str, Any]]:
    """Return the dtype and shape of arrays by name, as JSON values."""
    return {name: {"dtype": str(head.dtype), "shape": list(head.shape)} for name, head in heads.items()}


def measure(source: Source, check: FileCheck | None, before: Stamp) -> Entry:
    """Return the entry of a file as it is now on disk.

    Parameters
    ----------
    check
        What the contract says of it, with the heads of its arrays; None where it is not under the contract.
    before
        Its stamp before the contract was checked.

    Raises
    ------
    BadInput
        If an NPZ holds objects or is damaged, if the file is not what DVC recorded, or if it changed while it was read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size = 0
    with source.path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            sha256.update(chunk)
            if source.md5:
                md5.update(chunk)
    if source.md5 and md5.hexdigest() != source.md5:
        raise BadInput(
            f"{source.name}: not what the stage {source.stage} wrote by dvc.lock (md5 {source.md5}); run `dvc repro` "
            "so that the record fits, or `dvc checkout` to have the recorded file back"
        )
    heads = check.heads if check is not None else array_heads(source.path) if source.path.suffix == NPZ else {}
    if stamp(source.path) != before or size != before[0]:
        raise BadInput(f"{source.name}: changed while it was read; let what writes it end, and pack again")
    return Entry(
        path=source.name,
        role=source.role,
        stage=source.stage,
        size=size,
        sha256=sha256.hexdigest(),
        contract=KEPT if check is not None else NONE,
        arrays=array_forms(heads),
        md5=source.md5,
        parameters=source.parameters,
    )


def files_table(entries: list[Entry]) -> str:
    """Return files.csv: a row for each array of an NPZ, one row for any other file."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        head = (entry.path, entry.role, entry.stage, entry.size, entry.sha256)
        for name, array in entry.arrays.items():
            shape = "x".join(map(str, array["shape"])) or "scalar"
            writer.writerow((*head, name, array["dtype"], shape, entry.contract))
        if not entry.arrays:
            writer.writerow((*head, "", "", "", entry.contract))
    return out.getvalue()


def sums_text(digests: dict[str, str]) -> str:
    """Return SHA256SUMS as `sha256sum -c` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def read_sums(text: str, where: str) -> dict[str, str]:
    """Return the digest of each file named in SHA256SUMS.

    Raises
    ------
    BadInput
        If a line is not of that form.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        digest, gap, name = line.partition("  ")
        if len(digest) != 64 or not gap or not name or name in found:
            raise BadInput(f"{where}: {line!r} is no line of a digest and a name, or names a file twice")
        found[name] = digest
    return found
