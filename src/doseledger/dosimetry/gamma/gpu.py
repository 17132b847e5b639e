"""Gamma on a GPU in PyTorch: the samples of `gamma_map`, shell by shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from doseledger.core.errors import NotReady
from doseledger.core.types import Floats, Integers, IntTriple
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair, farthest_mm, pose_problem
from doseledger.dosimetry.gamma.kernels import UNREACHED, Problem, flat_steps
from doseledger.dosimetry.gamma.map import open_map
from doseledger.dosimetry.gamma.points import fill_points
from doseledger.dosimetry.gamma.samples import sample_blocks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Bounds the device's memory: so many samples (one point, one offset) are looked up at once, at about 250 bytes each.
PAIRS_AT_ONCE = 2_000_000


def torch_map(pair: DosePair, criteria: GammaCriteria, *, device: str | None = None, single: bool = False) -> Floats:
    """Gamma of each reference point, as `gamma_map` gives it, computed by PyTorch.

    Parameters
    ----------
    pair, criteria
        As `gamma_map`.
    device
        PyTorch's name of a device; None for the GPU.
    single
        Doses in float32 in place of float64: gamma within 1e-4, so that a point that close to 1 may change sides.

    Raises
    ------
    NotReady
        If no device is named and there is no GPU.
    BadInput
        As `gamma_map`.

    Notes
    -----
    Positions are float64 either way: whether a sample lies on the grid or just beside it can change gamma by 1e-3.
    """
    import torch

    if device is None:
        if not torch.cuda.is_available():
            raise NotReady(
                "gamma: PyTorch finds no GPU here; use the engine `sampled`, which gives the same map on the CPU."
            )
        device = "cuda"
    problem = pose_problem(pair, criteria)
    gamma, points, squared = open_map(pair, problem, criteria, finished=-1.0, reach_mm=0.0)
    with torch.inference_mode():
        dtype = torch.float32 if single else torch.float64

        def there(array: Floats, kind: torch.dtype) -> Tensor:
            # A tensor may not share memory that NumPy says is not to be written.
            return torch.as_tensor(array if array.flags.writeable else array.copy(), device=device, dtype=kind)

        axes_mm = tuple(there(axis_mm, torch.float64) for axis_mm in problem.axes_mm)
        volume = _Volume(there(problem.reference, dtype), there(problem.evaluation, dtype), axes_mm)
        # What stands for "unreached" is more than a float32 holds.
        start = np.where(squared >= UNREACHED / 2, np.inf, squared)
        best = torch.as_tensor(start, device=device, dtype=dtype)
        _search(torch.as_tensor(points, device=device), best, volume, problem, criteria)
        found = best.double().cpu().numpy()
    squared = np.where(np.isinf(found), UNREACHED, found)
    fill_points(gamma.reshape(-1), points, squared, criteria.max_gamma)
    return gamma


class _Volume(NamedTuple):
    """The two doses, flat, and the axes of the reference, on a device."""

    reference: Tensor
    evaluation: Tensor
    axes_mm: tuple[Tensor, ...]


def _search(points: Tensor, best: Tensor, volume: _Volume, problem: Problem, criteria: GammaCriteria) -> None:
    """Lower `best`, the γ² of each point, by all samples out to `max_gamma`; in place."""
    import torch

    for offsets_mm, distance_squared in _shells(problem, criteria):
        # Nothing at this distance or beyond can lower what is already smaller than the distance alone.
        todo = torch.nonzero(best > distance_squared).reshape(-1)
        if len(todo) == 0:
            return
        offsets = torch.as_tensor(offsets_mm, device=best.device)
        n_points = max(1, PAIRS_AT_ONCE // offsets.shape[1])
        for first in range(0, len(todo), n_points):
            part = todo[first : first + n_points]
            least = _least_difference_squared(points[part], offsets, volume, problem)
            best[part] = torch.minimum(best[part], least + distance_squared)


def _shells(problem: Problem, criteria: GammaCriteria) -> Iterator[tuple[Floats, float]]:
    """Offsets in mm (3, n) and (d / gamma_mm)², one shell or part of a large shell after the other."""
    reach_mm = min(criteria.gamma_mm * criteria.max_gamma, farthest_mm(problem))
    ndim = int(np.count_nonzero(np.array(problem.evaluation_shape) > 1))
    for block in sample_blocks(criteria.gamma_mm, criteria.interp_fraction, reach_mm, ndim):
        ends: Integers = np.append(np.flatnonzero(np.diff(block.shell)) + 1, len(block.shell))
        start = 0
        for end in ends:
            for first in range(start, int(end), PAIRS_AT_ONCE):
                piece = slice(first, min(first + PAIRS_AT_ONCE, int(end)))
                yield np.ascontiguousarray(block.offsets_mm[:, piece]), float(block.distance_squared[start])
            start = int(end)


def _least_difference_squared(points: Tensor, offsets_mm: Tensor, volume: _Volume, problem: Problem) -> Tensor:
    """(n_points,) the least (Δdose / criterion)² over one shell; infinite where no sample lies on the grid."""
    import torch

    dtype = volume.evaluation.dtype
    shape, steps = problem.reference_shape, flat_steps(problem.evaluation_shape)
    row = points // shape[2]
    index = (row // shape[1], row % shape[1], points % shape[2])
    inside = torch.ones((len(points), offsets_mm.shape[1]), dtype=torch.bool, device=points.device)
    corner = torch.zeros_like(inside, dtype=torch.int64)
    fractions = []
    for axis in range(3):
        x_mm = volume.axes_mm[axis][index[axis]][:, None] + offsets_mm[axis][None, :]
        inside &= (x_mm >= problem.start_mm[axis]) & (x_mm <= problem.stop_mm[axis])
        position = (x_mm - problem.start_mm[axis]) / problem.spacing_mm[axis]
        cell = position.floor().clamp(0, max(problem.evaluation_shape[axis] - 2, 0))
        corner += cell.to(torch.int64) * steps[axis]
        fractions.append((position - cell).to(dtype))
    dose = volume.reference[points][:, None]
    criterion = problem.threshold_gy if problem.threshold_gy > 0 else problem.local_fraction * dose.abs()
    difference = (_trilinear(volume.evaluation, corner, steps, fractions) - dose) / criterion
    return torch.where(inside, difference * difference, torch.inf).amin(dim=1)


def _trilinear(evaluation: Tensor, corner: Tensor, steps: IntTriple, fractions: list[Tensor]) -> Tensor:
    """Dose at fractions of the cells at `corner`, all (n_points, n_samples)."""

    def line(first: int) -> Tensor:
        near = evaluation[corner + first]
        return near + (evaluation[corner + (first + steps[2])] - near) * fractions[2]

    def plane(first: int) -> Tensor:
        near = line(first)
        return near + (line(first + steps[1]) - near) * fractions[1]

    near = plane(0)
    return near + (plane(steps[0]) - near) * fractions[0]
