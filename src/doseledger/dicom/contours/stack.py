"""Stacks of contours: on an image's slices, or on planes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.planes import (
    ROUNDED_MM,
    SAME_PLANE_MM,
    TINY_MM,
    common_step_mm,
    even_planes,
    find_planes,
    same_plane_mm,
)
from doseledger.core.text.lists import first_of
from doseledger.dicom.contours.interleave import CROWDED_SHARE, Indices, split_interleaved
from doseledger.dicom.contours.overlaps import count_once, find_overlaps
from doseledger.dicom.contours.raster import Polygon, rasterise

Contour = tuple[float, Polygon]
# Contours drawn on every second to fifth slice are common; a wider gap is not filled by guesswork.
MOST_MISSING_SLICES = 4
# No planning scan has thicker slices: contours farther apart don't tell what lies between.
THICKEST_SLICE_MM = 10.0
# Nobody draws so many contours on a plane, or on so many planes.
MOST_ON_A_PLANE = MOST_PLANES = 5000
# Positions that a note or an error names, at most.
MOST_NAMED = 5


@dataclass(frozen=True)
class Stack:
    """A structure as planes of contours.

    Parameters
    ----------
    z_mm
        Position of each plane, rising.
    polygons
        Closed contours of each plane as (n, 2) of x, y in mm.
    slice_mm
        Distance of the slices that it was drawn on: how thick a plane is.
    joined
        Whether the shape goes on between plane i and plane i + 1, (plane − 1,).
    apart
        Further sets of contours, on planes between its own.
    is_hole
        Whether what it holds is taken from the other sets, and not added to them.
    """

    z_mm: NDArray[np.float64]
    polygons: list[list[Polygon]]
    slice_mm: float
    joined: NDArray[np.bool_]
    apart: tuple[Stack, ...] = ()
    is_hole: bool = False

    def parts(self) -> Iterator[Stack]:
        """Yield this set of contours alone, and the further ones."""
        yield replace(self, apart=())
        yield from self.apart

    def box_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and the highest corner of the box of its contours in mm, each (z, y, x)."""
        parts = list(self.parts())
        points = np.concatenate([p for part in parts for plane in part.polygons for p in plane])
        z_mm = np.concatenate([part.z_mm for part in parts])
        low, high = points.min(axis=0), points.max(axis=0)
        return np.asarray([z_mm.min(), low[1], low[0]]), np.asarray([z_mm.max(), high[1], high[0]])


class _Who(NamedTuple):
    """Whom errors and notes name."""

    case_id: str
    name: str


def stack_contours(contours: list[Contour], image_grid: Grid, case_id: str, name: str) -> tuple[Stack, list[str]]:
    """Return a structure's contours as planes on an image's slices, and what is worth a warning about them.

    Parameters
    ----------
    contours
        (z in mm, points) of each closed contour; at least one.

    Raises
    ------
    BadCase
        If contours lie more than half a slice beyond the image, or more slices than can be filled in honestly are
        missing between planes whose shapes overlap.

    Notes
    -----
    Planes are those of this structure alone: contours within `planes.SAME_PLANE_MM` of a slice lie on it, others on
    planes between the slices. A gap between planes whose shapes overlap is filled by interpolation and named;
    between shapes that don't, the structure has separate parts and the gap stays empty: named too.
    """
    who, z_mm = _Who(case_id, name), np.asarray([z for z, _ in contours])
    slice_mm, beyond = image_grid.spacing_mm[0], beyond_image(z_mm, image_grid)
    if beyond.any():
        low, high = image_grid.extent_mm[0][0] - slice_mm / 2, image_grid.extent_mm[1][0] + slice_mm / 2
        raise BadCase(
            case_id,
            f"{int(beyond.sum())} of {len(z_mm)} contours of {name} lie beyond the image: z from {z_mm.min():.1f} to "
            f"{z_mm.max():.1f} mm, the image's slices reach from {low:.1f} to {high:.1f} mm; export the whole series",
        )
    exact_mm = _on_slices(z_mm, image_grid)
    steps = np.diff(np.unique(exact_mm))
    is_crowded = len(steps) > 0 and float(steps.min()) < CROWDED_SHARE * slice_mm

    def make(these: Indices) -> tuple[Stack, list[str]]:
        own_mm = _finer_step_mm(np.unique(exact_mm[these]), slice_mm)
        return _stack([contours[i][1] for i in these], exact_mm[these], own_mm, image_grid, who)

    return _stacks(contours, exact_mm, make, who) if is_crowded else make(np.arange(len(contours)))


def stack_on_own_planes(
    contours: list[Contour], grid: Grid, case_id: str, name: str, lone_mm: float | None = None
) -> tuple[Stack, list[str]]:
    """Return a structure's contours as planes that only they themselves tell, and what is worth a warning about them.

    Parameters
    ----------
    contours
        (z in mm, points) of each closed contour; at least one.
    grid
        On whose pixels shapes are compared; only its y and x axes matter.
    lone_mm
        How thick a lone plane is, which its contours can't tell; None where nobody knows.

    Raises
    ------
    BadCase
        If all contours lie on one plane and nothing tells how thick it is, if planes are too far apart to tell what
        lies between, or if more slices than can be filled in honestly are missing.

    Notes
    -----
    Planes that rounding alone keeps from even steps are put there; uneven ones stay where they are.
    """
    who, z_mm = _Who(case_id, name), np.asarray([z for z, _ in contours])
    planes_mm, plane_of = find_planes(z_mm)
    step_mm = common_step_mm(planes_mm)
    if step_mm is not None and same_plane_mm(step_mm) < SAME_PLANE_MM:
        planes_mm, plane_of = find_planes(z_mm, same_plane_mm(step_mm))

    def make(these: Indices) -> tuple[Stack, list[str]]:
        own, number = np.unique(plane_of[these], return_inverse=True)
        own_mm = common_step_mm(planes_mm[own]) or common_step_mm(planes_mm) or lone_mm
        if own_mm is None:
            raise BadCase(case_id, "all contours lie on one slice: how thick it is can't be told; draw it on more")
        if own_mm > THICKEST_SLICE_MM:
            raise BadCase(
                case_id,
                f"contours are {own_mm:.1f} mm apart, wanted at most {THICKEST_SLICE_MM:g} mm: what lies between "
                "can't be told; draw it there",
            )
        even = even_planes(planes_mm[own], own_mm)
        exact_mm, slice_mm = even or (planes_mm[own], _usual_gap_mm(planes_mm[own], own_mm))
        return _stack([contours[i][1] for i in these], exact_mm[number], slice_mm, grid, who)

    return _stacks(contours, planes_mm[plane_of], make, who)


def _stacks(
    contours: list[Contour],
    exact_mm: NDArray[np.float64],
    make: Callable[[Indices], tuple[Stack, list[str]]],
    who: _Who,
) -> tuple[Stack, list[str]]:
    """Return contours as a stack, with those apart that have planes of their own."""
    n_planes = len(np.unique(exact_mm))
    if n_planes > MOST_PLANES:
        raise BadCase(who.case_id, f"{who.name} has contours on {n_planes} planes, wanted at most {MOST_PLANES}")
    split = split_interleaved([points for _, points in contours], exact_mm)
    made = [make(part) for part in split.parts]
    stacks, notes = [stack for stack, _ in made], [note for _, said in made for note in said]
    if len(split.holes):
        hole, said = make(split.holes)
        stacks, notes = [*stacks, replace(hole, is_hole=True)], notes + said
    return replace(stacks[0], apart=tuple(stacks[1:])), notes


def beyond_image(z_mm: NDArray[np.float64], image_grid: Grid) -> NDArray[np.bool_]:
    """Return which positions lie more than half a slice beyond an image's first or last slice, rounding apart."""
    reach = image_grid.spacing_mm[0] / 2 + ROUNDED_MM
    low, high = image_grid.extent_mm[0][0] - reach, image_grid.extent_mm[1][0] + reach
    return (z_mm < low) | (z_mm > high)


def _on_slices(z_mm: NDArray[np.float64], image_grid: Grid) -> NDArray[np.float64]:
    """Return each contour's plane: the slice within the tolerance, else its own between two slices."""
    slice_mm, origin_mm = image_grid.spacing_mm[0], image_grid.origin_mm[0]
    within_mm = same_plane_mm(slice_mm)
    planes_mm, plane_of = find_planes(z_mm, within_mm)
    layer = (planes_mm - origin_mm) / slice_mm
    on_slice = np.abs(layer - np.rint(layer)) * slice_mm <= within_mm + TINY_MM
    layer[on_slice] = np.rint(layer[on_slice])
    if not on_slice.all():
        # Planes that are as far off their slices are so alike: else the first could lie in the half of one slice and
        # the last in that of another.
        below = np.floor(layer[~on_slice])
        offsets_mm, offset_of = find_planes((layer[~on_slice] - below) * slice_mm, within_mm)
        layer[~on_slice] = below + offsets_mm[offset_of] / slice_mm
    return (origin_mm + layer * slice_mm)[plane_of]


def _finer_step_mm(planes_mm: NDArray[np.float64], slice_mm: float) -> float:
    """Return the step of planes that were drawn on thinner slices than the image's, else the image's."""
    step_mm = common_step_mm(planes_mm)
    if step_mm is None or step_mm >= CROWDED_SHARE * slice_mm:
        return slice_mm
    # Contours a little off their slices lie near one another too, but leave most of such fine slices empty.
    is_full = len(planes_mm) > 0.5 * (1.0 + (planes_mm[-1] - planes_mm[0]) / step_mm)
    return step_mm if is_full else slice_mm


def _usual_gap_mm(planes_mm: NDArray[np.float64], step_mm: float) -> float:
    """Return the mean distance of uneven planes in mm, without the gaps that lack a slice; the step for one plane."""
    gaps = np.diff(planes_mm)
    usual = gaps[missing_slices(planes_mm, step_mm) == 0]
    return float(usual.mean()) if usual.size else step_mm


def _stack(
    polygons: list[Polygon], exact_mm: NDArray[np.float64], slice_mm: float, grid: Grid, who: _Who
) -> tuple[Stack, list[str]]:
    """Return contours whose planes are known as a stack, each counted once, and what is worth a warning."""
    z_mm, plane_of = np.unique(exact_mm, return_inverse=True)
    planes: list[list[Polygon]] = [[] for _ in z_mm]
    for polygon, plane in zip(polygons, plane_of.tolist(), strict=True):
        planes[plane].append(polygon)
    most = max(len(plane) for plane in planes)
    if most > MOST_ON_A_PLANE:
        raise BadCase(who.case_id, f"{who.name} has {most} contours on a plane, wanted at most {MOST_ON_A_PLANE}")
    counted = [count_once(plane) for plane in planes]
    planes = [once.polygons for once in counted]
    joined, notes = _join(z_mm, planes, slice_mm, grid, who)
    if n_copies := sum(once.n_copies for once in counted):
        at = _named(z_mm[[once.n_copies > 0 for once in counted]])
        notes.append(f"{n_copies} contours of {who.name} are near-copies of others and count once, at z {at} mm")
    if (crowded := np.flatnonzero(np.diff(z_mm) < CROWDED_SHARE * slice_mm)).size:
        notes.append(
            f"{who.name} has contours off its slices of {slice_mm:g} mm, at z {_named(z_mm[crowded])} mm: they are "
            "taken as planes of their own; check the export"
        )
    overlaps = [find_overlaps(plane, grid) for plane in planes]
    crossing = np.asarray([one.is_crossing for one in overlaps])
    if crossing.any():
        at = _named(z_mm[crossing])
        notes.append(f"contours of {who.name} cross at z {at} mm: what they share counts as outside")
    cancelling = np.asarray([one.is_cancelling for one in overlaps])
    if cancelling.any():
        at = _named(z_mm[cancelling])
        notes.append(
            f"contours of {who.name} leave less than a tenth of the largest at z {at} mm: are they there twice?"
        )
    return Stack(z_mm, planes, slice_mm, joined), notes


def _named(z_mm: NDArray[np.float64]) -> str:
    return first_of([f"{z:.1f}" for z in z_mm], MOST_NAMED)


def _join(
    z_mm: NDArray[np.float64], polygons: list[list[Polygon]], slice_mm: float, grid: Grid, who: _Who
) -> tuple[NDArray[np.bool_], list[str]]:
    missing = missing_slices(z_mm, slice_mm)
    joined = np.ones(len(missing), dtype=np.bool_)
    filled = 0
    apart: list[str] = []
    for i in np.flatnonzero(missing > 0):
        if not np.any(rasterise(polygons[i], grid) & rasterise(polygons[i + 1], grid)):
            joined[i] = False
            apart.append(
                f"{who.name} has separate parts: nothing is drawn between z {z_mm[i]:.1f} and {z_mm[i + 1]:.1f} mm"
            )
        elif missing[i] > MOST_MISSING_SLICES:
            raise BadCase(
                who.case_id,
                f"{who.name} has no contour on {missing[i]} slices between z {z_mm[i]:.1f} and {z_mm[i + 1]:.1f} mm, "
                f"wanted at most {MOST_MISSING_SLICES}; draw it there, or split it into two structures",
            )
        else:
            filled += int(missing[i])
    notes = apart[:MOST_NAMED]
    if len(apart) > MOST_NAMED:
        notes.append(f"{who.name} has {len(apart) - MOST_NAMED} more gaps between separate parts")
    if filled:
        notes.append(f"{who.name} has no contour on {filled} slices inside it; its shape was interpolated there")
    return joined, notes


def missing_slices(z_mm: NDArray[np.float64], slice_mm: float) -> NDArray[np.int_]:
    """Return how many slices have no contour between each plane and the next, (plane − 1,)."""
    # A gap of one and a half slices, as two lattices of slices have between them, lacks none.
    slices = np.ceil(np.diff(z_mm) / slice_mm - 0.5 - TINY_MM).astype(np.int_)
    return np.maximum(slices - 1, 0)
