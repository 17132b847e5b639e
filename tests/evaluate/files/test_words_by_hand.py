"""DVHs and plans of single files as JSON and as lines, written out whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.dosimetry.dvh.statistics import SampledDose, StructureDose
from doseledger.evaluate.files import control_points, plan_complexity
from doseledger.evaluate.files.dvh_text import _curve, _describe, describe_area, describe_lines
from doseledger.planning.machine.linac import load_machine

WHOLE = SampledDose(StructureDose(np.array([10.0, 20.0, 40.0]), None, 2.0), 0.0)
PART = SampledDose(StructureDose(np.array([10.0, 20.0, 40.0]), None, 2.0), 2.0)
NOTHING = SampledDose(StructureDose(np.empty(0), None, 2.0), 4.0)


def described(sampled: SampledDose) -> dict[str, Any]:
    return _describe(sampled, ["mean", "V15Gy"], lambda of, statistic: of.measure(statistic), "volume_percent")


def test_a_curve_falls_from_the_whole_to_what_has_the_highest_dose() -> None:
    curve = _curve(WHOLE.samples, "share")
    assert (len(curve["dose_gy"]), curve["dose_gy"][0], curve["dose_gy"][1], curve["dose_gy"][-1]) == (
        401,
        0.0,
        pytest.approx(0.1),
        40.0,
    )
    at = {round(dose, 6): share for dose, share in zip(curve["dose_gy"], curve["share"], strict=True)}
    assert [at[dose] for dose in (0.0, 10.0, 10.1, 20.0, 20.1, 40.0)] == pytest.approx(
        [100, 100, 200 / 3, 200 / 3, 100 / 3, 100 / 3]
    )
    weighed = _curve(StructureDose(np.array([10.0, 40.0]), np.array([3.0, 1.0]), 1.0), "share")
    assert weighed["share"][200] == 25.0
    assert _curve(NOTHING.samples, "share") == {"dose_gy": [], "share": []}


def test_a_structure_that_the_dose_covers_in_part_has_that_part_apart() -> None:
    whole, part, nothing = (described(one) for one in (WHOLE, PART, NOTHING))
    assert (whole["covered_percent"], whole["covered_part"], len(whole["curve"]["dose_gy"])) == (100.0, None, 401)
    assert whole["statistics"] == {
        "mean": {"value": pytest.approx(70 / 3), "unit": "Gy", "reason": ""},
        "V15Gy": {"value": pytest.approx(200 / 3), "unit": "%", "reason": ""},
    }
    assert part["curve"] == {"dose_gy": [], "volume_percent": []}
    assert part["covered_percent"] == 75.0
    assert part["statistics"]["mean"]["reason"] == "25.0 % of it lies beyond the dose grid"
    assert part["covered_part"]["statistics"] == whole["statistics"]
    assert part["covered_part"]["curve"] == whole["curve"]
    assert (nothing["covered_part"], nothing["covered_percent"]) == (None, 0.0)
    area = describe_area(PART, 1.0, ["mean"], None)
    # 8 cc in a sheet of 1 mm are 80 cm².
    assert (area["area_cm2"], area["outside_dose_grid_cm2"], area["covered_part"]["area_cm2"]) == pytest.approx(
        (80.0, 20.0, 60.0)
    )
    assert "area_percent" in area["curve"]


def entry(value: float, unit: str, reason: str = "") -> dict[str, Any]:
    return {"value": value, "unit": unit, "reason": reason}


FOUND: dict[str, Any] = {
    "dose": {"max_gy": 71.25, "warnings": ["odd"]},
    "structures": {
        "A": {
            "statistics": {
                "mean": entry(20.0, "Gy"), "HI": entry(0.1, "1"), "D2cc": entry(math.nan, "Gy", "too small"),
            },
        },
        "B": {"reason": "no contour"},
        "C": {
            "statistics": {"mean": entry(math.nan, "Gy", "cut"), "D2cc": entry(math.nan, "Gy", "cut")},
            "covered_percent": 62.5, "covered_part": {"statistics": {"mean": entry(3.0, "Gy")}},
            "warnings": ["open contour"],
        },
        "D": {"area_cm2": 12.0, "statistics": {}},
    },
}  # fmt: skip


def test_a_dvh_is_read_line_by_line() -> None:
    assert describe_lines(FOUND) == [
        "dose up to 71.250 Gy", "warning: odd", "A: mean 20.00 Gy, HI 0.10, no D2cc (too small)", "B: no contour",
        "C: no mean or D2cc (cut)", "  its part that the dose covers, 62.5 %: mean 3.00 Gy", "  warning: open contour",
        "D: area 12.00 cm²",
    ]  # fmt: skip


def test_a_dvh_is_drawn_as_a_table_and_below_it_what_is_not_there() -> None:
    tables: list[Any] = []

    def draw(table: Any) -> str:
        tables.append(table)
        return "drawn\ntable"

    assert describe_lines(FOUND, draw) == [
        "dose up to 71.250 Gy", "warning: odd", "drawn", "table", "A: no D2cc (too small)", "B: no contour",
        "C: no mean or D2cc (cut)", "  its part that the dose covers, 62.5 %: mean 3.00 Gy", "  warning: open contour",
    ]  # fmt: skip
    assert describe_lines(FOUND, lambda table: "") == describe_lines(FOUND)
    assert len(tables) == 1


# --- plans --------------------------------------------------------------------------------------------------------


def beam(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "Arc 1", "mu": 300.4, "modulation_score": 0.51234, "leaf_travel_mm": 1234.5, "edge_per_area_mm": None,
        "area_cm2": 20.0, "small_aperture_percent": {"below_10_mm": 12.4}, "time_s": 59.6, "gantry_deg_s": [5.0, 6.0],
        "dose_rate_mu_min": [], "leaf_mm_s": [12.34, 1.0], "limits_of": "M",
    }  # fmt: skip
    return plain | changes


def test_a_plans_complexity_is_a_line_for_it_and_one_a_beam() -> None:
    found = {**beam(), "file": "a.dcm", "fraction_group": 2, "mu_per_gy": 299.7, "beams": [beam()]}
    numbers = (
        "300 MU, modulation score 0.512, 12 % of gaps below 10 mm, leaf travel 1.23e+03 mm, edge over area – 1/mm, "
        "area 20 cm²"
    )
    assert plan_complexity.describe_complexity(found) == [
        f"a.dcm, fraction group 2: 300 MU/Gy, {numbers}",
        f"  Arc 1: {numbers}; 60 s at the limits of M, at most 6°/s, 0 MU/min, leaves 12.3 mm/s",
    ]
    bare = found | {"mu_per_gy": None, "beams": [], "mu": None, "small_aperture_percent": {"below_10_mm": None}}
    (line,) = plan_complexity.describe_complexity(bare)
    assert line.startswith("a.dcm, fraction group 2: no prescription, – MU, modulation score 0.512, – % of gaps")


def test_numbers_are_rounded_to_five_decimals_and_none_stands_for_no_number() -> None:
    assert [plan_complexity._rounded(value) for value in (1 / 3, math.nan, math.inf, 2.0)] == [0.33333, None, None, 2.0]
    assert plan_complexity._list(np.array([1 / 3, 2.00049])) == [0.333, 2.0]


def test_a_plan_of_a_clinic_says_whose_it_is(shared_data: Path) -> None:
    machine = load_machine()
    (found,) = plan_complexity.complexity_of_file(shared_data / "dicom/rtplans/TinyVMAT_TinyFS_TinyVMAT.dcm", machine)
    assert list(found)[:6] == ["file", "fraction_group", "machine", "limits_of", "n_fractions", "mu_per_gy"]
    assert "small_aperture_percent" in found["beams"][0]


# --- control points -----------------------------------------------------------------------------------------------


def test_jaws_leave_open_the_share_of_each_interval_between_them() -> None:
    found = control_points._share(np.array([[-1.0, 2.5], [0.25, 0.75], [5.0, 9.0]]), np.array([-2.0, 0.0, 1.0, 3.0]))
    assert found.tolist() == [[0.5, 1.0, 0.75], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]
