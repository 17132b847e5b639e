"""Chance of a drill: which axis, slice, organs and other patient a fault is put in with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from doseledger.core.case import Case
from doseledger.core.protocol import Protocol
from doseledger.core.types import Array, Mask, Singles


@dataclass(frozen=True)
class Draw:
    """What is drawn for one case and one fault, the same for each size of it.

    Parameters
    ----------
    seed
        Of all that is random.
    axis
        0 (z), 1 (y) or 2 (x).
    protocol
        Which structures are organs, and where distances are clipped.
    other
        Another patient's case; None for a fault that needs none.
    """

    seed: tuple[int, ...]
    axis: int
    protocol: Protocol
    other: Case | None = None

    def rng(self) -> np.random.Generator:
        """Return a fresh generator: two sizes of a fault differ in nothing but their size."""
        return np.random.default_rng(self.seed)

    def organs(self, case: Case) -> list[str]:
        """Return the case's organs that have a voxel, in a drawn order."""
        kinds = self.protocol.structure
        names = [name for name in case.present_names if kinds(name).kind == "organ" and case.mask(name).any()]
        return [names[index] for index in self.rng().permutation(len(names))]

    def slices(self, case: Case, count: float) -> slice:
        """Return so many adjacent slices, in the middle half of the main target, or of the body without one."""
        name = case.main_target
        hit = np.flatnonzero(_mask_or_body(case, name).any(axis=(1, 2)))
        if not len(hit):
            return slice(0, 0)
        first, last = np.quantile(hit, (0.25, 0.75))
        start = int(self.rng().integers(math.floor(first), math.floor(last) + 1))
        # A slice below and one above remain, to be repeated and to be told apart from.
        start = max(1, min(start, case.grid.shape_zyx[0] - int(count) - 1))
        return slice(start, start + int(count))


def _mask_or_body(case: Case, name: str | None) -> Mask:
    return case.body if name is None else case.mask(name)


# A fault put into a case, None where the case has nothing of the kind; and what it does to one volume of it.
Put = Callable[[Case, float, Draw], Case | None]
Change = Callable[[Singles, Case, float, Draw], Array]
