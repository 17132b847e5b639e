"""A project that is laid out from a wheel, outside any clone, works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput
from doseledger.ledger.provenance.new_project import make_project


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as its wheel unpacks it, away from the clone."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(out / "site")], check=True)
    return out / "site"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the unpacked wheel, and not this clone, as its package; nobody's Git identity is needed."""
    shim = installed / "bin" / "doseledger"
    if not shim.exists():
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m doseledger.cli.app "$@"\n')
        shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(installed), "PATH": path, "ITERATIVE_DO_NOT_TRACK": "1"}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=True)


def test_a_project_from_a_wheel_is_whole_and_its_first_stages_run(installed: Path, tmp_path: Path) -> None:
    written = json.loads(run(installed, tmp_path, "doseledger", "init", "mine", "--json").stdout)
    project = tmp_path / "mine"
    assert {"dvc.yaml", ".gitignore", "validation/cohorts/prostate/protocol.yaml"} <= set(written)
    assert (project / ".git").is_dir()
    assert "- src/doseledger" not in (project / "dvc.yaml").read_text()
    stages = ("code", "settings@phantom", "model_settings@phantom-dose_unet")
    done = run(installed, project, "dvc", "repro", *stages)
    assert all(f"Running stage '{stage}'" in done.stdout for stage in stages)
    # The hashes are those of the wheel's own code, whose every stage runs it.
    status = json.loads(run(installed, project, "dvc", "status", *stages, "--json").stdout)
    assert status == {}
    assert "report.html" in run(installed, project, "doseledger", "where").stdout
    assert "prostate" in run(installed, project, "doseledger", "settings", "--cohort", "prostate").stdout


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty; name a new folder"):
        make_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
