"""Options that go together: half a pair is refused before anything is read, in every command that has the pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.errors import BadInput

# A page of a gate's own (`report` and its like write theirs from a folder of templates).
PAIRS = (("token", "findings"), ("html", "template"), ("runs_page", "templates"))


def commands(group: typer.main.TyperGroup, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        nested = isinstance(command, typer.main.TyperGroup)
        found |= commands(command, (*prefix, name)) if nested else {(*prefix, name): command}
    return found


COMMANDS = commands(typer.main.get_command(app))  # type: ignore[arg-type]
HALVES = [
    (words, given, pair)
    for words, command in COMMANDS.items()
    for pair in PAIRS
    if set(pair) <= {parameter.name for parameter in command.params}
    for given in pair
]


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_every_gate_has_a_pair() -> None:
    gates = {words for words in COMMANDS if words[0] == "check"} | {("preflight",), ("preflight-diffusion",)}
    assert gates | {("parity",)} == {words for words, _, pair in HALVES if "token" in pair}
    assert {words for words, _, pair in HALVES if "runs_page" in pair} == {("check", "metrics"), ("check", "shortcuts")}
    assert {words for words, _, pair in HALVES if "html" in pair} == {("check", "data"), ("check", "drift")}


@pytest.mark.parametrize(("words", "given", "pair"), HALVES)
def test_half_a_pair_is_refused(words: tuple[str, ...], given: str, pair: tuple[str, str], tmp_path: Path) -> None:
    # Nothing of what is named is there, so whatever was read first would be missed first.
    call = list(words)
    for parameter in COMMANDS[words].params:
        if parameter.required:
            name = [] if parameter.param_type_name == "argument" else [option(parameter.name)]
            call += [*name, str(tmp_path / parameter.name)]
    shown = CliRunner().invoke(app, [*call, option(given), str(tmp_path / given)])
    assert isinstance(shown.exception, BadInput), shown.output
    assert f"{option(pair[0])} and {option(pair[1])} go together: give both, or neither" in str(shown.exception)
    assert not (tmp_path / given).exists()


def test_a_verdict_of_parity_is_written_by_its_gate_alone(tmp_path: Path) -> None:
    words = ["parity", "a", "b", "--contract", "c.yaml", "--out", str(tmp_path / "out")]
    pair = ["--token", str(tmp_path / "token.json"), "--findings", str(tmp_path / "findings.json")]
    shown = CliRunner().invoke(app, [*words, *pair])
    assert isinstance(shown.exception, BadInput)
    assert "--token and --findings hold the gate's verdict: give --gate as well" in str(shown.exception)
