"""Tables as text: each column as wide as its widest cell on a terminal."""

from __future__ import annotations

from doseledger.core.text.sheet import Cell, as_markdown, as_text, make_table, plural

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
