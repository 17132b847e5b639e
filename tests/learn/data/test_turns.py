"""Turns about the beams' axis: a turned patient is seen and told as one, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.physics import write_physics
from doseledger.core.project.protocol import Beams
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import PatchDataset, read_inputs, read_sample, step_of, turned_box
from doseledger.learn.data.turns import (
    MASKS,
    mirror_z,
    mirror_z_image,
    source_box,
    turn_inputs,
    turn_sample,
    turn_step,
    turn_volume,
    turned_shape,
)
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict.cases import Model, load_model, predict_case
from doseledger.learn.recipes.dose import PredictRecipe, Recipe
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint

MakeRecipe = Callable[..., Recipe]
BEAMS = Beams(
    gantry_deg=[0.0, 90.0, 180.0, 270.0], bixel_mm=5.0, margin_mm=7.0, kernel_weights=(1.0, 1.0, 0.0, 0.0),
    maps=["conformal"],
)  # fmt: skip
SEEN = {"inputs.physics": ["conformal"], "inputs.place": "none", "prior": "none"}
WHOLE = {**SEEN, "sampling.patch_zyx": "case", "sampling.batch_size": 1}
STILL = {
    "sampling.mirror_share": 0.0, "sampling.ct_shift_hu": 0.0, "sampling.core_dropout.share": 0.0,
    "sampling.prescription_jitter": 0.0,
}  # fmt: skip
ALL = PredictRecipe(overlap=0.25, windows_at_once=2, mirror_average="beams", project=False, spacing_tolerance=0.25)
ARRAYS = ("ct_hu", "masks", "sdf_mm", "body", "valid_dose", "dose_gy")


def quarter(volume: np.ndarray) -> np.ndarray:
    """A quarter turn from +x towards +y."""
    return np.ascontiguousarray(np.rot90(volume, -1, axes=(-2, -1)))


def upside_down(volume: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.flip(volume, axis=-3))


def moved(case: Case, how: Callable[[np.ndarray], np.ndarray]) -> Case:
    arrays = {name: how(getattr(case, name)) for name in ARRAYS}
    shape = arrays["body"].shape
    return replace(case, grid=Grid(shape, case.grid.spacing_mm, case.grid.origin_mm), full_shape_zyx=shape, **arrays)


def saved(case: Case, folder: Path, beams: Beams = BEAMS) -> OpenCase:
    """A case on disk with a map that is some function of its CT and contours."""
    path, maps = folder / f"{case.case_id}.npz", folder / "physics" / f"{case.case_id}.npz"
    case.save(path)
    conformal = 0.2 * np.clip(60.0 - case.sdf_mm[0].astype(np.float32), 0.0, 300.0) * case.body
    sha256 = sha256_of_file(path)
    write_physics(maps, {"conformal": conformal.astype(np.float32)}, case_sha256=sha256, beams=beams)
    return open_case(CaseFile(case.case_id, path, sha256, maps))


@pytest.fixture
def loaded(cohort: Any) -> Case:
    """A case whose dose counts in a box of even sizes, off the middle."""
    case = Case.load(cohort.cases / "case_0005.npz")
    inner = np.zeros(case.grid.shape_zyx, dtype=bool)
    inner[6:18, 10:26, 15:35] = True
    return replace(case, valid_dose=inner)


def seen_turned(case: OpenCase, recipe: Recipe, degrees: float) -> dict[str, Any]:
    spec, box = spec_of([case], recipe.inputs), turned_box(case, recipe, degrees)
    sample = read_sample(case, spec, source_box(case, box, degrees))
    return turn_sample(sample, spec, degrees, box[1][1:])


def test_channels_after_a_quarter_turn_are_those_of_the_turned_case(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(WHOLE)
    there, turned = saved(loaded, tmp_path / "a"), saved(moved(loaded, quarter), tmp_path / "b")
    found = seen_turned(there, recipe, 90.0)
    wanted = read_sample(turned, spec_of([turned], recipe.inputs), turned_box(turned, recipe, 0.0))
    np.testing.assert_allclose(found["image"], wanted["image"], atol=2e-5)
    np.testing.assert_allclose(found["dose"], wanted["dose"], atol=2e-5)
    for name in ("valid_dose", "body", "masks"):
        np.testing.assert_array_equal(found[name], wanted[name])
        assert found[name].dtype == np.bool_


def test_a_spot_beside_the_axis_goes_where_the_angle_says_also_on_oblong_voxels() -> None:
    z, y, x = np.indices((3, 41, 61), dtype=np.float64)
    spot = np.exp(-(((y - 20) * 3.0) ** 2 + ((x - 30) * 2.0 - 24.0) ** 2) / (2 * 6.0**2)).astype(np.float32)
    turned = turn_volume(spot[None], 40.0, (3.0, 2.0), (41, 61))[0]
    centre = (turned * (y - 20) * 3.0).sum() / turned.sum(), (turned * (x - 30) * 2.0).sum() / turned.sum()
    assert centre == pytest.approx((24.0 * np.sin(np.radians(40)), 24.0 * np.cos(np.radians(40))), abs=0.05)
    back = turn_volume(turned[None], -40.0, (3.0, 2.0), (41, 61))[0]
    assert np.abs(back - spot)[z == 1].max() < 0.03


def test_all_that_counts_of_a_turned_case_is_seen_and_no_more_is_read_than_it_needs(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    case, recipe = saved(loaded, tmp_path), make_recipe(WHOLE)
    counted = int(loaded.valid_dose.sum())
    for degrees in (40.0, 80.0, 200.0, 320.0):
        sample = seen_turned(case, recipe, degrees)
        assert sample["valid_dose"].sum() == pytest.approx(counted, rel=0.01)
        edges = [sample["valid_dose"].take(end, axis=axis).any() for axis in (2, 3) for end in (0, -1)]
        assert not any(edges)
        assert all(size % 4 == 0 for size in sample["image"].shape[1:])
        assert sample["dose"].min() >= 0.0


def test_a_dose_that_ends_with_what_counts_is_turned_without_its_edge(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    even = replace(loaded, dose_gy=np.where(loaded.valid_dose, np.float32(35.0), np.float32(0.0)))
    sample = seen_turned(saved(even, tmp_path), make_recipe(WHOLE), 40.0)
    np.testing.assert_allclose(sample["dose"][sample["valid_dose"]], 0.5, atol=1e-5)


def test_a_dose_changes_no_channel_of_a_turned_case(loaded: Case, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(WHOLE)
    other = replace(loaded, dose_gy=loaded.dose_gy[:, ::-1].copy() + np.float32(3.0))
    a, b = (seen_turned(saved(case, tmp_path / name), recipe, 40.0) for case, name in ((loaded, "a"), (other, "b")))
    np.testing.assert_array_equal(a["image"], b["image"])
    assert np.abs(a["dose"] - b["dose"]).max() > 0.01


def test_mirroring_z_twice_gives_the_sample_back_and_once_the_mirrored_cases(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    a, b = saved(loaded, tmp_path / "a"), saved(moved(loaded, upside_down), tmp_path / "b")
    for place in ("none", "targets"):
        spec = spec_of([a], make_recipe({**SEEN, "inputs.place": place}).inputs)
        sample, mirrored = (read_sample(case, spec, case.whole) for case in (a, b))
        once = mirror_z(sample, spec)
        for name in ("image", "dose", *MASKS):
            np.testing.assert_allclose(once[name], mirrored[name], atol=1e-5)
            np.testing.assert_array_equal(mirror_z(once, spec)[name], sample[name])
        np.testing.assert_array_equal(mirror_z_image(sample["image"], spec), once["image"])


def test_of_many_patches_the_shares_that_the_recipe_asks_for_are_turned_and_mirrored(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    case = saved(loaded, tmp_path)
    for size in ({}, {"sampling.patch_zyx": "case", "sampling.batch_size": 1}):

        def patches(turn: float, mirror: float, size: dict[str, Any] = size) -> PatchDataset:
            changes = {**SEEN, **STILL, **size, "sampling.turn_share": turn, "sampling.mirror_z_share": mirror}
            recipe = make_recipe(changes)
            return PatchDataset([case], spec_of([case], recipe.inputs), recipe, seed=1)

        plain, turned, mirrored = patches(0.0, 0.0), patches(1.0, 0.0), patches(0.0, 0.4)
        keys = [(0, position, 0) for position in range(30)]
        same = [torch.equal(plain[key]["image"], mirrored[key]["image"]) for key in keys]
        assert 11 <= sum(same) <= 25
        for key, is_same in zip(keys, same, strict=True):
            if not is_same:
                assert torch.equal(plain[key]["dose"].flip(1), mirrored[key]["dose"])
        angles = {turned._draw_symmetry(key)[0] for key in keys}
        assert angles == {90.0, 180.0, 270.0}
        if size:
            for key in keys[:4]:
                wanted = seen_turned(case, make_recipe(WHOLE), turned._draw_symmetry(key)[0])
                np.testing.assert_array_equal(turned[key]["dose"].numpy(), wanted["dose"])
        else:
            assert all(turned[key]["dose"].shape == plain[key]["dose"].shape for key in keys)


@pytest.fixture
def model(loaded: Case, make_recipe: MakeRecipe, tmp_path: Path) -> Model:
    """A network with random weights that says doses of some Gy."""
    recipe = make_recipe({**WHOLE, "fit.max_epochs": 1}).trained_part()
    case = saved(loaded, tmp_path / "first")
    spec = spec_of([case], recipe.inputs)
    torch.manual_seed(3)
    network = dose_network(recipe, spec)
    network.head.dose.bias.data.fill_(1.0)
    path = tmp_path / "best.ckpt"
    checkpoint = Checkpoint(
        model="dose_unet", recipe=recipe, settings={}, structure_names=spec.structure_names,
        target_names=spec.target_names, spacing_range_mm=(case.spacing_mm, case.spacing_mm), trained_on={},
        selected_on={}, epoch=1, scores={}, weights=network.state_dict(), beams=BEAMS.model_dump(mode="json"),
    )  # fmt: skip
    save_checkpoint(path, checkpoint)
    return load_model(path)


@pytest.mark.parametrize(("how", "average"), [(quarter, "beams"), (upside_down, "xz")])
def test_a_moved_patient_gets_the_moved_dose_when_all_symmetries_are_averaged(
    how: Callable[[np.ndarray], np.ndarray], average: str, model: Model, loaded: Case, tmp_path: Path
) -> None:
    settings = ALL.model_copy(update={"mirror_average": average})
    there = predict_case(model, saved(loaded, tmp_path / "a"), settings)
    back = predict_case(model, saved(moved(loaded, how), tmp_path / "b"), settings)
    np.testing.assert_allclose(back, how(there), atol=1e-3)
    plain = settings.model_copy(update={"mirror_average": True})
    assert np.abs(predict_case(model, saved(moved(loaded, how), tmp_path / "b"), plain) - how(there)).max() > 0.01


def test_the_mean_over_turns_is_the_mean_of_the_doses_of_turned_cases(
    model: Model, loaded: Case, tmp_path: Path
) -> None:
    plain = ALL.model_copy(update={"mirror_average": "xz"})
    found, doses = predict_case(model, saved(loaded, tmp_path / "a"), ALL), []
    case = loaded
    for turn in range(4):
        dose = predict_case(model, saved(case, tmp_path / "b"), plain)
        doses.append(np.rot90(dose, turn, axes=(-2, -1)))
        case = moved(case, quarter)
    np.testing.assert_allclose(found, np.mean(doses, axis=0), atol=1e-3)


def test_a_turn_asks_for_beams_at_equal_angles_for_maps_and_for_no_place(
    loaded: Case, model: Model, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    assert turn_step([320.0, *np.arange(0.0, 320.0, 40.0)]) == pytest.approx(40.0)
    assert turn_step([-90.0, 0.0, 90.0, 180.0]) == pytest.approx(90.0)
    with pytest.raises(BadInput, match=r"\[0\.0, 100\.0, 240\.0\] are not at equal angles.*turn_share to 0"):
        turn_step([0.0, 100.0, 240.0])
    uneven = BEAMS.model_copy(update={"gantry_deg": [0.0, 50.0, 180.0]})
    with pytest.raises(BadInput, match="not at equal angles"):
        predict_case(model, saved(loaded, tmp_path / "a", uneven), ALL)
    case = saved(loaded, tmp_path / "b")
    with pytest.raises(BadInput, match=r"name some in inputs\.physics"):
        step_of([replace(case, physics=None)])
    for change in ({"sampling.turn_share": 0.5}, {"predict.mirror_average": "beams"}):
        with pytest.raises(BadInput, match=r"inputs\.place targets is another after a turn; set place: none"):
            make_recipe({**SEEN, **change, "inputs.place": "targets"})
        with pytest.raises(BadInput, match=r"without inputs\.physics no beams are known"):
            make_recipe({**SEEN, **change, "inputs.physics": []})
    assert make_recipe({**SEEN, "predict.mirror_average": "beams"}).quick().predict.mirror_average is True


def test_what_is_seen_of_a_case_keeps_its_centre_on_the_cases_half_voxels(loaded: Case, tmp_path: Path) -> None:
    case = saved(loaded, tmp_path)
    for width in (31, 32):
        shape = turned_shape(case, ((0, 2, 3), (24, 30, width)), 40.0, (1, 1, 1), (1, 1, 1))
        assert [(a - b) % 2 for a, b in zip(shape, (24, 30, width), strict=True)] == [0, 0, 0]


def test_a_turned_case_has_channels_between_those_of_its_voxels(
    loaded: Case, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    for structures in ("sdf", "mask"):
        recipe = make_recipe({**WHOLE, "inputs.structures": structures})
        case = saved(loaded, tmp_path / structures)
        spec, box = spec_of([case], recipe.inputs), turned_box(case, recipe, 40.0)
        image = read_inputs(case, spec, source_box(case, box, 40.0))["image"]
        turned = turn_inputs(image, spec, 40.0, (6.0, 6.0), box[1][1:])
        told = turned[spec.first_structure : spec.first_physics]
        assert set(np.unique(turned[1])) <= {0.0, 1.0}
        assert np.abs(told).max() <= 1.0
        assert structures == "sdf" or set(np.unique(told)) <= {0.0, 1.0}
        assert turned[spec.first_physics :].min() >= 0.0
