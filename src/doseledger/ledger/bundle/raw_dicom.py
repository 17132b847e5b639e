"""Raw DICOM in a bundle: refused unasked, scanned for identity if asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from doseledger.core.damage import DAMAGED, check_zip
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.privacy.phi import refuse_phi
from doseledger.dicom.source import PREAMBLE_BYTES, SourceFile, parse_dataset
from doseledger.parity.check import NPZ

MAGIC = b"DICM"
SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
ZIP_MAGIC = b"PK\x03\x04"


def refuse_raw_dicom(paths: dict[str, Path], protocol: Protocol | None) -> int:
    """Return how many raw DICOM files there are, each of which passed the scan for attributes that identify a patient.

    Parameters
    ----------
    paths
        Files by their name in the bundle. A zip among them is looked into: packed raw cases are zips.
    protocol
        Its `phi` block says what may stay; None where raw DICOM was not asked for.

    Raises
    ------
    BadInput
        If there is raw DICOM and it was not asked for, or the protocol has no `phi` block.
    BadCase
        Naming attributes and files, never values, if something may identify a patient.
    """
    count = 0
    for name, path in paths.items():
        for file, content in _dicom_of(name, path):
            if protocol is None:
                raise BadInput(
                    f"{file} is raw DICOM, which a bundle does not take unasked: leave it out, or give "
                    "--dicom-protocol with the protocol by which it is scanned for what may identify a patient"
                )
            if protocol.phi is None:
                raise BadInput(f"protocol {protocol.name} has no phi block; it says what a pseudonym looks like")
            dataset = parse_dataset(content)
            if dataset is None:
                raise BadCase(file, "looks like DICOM and can't be read as such, so nobody knows whom it names")
            refuse_phi([SourceFile(file, dataset)], protocol.phi, name)
            count += 1
    return count


def _dicom_of(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as stream:
        head = stream.read(PREAMBLE_BYTES + len(MAGIC))
    if _looks_like_dicom(name, head):
        yield name, path.read_bytes()
    elif head.startswith(ZIP_MAGIC) and path.suffix != NPZ:
        try:
            with zipfile.ZipFile(path) as archive:
                check_zip(archive, name)
                for info in archive.infolist():
                    with archive.open(info) as member:
                        is_dicom = _looks_like_dicom(info.filename, member.read(PREAMBLE_BYTES + len(MAGIC)))
                    if is_dicom:
                        yield f"{name}:{info.filename}", archive.read(info)
        except DAMAGED as error:
            raise BadInput(
                f"{name}: a zip that can't be looked into ({error}) may hold raw DICOM; unpack it, or leave it out"
            ) from error


def _looks_like_dicom(name: str, head: bytes) -> bool:
    return head[PREAMBLE_BYTES:] == MAGIC or PurePosixPath(name).suffix.lower() in SUFFIXES
