"""Boxes of cases and what stands in which channel, in numbers written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.learn.data import inputs
from doseledger.learn.data.inputs import (
    CaseFile,
    InputSpec,
    OpenCase,
    beams_of,
    case_files,
    check_fits,
    condition_vector,
    counted_box,
    cut_box,
    read_map,
    read_offsets,
    read_told,
    save_case,
    sided_order,
    spacing_range,
    spec_of,
    whole_box,
    with_targets_of,
)
from doseledger.learn.data.patches import box_about, prescribe_anew
from doseledger.learn.data.place import TargetPlace
from doseledger.learn.recipes.dose import InputRecipe

RECIPE: dict[str, Any] = {
    "structures": "sdf", "sdf_scale_mm": 40.0, "prescription": "numbers_and_map", "place": "targets",
    "physics": ["conformal", "plan"], "dose_scale_gy": 50.0,
}  # fmt: skip
NAMES = ("PTV70", "Femur_L", "PTV56", "Femur_R")


def recipe(**changes: Any) -> InputRecipe:
    return InputRecipe.model_validate({**RECIPE, **changes})


def open_as(**changes: Any) -> OpenCase:
    values: dict[str, Any] = {
        "file": CaseFile("case_0001", Path("case_0001.npz"), "a" * 64), "shape_zyx": (5, 8, 11),
        "spacing_mm": (4.0, 3.0, 1.5), "origin_mm": (0.0, 0.0, 0.0), "structure_names": NAMES,
        "present": (True, False, True, True), "prescription_gy": {"PTV70": 70.0, "PTV56": 56.0}, "n_fractions": 33,
        "place": TargetPlace((1.0, 3.0), (4.0, 6.0)),
    }  # fmt: skip
    return OpenCase(**{**values, **changes})


@pytest.mark.parametrize(("changes", "told", "first"), [
    # Offsets, structures, maps, told dose, all channels; conditions, and where the prescribed ones stand.
    ({}, True, (3, 6, 10, 12, 13, 10, slice(4, 6))), ({}, False, (3, 6, 10, 12, 12, 10, slice(4, 6))),
    ({"prescription": "numbers"}, True, (2, 5, 9, 11, 12, 10, slice(4, 6))),
    ({"prescription": "none"}, False, (2, 5, 9, 11, 11, 7, slice(4, 4))),
    ({"place": "none"}, False, (3, 3, 7, 9, 9, 10, slice(4, 6))),
    ({"physics": []}, True, (3, 6, 10, 10, 11, 10, slice(4, 6))),
])  # fmt: skip
def test_each_kind_of_channel_has_its_place(changes: dict[str, Any], told: bool, first: tuple[Any, ...]) -> None:
    spec = InputSpec(NAMES, ("PTV70", "PTV56"), recipe(**changes), told)
    assert first == (
        spec.first_offset, spec.first_structure, spec.first_physics, spec.first_told, spec.n_channels,
        spec.n_conditions, spec.prescribed,
    )  # fmt: skip


@pytest.mark.parametrize("prescription", ["numbers", "none"])
def test_mirroring_swaps_structures_and_their_conditions_and_leaves_maps_alone(prescription: str) -> None:
    spec = InputSpec(NAMES, ("PTV56", "PTV70"), recipe(prescription=prescription), True)
    channels, conditions = spec.mirrored_orders({"Femur_L": "Femur_R", "PTV56": "PTV70"})
    first = spec.first_structure
    swapped = [2, 3, 0, 1]
    assert channels == [*range(first), *(first + k for k in swapped), *range(first + 4, spec.n_channels)]
    prescribed = [] if prescription == "none" else [5, 4, 6]
    assert conditions == [*swapped, *prescribed, *range(4 + len(prescribed), spec.n_conditions)]
    assert sided_order(("Eye_R", "Lens", "Eye_L"), {"Eye_L": "Eye_R"}) == [2, 1, 0]
    assert sided_order(("Eye_R", "Lens", "Eye_L"), {"Eye_R": "Eye_L"}) == [2, 1, 0]


@pytest.mark.parametrize(("name", "is_sided"), [
    ("Femur_L", True), ("L Femur", True), ("femur-rt", True), ("LeftEye", True), ("EyeLeft", True), ("LT", True),
    ("Larynx", False), ("Rectum", False), ("Eyelid", False),
])  # fmt: skip
def test_a_side_is_a_word_of_its_own_or_stands_before_a_capital(name: str, is_sided: bool) -> None:
    if is_sided:
        with pytest.raises(BadInput, match=f"structure {name} seems to have a side"):
            sided_order((name,), {})
    else:
        assert sided_order((name,), {}) == [0]


def test_conditions_are_shares_of_their_scales() -> None:
    spec = InputSpec(NAMES, ("PTV70", "PTV56"), recipe())
    wanted = [1, 0, 1, 1, 70 / 50, 56 / 50, 33 / 30, 4 / 3, 1.0, 0.5]
    assert condition_vector(open_as(), spec) == pytest.approx(wanted)
    few = open_as(prescription_gy={"PTV56": 56.0}, n_fractions=None)
    assert condition_vector(few, spec)[4:7] == pytest.approx([0.0, 1.12, 0.0])
    assert condition_vector(few, InputSpec(NAMES, ("PTV70",), recipe(prescription="none"))) == pytest.approx(
        wanted[:4] + wanted[7:]
    )
    assert condition_vector(few, spec).dtype == np.float32


def test_the_main_prescription_is_the_highest_of_the_targets_that_are_there() -> None:
    assert open_as().main_prescription_gy == 70.0
    assert open_as(present=(False, False, True, True)).main_prescription_gy == 56.0
    assert open_as(present=(False,) * 4).main_prescription_gy == 0.0
    assert open_as(prescription_gy={}).main_prescription_gy == 0.0


@pytest.mark.parametrize(("least", "box"), [
    ((1, 1, 1), ((0, 0, 0), (5, 8, 11))), ((8, 8, 12), ((-1, 0, 0), (8, 8, 12))), ((4, 11, 14), ((0, -1, -1),
    (5, 11, 14))),
])  # fmt: skip
def test_a_whole_case_is_widened_evenly(least: Any, box: Any) -> None:
    assert whole_box(open_as(), least) == box


@pytest.mark.parametrize(("centre", "patch", "start"), [
    ((2, 4, 6), (3, 4, 5), (1, 2, 4)), ((0, 0, 0), (3, 4, 5), (0, 0, 0)), ((4, 7, 10), (3, 4, 5), (2, 4, 6)),
    ((4, 7, 10), (5, 8, 11), (0, 0, 0)), ((0, 0, 0), (8, 9, 14), (-1, 0, -1)),
])  # fmt: skip
def test_a_patch_is_centred_and_moved_into_the_case(centre: Any, patch: Any, start: Any) -> None:
    assert box_about(np.array(centre), patch, (5, 8, 11)) == (start, patch)


@pytest.mark.parametrize(("box", "wanted"), [
    (((1,), (2,)), [1, 2]), (((-2,), (4,)), [9, 9, 0, 1]), (((3,), (4,)), [3, 4, 9, 9]), (((-1,), (7,)),
    [9, 0, 1, 2, 3, 4, 9]),
    (((7,), (2,)), [9, 9]), (((-5,), (3,)), [9, 9, 9]),
])  # fmt: skip
def test_a_box_beyond_an_array_holds_what_lies_outside(box: Any, wanted: list[int]) -> None:
    line = np.arange(5)
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = 5
        start, size = [0, 0, 0], [1, 1, 1]
        start[axis], size[axis] = box[0][0], box[1][0]
        found = cut_box(line.reshape(1, *shape), (tuple(start), tuple(size)), 9)  # type: ignore[arg-type]
        assert found.ravel().tolist() == wanted
        assert found.shape == (1, *size)


@pytest.mark.parametrize(("first", "last", "stride", "start", "size"), [
    # With two voxels about, as far as there are, and at least three of the coarsest level's.
    (5, 8, 1, 3, 8), (0, 8, 1, 0, 11), (5, 19, 1, 3, 17), (5, 8, 4, 1, 12), (5, 8, 8, -5, 24),
    (4, 11, 4, 2, 12), (4, 12, 4, 1, 16),
])  # fmt: skip
def test_what_counts_of_a_case_is_widened_to_whole_strides(
    first: int, last: int, stride: int, start: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for axis in range(3):
        shape, place, strides = [20, 20, 20], [slice(7, 12)] * 3, [1, 1, 1]
        place[axis], strides[axis] = slice(first, last + 1), stride
        counted = np.zeros(shape, np.uint8)
        counted[tuple(place)] = 1
        monkeypatch.setattr(inputs, "map_member", lambda path, name, counted=counted: counted)
        box = counted_box(open_as(shape_zyx=(20, 20, 20)), tuple(strides))  # type: ignore[arg-type]
        assert (box[0][axis], box[1][axis]) == (start, size)
        others = [k for k in range(3) if k != axis]
        assert [(box[0][k], box[1][k]) for k in others] == [(5, 9)] * 2
    monkeypatch.setattr(inputs, "map_member", lambda path, name: np.zeros((20, 20, 20), np.uint8))
    with pytest.raises(BadCase, match="case_0001: valid_dose has no voxel"):
        counted_box(open_as(), (1, 1, 1))


def test_offsets_are_told_in_tenths_of_a_metre_about_the_targets() -> None:
    z, y, x = read_offsets(open_as(), ((-1, 3, 4), (6, 2, 4)))
    # Slices 1 to 3 hold targets: ±60 mm at their ends, 4 mm a slice beyond.
    assert z.ravel() == pytest.approx([-0.68, -0.64, -0.60, 0.0, 0.60, 0.64])
    assert y.ravel() == pytest.approx([-0.03, 0.0])
    assert x.ravel() == pytest.approx([0.03, 0.015, 0.0, 0.015])
    assert [offset.shape for offset in (z, y, x)] == [(6, 1, 1), (1, 2, 1), (1, 1, 4)]
    assert z.dtype == np.float32
    # One slice has no length to stretch.
    assert read_offsets(open_as(place=TargetPlace((2.0, 2.0), (0, 0))), ((1, 0, 0), (3, 1, 1)))[
        0
    ].ravel() == pytest.approx([-0.64, -0.60, 0.64])


def test_maps_and_told_doses_are_in_gy(monkeypatch: pytest.MonkeyPatch) -> None:
    maps: Any = SimpleNamespace(names=("conformal", "plan"), path=Path("maps.npz"), beams={"a": 1})
    steps = {"plan": np.full((5, 8, 11), 100, np.uint8)}
    monkeypatch.setattr(inputs, "map_member", lambda path, name: steps[name])
    case = open_as(physics=maps, told=np.full((5, 8, 11), 1000, np.uint16))
    box: Any = ((4, 0, 0), (2, 1, 1))
    assert read_map(case, "plan", box).ravel() == pytest.approx([30.0, 0.0])
    assert read_told(case, box).ravel() == pytest.approx([2.0, 0.0])
    with pytest.raises(NotReady, match="asks for the map gathered, there are conformal, plan"):
        read_map(case, "gathered", box)
    with pytest.raises(NotReady, match="asks for the map plan, there are none"):
        read_map(open_as(), "plan", box)
    with pytest.raises(NotReady, match="case_0001: the model stands on boosted trees"):
        read_told(open_as(), box)
    assert beams_of([case, case]) == {"a": 1}
    assert beams_of([open_as(), open_as()]) is None
    with pytest.raises(BadInput, match="case_0009: its physics maps were made of other beams than those of case_0001"):
        beams_of([case, case, open_as(file=CaseFile("case_0009", Path("x"), ""))])


def test_spacings_range_from_the_least_to_the_largest_of_each_axis() -> None:
    cases = [open_as(spacing_mm=spacing) for spacing in ((4.0, 3.0, 1.5), (2.0, 5.0, 1.0), (3.0, 4.0, 9.0))]
    assert spacing_range(cases) == ((2.0, 3.0, 1.0), (4.0, 5.0, 9.0))


def test_cases_are_those_of_a_part_a_fold_and_a_repeat_in_order() -> None:
    rows = [(0, 0, "b", "train"), (0, 0, "a", "train"), (0, 1, "c", "train"), (1, 0, "d", "train"), (0, 0, "e", "val")]
    table = pd.DataFrame(rows, columns=["repeat", "fold", "case_id", "split"]).assign(sha256="f" * 64)
    found = case_files(Path("cases"), table, "train", fold=0, repeat=0)
    assert found == [CaseFile(name, Path(f"cases/{name}.npz"), "f" * 64) for name in ("a", "b")]
    with_maps = case_files(Path("cases"), table, "val", fold=0, repeat=0, physics=Path("maps"))
    assert with_maps == [CaseFile("e", Path("cases/e.npz"), "f" * 64, Path("maps/e.npz"))]
    assert [one.case_id for one in case_files(Path("cases"), table, "train", fold=1, repeat=0)] == ["c"]
    assert [one.case_id for one in case_files(Path("cases"), table, "train", fold=0, repeat=1)] == ["d"]
    with pytest.raises(NotReady, match="the splits have no test case in fold 0, repeat 1"):
        case_files(Path("cases"), table, "test", fold=0, repeat=1)


def test_a_spec_knows_the_targets_of_all_cases_and_whether_all_were_told(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    told = np.zeros((1, 1, 1), np.uint16)
    first = open_as(prescription_gy={"PTV56": 56.0}, told=told)
    second = open_as(prescription_gy={"PTV70": 70.0}, told=told)
    found = spec_of([first, second], recipe())
    assert (found.structure_names, found.target_names, found.told) == (NAMES, ("PTV70", "PTV56"), True)
    assert not spec_of([first, replace(second, told=None)], recipe()).told
    case = make_case()
    files = [save_case(case, tmp_path), CaseFile("gone", tmp_path / "gone.npz", "")]
    spec = InputSpec(("PTV56", "Rectum", "PTV70"), ("PTV56",), recipe())
    assert with_targets_of(spec, files).target_names == ("PTV56", "PTV70")
    assert with_targets_of(spec, []).target_names == ("PTV56",)


def test_a_case_fits_that_has_the_structures_and_no_more_targets() -> None:
    spec = InputSpec(NAMES, ("PTV56", "PTV70"), recipe())
    check_fits(open_as(prescription_gy={"PTV56": 1.0}), spec)
    with pytest.raises(BadCase, match="prescribes a dose to Femur_L, Femur_R; the model was trained on PTV56, PTV70"):
        check_fits(open_as(prescription_gy={"Femur_R": 1.0, "PTV56": 1.0, "Femur_L": 1.0}), spec)


@pytest.mark.parametrize("has_map", [True, False])
def test_more_monitor_units_are_more_of_all_that_is_a_dose(has_map: bool) -> None:
    spec = InputSpec(NAMES, ("PTV70", "PTV56"), recipe(prescription="numbers_and_map" if has_map else "numbers"), True)
    sample = {"dose": np.full(2, 1.0, np.float32), "condition": np.ones(spec.n_conditions, np.float32),
              "image": np.ones((spec.n_channels, 1), np.float32)}  # fmt: skip
    prescribe_anew(sample, spec, 1.5)
    assert sample["dose"].tolist() == [1.5, 1.5]
    assert sample["condition"].tolist() == [1.0] * 4 + [1.5, 1.5] + [1.0] * 4
    more = [*([2] if has_map else []), *range(spec.first_physics, spec.n_channels)]
    assert np.flatnonzero(sample["image"][:, 0] == 1.5).tolist() == more
    assert np.flatnonzero(sample["image"][:, 0] == 1.0).tolist() == [k for k in range(spec.n_channels) if k not in more]
