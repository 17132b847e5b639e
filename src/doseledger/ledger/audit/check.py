"""Check of an audit log against its own chain and copies of its head.

The chain alone shows an edit, a removal and a reordering by whoever did not write all later lines anew. What shows
those too, and a log cut off at its end, are *anchors*: copies of the head's length and hash in other places. An anchor
in the same clone is worth no more than the log: whoever can write the one can write the other. One from outside, a
printed page or a tag as a remote holds it, can't be rewritten with the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.ledger.audit.log import NO_ENTRY, AuditHead, describe_torn, hash_of, parse_entry, serialise


@dataclass(frozen=True)
class Anchor:
    """A copy of a log's head somewhere else.

    Parameters
    ----------
    where
        What holds it: a tag, a manifest, a report.
    head
        The head as it was then.
    log_id
        Which log's head: the SHA256 of its first entry; empty where the holder does not say.
    is_outside
        Whether it was brought from where nobody who writes the log can write.
    """

    where: str
    head: AuditHead
    log_id: str = ""
    is_outside: bool = False


@dataclass(frozen=True)
class AuditFinding:
    """A sign that the log is not what was written.

    Parameters
    ----------
    line
        Line of the file, from 1; 0 where it concerns the whole log.
    message
        What was found, and what it means.
    """

    line: int
    message: str


@dataclass(frozen=True)
class AuditCheck:
    """What the check of a log found.

    Parameters
    ----------
    findings
        In order of lines; empty where the log is what was written.
    notes
        What is no fault: lines cut short by a killed writer, and named since.
    anchored
        How many entries, from the first on, an anchor vouches for.
    outside
        How many of them an anchor from outside vouches for.
    """

    head: AuditHead
    findings: tuple[AuditFinding, ...]
    notes: tuple[AuditFinding, ...]
    anchored: int
    outside: int

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(log: Path, anchors: Iterable[Anchor], given: Sequence[str] = ()) -> AuditCheck:
    """Return every sign that a log was edited, shortened or reordered, by its own chain and by all anchors.

    Parameters
    ----------
    log
        The log; where there is none, it is one of no entries.
    given
        SHA256 of heads that a person brought from outside, in hex; how many entries there were is not asked.
    """
    lines = log.read_bytes().split(b"\n") if log.is_file() else [b""]
    ended = lines[-1] == b""
    hashes: list[str] = []
    findings: list[AuditFinding] = []
    notes: list[AuditFinding] = []
    torn: list[tuple[int, bytes]] = []
    recorded = NO_ENTRY
    for number, line in enumerate(lines[:-1] if ended else lines, start=1):
        entry = parse_entry(line)
        if entry is None:
            torn.append((number, line))
            continue
        findings += _judge_entry(number, line, entry, AuditHead(len(hashes), recorded))
        found, named = _judge_torn(number, torn, entry)
        findings += found
        notes += named
        torn = []
        recorded = str(entry["sha256"])
        hashes.append(hash_of(entry))
    for number, line in torn:
        text = f"{len(line)} bytes are no entry: a writer was stopped in the midst; the next entry will name them"
        notes.append(AuditFinding(number, text))
    anchors = tuple(anchors)
    held, broken = _judge_anchors(hashes, anchors)
    proven, _ = _judge_anchors(hashes, [anchor for anchor in anchors if anchor.is_outside])
    places = {sha256: number for number, sha256 in enumerate(hashes, start=1)}
    for sha256 in given:
        if sha256 in places:
            proven = max(proven, places[sha256])
        else:
            message = f"no entry is the head {sha256} that was given from outside: the log was cut off or written anew"
            broken.append(AuditFinding(0, message))
    head = AuditHead(len(hashes), hashes[-1] if hashes else NO_ENTRY)
    return AuditCheck(head, (*findings, *broken), tuple(notes), max(held, proven), proven)


def _judge_entry(number: int, line: bytes, entry: dict[str, Any], before: AuditHead) -> list[AuditFinding]:
    findings = []
    if line != serialise(entry) or entry["sha256"] != hash_of(entry):
        findings.append(AuditFinding(number, f"entry {entry['n']} was edited: its content does not give its SHA256"))
    if entry["previous"] != before.sha256 or entry["n"] != before.length + 1:
        findings.append(
            AuditFinding(
                number,
                f"entry {entry['n']} does not follow on entry {before.length} above it: entries were removed, added, "
                "edited or put in another order",
            )
        )
    return findings


def _judge_torn(
    number: int, torn: list[tuple[int, bytes]], entry: dict[str, Any]
) -> tuple[list[AuditFinding], list[AuditFinding]]:
    """Return what is wrong with the cut-short lines above an entry, and those that it names."""
    named = entry.get("torn", [])
    if named == [describe_torn(line) for _, line in torn]:
        text = f"cut short when a writer was stopped, and named by entry {entry['n']}"
        return [], [AuditFinding(where, f"{len(line)} bytes: {text}") for where, line in torn]
    if not torn:
        message = f"entry {entry['n']} names {len(named)} line(s) cut short above it, which are gone"
        return [AuditFinding(number, message)], []
    message = f"no entry, and not as entry {entry['n']} below names what a killed writer left"
    return [AuditFinding(where, message) for where, _ in torn], []


def _judge_anchors(hashes: list[str], anchors: Iterable[Anchor]) -> tuple[int, list[AuditFinding]]:
    """Return how many entries the anchors vouch for, and the anchors that this log does not fit."""
    held, findings, own = 0, [], hashes[0] if hashes else ""
    for anchor in anchors:
        length = anchor.head.length
        other = f" (it names the log {anchor.log_id})" if anchor.log_id not in ("", own) else ""
        if length > len(hashes):
            message = f"{anchor.where} saw {length} entries, here are {len(hashes)}: the log was cut off or replaced"
            findings.append(AuditFinding(0, message + other))
        elif length and hashes[length - 1] != anchor.head.sha256:
            message = f"entry {length} is not the one that {anchor.where} saw: it, or one before it, was changed"
            findings.append(AuditFinding(0, message + other))
        else:
            held = max(held, length)
    return held, findings
