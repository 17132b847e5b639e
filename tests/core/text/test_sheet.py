"""Tables as text: columns as wide as their cells, lines no wider than the terminal, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.known import assert_known

from doseledger.core.text.sheet import Cell, as_markdown, as_text, coloured, folded, format_number, make_table, plural

TABLE = make_table(
    "Patients",
    ("Name", "#Gy", "Note", "@Hash"),
    [("東京", "1.5", "", Cell("a1", "hash")), ("Oslo", Cell("-20.0", "bad"), "–", Cell("b", "hash"))],
)


def test_wide_letters_take_two_columns_and_an_empty_column_none() -> None:
    lines = as_text(TABLE, colour=False).splitlines()
    assert lines == ["Name  Gy     Hash", "東京    1.5  a1", "Oslo  -20.0  b"]


def test_colour_is_put_around_a_padded_cell() -> None:
    assert as_text(TABLE, colour=True).splitlines()[2] == "Oslo  \033[31m-20.0\033[0m  b"


def test_what_is_bad_is_bold_in_markdown_and_numbers_stand_to_the_right() -> None:
    assert as_markdown(TABLE).splitlines() == [
        "| Name | Gy | Note | Hash |",
        "| --- | ---: | --- | --- |",
        "| 東京 | 1.5 |  | a1 |",
        "| Oslo | **-20.0** | – | b |",
    ]


def test_a_table_without_rows_says_why() -> None:
    empty = make_table("Patients", ("Name",), [], empty="Nobody was there.")
    assert as_text(empty, colour=True) == as_markdown(empty) == "Nobody was there.\n"
    assert [plural(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


GOALS = make_table(
    "Goals",
    ("Goal", "#Value (Gy)", "Remark"),
    [("PTV70 D95% ≥ 66.5 Gy", "69.81", Cell("met by every plan that was looked at", "good")), ("Rectum", "3.00", "")],
)


def test_without_a_terminal_nothing_breaks() -> None:
    assert max(map(len, as_text(GOALS, colour=False).splitlines())) > 60


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_on_a_terminal_no_line_is_longer_than_its_width_and_no_word_is_lost(width: int) -> None:
    text = as_text(GOALS, colour=False, width=width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("Value", "(Gy)", "Remark", "PTV70", "D95%", "69.81", "plan", "looked", "Rectum", "3.00"):
        assert word in text


def test_where_no_line_holds_the_columns_each_row_is_a_block_with_its_headings() -> None:
    lines = as_text(GOALS, colour=False, width=24).splitlines()
    assert "Value (Gy): 69.81" in lines
    assert lines[lines.index("") + 1] == "Goal: Rectum"


def test_every_line_of_a_broken_cell_has_its_colour() -> None:
    text = as_text(GOALS, colour=True, width=50)
    assert text.count("\033[32m") == text.count("\033[0m") > 1


def test_a_long_line_is_folded_between_its_items_and_a_short_one_stays_as_it_is() -> None:
    line = "  ARC1: 501 MU, modulation score 0.141, 24 % of gaps below 10 mm, leaf travel 570 mm"
    assert folded(line, None) == line
    assert folded(f"short\n{line}", 40) == (
        "short\n  ARC1: 501 MU, modulation score 0.141,\n    24 % of gaps below 10 mm,\n    leaf travel 570 mm"
    )
    path = "/" + "a" * 60
    assert path in folded(f"wrote {path}", 40)


def test_colour_takes_no_room_on_a_line() -> None:
    line = coloured("x" * 40, "bad", colour=True)
    assert folded(line, 40) == line


def test_headings_tell_what_stands_in_a_column() -> None:
    table = make_table("T", ("#Gy", "@Hash", "=Name", "Plain"), [(1, None, "a", 2.5)], note="n", empty="e")
    assert [(c.label, c.kind) for c in table.columns] == [
        ("Gy", "number"), ("Hash", "hash"), ("Name", "long"), ("Plain", ""),
    ]  # fmt: skip
    assert [c.text for c in table.rows[0]] == ["1", "None", "a", "2.5"]
    assert (table.note, table.empty, table.is_list) == ("n", "e", False)
    assert make_table("T", ("", "Value"), []).is_list
    assert not make_table("T", ("Name", "Value"), []).is_list
    assert not make_table("T", ("", "Value", "More"), []).is_list


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (1.25, 1, False, "1.2"), (-1.26, 1, False, "−1.3"), (0.04, 1, True, "0.0"), (-0.04, 1, False, "0.0"),
        (0.06, 1, True, "+0.1"), (float("nan"), 1, False, "–"), (float("inf"), 0, True, "–"), (None, 2, True, "–"),
        (12.0, 0, False, "12"), (0.4, 0, True, "0"),
    ],
)  # fmt: skip
def test_a_number_has_so_many_decimals_and_a_true_minus_and_a_rounded_zero_no_sign(
    value: float | None, digits: int, sign: bool, text: str
) -> None:
    assert format_number(value, digits, sign=sign) == text


def test_cells_break_within_their_columns_the_widest_first() -> None:
    assert as_text(GOALS, colour=False, width=52) == (
        "Goal                 Value (Gy)  Remark\n"
        "PTV70 D95% ≥ 66.5         69.81  met by every plan\n"
        "Gy                               that was looked at\n"
        "Rectum                     3.00\n"
    )


def test_a_table_is_laid_out_for_a_terminal_in_the_known_way() -> None:
    widths = (30, 50, 56, 57, 60, 66, 72, 90)
    told = "====\n".join(f"{width}\n{as_text(MIXED, colour=False, width=width)}" for width in widths)
    assert_known(Path(__file__).with_name("known_tables.txt"), told, is_passing=False)


MIXED = make_table(
    "Mixed",
    ("Case", "@Digest", "=Long name of it", "#Dose (Gy)", "Empty"),
    [
        ("case_0001", "0123456789ab", "a name that goes on and on, with a comma", "12.5", "–"),
        ("case_0002", "ba9876543210", "短い 名前 short", "−3.25", ""),
        ("x", "0", "quitelongwordindeed", "100.125", ""),
    ],
)


def test_a_line_is_folded_after_commas_and_colons_and_its_indent_is_kept() -> None:
    text = (
        "    first: " + "a" * 20 + ", " + "b" * 20 + "; third item that is longer than thirty-two letters in all, end"
    )
    assert folded(text, 48).split("\n") == [
        "    first: aaaaaaaaaaaaaaaaaaaa,",
        "      bbbbbbbbbbbbbbbbbbbb; third item that is",
        "      longer than thirty-two letters in all, end",
    ]
    assert folded("x" * 48, 48) == "x" * 48
    assert folded("", 10) == ""
    assert coloured("a", "good", colour=True) == "\033[32ma\033[0m"
    assert coloured("a", "warn", colour=True) == "\033[33ma\033[0m"
    assert [coloured("a", state, colour=on) for state, on in (("bad", False), ("muted", True), ("", True))] == ["a"] * 3
