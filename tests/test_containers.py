"""Containers, the development container and Git's hooks: whole, alike, and without what a clinic must not have."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from doseledger.cli.app import app
from doseledger.core.files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER, APPTAINER = ROOT / "containers/Dockerfile", ROOT / "containers/apptainer.def"


def packed() -> set[str]:
    """What the wheel is built of, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    return {*wheel["force-include"], *(str(Path(name).parent) for name in wheel["packages"]), *named}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their words, a continued line as one."""
    text = "\n".join(line for line in DOCKER.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def sections() -> dict[str, list[str]]:
    """Apptainer's sections by name; what stands before the first is the header."""
    found: dict[str, list[str]] = {"header": []}
    name = "header"
    for line in APPTAINER.read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def system_packages(text: str) -> set[str]:
    (words,) = re.findall(r"--no-install-recommends([^\n&]+)", text.replace("\\\n", " "))
    return set(re.findall(r"[a-z][a-z0-9.+-]+", words))


def test_both_images_hold_what_the_wheel_is_built_of_and_no_data() -> None:
    allowed = {line[1:] for line in DOCKER.with_name("Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    copied = {line.split()[0] for line in sections()["files"]}
    assert allowed == copied == packed() | {"containers/install.sh"}
    assert all((ROOT / path).exists() for path in allowed)
    assert all(line.split()[1] == f"/source/{line.split()[0]}" for line in sections()["files"])


def test_both_images_have_the_same_system_and_run_the_same_installation() -> None:
    apptainer = sections()
    post = "\n".join(apptainer["post"])
    assert system_packages(DOCKER.read_text()) == system_packages(post) >= {"git", "libpango-1.0-0"}
    assert "python:${PYTHON}-slim-bookworm AS system" in DOCKER.read_text()
    assert apptainer["header"] == ["Bootstrap: docker", "From: python:3.11-slim-bookworm"]
    for text in (DOCKER.read_text(), post):
        assert "/source/containers/install.sh /source /opt/doseledger" in text
        assert "git config --system --add safe.directory '*'" in text


def test_a_container_runs_without_root_and_downloads_nothing() -> None:
    words = instructions()
    last = words[max(n for n, (word, _) in enumerate(words) if word == "FROM") :]
    assert ("USER", "1000:1000") in last
    assert not {word for word, _ in last} & {"RUN", "ADD", "ENTRYPOINT"}
    # DVC asks for the name of its user, and a number given by --user has none.
    assert "USER=doseledger" in dict(last)["ENV"].split()
    assert [rest for word, rest in last if word == "COPY"] == ["--from=built /opt/doseledger /opt/doseledger"]
    told = sections()["environment"]
    assert all(line.startswith("export ") for line in told)
    assert sections()["runscript"] == ['exec "$@"']
    # Nobody is told of what is done with patients.
    for text in (dict(last)["ENV"], "\n".join(told)):
        assert "ITERATIVE_DO_NOT_TRACK=1" in text
        assert "GX_ANALYTICS_ENABLED=False" in text
        assert "NUMBA_CACHE_DIR=/tmp" in text


@pytest.mark.parametrize("script", ["install.sh", "post"])
def test_what_is_run_while_building_is_shell(script: str) -> None:
    text = (ROOT / "containers/install.sh").read_text() if script == "install.sh" else "\n".join(sections()["post"])
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_torch_of_the_images_is_the_makefiles() -> None:
    (wanted,) = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert f"${{TORCH:-{wanted}}}" in (ROOT / "containers/install.sh").read_text()
    assert ("ARG", f"TORCH={wanted}") in instructions()


def test_the_development_container_is_a_stage_of_the_image() -> None:
    dev = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    build = dev["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == DOCKER
    assert f"AS {build['target']}" in DOCKER.read_text()
    assert "make env" in dev["postCreateCommand"]
    assert dev["customizations"]["vscode"]["settings"]["telemetry.telemetryLevel"] == "off"


def test_every_hook_is_local_and_is_a_command_that_there_is() -> None:
    content: dict[str, Any] = read_yaml(ROOT / ".pre-commit-config.yaml")
    (repo,) = content["repos"]
    assert repo["repo"] == "local"
    assert [hook["id"] for hook in repo["hooks"]] == ["no-patients", "code-digests", "ruff", "ruff-format"]
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        words = shlex.split(hook["entry"])
        if words[0] == "doseledger":
            command: Any = typer.main.get_command(app)
            for word in words[1:]:
                command = command.commands[word]
        else:
            assert words[0] == "ruff"
    # Whatever is staged, patients are looked for.
    assert repo["hooks"][0]["always_run"] is True


def test_every_python_that_is_promised_is_tried_by_both_services() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    wanted = ["3.11", "3.12", "3.13"]
    github: dict[str, Any] = read_yaml(ROOT / ".github/workflows/ci.yml")
    assert github["jobs"]["code"]["strategy"]["matrix"]["python"] == wanted
    gitlab: dict[str, Any] = read_yaml(ROOT / ".gitlab-ci.yml")
    assert gitlab["code"]["parallel"]["matrix"] == [{"PYTHON_VERSION": wanted}]
