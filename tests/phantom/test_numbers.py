"""Numbers of the phantom: the scan, the odd dose grid, tissues, the compromise of near bowel.

Each is written a second time, so that none changes by a slip: who means to change one changes both."""

from __future__ import annotations

import importlib

import pytest

NUMBERS = {
    "doseledger.phantom.anatomy": {"STEPS": 3, "NODE_SHARES": (1.0, 0.95, 0.75)},
    "doseledger.phantom.cohort": {
        "PRESCRIPTION_GY": {'PTV70': 70.0, 'PTV56': 56.0}, "N_FRACTIONS": 28, "WEIGHT_SPREAD": 0.25,
        "COLLIMATOR_DEG": (8.0, 38.0), "JAW_MARGIN_MM": (6.0, 11.0), "FALLOFF_MM": (11.0, 17.0),
        "FIRMER": 2.0,
    },
    "doseledger.phantom.near_bowel": {
        "CLEAR_MM": 10.0, "GAP_MM": (1.0, 6.0), "YIELDED_PERCENT": 90.0, "STREAM": 2,
    },
    "doseledger.phantom.patient": {
        "SCAN_SPAN_MM": (-105.0, 150.0), "PITCHES_MM": (2.5, 3.0), "FEMUR_LENGTH_MM": 62.0,
        "ODD_GRID_MARGIN_MM": (65.0, 65.0, 100.0), "ODD_GRID_SHIFT_MM": (1.3, 0.7, 1.9),
    },
    "doseledger.phantom.tissue": {
        "AIR_HU": -1000.0, "GAS_HU": -940.0, "FAT_HU": -98.0, "MUSCLE_HU": 54.0, "CORTEX_HU": 950.0,
        "BLUR_MM": 1.1, "COUCH_SKIN_HU": -250.0, "COUCH_FOAM_HU": -930.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_the_numbers_of_a_module_are_those_that_were_agreed(module: str) -> None:
    there = importlib.import_module(module)
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]
