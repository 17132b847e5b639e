"""The settings of a diffusion model as typed blocks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from doseledger.core.schema import Block
from doseledger.learn.recipes.dose import NOT_TRAINED, CommonRecipe, Count, DoseTrained, NotNegative, Positive
from doseledger.learn.recipes.network import DynUNetRecipe, FilmUNetRecipe


class DiffusionSettings(Block):
    """What is diffused, along which schedule, and how errors count.

    Notes
    -----
    `residual`: the plan's dose less the base model's prediction, divided by its measured scale; else the dose itself,
    scaled to about [-1, 1]. `parameterisation` is what the network says: v or x0. `shift` moves the cosine schedule in
    log SNR; `coarse_noise` is how strong each layer of noise is, of the next finer one (see `denoiser.layered_noise`);
    `weights` and `min_snr_gamma` say how noise levels count (see `diffusion.loss_weight`). The EMA of the weights, of
    decay `ema_decay` at most, is what predicts. `validation_steps` and `validation_sampler` draw the dose that chooses
    the epoch.
    """

    residual: bool
    parameterisation: Literal["v", "x0"]
    shift: float
    coarse_noise: Annotated[float, Field(ge=0, lt=1)]
    weights: Literal["plain", "min_snr"]
    min_snr_gamma: Positive
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    validation_steps: Count
    validation_sampler: Literal["ddim", "euler", "heun"]


class DiffusionPredict(Block):
    """How doses of a case are drawn; changing it retrains nothing.

    Notes
    -----
    `overlap`, `windows_at_once` and `spacing_tolerance` are those of a dose network's prediction. `samples` doses are
    drawn of each case in `steps` steps of the `sampler`, from noise that `seed`, the case's name and the sample's
    number decide. The samples themselves are kept beside the dose: their spread is judged by the evaluation.
    `antithetic` draws as many again from the same noise with its sign turned, for the dose alone: what is odd in the
    noise drops out of their mean (Hammersley & Morton 1956, "A new Monte Carlo technique"). `centre` is what of all
    draws the dose is: their mean, which errs least in squared error, or their median, in absolute error; or `base`:
    the dose is the base model's, and the draws are moved so that their mean is, too: for a base whose residual on new
    cases nothing tells, as of cross-fitted trees, so that the draws' own mean only adds to its error.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)]
    windows_at_once: Count
    spacing_tolerance: NotNegative
    samples: Annotated[int, Field(ge=2)]
    steps: Count
    sampler: Literal["ddim", "euler", "heun"]
    antithetic: bool
    centre: Literal["mean", "median", "base"]
    seed: Annotated[int, Field(ge=0)]


class TrainedDiffusion(DoseTrained):
    """What decides a diffusion model's weights."""

    kind: Literal["diffusion"]
    network: Annotated[FilmUNetRecipe | DynUNetRecipe, Field(discriminator="name")]
    diffusion: DiffusionSettings


class DiffusionRecipe(TrainedDiffusion, CommonRecipe):
    """One diffusion model: all that params.yaml says of it."""

    predict: DiffusionPredict

    @model_validator(mode="after")
    def _is_possible(self) -> DiffusionRecipe:
        if self.optimiser.schedule == "plateau":
            raise ValueError("optimiser.schedule plateau waits for a validation score that one drawn dose makes noisy")
        if self.diffusion.coarse_noise and self.sampling.patch_zyx != "case":
            raise ValueError("diffusion.coarse_noise spans a whole case; it takes sampling.patch_zyx: case")
        if self.predict.centre == "base" and not self.diffusion.residual:
            raise ValueError("predict.centre base asks for a base, diffusion.residual false has none; take the median")
        return self

    def quick(self) -> Self:
        """Return the same with few draws, each as validation draws its dose."""
        how = self.diffusion
        few = {
            "samples": 2,
            "steps": how.validation_steps,
            "sampler": how.validation_sampler,
            "antithetic": False,
            "centre": "base" if self.predict.centre == "base" else "mean",
        }
        return self.model_copy(update={"predict": self.predict.model_copy(update=few)})

    def bare(self) -> Self:
        """Return the same of the dose itself: a residual is mostly what no few steps learn."""
        return self.model_copy(update={"diffusion": self.diffusion.model_copy(update={"residual": False})})

    def trained_part(self) -> TrainedDiffusion:
        """Return what decides the weights: all but how patches are brought and how doses are drawn."""
        return TrainedDiffusion.model_validate(self.model_dump(exclude=NOT_TRAINED))
