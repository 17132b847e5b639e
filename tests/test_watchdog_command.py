"""The watchdog as a command, as what a training command does by itself, and what is left to go on from."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from doseledger.cli import watchdog as module
from doseledger.cli.app import app
from doseledger.cli.watchdog import FURTHER, watched
from doseledger.core.errors import BadInput
from doseledger.core.settings import load_settings
from doseledger.learn.watch.heartbeat import WATCHED_BY, Pulse


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FURTHER, WATCHED_BY, "WORLD_SIZE", "SLURM_NTASKS", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings that ship, with a short patience and the watchdog on."""
    text = (repository / "params.yaml").read_text()
    short = text.replace("silence_seconds: 900.0", "silence_seconds: 2.0").replace("enabled: false", "enabled: true")
    (tmp_path / "params.yaml").write_text(short)
    rules = load_settings(tmp_path / "params.yaml").train.watchdog
    assert (rules.enabled, rules.silence_seconds) == (True, 2.0)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_the_command_starts_this_very_program_again_and_ends_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys\nprint(os.environ['DOSELEDGER_WATCHED_BY'], sys.argv[1:])\nsys.exit(3)\n")
    monkeypatch.setattr(module, "PROGRAM", (sys.executable, str(program)))
    shown = CliRunner().invoke(app, ["watchdog", "--", "train", "m"])
    assert shown.exit_code == 3


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("command", "message"), [([], "Missing argument"), (["predict", "x"], "watches a training .*, found: predict x")]
)
def test_what_is_no_training_is_not_watched(command: list[str], message: str) -> None:
    shown = CliRunner().invoke(app, ["watchdog", "--", *command])
    assert shown.exit_code != 0
    assert re.search(message, f"{shown.output} {shown.exception}")


@pytest.mark.usefixtures("project")
def test_processes_that_slurm_starts_are_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    shown = CliRunner().invoke(app, ["watchdog", "--", "train", "m"])
    assert isinstance(shown.exception, BadInput)
    # Who has the watchdog enabled has called `train` already, and would be sent round in a circle.
    assert "sbatch --requeue), set train.watchdog.enabled to false, and call train" in str(shown.exception)


@pytest.mark.usefixtures("project")
def test_a_training_command_becomes_its_own_watchdog_once(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []

    def execv(program: str, arguments: list[str]) -> None:
        became.append(arguments)
        raise SystemExit

    calls: list[dict[str, Any]] = []
    command = watched(lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(module.os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["/bin/doseledger", "train", "dose_unet", "--fresh"])
    with pytest.raises(SystemExit):
        command()
    program = [sys.executable, "-m", "doseledger.cli.app"]
    assert became == [[*program, "watchdog", "--", "train", "dose_unet", "--fresh"]]
    assert calls == []
    monkeypatch.setenv(WATCHED_BY, "1")
    command()
    assert (len(became), len(calls)) == (1, 1)


def test_as_shipped_no_watchdog_stands_between(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    calls: list[dict[str, Any]] = []
    watched(lambda **arguments: calls.append(arguments))()
    assert len(calls) == 1


def test_of_several_processes_the_first_alone_is_recorded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import functools

    monkeypatch.chdir(repository)
    seen: list[str] = []

    def train(**arguments: Any) -> None:
        seen.append("trained")

    @functools.wraps(train)
    def recorded(**arguments: Any) -> None:
        seen.append("recorded")
        train(**arguments)

    watched(recorded)()
    monkeypatch.setenv("LOCAL_RANK", "1")
    watched(recorded)()
    assert seen == ["recorded", "trained", "trained"]


def test_interrupted_trainings_are_listed_and_thrown_away_in_json_too(project: Path) -> None:
    folder = project / ".doseledger/resume/dose_unet/0123456789abcdef"
    Pulse(folder).beat(3, 96)
    (folder / "last.ckpt").write_bytes(b"x")
    shown = CliRunner().invoke(app, ["resume", "list", "--json"])
    (one,) = json.loads(shown.stdout)
    assert one == {
        "model": "dose_unet", "fingerprint": "0123456789abcdef", "epoch": 3, "step": 96, "pid": os.getpid(),
    }  # fmt: skip
    assert "dose_unet 0123456789abcdef: epoch 3, step 96" in CliRunner().invoke(app, ["resume", "list"]).stdout
    shown = CliRunner().invoke(app, ["resume", "clear", "dose_unet", "--json"])
    assert json.loads(shown.stdout) == {"model": "dose_unet", "cleared": 1}
    assert CliRunner().invoke(app, ["resume", "list"]).stdout == "no interrupted run\n"
