"""A model's shortcut numbers, taken anew from the rows of its cases, for whoever shows or judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from doseledger.evaluate.shortcuts.ablation import mean_answers
from doseledger.evaluate.shortcuts.trivial import mae_ratios

# Numbers are told to so many digits: the last ones are the machine's, not the model's.
DIGITS = 4


def shortcut_numbers(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return a model's numbers by name, taken anew from the rows of its cases; NaN where no case gave one."""

    def known(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: math.nan if value is None else value for key, value in row.items()}

    answers = {case_id: known(row) for case_id, row in measured["ablation"].items()}
    numbers = mae_ratios([known(row) for row in measured["trivial"]]) | mean_answers(answers)
    return {name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()}
