"""A synthetic patient before planning: CT, structures and dose grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from doseledger.core.grid import Grid, box_around
from doseledger.core.types import HuArray, Mask, Singles
from doseledger.dicom.position import Position
from doseledger.phantom.anatomy import Anatomy, draw_anatomy
from doseledger.phantom.shapes import Point, Space
from doseledger.phantom.tissue import paint_ct

# The scan, from the prostate's centre: thighs to the fifth lumbar vertebra.
SCAN_SPAN_MM = (-105.0, 150.0)
PITCHES_MM = (2.5, 3.0)
# A surface this far off is nowhere near: the value of a field outside the box that it was computed in.
FAR_MM = np.float32(99.0)
FEMUR_LENGTH_MM = 62.0
# What the protocol doesn't know.
STRANGER = "SeminalVesicles"
# A dose grid of its own: beyond the targets by so much (all that is contoured, but not all of the skin), and off the
# CT's planes by so much; z, y, x.
ODD_GRID_MARGIN_MM = (65.0, 65.0, 100.0)
ODD_GRID_SHIFT_MM = (1.3, 0.7, 1.9)


@dataclass(frozen=True)
class Dirt:
    """What is unusual about one case of a cohort.

    Parameters
    ----------
    absent
        Structures that were not contoured.
    names
        What a structure is called instead of the protocol's name.
    extra
        Whether a structure is there that the protocol doesn't know.
    odd_dose_grid
        Whether the dose lies on a smaller grid that shares no plane with the CT.
    position
        How the patient lies.
    roll_deg
        By how much the patient is rolled about the long axis.
    bowel_gap_mm
        How near to PTV56 loops of bowel come; as anatomy_ranges.yaml has it if None.
    """

    absent: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    extra: bool = False
    odd_dose_grid: bool = False
    position: Position = "HFS"
    roll_deg: float = 0.0
    bowel_gap_mm: float | None = None


@dataclass(frozen=True)
class SyntheticPatient:
    """A patient before planning.

    Parameters
    ----------
    ct_hu
        int16 (z, y, x), couch included.
    body
        Inside the skin, bool (z, y, x).
    surfaces
        By structure, in the protocol's names: float32 (z, y, x), negative inside, in mm near the surface.
    dose_grid
        Where the dose is wanted.
    """

    anatomy: Anatomy
    grid: Grid
    ct_hu: HuArray
    body: Mask
    surfaces: dict[str, Singles]
    dose_grid: Grid


def draw_patient(rng: np.random.Generator, in_plane_pixels: int, dose_grid_mm: float, dirt: Dirt) -> SyntheticPatient:
    """Return a patient drawn from the ranges of anatomy_ranges.yaml.

    Parameters
    ----------
    in_plane_pixels
        Rows and columns of the CT.
    dose_grid_mm
        Spacing of the dose grid in the plane of the CT (along all axes where the grid is odd).
    """
    anatomy = draw_anatomy(rng, prone=dirt.position.endswith("P"), bowel_gap_mm=dirt.bowel_gap_mm)
    centre = (np.round(rng.uniform(-300.0, 300.0), 1), *np.round(rng.uniform(-40.0, 40.0, 2), 1))
    grid = _scan_grid(rng, anatomy, centre, in_plane_pixels)
    space = Space.of_grid(grid, (float(centre[0]), float(centre[1]), float(centre[2])), dirt.roll_deg)
    drawn = _draw_surfaces(anatomy, space)
    ct_hu = paint_ct(anatomy, space, grid, drawn, rng)
    body = drawn["BODY"] < 0
    absent = {*dirt.absent} if dirt.extra else {*dirt.absent, STRANGER}
    surfaces = {name: surface for name, surface in drawn.items() if name not in absent and (surface < 0).any()}
    dose_grid = (
        _odd_dose_grid(surfaces, grid, dose_grid_mm) if dirt.odd_dose_grid else _dose_grid(body, grid, dose_grid_mm)
    )
    return SyntheticPatient(anatomy, grid, ct_hu, body, surfaces, dose_grid)


def _scan_grid(rng: np.random.Generator, anatomy: Anatomy, centre: tuple[float, ...], pixels: int) -> Grid:
    pitch = float(rng.choice(PITCHES_MM))
    pixel = round(anatomy.traits["field_of_view_mm"] / pixels, 4)
    n_slices = int((SCAN_SPAN_MM[1] - SCAN_SPAN_MM[0]) / pitch) + 1
    middle = (pixels - 1) / 2.0 * pixel
    # The couch lies below: the field of view is centred a little towards it.
    towards_couch = -15.0 if anatomy.prone else 15.0
    y = round(centre[1] + anatomy.middle_y_mm + towards_couch - middle, 2)
    x = round(centre[2] - middle, 2)
    return Grid((n_slices, pixels, pixels), (pitch, pixel, pixel), (round(centre[0] + SCAN_SPAN_MM[0], 2), y, x))


def _draw_surfaces(anatomy: Anatomy, space: Space) -> dict[str, Singles]:
    """Return the surfaces of what can be contoured, each computed only around it."""
    low, high = anatomy.rectum_span_mm()
    bottom = anatomy.femur_points(1)[0][2] - FEMUR_LENGTH_MM

    def cut_rectum(near: Space) -> Singles:
        return np.asarray(np.maximum(anatomy.rectum(near), np.maximum(low - near.z, near.z - high)), np.float32)

    def cut_femur(near: Space, side: int) -> Singles:
        return np.asarray(np.maximum(anatomy.femur(near, side), bottom - near.z), dtype=np.float32)

    def hip(side: int) -> Point:
        head, root, _ = anatomy.femur_points(side)
        return (head[0] + root[0]) / 2.0, (head[1] + root[1]) / 2.0, 5.0

    # Each shape, and a ball that holds it.
    shapes: dict[str, tuple[Callable[[Space], Singles], Point, float]] = {
        "PTV70": (anatomy.ptv70, (0.0, 0.0, 0.0), 65.0),
        "PTV56": (anatomy.ptv56, (0.0, 5.0, 35.0), 105.0),
        "Prostate": (anatomy.prostate, (0.0, 0.0, 0.0), 50.0),
        "Rectum": (cut_rectum, (0.0, 40.0, 25.0), 90.0),
        "Bladder": (anatomy.bladder, (0.0, -25.0, 65.0), 115.0),
        "Femur_L": (lambda near: cut_femur(near, 1), hip(1), 95.0),
        "Femur_R": (lambda near: cut_femur(near, -1), hip(-1), 95.0),
        "Bowel": (anatomy.bowel_loops, (0.0, anatomy.middle_y_mm - 40.0, 105.0), 145.0),
        STRANGER: (anatomy.vesicles, (0.0, 15.0, 30.0), 60.0),
    }
    skin = anatomy.body(space)
    surfaces = {"BODY": skin}
    for name, (shape, centre, reach) in shapes.items():
        box, near = space.near(centre, reach)
        surface = np.full(skin.shape, FAR_MM, dtype=np.float32)
        surface[box] = shape(near)
        surfaces[name] = surface
    return surfaces


def _dose_grid(body: Mask, grid: Grid, spacing_mm: float) -> Grid:
    """The body's box, on the CT's own planes."""
    around = grid.inside(box_around(body))
    return _to_hundredths(around.resampled((grid.spacing_mm[0], spacing_mm, spacing_mm)))


def _odd_dose_grid(surfaces: Mapping[str, Singles], grid: Grid, spacing_mm: float) -> Grid:
    """A box around the targets, off the CT's planes, and smaller than the patient."""
    targets = np.any([surface < 0 for name, surface in surfaces.items() if name.startswith("PTV")], axis=0)
    margin = [round(m / spacing) for m, spacing in zip(ODD_GRID_MARGIN_MM, grid.spacing_mm, strict=True)]
    around = grid.inside(box_around(targets, (margin[0], margin[1], margin[2])))
    moved = around.resampled((spacing_mm, spacing_mm, spacing_mm))
    z, y, x = (o + shift for o, shift in zip(moved.origin_mm, ODD_GRID_SHIFT_MM, strict=True))
    return _to_hundredths(Grid(moved.shape_zyx, moved.spacing_mm, (z, y, x)))


def _to_hundredths(grid: Grid) -> Grid:
    """Return a grid whose origin a DICOM file can say exactly."""
    z, y, x = (round(value, 2) for value in grid.origin_mm)
    return Grid(grid.shape_zyx, grid.spacing_mm, (z, y, x))
