"""Bands, fits, fingerprints, sampled distances, slices and leaks of the data gate, worked out apart from the code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from doseledger.core.case import Case
from doseledger.gates.data import distances, fingerprints, leakage, placement, slices
from doseledger.gates.limits import NearCopyLimits
from doseledger.gates.verdict import Finding

RNG = np.random.default_rng(6)
SPACING = (3.0, 2.0, 5.0)


def ball(shape: tuple[int, int, int] = (14, 24, 12)) -> np.ndarray:
    z, y, x = np.indices(shape)
    return ((z - 6) * 3.0) ** 2 + ((y - 11) * 2.0) ** 2 + ((x - 5) * 5.0) ** 2 <= 13.0**2


# --- place --------------------------------------------------------------------------------------------------------


def test_a_band_is_what_lies_within_six_mm_of_an_outline_on_either_side() -> None:
    mask = ball()
    band = placement._find_band(mask, None, SPACING)
    inner = mask & (distance_transform_edt(mask, sampling=SPACING) <= 6.0)
    outer = ~mask & (distance_transform_edt(~mask, sampling=SPACING) <= 6.0)
    sides = [{tuple(v) for v in part.T.tolist()} for part in (band.zyx[:, : band.n_inner], band.zyx[:, band.n_inner :])]
    assert sides == [{tuple(v) for v in np.argwhere(part).tolist()} for part in (inner, outer)]
    assert band.ends == tuple((int(k.min()), int(k.max())) for k in band.zyx)
    within = np.indices(mask.shape)[1] < 14
    cut = placement._find_band(mask, within, SPACING)
    assert cut.n_inner == band.n_inner
    assert {tuple(v) for v in cut.zyx[:, cut.n_inner :].T.tolist()} == {
        tuple(v) for v in np.argwhere(outer & within).tolist()
    }


def test_a_band_reads_the_volume_at_moved_voxels_cut_to_a_window() -> None:
    zyx = np.array([[0, 2, 4], [1, 3, 5], [2, 2, 6]])
    band = placement._Band.of(zyx, 2, (5, 6, 7))
    volume = np.arange(210.0).reshape(5, 6, 7)
    assert band.values(volume, (0, 0, 0), (10.0, 200.0))[0].tolist() == [10.0, 107.0, 200.0]
    for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -2, 0), (0, 0, 1), (0, 0, -3)):
        moved = zyx + np.array(step)[:, None]
        inside = ((moved >= 0) & (moved < np.array([[5], [6], [7]]))).all(axis=0)
        found, n_inner = band.values(volume, step, (-1e9, 1e9))
        assert found.tolist() == volume[tuple(moved[:, inside])].tolist()
        assert n_inner == inside[:2].sum()
    assert band.mirrored().zyx.tolist() == [[0, 2, 4], [1, 3, 5], [4, 4, 0]]
    assert band.mirrored().n_inner == 2
    assert placement._Band.of(np.zeros((3, 0), np.intp), 0, (5, 6, 7)).ends == ()


def test_steps_go_along_each_axis_to_twelve_mm_and_to_25_and_50() -> None:
    found = placement._steps((3.0, 20.0, 6.0))
    z, y, x = ([step[axis] for step in found if step[axis]] for axis in range(3))
    assert z == [-1, 1, -2, 2, -3, 3, -4, 4, -8, 8, -17, 17]
    assert y == [-1, 1, -2, 2]
    assert x == [-1, 1, -2, 2, -4, 4, -8, 8]
    assert len(found) == len(z) + len(y) + len(x)
    assert placement._in_words((0, -2, 0), (3.0, 2.5, 6.0)) == "moved by -5.0 mm along y"
    assert placement._in_words((1, 0, 0), (3.0, 2.5, 6.0)) == "moved by +3.0 mm along z"


def test_the_share_explained_is_that_between_the_two_sides() -> None:
    values = np.array([1.0, 3.0, 7.0, 9.0, 10.0])
    # Mean 6; sides 2 and 26 / 3.
    between = 2 * 16.0 + 3 * (26 / 3 - 6) ** 2
    assert placement._explained(values, 2) == pytest.approx(between / (25 + 9 + 1 + 9 + 16))
    assert placement._explained(np.ones(4), 2) == 0.0
    thinned = placement._thinned(np.ones((2, 100, 301), bool))
    assert len(thinned) == 15050
    assert np.array_equal(thinned, np.argwhere(np.ones((2, 100, 301), bool))[::4])
    assert len(placement._thinned(np.ones((2, 100, 100), bool))) == 20_000


# --- fingerprints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "step_mm"), [({}, 8.0), ({"dose_gy": None}, 8.0), ({"dose_gy": None, "small": True}, 2.0)]
)
def test_a_fingerprint_is_the_fine_structure_on_a_lattice_about_the_high_dose(
    change: dict[str, Any], step_mm: float, make_case: Callable[..., Case]
) -> None:
    case = make_case()
    if change.pop("small", False):
        # 24 slices of 3.9 mm: less than half of the lattice's 192 mm.
        case = replace(case, grid=replace(case.grid, spacing_mm=(3.9, 6.0, 6.0)))
    case = replace(case, **change)
    found = fingerprints.take_fingerprint(case)
    dose = case.dose_gy
    region = case.body if dose is None else dose > 0.5 * dose.max()
    centre = np.argwhere(region).mean(axis=0)
    spacing = np.array(case.grid.spacing_mm)
    offsets = (np.arange(24) - 11.5) * step_mm
    axes = [c + offsets / s for c, s in zip(centre, spacing, strict=True)]
    smooth = gaussian_filter(np.clip(case.ct_hu.astype(np.float32), -1000, 3000), step_mm / 2 / spacing)
    seen = map_coordinates(smooth, np.stack(np.meshgrid(*axes, indexing="ij")), order=1, mode="nearest")
    detail = (seen - gaussian_filter(seen, 2.0)).ravel()
    detail -= detail.mean()
    assert found.ct == pytest.approx(detail / np.linalg.norm(detail), abs=1e-5)
    assert np.linalg.norm(found.dose) == pytest.approx(0.0 if dose is None else 1.0, abs=1e-5)
    assert (found.dose_sha256 == "") is (dose is None)
    assert found.image == "CT"


def test_what_is_flat_has_no_fingerprint(make_case: Callable[..., Case]) -> None:
    case = make_case()
    flat = replace(
        case, ct_hu=np.zeros_like(case.ct_hu), dose_gy=np.zeros_like(case.dose_gy), body=np.zeros_like(case.body)
    )
    found = fingerprints.take_fingerprint(flat)
    assert not found.ct.any()
    assert not found.dose.any()


# --- distances ----------------------------------------------------------------------------------------------------


def test_distances_are_sampled_on_both_sides_and_held_against_the_nearest_voxel_across() -> None:
    mask = ball()
    depth = distance_transform_edt(mask, sampling=SPACING)
    away = distance_transform_edt(~mask, sampling=SPACING)
    sdf = np.where(mask, -depth, away).astype(np.float16)
    found, expected = distances._sampled_distances(mask, sdf, SPACING, 20.0)
    assert found == pytest.approx(expected, abs=0.02)
    n_out, n_in = (~mask).sum(), mask.sum()
    every = [max(1, n // 400) for n in (n_out, n_in)]
    assert len(found) == sum(-(-n // k) for n, k in zip((n_out, n_in), every, strict=True))
    # A mask at the image's end is judged where its end is farther off than the surface.
    half = mask[6:]
    few, wanted = distances._sampled_distances(half, sdf[6:], SPACING, 20.0)
    assert 0 < len(few) < len(found)
    assert few == pytest.approx(wanted, abs=0.02)


# --- slices -------------------------------------------------------------------------------------------------------


def test_a_slice_is_held_against_the_mean_of_both_neighbours_or_half_of_the_only_one() -> None:
    values = np.array([0.0, 4.0, 2.0, 10.0, 5.0], np.float32)[:, None, None] * np.ones((5, 4, 4), np.float32)
    mask = np.ones((5, 4, 4), bool)
    found = slices._jumps(values, mask, 2.0)
    assert found.tolist() == [2.0, 3.0, 5.0, 6.5, 2.5]
    mask[1, :, 2:] = False
    # Slice 1 is too small: its neighbours have one neighbour, or none.
    assert slices._jumps(values, mask, 2.0) == pytest.approx([math.nan, math.nan, 4.0, 6.5, 2.5], nan_ok=True)
    assert slices._jumps(values, mask, 2.5).tolist()[1] == 3.0


def test_slices_share_what_stands_at_the_same_place() -> None:
    values = np.arange(16.0)[None] + 100.0 * np.arange(6.0)[:, None]
    values = values.reshape(6, 4, 4)
    values[2, :2] = values[1, :2]
    mask = np.ones((6, 4, 4), bool)
    assert slices._same(values, mask, 2.0) == pytest.approx([0.0, 50.0, 0.0, 0.0, 0.0, math.nan], nan_ok=True)
    mask[3, 1:] = False
    assert slices._same(values, mask, 2.0) == pytest.approx([0.0, 50.0, math.nan, math.nan, 0.0, math.nan], nan_ok=True)


# --- leaks --------------------------------------------------------------------------------------------------------


def tables(parts: dict[str, str], **columns: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Cases a, b, … with their part in one fold, and nobody locked."""
    ids = list(parts)
    cases = pd.DataFrame(
        {"case_id": ids, "pseudonym": [f"p_{i}" for i in ids], "group": "G", "site": "S",
         "sha256": [i * 64 for i in ids], "source_sha256": [i.upper() * 64 for i in ids], **columns}
    )  # fmt: skip
    splits = cases[["case_id", "pseudonym", "group", "sha256"]].assign(repeat=0, fold=0, split=list(parts.values()))
    return cases, splits, pd.DataFrame({"pseudonym": [], "source_sha256": []}, dtype=str)


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.gate, finding.case_id, finding.severity) for finding in findings]


PARTS = {"a": "train", "b": "val", "c": "test", "d": "train"}


def test_a_sound_table_of_splits_has_no_finding_and_an_empty_one_has() -> None:
    cases, splits, locked = tables(PARTS)
    assert leakage.judge_splits(cases, splits, locked) == []
    assert told(leakage.judge_splits(cases, splits.iloc[:0], locked)) == [("splits_stale", "", "error")]


def test_stale_incomplete_and_empty_splits_are_named_each() -> None:
    cases, splits, locked = tables(PARTS)
    changed = cases.assign(sha256=["x" * 64, *cases["sha256"][1:]], group=["G", "H", "G", "G"])
    found = leakage.judge_splits(changed, splits, locked)
    assert [(f.case_id, f.numbers["columns"]) for f in found] == [("a", ["sha256"]), ("b", ["group"])]
    found = leakage.judge_splits(cases.iloc[1:], splits.iloc[[0, 1, 2]], locked)
    assert told(found) == [("splits_stale", "a", "error"), ("splits_stale", "d", "error")]
    assert "in the splits, but not in cases.csv" in found[0].message
    assert found[1].message == "d: in cases.csv, but in no part of repeat 0 fold 0; run the split stage again"
    none = splits.assign(split=["train", "test", "test", "train"])
    (finding,) = leakage.judge_splits(cases, none, locked)
    assert (finding.gate, "no case in val;" in finding.message) == ("splits_empty", True)


def test_a_patient_on_two_sides_and_a_broken_lock_are_named() -> None:
    cases, splits, locked = tables(PARTS, pseudonym=["p", "q", "p", "r"])
    (finding,) = leakage.judge_splits(cases, splits, locked)
    assert (finding.gate, finding.case_id, finding.numbers["cases"]) == ("leakage_patient", "a", ["a", "c"])
    assert "patient p (a, c) is in test and train of repeat 0 fold 0" in finding.message
    cases, splits, _ = tables(PARTS)
    lock = pd.DataFrame({"pseudonym": ["p_c", "p_b", "p_z"], "source_sha256": ["C" * 64, "B" * 64, "Z" * 64]})
    found = leakage.judge_splits(cases, splits, lock)
    assert told(found) == [("lock_broken", "", "error"), ("lock_broken", "b", "error")]
    assert found[0].message == "locked test patient p_z is not among the cases as he was locked; bring him back"
    assert found[1].message == "b: of the locked test patient p_b, but in val of repeat 0 fold 0"
    # A locked patient may be in no part.
    assert leakage.judge_splits(cases, splits[splits["case_id"] != "c"], lock.iloc[:1]) == []


def test_folds_that_hold_one_group_out_each_keep_it_out() -> None:
    cases, splits, locked = tables(PARTS, group=["A", "A", "B", "B"])
    folds = [
        splits.assign(fold=0, split=["test", "test", "train", "val"]),
        splits.assign(fold=1, split=["train", "val", "test", "train"]),
    ]
    found = leakage.judge_splits(cases, pd.concat(folds), locked)
    (leak,) = [finding for finding in found if finding.gate == "leakage_group"]
    assert (leak.case_id, leak.numbers) == ("d", {"cases": ["d"], "group": "B"})
    assert "d: of group B, which repeat 0 fold 1 holds out as its test, but in its train" in leak.message
    folds[1] = splits.assign(fold=1, split=["train", "val", "test", "test"])
    assert leakage.judge_splits(cases, pd.concat(folds), locked) == []
    # A fold that tests on both was not dealt by group.
    folds[1] = splits.assign(fold=1, split=["train", "test", "test", "train"])
    assert not [f for f in leakage.judge_splits(cases, pd.concat(folds), locked) if f.gate == "leakage_group"]


def prints(**given: np.ndarray) -> dict[str, fingerprints.Fingerprint]:
    """Fingerprints of 2 x 2 x 2 points by case, of image and dose alike."""
    found = {}
    for name, cube in given.items():
        unit = (cube.ravel() / np.linalg.norm(cube)).astype(np.float32)
        found[name] = fingerprints.Fingerprint(
            f"ct_{cube.tolist()}", f"dose_{name}", unit, unit if name in "ab" else np.zeros(8, np.float32)
        )
    return found


def test_copies_are_told_by_bytes_by_correlation_and_by_how_they_are_mirrored() -> None:
    cube = np.array([[[3.0, -1], [2, -4]], [[1, 0.5], [-2, 0.5]]])
    other = np.array([[[1.0, 1], [-1, -1]], [[1, 1], [-1, -1]]])
    limits = NearCopyLimits(ct_correlation=0.95, dose_correlation=0.95, source="x")
    cases, splits, _ = tables(
        {"a": "train", "b": "test", "c": "train", "d": "train"},
        pseudonym=["p", "q", "r", "r"],
        source_sha256=["1", "2", "3", "3"],
    )
    for axes, words in (
        (2, ", mirrored along x"),
        (1, ", mirrored along y"),
        (0, ", mirrored along z"),
        ((0, 2), ", mirrored along z and x"),
    ):
        looks = prints(a=cube, b=np.flip(cube, axes), c=other)
        found = leakage.judge_copies(cases, splits, looks, limits)
        assert told(found) == [("leakage_copy", "a", "error"), ("duplicate", "c", "warning")]
        assert f"their CT is nearly the same{words} (correlation 1.000, wanted below 0.95)" in found[0].message
        assert "on both sides of a split (train and test)" in found[0].message
        assert found[1].numbers["reasons"] == ["they come from the very same files"]
    same = leakage.judge_copies(cases, splits.assign(split="train"), prints(a=cube, b=cube), limits)
    assert told(same) == [("duplicate", "a", "error"), ("duplicate", "c", "warning")]
    assert same[0].numbers["reasons"][0] == "their CT is the same to the last bit"
    assert leakage.judge_copies(cases.iloc[:3], splits, prints(a=cube, c=other), limits) == []
    assert leakage.judge_copies(cases.iloc[:3], splits, {}, limits) == []
