"""Before a model is tried or trained: a tree that no commit describes is told first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from doseledger.cli.shared import Project
from doseledger.cli.train import training_run
from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of two committed files; its data are not judged yet, so training goes no further than that."""
    shutil.copyfile(repository / "params.yaml", tmp_path / "params.yaml")
    write_text(tmp_path / "src/model.py", "depth = 3\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=A", "-c", "user.email=a@b.org", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.delenv("RANK", raising=False)
    return Project(Layout(tmp_path, "phantom"), load_settings(tmp_path / "params.yaml"))


def told(project: Project, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(BadInput, match=r"cases\.csv"):
        training_run(project, "dose_unet")
    return capsys.readouterr().err


def test_a_dirty_tree_is_told_before_anything_else_is_asked(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(project.layout.root / "src/model.py", "depth = 4\n")
    said = told(project, capsys)
    assert said.startswith("warning: DIRTY TREE: 1 tracked file differs from the commit (src/model.py). ")
    assert "can't be registered. Stop here and commit" in said


def test_changed_settings_are_no_dirty_tree_and_nothing_is_said(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    text = project.layout.params.read_text()
    write_text(project.layout.params, text.replace("lr: 0.002", "lr: 0.01"))
    assert told(project, capsys) == ""


def test_no_repository_at_all_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project.layout.root / ".git")
    assert "so no commit names the code that made this. What is trained now" in told(project, capsys)


def test_of_processes_that_train_together_the_first_alone_says_it(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(project.layout.root / "src/model.py", "depth = 4\n")
    monkeypatch.setenv("RANK", "1")
    assert told(project, capsys) == ""
