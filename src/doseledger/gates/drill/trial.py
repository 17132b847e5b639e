"""Trials of a drill: a case, the size of a fault, and all that is drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.core.types import Array, Mask


@dataclass(frozen=True)
class Trial:
    """A case into which a fault is put; what is drawn is the same for each size of it."""

    case: Case
    # Another patient's; the case itself where there is none.
    other: Case
    # In the fault's unit.
    size: float
    # 0 (z), 1 (y) or 2 (x).
    axis: int
    seed: tuple[int, ...]
    protocol: Protocol

    def rng(self) -> np.random.Generator:
        """Return a fresh generator: two sizes of a fault differ in nothing but their size."""
        return np.random.default_rng(self.seed)

    def target(self) -> list[str]:
        """Return the name of the main target, if there is one."""
        return [self.case.main_target] if self.case.main_target else []

    def organs(self) -> list[str]:
        """Return the case's organs that have a voxel, in a drawn order."""
        organs = [n for n in self.case.present_names if self.protocol.structure(n).kind == "organ"]
        names = [name for name in organs if self.case.mask(name).any()]
        return [names[index] for index in self.rng().permutation(len(names))]

    def slices(self) -> slice:
        """Return so many slices as the size says, in the middle half of the main target."""
        count, hit = int(self.size), np.flatnonzero(main_region(self.case).any(axis=(1, 2)))
        first, last = (int(edge) for edge in np.quantile(hit, (0.25, 0.75)))
        start = int(self.rng().integers(first, last + 1))
        # A slice below and one above remain, to be repeated and to be told apart from.
        start = max(1, min(start, self.case.grid.shape_zyx[0] - count - 1))
        return slice(start, start + count)


# A fault put into a case, None where it has nothing of the kind; and what one does to a volume.
Put = Callable[[Trial], Case | None]
Change = Callable[[Array, Trial], Array]


def main_region(case: Case) -> Mask:
    """Return the main target's mask, or the body's where no target has a voxel."""
    name = case.main_target
    return case.mask(name) if name and case.mask(name).any() else case.body
