"""The audit log: append-only JSON lines, chained by SHA256.

A line is one entry in canonical JSON: `n` (1, 2, 3 …), `at` (UTC), `previous` (SHA256 of the entry before), whatever
its writer recorded, and `sha256` of all that. Nothing is ever taken out or overwritten, not even by the repair of a
line that a killed writer left cut short: the next entry closes that line off and names it by length and hash.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes

NO_ENTRY = "0" * 64
# Keys that the log itself writes.
OWN_KEYS = frozenset({"n", "at", "previous", "torn", "sha256"})
TAIL_BYTES = 1 << 16
# A writer holds the lock for milliseconds: whoever waits this long waits for a process that was stopped.
LOCK_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class AuditHead:
    """The state of a log: how many entries it has, and the SHA256 of the last; zeros where there is none."""

    length: int
    sha256: str


@dataclass(frozen=True)
class _Tail:
    """The last entry of a log, the cut-short lines behind it, and whether the file ends with a line's end."""

    head: AuditHead
    torn: tuple[bytes, ...]
    ended: bool


def append_entry(log: Path, entry: Mapping[str, Any]) -> AuditHead:
    """Append an entry to a log and return the new head; the log is made where there is none.

    Parameters
    ----------
    entry
        What to record, as JSON values. The log adds `n`, `at`, `previous`, `sha256`, and `torn` where a killed writer
        left a line cut short.

    Raises
    ------
    BadInput
        If the log can't be written, or another process holds it and does not let go.

    Notes
    -----
    The entry is on the disk when this returns (fsync). Writers take turns by a lock on the file (flock), which ends
    with its holder, so a killed writer blocks nobody. The file is opened for appending only: it can be given the
    append-only attribute (`chattr +a`).
    """
    taken = OWN_KEYS & set(entry)
    if taken:
        raise BadInput(f"{log}: an entry can't set {', '.join(sorted(taken))}: the log writes these itself")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        is_new = not log.exists()
        with _locked(log) as descriptor:
            tail = _read_tail(descriptor)
            line, head = _next_line(tail, entry)
            _write_all(descriptor, line)
            os.fsync(descriptor)
        if is_new:
            _sync_folder(log.parent)
    except OSError as error:
        raise BadInput(
            f"{log}: the audit log can't be written ({error.strerror or error}); free its disk or mend its rights: "
            "what leaves no record is not run"
        ) from error
    return head


def read_head(log: Path) -> AuditHead:
    """Return the head of a log: its length and the SHA256 of its last entry; 0 and zeros where there is none."""
    if not log.is_file():
        return AuditHead(0, NO_ENTRY)
    with log.open("rb") as stream:
        return _read_tail(stream.fileno()).head


def read_log_id(log: Path) -> str:
    """Return what tells this log from those of other clones, the SHA256 of its first entry; empty where there is none.

    Each clone of a project has a log of its own, while tags and manifests travel.
    """
    first = next(read_entries(log), None) if log.is_file() else None
    return str(first["sha256"]) if first else ""


def read_entries(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log, oldest first, unchecked; lines cut short are passed over.

    Raises
    ------
    BadInput
        If there is no log.
    """
    if not log.is_file():
        raise BadInput(f"{log}: no audit log here yet; the first command that changes something starts it")
    with log.open("rb") as stream:
        for line in stream:
            entry = parse_entry(line.removesuffix(b"\n"))
            if entry is not None:
                yield entry


def _next_line(tail: _Tail, entry: Mapping[str, Any]) -> tuple[bytes, AuditHead]:
    """The bytes that append an entry behind a tail, and the head that they make."""
    content: dict[str, Any] = {
        **entry,
        "n": tail.head.length + 1,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "previous": tail.head.sha256,
    }
    if tail.torn:
        content["torn"] = [describe_torn(line) for line in tail.torn]
    content["sha256"] = hash_of(content)
    # One write, so that nothing can come between the end of a line cut short and the entry that names it.
    line = (b"" if tail.ended else b"\n") + serialise(content) + b"\n"
    return line, AuditHead(int(content["n"]), str(content["sha256"]))


def serialise(entry: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of an entry: sorted keys, no white space, ASCII."""
    # ASCII: a file name that is no UTF-8 reaches us with lone surrogates, which only an escape can write.
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def hash_of(entry: Mapping[str, Any]) -> str:
    """Return the SHA256 of an entry, its own `sha256` left out."""
    return sha256_of_bytes(serialise({key: value for key, value in entry.items() if key != "sha256"}))


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, unchecked; None where it is none, as a line cut short is."""
    try:
        entry = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("n"), int):
        return None
    if not isinstance(entry.get("sha256"), str) or not isinstance(entry.get("previous"), str):
        return None
    return entry


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that an entry can hold")
    return number


def describe_torn(line: bytes) -> dict[str, Any]:
    """Return how an entry names a line that was cut short: its length and hash."""
    return {"bytes": len(line), "sha256": sha256_of_bytes(line)}


def _read_tail(descriptor: int) -> _Tail:
    """The end of an open log, read backwards until an entry is found."""
    size, block = os.fstat(descriptor).st_size, TAIL_BYTES
    while True:
        start = max(0, size - block)
        lines = os.pread(descriptor, size - start, start).split(b"\n")
        ended = lines[-1] == b""
        if ended:
            lines.pop()
        for index in range(len(lines) - 1, -1 if start == 0 else 0, -1):
            entry = parse_entry(lines[index])
            if entry is not None:
                head = AuditHead(int(entry["n"]), str(entry["sha256"]))
                return _Tail(head, tuple(lines[index + 1 :]), ended)
        if start == 0:
            return _Tail(AuditHead(0, NO_ENTRY), tuple(lines), ended)
        block *= 2


@contextmanager
def _locked(log: Path) -> Iterator[int]:
    """Yield the descriptor of a log opened for appending, held by this process alone."""
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    waited = f"another process has held the audit log for {LOCK_SECONDS:.0f} s"
                    raise BadInput(f"{log}: {waited}; end it, or let it go on") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield descriptor
    finally:
        # Closing the descriptor gives the lock back.
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
