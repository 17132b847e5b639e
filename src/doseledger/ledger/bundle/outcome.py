"""The index of a bundle, the outcome of a check, and the comparison with SHA256SUMS that both forms of one share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from typing import Annotated, Any

from pydantic import Field

from doseledger.core.errors import BadInput, GateFailed
from doseledger.core.schema import Block
from doseledger.ledger.bundle.manifest import SUMS, read_sums

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
# A plain name of a file beside the index, never a path.
Name = Annotated[str, Field(pattern=r"^[^/\\\\]+$")]
# How many findings an error message spells out.
MOST_SHOWN = 20


class PartRow(Block):
    """One part of an archive, in its index."""

    name: Name
    size: Count
    sha256: Digest


class AuditRow(Block):
    """The head of the sender's audit log when the bundle was packed."""

    length: Count
    sha256: Digest
    log_id: str


class Index(Block):
    """What NAME.tar.index.json says."""

    format: int
    bundle: Name
    scenario: str
    size: Count
    parts: Annotated[list[PartRow], Field(min_length=1)]
    block_bytes: Annotated[int, Field(ge=1)]
    blocks: list[Digest]
    sums_sha256: Digest
    audit: AuditRow | None


@dataclass(frozen=True)
class BundleCheck:
    """What was found.

    Parameters
    ----------
    bundle
        Its name.
    findings
        One line each; none where every byte is as it was packed.
    n_files, n_bytes
        What was read.
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
        shown = "".join(f"\n  - {line}" for line in check.findings[:MOST_SHOWN])
        more = f"\n  - and {len(check.findings) - MOST_SHOWN} more" if len(check.findings) > MOST_SHOWN else ""
        raise GateFailed(f"{check.bundle}: not what was packed, {len(check.findings)} finding(s):{shown}{more}")


def compare_sums(content: bytes, wanted: str, there: set[str], is_changed: Callable[[str, str], bool]) -> list[str]:
    """Return what differs between the files that are there and SHA256SUMS.

    Parameters
    ----------
    content
        Of SHA256SUMS.
    wanted
        Its own digest; empty where none is known.
    there
        Names of all other files.
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


def digest_of(stream: BufferedReader) -> str:
    """Return the SHA256 of what a stream still holds, in hex."""
    return hashlib.file_digest(stream, "sha256").hexdigest()
