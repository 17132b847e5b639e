"""SHA256 of large files, remembered while a file stays as it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from doseledger.core.files import sha256_of_file
from doseledger.core.project.layout import Machine, main_root

TABLE = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
# How long one process waits for another that writes, in seconds.
PATIENCE_S = 5.0


def known_sha256(path: Path) -> str:
    """Return the SHA256 of a file of the project, in hex; read again only where the file changed.

    Raises
    ------
    OSError
        If it can't be read.

    Notes
    -----
    A file counts as unchanged while size, inode and times of modification and of change are the same. The last is the
    system's own: no tool sets it back. Files outside the project are not remembered, and a store that can't be used
    costs time alone.
    """
    machine, place = Machine(main_root()), path.resolve()
    if not place.is_relative_to(machine.root.resolve()):
        return sha256_of_file(path)
    key, state = str(place.relative_to(machine.root.resolve())), _state(place)
    found = _ask(machine.digests, key, state)
    if found is None:
        found = sha256_of_file(place)
        # A file that was written to meanwhile is not remembered.
        if _state(place) == state:
            _remember(machine.digests, key, state, found)
    return found


def _state(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def _ask(store: Path, key: str, state: str) -> str | None:
    if not store.is_file():
        return None
    try:
        with closing(sqlite3.connect(store, timeout=PATIENCE_S)) as known:
            row = known.execute("SELECT sha256 FROM digests WHERE path = ? AND state = ?", (key, state)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def _remember(store: Path, key: str, state: str, sha256: str) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(store, timeout=PATIENCE_S)) as known, known:
            known.execute(TABLE)
            known.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (key, state, sha256))
    except (sqlite3.Error, OSError):
        # A full or read-only disk: the file is read again the next time.
        return
