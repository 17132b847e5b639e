"""Lists cut to their first names."""

from __future__ import annotations

import pytest

from doseledger.core.text.lists import first_of


@pytest.mark.parametrize(("n", "words"), [
    (0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more"),
])  # fmt: skip
def test_the_first_names_are_told_and_how_many_more_there_are(n: int, words: str) -> None:
    assert first_of(range(n), 3) == words


def test_names_keep_their_order_and_their_joint() -> None:
    assert first_of(["c", "a", "b"], 2, " then ") == "c then a and 1 more"
