"""Tables on the terminal: as wide as its line, and nothing lost."""

from __future__ import annotations

import pytest

from doseledger.core.text.sheet import Cell, as_text, make_table

TABLE = make_table(
    "Goals",
    ("Goal", "#Value (Gy)", "Remark"),
    [("PTV70 D95% ≥ 66.5 Gy", "69.81", Cell("met by every plan that was looked at", "good")), ("Rectum", "3.00", "")],
)


def test_without_a_terminal_nothing_breaks() -> None:
    assert max(map(len, as_text(TABLE, colour=False).splitlines())) > 60


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_on_a_terminal_no_line_is_longer_than_its_width_and_no_word_is_lost(width: int) -> None:
    text = as_text(TABLE, colour=False, width=width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("Value", "(Gy)", "Remark", "PTV70", "D95%", "69.81", "plan", "looked", "Rectum", "3.00"):
        assert word in text


def test_where_no_line_holds_the_columns_each_row_is_a_block_with_its_headings() -> None:
    lines = as_text(TABLE, colour=False, width=24).splitlines()
    assert "Value (Gy): 69.81" in lines
    assert lines[lines.index("") + 1] == "Goal: Rectum"


def test_every_line_of_a_broken_cell_has_its_colour() -> None:
    text = as_text(TABLE, colour=True, width=50)
    assert text.count("\033[32m") == text.count("\033[0m") > 1
