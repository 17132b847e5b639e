"""A disk that is full or read-only: one message, and the files that were there before, all of them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from doseledger.cli import app as cli
from doseledger.core import files
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import all_or_none, atomic_path, write_json, write_text
from doseledger.core.project.layout import VerdictPaths
from doseledger.gates.verdict import make_verdict, write_verdict

FAULTS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EROFS: "the disk is mounted read-only; mount it for writing",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EACCES: "there is no right to write there",
}
Refuse = Callable[[int, int], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Make the disk refuse, with an error number, every text after so many."""

    def patch(number: int, after: int) -> None:
        write, written = Path.write_text, []

        def write_or_refuse(self: Path, *args: object, **kwargs: object) -> int:
            written.append(self)
            if len(written) > after:
                raise OSError(number, os.strerror(number), str(self))
            return write(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "write_text", write_or_refuse)

    return patch


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("number", FAULTS)
def test_a_disk_that_refuses_is_one_message_and_the_old_file_stays(number: int, tmp_path: Path, refuse: Refuse) -> None:
    write_text(tmp_path / "table.csv", "old")
    refuse(number, 0)
    with pytest.raises(NotReady, match=rf"table\.csv: can't be written: {FAULTS[number]}.*run the command again\."):
        write_text(tmp_path / "table.csv", "new")
    assert content(tmp_path) == {"table.csv": "old"}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_of_a_set_of_files_all_are_new_or_all_are_old(after: int, tmp_path: Path, refuse: Refuse) -> None:
    names = ("cases.csv", "dvh.csv", "goals.csv")
    for name in names:
        write_text(tmp_path / name, "old")
    refuse(errno.ENOSPC, after)

    def write_all() -> None:
        with all_or_none():
            for name in names:
                write_text(tmp_path / name, "new")

    with pytest.raises(NotReady, match="the disk is full"):
        write_all()
    assert content(tmp_path) == dict.fromkeys(names, "old")


def test_a_set_that_fails_for_another_reason_leaves_the_old_files_too(tmp_path: Path) -> None:
    write_text(tmp_path / "one", "old")

    def write_both() -> None:
        with all_or_none():
            write_text(tmp_path / "one", "new")
            raise BadInput("no second one")

    with pytest.raises(BadInput, match="no second one"):
        write_both()
    assert content(tmp_path) == {"one": "old"}
    # What comes after is written as ever.
    write_text(tmp_path / "one", "new")
    assert content(tmp_path) == {"one": "new"}


def test_a_set_within_a_set_takes_its_names_with_the_outer_one(tmp_path: Path) -> None:
    with all_or_none():
        with all_or_none():
            write_text(tmp_path / "inner", "1")
        assert not (tmp_path / "inner").exists()
        write_text(tmp_path / "outer", "2")
        write_text(tmp_path / "outer", "3")
    assert content(tmp_path) == {"inner": "1", "outer": "3"}


def test_a_verdict_is_never_a_new_finding_beside_an_old_token(tmp_path: Path, refuse: Refuse) -> None:
    paths = VerdictPaths(tmp_path / "model.json", tmp_path / "model_findings.json")
    write_verdict(make_verdict("model", "a" * 64, [], {}), paths)
    before = content(tmp_path)
    refuse(errno.ENOSPC, 1)
    with pytest.raises(NotReady, match="the disk is full"):
        write_verdict(make_verdict("model", "b" * 64, [], {}), paths)
    assert content(tmp_path) == before


def test_a_fault_of_a_file_elsewhere_is_not_told_of_this_one(tmp_path: Path) -> None:
    def read_another() -> None:
        with atomic_path(tmp_path / "out" / "table.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/raw.dcm")

    with pytest.raises(PermissionError, match=r"raw\.dcm"):
        read_another()


def test_a_folder_that_can_not_be_made_is_told_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(NotReady, match=r"one\.json: can't be written: the disk is mounted read-only"):
        write_json(tmp_path / "new" / "one.json", {})


def test_the_program_says_it_in_one_line_where_no_file_of_ours_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "train.log")

    monkeypatch.setattr(cli, "app", run)
    monkeypatch.setattr(cli, "_run_the_folders_own_code", lambda: None)
    monkeypatch.setattr(sys, "argv", ["doseledger"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    shown = capsys.readouterr().err
    assert shown == "error: train.log: can't be written: the disk is full; free some space, and run the command again\n"
    assert files.disk_fault(OSError(errno.ENOENT, "x")) == ""


def test_a_file_that_may_not_be_read_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "case_0001.npz")

    monkeypatch.setattr(cli, "app", run)
    monkeypatch.setattr(cli, "_run_the_folders_own_code", lambda: None)
    monkeypatch.setattr(sys, "argv", ["doseledger"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "case_0001.npz: can't be read or written: there is no right to it; mend" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"can't be read \(Is a directory\); mend its rights or its disk"):
        files.sha256_of_file(tmp_path)
