"""A digest is remembered while a file stays as it is, and for no longer."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from doseledger.core import digests
from doseledger.core.digests import known_sha256


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in order."""
    found: list[Path] = []
    original = digests.sha256_of_file

    def noted(path: Path) -> str:
        found.append(path)
        return original(path)

    monkeypatch.setattr(digests, "sha256_of_file", noted)
    return found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_and_again_after_each_change(project: Path, read: list[Path]) -> None:
    path = project / "case.npz"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        assert [known_sha256(path), known_sha256(Path("case.npz"))] == [sha256(content)] * 2
    assert len(read) == 2


def test_a_file_of_the_same_size_and_time_that_took_its_place_is_read(project: Path, read: list[Path]) -> None:
    path, other = project / "case.npz", project / "other.npz"
    path.write_bytes(b"one")
    assert known_sha256(path) == sha256(b"one")
    other.write_bytes(b"two")
    found = path.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    assert known_sha256(path) == sha256(b"two")
    # In place, with the time set back: the time of change can't be.
    path.write_bytes(b"six")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert known_sha256(path) == sha256(b"six")
    assert len(read) == 3


def test_a_file_outside_the_project_is_not_remembered(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "case.npz"
    path.write_bytes(b"one")
    assert known_sha256(path) == sha256(b"one")
    assert not (project / ".doseledger").exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_store_that_is_damaged_costs_time_alone(project: Path, content: bytes) -> None:
    path = project / "case.npz"
    path.write_bytes(b"one")
    (project / ".doseledger").mkdir()
    (project / ".doseledger/digests.sqlite").write_bytes(content)
    assert known_sha256(path) == sha256(b"one")


def test_a_store_that_can_not_be_written_costs_time_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "case.npz"
    path.write_bytes(b"one")

    def full(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(digests.sqlite3, "connect", full)
    assert known_sha256(path) == sha256(b"one")
