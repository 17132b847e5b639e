"""The settings of a dose model as typed blocks.

Every key stands in params.yaml; none has a default here. A block never holds an `lr`: the base rate is one for all
models at the top of params.yaml, and a block scales it by `lr_factor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from doseledger.core.errors import BadInput
from doseledger.core.project.protocol import PhysicsMap
from doseledger.core.schema import Block
from doseledger.learn.recipes.network import AnyNetwork, CascadeRecipe, NetworkRecipe

FROM_NOTHING = "none"
# How patches are brought and cases predicted decides no weight; what they begin with stands beside a recipe.
NOT_TRAINED = {"loader", "init_from", "predict"}

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
VoxelTriple = tuple[Count, Count, Count]
# Size of a patch, or each case as a whole.
PatchSize = VoxelTriple | Literal["case"]


def patch_text(patch_zyx: PatchSize) -> str:
    """Return a patch's size in words."""
    return "whole cases" if patch_zyx == "case" else f"{list(patch_zyx)} voxels"


class InputRecipe(Block):
    """What the network sees.

    Notes
    -----
    `structures`: signed distances, or plain masks (the ablation). `prescription`: each target's prescribed dose and the
    fractions as numbers (`numbers`), these and a map of the prescribed dose over the targets (`numbers_and_map`), or
    nothing (`none`, the ablation). `place`: where a voxel lies about the targets (along z by their ends, across
    from the centre of the one with the highest prescription), or nothing (`none`); distances to structures say no more
    beyond `sdf_scale_mm`. `physics`: which maps of the protocol's beams are channels, see planning/fields/maps.py. The
    network's output is the dose divided by `dose_scale_gy`.
    """

    structures: Literal["sdf", "mask"]
    sdf_scale_mm: Positive
    prescription: Literal["numbers", "numbers_and_map", "none"]
    place: Literal["targets", "none"]
    physics: list[PhysicsMap]
    dose_scale_gy: Positive

    @property
    def turn_fault(self) -> str:
        """Why a patient with these inputs can't be turned; empty where it can."""
        if self.place != "none":
            return f"inputs.place {self.place} is another after a turn; set place: none, or don't turn"
        return "" if self.physics else "without inputs.physics no beams are known to turn by; name maps, or don't turn"


class CoreDropoutRecipe(Block):
    """How often a patch's CT loses a core: its inside is filled with the median of what lies around it.

    Notes
    -----
    `share` of the patches lose one; in `structure_share` of these it is a structure's inside, in the others a ball
    whose radius is drawn between the two of `radius_mm`. The median is taken within `surround_mm` of the core.
    """

    share: Share
    structure_share: Share
    radius_mm: tuple[Positive, Positive]
    surround_mm: Positive

    @model_validator(mode="after")
    def _radii_rise(self) -> CoreDropoutRecipe:
        if self.radius_mm[0] > self.radius_mm[1]:
            raise ValueError(f"radius_mm falls from {self.radius_mm[0]:g} to {self.radius_mm[1]:g}; the least first")
        return self


class PatchRecipe(Block):
    """How many patches are drawn of the training cases, of which size, and how often they are mirrored.

    Notes
    -----
    `patch_zyx` is a size, or `case`: each case as a whole, cropped to `valid_dose` with a margin and padded to what the
    network halves; in training, validation and prediction. `mirrored_names` pairs the structures that change places
    when x is mirrored.
    """

    patch_zyx: PatchSize
    batch_size: Count
    patches_per_case: Count
    mirror_share: Share
    mirrored_names: dict[str, str]

    @model_validator(mode="after")
    def _pairs_are_pairs(self) -> Self:
        names = [*self.mirrored_names, *self.mirrored_names.values()]
        if len(set(names)) != len(names):
            raise ValueError(f"mirrored_names name a structure twice: {names}")
        return self

    @model_validator(mode="after")
    def _whole_cases_come_alone(self) -> Self:
        if self.patch_zyx == "case" and self.batch_size != 1:
            raise ValueError(
                f"batch_size {self.batch_size} with patch_zyx: case, whose sizes differ; set it to 1, and raise "
                "fit.accumulate as much"
            )
        return self


class SamplingRecipe(PatchRecipe):
    """How patches are drawn of the training cases, and how they are varied.

    Notes
    -----
    `target_share` of the patches are centred in a target, `gradient_share` where the dose is steep, the rest anywhere
    in the body. A patch's prescription and dose are multiplied by one factor drawn within `prescription_jitter` of 1: a
    plan with more monitor units is the plan of so much higher a prescription. `mirror_z_share` of the patches are
    mirrored head to feet, and `turn_share` turned by a multiple of the angle between the protocol's equally spaced
    beams: both leave coplanar beams as they were.
    """

    target_share: Share
    gradient_share: Share
    ct_shift_hu: NotNegative
    prescription_jitter: Annotated[float, Field(ge=0, lt=1)]
    core_dropout: CoreDropoutRecipe
    mirror_z_share: Share
    turn_share: Share

    @model_validator(mode="after")
    def _shares_fit(self) -> SamplingRecipe:
        if self.target_share + self.gradient_share > 1.0:
            raise ValueError(f"target_share + gradient_share is {self.target_share + self.gradient_share:g}, above 1")
        return self


# A loader by one word, for where it runs. `in_process`: small cases, no GPU. `wsl`: few workers and none kept, as WSL
# gives its processes little shared memory. `workstation`: a GPU that must not wait.
NAMED_LOADERS: dict[str, dict[str, Any]] = {
    "in_process": {"workers": 0, "persistent": False},
    "wsl": {"workers": 2, "persistent": False},
    "workstation": {"workers": 8, "persistent": True},
}


class LoaderRecipe(Block):
    """How patches are brought to the network; changes no number. Instead of both keys, a name: `loader: wsl`."""

    workers: CountOrZero
    persistent: bool

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in NAMED_LOADERS:
            raise ValueError(f"no loader of that name; there are {', '.join(NAMED_LOADERS)}, or workers and persistent")
        return NAMED_LOADERS[value]


class LossRecipe(Block):
    """The terms of the loss and their weights; a weight of 0 switches a term off.

    Notes
    -----
    `mask` names where voxels count. `target_weight` multiplies voxels inside any target, `structure_weights` those of
    one structure (the largest that applies holds). `underdose` and `overdose` are extra weights of errors inside the
    targets, below and above the plan. `gradient`, `dvh` and `moment` weigh the terms of these names; the DVH term
    compares `dvh_statistics` ("D95%", "V20Gy", "mean"); the softness says how far around each its gradient reaches.
    """

    mask: Literal["valid_dose", "body"]
    voxel: Literal["l1", "mse"]
    target_weight: Positive
    structure_weights: dict[str, Positive]
    underdose: NotNegative
    overdose: NotNegative
    gradient: NotNegative
    dvh: NotNegative
    dvh_statistics: dict[Literal["target", "organ"], list[str]]
    dvh_soft_percent: Positive
    dvh_soft_gy: Positive
    moment: NotNegative
    moment_orders: list[Positive]


class OptimiserRecipe(Block):
    """Optimiser, gradient clipping and learning-rate schedule.

    Notes
    -----
    `schedule`: `cosine` falls over the whole run to `final_share` of the rate; `plateau` multiplies the rate by
    `plateau_factor` after `plateau_epochs` without a better validation MAE; `constant` does neither. All rise linearly
    over the first `warmup_share` of the steps (not `plateau`). `momentum` is SGD's.
    """

    name: Literal["adam", "adamw", "sgd"]
    weight_decay: NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Positive
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_share: Share
    final_share: Share
    plateau_epochs: Count
    plateau_factor: Annotated[float, Field(gt=0, lt=1)]


class FitRecipe(Block):
    """How long and how precisely is trained; `early_stop_epochs` 0 never stops early."""

    max_epochs: Count
    validate_every: Count
    early_stop_epochs: CountOrZero
    accumulate: Count
    precision: Literal["32-true", "bf16-mixed"]

    @model_validator(mode="after")
    def _is_validated(self) -> FitRecipe:
        if self.validate_every > self.max_epochs:
            raise ValueError(f"validate_every {self.validate_every} is more than max_epochs {self.max_epochs}")
        return self


class PredictRecipe(Block):
    """How whole cases are predicted from windows of the training patch's size; changing it retrains nothing.

    Notes
    -----
    `overlap` is the share of a window that its neighbour covers too; `mirror_average` predicts the mirrored case as
    well and averages the two; `xz` averages over mirroring z too, `beams` over all turns by the angle between beams
    besides. A case whose voxels lie further than `spacing_tolerance` (a share) outside those of
    training is refused: a network counts in voxels, and misjudges mm beyond what it has seen. With `project` the
    nearest dose that the beams can give takes the place of what the network tells, see `ingest.physics.projected`.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)]
    windows_at_once: Count
    mirror_average: bool | Literal["xz", "beams"]
    project: bool
    spacing_tolerance: Annotated[float, Field(ge=0)]

    def quick(self) -> Self:
        """Return the same without projection, and averaged over no more than both sides."""
        return self.model_copy(update={"project": False, "mirror_average": bool(self.mirror_average)})


class TrainedPart(Block):
    """What decides a model in every family: the part of its block that its checkpoint keeps."""

    kind: str
    inputs: Block

    @property
    def physics(self) -> list[PhysicsMap]:
        """Which physics maps are among its inputs; none where it predicts no dose."""
        return self.inputs.physics if isinstance(self.inputs, InputRecipe) else []


class ModelRecipe(TrainedPart, ABC):
    """All that the stages ask of a model's block, whatever its kind."""

    def quick(self) -> Self:
        """Return the same with the quickest way to predict: for answers to many altered inputs."""
        return self

    def bare(self) -> Self:
        """Return the same without what it adds to: a trial of a few steps shows what it learns by itself."""
        return self

    @abstractmethod
    def trained_part(self) -> TrainedPart:
        """Return what decides the model: all but how cases are brought and predicted."""


class CommonTrained(TrainedPart):
    """What decides the weights of a network of any family."""

    lr_factor: Positive
    sampling: PatchRecipe
    network: AnyNetwork
    optimiser: OptimiserRecipe
    fit: FitRecipe

    @model_validator(mode="after")
    def _patch_fits_network(self) -> Self:
        strides, patch_zyx = self.network.total_stride_zyx, self.sampling.patch_zyx
        if patch_zyx == "case":
            return self
        if any(size % stride for size, stride in zip(patch_zyx, strides, strict=True)):
            raise ValueError(
                f"sampling.patch_zyx {list(patch_zyx)} must be multiples of {list(strides)}, which one "
                f"voxel of the coarsest level of network {self.network.name} spans"
            )
        return self


class CommonRecipe(CommonTrained, ModelRecipe):
    """All that the training of a network asks of its block, whatever its family."""

    loader: LoaderRecipe
    # The weights to begin with: a model of these settings, a registered version, or `none`, drawn from the seed.
    init_from: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(@v\d+\.\d+\.\d+)?$")]

    @abstractmethod
    def trained_part(self) -> CommonTrained:
        """Return what decides the weights: all but how patches are brought and how cases are predicted."""


def refuse_idle_base(recipe: ModelRecipe, base: object) -> None:
    """Refuse a base that a model does not begin with.

    Raises
    ------
    BadInput
        Saying where it would have to stand besides.
    """
    if base is not None and isinstance(recipe, CommonRecipe) and recipe.init_from == FROM_NOTHING:
        raise BadInput(
            f"bases names {base} for a model of kind {recipe.kind} whose block has init_from: {FROM_NOTHING}; name it "
            "there too, or take it out of `bases`"
        )


class DoseTrained(CommonTrained):
    """What decides the weights of whatever predicts a dose."""

    inputs: InputRecipe
    sampling: SamplingRecipe
    network: Annotated[NetworkRecipe, Field(discriminator="name")]

    @model_validator(mode="after")
    def _patches_can_be_turned(self) -> Self:
        if self.sampling.turn_share and self.inputs.turn_fault:
            raise ValueError(f"sampling.turn_share {self.sampling.turn_share:g}: {self.inputs.turn_fault}")
        return self


class TrainedRecipe(DoseTrained):
    """What decides a dose network's weights.

    Notes
    -----
    `prior`: what the network adds its output to: nothing (`none`), or the prescribed doses inside the targets and the
    training patients' mean dose elsewhere (`mean_dose`). `mean_dose_left_out` is the same for other patients, but in
    training each case stands on the mean of the others: what it would stand on were it new. `boosted` is the dose that
    the trees tell from which `bases` lets the model start: an input too, and cross-fitted in training.
    """

    kind: Literal["dose"]
    prior: Literal["mean_dose", "mean_dose_left_out", "boosted", "none"]
    loss: LossRecipe

    @model_validator(mode="after")
    def _prior_has_its_inputs(self) -> Self:
        seen = self.inputs
        if "mean" in self.prior and (seen.structures != "sdf" or "none" in (seen.prescription, seen.place)):
            raise ValueError(
                f"prior {self.prior} needs structures sdf, a prescription and a place among the inputs; these are "
                f"{seen.structures}, {seen.prescription} and {seen.place}; set prior: none for such an ablation"
            )
        return self

    @model_validator(mode="after")
    def _loss_lies_in_the_case(self) -> Self:
        if self.sampling.patch_zyx == "case" and self.loss.mask != "valid_dose":
            raise ValueError(f"loss.mask {self.loss.mask} with patch_zyx: case, which is cropped to valid_dose")
        return self

    @property
    def further_weights(self) -> tuple[float, ...]:
        """Weight of the loss of each further dose that the network gives in training."""
        return (self.network.first_weight,) if isinstance(self.network, CascadeRecipe) else ()


class Recipe(TrainedRecipe, CommonRecipe):
    """One dose model: all that params.yaml says of it."""

    predict: PredictRecipe

    @model_validator(mode="after")
    def _predictions_can_be_turned(self) -> Self:
        if self.predict.mirror_average == "beams" and self.inputs.turn_fault:
            raise ValueError(f"predict.mirror_average beams: {self.inputs.turn_fault}")
        return self

    def quick(self) -> Self:
        """Return the same with quick prediction."""
        return self.model_copy(update={"predict": self.predict.quick()})

    def bare(self) -> Self:
        """Return the same without its prior."""
        return self.model_copy(update={"prior": "none"})

    def trained_part(self) -> TrainedRecipe:
        """Return what decides the weights: all but how patches are brought and how cases are predicted."""
        return TrainedRecipe.model_validate(self.model_dump(exclude=NOT_TRAINED))
