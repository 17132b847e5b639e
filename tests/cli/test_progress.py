"""Progress: plain lines in a log, one bar on a terminal, and nothing said is lost."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

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
