"""Features of a case and of what a model is given, each worked out apart from the code, on voxels of three sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol
from doseledger.gates.drift.case_inputs import HU_EDGES, MR_EDGES, measure_inputs
from doseledger.gates.features import _hottest_gy, describe_source, measure_case, measure_parts

GRID = Grid((10, 12, 14), (3.0, 2.0, 2.5), (-20.0, 7.0, -3.0))
CC = 0.015
NAMES = ("PTV70", "PTV56", "Rectum", "Bowel")


def box(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[z, y, x] = True
    return mask


BODY = box(slice(1, 10), slice(0, 11), slice(2, 14))
HIGH = box(slice(3, 7), slice(3, 8), slice(4, 9))
LOW = box(slice(2, 9), slice(2, 9), slice(3, 13))
RECTUM = box(slice(2, 8), slice(8, 11), slice(5, 8)) | box(slice(2, 3), slice(0, 1), slice(12, 14))


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    """Two targets, a rectum in two parts and no bowel; HU and doses that occur once each."""
    rng = np.random.default_rng(8)
    hu, gy = (rng.permutation(BODY.size).reshape(BODY.shape) for _ in range(2))
    masks = np.stack([HIGH, LOW, RECTUM, np.zeros_like(BODY)])
    valid = BODY & ~box(slice(9, 10), slice(0, 2), slice(2, 14))
    return replace(
        make_case(), grid=GRID, structure_names=NAMES, masks=masks, body=BODY, valid_dose=valid,
        ct_hu=hu.astype(np.int16) - 700, present=masks.any(axis=(1, 2, 3)),
        dose_gy=(20.0 + 60.0 * gy / BODY.size).astype(np.float32),
        sdf_mm=np.zeros(masks.shape, np.float16), full_shape_zyx=GRID.shape_zyx,
        meta={"case_id": "case_0007", "modality": "CT", "native_dose_grid": None},
    )  # fmt: skip


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its name, which is the case's."""
    assert row["case_id"] == "case_0007"
    return {name: value for name, value in row.items() if name != "case_id"}


def wanted_image(case: Case) -> dict[str, Any]:
    inside = case.ct_hu[BODY]
    return {
        "spacing_z_mm": 3.0, "spacing_y_mm": 2.0, "spacing_x_mm": 2.5,
        "ct_min_hu": -700.0, "ct_max_hu": 979.0, "ct_p01_body_hu": np.percentile(inside, 1),
        "ct_median_body_hu": np.percentile(inside, 50), "ct_p99_body_hu": np.percentile(inside, 99),
        "ct_median_outside_hu": np.median(case.ct_hu[~BODY]), "body_air_percent": 100 * (inside < -500).mean(),
        "body_volume_cc": 9 * 11 * 12 * CC, "body_extent_z_mm": 27.0, "body_extent_y_mm": 22.0,
        "body_extent_x_mm": 30.0,
    }  # fmt: skip


def wanted_structures(case: Case, median: str = "median_hu") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, mask in zip(NAMES, case.masks, strict=True):
        found[f"{name}_volume_cc"] = mask.sum() * CC if mask.any() else math.nan
        found[f"{name}_{median}"] = np.median(case.ct_hu[mask]) if mask.any() else math.nan
    return found


def wanted_dose(case: Case) -> dict[str, Any]:
    dose = np.asarray(case.dose_gy)
    found: dict[str, Any] = {
        f"{name}_mean_gy": dose[mask].mean() for name, mask in zip(NAMES[:3], case.masks, strict=False)
    }
    found["Bowel_mean_gy"] = math.nan
    for name, mask, gy in (("PTV70", HIGH, 70.0), ("PTV56", LOW, 56.0)):
        for key, percentile in (("d98", 2), ("d95", 5), ("d50", 50), ("d2", 98)):
            found[f"{name}_{key}_percent"] = 100 * np.percentile(dose[mask], percentile) / gy
        found[f"{name}_v95_percent"] = 100 * (dose[mask] >= 0.95 * gy).mean()
    found["PTV56_beyond_hotter_percent"] = 100 * np.median(dose[LOW & ~HIGH]) / 56.0
    found["dose_max_percent"] = 100 * dose.max() / 70.0
    found["dose_body_mean_gy"] = dose[BODY].mean()
    # 2 cc are 133 voxels.
    found["dose_beyond_targets_percent"] = 100 * np.sort(dose[BODY & ~LOW & ~HIGH])[-133] / 70.0
    found["dose_outside_valid_max_gy"] = dose[~case.valid_dose].max()
    return found


def test_a_row_of_features_holds_image_structures_and_dose(case: Case, protocol: Protocol) -> None:
    found = numbers(measure_case(case, protocol))
    assert found == pytest.approx(
        wanted_image(case) | wanted_structures(case) | wanted_dose(case), rel=1e-5, nan_ok=True
    )
    without = numbers(measure_case(replace(case, dose_gy=None), protocol))
    assert without == pytest.approx(wanted_image(case) | wanted_structures(case), nan_ok=True)
    assert measure_case(case, protocol, {"case_id": "x"}).keys() == {"case_id", *wanted_dose(case)}


def test_mr_has_no_unit_and_no_air(case: Case, protocol: Protocol) -> None:
    found = numbers(measure_case(replace(case, meta={**case.meta, "modality": "MR"}, dose_gy=None), protocol))
    image = {name.replace("ct_", "mr_").removesuffix("_hu"): value for name, value in wanted_image(case).items()}
    del image["body_air_percent"]
    assert found == pytest.approx(image | wanted_structures(case, "median"), nan_ok=True)


def test_a_case_whose_body_is_empty_or_all_there_is_leaves_out_what_nobody_sees(case: Case, protocol: Protocol) -> None:
    nobody = measure_inputs(replace(case, body=np.zeros_like(BODY)), protocol)
    assert "ct_median_body_hu" not in nobody
    assert nobody["spacing_y_mm"] == 2.0
    everywhere = measure_case(replace(case, body=np.ones_like(BODY), valid_dose=np.ones_like(BODY)), protocol)
    assert math.isnan(float(everywhere["ct_median_outside_hu"]))
    assert everywhere["dose_outside_valid_max_gy"] == 0.0
    none = measure_case(replace(case, body=np.zeros_like(BODY)), protocol)
    assert math.isnan(float(none["dose_body_mean_gy"]))


def test_what_the_dose_grid_cuts_has_no_dose(case: Case, protocol: Protocol) -> None:
    # The dose begins at the slice at -8 mm, index 4: both targets and the rectum are cut.
    native = {"shape_zyx": [6, 12, 14], "spacing_mm": [3.0, 2.0, 2.5], "origin_mm": [-8.0, 7.0, -3.0]}
    found = measure_case(replace(case, meta={**case.meta, "native_dose_grid": native}), protocol)
    for name in (
        "PTV70_mean_gy",
        "PTV70_d95_percent",
        "PTV56_v95_percent",
        "PTV56_beyond_hotter_percent",
        "Rectum_mean_gy",
    ):
        assert math.isnan(float(found[name])), name
    assert found["dose_body_mean_gy"] == pytest.approx(wanted_dose(case)["dose_body_mean_gy"], rel=1e-5)


@pytest.mark.parametrize(("voxels", "is_told"), [(333, False), (334, True)])
def test_a_target_beyond_a_hotter_one_is_told_from_five_cc_on(
    voxels: int, is_told: bool, case: Case, protocol: Protocol
) -> None:
    alone = np.flatnonzero(LOW & ~HIGH)[:voxels]
    low = HIGH.copy()
    low.reshape(-1)[alone] = True
    found = measure_case(replace(case, masks=np.stack([HIGH, low, RECTUM, np.zeros_like(BODY)])), protocol)
    dose = np.asarray(case.dose_gy).ravel()[alone]
    assert found["PTV56_beyond_hotter_percent"] == pytest.approx(
        100 * np.median(dose) / 56 if is_told else math.nan, nan_ok=True
    )


def test_the_hottest_two_cc_are_as_many_voxels_as_make_them_up() -> None:
    dose = np.random.default_rng(1).permutation(100).astype(np.float32)
    assert [_hottest_gy(dose, cc) for cc in (2.0, 1.0, 0.4, 0.02, 5.0)] == [99.0, 98.0, 95.0, 0.0, 99.0]
    assert math.isnan(_hottest_gy(dose, 0.0198))


def test_parts_that_touch_by_a_corner_are_one(case: Case) -> None:
    masks = np.array(case.masks)
    masks[0] = box(slice(1, 3), slice(1, 3), slice(1, 3)) | box(slice(3, 4), slice(3, 4), slice(3, 4))
    found = measure_parts(replace(case, masks=masks))
    assert found == pytest.approx(
        {
            "PTV70_parts": 1.0, "PTV70_largest_part_percent": 100.0, "PTV56_parts": 1.0,
            "PTV56_largest_part_percent": 100.0, "Rectum_parts": 2.0, "Rectum_largest_part_percent": 100 * 54 / 56,
            "Bowel_parts": math.nan, "Bowel_largest_part_percent": math.nan,
        },
        nan_ok=True,
    )  # fmt: skip


def test_a_source_is_as_the_meta_says_and_nan_where_it_says_nothing(case: Case) -> None:
    said = {"plan": {"technique": "VMAT"}, "scanner": {"kvp": 120}, "intensity": {"low": 3.0, "high": 40.0}}
    assert describe_source(replace(case, meta=case.meta | said)) == {"plan_technique": "VMAT", "scanner_kvp": "120"}
    mr = describe_source(replace(case, meta=case.meta | said | {"modality": "MR", "plan": {}, "scanner": "none"}))
    assert mr == pytest.approx({"plan_technique": math.nan, "scanner_kvp": math.nan, "image_range": 37.0}, nan_ok=True)


def test_inputs_of_a_model_are_image_places_extents_and_prescriptions(case: Case, protocol: Protocol) -> None:
    image = {name: value for name, value in wanted_image(case).items() if name not in ("ct_min_hu", "ct_max_hu")}
    inside = case.ct_hu[BODY]
    assert HU_EDGES == (-300, -150, -50, 0, 50, 100, 200, 400)
    ends = [-math.inf, -300, -150, -50, 0, 50, 100, 200, 400, math.inf]
    for name, low, high in zip(["below_-300", *(f"from_{edge}" for edge in ends[1:-1])], ends, ends[1:], strict=False):
        image[f"hu_share_{name}"] = ((inside >= low) & (inside < high)).mean()
    centre = GRID.index_to_mm(np.array([4.5, 5.0, 6.0]))
    wanted = image | wanted_structures(case)
    for name, mask in zip(NAMES, case.masks, strict=True):
        wanted[f"{name}_present"] = float(mask.any())
        way = GRID.index_to_mm(np.argwhere(mask).mean(axis=0)) - centre if mask.any() else [math.nan] * 3
        wanted |= {f"{name}_offset_{axis}_mm": value for axis, value in zip("zyx", way, strict=True)}
    sizes = {"PTV70": (12.0, 10.0, 12.5), "PTV56": (21.0, 14.0, 25.0)}
    wanted |= {
        f"{name}_extent_{axis}_mm": size
        for name, three in sizes.items()
        for axis, size in zip("zyx", three, strict=True)
    }
    wanted |= {"PTV70_prescription_gy": 70.0, "PTV56_prescription_gy": 56.0, "n_fractions": 28.0}
    assert numbers(measure_inputs(case, protocol)) == pytest.approx(wanted, nan_ok=True)


def test_absent_targets_and_plans_leave_their_inputs_out(case: Case, protocol: Protocol) -> None:
    masks = np.array(case.masks)
    masks[0] = False
    found = measure_inputs(replace(case, masks=masks, prescription_gy={"PTV56": 56.0}, n_fractions=None), protocol)
    assert math.isnan(float(found["PTV70_extent_y_mm"]))
    assert math.isnan(float(found["PTV70_prescription_gy"]))
    assert math.isnan(float(found["n_fractions"]))
    assert (found["PTV56_offset_z_mm"], found["PTV56_offset_x_mm"]) == (0.0, 0.0)
    nobody = measure_inputs(replace(case, masks=np.zeros_like(masks)), protocol)
    assert all(math.isnan(float(nobody[f"{name}_offset_y_mm"])) for name in NAMES)


def test_mr_falls_into_thousandths_of_its_own_range(case: Case, protocol: Protocol) -> None:
    found = measure_inputs(
        replace(case, meta={**case.meta, "modality": "MR"}), protocol.model_copy(update={"prescription_gy": {}})
    )
    inside = case.ct_hu[BODY]
    shares = {name: value for name, value in found.items() if name.startswith("mr_share_")}
    assert list(shares) == ["mr_share_below_50", *(f"mr_share_from_{edge}" for edge in MR_EDGES)]
    assert shares["mr_share_from_350"] == pytest.approx(((inside >= 350) & (inside < 500)).mean())
    assert sum(float(value) for value in shares.values()) == pytest.approx(1.0)
    assert not any(name.startswith(("PTV70", "mr_min")) for name in found)
