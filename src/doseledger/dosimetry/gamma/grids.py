"""Pairs of dose grids, checked and posed as a gamma problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Floats, Integers, IntTriple, Mask
from doseledger.dosimetry.gamma.kernels import Problem

if TYPE_CHECKING:
    from doseledger.dosimetry.gamma.criteria import GammaCriteria

Axes = Sequence[Array]

# How far, in voxels, an axis may stray from even spacing: coordinates in DICOM are decimal strings.
AXIS_TOLERANCE = 1e-4

# How far, in voxels, reference points may lie from where whole strides put them on the evaluation grid: gamma then errs
# by less than this times the dose difference between neighbours over the criterion.
COMMENSURATE_TOLERANCE = 1e-11


@dataclass(frozen=True, eq=False)
class DosePair:
    """What gamma compares: two doses, each on its grid, and the points that are asked.

    Parameters
    ----------
    axes_reference_mm, axes_evaluation_mm
        One to three ascending, evenly spaced axes in mm each.
    reference_gy, evaluation_gy
        Doses in Gy on those axes, float32 or float64.
    mask
        Bool, shape of the reference: gamma is computed inside it only. The normalisation stays the whole grid's.

    Notes
    -----
    Checked when it is posed as a problem, not when it is made: the criteria are part of what must fit.
    """

    axes_reference_mm: Axes
    reference_gy: Array
    axes_evaluation_mm: Axes
    evaluation_gy: Array
    mask: Mask | None = None

    @classmethod
    def on_one_grid(
        cls,
        reference_gy: Array,
        evaluation_gy: Array,
        spacing_mm_zyx: Sequence[float],
        mask: Mask | None = None,
    ) -> DosePair:
        """The pair of two doses on one grid, (z, y, x) or fewer axes, with the spacing in mm along them.

        Raises
        ------
        BadInput
            If shapes and spacing disagree or a spacing is not above zero.
        """
        shape = np.shape(reference_gy)
        if shape != np.shape(evaluation_gy) or len(spacing_mm_zyx) != len(shape):
            raise BadInput(
                f"gamma: reference {shape}, evaluation {np.shape(evaluation_gy)} and spacing {tuple(spacing_mm_zyx)} "
                "mm do not describe one grid; give both doses on one grid, with a spacing per axis."
            )
        if not all(0 < step < np.inf for step in spacing_mm_zyx):
            raise BadInput(f"gamma: the spacing is {tuple(spacing_mm_zyx)} mm; each must be above 0.")
        axes_mm = [step * np.arange(size) for step, size in zip(spacing_mm_zyx, shape, strict=True)]
        return cls(axes_mm, reference_gy, axes_mm, evaluation_gy, mask)


def pose_problem(pair: DosePair, criteria: GammaCriteria) -> Problem:
    """The checked problem, padded to three axes.

    Raises
    ------
    BadInput
        As `doseledger.dosimetry.gamma.map.gamma_map`.
    """
    reference_mm = _checked_axes("reference", pair.axes_reference_mm, pair.reference_gy)
    evaluation_mm = _checked_axes("evaluation", pair.axes_evaluation_mm, pair.evaluation_gy)
    _check_finite("reference", pair.reference_gy)
    _check_finite("evaluation", pair.evaluation_gy)
    if len(reference_mm) != len(evaluation_mm):
        raise BadInput(
            f"gamma: the reference has {len(reference_mm)} axes, the evaluation {len(evaluation_mm)}; "
            "both must have the same number. Compare planes with planes and volumes with volumes."
        )
    outside = any(
        axis[0] < other[0] or axis[-1] > other[-1] for axis, other in zip(reference_mm, evaluation_mm, strict=True)
    )
    if outside and np.isinf(criteria.max_gamma):
        raise BadInput(
            "gamma: the reference grid reaches beyond the evaluation grid and max_gamma is infinite, so the search of "
            "points outside would not end; give a finite max_gamma, or crop the reference."
        )
    missing = 3 - len(reference_mm)
    reference_mm = [np.zeros(1)] * missing + reference_mm
    evaluation_mm = [np.zeros(1)] * missing + evaluation_mm
    norm_gy = normalisation_gy(float(np.max(pair.reference_gy)), criteria)
    return Problem(
        reference=_flat(pair.reference_gy),
        evaluation=_flat(pair.evaluation_gy),
        axis0_mm=reference_mm[0],
        axis1_mm=reference_mm[1],
        axis2_mm=reference_mm[2],
        reference_shape=(len(reference_mm[0]), len(reference_mm[1]), len(reference_mm[2])),
        evaluation_shape=(len(evaluation_mm[0]), len(evaluation_mm[1]), len(evaluation_mm[2])),
        start_mm=(float(evaluation_mm[0][0]), float(evaluation_mm[1][0]), float(evaluation_mm[2][0])),
        stop_mm=(float(evaluation_mm[0][-1]), float(evaluation_mm[1][-1]), float(evaluation_mm[2][-1])),
        spacing_mm=(_spacing_mm(evaluation_mm[0]), _spacing_mm(evaluation_mm[1]), _spacing_mm(evaluation_mm[2])),
        stride=_strides(reference_mm, evaluation_mm),
        threshold_gy=0.0 if criteria.local else criteria.gamma_percent / 100 * norm_gy,
        local_fraction=criteria.gamma_percent / 100,
        cutoff_gy=criteria.cutoff_percent / 100 * norm_gy,
    )


def normalisation_gy(highest_gy: float, criteria: GammaCriteria) -> float:
    """The dose in Gy that stands for 100 %, where the reference's maximum is `highest_gy`.

    Raises
    ------
    BadInput
        If the reference's maximum is asked for and is not above zero.
    """
    if criteria.normalisation_gy is not None:
        return criteria.normalisation_gy
    if not highest_gy > 0:
        raise BadInput(
            f"gamma: the highest reference dose is {highest_gy} Gy; it must be above 0 to normalise by. "
            "Check that the reference is the dose, or give normalisation_gy."
        )
    return highest_gy


def counted_points(pair: DosePair, criteria: GammaCriteria) -> Integers:
    """Flat indices of the reference points at or above the cutoff and inside the mask.

    Raises
    ------
    BadInput
        If the mask is not bool or has another shape.
    """
    reference = pair.reference_gy
    cutoff_gy = np.float64(criteria.cutoff_percent / 100 * normalisation_gy(float(np.max(reference)), criteria))
    # The least number of the dose's own type that is not below the cutoff: the same points, with no dose converted.
    limit_gy = reference.dtype.type(cutoff_gy)
    counted = reference >= (limit_gy if limit_gy >= cutoff_gy else np.nextafter(limit_gy, reference.dtype.type(np.inf)))
    if pair.mask is not None:
        counted.reshape(-1)[:] &= flat_mask(pair)
    return np.flatnonzero(counted)


def flat_mask(pair: DosePair) -> Mask:
    """The mask in C order, flat; of no length where there is none.

    Raises
    ------
    BadInput
        If the mask is not bool or has another shape than the reference.
    """
    mask = pair.mask
    if mask is None:
        return np.empty(0, dtype=np.bool_)
    if mask.dtype != np.bool_ or mask.shape != pair.reference_gy.shape:
        raise BadInput(
            f"gamma: the mask is {mask.dtype} of shape {mask.shape}; "
            f"it must be bool of the reference's shape {pair.reference_gy.shape}."
        )
    return np.ascontiguousarray(mask).reshape(-1)


def distance_to_evaluation_mm(problem: Problem, points: Integers) -> Floats | None:
    """Distance in mm from each reference point to the box of the evaluation grid, 0 inside; None if all are inside."""
    beyond_mm = [
        np.maximum(np.maximum(start - axis_mm, axis_mm - stop), 0.0)
        for axis_mm, start, stop in zip(problem.axes_mm, problem.start_mm, problem.stop_mm, strict=True)
    ]
    if not any(np.any(beyond) for beyond in beyond_mm):
        return None
    index = np.unravel_index(points, problem.reference_shape)
    return np.sqrt(sum((beyond_mm[axis][index[axis]] ** 2 for axis in range(3)), np.zeros(len(points))))


def farthest_mm(problem: Problem) -> float:
    """Upper bound in mm of the distance from a reference point to a point of the evaluation grid."""
    spans = [
        max(stop - axis_mm[0], axis_mm[-1] - start)
        for axis_mm, start, stop in zip(problem.axes_mm, problem.start_mm, problem.stop_mm, strict=True)
    ]
    return float(np.sqrt(np.sum(np.square(spans))))


def shift_voxels(problem: Problem) -> Floats:
    """(3,) position of the reference grid's first point on the evaluation grid, in evaluation voxels."""
    first_mm = np.array([axis_mm[0] for axis_mm in problem.axes_mm])
    return np.asarray((first_mm - np.array(problem.start_mm)) / np.array(problem.spacing_mm))


def shared_voxel(problem: Problem) -> IntTriple | None:
    """The evaluation voxel at which the reference grid begins; None where the grids do not share their voxels."""
    shift = shift_voxels(problem)
    if min(problem.stride) < 1 or not np.array_equal(np.rint(shift), shift):
        return None
    return int(shift[0]), int(shift[1]), int(shift[2])


def _checked_axes(name: str, axes: Axes, dose: Array) -> list[Floats]:
    """The axes as float64, after checking them, and that the dose is of their shape and in float."""
    shape = tuple(len(axis) for axis in axes)
    if not 1 <= len(shape) <= 3 or shape != np.shape(dose):
        raise BadInput(
            f"gamma: the {name} dose has shape {np.shape(dose)} and its axes {shape} positions; they must agree, "
            "with one to three axes."
        )
    if dose.dtype not in (np.float32, np.float64):
        raise BadInput(f"gamma: the {name} dose is {dose.dtype}; give float32 or float64 in Gy.")
    return [_checked_axis(f"axis {number} of the {name} grid", axis) for number, axis in enumerate(axes)]


def _check_finite(name: str, dose: Array) -> None:
    """Do nothing if all of a dose is finite."""
    # The sum is not finite if any voxel is not, and is quicker than a test of each; that of huge numbers may be so too.
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(dose)
    n_bad = 0 if np.isfinite(total) else np.count_nonzero(~np.isfinite(dose))
    if n_bad:
        raise BadInput(f"gamma: the {name} dose has {n_bad} voxels that are NaN or infinite; mend or crop them first.")


def _checked_axis(name: str, axis: Array) -> Floats:
    """The axis as float64, after checking that it ascends evenly."""
    axis_mm = np.ascontiguousarray(axis, dtype=np.float64)
    if len(axis_mm) < 2:
        raise BadInput(f"gamma: {name} has one position; two or more are needed. Drop the axis from grid and dose.")
    step_mm = np.diff(axis_mm)
    if not np.all(step_mm > 0):
        raise BadInput(f"gamma: {name} does not ascend; flip the axis and the dose along it.")
    spacing_mm = _spacing_mm(axis_mm)
    stray = np.max(np.abs(axis_mm - (axis_mm[0] + spacing_mm * np.arange(len(axis_mm))))) / spacing_mm
    if not stray <= AXIS_TOLERANCE:
        raise BadInput(
            f"gamma: {name} is uneven, its positions stray by {stray:.2g} voxels from even spacing; resample the dose "
            "to an even grid first."
        )
    return axis_mm


def _flat(dose: Array) -> Array:
    """The dose in C order, flat; copied only where it is not so already."""
    return np.ascontiguousarray(dose).reshape(-1)


def _strides(reference_mm: list[Floats], evaluation_mm: list[Floats]) -> IntTriple:
    """Reference spacing in evaluation voxels where that is a whole number on every axis, else zeros."""
    strides = [
        1 if np.array_equal(axis_mm, other_mm) else whole_stride(axis_mm, _spacing_mm(other_mm))
        for axis_mm, other_mm in zip(reference_mm, evaluation_mm, strict=True)
    ]
    return (strides[0], strides[1], strides[2]) if min(strides) > 0 else (0, 0, 0)


def whole_stride(axis_mm: Floats, spacing_mm: float) -> int:
    """The step of an axis in evaluation voxels of a spacing, where that is a whole number, else 0."""
    position = (axis_mm - axis_mm[0]) / spacing_mm
    stride = round(position[1])
    drift = np.max(np.abs(position - stride * np.arange(len(axis_mm))))
    return stride if drift <= COMMENSURATE_TOLERANCE else 0


def _spacing_mm(axis_mm: Floats) -> float:
    """Spacing of an even axis; 1 for a missing one."""
    return float(axis_mm[-1] - axis_mm[0]) / (len(axis_mm) - 1) if len(axis_mm) > 1 else 1.0
