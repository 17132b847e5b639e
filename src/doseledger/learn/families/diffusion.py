"""A diffusion in training: noise network, moving average, base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.core.types import IntTriple
from doseledger.learn.data.inputs import InputSpec, OpenCase
from doseledger.learn.data.patches import as_tensors, read_sample, seen_box
from doseledger.learn.families.bases import Base, check_base, load_base
from doseledger.learn.networks.denoiser import (
    DoseScale,
    DrawSettings,
    ask_network,
    base_of_case,
    base_of_patches,
    build_noise_network,
    draw_doses,
    layered_noise,
    noise_fields,
)
from doseledger.learn.networks.schedule import add_noise, angle, loss_weight, velocity
from doseledger.learn.networks.windows import VALIDATION_OVERLAP
from doseledger.learn.recipes.diffusion import DiffusionRecipe, TrainedDiffusion
from doseledger.learn.recipes.dose import ModelRecipe
from doseledger.learn.run import CasesByPart, Family, TrainingRun
from doseledger.learn.training.average import AveragedTask
from doseledger.learn.training.finite import refuse_no_voxel

# The residual's width is measured on so many training cases, spread evenly: it is one number, and known to a percent.
WIDTH_CASES = 16
# A dose may be this much higher than the highest that was trained on.
DOSE_MARGIN = 1.1


class DiffusionTask(AveragedTask):
    """A diffusion in training.

    Parameters
    ----------
    recipe, spec
        The model's block, and the channels and conditions that its cases have.
    lr
        The learning rate itself: base rate times the recipe's factor.
    seed
        Seed of times and noise.
    base
        What the residual is taken from; None diffuses the dose itself.
    scale
        What x0 is.
    """

    def __init__(
        self, recipe: TrainedDiffusion, spec: InputSpec, lr: float, *, seed: int, base: Base | None, scale: DoseScale
    ) -> None:
        super().__init__(build_noise_network(recipe, spec), recipe.diffusion.ema_decay)
        self.recipe, self.spec, self.lr, self.seed, self.scale = recipe, spec, lr, seed, scale
        # Out of the modules' sight: the base is kept in the checkpoint once, and never in train mode.
        self.kept_base, self.base = base.kept if base else None, [base.on(spec)] if base else []
        # The trees below the base: what they tell is among the channels.
        self.boosted = base.boosted if base else None

    def begin_from(self, weights: Mapping[str, Tensor], extras: Mapping[str, Any]) -> None:
        """Take over a trained diffusion's weights, with the scale of x0 that they speak in."""
        super().begin_from(weights, extras)
        self.scale = DoseScale(**extras["scale"])

    def base_network(self) -> nn.Module | None:
        """Return the base's network where this task's weights are."""
        return self.base[0].to(self.device) if self.base else None

    def batch_loss(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor]:
        """Return a batch's loss, a scalar, and what the network said.

        Times and noise come from a generator of their own, seeded by (seed, epoch, batch, process): a resumed run
        draws what an unbroken one does. The times of a batch are spread evenly over [0, 1].
        """
        how, valid, n = self.recipe.diffusion, batch["valid_dose"], len(batch["dose"])
        rng = self._generator(index)
        t = (torch.arange(n, device=self.device) + torch.rand(n, generator=rng, device=self.device)) / n
        phi = angle(t, how.shift)
        wide = phi.view(-1, 1, 1, 1, 1)
        base = base_of_patches(self.base_network(), batch)
        x0 = self.scale.to_x0(batch["dose"] * valid, base)

        def white(shape_zyx: IntTriple) -> Tensor:
            return torch.randn((n, 1, *shape_zyx), generator=rng, device=self.device)

        z, y, x = x0.shape[2:]
        eps = layered_noise(white, (z, y, x), how.coarse_noise)
        said = ask_network(self.network, batch, base, add_noise(x0, eps, wide), phi)
        wanted = velocity(x0, eps, wide) if how.parameterisation == "v" else x0
        counted = valid.flatten(1).float()
        errors = ((said - wanted).square().flatten(1) * counted).sum(1) / counted.sum(1).clamp_min(1.0)
        weight = loss_weight(phi, how.parameterisation, how.weights, how.min_snr_gamma)
        return (weight * errors).mean(), said

    def _generator(self, index: int) -> torch.Generator:
        rank = self.trainer.global_rank if self._trainer is not None else 0
        state = np.random.SeedSequence([self.seed, self.current_epoch, index, rank]).generate_state(1, np.uint64)
        # torch takes a signed number.
        return torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))

    def extras(self) -> dict[str, Any]:
        """Return the scale of x0, and the base model whole, with what it stands on itself."""
        below = {"boosted": self.boosted.kept()} if self.boosted else {}
        return {"scale": asdict(self.scale), "base": self.kept_base, **below}

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Draw one dose of a whole case, always from the same noise, and add its error to the validation."""
        refuse_no_voxel(batch)
        settings = DrawSettings(
            patch_zyx=self.recipe.sampling.patch_zyx,
            overlap=VALIDATION_OVERLAP,
            windows_at_once=1,
            steps=self.recipe.diffusion.validation_steps,
            sampler=self.recipe.diffusion.validation_sampler,
            parameterisation=self.recipe.diffusion.parameterisation,
        )
        base = base_of_case(self.base_network(), batch, settings)
        z, y, x = base.shape[2:]
        coarse = self.recipe.diffusion.coarse_noise
        noise = noise_fields(self.seed, batch["case_id"][0], [0], (z, y, x), coarse).to(self.device)
        dose = draw_doses(self.averaged, self.scale, batch, base, noise, settings)
        error_gy = (dose - batch["dose"]).abs() * self.spec.recipe.dose_scale_gy
        in_valid, in_body = (float(error_gy[batch[mask]].mean()) for mask in ("valid_dose", "body"))
        self.errors.append((in_valid, in_body))


def make_family(recipe: ModelRecipe, base: Path | None) -> Family:
    """Return the family of diffusions that start from a trained dose model.

    Parameters
    ----------
    base
        Checkpoint of that model; not looked at by a recipe that diffuses the dose itself.

    Raises
    ------
    NotReady
        If the base is wanted and there is none.
    BadInput
        If the recipe is another family's, or names no base that it wants.
    """
    if not isinstance(recipe, DiffusionRecipe):
        raise BadInput(f"its kind is {recipe.kind}, wanted diffusion")
    if recipe.diffusion.residual and base is None:
        raise BadInput("a diffusion of a residual starts from a model: name it under `bases` in params.yaml")
    stands_on = load_base(base) if recipe.diffusion.residual and base is not None else None
    parts = {"base": {"model": stands_on.checkpoint.model, "sha256": stands_on.sha256}} if stands_on else {}
    make_task = partial(make_diffusion_task, base=stands_on)
    boosted = stands_on.boosted if stands_on else None
    return Family(
        module=__name__,
        make_task=make_task,
        parts=parts,
        passes=recipe.diffusion.validation_steps,
        ancestors=stands_on.checkpoint.ancestors if stands_on else (),
        told=boosted.told if boosted else None,
    )


def make_diffusion_task(run: TrainingRun, spec: InputSpec, cases: CasesByPart, *, base: Base | None) -> DiffusionTask:
    """Return the task of a diffusion.

    Raises
    ------
    BadInput
        If the run's block is another family's, or the base does not fit it or was trained on other cases.
    """
    if not isinstance(run.recipe, DiffusionRecipe):
        raise BadInput(f"{run.model}: its kind is {run.recipe.kind}, wanted diffusion")
    base = base if run.recipe.diffusion.residual else None
    if base is not None:
        check_base(run, spec, cases, base)
    trained = run.recipe.trained_part()
    scale = measure_scale(trained, spec, cases["train"], base)
    return DiffusionTask(trained, spec, run.lr * trained.lr_factor, seed=run.seed, base=base, scale=scale)


def measure_scale(recipe: TrainedDiffusion, spec: InputSpec, cases: list[OpenCase], base: Base | None) -> DoseScale:
    """Return what x0 is, from up to WIDTH_CASES training cases: the residual's width, and the highest dose."""
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, WIDTH_CASES).round().astype(int))]
    patch_zyx = recipe.sampling.patch_zyx
    settings = DrawSettings(patch_zyx, VALIDATION_OVERLAP, 1, 1, "ddim", recipe.diffusion.parameterisation)
    squares, voxels, most = 0.0, 0, 0.0
    for case in chosen:
        sample = as_tensors(read_sample(case, spec, seen_box(case, recipe)))
        batch = {name: sample[name][None] for name in ("image", "condition", "dose", "valid_dose")}
        dose = batch["dose"] * batch["valid_dose"]
        most = max(most, float(dose.max()))
        with torch.no_grad():
            residual = dose - base_of_case(base.on(spec) if base else None, batch, settings)
        squares += float(residual[batch["valid_dose"]].double().square().sum())
        voxels += int(batch["valid_dose"].sum())
    most *= DOSE_MARGIN
    if base is None:
        return DoseScale(centre=most / 2, width=most / 2, most=most)
    return DoseScale(centre=0.0, width=(squares / voxels) ** 0.5, most=most)
