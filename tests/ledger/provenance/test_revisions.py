"""What Git keeps of a commit, byte for byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from doseledger.ledger.provenance.git import run_git
from doseledger.ledger.provenance.revisions import read_blobs

CONTENT = {"a.txt": b"one\ntwo", "empty": b"", "deep/b.bin": b"\x00\r\n\xff\n", "with a space.csv": b"x,y\n1,2\n"}


@pytest.fixture
def commit(tmp_path: Path) -> str:
    for name, content in CONTENT.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_bytes(content)
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=false")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "files")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    return run_git(tmp_path, "rev-parse", "HEAD").stdout.strip()


def test_files_come_byte_for_byte_and_folders_and_absent_ones_are_left_out(commit: str, tmp_path: Path) -> None:
    wanted = ["a.txt", "deep", "empty", "absent", "deep/b.bin", "absent with a space", "with a space.csv"]
    found = read_blobs(tmp_path / "project", [(commit, name) for name in wanted])
    assert found == {(commit, name): CONTENT[name] for name in wanted if name in CONTENT}
    assert list(found) == [(commit, name) for name in wanted if name in CONTENT]


def test_nothing_asked_is_nothing_found_even_where_there_is_no_repository(tmp_path: Path) -> None:
    assert read_blobs(tmp_path / "nowhere", []) == {}
