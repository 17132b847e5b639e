"""Overlap of two masks: Dice, IoU, surface distances (monai's measures)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from doseledger.core.grid import box_around
from doseledger.core.types import Array, Mask, Triple

# What is measured of each structure, and which of it is better the larger.
MEASURES = ("dice", "iou", "hd95_mm", "surface_dice")
MORE_IS_BETTER = frozenset({"dice", "iou", "surface_dice"})


def measure_overlap(found: Mask, wanted: Mask, spacing_mm: Triple, tolerance_mm: float) -> dict[str, float]:
    """Return how well a mask fits the one that is wanted, by measure.

    Parameters
    ----------
    found, wanted
        bool (z, y, x) on one grid.
    tolerance_mm
        Up to which distance a surface counts as found.

    Returns
    -------
    dict
        `dice` and `iou`, 0 to 1; `hd95_mm`, the 95 % Hausdorff distance, the larger of both ways; `surface_dice`, the
        share of both surfaces within the tolerance. Where neither mask has a voxel there is nothing to measure, and all
        are NaN. Where one alone has none, the overlaps are 0 and the distance is the grid's diagonal: a structure that
        was missed, or made up, never drops out of a mean.

    Notes
    -----
    Surface Dice: Nikolov et al. 2021 (J Med Internet Res 23:e26151). monai counts surfaces by voxels.

    Examples
    --------
    >>> cube = np.zeros((8, 8, 8), dtype=bool)
    >>> cube[2:6, 2:6, 2:6] = True
    >>> round(measure_overlap(np.roll(cube, 1, axis=0), cube, (1.0, 1.0, 1.0), 1.0)["dice"], 2)
    0.75
    """
    both_empty, one_empty = not (found.any() or wanted.any()), not (found.any() and wanted.any())
    if both_empty:
        return dict.fromkeys(MEASURES, math.nan)
    if one_empty:
        diagonal_mm = float(np.linalg.norm(np.multiply(wanted.shape, spacing_mm)))
        return {"dice": 0.0, "iou": 0.0, "hd95_mm": diagonal_mm, "surface_dice": 0.0}
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice

    # Distances don't look beyond both masks: a whole scan would cost a hundred times the time.
    box = box_around(found | wanted, (2, 2, 2))
    ours, theirs = (torch.from_numpy(np.pad(mask[box], 1)).to(torch.float32)[None, None] for mask in (found, wanted))
    surfaces = {"include_background": True, "spacing": list(spacing_mm)}
    with warnings.catch_warnings():
        # monai calls a function of its own by an argument that it gives up.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        values = {
            "dice": compute_dice(ours, theirs, include_background=True),
            "iou": compute_iou(ours, theirs, include_background=True),
            "hd95_mm": compute_hausdorff_distance(ours, theirs, percentile=95, **surfaces),
            "surface_dice": compute_surface_dice(ours, theirs, class_thresholds=[tolerance_mm], **surfaces),
        }
    return {name: float(value) for name, value in values.items()}


def measure_of(column: str) -> str | None:
    """Return which measure a column of cases.csv holds; None where it holds none.

    Examples
    --------
    >>> measure_of("hd95_mm_Rectum"), measure_of("dice"), measure_of("case_id")
    ('hd95_mm', 'dice', None)
    """
    return next((name for name in MEASURES if column == name or column.startswith(f"{name}_")), None)


def mean_overlap(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over structures, without those that there is nothing to measure of."""
    means = {}
    for name in MEASURES:
        known = [row[name] for row in rows if not math.isnan(row[name])]
        means[name] = sum(known) / len(known) if known else math.nan
    return means


def masks_of(labels: Array, n_structures: int) -> list[Mask]:
    """Return the mask of each structure of a label map, whose first has label 1."""
    return [np.asarray(labels == value) for value in range(1, n_structures + 1)]
