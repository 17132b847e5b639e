"""The limits of validation/thresholds.yaml as typed blocks; every one says where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.protocol import Block, Reason, load_block

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


class NearCopyLimits(Block):
    """From which correlation of their fingerprints on two images, or two doses, count as one."""

    ct_correlation: Correlation
    dose_correlation: Correlation
    source: Reason


class DataLimits(Block):
    """What the data gate holds a cohort to, beside the protocol and the suite of expectations."""

    sdf: SdfLimits
    body: BodyLimits
    exclusive: list[Exclusive]
    contains: list[Contains]
    order: list[Order]
    dose_unit: DoseUnitLimits | None
    parity: ParityLimits | None
    near_copy: NearCopyLimits


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
    """One limit on a number of a model's summary."""

    metric: str
    operator: Literal["<=", ">="]
    limit: float
    source: Reason


class Thresholds(Block):
    """All of thresholds.yaml: data by cohort, metrics by cohort and model, and what a candidate must reach anywhere."""

    data: dict[str, DataLimits]
    preflight: PreflightLimits
    evaluation: EvaluationLimits
    metrics: dict[str, dict[str, list[MetricLimit]]]
    candidate: list[MetricLimit]


def load_thresholds(path: Path) -> Thresholds:
    """Return thresholds.yaml.

    Raises
    ------
    BadInput
        Naming the key, what was found and what was wanted.
    """
    return load_block(Thresholds, read_yaml(path), str(path))


def data_limits(path: Path, cohort: str) -> DataLimits:
    """Return the limits of a cohort's data.

    Raises
    ------
    BadInput
        If the cohort has none: a gate without limits judges nothing.
    """
    thresholds = load_thresholds(path)
    if cohort not in thresholds.data:
        raise BadInput(f"{path}: no limits under data.{cohort}; there are {', '.join(sorted(thresholds.data))}")
    return thresholds.data[cohort]


def metric_limits(path: Path, cohort: str, model: str) -> list[MetricLimit]:
    """Return the limits of a model's metrics on a cohort.

    Raises
    ------
    BadInput
        If there are none: a model without limits can't be judged.
    """
    limits = load_thresholds(path).metrics.get(cohort, {}).get(model, [])
    if not limits:
        raise BadInput(f"{path}: no limits under metrics.{cohort}.{model}; write down what this model must achieve")
    return limits
