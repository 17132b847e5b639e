"""Views of a case: prediction, voxel, planes, isodoses.

Pictures keep the patient's proportions (mm, not voxels). Axial and coronal slices show the patient's left on the
right side; sagittal slices face the patient's left, anterior on the left side. Heads are up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid, IntTriple, box_around
from doseledger.core.types import Box, GyArray
from doseledger.dosimetry.gamma.criteria import GammaCriteria

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# A slice shows where either dose is above this part of the highest prescription, and so much around it: beyond lie
# arms, shoulders and legs, which would make all else small.
INTEREST_PART = 0.20
INTEREST_MARGIN_MM = 30.0
HALO = "#FFFFFF"


@dataclass(frozen=True)
class Comparison:
    """A case with its predicted dose.

    Parameters
    ----------
    case
        With the plan's dose, the reference.
    predicted_gy
        Predicted dose in Gy on the case's grid, (z, y, x).
    criteria, gamma
        Which gamma is drawn, and its map (z, y, x) as evaluation scored it, over every voxel above the
        cutoff; NaN below it.
    """

    case: Case
    predicted_gy: NDArray[np.float32]
    criteria: GammaCriteria
    gamma: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.case.dose_gy is None:
            raise BadCase(self.case.case_id, "has no plan dose to compare with; evaluate a cohort with rtdose")
        if self.predicted_gy.shape != self.case.grid.shape_zyx:
            raise BadCase(
                self.case.case_id,
                f"the prediction has {self.predicted_gy.shape} voxels, not {self.case.grid.shape_zyx}; predict again",
            )

    @property
    def plan_gy(self) -> NDArray[np.float32]:
        """The plan's dose in Gy, (z, y, x)."""
        if self.case.dose_gy is None:  # __post_init__ has refused it
            raise BadCase(self.case.case_id, "has no plan dose")
        return self.case.dose_gy


@dataclass(frozen=True)
class Plane:
    """One orientation: the axis it cuts, and how its picture is turned.

    Parameters
    ----------
    axis
        Array axis that is held fixed.
    letters
        Patient directions at the left, right, top and bottom edge.
    """

    name: str
    axis: int
    letters: tuple[str, str, str, str]

    @property
    def rows_axis(self) -> int:
        """Array axis that runs down or up the picture."""
        return 1 if self.axis == 0 else 0

    @property
    def columns_axis(self) -> int:
        """Array axis that runs to the right."""
        return 1 if self.axis == 2 else 2

    @property
    def head_up(self) -> bool:
        """Whether rows ascend upwards: z does, y (posterior) runs down."""
        return self.axis != 0


PLANES = (
    Plane("Axial", 0, ("R", "L", "A", "P")),
    Plane("Coronal", 1, ("R", "L", "S", "I")),
    Plane("Sagittal", 2, ("A", "P", "S", "I")),
)


def isocentre_index(case: Case) -> IntTriple:
    """Return the voxel (z, y, x) at the centroid of the present target of the highest prescription.

    Raises
    ------
    BadCase
        If no target with a prescription is present.
    """
    targets = [name for name in case.present_names if name in case.prescription_gy]
    if not targets:
        raise BadCase(case.case_id, "no target with a prescription is present, so there is no centre to cut through")
    hottest = max(targets, key=lambda name: case.prescription_gy[name])
    z, y, x = np.rint(np.argwhere(case.mask(hottest)).mean(axis=0)).astype(int)
    return int(z), int(y), int(x)


def box_of_interest(case: Case, *doses_gy: GyArray) -> Box:
    """Return the box of what a slice should show: the targets and wherever one of the doses is, with a margin.

    Raises
    ------
    BadCase
        If no dose is anywhere in the body.
    """
    least_gy = INTEREST_PART * max(case.prescription_gy.values())
    interest = np.logical_or.reduce([dose_gy >= least_gy for dose_gy in doses_gy])
    for name in case.prescription_gy:
        interest |= case.mask(name)
    interest &= case.body
    if not interest.any():
        raise BadCase(case.case_id, f"no dose reaches {least_gy:.1f} Gy anywhere in the body")
    z, y, x = (int(np.ceil(INTEREST_MARGIN_MM / spacing)) for spacing in case.grid.spacing_mm)
    return box_around(interest, (z, y, x))


def isodose_levels(case: Case) -> list[tuple[float, str]]:
    """Return isodose levels in Gy with their labels, the highest first.

    105 % of the highest prescription (of the present targets), 95 % of each one, 50 % and 30 % of the highest.
    """
    return levels_of_targets({name: dose for name, dose in case.prescription_gy.items() if name in case.present_names})


def levels_of_targets(targets: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return isodose levels in Gy with their labels as `isodose_levels`, of targets by their prescribed dose in Gy.

    Levels that are the same to a tenth of a Gy are one, with both labels.
    """
    top = max(targets, key=lambda name: targets[name])
    wanted = [(1.05 * targets[top], f"105 % {top}")]
    wanted += [(0.95 * dose, f"95 % {name}") for name, dose in targets.items()]
    wanted += [(part / 100 * targets[top], f"{part} % {top}") for part in (50, 30)]
    alike: dict[float, list[tuple[float, str]]] = {}
    for dose, label in wanted:
        alike.setdefault(round(dose, 1), []).append((dose, label))
    levels = sorted((same[0][0], ", ".join(label for _, label in same)) for same in alike.values())
    return [(dose, f"{dose:.1f} Gy ({labels})") for dose, labels in reversed(levels)]


class View:
    """One plane through volumes of one grid, cut to a box."""

    def __init__(self, grid: Grid, plane: Plane, index: IntTriple, box: Box) -> None:
        self.grid, self.plane, self._index, self._box = grid, plane, index[plane.axis], box
        axes = grid.axes_mm()
        self.rows_mm = axes[plane.rows_axis][box[plane.rows_axis]]
        self.columns_mm = axes[plane.columns_axis][box[plane.columns_axis]]
        self.position = f"{'zyx'[plane.axis]} = {axes[plane.axis][self._index]:.0f} mm".replace("-", "−")

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The slice of a volume, (row, column)."""
        inside = [self._box[0], self._box[1], self._box[2]]
        inside[self.plane.axis] = slice(self._index, self._index + 1)
        return np.squeeze(volume[tuple(inside)], axis=self.plane.axis)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges in mm of left, right, first row's outer and last row's outer side, as imshow takes them."""
        half_row = self.grid.spacing_mm[self.plane.rows_axis] / 2
        half_column = self.grid.spacing_mm[self.plane.columns_axis] / 2
        low, high = self.rows_mm[0] - half_row, self.rows_mm[-1] + half_row
        bottom, top = (low, high) if self.plane.head_up else (high, low)
        return self.columns_mm[0] - half_column, self.columns_mm[-1] + half_column, bottom, top

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the picture."""
        x0, x1, y0, y1 = self.extent
        return x1 - x0, abs(y1 - y0)

    def show(self, axis: Axes, picture: NDArray[Any], **options: Any) -> None:
        """Draw a slice in mm, each pixel as large as its voxel."""
        origin: Any = "lower" if self.plane.head_up else "upper"
        axis.imshow(picture, extent=self.extent, origin=origin, interpolation="nearest", aspect="equal", **options)

    def outline(self, axis: Axes, mask: NDArray[Any], colour: str, width: float, *, halo: bool = False) -> None:
        """Draw a mask's outline; with a halo it shows on any ground."""
        picture = self.cut(mask)
        if not picture.any() or picture.all():
            return
        for ink, pt in ((HALO, 2.2 * width), (colour, width)) if halo else ((colour, width),):
            axis.contour(self.columns_mm, self.rows_mm, picture, levels=[0.5], colors=ink, linewidths=pt)
