"""Numbers of the gates that no thresholds.yaml holds: windows, bins, seeds, shares, rounding.

Each is written a second time, so that none changes by a slip: who means to change one changes both."""

from __future__ import annotations

import importlib

import pytest

NUMBERS = {
    "doseledger.gates.data.distances": {"SAMPLES": 400, "ROUNDING_MM": 0.05, "SLACK": 0.1},
    "doseledger.gates.data.doses": {"SAME_DOSE_GY": 0.05},
    "doseledger.gates.data.fingerprints": {
        "POINTS": 24, "STEP_MM": 8.0, "SMALL_STEP_MM": 2.0, "SMOOTH_POINTS": 2.0, "LOW_HU": -1000.0,
        "HIGH_HU": 3000.0,
    },
    "doseledger.gates.data.grids": {"SAME_SPACING_MM": 0.001},
    "doseledger.gates.data.leakage": {
        "FLIPPED_AXES": ((), (3,), (2,), (1,), (2, 3), (1, 3), (1, 2), (1, 2, 3)),
    },
    "doseledger.gates.data.outliers": {"LEAST_DISTANCE": 1e-06},
    "doseledger.gates.data.placement": {
        "WIDTH_MM": 6.0, "REACH_MM": 12.0, "ORGAN_HU": (-200.0, 300.0), "SKIN_HU": (-1000.0, 0.0),
        "DOSE_SHARES": (0.7, 1.0), "MOST_VOXELS": 20000, "LEAST_VOXELS": 10, "LEAST_SEEN": 0.5,
        "LEAST_BEST": 0.05, "COVERED_SHARE": 0.999, "SKIN_DOSE_SHARES": (0.0, 0.05),
    },
    "doseledger.gates.data.slices": {
        "CUT_HU": (-1000.0, 500.0), "LEAST_AREA_CM2": 20.0, "LEAST_JUMP_HU": 1.0,
        "MOST_SAME_PERCENT": 90.0, "MOST_USUAL_PERCENT": 50.0, "LEAST_DOSE_GY": 0.1,
    },
    "doseledger.gates.data.structures": {"AXES": {'z': 0, 'y': 1, 'x': 2}},
    "doseledger.gates.data.validity": {"EDGE_VOXELS": 0.500001},
    "doseledger.gates.drift.case_inputs": {
        "HU_EDGES": (-300, -150, -50, 0, 50, 100, 200, 400),
        "MR_EDGES": (50, 200, 350, 500, 650, 800, 950, 1100),
    },
    "doseledger.gates.drift.judge": {
        "DRAWS": 500, "DRAW_SEED": 20250701, "LEAST_SHARE": 0.0001, "DIGITS": 4,
    },
    "doseledger.gates.drift.metadata": {"LEAST_PATIENTS": 5},
    "doseledger.gates.drift.probes": {
        "FOLDS": 5, "DEALS": 3, "PERMUTATIONS": 99, "INVERSE_PENALTY": 0.1, "CHANCE_Z": 1.645,
        "DIGITS": 4,
    },
    "doseledger.gates.drift.stacks": {"CORE_SHARE": 0.5, "BORDER_SHARE": 0.1, "CELLS": 8},
    "doseledger.gates.drift.statistics": {
        "LEAST_VALUES": 5, "CASES_PER_BIN": 4, "MOST_BINS": 10, "LEAST_REFERENCE": 5, "NAMED": 3,
        "SAME": 1e-06, "GRAIN": 0.01,
    },
    "doseledger.gates.drill.faults": {
        "WHOLE": (1.0,), "VOXELS": (0.25, 0.5, 1.0, 2.0), "SHARES": (0.5, 1.0, 2.0, 3.0, 5.0, 10.0),
        "SLICES": (1.0, 2.0, 3.0, 5.0), "MARGINS_MM": (1.0, 2.0, 3.0, 5.0, 10.0),
        "WAYS_MM": (2.0, 3.0, 5.0, 10.0, 20.0),
    },
    "doseledger.gates.drill.healthy": {"MOST_CASES": 60},
    "doseledger.gates.drill.volumes": {"AIR_HU": -1000.0, "NO_DOSE_GY": 0.0, "PERCENT": 100.0},
    "doseledger.gates.drill.wholes": {"COPY_NOISE_HU": 20.0, "COPY_NOISE_GY": 0.1},
    "doseledger.gates.features": {"AIR_HU": -500, "LEAST_ALONE_CC": 5.0, "HOT_SPOT_CC": 2.0},
    "doseledger.gates.model.machine": {"GB": 1000000000.0},
    "doseledger.gates.model.metrics": {"ROUNDING": 2e-06},
    "doseledger.gates.model.preflight": {"N_STEPS": 20, "DIGITS": 4},
    "doseledger.gates.suites": {"MOST_NAMED": 5},
    "doseledger.gates.verdict": {"SHOWN": 5},
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_the_numbers_of_a_module_are_those_that_were_agreed(module: str) -> None:
    there = importlib.import_module(module)
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]
