"""Numbers of parity: those of the published SSIM, percentiles, and how much is shown at once.

Each is written a second time, so that none changes by a slip: who means to change one changes both."""

from __future__ import annotations

import importlib

import pytest

NUMBERS = {
    "doseledger.parity.arrays": {"BLOCK_BYTES": 16777216},
    "doseledger.parity.check": {"MOST_SHOWN": 5},
    "doseledger.parity.compare": {"MOST_GROUPS": 64},
    "doseledger.parity.similarity": {
        "SIGMA_PIXELS": 1.5, "WINDOW_PIXELS": 11, "K1": 0.01, "K2": 0.03,
        "SCALE_WEIGHTS": (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    },
    "doseledger.parity.statistics": {
        "PERCENTS": (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9),
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_the_numbers_of_a_module_are_those_that_were_agreed(module: str) -> None:
    there = importlib.import_module(module)
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]
