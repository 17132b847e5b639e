"""A diffusion in training: what it stands on, that it resumes, and that it draws what it was shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.code import reached_code
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.evaluate.calibration import DrawnSets, calibrate_cohort
from doseledger.learn.data.inputs import InputSpec, open_case, read_dose, read_told
from doseledger.learn.families.diffusion import DiffusionTask, make_family
from doseledger.learn.families.dose import DOSE
from doseledger.learn.kinds import load_recipe
from doseledger.learn.networks.denoiser import DoseScale, DrawSettings, draw_doses, noise_fields
from doseledger.learn.predict.draws import (
    SAMPLE_STEP_GY,
    central_dose,
    draw_case,
    load_diffusion_model,
    open_predictor,
)
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.diffusion import DiffusionRecipe, TrainedDiffusion
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.checkpoint import load_checkpoint, read_seen
from doseledger.learn.training.probe import probe_steps
from doseledger.learn.training.told import load_boosted
from doseledger.learn.training.train import Places, train

MakeRun = Callable[..., TrainingRun]
SMALL: dict[str, dict[str, Any]] = {
    "sampling": {"patch_zyx": [16, 24, 32], "batch_size": 2, "patches_per_case": 2},
    "network": {"stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8},
    "fit": {"max_epochs": 2, "validate_every": 1},
    "diffusion": {"validation_steps": 2, "shift": 0.0},
    "predict": {
        "samples": 3,
        "steps": 2,
        "sampler": "euler",
        "antithetic": False,
        "centre": "mean",
        "windows_at_once": 2,
    },
}


@pytest.fixture(scope="session")
def diffusion_block(shipped_diffusion: dict[str, Any]) -> dict[str, Any]:
    """The shipped block, small."""
    return {**shipped_diffusion, **{name: {**shipped_diffusion[name], **changes} for name, changes in SMALL.items()}}


@pytest.fixture
def base(make_run: MakeRun, places: Places) -> Path:
    """The checkpoint of a small dose network, trained on the cohort."""
    out = places.out.with_name("base")
    train(make_run({"fit.max_epochs": 1}), replace(places, out=out), fresh=False, tell=lambda line: None)
    return out / "checkpoints" / "best.ckpt"


def make_diffusion(block: dict[str, Any], base: Path, **changes: dict[str, Any]) -> TrainingRun:
    """A small diffusion's run: make_diffusion(block, base, diffusion={"residual": False})."""
    recipe = load_recipe({**block, **{name: {**block[name], **value} for name, value in changes.items()}}, {}, "test")
    family = make_family(recipe, base)
    return TrainingRun("dose_diffusion", recipe, 0.01, 1, 0, 0, {"ok": True}, {}, family)


def quietly(run: TrainingRun, places: Places) -> list[str]:
    lines: list[str] = []
    train(run, places, fresh=False, tell=lines.append)
    return lines


def test_a_diffusion_keeps_its_base_its_scale_and_its_averaged_weights(
    diffusion_block: dict[str, Any], base: Path, places: Places
) -> None:
    run = make_diffusion(diffusion_block, base)
    quietly(run, places)
    found = load_checkpoint(places.out / "checkpoints" / "last.ckpt", TrainedDiffusion)
    stands_on = load_checkpoint(base)
    assert found.trained_on == stands_on.trained_on
    assert found.extras["base"]["model"] == "dose_unet"
    assert run.family.parts["base"]["sha256"] == found.extras["base"]["sha256"]
    for name, tensor in stands_on.weights.items():
        assert torch.equal(found.extras["base"]["weights"][name], tensor)
    assert found.extras["scale"]["centre"] == 0.0
    assert 0.01 < found.extras["scale"]["width"] < 1.0
    assert read_seen(places.out / "checkpoints" / "last.ckpt", "") == {**found.selected_on, **found.trained_on}
    history = pd.read_csv(places.out / "history.csv")
    assert np.isfinite(history["val_mae_valid_dose_gy"]).all()
    with pytest.raises(BadInput, match="kind"):
        load_checkpoint(places.out / "checkpoints" / "last.ckpt")


def test_a_diffusion_killed_between_batches_ends_as_an_unbroken_one_to_the_bit(
    diffusion_block: dict[str, Any], base: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_diffusion(diffusion_block, base)
    unbroken = replace(places, out=places.out.with_name("unbroken"), state_root=places.state_root.with_name("other"))
    quietly(run, unbroken)
    step = DiffusionTask.training_step

    def die(task: DiffusionTask, batch: dict[str, Any], index: int) -> Any:
        if task.current_epoch == 1 and index == 1:
            raise KeyboardInterrupt
        return step(task, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTask, "training_step", die)
        with pytest.raises((KeyboardInterrupt, SystemExit, NotReady)):
            quietly(run, places)
    shutil.rmtree(places.out)
    assert any(line.startswith("resumes") for line in quietly(run, places))
    for name in ("best", "last"):
        here, there = (folder.out / "checkpoints" / f"{name}.ckpt" for folder in (places, unbroken))
        assert here.read_bytes() == there.read_bytes()


def test_a_diffusion_on_trees_learns_what_they_leave_over_of_cases_that_they_have_not_seen(
    diffusion_block: dict[str, Any], trees: Path, places: Places, tmp_path: Path
) -> None:
    boosted, run = load_boosted(trees), make_diffusion(diffusion_block, trees)
    quietly(run, places)
    path = places.out / "checkpoints" / "last.ckpt"
    found = load_checkpoint(path, TrainedDiffusion)
    assert run.family.parts["base"] == {"model": "dose_trees", "sha256": boosted.sha256}
    assert found.extras["base"] is None
    assert found.extras["boosted"]["sha256"] == boosted.sha256
    # The width of x0 is that of the residual by hand, of trees that have not seen the case.
    left = []
    for case in map(open_case, _files(places, "train")):
        valid, box = Case.load(case.file.path).valid_dose, case.whole
        left.append(((read_dose(case, box) - read_told(boosted.told(case), box)) / 70.0)[valid])
    assert found.extras["scale"]["width"] == pytest.approx(float(np.sqrt(np.mean(np.concatenate(left) ** 2))), rel=1e-4)
    # One file predicts, and its drawn doses are calibrated.
    trees.unlink()
    for part in ("val", "test"):
        files = SplitPart(places.cases, places.splits, part, 0, 0)
        predict_part(open_predictor(path, run.recipe.predict), files, tmp_path / part, tell=lambda line: None)
    sets = DrawnSets(places.cases, places.splits, tmp_path / "val", tmp_path / "test", 0, 0)
    summary = calibrate_cohort(sets, tell=lambda line: None)["summary"]
    assert 0.0 < summary["coverage_80_voxels_percent"] < 100.0


def test_a_diffusion_with_nothing_to_say_draws_what_its_trees_tell(
    diffusion_block: dict[str, Any], trees: Path, places: Places
) -> None:
    run = make_diffusion(diffusion_block, trees)
    quietly(run, places)
    model = load_diffusion_model(places.out / "checkpoints" / "last.ckpt")
    narrow = replace(model, scale=replace(model.scale, width=1e-6))
    (case,) = (open_case(file) for file in _files(places, "test"))
    drawn = draw_case(narrow, case, run.recipe.predict)
    told_gy = load_boosted(trees).tell(case)
    np.testing.assert_allclose(drawn.samples_gy, np.broadcast_to(told_gy, drawn.samples_gy.shape), atol=2e-3)


def test_the_bases_dose_is_the_dose_and_the_draws_lie_about_it(
    diffusion_block: dict[str, Any], trees: Path, places: Places
) -> None:
    run = make_diffusion(diffusion_block, trees, predict={"centre": "base"})
    quietly(run, places)
    model = load_diffusion_model(places.out / "checkpoints" / "last.ckpt")
    (case,) = (open_case(file) for file in _files(places, "test"))
    assert isinstance(run.recipe, DiffusionRecipe)
    drawn = draw_case(model, case, run.recipe.predict)
    plain = draw_case(model, case, run.recipe.predict.model_copy(update={"centre": "mean"}))
    np.testing.assert_allclose(drawn.dose_gy, load_boosted(trees).tell(case), atol=2e-3)
    above = drawn.samples_gy.min(axis=0) > 0
    assert above.any()
    np.testing.assert_allclose(drawn.samples_gy.mean(axis=0)[above], drawn.dose_gy[above], atol=1e-3)
    np.testing.assert_allclose(drawn.samples_gy.std(axis=0)[above], plain.samples_gy.std(axis=0)[above], atol=1e-3)
    assert drawn.samples_gy.min() == 0.0
    quick = run.recipe.quick().predict
    assert (quick.centre, quick.samples) == ("base", 2)
    alone = make_diffusion(diffusion_block, trees, diffusion={"residual": False})
    quietly(alone, replace(places, out=places.out.with_name("alone")))
    with pytest.raises(BadInput, match=r"centre base, but it diffuses the dose itself"):
        open_predictor(places.out.with_name("alone") / "checkpoints" / "last.ckpt", run.recipe.predict)
    with pytest.raises(BadInput, match=r"predict\.centre base asks for a base"):
        make_diffusion(diffusion_block, trees, diffusion={"residual": False}, predict={"centre": "base"})


def test_layers_of_noise_have_unit_variance_and_share_more_the_wider_they_are() -> None:
    shape = (16, 24, 32)
    white, layered = (noise_fields(3, "case_0001", range(60), shape, coarse) for coarse in (0.0, 0.8))
    assert float(layered.std()) == pytest.approx(1.0, abs=0.02)
    # Mean of a whole volume: of white noise one in sqrt(12288), of layers mostly the widest.
    shared = [float(noise.mean(dim=(1, 2, 3, 4)).std()) for noise in (white, layered)]
    assert shared[0] == pytest.approx(12288**-0.5, rel=0.3)
    assert shared[1] > 15 * shared[0]
    assert torch.equal(layered[7:8], noise_fields(3, "case_0001", [7], shape, 0.8))


def test_layers_of_noise_ask_for_whole_cases(diffusion_block: dict[str, Any], base: Path) -> None:
    with pytest.raises(BadInput, match=r"coarse_noise spans a whole case; it takes sampling\.patch_zyx: case"):
        make_diffusion(diffusion_block, base, diffusion={"coarse_noise": 0.5})


def test_a_diffusion_of_whole_cases_and_layers_of_noise_trains_and_draws(
    diffusion_block: dict[str, Any], trees: Path, places: Places
) -> None:
    sampling = {"patch_zyx": "case", "batch_size": 1}
    run = make_diffusion(diffusion_block, trees, sampling=sampling, diffusion={"coarse_noise": 0.8})
    quietly(run, places)
    (case,) = (open_case(file) for file in _files(places, "test"))
    assert isinstance(run.recipe, DiffusionRecipe)
    drawn = draw_case(load_diffusion_model(places.out / "checkpoints" / "last.ckpt"), case, run.recipe.predict)
    assert np.isfinite(drawn.samples_gy).all()
    assert drawn.samples_gy.std(axis=0).max() > 0.1


def swap_parts(places: Places) -> None:
    """Train on case_0004 in place of case_0003, which is validated with."""
    table = pd.read_csv(places.splits)
    table.loc[table["case_id"] == "case_0003", "split"] = "val"
    table.loc[table["case_id"] == "case_0004", "split"] = "train"
    table.to_csv(places.splits, index=False)


def test_trees_of_other_cases_carry_no_diffusion(diffusion_block: dict[str, Any], trees: Path, places: Places) -> None:
    swap_parts(places)
    with pytest.raises(BadInput, match="base dose_trees was trained on other cases: without case_0004, with 1 besides"):
        quietly(make_diffusion(diffusion_block, trees), places)


def test_a_base_of_other_cases_patches_or_inputs_is_refused(
    diffusion_block: dict[str, Any], base: Path, places: Places
) -> None:
    with pytest.raises(NotReady, match="no such checkpoint"):
        make_diffusion(diffusion_block, base.with_name("none.ckpt"))
    with pytest.raises(BadInput, match=r"trained on patches of \[16, 24, 32\] voxels, sampling.patch_zyx is"):
        quietly(make_diffusion(diffusion_block, base, sampling={"patch_zyx": [16, 16, 16]}), places)
    with pytest.raises(BadInput, match="sees other channels or conditions"):
        quietly(make_diffusion(diffusion_block, base, inputs={"prescription": "none"}), places)
    swap_parts(places)
    with pytest.raises(BadInput, match="other cases: without case_0004, with case_0003 besides"):
        quietly(make_diffusion(diffusion_block, base), places)


def test_either_kind_of_block_is_refused_by_the_other_kinds_training(
    diffusion_block: dict[str, Any], base: Path, places: Places, make_run: MakeRun
) -> None:
    diffusion = make_diffusion(diffusion_block, base)
    with pytest.raises(BadInput, match="its kind is diffusion, wanted dose"):
        quietly(replace(diffusion, family=DOSE), places)
    with pytest.raises(BadInput, match="its kind is dose, wanted diffusion"):
        quietly(replace(make_run(), family=diffusion.family), places)
    with pytest.raises(BadInput, match="its kind is dose, wanted diffusion"):
        make_family(make_run().recipe, base)


def test_a_diffusion_of_a_residual_asks_for_its_base_and_one_of_the_dose_for_none(
    diffusion_block: dict[str, Any], base: Path
) -> None:
    residual = make_diffusion(diffusion_block, base)
    with pytest.raises(BadInput, match=r"starts from a model: name it under `bases` in params\.yaml"):
        make_family(residual.recipe, None)
    whole = make_diffusion(diffusion_block, base, diffusion={"residual": False})
    assert whole.family.parts == make_family(whole.recipe, None).parts == {}
    assert residual.family.parts["base"]["model"] == "dose_unet"


def test_neither_family_hangs_on_the_others_code(diffusion_block: dict[str, Any], base: Path) -> None:
    families = (DOSE, make_diffusion(diffusion_block, base).family)
    dose, diffusion = (reached_code("doseledger.learn.training.train", family.module) for family in families)
    assert not [name for name in dose if "diffusion" in name or "denoiser" in name]
    assert not {f"doseledger.learn.{name}" for name in ("tasks", "losses", "dvh_terms")} & set(diffusion)
    assert {
        "doseledger.learn.networks.schedule",
        "doseledger.learn.networks.denoiser",
        "doseledger.learn.training.train",
    } <= set(diffusion)


@pytest.mark.parametrize("stands_on", ["base", "trees"])
def test_preflight_lowers_the_loss_of_one_batch(
    diffusion_block: dict[str, Any], stands_on: str, places: Places, request: pytest.FixtureRequest
) -> None:
    run = make_diffusion(diffusion_block, request.getfixturevalue(stands_on))
    found = probe_steps(run, places.cases, places.splits, n_steps=20)
    assert found.finite
    assert found.last_loss < 0.8 * found.first_loss
    # Of the dose itself: whatever the base leaves over.
    bare = replace(run, recipe=run.recipe.bare(), family=replace(run.family, told=None))
    assert isinstance(bare.recipe, DiffusionRecipe)
    assert not bare.recipe.diffusion.residual
    if stands_on == "base":
        assert probe_steps(bare, places.cases, places.splits, n_steps=20).losses == found.losses


def test_preflight_refuses_trees_of_other_cases(diffusion_block: dict[str, Any], trees: Path, places: Places) -> None:
    table = pd.read_csv(places.splits)
    table.loc[table["case_id"] == "case_0001", "split"] = "test"
    table.loc[table["case_id"] == "case_0005", "split"] = "train"
    table[table["case_id"] != "case_0002"].to_csv(places.splits, index=False)
    run = make_diffusion(diffusion_block, trees)
    with pytest.raises(BadInput, match="base dose_trees was trained on other cases: without case_0005"):
        probe_steps(run, places.cases, places.splits, n_steps=1)


def test_a_plateau_is_no_schedule_for_scores_of_one_drawn_dose(diffusion_block: dict[str, Any]) -> None:
    block = {**diffusion_block, "optimiser": {**diffusion_block["optimiser"], "schedule": "plateau"}}
    with pytest.raises(BadInput, match="schedule plateau waits for a validation score"):
        load_recipe(block, {}, "test")
    with pytest.raises(BadInput, match="lr stands at the top"):
        load_recipe({**diffusion_block, "lr": 0.1}, {}, "test")


def test_drawn_doses_depend_on_seed_case_and_number_alone(
    diffusion_block: dict[str, Any], base: Path, places: Places, tmp_path: Path
) -> None:
    run = make_diffusion(diffusion_block, base)
    quietly(run, places)
    assert isinstance(run.recipe, DiffusionRecipe)
    how, checkpoint = run.recipe.predict, places.out / "checkpoints" / "last.ckpt"
    part = SplitPart(places.cases, places.splits, "test", 0, 0)
    for name in ("a", "b"):
        predict_part(open_predictor(checkpoint, how), part, tmp_path / name, tell=lambda line: None)
    assert (tmp_path / "a" / "case_0005.npz").read_bytes() == (tmp_path / "b" / "case_0005.npz").read_bytes()
    with np.load(tmp_path / "a" / "case_0005.npz") as npz:
        dose_gy, sd_gy, samples, sampled = (npz[name] for name in ("dose_gy", "dose_sd_gy", "samples", "sampled"))
    assert samples.shape == (3, int(sampled.sum()))
    assert not dose_gy[sampled == 0].any()
    assert dose_gy.min() >= 0
    kept = samples * SAMPLE_STEP_GY
    np.testing.assert_allclose(kept.mean(axis=0), dose_gy[sampled > 0], atol=SAMPLE_STEP_GY)
    np.testing.assert_allclose(kept.std(axis=0, ddof=1), sd_gy[sampled > 0], atol=2 * SAMPLE_STEP_GY)
    model = load_diffusion_model(checkpoint)
    (case,) = (open_case(file) for file in _files(places, "test"))
    few = draw_case(model, case, how.model_copy(update={"samples": 2, "windows_at_once": 1}))
    np.testing.assert_allclose(few.samples_gy[1], draw_case(model, case, how).samples_gy[1], atol=1e-3)
    other = draw_case(model, case, how.model_copy(update={"samples": 2, "seed": 2}))
    assert np.abs(few.samples_gy - other.samples_gy).max() > 0.1
    with pytest.raises(BadCase, match=r"outside the .* of training"):
        draw_case(model, replace(case, spacing_mm=(9.0, 9.0, 9.0)), how)


def test_opposite_noise_changes_the_dose_and_none_of_the_samples(
    diffusion_block: dict[str, Any], base: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_diffusion(diffusion_block, base)
    quietly(run, places)
    assert isinstance(run.recipe, DiffusionRecipe)
    model = load_diffusion_model(places.out / "checkpoints" / "last.ckpt")
    (case,) = (open_case(file) for file in _files(places, "test"))
    plain = draw_case(model, case, run.recipe.predict)
    both = draw_case(model, case, run.recipe.predict.model_copy(update={"antithetic": True}))
    np.testing.assert_array_equal(both.samples_gy, plain.samples_gy)
    turned = lambda *which: -noise_fields(*which)  # noqa: E731
    monkeypatch.setattr("doseledger.learn.predict.draws.noise_fields", turned)
    opposite = draw_case(model, case, run.recipe.predict)
    np.testing.assert_allclose(both.dose_gy, (plain.dose_gy + opposite.dose_gy) / 2, atol=1e-4)
    assert np.abs(both.dose_gy - plain.dose_gy).max() > 0.1


def test_the_median_of_skewed_doses_is_found_and_no_dose_leaves_its_place() -> None:
    # Gamma distributed about a dose that changes along x: skewed alike everywhere.
    rng = np.random.default_rng(3)
    ground = np.broadcast_to(np.linspace(10.0, 60.0, 24), (12, 20, 24))
    defined = np.zeros(ground.shape, dtype=bool)
    defined[1:-1, 2:-2] = True
    draws = ((ground + rng.gamma(1.5, 4.0, size=(16, *ground.shape))) * defined).astype(np.float32)
    mean, median = (central_dose(draws, defined, (5.0, 4.0, 4.0), centre) for centre in ("mean", "median"))
    np.testing.assert_allclose(mean, draws.mean(axis=0), rtol=1e-5)
    assert not median[~defined].any()
    # The gamma's median lies 1.27 below its mean of 6 (scipy.stats.gamma.median(1.5, scale=4) is 4.73).
    np.testing.assert_allclose((median - mean)[defined].mean(), 4.73 - 6.0, atol=0.15)
    # Less noisy than the voxel's own median, which is what the smoothing is for.
    truth = ground + 4.73
    own = np.median(draws, axis=0)
    assert np.abs(median - truth)[defined].mean() < np.abs(own - truth)[defined].mean()
    # What has no skew is left alone: each dose drawn with its mirror image about the ground.
    even = np.concatenate([draws, 2 * (ground * defined) - draws]).astype(np.float32)
    np.testing.assert_allclose(central_dose(even, defined, (5.0, 4.0, 4.0), "median"), ground * defined, atol=1e-4)


def _files(places: Places, part: str) -> list[Any]:
    from doseledger.learn.data.inputs import case_files

    return case_files(places.cases, pd.read_csv(places.splits), part, fold=0, repeat=0)


def test_windows_see_one_field_of_noise() -> None:
    # A network that says v = 0: what is drawn is the noise itself, turned and clamped. With a field for each window,
    # or a window's own corner of it, the blend of overlapping windows would be paler than the field.
    class Nothing(torch.nn.Module):
        def forward(self, image: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(image[:, :1])

    shape = (12, 20, 28)
    batch = {
        "image": torch.zeros(1, 2, *shape),
        "condition": torch.zeros(1, 3),
        "valid_dose": torch.ones(1, 1, *shape, dtype=torch.bool),
    }
    noise, base = noise_fields(5, "case_0001", [0, 1], shape), torch.zeros(1, 1, *shape)
    scale = DoseScale(centre=50.0, width=1.0, most=100.0)

    def drawn(patch: tuple[int, int, int]) -> torch.Tensor:
        return draw_doses(Nothing(), scale, batch, base, noise, DrawSettings(patch, 0.5, 2, 4, "euler", "v"))

    torch.testing.assert_close(drawn((8, 8, 8)), drawn(shape), atol=1e-4, rtol=0)
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:], noise_fields(5, "case_0001", [1], shape))


def test_what_can_not_be_is_clamped() -> None:
    scale, base = DoseScale(centre=0.0, width=0.5, most=1.1), torch.tensor([0.2, 0.2, 1.0, 0.0])
    valid = torch.tensor([True, True, True, False])
    x0 = scale.clamp(torch.tensor([-3.0, 0.1, 3.0, 3.0]), base, valid)
    torch.testing.assert_close(scale.to_dose(x0, base), torch.tensor([0.0, 0.25, 1.1, 0.0]))


def toy_batch(n: int, rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray]:
    """Volumes whose dose is 0.5 + 0.2·pattern, give or take 0.15·|pattern| in each voxel; the pattern is the image."""
    z, y, x = np.meshgrid(*(np.arange(8.0),) * 3, indexing="ij")
    turn = rng.uniform(0, 2 * np.pi, (n, 1, 1, 1))
    pattern = np.sin(2 * np.pi * z / 8 + turn) * np.cos(2 * np.pi * (x + y) / 16)
    dose = 0.5 + 0.2 * pattern + 0.15 * np.abs(pattern) * rng.standard_normal(pattern.shape)
    # The two channels and three conditions of a spec without structures.
    image = torch.from_numpy(np.stack([pattern, np.ones_like(pattern)], axis=1)).float()
    batch = {
        "image": image,
        "condition": torch.zeros(n, 3),
        "dose": torch.from_numpy(dose[:, None]).float(),
        "valid_dose": torch.ones(n, 1, 8, 8, 8, dtype=torch.bool),
        "case_id": ["toy"] * n,
    }
    return batch, pattern


def test_in_3d_it_draws_the_mean_and_the_spread_that_its_image_tells(diffusion_block: dict[str, Any]) -> None:
    network = {
        "name": "film_unet", "stem_stride_zyx": [1, 1, 1], "channels": [16, 32], "convolutions": [1, 1],
        "embedding": 16,
    }  # fmt: skip
    block = {
        **diffusion_block,
        "sampling": {**diffusion_block["sampling"], "patch_zyx": [8, 8, 8]},
        "inputs": {**diffusion_block["inputs"], "prescription": "none", "place": "none"},
        "network": network,
        "diffusion": {**diffusion_block["diffusion"], "residual": False, "shift": 0.0},
    }
    recipe = load_recipe(block, {}, "toy").trained_part()
    spec, scale, n_steps = InputSpec((), (), recipe.inputs), DoseScale(centre=0.5, width=0.25, most=1.5), 250
    torch.manual_seed(1)
    task = DiffusionTask(recipe, spec, 0.005, seed=1, base=None, scale=scale)
    optimiser = torch.optim.AdamW(task.network.parameters(), lr=task.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / n_steps)
    rng = np.random.default_rng(1)
    for step in range(n_steps):
        loss, _ = task.batch_loss(toy_batch(8, rng)[0], step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    one, pattern = toy_batch(1, np.random.default_rng(9))
    noise = noise_fields(1, "toy", range(32), (8, 8, 8))
    how = DrawSettings((8, 8, 8), 0.25, 32, 10, "heun", "v")
    with torch.no_grad():
        doses = draw_doses(task.network, scale, one, torch.zeros(1, 1, 8, 8, 8), noise, how)[:, 0].numpy()
    strong, weak = np.abs(pattern[0]) > 0.4, np.abs(pattern[0]) < 0.05
    assert np.abs(doses.mean(axis=0) - (0.5 + 0.2 * pattern[0]))[strong].mean() < 0.03
    spread = doses.std(axis=0)
    assert 0.75 < np.median(spread[strong] / (0.15 * np.abs(pattern[0][strong]))) < 1.25
    assert spread[weak].mean() < 0.7 * spread[strong].mean()
