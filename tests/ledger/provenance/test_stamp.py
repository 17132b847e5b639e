"""Provenance: which code, which data, which environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import to_json, write_json
from doseledger.ledger.provenance.recorded import dvc_hashes
from doseledger.ledger.provenance.stamp import git_state, run_provenance

LOCK = """schema: '2.0'
stages:
  evaluate@phantom-dose_unet:
    cmd: doseledger evaluate
    deps:
    - path: src/model.py
      hash: md5
      md5: aaaa
    outs:
    - path: reports/metrics/phantom/dose_unet
      hash: md5
      md5: bbbb.dir
  split@phantom:
    cmd: doseledger split
    outs:
    - path: data/splits/phantom.csv
      hash: md5
      md5: cccc
"""

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=A Physicist", "-c", "user.email=physics@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    return run


@pytest.fixture
def project(tmp_path: Path, git: Git) -> Path:
    git("init", "--quiet", "--initial-branch", "main")
    for name, text in {
        "src/model.py": "depth = 3\n",
        "params.yaml": "lr: 0.1\n",
        "dvc.lock": LOCK,
        "data/raw/phantom.dvc": "outs: []\n",
        "data/.gitignore": "/cases\n",
        "reports/metrics/phantom/dose_unet/summary.json": "{}\n",
        "data/splits/phantom.csv": "case_id\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git("add", "--all")
    git("commit", "--quiet", "-m", "first")
    return tmp_path


def test_clean_tree_names_its_commit_and_branch(project: Path, git: Git) -> None:
    state = git_state(project)
    assert (state.commit, state.branch, state.dirty, state.note) == (git("rev-parse", "HEAD"), "main", False, "")


def test_an_edited_source_file_makes_the_tree_dirty_and_is_named(project: Path) -> None:
    (project / "src/model.py").write_text("depth = 4\n")
    state = git_state(project)
    assert state.dirty
    assert state.dirty_paths == ("src/model.py",)
    assert state.note == "1 tracked file differs from the commit"


def test_a_staged_or_deleted_file_is_dirty_too(project: Path, git: Git) -> None:
    (project / "src/extra.py").write_text("x = 1\n")
    git("add", "src/extra.py")
    (project / "src/model.py").unlink()
    assert git_state(project).dirty_paths == ("src/extra.py", "src/model.py")


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml",
        "dvc.lock",
        "data/raw/phantom.dvc",
        "data/.gitignore",
        "reports/metrics/phantom/dose_unet/summary.json",
        "data/splits/phantom.csv",
    ],
)
def test_what_a_repro_itself_changes_leaves_the_tree_clean(project: Path, path: str) -> None:
    (project / path).write_text(LOCK.replace("cccc", "dddd"))
    assert not git_state(project).dirty


def test_an_out_that_only_the_committed_lock_names_is_still_an_out(project: Path) -> None:
    (project / "dvc.lock").unlink()
    (project / "data/splits/phantom.csv").write_text("other\n")
    assert not git_state(project).dirty


def test_params_of_another_folder_are_code(project: Path, git: Git) -> None:
    (project / "tests").mkdir()
    (project / "tests/params.yaml").write_text("lr: 1\n")
    git("add", "--all")
    assert git_state(project).dirty_paths == ("tests/params.yaml",)


def test_paths_are_relative_to_a_project_inside_a_larger_repository(tmp_path: Path, git: Git) -> None:
    git("init", "--quiet")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.py").write_text("1\n")
    (tmp_path / "outer.py").write_text("1\n")
    git("add", "--all")
    git("commit", "--quiet", "-m", "first")
    (inner / "a.py").write_text("2\n")
    (tmp_path / "outer.py").write_text("2\n")
    assert git_state(inner).dirty_paths == ("a.py",)


def test_odd_file_names_survive(project: Path, git: Git) -> None:
    (project / 'Größe und "Form".py').write_text("1\n")
    git("add", "--all")
    assert git_state(project).dirty_paths == ('Größe und "Form".py',)


def test_a_hooks_git_dir_does_not_lead_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    assert not git_state(project).dirty


def test_a_detached_head_has_a_commit_and_no_branch(project: Path, git: Git) -> None:
    git("checkout", "--quiet", "--detach")
    state = git_state(project)
    assert state.commit is not None
    assert state.branch is None


def test_a_repository_without_commits_says_so(tmp_path: Path, git: Git) -> None:
    git("init", "--quiet")
    state = git_state(tmp_path)
    assert state.dirty
    assert state.commit is None
    assert "no commit yet" in state.note


def test_a_folder_without_a_repository_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    state = git_state(tmp_path)
    assert state.dirty
    assert "no Git working tree" in state.note


def test_a_machine_without_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git command is not installed" in git_state(tmp_path).note


def test_dvc_hashes_of_the_named_stages(project: Path) -> None:
    hashes = dvc_hashes(project / "dvc.lock", ["evaluate@phantom-dose_unet", "train@phantom-dose_unet"])
    assert hashes == {
        "evaluate@phantom-dose_unet": {
            "deps": {"src/model.py": "aaaa"},
            "outs": {"reports/metrics/phantom/dose_unet": "bbbb.dir"},
        }
    }
    assert set(dvc_hashes(project / "dvc.lock")) == {"evaluate@phantom-dose_unet", "split@phantom"}


def test_an_out_that_was_not_hashed_has_no_hash_and_not_the_name_of_one(tmp_path: Path) -> None:
    stage = {"cmd": "none", "outs": [{"path": "a.csv", "hash": "md5"}]}
    write_json(tmp_path / "dvc.lock", {"schema": "2.0", "stages": {"split": stage}})
    assert dvc_hashes(tmp_path / "dvc.lock") == {"split": {"deps": {}, "outs": {"a.csv": ""}}}


def test_dvc_hashes_without_a_lock_are_empty_and_of_another_file_refused(tmp_path: Path) -> None:
    assert dvc_hashes(tmp_path / "dvc.lock") == {}
    (tmp_path / "dvc.lock").write_text("- a\n- b\n")
    with pytest.raises(BadInput, match=r"not a dvc\.lock"):
        dvc_hashes(tmp_path / "dvc.lock")


def test_run_provenance_holds_no_absolute_path_and_hashes_the_lock_of_packages(project: Path) -> None:
    lock = project / "requirements.lock"
    lock.write_text("numpy==2\n")
    record = run_provenance(project, ["/opt/bin/doseledger", "train", str(project / "data/cases")], lock)
    assert record["command"] == ["doseledger", "train", "data/cases"]
    assert len(record["lock_sha256"]) == 64
    assert record["packages"]["numpy"]
    assert str(project) not in to_json(record)
    assert record["git"]["dirty"] is False


def test_provenance_does_not_load_torch() -> None:
    code = "import sys, doseledger.ledger.provenance.stamp as p, pathlib as l; " \
           "p.run_provenance(l.Path('.'), [], l.Path('x')); sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_out_of_another_pipeline_file_is_an_out_wherever_its_stage_works(project: Path, git: Git) -> None:
    # The phantom's stage stands in data/raw/dvc.yaml with `wdir: ../..`: its list of cases once made every run dirty.
    lock = "schema: '2.0'\nstages:\n  phantom:\n    cmd: c\n    outs:\n    - path: data/raw/phantom.csv\n"
    (project / "data/raw/dvc.yaml").write_text("stages:\n  phantom:\n    wdir: ../..\n    cmd: c\n")
    (project / "data/raw/dvc.lock").write_text(lock)
    (project / "data/raw/phantom.csv").write_text("case_id\n")
    git("add", "--all")
    git("commit", "--quiet", "-m", "phantoms")
    (project / "data/raw/phantom.csv").write_text("case_id\ncase_0001\n")
    assert not git_state(project).dirty
    (project / "data/raw/other.csv").write_text("case_id\n")
    git("add", "--all")
    assert git_state(project).dirty_paths == ("data/raw/other.csv",)
