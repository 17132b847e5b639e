"""Conditions on runs: compared, never executed."""

from __future__ import annotations

from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.evaluate.summary import RANKED_BY
from doseledger.ledger.runs.listing.query import parse_condition
from doseledger.ledger.runs.listing.rows import SHORT_NAMES

ROW: dict[str, Any] = {
    "id": "a1", "mae_gy": 2.5, "model": "dose_unet", "dirty": False, "loss.dvh": 0.1, "dvh_PTV70_D95%": 1.5,
    "dvh_Bladder_D0.03cc": 0.5, "gamma": None, "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("mae_gy < 3 and model == 'dose_unet'", True),
        ("mae_gy < 3 and not model == 'dose_unet'", False),
        ("2 <= mae_gy < 2.5", False),
        ("loss.dvh >= 1e-1", True),
        ("dvh_PTV70_D95% < 2", True),
        ("dvh_Bladder_D0.03cc > 0.4", True),
        ("model in ['dose_unet', 'diffusion']", True),
        ("'unet' in model", True),
        ("not dirty", True),
        ("gamma > 90", False),
        ("gamma < 90", False),
        ("gamma == None", True),
        ("seed in (1, 2) or gamma > 0", True),
        ("mae_gy > -1", True),
        ("model == 'mae_gy'", False),
    ],
)
def test_a_condition_compares(text: str, holds: bool) -> None:
    assert parse_condition(text, ROW)(ROW) is holds


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).__class__",
        "model.__class__ == 1",
        "seed ** 9 > 1",
        "seed + 1 == 2",
        "[x for x in model]",
        "lambda: 1",
        "f'{model}'",
        "seed if dirty else 1",
        "model[0] == 'd'",
        "(seed := 3) == 3",
        "-model == 1",
        "seed is 1",
        "1j == seed",
        "...",
    ],
)
def test_what_is_more_than_a_comparison_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_condition(text, ROW)


@pytest.mark.parametrize("text", ["mae_gy <", "", "and", "mae_gy = 3", "(" * 300, "import os"])
def test_what_is_no_expression_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(BadInput, match="what it may hold: column names"):
        parse_condition(text, ROW)


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"no run has a column 'mae_gyy'; nearest: mae_gy"):
        parse_condition("mae_gyy < 3", ROW)


def test_values_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(BadInput, match="can't be judged on run a1"):
        parse_condition("model < 3", ROW)(ROW)


def test_a_condition_has_an_end() -> None:
    with pytest.raises(BadInput, match="wanted at most 1000"):
        parse_condition("seed == 1 or " * 200, ROW)


def test_the_short_name_of_the_error_is_that_of_the_ranking() -> None:
    assert SHORT_NAMES["mae_gy"] == RANKED_BY
