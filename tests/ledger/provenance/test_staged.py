"""What a commit must never hold is refused while it is staged: by its place, and by what it is."""

from __future__ import annotations

import gzip
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import GateFailed, NotReady
from doseledger.core.files import write_text
from doseledger.ledger.provenance.staged import MARKS, SUFFIXES, _kinds, data_in_git, staged_data


@pytest.fixture
def root(tmp_path: Path, repository: Path) -> Path:
    """A project's ignore rules and pipeline, under Git."""
    for name in (".gitignore", "dvc.yaml", "params.yaml"):
        write_text(tmp_path / name, (repository / name).read_text())
    git(tmp_path, "init", "-q")
    return tmp_path


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True)


def stage(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    git(root, "add", "--force", path)


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, ct_hu=np.zeros(3))
    return stream.getvalue()


KINDS = {
    "docs/scan": (bytes(128) + b"DICM" + bytes(9), "DICOM"),
    "docs/scan2": (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "DICOM without preamble"),
    "docs/scan.dcm": (b"whatever", "DICOM"),
    "tests/SCAN.IMA": (b"whatever", "DICOM"),
    "notes/case": (array(), "a ZIP: packed data, arrays"),
    "notes/raw.txt": (zipped(a=b"1"), "a ZIP: packed data"),
    "notes/image.nii.gz": (gzip.compress(b"image"), "gzip"),
    "notes/image": (bytes(344) + b"n+1\0", "a NIfTI image"),
    "src/best.ckpt": (b"weights", "weights"),
    "src/state.pickle": (b"\x80\x04", "a pickle"),
    "docs/report.html": (b"<html>patient 7</html>", "a page"),
    "docs/report": (b"%PDF-1.7 patient 7", "a PDF page"),
    "data/cases/phantom/case_0001.txt": (b"a note of patient 7", "data of DVC or this machine, by its place"),
    "reports/html/clinic/data.txt": (b"a note of patient 7", "data of DVC or this machine, by its place"),
}


@pytest.mark.parametrize("path", list(KINDS))
def test_a_file_that_may_hold_patients_is_refused_by_what_it_is_or_where_it_lies(root: Path, path: str) -> None:
    content, why = KINDS[path]
    stage(root, path, content)
    (found,) = staged_data(root)
    assert found.path == path
    assert found.why.startswith(why)


def test_code_settings_text_and_figures_pass_and_so_does_what_is_not_staged(root: Path) -> None:
    git(root, "add", ".")
    stage(root, "src/model.py", b"depth = 3\n")
    stage(root, "reports/metrics/phantom/dose_unet/cases.csv", b"case_id,mae_gy\n")
    stage(root, "reports/templates/report.html.j2", b"<html>{{ title }}</html>")
    stage(root, "docs/figure.png", b"\x89PNG\r\n")
    stage(root, "docs/empty.md", b"")
    (root / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    assert staged_data(root) == []


def test_the_index_counts_and_not_the_tree(root: Path) -> None:
    stage(root, "note.txt", bytes(128) + b"DICM")
    (root / "note.txt").write_text("harmless")
    assert [file.path for file in staged_data(root)] == ["note.txt"]


def test_in_a_project_below_the_repositorys_root_paths_are_the_projects(root: Path, repository: Path) -> None:
    stage(root, "clinic/params.yaml", b"a: 1\n")
    stage(root, "clinic/scan with ünicode", bytes(128) + b"DICM")
    assert [file.path for file in staged_data(root / "clinic")] == ["scan with ünicode"]


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no Git repository, so nothing is staged"):
        staged_data(tmp_path)


def test_the_command_fails_with_each_file_and_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["check", "staged"])
    assert (done.exit_code, done.output) == (0, "nothing staged is a patient's, a model or a page\n")
    stage(root, "scan", bytes(128) + b"DICM")
    done = CliRunner().invoke(app, ["check", "staged"])
    assert done.output.startswith("scan: DICOM\n")
    assert isinstance(done.exception, GateFailed)
    assert "`git restore --staged FILE`" in str(done.exception)


def test_an_ignore_file_beside_an_out_is_no_data_in_git(root: Path) -> None:
    stage(root, "models/phantom/.gitignore", b"/dose_unet\n")
    assert data_in_git(root) == []
    stage(root, "models/phantom/dose_unet/history.csv", b"epoch\n")
    assert data_in_git(root) == ["models/phantom/dose_unet/history.csv"]


# Where the mark stands by the format's own description, in bytes from the beginning.
PLACES = {b"DICM": 128, b"n+1\0": 344, b"ni1\0": 344, b"ustar": 257}


@pytest.mark.parametrize(("start", "mark", "what"), MARKS)
def test_a_mark_counts_where_its_format_has_it_and_nowhere_else(start: int, mark: bytes, what: str) -> None:
    place = PLACES.get(mark, 0)
    assert list(_kinds("x", b"a" * place + mark + b"rest")) == [what]
    assert list(_kinds("x", b"a" * place + mark[:-1])) == []
    assert list(_kinds("x", b"a" * (place + 1) + mark)) == []


def test_a_kind_without_a_mark_goes_by_the_end_of_its_name_in_any_case() -> None:
    for suffix, what in SUFFIXES.items():
        assert list(_kinds(f"a/b{suffix.upper()}", b"text")) == [what]
    assert list(_kinds("a/b.txt", b"\x08\x00\x16\x00rest")) == ["DICOM without preamble"]
    assert list(_kinds("a/b.txt", b"\x08\x00\x17\x00rest")) == []
