"""The recipes for continuous integration: their YAML is whole, and every command in them exists as it stands there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from doseledger.cli.app import app
from doseledger.core.files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
GITHUB, GITLAB = ".github/workflows/ci.yml", ".gitlab-ci.yml"


def scripts(name: str) -> list[str]:
    recipe: dict[str, Any] = read_yaml(ROOT / name)
    if name == GITHUB:
        return [step["run"] for step in recipe["jobs"]["validate"]["steps"] if "run" in step]
    return [line for part in ("before_script", "script", "after_script") for line in recipe["validate"][part]]


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_a_recipe_pulls_judges_compares_and_checks(name: str) -> None:
    text = "\n".join(scripts(name))
    for wanted in ("make env", "dvc pull", "dvc status", "pytest validation", "runs check", "dvc metrics diff --md"):
        assert wanted in text


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_the_gates_speak_before_anything_else_can_end_the_job(name: str) -> None:
    text = "\n".join(scripts(name))
    # A failed gate leaves its stage out of dvc.lock, so `dvc status` fails with it, and names no limit.
    assert text.index("pytest validation") < text.index("runs check") < text.index("dvc status")


def test_on_github_a_failed_gate_silences_neither_the_checklist_nor_the_comparison() -> None:
    steps: list[dict[str, Any]] = read_yaml(ROOT / GITHUB)["jobs"]["validate"]["steps"]
    after = steps[1 + next(n for n, step in enumerate(steps) if "pytest validation" in step.get("run", "")) :]
    assert [step["if"] for step in after[:2]] == ["${{ !cancelled() && steps.pull.outcome == 'success' }}"] * 2
    assert [step["if"] for step in after[2:]] == ["always()"] * 2
    assert "metrics.md" in after[-1]["with"]["path"]


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_every_line_is_shell(name: str) -> None:
    for script in scripts(name):
        done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_every_command_of_ours_has_the_options_that_it_is_given(name: str) -> None:
    lines = [line for script in scripts(name) for line in script.splitlines() if "doseledger " in line]
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({}, ""),
        ({"train@a": [{"changed deps": {}}]}, "stale: ['train@a']; run dvc repro"),
    ],
)
def test_a_stale_pipeline_fails_and_the_page_of_runs_does_not(
    name: str, status: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (script,) = (script for script in scripts(name) if "import json" in script)
    python = script[script.index(".venv/bin/python") :].replace(".venv/bin/python", sys.executable)
    (tmp_path / "dvc-status.json").write_text(json.dumps(status))
    done = subprocess.run(["bash", "-c", python], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if message else 0), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_code_is_tested_on_any_machine_and_patients_are_read_on_the_clinics_own(name: str) -> None:
    recipe: dict[str, Any] = read_yaml(ROOT / name)
    jobs = recipe["jobs"] if name == GITHUB else recipe
    assert "make test" in str(jobs["code"])
    assert "make check" in str(jobs["code"])
    assert "dvc pull" not in str(jobs["code"])
    validate = jobs["validate"]
    asked = validate["if"] if name == GITHUB else validate["rules"][0]["if"]
    assert "CLINIC_RUNNER" in asked
    assert (validate["runs-on"] if name == GITHUB else validate["tags"]) in (["self-hosted", "linux"], ["clinic"])


@pytest.mark.parametrize("name", [GITHUB, GITLAB])
def test_a_recipe_runs_from_its_first_line_to_its_last(name: str, tmp_path: Path) -> None:
    # Programs that note how they were called stand for those that need data; the shell is real.
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    noted = tmp_path / "calls.txt"
    answer = '[[ "$*" == "status --json" ]] && echo {}\nexit 0\n'
    python = f'[[ "$1" == -c ]] && exec {sys.executable} "$@"\nexit 0\n'
    for program in ("dvc", "doseledger", "python", "make", "git"):
        end = python if program == "python" else answer
        (programs / program).write_text(f'#!/bin/bash\necho "{program} $*" | head -1 >> {noted}\n{end}')
        (programs / program).chmod(0o755)
    variables = {"BASE": "main", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "GITHUB_STEP_SUMMARY": "summary.md"}
    environment = os.environ | variables | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    # GitLab runs a job's lines in one shell, GitHub each step in its own.
    steps = scripts(name) if name == GITHUB else ["\n".join(scripts(name))]
    for step in steps:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{step}\n{done.stderr}"
    calls = [line.split(" ", 2)[:2] for line in noted.read_text().splitlines() if not line.startswith("git ")]
    assert [" ".join(call) for call in calls] == [
        "make env", "dvc pull", "python -m", "doseledger runs", "dvc status", "python -c", "dvc metrics",
    ]  # fmt: skip
    assert (tmp_path / "metrics.md").is_file()
