"""Every command with its panel, and every argument and option: how it is written, its kind, its default."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fixtures.known import assert_known

from doseledger.cli import app as program
from doseledger.cli import watchdog
from doseledger.cli.app import app
from doseledger.core.errors import BadInput


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


def run_main(failing: Exception | None, words: list[str], patch: pytest.MonkeyPatch) -> int:
    """The exit code of the program whose command line does nothing but fail."""

    def command_line(prog_name: str) -> None:
        assert prog_name == "doseledger"
        if failing is not None:
            raise failing

    patch.setattr(program, "_run_the_folders_own_code", lambda: None)
    patch.setattr(program, "app", command_line)
    patch.setattr("sys.argv", ["doseledger", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("failing", "said"), [
    (None, ""), (BadInput("no such case"), "error: no such case\n"),
    (OSError(errno.ENOSPC, "No space left on device", "data/a"), "error: data/a: can't be written: "),
    (OSError(errno.ENOSPC, "No space left on device"), "error: can't be written: "),
    (PermissionError(errno.EACCES, "Permission denied", "data/a"),
        "error: data/a: can't be read or written: there is no right to it; "
     "mend the rights of the file and its folder, and run the command again\n"),
])  # fmt: skip
def test_what_a_person_can_mend_is_one_message_and_exit_1(
    failing: Exception | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "set here, so that it is put back")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert run_main(failing, ["gamma", "--workers", "0"], monkeypatch) == (failing is not None)
    assert sys.argv == ["doseledger", "dose", "gamma", "--scale", "here"]
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    told = capsys.readouterr()
    assert told.out == ""
    assert "".join(told.err.splitlines(keepends=True)[2:]).startswith(said)
    assert len(told.err.splitlines()) == 2 + (failing is not None)


def test_another_failure_of_the_system_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_run_the_folders_own_code", lambda: None)

    def fail(prog_name: str) -> None:
        raise OSError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(program, "app", fail)
    monkeypatch.setattr("sys.argv", ["doseledger"])
    with pytest.raises(OSError, match="Broken pipe"):
        program.main()


@pytest.mark.parametrize(("has_code", "before", "paths"), [
    (False, None, None), (True, None, ["(own)"]), (True, "a:b", ["(own)", "a", "b"]), (True, "(own):b", None), (True,
        ":a", ["(own)", "a"]),
    (True, "a:(own)", ["(own)", "a", "(own)"]),
])  # fmt: skip
def test_the_working_folders_own_code_runs_where_it_has_some(
    has_code: bool, before: str | None, paths: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path.resolve() / "src"
    if has_code:
        (own / "doseledger/cli").mkdir(parents=True)
        (own / "doseledger/cli/app.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["doseledger", "train", "m"])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before.replace("(own)", str(own)))
    became: list[object] = []
    monkeypatch.setattr("os.execv", lambda *words: became.append(words))
    program._run_the_folders_own_code()
    if paths is None:
        assert became == []
        return
    assert became == [(sys.executable, [sys.executable, "-m", "doseledger.cli.app", "train", "m"])]
    assert os.environ["PYTHONPATH"] == ":".join(paths).replace("(own)", str(own))


def test_the_running_programs_own_clone_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(program.__file__).parents[3])
    monkeypatch.setattr("os.execv", lambda *words: pytest.fail(f"became {words}"))
    program._run_the_folders_own_code()


def test_a_training_under_watch_says_all_before_it_becomes_its_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", SimpleNamespace(flush=lambda name=name: done.append(name)))
    monkeypatch.setattr("sys.argv", ["doseledger", "train", "m", "--fresh"])
    monkeypatch.setattr("os.execv", lambda *words: done.append(words))
    watchdog._become_watchdog()
    words = ["-m", "doseledger.cli.app", "watchdog", "--", "train", "m", "--fresh"]
    assert done == ["stdout", "stderr", (sys.executable, [sys.executable, *words])]


@pytest.mark.parametrize(("name", "value", "is_further"), [
    ("RANK", "0", False), ("RANK", "1", True), ("SLURM_PROCID", "2", True), ("NODE_RANK", "1", True), ("LOCAL_RANK",
        "1", True),
    ("OTHER", "1", False),
])  # fmt: skip
def test_a_rank_above_0_is_of_a_further_process(
    name: str, value: str, is_further: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in watchdog.FURTHER:
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    assert watchdog.is_further_process() is is_further
