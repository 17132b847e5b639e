"""Stacks of contours of every odd kind: planes, notes, layers and areas written out in `known_stacks.txt`.

It is written anew where it is deleted: read what changed. Areas are in pixels of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fixtures.known import assert_known

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.contours import Stack, fill, layers_of, stack_contours, stack_on_own_planes

KNOWN = Path(__file__).with_name("known_stacks.txt")
# Odd numbers of voxels of three sizes, off the origin; contours lie on its slices from -20 to 22 mm.
GRID = Grid((15, 41, 37), (3.0, 1.5, 1.25), (-20.0, -31.0, -23.0))
FINE = Grid((29, 25, 31), (1.6, 2.4, 1.5), (-22.3, -31.0, -23.0))
Contours = list[tuple[float, np.ndarray]]


def ellipse(x: float, y: float, a: float, b: float, n: int = 60) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.round(np.column_stack([x + a * np.cos(angle), y + b * np.sin(angle)]), 2)


def box(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def cone(planes: list[float] | np.ndarray, x: float = 0.3, y: float = -2.2) -> Contours:
    """Ellipses that shrink towards the head, 11 by 14 mm at -20 mm."""
    return [(float(z), ellipse(x, y, 11.0 - 0.12 * (z + 20.0), 14.0 - 0.2 * (z + 20.0))) for z in planes]


def rods(planes: list[float], *shapes: np.ndarray) -> Contours:
    return [(float(z), shape) for z in planes for shape in shapes]


def z_of(*slices: float) -> list[float]:
    """Positions of slices by their number, halves between two."""
    return [-20.0 + 3.0 * k for k in slices]


RIGHT, LEFT = box(-20.0, -10.0, -10.0, 5.0), box(8.0, 18.0, -10.0, 5.0)
OUTER, INNER = box(-15.0, 15.0, -20.0, 20.0), box(-6.0, 7.0, -8.0, 9.0)
EVERY = z_of(*range(2, 12))
KINDS: dict[str, Contours] = {
    "every slice": cone(EVERY),
    "positions rounded to 0.1 mm, in any order": cone(np.round(np.asarray(EVERY[::-1]) + 0.04, 1)),
    "every second slice": cone(z_of(2, 4, 6, 8)),
    "a gap of four slices": cone(z_of(2, 3, 8, 9)),
    "a gap of five slices": cone(z_of(2, 3, 9, 10)),
    "parts one above the other, and apart": rods(z_of(2, 3), RIGHT) + rods(z_of(6, 7), LEFT),
    "parts side by side": rods(z_of(2, 3, 4), RIGHT) + rods(z_of(3, 4, 5), LEFT),
    "parts side by side on slices between each other's": rods(z_of(2, 3, 4, 5), RIGHT)
    + rods(z_of(2.5, 3.5, 4.5, 5.5), LEFT),
    "holes on their slices": rods(z_of(2, 3, 4), OUTER, INNER),
    "holes between the slices": rods(z_of(2, 3, 4, 5, 6), OUTER) + rods(z_of(2.5, 3.5, 4.5, 5.5), INNER),
    "holes between the slices, not where the rest begins": rods(z_of(2, 3, 4, 5, 6), OUTER)
    + rods(z_of(3.5, 4.5, 5.5), INNER),
    "one lens between two slices": rods(z_of(2, 3), INNER) + rods(z_of(2.5), OUTER),
    "a contour off its slice by a third": cone([*z_of(2, 3), z_of(4)[0] + 1.0, *z_of(5, 6)]),
    "contours all off their slices by a third": cone(np.asarray(z_of(2, 3, 4, 5)) + 1.0),
    "twice as many planes as slices": cone(z_of(*np.arange(2, 6.5, 0.5))),
    "a lone slice": cone(z_of(5)),
    "a lone plane between two slices": cone(z_of(5.4)),
    "near-copies": cone(EVERY[:3]) + [(z, shape + 0.06) for z, shape in cone(EVERY[1:3])],
    "exact copies": cone(EVERY[:2]) * 2,
    "crossing contours": rods(z_of(3, 4), OUTER) + rods(z_of(4), box(5.0, 20.0, -5.0, 5.0)),
    "what cancels": rods(z_of(3, 4), OUTER) + rods(z_of(4), box(-14.5, 14.5, -19.5, 19.5)),
    "a wall": rods(z_of(3, 4), OUTER, box(-13.0, 13.0, -18.0, 18.0)),
    "touching contours": rods(z_of(3), box(-10.0, 0.0, 0.0, 9.0), box(0.0, 10.0, 0.0, 9.0)),
    "half a slice below the image": cone([-21.5, *z_of(0, 1)]),
    "more than half a slice below the image": cone([-21.7, *z_of(0, 1)]),
    "half a slice above the image": cone([*z_of(13, 14), 23.5]),
    "uneven planes": cone([-14.0, -11.0, -7.5, -4.5, -1.5]),
    "planes of half a millimetre": cone(-14.0 + 0.5 * np.arange(6)),
    "planes of 11 mm": cone([-20.0, -9.0, 2.0]),
    "planes of 10 mm": cone([-20.0, -10.0, 0.0]),
    "a gap in planes of 2 mm": cone([-14.0, -12.0, -6.0, -4.0, -2.0]),
    "beyond the pixels": rods(z_of(3, 4), box(-40.0, 0.0, -50.0, 0.0)),
    "many gaps": [c for k in range(7) for c in rods(z_of(2 * k), box(-20.0 + 5 * k, -17.0 + 5 * k, 0.0, 3.0))],
}  # fmt: skip


def numbers(values: object) -> str:
    return " ".join(f"{round(float(v), 3) + 0.0:g}" for v in np.asarray(values).ravel())


def described(stack: Stack, notes: list[str]) -> Iterator[str]:
    for part in stack.parts():
        joined = "".join("-" if one else "|" for one in part.joined)
        counts = numbers([len(plane) for plane in part.polygons])
        yield f"  {'hole' if part.is_hole else 'planes'} {numbers(part.z_mm)} of {part.slice_mm:g}: {counts} {joined}"
    low, high = stack.box_mm()
    yield f"  box {numbers(low)} to {numbers(high)}"
    for name, grid in (("on its slices", GRID), ("on other ones", FINE)):
        mask = fill(stack, grid)
        x, y = np.nonzero(mask)[2], np.nonzero(mask)[1]
        middle = numbers([y.mean(), x.mean()]) if mask.any() else "nothing"
        yield f"  {name}: {numbers(mask.sum(axis=(1, 2)))} about {middle}"
    for layer in layers_of(stack, GRID):
        area = sum(
            abs(np.dot(p[:, 0], np.roll(p[:, 1], -1)) - np.dot(p[:, 1], np.roll(p[:, 0], -1))) / 2
            for p in layer.contours
        )
        yield f"  layer {numbers([layer.z_mm, layer.thickness_mm])}: {len(layer.contours)} of {numbers(area)} mm2"
    yield from (f"  {note}" for note in notes)


def written_out() -> Iterator[str]:
    for title, contours in KINDS.items():
        for where in ("image", "own planes", "own planes, a lone one of 2 mm"):
            yield f"{title}, {where}"
            try:
                if where == "image":
                    yield from described(*stack_contours(contours, GRID, "case_1", "Organ"))
                else:
                    lone_mm = 2.0 if "lone" in where else None
                    if lone_mm is None or len({z for z, _ in contours}) == 1:
                        yield from described(*stack_on_own_planes(contours, GRID, "case_1", "Organ", lone_mm))
            except BadCase as error:
                yield f"  {error}"


def test_every_kind_of_stack_is_the_known_one() -> None:
    assert_known(KNOWN, "\n".join(written_out()), is_passing=False)
