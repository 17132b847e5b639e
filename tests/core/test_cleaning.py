"""Masks cleaned: the largest part kept, holes filled, and said in words."""

from __future__ import annotations

import numpy as np
import pytest

from doseledger.core.cleaning import Cleaning, clean


def cube_and_speck() -> np.ndarray:
    mask = np.zeros((7, 9, 9), dtype=np.bool_)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[5, 8, 8] = True
    return mask


@pytest.mark.parametrize(
    ("how", "change", "said"),
    [
        (Cleaning(), 0, ""),
        (Cleaning(largest_part=True), -1, "largest of 2 parts (-1 voxels)"),
        (Cleaning(fill_holes=True), 1, "holes filled (+1 voxels)"),
        (Cleaning(largest_part=True, fill_holes=True), 0, "largest of 2 parts (-1 voxels), holes filled (+1 voxels)"),
    ],
)
def test_what_is_asked_for_is_done_and_told(how: Cleaning, change: int, said: str) -> None:
    mask = cube_and_speck()
    before = mask.copy()
    cleaned, words = clean(mask, how)
    assert (int(cleaned.sum()) - int(mask.sum()), words) == (change, said)
    assert cleaned.dtype == np.bool_
    np.testing.assert_array_equal(mask, before)


def test_cleaning_what_is_clean_or_empty_changes_nothing() -> None:
    both = Cleaning(largest_part=True, fill_holes=True)
    once, _ = clean(cube_and_speck(), both)
    again, words = clean(once, both)
    np.testing.assert_array_equal(again, once)
    assert words == "largest of 1 parts (-0 voxels), holes filled (+0 voxels)"
    empty, words = clean(np.zeros((3, 4, 5), dtype=np.bool_), both)
    assert not empty.any()
    assert words == "largest of 0 parts (-0 voxels), holes filled (+0 voxels)"


def test_parts_that_meet_at_a_corner_are_one_and_an_opening_makes_no_hole() -> None:
    mask = np.zeros((4, 4, 4), dtype=np.bool_)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert int(clean(mask, Cleaning(largest_part=True))[0].sum()) == 2
    cup = np.ones((3, 3, 3), dtype=np.bool_)
    cup[0:2, 1, 1] = False
    assert int(clean(cup, Cleaning(fill_holes=True))[0].sum()) == 25
