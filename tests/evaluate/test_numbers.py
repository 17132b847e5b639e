"""Numbers of the evaluation: decimals that are kept, grids, shares, seeds of what is drawn.

Each is written a second time, so that none changes by a slip: who means to change one changes both."""

from __future__ import annotations

import importlib

import pytest

NUMBERS = {
    "doseledger.evaluate.calibration": {"DECIMALS": 6},
    "doseledger.evaluate.case": {"ABOVE_FRACTION": 0.1},
    "doseledger.evaluate.cohort": {"DECIMALS": 6},
    "doseledger.evaluate.compare": {"LONGEST_NAME": 20},
    "doseledger.evaluate.contours": {"DIGITS": 4},
    "doseledger.evaluate.files.control_points": {"CELL_MM": 2.5, "REACH_MM": 200.0},
    "doseledger.evaluate.files.dvh": {
        "N_POINTS": 200000, "N_PIXELS": 1000000, "FINEST_MM": 0.2, "COARSEST_MM": 2.0,
        "MOST_REASONS": 5,
    },
    "doseledger.evaluate.files.dvh_text": {"CURVE_POINTS": 401},
    "doseledger.evaluate.files.plan_complexity": {"DECIMALS": 5},
    "doseledger.evaluate.files.plan_dose": {"HIGH_SHARE": 0.8},
    "doseledger.evaluate.segmentation": {"AGREEMENT_SPREADS": 1.96},
    "doseledger.evaluate.shortcuts.ablation": {
        "PRESCRIPTION_FACTOR": 1.1, "SHIFT_MM": 15.0, "HIGH_SHARE": 0.5, "COVERING": 0.5,
    },
    "doseledger.evaluate.shortcuts.labels": {"TEMPLATE_SHARE": 0.5},
    "doseledger.evaluate.shortcuts.measure": {
        "DRAW_SEED": 20250601, "MOST_TRAINING_CASES": 40, "TRAINING_VOXELS": 64000,
        "TEST_VOXELS": 20000, "MOST_ALTERED_CASES": 3, "DIGITS": 4,
    },
    "doseledger.evaluate.shortcuts.trivial": {
        "STEP_MM": 5.0, "REACH_MM": (180.0, 180.0, 260.0), "TREES": 60, "LEAVES": 31,
        "ABOVE_SHARE": 0.1,
    },
    "doseledger.evaluate.summary": {"DRAW_SEED": 20250101, "WORST_PART": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_the_numbers_of_a_module_are_those_that_were_agreed(module: str) -> None:
    there = importlib.import_module(module)
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]
