"""A segmentation recipe proposed from training cases and a machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import IntTriple, Triple
from doseledger.learn.recipes.budget import Budget
from doseledger.learn.recipes.segmentation import AXES

# Isensee et al. 2021 (Nat Methods 18:203), supplement: an axis of voxels so many times longer is a stack of slices;
# the coarsest level keeps 4 voxels an axis; two patches a batch, which holds at most a twentieth of all voxels.
LONG_VOXELS = 3.0
LONG_PERCENTILE = 10.0
LEAST_EDGE = 4
LEAST_BATCH = 2
MOST_OF_COHORT = 0.05
# An axis is halved once its voxels are not this many times the shortest ones.
HALVED_WITHIN = 2.0
# Patches start from a cube of so many voxels, in mm, cut to the median image.
FIRST_VOXELS = 256.0**3
MOST_SUPERVISED = 3
# A DynUNet has three levels at least.
LEAST_STEPS = 2
# So many times a patch is cut before it is given up.
MOST_STEPS = 500


@dataclass(frozen=True)
class Fingerprint:
    """What a cohort's training cases are like.

    Parameters
    ----------
    shapes_zyx, spacings_mm
        Voxels of each case and their spacing (z, y, x), as the network is given them.
    native_spacings_mm
        Spacing of each case's image before ingest.
    structure_names
        Structures that can be learned together: no two share a voxel.
    left_out
        The others, each with its reason.
    window
        What of the stored values structures have, from the 0.5th to the 99.5th percentile.
    """

    shapes_zyx: list[IntTriple]
    spacings_mm: list[Triple]
    native_spacings_mm: list[Triple]
    structure_names: tuple[str, ...]
    left_out: dict[str, str]
    window: tuple[float, float]


@dataclass(frozen=True)
class Suggestion:
    """What of a recipe hangs on the cohort, and why.

    Parameters
    ----------
    spacing_mm
        Voxels that the protocol should ask for, (z, y, x).
    patch_zyx, batch_size
        What a step sees.
    filters, supervised, late_zyx, halvings_zyx
        The network's levels, as `DeepUNetRecipe` has them.
    activation_gb
        What its activations take, about.
    """

    spacing_mm: Triple
    patch_zyx: IntTriple
    batch_size: int
    filters: list[int]
    supervised: int
    late_zyx: IntTriple
    halvings_zyx: IntTriple
    activation_gb: float
    reasons: list[str]


def choose_spacing(spacings_mm: list[Triple]) -> Triple:
    """Return the voxels (z, y, x) in mm that images should be brought to: the median, of long voxels a finer one.

    Notes
    -----
    An axis whose median voxel is more than three times the longest of the other two takes the 10th percentile of the
    cohort, but nothing shorter than these: else the images with the thickest slices decide for all.

    Examples
    --------
    >>> choose_spacing([(3.0, 1.0, 1.0), (5.0, 1.0, 1.0), (7.0, 1.0, 1.0)])
    (3.4, 1.0, 1.0)
    """
    values = np.asarray(spacings_mm, dtype=np.float64)
    median = np.median(values, axis=0)
    long = int(median.argmax())
    others = float(np.delete(median, long).max())
    if median[long] > LONG_VOXELS * others:
        median[long] = max(float(np.percentile(values[:, long], LONG_PERCENTILE)), others)
    z, y, x = (round(float(value), 4) for value in median)
    return z, y, x


def suggest(found: Fingerprint, budget: Budget) -> Suggestion:
    """Return patch, depth and batch for a cohort on a machine.

    Notes
    -----
    Isensee et al. 2021: the patch is the median image, or as near to a cube in mm as memory allows; an axis is halved
    until 4 voxels are left, those of long voxels later; what is too large loses voxels along the axis that holds most
    of the median image.

    Raises
    ------
    BadInput
        If not even the least patch fits.
    """
    spacing_mm = _median(found.spacings_mm)
    median_zyx = [max(1, round(n)) for n in np.median(np.asarray(found.shapes_zyx), axis=0)]
    patch = _first_patch(median_zyx, spacing_mm)
    late, halvings, patch = _depth(patch, spacing_mm)
    n_classes = 1 + len(found.structure_names)

    def gigabytes() -> float:
        return LEAST_BATCH * activation_gb(patch, late, halvings, budget, n_classes)

    for _ in range(MOST_STEPS):
        if gigabytes() <= budget.activation_gb:
            break
        room = [size - 2**n for size, n in zip(patch, halvings, strict=True)]
        shares = [size / whole if more > 0 else 0.0 for size, whole, more in zip(patch, median_zyx, room, strict=True)]
        axis = int(np.argmax(shares))
        patch[axis] -= 2 ** halvings[axis]
        late, halvings, patch = _depth(patch, spacing_mm)
    else:
        raise BadInput(
            f"two patches of {_by(patch)} voxels take {gigabytes():.2f} GB, {budget.activation_gb:.2f} GB are there; "
            "segment slices (`slices`), or take a larger machine"
        )
    filters = _filters(late, halvings, budget)
    batch_size = _batch(found, budget, prod(patch), gigabytes() / LEAST_BATCH)
    network = {"late_zyx": late, "halvings_zyx": halvings, "filters": filters}
    return Suggestion(
        spacing_mm=choose_spacing(found.native_spacings_mm),
        patch_zyx=_triple(patch),
        batch_size=batch_size,
        filters=filters,
        supervised=max(1, min(MOST_SUPERVISED, len(filters) - 2)),
        late_zyx=_triple(late),
        halvings_zyx=_triple(halvings),
        activation_gb=batch_size * gigabytes() / LEAST_BATCH,
        reasons=_reasons(found, budget, median_zyx, spacing_mm, {"patch": patch, "batch": batch_size, **network}),
    )


def activation_gb(
    patch_zyx: list[int], late_zyx: list[int], halvings_zyx: list[int], budget: Budget, n_classes: int
) -> float:
    """Return what training on one patch keeps of a DynUNet for its gradients, in GB, about.

    Notes
    -----
    Measured with torch's hooks on saved tensors: 10.5 to 11 numbers a voxel and filter of each level, and some 9 a
    voxel and class at the finest.
    """
    filters = _filters(late_zyx, halvings_zyx, budget)
    sizes = list(patch_zyx)
    numbers = 9.0 * prod(sizes) * n_classes
    for level, width in enumerate(filters):
        numbers += 11.0 * prod(sizes) * width
        for axis in range(3):
            if late_zyx[axis] <= level < late_zyx[axis] + halvings_zyx[axis]:
                sizes[axis] //= 2
    return numbers * budget.bytes_a_number / 1e9


def _median(spacings_mm: list[Triple]) -> Triple:
    z, y, x = (float(value) for value in np.median(np.asarray(spacings_mm), axis=0))
    return z, y, x


def _triple(values: list[int]) -> IntTriple:
    z, y, x = values
    return z, y, x


def _first_patch(median_zyx: list[int], spacing_mm: Triple) -> list[int]:
    """The largest box that is a cube in mm, cut to the median image."""
    voxels = [1.0 / step for step in spacing_mm]
    edge = (FIRST_VOXELS / prod(voxels)) ** (1 / 3)
    return [max(1, min(round(n * edge), most)) for n, most in zip(voxels, median_zyx, strict=True)]


def _depth(patch: list[int], spacing_mm: Triple) -> tuple[list[int], list[int], list[int]]:
    """How late and how often each axis is halved, and the patch made a multiple of that."""
    late, halvings = _halvings(patch, spacing_mm)
    if max(a + n for a, n in zip(late, halvings, strict=True)) < LEAST_STEPS:
        # Too small for three levels: widen it, the network is given what lies beside the image.
        short = [step / min(spacing_mm) < HALVED_WITHIN for step in spacing_mm]
        least = 4 * LEAST_EDGE if sum(short) > 1 else 8 * LEAST_EDGE
        patch = [max(size, least) if is_short else size for size, is_short in zip(patch, short, strict=True)]
        late, halvings = _halvings(patch, spacing_mm)
    return late, halvings, [ceil(size / 2**n) * 2**n for size, n in zip(patch, halvings, strict=True)]


def _halvings(patch: list[int], spacing_mm: Triple) -> tuple[list[int], list[int]]:
    sizes, steps_mm = list(patch), list(spacing_mm)
    late, halvings, level = [0, 0, 0], [0, 0, 0], 0
    while True:
        halved = _halved(sizes, steps_mm)
        level += 1
        for axis in range(3):
            # What is not halved yet, as its voxels are long, is not convolved along either.
            if not halvings[axis] and axis not in halved and steps_mm[axis] / min(steps_mm) >= HALVED_WITHIN:
                late[axis] = level
        if not halved:
            return late, halvings
        for axis in halved:
            halvings[axis] += 1
            sizes[axis] = ceil(sizes[axis] / 2)
            steps_mm[axis] *= 2.0


def _halved(sizes: list[int], steps_mm: list[float]) -> list[int]:
    """Axes that the next step halves: long enough, of voxels about as short as the shortest."""
    large = [axis for axis in range(3) if sizes[axis] >= 2 * LEAST_EDGE]
    halved = [axis for axis in large if steps_mm[axis] / min(steps_mm[other] for other in large) < HALVED_WITHIN]
    if len(halved) == 1 and sizes[halved[0]] < 3 * LEAST_EDGE:
        return []
    return halved


def _filters(late: list[int], halvings: list[int], budget: Budget) -> list[int]:
    n_levels = 1 + max(a + n for a, n in zip(late, halvings, strict=True) if n)
    return [min(budget.first_filters * 2**level, budget.most_filters) for level in range(n_levels)]


def _batch(found: Fingerprint, budget: Budget, patch_voxels: int, patch_gb: float) -> int:
    voxels = sum(prod(shape) for shape in found.shapes_zyx)
    return max(LEAST_BATCH, min(int(budget.activation_gb / patch_gb), int(MOST_OF_COHORT * voxels / patch_voxels)))


def _reasons(
    found: Fingerprint, budget: Budget, median_zyx: list[int], spacing_mm: Triple, chosen: dict[str, Any]
) -> list[str]:
    """Why the numbers are what they are, a sentence each."""
    patch, late, halvings = chosen["patch"], chosen["late_zyx"], chosen["halvings_zyx"]
    n = len(found.shapes_zyx)
    share = 100.0 * min(1.0, prod(min(a, b) / b for a, b in zip(patch, median_zyx, strict=True)))
    lines = [
        f"{n} training cases: {_by(median_zyx)} voxels of {_by(spacing_mm)} mm (z, y, x) in the median",
        f"patch {_by(patch)}: {share:.0f} % of the median case, on {budget.why}",
        f"batch {chosen['batch']}: {LEAST_BATCH} at least, what fits, and a twentieth of all voxels at most",
        f"{len(chosen['filters'])} levels: z, y, x halved {_by(halvings)} times, until {LEAST_EDGE} voxels are left",
    ]
    long = [axis for axis, steps in zip(AXES, late, strict=True) if steps]
    if long:
        lines.append(f"voxels are long along {', '.join(long)}: not halved, nor convolved along, at first")
    if not all(halvings):
        flat = ", ".join(axis for axis, n in zip(AXES, halvings, strict=True) if not n)
        lines.append(
            f"too few voxels along {flat} to halve: a network on slices (`slices`) may do as well, and cost less"
        )
    native = found.native_spacings_mm
    spread = np.ptp(np.asarray(native), axis=0) > 0.01 * np.asarray(_median(native))
    wanted = choose_spacing(native)
    if spread.any() or not np.allclose(wanted, spacing_mm, rtol=0.01):
        lines.append(
            f"images come with {_by(_median(native))} mm in the median: with spacing_mm {_by(wanted)} in protocol.yaml "
            "they would keep that; ingest then, and ask again"
        )
    lines += [f"{name} is left out: {why}" for name, why in found.left_out.items()]
    return lines


def _by(values: Any) -> str:
    return " × ".join(f"{value:g}" for value in values)
