"""A stack of labelled images: its label by the core or the border alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doseledger.core.code import code_digest
from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.npz import open_npz
from doseledger.gates.drift.probes import cross_validate, judge_score, score_as_json
from doseledger.gates.limits import ProbeLimits
from doseledger.gates.verdict import Verdict, make_verdict, without_explanations

Floats = NDArray[np.float64]
Region = Literal["core", "border"]
REGIONS: tuple[Region, ...] = ("core", "border")
# The core is the middle half of each axis, the border the outer tenth on each side.
CORE_SHARE = 0.5
BORDER_SHARE = 0.1
# A region is seen as so many cells along each axis: enough for shape and shading, few enough for a linear probe.
CELLS = 8


@dataclass(frozen=True)
class Stack:
    """Labelled images (n, y, x) or (n, z, y, x), a label each, and who belongs together (a patient) where known."""

    images: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any] | None


def read_stack(path: Path) -> Stack:
    """Return a labelled stack of images from an NPZ with `images`, `labels` and, where known, `groups`.

    Raises
    ------
    BadInput
        If the file can't be read, an array is missing or of another length, an image is not finite, or there is no
        second label.
    """
    try:
        with open_npz(path) as npz:
            arrays = {name: npz[name] for name in ("images", "labels", "groups") if name in npz}
    except UNREADABLE as error:
        raise BadInput(f"{path}: can't be read as NPZ ({describe(error)})") from error
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise BadInput(f"{path}: has no {' and no '.join(missing)}; wanted images, labels and, where known, groups")
    stack = Stack(arrays["images"], arrays["labels"], arrays.get("groups"))
    if stack.images.ndim not in (3, 4):
        raise BadInput(f"{path}: images are {stack.images.shape}, wanted (n, y, x) or (n, z, y, x)")
    for name in ("labels", "groups"):
        if name in arrays and arrays[name].shape != (len(stack.images),):
            raise BadInput(f"{path}: {len(stack.images)} images, but {name} are {arrays[name].shape}")
    if not np.isfinite(stack.images).all():
        raise BadInput(f"{path}: an image holds NaN or infinity; mend it")
    return stack


def judge_stack(path: Path, regions: tuple[Region, ...], limits: ProbeLimits, rng: np.random.Generator) -> Verdict:
    """Return whether the labels of a stack of images can be told from a region that must not tell them.

    Parameters
    ----------
    regions
        `core` and `border`, or one of them.
    limits
        From which AUC on to warn and to fail.
    rng
        Deals the folds.

    Raises
    ------
    BadInput
        If the stack can't be read, or is too small to be probed at all.
    """
    stack = read_stack(path)
    scores = {
        region: cross_validate(region_features(stack.images, region), stack.labels, stack.groups, limits, rng)
        for region in regions
    }
    findings = [finding for region in regions for finding in judge_score(f"the {region}", scores[region], limits)]
    labels, counts = np.unique(stack.labels, return_counts=True)
    details = {
        "labels": {str(label): int(count) for label, count in zip(labels, counts, strict=True)},
        "regions": {region: score_as_json(score) for region, score in scores.items()},
        "limits": limits.model_dump(mode="json"),
    }
    digest = sha256_of_json(
        {
            "stack": sha256_of_file(path),
            "regions": list(regions),
            "limits": without_explanations(limits.model_dump(mode="json")),
            "code": code_digest(__name__),
        }
    )
    return make_verdict("stack", digest, findings, details)


def region_features(images: NDArray[Any], region: Region) -> Floats:
    """Return what a probe may see of each image, (n, feature): cells of the region, and its grey values and grain.

    Parameters
    ----------
    images
        (n, y, x) or (n, z, y, x).
    region
        The `core`: the middle half of each axis. The `border`: a slab of a tenth at each end of each axis.
    """
    if region == "core":
        boxes = [tuple(_middle(size) for size in images.shape[1:])]
    else:
        whole = [slice(None)] * (images.ndim - 1)
        boxes = []
        for axis, size in enumerate(images.shape[1:]):
            width = max(1, round(BORDER_SHARE * size))
            for end in (slice(0, width), slice(size - width, size)):
                boxes.append((*whole[:axis], end, *whole[axis + 1 :]))
    return np.hstack([_describe(images[(slice(None), *box)].astype(np.float64)) for box in boxes])


def _middle(size: int) -> slice:
    margin = int(size * (1.0 - CORE_SHARE) / 2.0)
    return slice(margin, size - margin)


def _describe(part: Floats) -> Floats:
    """Return cell means of each image's part, its percentiles, and how grainy it is along each axis."""
    n = len(part)
    cells = part
    for axis in range(1, part.ndim):
        edges = np.unique(np.linspace(0, part.shape[axis], min(CELLS, part.shape[axis]) + 1).astype(int))
        widths = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(part.ndim)])
        cells = np.add.reduceat(cells, edges[:-1], axis=axis) / widths
    flat = part.reshape(n, -1)
    values = np.percentile(flat, (1, 25, 50, 75, 99), axis=1).T
    grain = [
        np.abs(np.diff(part, axis=a)).reshape(n, -1).mean(axis=1) for a in range(1, part.ndim) if part.shape[a] > 1
    ]
    return np.column_stack([cells.reshape(n, -1), values, flat.std(axis=1), *grain])
