"""Numbers of doses: tolerances, levels, and sizes that only set the pace of a search.

Each is written a second time, so that none changes by a slip: who means to change one changes both."""

from __future__ import annotations

import importlib

import pytest

NUMBERS = {
    "doseledger.dosimetry.dvh.curves": {"BLOCK_VOXELS": 8192, "WORD_VOXELS": 8},
    "doseledger.dosimetry.dvh.slab_dose": {
        "ROUGH_LINES": 64, "STEP_LINE": 0.6180339887498949, "STEP_Z": 0.7548776662466927,
        "SMALLEST_CC": 0.03, "POINTS_IN_SMALLEST": 100, "N_HOT": 1000, "MOST_POINTS": 1000000,
        "FLAT_GY": 0.02,
    },
    "doseledger.dosimetry.dvh.subvoxel": {
        "ROOT": 1.2207440846057596, "STEP_Z": 0.8191725133961644, "STEP_Y": 0.671043606703789,
        "STEP_X": 0.5497004779019701, "MAX_POINTS_PER_VOXEL": 4096,
    },
    "doseledger.dosimetry.fractionation": {"STANDARD_FRACTION_GY": 2.0, "LEVEL_DECIMALS": 1},
    "doseledger.dosimetry.gamma.exact": {"MAX_DEPTH": 64, "NEWTON_STEPS": 8},
    "doseledger.dosimetry.gamma.gpu": {"PAIRS_AT_ONCE": 2000000},
    "doseledger.dosimetry.gamma.grids": {"AXIS_TOLERANCE": 0.0001, "COMMENSURATE_TOLERANCE": 1e-11},
    "doseledger.dosimetry.gamma.kernels": {"UNREACHED": 1e+300, "BOUND_SAMPLES": 24},
    "doseledger.dosimetry.gamma.lattices": {"LATTICE_POINTS": 200},
    "doseledger.dosimetry.gamma.map": {
        "PASS_GAMMA": 1.000000001, "POINTS_AT_ONCE": 250000, "EXACT_TOLERANCE": 0.0001,
    },
    "doseledger.dosimetry.gamma.near": {"RUN": 32, "ROWS": 10, "SHELL_MARGIN": 1e-06},
    "doseledger.dosimetry.gamma.points": {"PART_POINTS": 100000},
    "doseledger.dosimetry.gamma.samples": {
        "MOST_BINS": 8, "BLOCK_SAMPLES": 200000, "FIRST_BLOCK_SAMPLES": 600, "CHUNK": 16,
    },
    "doseledger.dosimetry.gamma.threads": {"THREAD_POINTS": 5000},
    "doseledger.dosimetry.goals": {"LIMIT_TOLERANCE": 0.001, "LARGEST_DOSE_GY": 150.0},
    "doseledger.dosimetry.intervals": {"CONFIDENCE": 0.95, "RESAMPLES": 2000, "LEAST_VALUES": 3},
    "doseledger.dosimetry.openkbp_scores": {
        "TARGET_PERCENTILES": {'D_99': 1.0, 'D_95': 5.0, 'D_1': 99.0}, "HOT_VOLUME_MM3": 100.0,
    },
    "doseledger.dosimetry.spread": {
        "LEVELS": (0.5, 0.8, 0.95),
        "CURVE_LEVELS": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
        "LEAST_SD_GY": 0.05, "SPREAD_ENDS_GY": (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NUMBERS)
def test_the_numbers_of_a_module_are_those_that_were_agreed(module: str) -> None:
    there = importlib.import_module(module)
    assert {name: getattr(there, name) for name in NUMBERS[module]} == NUMBERS[module]
