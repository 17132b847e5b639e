"""Lists cut to their first names."""

from __future__ import annotations

import pytest

from doseledger.core.text.lists import bulleted, first_of


@pytest.mark.parametrize(("n", "words"), [
    (0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more"),
])  # fmt: skip
def test_the_first_names_are_told_and_how_many_more_there_are(n: int, words: str) -> None:
    assert first_of(range(n), 3) == words


def test_names_keep_their_order_and_their_joint() -> None:
    assert first_of(["c", "a", "b"], 2, " then ") == "c then a and 1 more"


def test_what_commas_can_not_part_is_parted_before_the_rest_too() -> None:
    assert first_of(["a: no", "b: no", "c: no"], 2, "; ") == "a: no; b: no; and 1 more"


@pytest.mark.parametrize(("n", "lines"), [(0, []), (2, ["0", "1"]), (3, ["0", "1", "and 1 more"])])
def test_lines_stand_below_one_another_and_say_how_many_more_there_are(n: int, lines: list[str]) -> None:
    assert bulleted(range(n), 2) == "".join(f"\n  - {line}" for line in lines)
