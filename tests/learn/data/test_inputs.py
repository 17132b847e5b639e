"""Channels and conditions of a case, and what is refused before a network sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import (
    InputSpec,
    OpenCase,
    check_fits,
    condition_vector,
    open_case,
    read_box,
    read_channels,
    read_dose,
    spec_of,
    whole_box,
)
from doseledger.learn.data.place import TargetPlace
from doseledger.learn.recipes.dose import Recipe

MakeRecipe = Callable[..., Recipe]


def whole(case: OpenCase) -> Any:
    return case.whole


def test_channels_are_ct_mask_prescription_and_clipped_distances(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    channels, loaded = read_channels(case, spec, whole(case)), Case.load(case.file.path)
    assert channels.shape == (3 + 3 + 8, *case.shape_zyx)
    assert channels[0].min() == -1.0
    np.testing.assert_array_equal(channels[1] > 0, loaded.valid_dose)
    np.testing.assert_allclose(np.unique(channels[2]), [0.0, 0.8, 1.0])
    np.testing.assert_array_equal(channels[2] == 1.0, loaded.mask("PTV70"))
    np.testing.assert_allclose(channels[6], loaded.sdf_mm[0].astype(np.float32) / 50.0)


def test_the_place_of_a_voxel_is_told_about_the_targets_and_mirrors_with_the_patient(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    channels, loaded = read_channels(case, spec, whole(case)), Case.load(case.file.path)
    _, y, x = np.argwhere(loaded.mask("PTV70")).mean(axis=0)
    slices = np.flatnonzero((loaded.mask("PTV70") | loaded.mask("PTV56")).any(axis=(1, 2)))
    assert case.place == TargetPlace((slices[0], slices[-1]), (y, x))
    expected = (np.indices(case.shape_zyx) - np.array([0, y, x])[:, None, None, None]) * 6.0
    expected[0] = case.place.along_mm(np.arange(case.shape_zyx[0]), 6.0)[:, None, None]
    expected[2] = np.abs(expected[2])
    np.testing.assert_allclose(channels[3:6], expected / 100.0, atol=1e-6)
    # A part of the case knows the same place as the whole does.
    part = read_channels(case, spec, ((2, -3, 5), (4, 8, 8)))
    np.testing.assert_allclose(part[3:6][:, :, 3:], channels[3:6][:, 2:6, 0:5, 5:13], atol=1e-6)
    bare = make_recipe({"inputs.place": "none", "prior": "none"}).inputs
    assert len(read_channels(case, spec_of([case], bare), whole(case))) == len(channels) - 3


def test_a_place_is_told_about_the_next_target_where_the_main_one_is_absent_and_refused_without_any(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    case = cohort.open()[0]
    spec, path = spec_of([case], make_recipe().inputs), case.file.path
    loaded, targets = Case.load(path), ["PTV70", "PTV56"]
    for n_absent in (1, 2):
        masks, present = loaded.masks.copy(), loaded.present.copy()
        for name in targets[:n_absent]:
            index = loaded.structure_names.index(name)
            masks[index], present[index] = False, False
        replace(loaded, masks=masks, present=present).save(path)
        opened = open_case(replace(case.file, sha256=sha256_of_file(path)))
        if n_absent == 1:
            assert opened.place is not None
            assert opened.place.centre_yx == pytest.approx(np.argwhere(loaded.mask("PTV56")).mean(axis=0)[1:])
    with pytest.raises(BadCase, match="none of the targets PTV70, PTV56 is there to place a dose about"):
        read_channels(opened, spec, whole(opened))


def test_an_absent_structure_is_far_away_and_flagged_never_a_boundary(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    bowel = spec.structure_names.index("Bowel")
    assert (read_channels(case, spec, whole(case))[spec.first_structure + bowel] == 1.0).all()
    assert condition_vector(case, spec)[bowel] == 0.0
    assert condition_vector(case, spec)[0] == 1.0


def test_conditions_are_presence_prescription_fractions_and_spacing(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[1]
    spec = spec_of([case], make_recipe().inputs)
    np.testing.assert_allclose(condition_vector(case, spec), [1] * 8 + [1.0, 0.8, 28 / 30] + [2.0, 2.0, 2.0], rtol=1e-6)
    assert spec.n_conditions == 14
    np.testing.assert_allclose(condition_vector(case, spec)[spec.prescribed], [1.0, 0.8])


def test_no_input_depends_on_the_plans_dose(
    cohort: Any, make_recipe: MakeRecipe, make_case: Callable[..., Case]
) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    before = read_channels(case, spec, whole(case)), condition_vector(case, spec)
    loaded = Case.load(case.file.path)
    assert loaded.dose_gy is not None
    replace(loaded, dose_gy=loaded.dose_gy * 0 + 3).save(case.file.path)
    assert read_dose(case, whole(case)).max() == 3.0
    np.testing.assert_array_equal(read_channels(case, spec, whole(case)), before[0])
    np.testing.assert_array_equal(condition_vector(case, spec), before[1])


def test_without_prescription_and_distances_there_are_masks_and_presence_only(
    cohort: Any, make_recipe: MakeRecipe
) -> None:
    case = cohort.open()[0]
    hidden = {"inputs.structures": "mask", "inputs.prescription": "none", "inputs.place": "none", "prior": "none"}
    spec = spec_of([case], make_recipe(hidden).inputs)
    channels = read_channels(case, spec, whole(case))
    assert (spec.n_channels, spec.n_conditions) == (10, 11)
    assert set(np.unique(channels[2:])) == {0.0, 1.0}


def test_a_box_beyond_the_case_holds_air_and_no_structure(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    box = whole_box(case, (28, 40, 50))
    assert box == ((-2, 0, -1), (28, 40, 50))
    channels = read_channels(case, spec, box)
    np.testing.assert_array_equal(channels[[0, 1, 2, *range(6, 14)], 0, 0, 0], [-1.0, 0.0, 0.0, *[1.0] * 8])
    np.testing.assert_array_equal(channels[:, 2:-2, :, 1:-1], read_channels(case, spec, whole(case)))
    assert read_box(case, "masks", ((100, 0, 0), (4, 4, 4)), 0).sum() == 0


def test_a_case_whose_bytes_changed_since_the_splits_is_refused(cohort: Any, make_case: Callable[..., Case]) -> None:
    file = cohort.open()[0].file
    make_case("case_0001", seed=99).save(file.path)
    with pytest.raises(NotReady, match=r"case_0001: case_0001\.npz has SHA256 .* run ingest, split and the data gate"):
        open_case(file)


def test_a_case_that_is_gone_is_named(cohort: Any) -> None:
    file = cohort.open()[0].file
    file.path.unlink()
    with pytest.raises(NotReady, match=r"case_0001: the splits list it, but case_0001\.npz is not there"):
        open_case(file)


def test_cases_of_two_protocols_are_refused(cohort: Any, make_recipe: MakeRecipe) -> None:
    first, second = cohort.open()[:2]
    other = replace(second, structure_names=("PTV70",))
    with pytest.raises(BadInput, match="case_0002 has the structures PTV70, but case_0001 has"):
        spec_of([first, other], make_recipe().inputs)
    with pytest.raises(BadInput, match="none of 1 cases has a prescription"):
        spec_of([replace(first, prescription_gy={})], make_recipe().inputs)


def test_a_case_that_the_model_was_not_made_for_is_refused(cohort: Any, make_recipe: MakeRecipe) -> None:
    case = cohort.open()[0]
    spec = spec_of([case], make_recipe().inputs)
    check_fits(case, spec)
    with pytest.raises(BadCase, match="case_0001: has the structures PTV70; the model was trained on PTV70, PTV56"):
        check_fits(replace(case, structure_names=("PTV70",)), spec)
    with pytest.raises(BadCase, match="prescribes a dose to Bladder; the model was trained on PTV70, PTV56"):
        check_fits(replace(case, prescription_gy={"Bladder": 60.0}), spec)


def test_mirroring_swaps_femurs_in_channels_and_conditions(make_recipe: MakeRecipe) -> None:
    spec = InputSpec(("PTV70", "Femur_L", "Femur_R"), ("PTV70",), make_recipe().inputs)
    channels, conditions = spec.mirrored_orders({"Femur_L": "Femur_R", "LeftParotid": "RightParotid"})
    assert channels == [0, 1, 2, 3, 4, 5, 6, 8, 7]
    assert conditions == [0, 2, 1, 3, 4, 5, 6, 7]


def test_a_structure_with_a_side_and_no_partner_is_not_mirrored_in_silence(make_recipe: MakeRecipe) -> None:
    inputs = make_recipe().inputs
    for name in ("Femur_L", "LeftParotid", "Kidney Right", "eye_r"):
        with pytest.raises(BadInput, match=f"structure {name} seems to have a side"):
            InputSpec((name,), (), inputs).mirrored_orders({})
    InputSpec(("Rectum", "Larynx", "Bladder", "PTV70", "Bowel"), (), inputs).mirrored_orders({})
    with pytest.raises(BadInput, match="pairs Femur_L with Femur_R, which the cases do not have"):
        InputSpec(("Femur_L",), (), inputs).mirrored_orders({"Femur_L": "Femur_R"})
