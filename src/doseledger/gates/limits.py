"""Limits of a cohort's thresholds.yaml as typed blocks, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.limit import meets
from doseledger.core.project.layout import Layout
from doseledger.core.schema import Block, Reason, load_block

THRESHOLDS_FILE = "thresholds.yaml"
# Limits of a model that has none of its own.
DEFAULT = "default"
# Without these, nobody has said what a model must beat: a dose, and a segmentation.
NEEDED = ("template_mae_ratio", "distance_mae_ratio")
NEEDED_OF_SEGMENTATION = ("template_error_ratio", "blank_dice")
Percent = Annotated[float, Field(ge=0, le=100)]
Correlation = Annotated[float, Field(gt=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


class SdfLimits(Block):
    """How many sampled voxels may disagree with the distance that the gate measures itself."""

    max_wrong_percent: Percent
    source: Reason


class BodyLimits(Block):
    """How much of a structure may lie outside the body."""

    target_outside_percent: Percent
    organ_outside_percent: Percent
    source: Reason


class Exclusive(Block):
    """Two structures that can't share tissue: overlap in percent of the smaller one."""

    structures: tuple[str, str]
    max_overlap_percent: Percent
    source: Reason


class Contains(Block):
    """A structure that holds at least `min_percent` of another."""

    outer: str
    inner: str
    min_percent: Percent
    source: Reason


class Order(Block):
    """Two structures whose centres come in this order along an axis: LPS, +x left, +y posterior, +z head."""

    axis: Literal["x", "y", "z"]
    lower: str
    higher: str
    severity: Literal["error", "warning"]
    source: Reason


class DoseUnitLimits(Block):
    """Between which multiples of the highest prescription a maximum dose can be in Gy at all."""

    low_factor: NotNegative
    high_factor: NotNegative
    negative_gy: NotNegative
    source: Reason


class ParityLimits(Block):
    """How far the step from the native dose grid to the case's grid may move a DVH.

    A structure's volume is compared from `min_volume_cc` on: below it a voxel more or less is a large percentage.
    """

    target_d95_gy: NotNegative
    organ_mean_gy: NotNegative
    volume_percent: NotNegative
    min_volume_cc: NotNegative
    source: Reason


class SignLimit(Block):
    """From where on a sign is worth a warning, and from where on it fails the gate."""

    warning: float
    error: float
    source: Reason


class ImageLimits(Block):
    """How well contours must fit the image in place, and how far a slice may be from its neighbours.

    `least_skin_fit` and `least_organ_fit` are shares of the variance of HU near the outlines that inside and outside
    explain; `least_skin_share` and `least_organ_share` are that per the best one moved by up to 12 mm or mirrored.
    `dose_share` is the same of the dose near the outline of the main target: a dose must fit it best in place, or
    cover it there as well as where it fits best. `least_dose_skin_share` is that of the skin per the mirrored dose.
    """

    least_skin_fit: Annotated[float, Field(ge=0, le=1)]
    least_organ_fit: Annotated[float, Field(ge=0, le=1)]
    least_skin_share: NotNegative
    least_organ_share: NotNegative
    dose_share: SignLimit
    least_dose_skin_share: NotNegative
    slice_jump: SignLimit
    most_slice_air_percent: Percent
    most_dose_jump_gy: NotNegative
    source: Reason


class ValidDoseLimits(Block):
    """Where the dose must be defined: in targets, where its grid meets the body, and seldom with a dose of 0."""

    target_outside_percent: Percent
    wrong_percent: Percent
    zero_percent: Percent
    source: Reason


class OutlierLimits(Block):
    """How far a case may be from all others of its cohort, per the middle one's distance, each left out in turn.

    With fewer cases than `least_cases` nobody knows what is far.
    """

    warning_ratio: Annotated[float, Field(ge=1)]
    error_ratio: Annotated[float, Field(ge=1)]
    least_cases: Annotated[int, Field(ge=5)]
    source: Reason


class NearCopyLimits(Block):
    """From which correlation of their fingerprints on two images, or two doses, count as one."""

    ct_correlation: Correlation
    dose_correlation: Correlation
    source: Reason


class OptionalFoundLimits(Block):
    """Of the cases that draw an optional structure, if under another name, how many must have it."""

    min_percent: Percent
    source: Reason


class LeftOutLimits(Block):
    """How many of all patients may be skipped by the protocol, and how many failures accepted, in percent."""

    most_skipped_percent: Percent
    most_accepted_percent: Percent
    source: Reason


class DataLimits(Block):
    """What the data gate holds a cohort to, beside the protocol and the suite of expectations."""

    sdf: SdfLimits
    body: BodyLimits
    exclusive: list[Exclusive]
    contains: list[Contains]
    order: list[Order]
    dose_unit: DoseUnitLimits | None
    valid_dose: ValidDoseLimits | None
    parity: ParityLimits | None
    image: ImageLimits | None
    near_copy: NearCopyLimits
    outliers: OutlierLimits
    optional_found: OptionalFoundLimits
    left_out: LeftOutLimits


class PreflightLimits(Block):
    """What a machine must have, and how far 20 steps on one batch must lower the loss."""

    max_loss_ratio: Annotated[float, Field(gt=0, lt=1)]
    min_free_disk_gb: NotNegative
    min_free_memory_gb: NotNegative
    min_shared_memory_gb: NotNegative
    source: Reason


class EvaluationLimits(Block):
    """How far gamma may be from the reference implementation at the points that are checked."""

    gamma_max_difference: NotNegative
    source: Reason


class MetricLimit(Block):
    """One limit on a number of a model's summary.

    `provisional` is true of a limit that was not measured yet: a model that keeps it has not been shown to be fit.
    """

    metric: str
    operator: Literal["<=", ">="]
    limit: float
    provisional: bool = False
    source: Reason

    def is_met(self, value: float) -> bool:
        """Return whether a number keeps the limit; NaN and infinity keep none."""
        return meets(value, self.operator, self.limit)


class ShortcutLimit(MetricLimit):
    """One limit on how a model answers to a spoiled input, or does beside a trivial one; a warning fails nothing.

    It holds for cohorts of more cases than `above_cases`: of few, a model can't learn what is asked.
    """

    severity: Literal["error", "warning"]
    above_cases: Annotated[int, Field(ge=0)] = 0


class ProbeLimits(Block):
    """From which AUC on a probe that must see nothing has seen too much: a warning, then an error."""

    warn_auc: Annotated[float, Field(ge=0.5, le=1)]
    red_auc: Annotated[float, Field(ge=0.5, le=1)]
    source: Reason


class DriftLimits(Block):
    """From when on a new batch is not of the kind that a model was trained on.

    `alpha` is the rate of false alarms of a whole batch; `psi` and `hu_psi` hold per feature and for the image's
    histogram; a case is far when its distance is `far_ratio` times that of the farthest training case.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    psi: Annotated[float, Field(gt=0)]
    hu_psi: Annotated[float, Field(gt=0)]
    far_ratio: Annotated[float, Field(ge=1)]
    source: Reason


class BadgeLimits(Block):
    """With fewer test cases than this a model that keeps its limits is provisional, and its badge not green."""

    least_test_cases: Annotated[int, Field(ge=1)]
    source: Reason


class TrainingLimits(Block):
    """Red flags of a training, told as it goes and judged at its end; learn/watch/red_flags.py measures them."""

    loss_share: SignLimit
    gap: SignLimit
    rise: SignLimit
    # Of doses; null in a cohort without.
    least_mae_gy: SignLimit | None
    most_gamma_percent: SignLimit | None
    # Of segmentations.
    least_dice_error: SignLimit | None = None


Limits = TypeVar("Limits", bound=MetricLimit)


class Thresholds(Block):
    """All limits of a cohort; those of a model stand under its name, or under `default`."""

    data: DataLimits
    preflight: PreflightLimits
    training: TrainingLimits
    evaluation: EvaluationLimits | None
    metrics: dict[str, list[MetricLimit]]
    candidate: list[MetricLimit]
    shortcuts: dict[str, list[ShortcutLimit]]
    probes: ProbeLimits
    drift: DriftLimits
    badge: BadgeLimits

    def metrics_of(self, model: str) -> list[MetricLimit]:
        """Return the limits of a model's metrics.

        Raises
        ------
        BadInput
            If there are none: a model without limits can't be judged.
        """
        return _of_model(self.metrics, "metrics", model)

    def shortcuts_of(self, model: str, kind: str | None = None) -> list[ShortcutLimit]:
        """Return the limits of a model's shortcuts; without its kind, it is of the kind that they speak of.

        Raises
        ------
        BadInput
            If there are none, or they leave out what a model must beat.
        """
        limits = _of_model(self.shortcuts, "shortcuts", model)
        speak_of_labels = any(limit.metric in NEEDED_OF_SEGMENTATION for limit in limits)
        of_labels = speak_of_labels if kind is None else kind == "segmentation"
        needed, given = NEEDED_OF_SEGMENTATION if of_labels else NEEDED, {limit.metric for limit in limits}
        missing = [name for name in needed if name not in given]
        if missing:
            raise BadInput(
                f"shortcuts of {model} have no limit of {', '.join(missing)}; write into the cohort's thresholds.yaml "
                "by how much the model must beat the trivial ones"
            )
        return limits


def _of_model(limits: Mapping[str, list[Limits]], name: str, model: str) -> list[Limits]:
    found = limits.get(model, limits.get(DEFAULT, []))
    if not found:
        raise BadInput(
            f"no limits under {name}.{model}, nor under {name}.{DEFAULT}, in the cohort's thresholds.yaml; write down "
            "what this model must achieve"
        )
    return found


def load_thresholds(layout: Layout) -> Thresholds:
    """Return the limits of a cohort: each block of its own thresholds.yaml, or of the cohort that it is `like`.

    Raises
    ------
    BadInput
        Naming the key, what was found and what was wanted; a gate without limits judges nothing.
    """
    return load_block(Thresholds, {key: block for key, (block, _) in _blocks(layout).items()}, _file_of(layout))


def borrowed_limits(layout: Layout) -> dict[str, str]:
    """Return {block: cohort} of the limits that stand in the file of a cohort that this one is `like`."""
    own = layout.folders[0].name
    return {key: cohort for key, (_, cohort) in _blocks(layout).items() if cohort != own}


def _file_of(layout: Layout) -> str:
    return str(layout.folders[0] / THRESHOLDS_FILE)


def _blocks(layout: Layout) -> dict[str, tuple[Any, str]]:
    """Each block of limits, and the cohort in whose file it stands."""
    merged: dict[str, tuple[Any, str]] = {}
    for folder in reversed(layout.folders):
        path = folder / THRESHOLDS_FILE
        content = read_yaml(path) if path.is_file() else {}
        if not isinstance(content, dict):
            raise BadInput(f"{path}: wanted a mapping of limits, found {type(content).__name__}")
        merged |= {key: (block, folder.name) for key, block in content.items()}
    return merged
