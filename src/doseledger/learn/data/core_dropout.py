"""Core drop-out: a ball or a structure of the CT filled from around it.

What is left to a network there is the context: contours, prescription and the rest of the image.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from doseledger.core.grid import box_around
from doseledger.core.types import Mask, Singles, Triple
from doseledger.learn.recipes.dose import CoreDropoutRecipe


def drop_core(
    ct: Singles, masks: Mask, body: Mask, spacing_mm: Triple, recipe: CoreDropoutRecipe, rng: np.random.Generator
) -> None:
    """Fill one core of the CT, in place, in the recipe's share of calls.

    Parameters
    ----------
    ct
        CT (z, y, x) of a patch, in any unit.
    masks
        Structures (structure, z, y, x).
    body
        Inside of the patient (z, y, x): there cores are, and from there they are filled.
    spacing_mm
        Along z, y, x.
    rng
        Five numbers are drawn from it whatever becomes of them, so that one setting leaves the others' draws alone.

    Notes
    -----
    The masks stay as they are: the network is told that a rectum is there, and is not shown it.
    """
    falls, is_structure, which, where, size = rng.random(5)
    if falls >= recipe.share or not body.any():
        return
    here = np.flatnonzero(masks.any(axis=(1, 2, 3)))
    if is_structure < recipe.structure_share and len(here):
        core = masks[here[int(which * len(here))]]
    else:
        inside = np.flatnonzero(body)
        centre = np.unravel_index(inside[int(where * len(inside))], body.shape)
        least, most = recipe.radius_mm
        core = _ball(body.shape, centre, least + size * (most - least), spacing_mm)
    fill_core(ct, core & body, body, spacing_mm, recipe.surround_mm)


def fill_core(ct: Singles, core: Mask, body: Mask, spacing_mm: Triple, surround_mm: float) -> None:
    """Set the CT (z, y, x) inside the core, in place, to its median within `surround_mm` of it in the body.

    A core that nothing of the body surrounds stays as it is.
    """
    if not core.any():
        return
    z, y, x = (int(np.ceil(surround_mm / spacing)) for spacing in spacing_mm)
    box = box_around(core, (z, y, x))
    distance_mm = ndimage.distance_transform_edt(~core[box], sampling=spacing_mm)
    around = (distance_mm > 0) & (distance_mm <= surround_mm) & body[box]
    if around.any():
        ct[core] = np.median(ct[box][around])


def _ball(shape: tuple[int, ...], centre: tuple[np.intp, ...], radius_mm: float, spacing_mm: Triple) -> Mask:
    z, y, x = (
        (spacing * (np.arange(n) - middle)) ** 2 for n, middle, spacing in zip(shape, centre, spacing_mm, strict=True)
    )
    ball: Mask = z[:, None, None] + y[None, :, None] + x[None, None, :] <= radius_mm**2
    return ball
