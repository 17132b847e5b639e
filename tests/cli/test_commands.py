"""Every command with its panel, and every argument and option: how it is written, its kind, its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from fixtures.known import assert_known

from doseledger.cli import app as program
from doseledger.cli.app import app


def describe(command: Any, name: str) -> list[str]:
    """A line a command and one for each of its parameters, subcommands below it."""
    is_group = isinstance(command, typer.main.TyperGroup)
    panel = command.rich_help_panel if isinstance(command.rich_help_panel, str) else "-"
    lines = [
        f"{name} [{panel}]{' group' if is_group else ''}{', help without words' if command.no_args_is_help else ''}"
    ]
    for one in command.params if name != "doseledger" else ():
        kind = str(one.type_descriptor.annotation).replace("<class '", "").replace("'>", "")
        told = [*one.opts, *one.secondary_opts, kind, f"from {one.min} to {one.max}", f"else {one.default!r}"]
        told += [word for word in ("required", "multiple", "is_flag", "hidden") if getattr(one, word, False)]
        told += ["completed"] if one._custom_shell_complete is not None else []
        lines.append("  " + " ".join(told))
    for part, below in command.commands.items() if is_group else ():
        lines += describe(below, f"{name} {part}")
    return lines


def test_every_command_takes_what_it_took() -> None:
    lines = describe(typer.main.get_command(app), "doseledger")
    assert_known(Path(__file__).parent / "known" / "commands.txt", "\n".join(lines))


@pytest.mark.parametrize(("words", "now", "said"), [
    (["gamma", "a", "b"], ["dose", "gamma", "a", "b"], "`doseledger gamma` is called `doseledger dose gamma` now\n"),
    (["runs", "search", "x"], ["runs", "list", "x"], "`doseledger runs search` is called `doseledger runs list` now\n"),
    (["runs", "list"], ["runs", "list"], ""), (["splits"], ["splits"], ""), ([], [], ""), (["dvh"], ["dose", "dvh"],
        None),
])  # fmt: skip
def test_a_former_name_is_replaced_and_told(
    words: list[str], now: list[str], said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program._present_name(words) == now
    told = capsys.readouterr()
    assert told.out == ""
    assert said is None or told.err == said


@pytest.mark.parametrize("words", [["calibrate", "x"], ["calibrate"], ["check", "metrics", "m"]])
def test_a_command_that_is_gone_ends_with_2_and_what_took_its_place(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program._present_name(words)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert " is gone; now: doseledger " in told.err


@pytest.mark.parametrize(("words", "now", "said"), [
    (["--workers", "0", "x"], ["--scale", "here", "x"], "`--workers 0` is `--scale here` now\n"),
    (["a", "--workers=3"], ["a", "--scale", "local:3"], "`--workers 3` is `--scale local:3` now\n"),
    (["--cluster", "tcp://x:1"], ["--scale", "dask:tcp://x:1"],
        "`--cluster tcp://x:1` is `--scale dask:tcp://x:1` now\n"),
    (["--workers"], ["--scale", "local:"], "`--workers ` is `--scale local:` now\n"), (["--json", "a=b"], ["--json",
        "a=b"], ""),
])  # fmt: skip
def test_a_former_option_is_replaced_and_told(
    words: list[str], now: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program._present_options(words) == now
    assert capsys.readouterr() == ("", said)
