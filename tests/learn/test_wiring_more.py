"""What recipes allow and quicken, what a trainer is told, and what each family refuses and starts with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pydantic import ValidationError

from doseledger.core.errors import BadInput, NotReady
from doseledger.learn.data import fingerprint
from doseledger.learn.data.inputs import InputSpec
from doseledger.learn.data.volumes import SegmentPatches
from doseledger.learn.families import diffusion as diffusion_family
from doseledger.learn.families import dose, segmentation, trees
from doseledger.learn.families import mean as mean_family
from doseledger.learn.networks import windows
from doseledger.learn.networks.windows import slide
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.predict import cases
from doseledger.learn.recipes.diffusion import DiffusionPredict, DiffusionRecipe, DiffusionSettings
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.recipes.mean import MeanRecipe
from doseledger.learn.recipes.segmentation import DeepUNetRecipe, SegmentationRecipe, UNetRecipe
from doseledger.learn.recipes.trees import BoostingRecipe, TreesRecipe
from doseledger.learn.run import DOSE_SCORES, SEGMENT_SCORES, Ancestor, Family, Parent, TrainingRun, mean_scores
from doseledger.learn.training import keeping
from doseledger.learn.training.resume import list_states, open_state
from doseledger.learn.training.train import Places, quiet_lightning, train
from doseledger.learn.watch import diagnosis

SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minItems": "≥ items"}


def limits_of(kind: Any) -> dict[str, str]:
    """Each limit of a recipe's numbers and lists, by block and key."""
    schema = kind.model_json_schema()
    found: dict[str, str] = {}

    def look(where: str, value: Any) -> None:
        if isinstance(value, dict):
            words = [
                f"{sign} {value[name]}" for name, sign in SIGNS.items() if name in value and "pattern" not in value
            ]
            if words and "prefixItems" not in value:
                found[where] = ", ".join(words)
            for key, inner in value.items():
                if key != "discriminator":
                    look(where, inner)
        elif isinstance(value, list):
            for inner in value:
                look(where, inner)

    for name, block in {kind.__name__: schema, **schema.get("$defs", {})}.items():
        for key, value in block.get("properties", {}).items():
            look(f"{name}.{key}", value)
    return found


ONE, ZERO, POSITIVE, SHARE, BELOW_ONE = "≥ 1", "≥ 0", "> 0", "≥ 0, ≤ 1", "≥ 0, < 1"
FIT = {f"FitRecipe.{key}": ONE for key in ("max_epochs", "validate_every", "accumulate")} | {
    "FitRecipe.early_stop_epochs": ZERO
}
OPTIMISER = {
    "weight_decay": ZERO, "momentum": BELOW_ONE, "clip_norm": POSITIVE, "warmup_share": SHARE, "final_share": SHARE,
    "plateau_epochs": ONE, "plateau_factor": "> 0, < 1",
}  # fmt: skip
INPUTS = {"InputRecipe.sdf_scale_mm": POSITIVE, "InputRecipe.dose_scale_gy": POSITIVE}
SAMPLING = {
    "patch_zyx": ONE, "batch_size": ONE, "patches_per_case": ONE, "mirror_share": SHARE, "target_share": SHARE,
    "gradient_share": SHARE, "ct_shift_hu": ZERO, "prescription_jitter": BELOW_ONE, "mirror_z_share": SHARE,
    "turn_share": SHARE,
}  # fmt: skip
DROPOUT = {"share": SHARE, "structure_share": SHARE, "radius_mm": POSITIVE, "surround_mm": POSITIVE}
NETWORK = {"LoaderRecipe.workers": ZERO, **FIT, **{f"OptimiserRecipe.{key}": word for key, word in OPTIMISER.items()}}
FILM = {"FilmUNetRecipe.channels": ONE, "FilmUNetRecipe.convolutions": ONE, "FilmUNetRecipe.embedding": ONE}
DOSES = {
    **NETWORK, **INPUTS, **{f"SamplingRecipe.{key}": word for key, word in SAMPLING.items()},
    **{f"CoreDropoutRecipe.{key}": word for key, word in DROPOUT.items()},
}  # fmt: skip
VARIATION = {
    "affine_share": SHARE, "rotate_deg": "≥ 0, ≤ 180", "scale": SHARE, "noise_share": SHARE, "noise": ZERO,
    "blur_share": SHARE, "blur_voxels": ZERO, "brightness_share": SHARE, "brightness": ZERO, "contrast_share": SHARE,
    "contrast": SHARE, "low_resolution_share": SHARE, "least_resolution": "> 0, ≤ 1",
    "gamma_share": SHARE, "gamma": SHARE,
}  # fmt: skip
LIMITS: list[tuple[Any, dict[str, str]]] = [
    (Recipe, {
        **DOSES, **FILM, "Recipe.lr_factor": POSITIVE, "PredictRecipe.overlap": BELOW_ONE,
        "PredictRecipe.windows_at_once": ONE,
        "PredictRecipe.spacing_tolerance": ZERO, "CascadeRecipe.first_weight": ZERO, "DynUNetRecipe.filters": ONE,
        "MedNeXtRecipe.filters": ONE, "MedNeXtRecipe.blocks": ONE, "MedNeXtRecipe.expansion": ONE,
        **{f"LossRecipe.{key}": POSITIVE for key in ("target_weight", "structure_weights", "dvh_soft_percent",
        "dvh_soft_gy",
                                                     "moment_orders")},
        **{f"LossRecipe.{key}": ZERO for key in ("underdose", "overdose", "gradient", "dvh", "moment")},
    }),
    (DiffusionRecipe, {
        **DOSES, **FILM, "DiffusionRecipe.lr_factor": POSITIVE, "DynUNetRecipe.filters": ONE,
        "DiffusionSettings.min_snr_gamma": POSITIVE, "DiffusionSettings.ema_decay": BELOW_ONE,
        "DiffusionSettings.coarse_noise": BELOW_ONE,
        "DiffusionSettings.validation_steps": ONE, "DiffusionPredict.overlap": BELOW_ONE,
        "DiffusionPredict.windows_at_once": ONE, "DiffusionPredict.spacing_tolerance": ZERO,
        "DiffusionPredict.samples": "≥ 2", "DiffusionPredict.steps": ONE, "DiffusionPredict.seed": ZERO,
    }),
    (TreesRecipe, {
        **INPUTS, "BoostingRecipe.n_trees": ONE, "BoostingRecipe.leaves": "≥ 2", "BoostingRecipe.leaf_voxels": ONE,
        "BoostingRecipe.rate": "> 0, ≤ 1",
        "BoostingRecipe.voxels_per_case": ONE, "BoostingRecipe.structure_weight": ZERO,
        "BoostingRecipe.folds": "≥ 2", "BoostingRecipe.context_mm": POSITIVE,
    }),
    (MeanRecipe, {
        **INPUTS, "MeanRecipe.weights": POSITIVE, "PredictRecipe.overlap": BELOW_ONE,
        "PredictRecipe.windows_at_once": ONE,
        "PredictRecipe.spacing_tolerance": ZERO,
    }),
    (SegmentationRecipe, {
        **NETWORK, "SegmentationRecipe.lr_factor": POSITIVE, "SegmentationRecipe.ema_decay": BELOW_ONE,
        "ImageRecipe.structures": "≥ items 1", "ForegroundRecipe.patch_zyx": ONE, "ForegroundRecipe.batch_size": ONE,
        "ForegroundRecipe.patches_per_case": ONE, "ForegroundRecipe.mirror_share": SHARE,
        "ForegroundRecipe.foreground_share": SHARE, "OverlapLossRecipe.focal_gamma": ZERO,
        "SegmentPredict.overlap": BELOW_ONE, "SegmentPredict.windows_at_once": ONE,
        "SegmentPredict.spacing_tolerance": ZERO,
        "SliceRecipe.neighbours": ZERO, "AnisotropyRecipe.late_zyx": ZERO, "AnisotropyRecipe.halvings_zyx": ZERO,
        "UNetRecipe.channels": ONE, "UNetRecipe.residual_units": ZERO, "UNetRecipe.dropout": BELOW_ONE,
        "DeepUNetRecipe.filters": ONE, "DeepUNetRecipe.supervised": ZERO,
        **{f"VariationRecipe.{key}": word for key, word in VARIATION.items()},
    }),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "wanted"), LIMITS)
def test_each_number_of_a_recipe_has_its_limits(kind: Any, wanted: dict[str, str]) -> None:
    # A list's own length and its numbers' least stand under one key: the inner one holds here.
    assert limits_of(kind) == wanted


@pytest.mark.parametrize(("network", "is_taken"), [
    ({"name": "film_unet", "stem_stride_zyx": [1, 2, 2], "channels": [4], "convolutions": [1], "embedding": 8}, False),
    ({"name": "film_unet",
    "stem_stride_zyx": [1, 2, 3], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8}, False),
    ({"name": "film_unet",
    "stem_stride_zyx": [1, 2, 4], "channels": [1, 1], "convolutions": [1, 1], "embedding": 1}, True),
    ({"name": "film_unet",
    "stem_stride_zyx": [1, 2, 4], "channels": [0, 1], "convolutions": [1, 1], "embedding": 1}, False),
    ({"name": "dynunet", "filters": [4, 8], "residual": True}, False),
    ({"name": "dynunet", "filters": [4, 8, 16], "residual": True}, True),
    ({"name": "mednext", "filters": 4, "blocks": [1], "expansion": 2, "kernel": 3}, False),
    ({"name": "mednext", "filters": 4, "blocks": [1, 1], "expansion": 2, "kernel": 7}, True),
    ({"name": "mednext", "filters": 4, "blocks": [1, 1], "expansion": 2, "kernel": 4}, False),
])  # fmt: skip
def test_a_network_has_levels_enough(
    network: dict[str, Any], is_taken: bool, make_recipe: Callable[..., Recipe]
) -> None:
    if is_taken:
        assert make_recipe({"network": network}).network.name == network["name"]
    else:
        with pytest.raises(BadInput):
            make_recipe({"network": network})


@pytest.mark.parametrize(("changes", "words"), [
    ({"sampling.core_dropout.radius_mm": [5.0, 5.0]}, ""), ({"sampling.core_dropout.radius_mm": [5.1, 5.0]},
    "radius_mm falls"),
    ({"sampling.target_share": 0.7, "sampling.gradient_share": 0.3}, ""),
    ({"sampling.turn_share": 0.5}, "sampling.turn_share 0.5: inputs.place targets is another after a turn"),
    ({"sampling.turn_share": 0.5, "inputs.place": "none", "prior": "none"},
    "without inputs.physics no beams are known"),
    ({"sampling.turn_share": 0.5, "inputs.place": "none", "prior": "none", "inputs.physics": ["conformal"]}, ""),
    ({"predict.mirror_average": "beams"}, "predict.mirror_average beams: inputs.place"),
    ({"predict.mirror_average": "xz"}, ""),
    ({"inputs.structures": "mask"}, "prior mean_dose needs structures sdf"),
    ({"inputs.prescription": "none"}, "prior mean_dose needs"), ({"inputs.place": "none"}, "prior mean_dose needs"),
    ({"sampling.patch_zyx": "case", "sampling.batch_size": 1, "loss.mask": "valid_dose"}, ""),
    ({"sampling.patch_zyx": "case", "sampling.batch_size": 2, "loss.mask": "valid_dose"},
    "batch_size 2 with patch_zyx: case"),
    ({"sampling.patch_zyx": "case", "sampling.batch_size": 1, "loss.mask": "body"},
    "loss.mask body with patch_zyx: case"),
    ({"sampling.batch_size": 1, "loss.mask": "body"}, ""), ({"fit.max_epochs": 2, "fit.validate_every": 2}, ""),
    ({"init_from": "dose_unet@v1.2.3"}, ""), ({"init_from": "dose_unet@1.2.3"}, "init_from"),
    ({"init_from": ".a"}, "init_from"),
])  # fmt: skip
def test_a_recipe_is_taken_where_its_parts_agree(
    changes: dict[str, Any], words: str, make_recipe: Callable[..., Recipe]
) -> None:
    if words:
        with pytest.raises(BadInput, match=words):
            make_recipe(changes)
    else:
        make_recipe(changes)


def test_a_quick_prediction_is_neither_projected_nor_averaged_over_turns(make_recipe: Callable[..., Recipe]) -> None:
    for average, quick in ((False, False), (True, True), ("xz", True)):
        recipe = make_recipe({"predict.mirror_average": average, "predict.project": True, "predict.overlap": 0.3})
        found = recipe.quick().predict
        assert (found.project, found.mirror_average, found.overlap) == (False, quick, 0.3)
    how: Any = SimpleNamespace(validation_steps=7, validation_sampler="heun")
    predict = DiffusionPredict(
        overlap=0.3, windows_at_once=4, spacing_tolerance=0.1, samples=9, steps=30, sampler="ddim", antithetic=True,
        centre="median", seed=5,
    )  # fmt: skip
    drawn: Any = DiffusionRecipe.model_construct(predict=predict, diffusion=how).quick().predict
    assert drawn.model_dump() == {
        "overlap": 0.3, "windows_at_once": 4, "spacing_tolerance": 0.1, "samples": 2, "steps": 7, "sampler": "heun",
        "antithetic": False, "centre": "mean", "seed": 5,
    }  # fmt: skip
    bare: Any = make_recipe({"prior": "mean_dose"}).bare()
    assert (bare.prior, bare.predict) == ("none", make_recipe().predict)
    residual: Any = DiffusionRecipe.model_construct(
        diffusion=DiffusionSettings.model_construct(residual=True, shift=0.5)
    )
    assert (residual.bare().diffusion.residual, residual.bare().diffusion.shift) == (False, 0.5)
    whole: Any
    for whole in (TreesRecipe, MeanRecipe):
        projected = whole.model_construct(predict=make_recipe({"predict.project": True}).predict)
        assert projected.quick().predict.project is False


OTHER: Any = SimpleNamespace(kind="other", init_from="none")


@pytest.mark.parametrize("ask", [
    lambda run: dose.make_dose_task(run, None, {}),
    lambda run: diffusion_family.make_diffusion_task(run, None, {}, base=None),
    lambda run: segmentation.make_segmentation_task(run, None, {}), lambda run: trees._recipe(run),
    lambda run: mean_family._recipe(run), lambda run: diffusion_family.make_family(OTHER, None),
    lambda run: mean_family.make_family(OTHER, None), lambda run: dose_network(OTHER, None),  # type: ignore[arg-type]
])  # fmt: skip
def test_another_kinds_recipe_is_refused_by_each_family(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(BadInput, match="its kind is other, wanted"):
        ask(SimpleNamespace(recipe=OTHER, model="mine"))


def test_families_without_steps_train_and_try_in_their_own_way() -> None:
    found = trees.make_family(OTHER, None)
    assert (found.module, found.fit, found.probe) == (trees.__name__, trees.fit_trees, trees.probe_trees)
    assert (found.parts, found.passes, found.scores, found.told, found.ancestors) == ({}, 1, DOSE_SCORES, None, ())
    with pytest.raises(NotReady, match="m: trees have no steps to take"):
        found.make_task(SimpleNamespace(model="m"), None, {})  # type: ignore[arg-type]
    assert segmentation.SEGMENTATION.scores == SEGMENT_SCORES
    assert segmentation.SEGMENTATION.reader.patches is SegmentPatches
    assert (dose.DOSE.module, dose.DOSE.make_task) == (dose.__name__, dose.make_dose_task)


def test_a_diffusion_stands_on_a_base_where_it_diffuses_a_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Ancestor("elder", "c", "9", 1, {}, {})
    boosted: Any = SimpleNamespace(told="told")
    base: Any = SimpleNamespace(
        checkpoint=SimpleNamespace(model="unet", ancestors=(line,)), sha256="5", boosted=boosted
    )
    monkeypatch.setattr(diffusion_family, "load_base", lambda path: base)
    how = SimpleNamespace(residual=True, validation_steps=13)
    recipe = DiffusionRecipe.model_construct(kind="diffusion", diffusion=how)
    found = diffusion_family.make_family(recipe, Path("base"))
    assert (found.module, found.passes, found.told, found.ancestors) == (diffusion_family.__name__, 13, "told", (line,))
    assert found.parts == {"base": {"model": "unet", "sha256": "5"}}
    made: Any = found.make_task
    assert made.keywords == {"base": base}
    base.boosted = None
    assert diffusion_family.make_family(recipe, Path("base")).told is None
    how.residual = False
    alone = diffusion_family.make_family(recipe, Path("base"))
    assert (alone.parts, alone.ancestors, alone.told, alone.passes) == ({}, (), None, 13)
    assert alone.make_task.keywords == {"base": None}  # type: ignore[attr-defined]


def test_a_run_knows_its_ancestors_and_is_one_process_unless_told() -> None:
    one, two = (Ancestor(name, "c", "9", 4, {"a": "1", "b": "2"}, {"v": "3"}) for name in ("one", "two"))
    assert one.told == {"name": "one", "cohort": "c", "sha256": "9", "epoch": 4, "trained_on": 2, "selected_on": 1}
    family = Family("m", lambda *_: None, ancestors=(two,))  # type: ignore[arg-type, return-value]
    run = TrainingRun("m", OTHER, 0.1, 1, 2, 3, {}, {}, family)
    assert (run.devices, run.nodes, run.cohort, run.ancestors) == (1, 1, "", (two,))
    child = TrainingRun("m", OTHER, 0.1, 1, 2, 3, {}, {}, family, parent=Parent("dose", {}, {}, (one,)))
    assert child.ancestors == (one, two)
    assert child.parent is not None
    assert child.parent.name == "one"
    with pytest.raises(BadInput, match="m: a model of kind other has no network"):
        _ = run.network_recipe
    assert mean_scores([(1.0, 4.0), (3.0, 8.0)]) == {DOSE_SCORES[0]: 2.0, DOSE_SCORES[1]: 6.0}


class Told(Exception):
    """Ends a training as its trainer is made."""


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_trainer_is_told_what_the_recipe_says_and_to_keep_quiet(
    accumulate: int, make_run: Callable[..., TrainingRun], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def note(**words: Any) -> Any:
        told.update(words)
        raise Told

    monkeypatch.setattr(pl, "Trainer", note)
    changes = {"fit.max_epochs": 4, "fit.validate_every": 2, "fit.accumulate": accumulate, "optimiser.clip_norm": 0.7}
    stale = places.out / "checkpoints" / "older.ckpt"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    with pytest.raises(Told):
        train(make_run(changes), places, fresh=False, tell=lambda line: None)
    # What an earlier run left is not taken for this one's.
    assert not stale.exists()
    names = [type(one).__name__ for one in told.pop("callbacks")]
    assert names == ["Alive", "StepSeeds", "Recorder", "StateKeeper"]
    assert told.pop("default_root_dir").parent.parent == places.state_root
    assert [type(one).__name__ for one in told.pop("plugins")] == ["LightningEnvironment"]
    assert told == {
        "accelerator": "auto", "devices": 1, "precision": "32-true", "max_epochs": 4, "check_val_every_n_epoch": 2,
        "accumulate_grad_batches": accumulate, "gradient_clip_val": 0.7, "use_distributed_sampler": False,
        "num_sanity_val_steps": 0, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False,
    }  # fmt: skip


@pytest.mark.parametrize(("words", "kind", "is_quiet"), [
    ("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, True), ("LeafSpec", UserWarning, False),
    ("The 'train_dataloader' does not have many workers which", UserWarning, True),
    ("The number of training batches (2) is smaller than the logging interval", UserWarning, True),
    ("Checkpoint directory /x exists and is not empty.", UserWarning, True),
    ("GPU available but not used.", UserWarning, True), ("The `srun` command is available on your system",
    UserWarning, True),
    ("but your dataloader is not resumable", UserWarning, True),
    ("`broadcast_buffers` is deprecated", FutureWarning, True), ("`broadcast_buffers` is deprecated",
    UserWarning, False),
    ("something else", UserWarning, False),
])  # fmt: skip
def test_lightnings_hints_are_kept_back_and_no_other_warning(words: str, kind: Any, is_quiet: bool) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet_lightning():
            warnings.warn(words, kind, stacklevel=1)
    assert (heard == []) is is_quiet


def test_states_are_listed_from_the_one_touched_last(tmp_path: Path) -> None:
    folders = []
    for number in range(3):
        state = open_state(tmp_path, "m", {"lr": number}, fresh=False)
        state.lightning.write_bytes(b"state")
        os.utime(state.lightning, (100 + number * (-1) ** number, 100 + number * (-1) ** number))
        folders.append(state.folder)
        assert len(state.folder.name) == 16
        state.release()
    # Touched at 100, 99 and 102.
    assert list_states(tmp_path) == [folders[2], folders[0], folders[1]]


def test_a_state_is_read_without_code_and_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    parts: dict[str, Any] = {name: {} for name in keeping.SEALED}
    parts["callbacks"] = {"StateKeeper": {"position": [3, 5]}}
    parts[keeping.DIGEST] = keeping._digest_of_state(parts, tmp_path)
    monkeypatch.setattr(torch, "load", lambda path, **words: asked.append((path, words)) or parts)
    assert keeping.require_whole(tmp_path / "last.ckpt") == (3, 5)
    assert asked == [(tmp_path / "last.ckpt", {"map_location": "cpu", "weights_only": True})]


def test_mirrored_doses_are_turned_back_and_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    spec: Any = SimpleNamespace(mirrored_orders=lambda names: names)
    model: Any = SimpleNamespace(
        checkpoint=SimpleNamespace(spec=spec), recipe=SimpleNamespace(sampling=SimpleNamespace(mirrored_names="names"))
    )
    doses = {"plain": [[[1.0, 2.0]], [[3.0, 4.0]]], "x": [[[10.0, 20.0]], [[30.0, 40.0]]],
             "z": [[[100.0, 200.0]], [[300.0, 400.0]]], "zx": [[[5.0, 6.0]], [[7.0, 8.0]]]}  # fmt: skip
    monkeypatch.setattr(cases, "_run", lambda model, sample, recipe: np.array(doses[sample["image"]]))
    monkeypatch.setattr(
        cases, "mirror_inputs", lambda sample, orders: {"image": {"plain": "x", "z": "zx"}[sample["image"]]}
    )
    monkeypatch.setattr(cases, "mirror_z_image", lambda image, spec: "z")

    def ask(average: Any) -> Any:
        recipe: Any = SimpleNamespace(mirror_average=average, model_copy=lambda update: SimpleNamespace(**update))
        return cases._mirrored_mean(model, {"image": "plain"}, recipe).tolist()

    assert ask(False) == doses["plain"]
    both = [[[(1 + 20) / 2, (2 + 10) / 2]], [[(3 + 40) / 2, (4 + 30) / 2]]]
    assert ask(True) == both
    upside = [[[(300 + 8) / 2, (400 + 7) / 2]], [[(100 + 6) / 2, (200 + 5) / 2]]]
    assert ask("xz") == ((np.array(both) + upside) / 2).tolist()


def test_voxels_that_no_window_covers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import monai.inferers.utils as inferers

    covered = torch.tensor([0.999, 1.0, 0.5, 0.9991])
    asked: list[Any] = []

    def sweep(*args: Any, **words: Any) -> Any:
        asked.append((args[1:3], words))
        return torch.zeros(4), covered

    monkeypatch.setattr(inferers, "sliding_window_inference", sweep)
    network: Any = None
    with pytest.raises(BadInput, match=r"2 voxels were covered by no window of \(1, 2, 3\) with overlap 0\.5"):
        slide(network, torch.zeros(1), (1, 2, 3), overlap=0.5, windows_at_once=7)
    assert asked == [(((1, 2, 3), 7), {"overlap": 0.5, "mode": "gaussian"})]
    assert (windows.VALIDATION_OVERLAP, windows.COVERED) == (0.25, 0.999)


def test_a_case_without_a_native_grid_is_as_fine_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    case: Any = SimpleNamespace(file=SimpleNamespace(path=None), spacing_mm=(3.0, 2.0, 1.0))
    for meta, wanted in (({}, (3.0, 2.0, 1.0)), ({"native_image_grid": None}, (3.0, 2.0, 1.0)),
                         ({"native_image_grid": {"spacing_mm": [5, 4, 1]}}, (5.0, 4.0, 1.0))):  # fmt: skip
        monkeypatch.setattr(fingerprint, "read_meta", lambda path, meta=meta: meta)
        assert fingerprint._native_spacing(case) == wanted


def test_a_patch_of_an_image_is_drawn_mirrored_and_varied_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "doseledger.learn.data.volumes"
    monkeypatch.setattr(f"{module}._draw_box", lambda case, centres, sampling, rng: rng.random(3).tolist())
    monkeypatch.setattr(f"{module}.read_sample", lambda case, spec, box: [case, box])
    monkeypatch.setattr(f"{module}.flip_sample", lambda sample, axes, order: [*sample, axes, order])
    monkeypatch.setattr(f"{module}.as_tensors", lambda sample: sample)
    patches: Any = SegmentPatches.__new__(SegmentPatches)
    patches.cases, patches.centres, patches.spec, patches.seed, patches.order = ["a", "b"], [0, 1], None, 5, [0, 2, 1]
    patches.vary = lambda sample, seed: (sample, seed)
    for share in (0.0, 1.0):
        patches.sampling = SimpleNamespace(mirror_share=share)
        sample, seed = patches[(2, 7, 1)]
        rng = np.random.default_rng([5, 2, 7, 1])
        box = rng.random(3).tolist()
        rng.random()
        assert sample == ["b", box, *(["x", [0, 2, 1]] if share else [])]
        assert seed == int(rng.integers(2**32))


def test_a_driver_is_asked_for_twenty_seconds_and_its_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: None)
    assert diagnosis._gpus() == ["no nvidia-smi"]
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: f"/bin/{name}")
    asked: list[Any] = []
    answers = iter(
        [SimpleNamespace(stdout=" a, b\n1, 2\n", stderr="x"), SimpleNamespace(stdout="", stderr="no devices\n")]
    )
    monkeypatch.setattr(diagnosis.subprocess, "run", lambda words, **more: asked.append((words, more)) or next(answers))
    assert [diagnosis._gpus(), diagnosis._gpus()] == [["a, b", "1, 2"], ["no devices"]]
    assert asked[0] == (
        ["/bin/nvidia-smi", f"--query-gpu={diagnosis.GPU_QUERY}", "--format=csv"],
        {"capture_output": True, "text": True, "check": False, "timeout": 20.0},
    )

    def hang(*_: Any, **__: Any) -> Any:
        raise OSError("stuck")

    monkeypatch.setattr(diagnosis.subprocess, "run", hang)
    assert diagnosis._gpus() == ["nvidia-smi gives no answer: stuck"]


def test_spec_of_a_dose_needs_a_structure(make_recipe: Callable[..., Recipe]) -> None:
    spec = InputSpec(("A",), ("A",), make_recipe().inputs)
    assert spec.told is False


DEEP: dict[str, Any] = {"name": "dynunet", "filters": [4, 8, 16, 32], "residual": True, "supervised": 1, "slices": None,
                        "anisotropy": None}  # fmt: skip
LONG = {"late_zyx": [1, 0, 0], "halvings_zyx": [2, 3, 3]}


@pytest.mark.parametrize(("changes", "strides", "kernels", "total"), [
    ({}, [(2, 2, 2)] * 3, [(3, 3, 3)] * 4, (8, 8, 8)),
    ({"anisotropy": LONG}, [(1, 2, 2), (2, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)], (4, 8, 8)),
    ({"anisotropy": {"late_zyx": [2, 0, 1], "halvings_zyx": [0, 3, 1]}}, [(1, 2, 1), (1, 2, 2), (1, 2, 1)],
     [(1, 3, 1), (1, 3, 3), (3, 3, 3), (3, 3, 3)], (1, 8, 2)),
    ({"slices": {"axis": "y", "neighbours": 2}}, [(2, 2, 2)] * 3, [(3, 3, 3)] * 4, (8, 1, 8)),
    ({"supervised": 2}, [(2, 2, 2)] * 3, [(3, 3, 3)] * 4, (8, 8, 8)),
])  # fmt: skip
def test_a_deep_network_halves_each_axis_as_late_and_as_often_as_it_is_asked(
    changes: dict[str, Any], strides: list[Any], kernels: list[Any], total: Any
) -> None:
    recipe = DeepUNetRecipe.model_validate({**DEEP, **changes})
    assert (recipe.strides_zyx, recipe.kernels_zyx, recipe.total_stride_zyx) == (strides, kernels, total)


@pytest.mark.parametrize(("changes", "words"), [
    ({"anisotropy": LONG, "slices": {"axis": "z", "neighbours": 0}}, "anisotropy is of networks in 3D"),
    ({"anisotropy": {"late_zyx": [1, 1, 1], "halvings_zyx": [2, 2, 2]}}, "a step of 3 that halves no axis"),
    ({"anisotropy": {"late_zyx": [0, 0, 0], "halvings_zyx": [2, 2, 2]}}, "a step of 3 that halves no axis"),
    ({"supervised": 3}, "supervised is 3; of 4 levels at most 2 are"), ({"filters": [4, 8]}, "at least 3 items"),
])  # fmt: skip
def test_a_deep_network_that_can_not_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DeepUNetRecipe.model_validate({**DEEP, **changes})


@pytest.mark.parametrize(("changes", "total"), [
    ({}, (4, 4, 4)), ({"slices": {"axis": "z", "neighbours": 1}}, (1, 4, 4)), ({"slices": {"axis": "x",
    "neighbours": 1}}, (4, 4, 1)),
    ({"channels": [4, 8], "strides": [1]}, (1, 1, 1)), ({"channels": [4, 8]}, None), ({"channels": [4],
    "strides": []}, None),
])  # fmt: skip
def test_a_plain_network_has_a_stride_a_step(changes: dict[str, Any], total: Any) -> None:
    block = {
        "name": "unet",
        "channels": [4, 8, 16, 32],
        "strides": [2, 1, 2],
        "residual_units": 0,
        "dropout": 0.0,
        "slices": None,
    }
    if total is None:
        with pytest.raises(ValidationError):
            UNetRecipe.model_validate({**block, **changes})
    else:
        assert UNetRecipe.model_validate({**block, **changes}).total_stride_zyx == total


@pytest.mark.parametrize(("stages", "folds", "is_taken"), [(1, 2, True), (2, 2, False), (2, 3, True), (1, 1, False)])
def test_a_second_stage_leaves_two_folds_out(stages: int, folds: int, is_taken: bool) -> None:
    block = {"n_trees": 1, "leaves": 2, "leaf_voxels": 1, "rate": 1.0, "voxels_per_case": 1, "structure_weight": 0.0,
             "folds": folds, "context_mm": [], "stages": stages}  # fmt: skip
    if is_taken:
        assert BoostingRecipe.model_validate(block).folds == folds
    else:
        with pytest.raises(ValidationError):
            BoostingRecipe.model_validate(block)


def test_windows_rise_flips_differ_and_a_segmentation_has_patches(
    make_segmentation_run: Callable[..., TrainingRun],
) -> None:
    make_segmentation_run({"predict.flips": ["x", "y", "z"]})
    for changes, words in (
        ({"predict.flips": ["x", "y", "x"]}, "flips name an axis twice"), ({"inputs.window": [5.0, 5.0]},
        "window falls from 5 to 5"),
        ({"sampling.patch_zyx": "case"}, "case is for doses"), ({"sampling.mirrored_names": {"A": "B", "C": "A"}},
        "structure twice"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            make_segmentation_run(changes)
    quick: Any = make_segmentation_run(
        {"predict.flips": ["x"], "predict.largest_part": True, "predict.fill_holes": True}
    )
    found = quick.recipe.quick().predict
    assert (found.flips, found.largest_part, found.fill_holes) == ([], False, False)
