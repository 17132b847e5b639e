"""Masks cleaned of specks and holes, and a record of it in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from doseledger.core.types import Array, Mask


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask, in this order."""

    largest_part: bool = False
    fill_holes: bool = False


def clean(mask: Mask, how: Cleaning, taken: Mask | None = None) -> tuple[Mask, str]:
    """Return a cleaned mask, and in words what was asked for and what it changed; no words where nothing was asked.

    Parameters
    ----------
    mask
        bool (z, y, x).
    taken
        bool (z, y, x): voxels of others, which are no hole; None where there are none.

    Notes
    -----
    Voxels that share a face, an edge or a corner are connected; of equal parts the first in the order of the array
    stays. A hole is closed in on all sides: an opening through a face of its wall, or through the grid's edge, makes
    it none.

    Examples
    --------
    >>> ring = np.ones((3, 3, 5), dtype=bool)
    >>> ring[1, 1, 1], ring[:, :, 3] = False, False
    >>> cleaned, said = clean(ring, Cleaning(largest_part=True, fill_holes=True))
    >>> int(cleaned.sum()), said
    (27, 'largest of 2 parts (-9 voxels), holes filled (+1 voxels)')
    """
    said = []
    if how.largest_part:
        labels, n_parts = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        if n_parts > 1:
            sizes = np.bincount(labels.ravel())
            kept = labels == 1 + int(np.argmax(sizes[1:]))
        else:
            kept = mask
        said.append(f"largest of {n_parts} parts (-{int(mask.sum() - kept.sum())} voxels)")
        mask = kept
    if how.fill_holes:
        filled: Mask = ndimage.binary_fill_holes(mask)
        if taken is not None:
            filled &= ~taken
        said.append(f"holes filled (+{int(filled.sum() - mask.sum())} voxels)")
        mask = filled
    return mask, ", ".join(said)


def clean_labels(labels: Array, n_structures: int, how: Cleaning) -> tuple[Array, list[str]]:
    """Return a label map (z, y, x), 0 background, with each structure cleaned, and the words of `clean` for each.

    A hole is background that a structure closes in; what another structure holds stays.
    """
    cleaned, said = labels.copy(), []
    for value in range(1, n_structures + 1):
        mask = cleaned == value
        kept, words = clean(mask, how, (cleaned > 0) & ~mask)
        cleaned[mask] = 0
        cleaned[kept] = value
        said.append(words)
    return cleaned, said
