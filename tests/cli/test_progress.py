"""Progress: plain lines in a log, one bar on a terminal, and nothing said is lost."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from doseledger.cli import progress as module
from doseledger.cli.progress import Bar, tell


@pytest.fixture
def drawn() -> tuple[Bar, io.StringIO]:
    out = io.StringIO()
    return Bar(Console(file=out, force_terminal=True, width=100)), out


def test_counted_lines_become_one_bar_with_n_of_n(drawn: tuple[Bar, io.StringIO]) -> None:
    bar, out = drawn
    for number in range(1, 4):
        bar.show(f"[{number}/3] case_000{number}")
    # Its last state is drawn before it is taken away, and no line of it stays.
    assert "3/3" in out.getvalue()
    assert "[1/3]" not in out.getvalue()


def test_what_a_counted_line_says_besides_is_printed(drawn: tuple[Bar, io.StringIO]) -> None:
    bar, out = drawn
    bar.show("[1/2] case_0001: failed: no RTDOSE [1]")
    bar.show("a word [bold]besides")
    bar.close()
    assert "[1/2] case_0001: failed: no RTDOSE [1]" in out.getvalue()
    assert "a word [bold]besides" in out.getvalue()


def test_the_next_step_begins_a_bar_of_its_own(drawn: tuple[Bar, io.StringIO]) -> None:
    bar, out = drawn
    for line in ("[1/1] case_0001", "[1/9] case_0001"):
        bar.show(line)
    bar.close()
    bar.close()
    assert "1/9" in out.getvalue()


def test_in_a_log_lines_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    tell("[1/2] case_0001")
    assert capsys.readouterr() == ("", "[1/2] case_0001\n")


def noting(told: list[Any]) -> Any:
    """A class like rich's, which notes what is asked of it."""

    class Progress:
        def __init__(self, *columns: Any, console: Any, transient: bool) -> None:
            told.append(("new", [type(column).__name__ for column in columns], console, transient))

        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")

        def add_task(self, description: str, total: int) -> str:
            told.append(("task", description, total))
            return "the task"

        def update(self, task: str, **values: Any) -> None:
            told.append((task, values))

    return Progress


def test_a_bar_is_begun_once_moved_by_each_line_and_stopped_by_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("rich.progress.Progress", noting(told))
    console: Any = SimpleNamespace(print=lambda line, **how: told.append((line, how)))
    bar = Bar(console)
    bar.show("some words")
    bar.show("[1/3] a")
    bar.show("[2/3] b: odd")
    bar.show("[3/3] c")
    bar.show("[5/4] d")
    bar.close()
    plain = {"markup": False, "highlight": False, "soft_wrap": True}
    columns = ["TextColumn", "BarColumn", "MofNCompleteColumn", "TimeRemainingColumn"]
    assert told == [
        ("some words", plain), ("new", columns, console, True), "start", ("task", "a", 3),
        ("the task", {"completed": 1, "total": 3, "description": "a"}), ("[2/3] b: odd", plain),
        ("the task", {"completed": 2, "total": 3, "description": "b:"}),
        ("the task", {"completed": 3, "total": 3, "description": "c"}), "stop",
        ("new", columns, console, True), "start",
        ("task", "d", 4), ("the task", {"completed": 5, "total": 4, "description": "d"}), "stop",
    ]  # fmt: skip


def test_on_a_terminal_one_bar_shows_every_line_and_ends_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    at_exit: list[Any] = []
    monkeypatch.setattr(module, "_bar", None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(module.atexit, "register", at_exit.append)
    monkeypatch.setattr(Bar, "show", lambda self, line: shown.append(f"{line} {self.console.stderr}"))
    tell("one")
    first = module._bar
    tell("two")
    assert shown == ["one True", "two True"]
    assert module._bar is first
    assert at_exit == [first.close]
