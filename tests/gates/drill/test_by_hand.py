"""Faults of the drill: the whole table, and each change of a volume or structure worked out apart from the code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from doseledger.core.case import Case
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol
from doseledger.gates.drill import structures, volumes, wholes
from doseledger.gates.drill.faults import FAULTS
from doseledger.gates.drill.limits import see, summarise_fault
from doseledger.gates.drill.trial import Trial, main_region
from doseledger.gates.verdict import Finding

Make = Callable[[int], Case]
VOXELS, SHARES, SLICES = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 3.0, 5.0, 10.0), (1.0, 2.0, 3.0, 5.0)
MARGINS, WAYS = (1.0, 2.0, 3.0, 5.0, 10.0), (2.0, 3.0, 5.0, 10.0, 20.0)
# Name, sizes, unit; those after ingest; those that need another patient.
SIZES = {
    "dose_moved": (*VOXELS, 4.0), "dose_moved_later": VOXELS, "dose_high": SHARES, "dose_low": SHARES,
    "dose_scaled_later": (0.5, 1.0, 2.0, 3.0, 5.0), "dose_slices_lost": SLICES, "dose_slices_repeated": SLICES,
    "dose_low_lost": (5.0, 10.0, 15.0, 25.0), "dose_noise": (0.5, 1.0, 2.0, 5.0), "ct_moved": (0.5, 1.0, 2.0, 3.0),
    "ct_offset": (5.0, 10.0, 20.0, 50.0, 100.0), "ct_scaled": (1.0, 2.0, 5.0, 10.0, 20.0),
    "ct_noise": (10.0, 20.0, 40.0, 80.0), "ct_slices_lost": SLICES, "ct_slices_repeated": SLICES,
    "ct_slices_left_out": SLICES, "structures_moved": WAYS, "structures_moved_later": WAYS, "target_moved": WAYS,
    "target_grown": MARGINS, "target_shrunk": MARGINS, "organ_moved": WAYS, "organ_grown": MARGINS,
    "organ_shrunk": MARGINS, "sdf_scaled": (5.0, 10.0, 20.0, 50.0), "sdf_moved": (0.5, 1.0, 2.0, 3.0),
    "valid_dose_holed": (0.02, 0.05, 0.1, 0.2, 1.0), "prescription_wrong": (0.02, 0.1, 0.5, 2.0),
    "fractions_wrong": (1.0, 2.0, 5.0), "origin_off": (0.005, 0.02, 1.0, 5.0, 50.0),
}  # fmt: skip
LATER = {
    "dose_moved_later", "dose_scaled_later", "structures_moved_later", "sdf_sign", "sdf_voxels", "sdf_scaled",
    "sdf_moved", "valid_dose_holed", "origin_off", "near_copy", "mirrored_copy",
}  # fmt: skip


@pytest.fixture
def draw(protocol: Protocol, healthy: Make) -> Trial:
    return Trial(healthy(1), healthy(2), 1.0, 0, (3, 1), protocol)


def put(name: str, at: Trial, **changes: Any) -> Case:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    faulty = fault.put(replace(at, **changes))
    assert faulty is not None
    return faulty


def test_every_fault_has_its_sizes_its_time_and_its_need() -> None:
    assert {fault.name: fault.sizes for fault in FAULTS if fault.unit} == SIZES
    assert {fault.sizes for fault in FAULTS if not fault.unit} == {(1.0,)}
    assert {fault.name for fault in FAULTS if fault.when == "after ingest"} == LATER
    assert {fault.name for fault in FAULTS if fault.needs_other} == {
        "dose_other",
        "ct_other",
        "near_copy",
        "mirrored_copy",
    }


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("size", [0.25, 2.0])
def test_a_volume_is_moved_along_its_axis_by_parts_of_voxels(axis: int, size: float, draw: Trial) -> None:
    values = np.asarray(draw.case.dose_gy)
    found = np.moveaxis(volumes.moved(values, replace(draw, axis=axis, size=size)), axis, 0)
    before = np.moveaxis(values, axis, 0)
    whole = np.concatenate([before[:1]] * int(np.ceil(size)) + [before])[: len(before)]
    near = np.concatenate([before[:1]] * int(size) + [before])[: len(before)]
    share = size - int(size)
    assert found == pytest.approx((1 - share) * near + share * whole, abs=1e-4)


def test_noise_is_drawn_in_the_body_and_is_as_wide_as_it_says(draw: Trial) -> None:
    image = draw.case.ct_hu.astype(np.float32)
    found = volumes.noisy(image, replace(draw, size=20.0)) - image
    assert not found[~draw.case.body].any()
    assert found[draw.case.body].std() == pytest.approx(20.0, rel=0.02)
    assert found[draw.case.body].mean() == pytest.approx(0.0, abs=0.5)
    assert np.asarray(put("dose_noise", draw, size=5.0).dose_gy).min() == 0.0
    assert volumes.as_hu(np.array([-0.6, 0.4, 1.5, 2.5, 4e4, -4e4])).tolist() == [-1, 0, 2, 2, 32767, -32768]


def test_values_are_raised_lowered_and_turned(draw: Trial) -> None:
    case, dose = draw.case, np.asarray(draw.case.dose_gy)
    assert put("dose_cgy", draw).dose_gy == pytest.approx(100.0 * dose)
    assert put("dose_scaled_later", draw, size=3.0).dose_gy == pytest.approx(1.03 * dose)
    assert put("dose_low", draw, size=10.0).dose_gy == pytest.approx(0.9 * dose)
    assert put("dose_fraction", draw, case=replace(case, n_fractions=None)).dose_gy == pytest.approx(dose)
    assert np.array_equal(put("dose_mirrored", draw).dose_gy, dose[..., ::-1])
    assert np.array_equal(put("ct_mirrored", draw).ct_hu, case.ct_hu[..., ::-1])
    low = np.asarray(put("dose_low_lost", draw, size=10.0).dose_gy)
    level = np.percentile(dose[case.valid_dose], 10.0)
    assert np.array_equal(low, np.where(dose < level, 0.0, dose))
    air = put("ct_slices_lost", draw, size=2.0).ct_hu
    assert np.flatnonzero((air == -1000).all(axis=(1, 2))).tolist() == list(
        range(*replace(draw, size=2.0).slices().indices(24))
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1.0, 3.0, 5.0])
def test_slices_lie_in_the_middle_half_of_the_target_and_leave_one_at_each_end(
    seed: int, size: float, draw: Trial
) -> None:
    at = replace(draw, seed=(seed,), size=size)
    hit = np.flatnonzero(main_region(draw.case).any(axis=(1, 2)))
    first, last = (int(edge) for edge in np.quantile(hit, (0.25, 0.75)))
    wanted = int(np.random.default_rng((seed,)).integers(first, last + 1))
    assert at.slices() == slice(wanted, wanted + int(size))
    top = np.zeros_like(draw.case.masks)
    top[0, -2:] = top[1, :2] = True
    high = replace(at, case=replace(draw.case, masks=top))
    assert high.slices() == slice(23 - int(size), 23)
    low = replace(at, case=replace(draw.case, masks=top[[1, 0, *range(2, 8)]]))
    assert low.slices() == slice(1, 1 + int(size))


def test_another_patients_volume_is_laid_target_on_target_at_its_own_voxel_size(draw: Trial) -> None:
    other = replace(draw.other, grid=Grid(draw.other.grid.shape_zyx, (3.0, 4.0, 12.0), (0.0, 0.0, 0.0)))
    found = np.asarray(put("dose_other", draw, other=other).dose_gy)
    here, there = (np.argwhere(c.mask("PTV70")).mean(axis=0) for c in (draw.case, other))
    index = np.indices(found.shape).reshape(3, -1).T
    source = there + (index - here) * np.divide((6.0, 6.0, 6.0), (3.0, 4.0, 12.0))
    wanted = map_coordinates(np.asarray(other.dose_gy, np.float32), source.T, order=1, cval=0.0).reshape(found.shape)
    inside = np.all((source >= 0) & (source <= np.array(found.shape) - 1), axis=1).reshape(found.shape)
    assert found[inside] == pytest.approx(wanted[inside], abs=1e-3)
    far = np.any((source < -1) | (source > np.array(found.shape)), axis=1).reshape(found.shape)
    assert not found[far].any()
    assert (put("ct_other", draw, other=other).ct_hu[far] == -1000).all()


# --- structures and maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(3))
def test_a_structure_is_moved_by_mm_and_its_map_is_made_anew(axis: int, draw: Trial) -> None:
    case = replace(draw.case, grid=Grid(draw.case.grid.shape_zyx, (6.0, 3.0, 12.0), draw.case.grid.origin_mm))
    found = put("target_moved", draw, case=case, size=12.0, axis=axis)
    by = (2, 4, 1)[axis]
    index = case.structure_names.index("PTV70")
    assert np.array_equal(found.masks[index], np.roll(case.masks[index], by, axis=axis))
    assert (found.sdf_mm[index] < 0)[found.masks[index]].mean() > 0.8
    assert np.array_equal(np.delete(found.sdf_mm, index, axis=0), np.delete(case.sdf_mm, index, axis=0))
    gone = put("target_shrunk", draw, size=1000.0)
    assert not gone.masks[index].any()
    assert not gone.present[index]
    assert np.array_equal(gone.present[1:], draw.case.present[1:])


def test_maps_are_turned_scaled_and_in_voxels_of_one_structure_alone(draw: Trial) -> None:
    name = draw.organs()[0]
    index = draw.case.structure_names.index(name)
    before = draw.case.sdf_mm[index].astype(np.float32)
    wanted = {"sdf_sign": -before, "sdf_voxels": before / 6.0, "sdf_scaled": np.clip(1.2 * before, -50.0, 50.0)}
    for fault, map_mm in wanted.items():
        found = put(fault, draw, size=20.0)
        assert found.sdf_mm[index] == pytest.approx(map_mm, abs=0.05), fault
        assert np.array_equal(np.delete(found.sdf_mm, index, axis=0), np.delete(draw.case.sdf_mm, index, axis=0))
        assert np.array_equal(found.masks, draw.case.masks)
    bare = replace(draw.case, masks=np.array(draw.case.masks))
    bare.masks[2:] = False
    assert np.array_equal(put("sdf_sign", draw, case=bare).sdf_mm[0], -draw.case.sdf_mm[0])


def test_organs_are_copied_and_exchanged_in_the_drawn_order(draw: Trial) -> None:
    first, second = draw.organs()[:2]
    i, j = (draw.case.structure_names.index(name) for name in (first, second))
    copied = put("organ_copied", draw)
    assert np.array_equal(copied.masks[i], draw.case.masks[j])
    assert np.array_equal(copied.sdf_mm[i], draw.case.sdf_mm[j])
    assert np.array_equal(copied.masks[j], draw.case.masks[j])
    exchanged = put("organs_exchanged", draw)
    assert np.array_equal(exchanged.masks[[i, j]], draw.case.masks[[j, i]])
    assert np.array_equal(exchanged.sdf_mm[[i, j]], draw.case.sdf_mm[[j, i]])
    one = np.array(draw.case.masks)
    one[[k for k, name in enumerate(draw.case.structure_names) if name != first]] = False
    alone = replace(draw, case=replace(draw.case, masks=one))
    assert structures.organ_copied(alone) is None
    assert structures.organs_exchanged(alone) is None


# --- a case as a whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(3))
def test_an_origin_is_off_along_one_axis(axis: int, draw: Trial) -> None:
    found = put("origin_off", draw, axis=axis, size=5.0)
    assert np.subtract(found.grid.origin_mm, draw.case.grid.origin_mm).tolist() == [5.0 * (k == axis) for k in range(3)]
    assert (found.grid.shape_zyx, found.grid.spacing_mm) == (draw.case.grid.shape_zyx, draw.case.grid.spacing_mm)


def test_a_plan_is_wrong_in_its_main_target_and_fractions(draw: Trial) -> None:
    assert put("prescription_wrong", draw, size=2.0).prescription_gy == {"PTV70": 72.0, "PTV56": 56.0}
    assert put("fractions_wrong", draw, size=5.0).n_fractions == 33
    bare = np.zeros_like(draw.case.masks)
    assert wholes.prescription_wrong(replace(draw, case=replace(draw.case, masks=bare))) is None
    assert wholes.fractions_wrong(replace(draw, case=replace(draw.case, n_fractions=None))) is None


def test_a_hole_is_a_ball_of_so_much_of_the_body(draw: Trial) -> None:
    case = replace(draw.case, grid=Grid(draw.case.grid.shape_zyx, (6.0, 3.0, 12.0), draw.case.grid.origin_mm))
    found = put("valid_dose_holed", draw, case=case, size=1.0)
    lost = np.argwhere(case.valid_dose & ~found.valid_dose)
    assert len(lost) == round(0.01 * case.body.sum())
    inside = np.argwhere(case.valid_dose)
    centre = inside[int(np.random.default_rng((3, 1)).integers(len(inside)))]
    away = np.sort(np.linalg.norm((inside - centre) * (6.0, 3.0, 12.0), axis=1))
    assert np.linalg.norm((lost - centre) * (6.0, 3.0, 12.0), axis=1).max() == pytest.approx(away[len(lost) - 1])


def test_a_copy_is_disguised_by_noise_and_its_mirror_has_its_sides_named_anew(draw: Trial) -> None:
    copy, other = put("near_copy", draw), draw.other
    noise = copy.ct_hu.astype(float) - other.ct_hu
    assert noise[other.body].std() == pytest.approx(20.0, rel=0.03)
    assert not noise[~other.body].any()
    gy = np.asarray(copy.dose_gy) - np.asarray(other.dose_gy)
    assert gy[other.body & (np.asarray(other.dose_gy) > 1)].std() == pytest.approx(0.1, rel=0.03)
    assert np.asarray(copy.dose_gy).min() >= 0.0
    assert copy.meta == {
        **other.meta,
        **{key: draw.case.meta[key] for key in ("case_id", "pseudonym", "group", "site", "source_sha256")},
    }
    turned = put("mirrored_copy", draw)
    assert np.array_equal(turned.ct_hu, copy.ct_hu[..., ::-1])
    assert np.array_equal(turned.mask("Femur_L"), copy.mask("Femur_R")[..., ::-1])
    assert np.array_equal(turned.mask("Rectum"), copy.mask("Rectum")[..., ::-1])
    assert put("near_copy", draw, other=replace(other, dose_gy=None)).dose_gy is None
    for name in ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy"):
        assert np.array_equal(getattr(put("case_mirrored", draw), name), getattr(draw.case, name)[..., ::-1]), name


# --- detection limits ---------------------------------------------------------------------------------------------


def test_what_is_seen_is_an_error_or_else_a_warning() -> None:
    findings = [
        Finding(gate, "c", severity, "x")
        for gate, severity in (("b", "error"), ("a", "warning"), ("b", "warning"), ("c", "error"))
    ]
    assert see(findings) == {"errors": ["b", "c"], "warnings": ["a"]}
    assert see([]) == {"errors": [], "warnings": []}


def test_a_detection_limit_is_the_least_size_from_which_on_half_of_the_cases_see_it() -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "ct_noise")
    nothing, told, seen, more = (
        {"errors": e, "warnings": w} for e, w in (([], []), ([], ["w"]), (["b"], []), (["a", "b"], ["w"]))
    )
    sights = {
        "case_1": [seen, nothing, told, more], "case_2": [nothing, told, seen, seen],
        "case_3": [nothing, nothing, told, seen],
        "case_4": [nothing, nothing, seen, seen], "case_5": None,
    }  # fmt: skip
    found = summarise_fault(fault, sights)
    assert found == {
        "name": "ct_noise", "group": "Image", "title": "noise in the image", "when": "before ingest", "unit": "HU",
        "sizes": [10.0, 20.0, 40.0, 80.0], "tried": 4, "seen": [1, 0, 2, 4], "warned": [0, 1, 2, 0],
        "seen_in_half": 40.0, "seen_in_all": 80.0, "warned_in_half": 40.0, "gates": {"b": 10.0, "a": 80.0},
        "cases": {name: rows for name, rows in sights.items() if rows is not None},
    }  # fmt: skip
    nobody = summarise_fault(fault, {"case_5": None})
    assert (nobody["tried"], nobody["seen"], nobody["warned"], nobody["seen_in_half"]) == (0, [0] * 4, [0] * 4, None)
