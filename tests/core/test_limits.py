"""Each tolerance and bound of the nouns: just inside passes, just outside is another or is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.damage import describe
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.grid import Grid
from doseledger.core.npz import array_heads
from doseledger.core.planes import common_step_mm, even_planes, find_planes
from doseledger.core.schema import Block, load_block
from doseledger.core.settings import SplitSettings


class Numbers(Block):
    """A block of one list of numbers."""

    numbers: list[int]


@pytest.mark.parametrize(("off_mm", "is_same"), [(0.0, True), (0.0099, True), (-0.0099, True), (0.0105, False)])
def test_a_grid_is_the_same_up_to_the_hundredth_of_a_mm_at_either_end(off_mm: float, is_same: bool) -> None:
    grid = Grid((4, 5, 6), (3.0, 2.5, 2.0), (-10.0, 20.0, 30.0))
    assert grid.same_as(replace(grid, origin_mm=(-10.0, 20.0 + off_mm, 30.0))) is is_same
    # The other end moves with the spacing.
    assert grid.same_as(replace(grid, spacing_mm=(3.0, 2.5, 2.0 + off_mm / 5))) is is_same


@pytest.mark.parametrize(("n_beyond", "is_beyond"), [(0, False), (9, False), (10, False), (11, True), (30, True)])
def test_a_structure_may_reach_beyond_the_dose_grid_by_a_thousandth(
    n_beyond: int, is_beyond: bool, make_case: Callable[..., Case]
) -> None:
    case = make_case()
    # The dose grid begins at the second plane; of 10,000 voxels some lie on the first.
    native = {"shape_zyx": [23, 40, 48], "spacing_mm": [6.0, 6.0, 6.0], "origin_mm": [-64.0, -117.0, -141.0]}
    masks = case.masks.copy()
    rectum = masks[case.structure_names.index("Rectum")]
    rectum[...] = False
    rectum[0].flat[:n_beyond] = True
    rectum[1:].flat[: 10_000 - n_beyond] = True
    changed = replace(case, masks=masks, meta={**case.meta, "native_dose_grid": native})
    assert changed.lacks_dose("Rectum") is is_beyond


@pytest.mark.parametrize(("gap_mm", "n_planes"), [(0.25, 1), (0.2499, 1), (0.2502, 2), (0.27, 2)])
def test_positions_a_quarter_of_a_mm_apart_are_one_plane(gap_mm: float, n_planes: int) -> None:
    assert len(find_planes(np.array([0.0, gap_mm]))[0]) == n_planes


@pytest.mark.parametrize(("gap_mm", "step_mm"), [(3.0999, 3.05), (3.105, 3.0), (2.9001, 2.95), (2.895, 2.895)])
def test_steps_that_differ_by_a_tenth_of_a_mm_are_one(gap_mm: float, step_mm: float) -> None:
    found = common_step_mm(np.array([0.0, 3.0, 3.0 + gap_mm]))
    assert found == pytest.approx(step_mm, abs=1e-3)


@pytest.mark.parametrize(("step_mm", "off_mm", "is_even"), [
    (3.0, 0.24, True), (3.0, 0.26, False), (0.8, 0.19, True), (0.8, 0.21, False),
])  # fmt: skip
def test_a_plane_may_lie_a_quarter_of_a_mm_off_its_even_place_and_on_thin_slices_a_quarter_of_a_step(
    step_mm: float, off_mm: float, is_even: bool
) -> None:
    planes_mm = step_mm * np.arange(41.0)
    planes_mm[20] += off_mm * 41 / 40
    assert (even_planes(planes_mm, step_mm) is not None) is is_even


@pytest.mark.parametrize(("n_faults", "more"), [(50, ""), (51, "; and 1 more"), (57, "; and 7 more")])
def test_fifty_faults_of_a_block_are_spelled_out(n_faults: int, more: str) -> None:
    with pytest.raises(BadInput) as refused:
        load_block(Numbers, {"numbers": ["x"] * n_faults}, "a.yaml")
    assert str(refused.value).count("numbers.") == 50
    assert str(refused.value).endswith(more or "found 'x'")


@pytest.mark.parametrize(("n", "is_whole"), [(198, True), (199, False), (1000, False)])
def test_two_hundred_characters_of_a_wrong_value_are_shown(n: int, is_whole: bool) -> None:
    with pytest.raises(BadInput) as refused:
        load_block(Numbers, {"numbers": "x" * n}, "a.yaml")
    shown = str(refused.value).partition("found ")[2]
    assert ("x" * n in shown) is is_whole
    assert len(shown) <= 201


@pytest.mark.parametrize(("n", "is_whole"), [(200, True), (201, False), (5000, False)])
def test_two_hundred_characters_of_an_error_are_shown(n: int, is_whole: bool) -> None:
    assert describe(ValueError("x" * n)) == ("x" * n if is_whole else "x" * 200 + "…")


@pytest.mark.parametrize(("rows", "is_read"), [(9998, True), (10_001, False)])
def test_aliases_may_stand_for_a_million_values(rows: int, is_read: bool, tmp_path: Path) -> None:
    # A list of 99 numbers is a hundred values, wherever it is named.
    text = f"a: &a [{', '.join(['1'] * 99)}]\nb: [{', '.join(['*a'] * rows)}]\n"
    (tmp_path / "a.yaml").write_text(text)
    if is_read:
        assert len(read_yaml(tmp_path / "a.yaml")["b"]) == rows
        return
    with pytest.raises(BadInput, match="more than 1000000 values"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(("n", "is_taken"), [(255, True), (256, False)])
def test_an_arrays_name_has_at_most_255_characters(n: int, is_taken: bool, tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"x" * n: np.zeros(2)})
    if is_taken:
        assert list(array_heads(tmp_path / "a.npz")) == ["x" * 255]
        return
    with pytest.raises(BadInput, match="has 256 characters, wanted at most 255"):
        array_heads(tmp_path / "a.npz")


@pytest.mark.parametrize(("spacing_mm", "is_taken"), [
    (1e-6, True), (0.9e-6, False), (1e-308, False), (0.0, False), (-1.0, False), (math.nan, False), (math.inf, False),
])  # fmt: skip
def test_voxels_of_a_grid_are_a_millionth_of_a_mm_apart_at_the_least(spacing_mm: float, is_taken: bool) -> None:
    with nullcontext() if is_taken else pytest.raises(BadInput, match="needs three positive spacings in mm"):
        Grid((1, 1, 1), (1.0, spacing_mm, 1.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(("train", "val", "test", "message"), [
    (0.7, 0.15, 0.15, ""), (0.7, 0.15, 0.1500009, ""), (0.7, 0.15, 0.1500011, "must add up to 1"),
    (0.4, 0.3, 0.3, ""), (0.3, 0.35, 0.35, "train must be the largest part"),
    (0.4, 0.4, 0.2, "train must be the largest part"), (0.4, 0.2, 0.4, "train must be the largest part"),
])  # fmt: skip
def test_parts_of_a_split_make_one_and_most_are_trained_on(train: float, val: float, test: float, message: str) -> None:
    value = {"seed": 1, "kind": "fractions", "fractions": {"train": train, "val": val, "test": test}, "n_folds": 2,
             "n_repeats": 1, "group_column": "site"}  # fmt: skip
    with pytest.raises(BadInput, match=message) if message else nullcontext():
        load_block(SplitSettings, value, "params.yaml")
