"""Kinds of raw cohorts: how cases are found, digested, packed and converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.source import read_members, source_digest
from doseledger.ingest.nifti import case as nifti
from doseledger.ingest.nifti.files import digest_volumes, find_volumes, label_names, members_to_pack
from doseledger.ingest.openkbp import case as openkbp
from doseledger.ingest.openkbp.files import find_patients
from doseledger.ingest.patient import case as dicom
from doseledger.ingest.patient.case import Converted, Origin
from doseledger.ingest.raw import find_sources

Digests = tuple[dict[str, str], dict[str, BadCase]]


def convert_openkbp(source: Path, origin: Origin, protocol: Protocol) -> Converted:
    """Return the case of one OpenKBP patient; every alias of the protocol counts."""
    return Converted(openkbp.convert_case(source, origin, protocol))


def convert_nifti(source: Path, origin: Origin, protocol: Protocol) -> Converted:
    """Return the case of one pair of image and label; every alias of the protocol counts."""
    return Converted(nifti.convert_case(source, origin, protocol))


def no_context(sources: Mapping[str, Path]) -> dict[str, str]:
    """Return nothing: each case says all of itself."""
    return {}


def labels_of(sources: Mapping[str, Path]) -> dict[str, str]:
    """Return the names of label values that the cohort's dataset.json gives."""
    names = label_names(next(iter(sources.values()))) or {}
    return {str(value): name for value, name in names.items()}


def members_of(source: Path) -> dict[str, bytes]:
    """Return the files of a folder or zip by name."""
    return dict(read_members(source))


def digest_sources(sources: Mapping[str, Path]) -> Digests:
    """Return the digest of each case's files, empty where they can't be read, and why they can't."""
    digests: dict[str, str] = {}
    unreadable: dict[str, BadCase] = {}
    for case_id, path in sources.items():
        try:
            digests[case_id] = source_digest(path)
        except BadCase as error:
            digests[case_id], unreadable[case_id] = "", error
    return digests, unreadable


@dataclass(frozen=True)
class RawSource:
    """One kind of raw files.

    Parameters
    ----------
    converter
        Name of the module that makes a case of them.
    convert
        Case of what `find` gave.
    find
        Where each case lies, by name.
    digests
        Digest of each case's files, empty where they can't be read; and why a case can't be used at all.
    members
        Files of a case to pack, by name.
    context
        What the cohort says of all its cases, on which a conversion hangs too.
    """

    converter: str
    convert: Callable[[Path, Origin, Protocol], Converted]
    find: Callable[[Path], dict[str, Path]]
    digests: Callable[[Mapping[str, Path]], Digests] = digest_sources
    members: Callable[[Path], dict[str, bytes]] = members_of
    context: Callable[[Mapping[str, Path]], dict[str, str]] = no_context


# By `Protocol.source`.
SOURCES = {
    "dicom": RawSource(dicom.__name__, dicom.convert, find_sources),
    "openkbp": RawSource(openkbp.__name__, convert_openkbp, find_patients),
    "nifti": RawSource(nifti.__name__, convert_nifti, find_volumes, digest_volumes, members_to_pack, labels_of),
}
