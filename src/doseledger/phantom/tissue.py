"""CT numbers of a phantom: tissues, contents, couch, blur and noise.

Typical CT numbers in HU: fat −100 to −80, muscle 50 to 60, urine 5, soft organs 35 to 45, cancellous bone 100 to 350,
cortex 800 to 1200, iodine contrast 150 to 300 (ICRU Report 44; Schneider et al., Phys Med Biol 45:459, 2000).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from doseledger.core.grid import Grid
from doseledger.core.types import Box, HuArray, Mask, Singles
from doseledger.phantom.anatomy import Anatomy
from doseledger.phantom.shapes import Point, Space, Waves, blend, capsule, ellipsoid, tube

AIR_HU, GAS_HU, FAT_HU, MUSCLE_HU = -1000.0, -940.0, -98.0, 54.0
CORTEX_HU = 950.0
# Point spread of a soft-tissue kernel, in mm.
BLUR_MM = 1.1
COUCH_SKIN_HU, COUCH_FOAM_HU = -250.0, -930.0


def paint_ct(
    anatomy: Anatomy, space: Space, grid: Grid, drawn: Mapping[str, Singles], rng: np.random.Generator
) -> HuArray:
    """Return the CT of an anatomy in HU, (z, y, x), couch included.

    Parameters
    ----------
    space
        The grid's voxel centres in the patient's axes.
    drawn
        The skin (`BODY`), the bladder and the bowel as they are contoured, on the whole grid.
    """
    ct = np.full(grid.shape_zyx, AIR_HU, dtype=np.float32)
    body = drawn["BODY"] < 0
    _paint_soft_tissue(ct, anatomy, space, -drawn["BODY"])
    _paint_pelvis(ct, anatomy, space)
    _paint_femurs(ct, anatomy, space)
    _paint_vessels(ct, anatomy, space)
    _paint_organs(ct, anatomy, space, drawn["Bladder"])
    _paint_bowel(ct, anatomy, space, drawn["Bowel"], rng)
    ct[~body] = AIR_HU
    _paint_couch(ct, body, grid, anatomy.prone)
    return _as_scanned(ct, grid, anatomy.traits["noise_hu"], rng)


def _paint_soft_tissue(ct: Singles, anatomy: Anatomy, space: Space, depth: Singles) -> None:
    """Skin, a coat of fat, muscle with streaks of fat, and the fat that organs lie in."""
    texture = anatomy.waves["muscle"].at(space)
    coat = anatomy.fat_mm * (1.0 + 0.15 * anatomy.waves["fat"].at(space))
    # The seat carries more fat than the flanks; the belly more the higher it is.
    coat = coat * (1.0 + 0.35 * np.clip(space.y / 100.0, -0.6, 1.0) + 0.004 * np.clip(space.z, 0.0, 150.0))
    inside = np.clip((depth - coat) / 2.0 + 0.5, 0.0, 1.0)
    muscle = MUSCLE_HU - 45.0 * np.clip(texture - 0.9, 0.0, 1.0)
    tissue = FAT_HU + inside * (muscle - FAT_HU) + 4.0 * texture
    cavity = blend(
        ellipsoid(space, (0.0, anatomy.middle_y_mm - 30.0, 95.0), (96.0, 0.62 * anatomy.half_depth_mm, 95.0)),
        ellipsoid(space, (0.0, 8.0, 5.0), (52.0, 62.0, 42.0)),
        30.0,
    )
    within = np.clip(0.5 - cavity / 2.0, 0.0, 1.0)
    tissue = tissue + within * (FAT_HU + 6.0 + 5.0 * texture - tissue)
    skin = np.clip(1.5 - depth / 1.5, 0.0, 1.0)
    tissue = tissue + skin * (10.0 - tissue)
    np.copyto(ct, tissue, where=depth > 0.0)


def _blend_in(ct: Singles, box: Box, field: Singles, hu: Singles | float, edge_mm: float = 1.0) -> None:
    """Paint a shape with a soft edge, as voxels that it half fills have half its CT number."""
    weight = np.clip(0.5 - field / (2.0 * edge_mm), 0.0, 1.0)
    ct[box] += weight * (hu - ct[box])


def _paint_bone(ct: Singles, box: Box, field: Singles, marrow_hu: float, cortex_mm: float) -> None:
    inner = np.clip((-field - cortex_mm) / 2.0, 0.0, 1.0)
    _blend_in(ct, box, field, CORTEX_HU + inner * (marrow_hu - CORTEX_HU))


def _paint_pelvis(ct: Singles, anatomy: Anatomy, space: Space) -> None:
    marrow, back, s = anatomy.traits["marrow_hu"], anatomy.back_mm, anatomy.traits["pelvis_scale"]
    for side in (1, -1):
        box, near = space.near((side * 75.0 * s, 10.0, 45.0), 135.0)
        _paint_bone(ct, box, _hip_bone(anatomy, near, side), 0.6 * marrow, 2.0)
    box, near = space.near((0.0, back, 85.0), 105.0)
    vertebrae: list[tuple[Point, Point]] = [
        ((0, back - 16, 150), (27, 19, 17)),
        ((0, back + 2, 118), (52, 24, 19)),
        ((0, back + 14, 94), (45, 19, 17)),
        ((0, back + 17, 72), (37, 15, 15)),
        ((0, back + 15, 52), (28, 12, 14)),
        ((0, back + 10, 36), (20, 9, 11)),
    ]
    sacrum = capsule(near, (0.0, back + 7.0, 28.0), (0.0, back - 4.0, 6.0), (6.0, 4.0))
    for (x, y, z), (a, b, c) in vertebrae:
        sacrum = blend(sacrum, ellipsoid(near, (x * s, y, z * s), (a * s, b, c)), 7.0)
    _paint_bone(ct, box, sacrum, 0.55 * marrow, 1.8)


def _hip_bone(anatomy: Anatomy, near: Space, side: int) -> Singles:
    """Ilium, ischium and pubis of one side, with the socket of the hip."""
    (hx, hy, hz), _, _ = anatomy.femur_points(side)
    r = anatomy.traits["head_radius_mm"]
    front = -(anatomy.prostate_radii[1] + 25.0)
    x = side * anatomy.traits["pelvis_scale"]
    pubis = tube(near, [(11 * x, front + 4, -20), (11 * x, front, 6), (hx - side * 25, hy - 15, hz + 4)], [8, 9, 8])
    ramus = tube(near, [(11 * x, front + 4, -20), (46 * x, hy + 34, -44)], [6, 6])
    ischium = tube(near, [(hx - side * 14, hy + 34, hz - 4), (54 * x, hy + 42, -42)], [13, 14])
    bone = np.minimum(np.minimum(pubis, ramus), ischium)
    stem = (hx - side * 3, hy + 14, hz + 34)
    for end in ((62, 62, 88), (82, 52, 118), (104, 30, 128), (122, -2, 126), (126, -28, 110)):
        wing = capsule(near, stem, (end[0] * x, hy + end[1], hz + end[2] * 1.0), (9.0, 7.0))
        bone = blend(bone, wing, 8.0)
    away = np.sqrt((near.x - hx) ** 2 + (near.y - hy) ** 2 + (near.z - hz) ** 2)
    # The socket opens outwards, downwards and a little to the front.
    opening = (side * (near.x - hx) * 0.72 - (near.z - hz) * 0.64 - (near.y - hy) * 0.27) / np.maximum(away, 1.0)
    socket = np.maximum(np.abs(away - (r + 8.5)) - 5.5, (opening - 0.30) * r)
    return np.asarray(np.maximum(blend(bone, np.asarray(socket, np.float32), 4.0), r + 3.0 - away), dtype=np.float32)


def _paint_femurs(ct: Singles, anatomy: Anatomy, space: Space) -> None:
    marrow = anatomy.traits["marrow_hu"]
    for side in (1, -1):
        head, root, _ = anatomy.femur_points(side)
        middle = ((head[0] + root[0]) / 2, (head[1] + root[1]) / 2, -40.0)
        box, near = space.near(middle, 130.0)
        field = anatomy.femur(near, side)
        # Cancellous bone in the head, fat in the shaft, whose cortex is thick.
        down = np.clip((root[2] - near.z) / 40.0 + 0.5, 0.0, 1.0)
        inner = np.clip((-field - 1.5 - 4.0 * down) / 2.0, 0.0, 1.0)
        core = marrow + down * (-40.0 - marrow)
        _blend_in(ct, box, field, np.asarray(CORTEX_HU + inner * (core - CORTEX_HU), dtype=np.float32))


def _paint_vessels(ct: Singles, anatomy: Anatomy, space: Space) -> None:
    hu = 170.0 if anatomy.traits["contrast"] > 0.75 else 45.0
    for path in anatomy.vessel_paths():
        if path[-1][2] < 30.0:
            continue  # the obturator space holds no large vessel
        box, near = space.near(path[1], 75.0)
        _blend_in(ct, box, tube(near, path, [5.5] * len(path)), hu)


def _paint_organs(ct: Singles, anatomy: Anatomy, space: Space, bladder: Singles) -> None:
    box, near = space.near((0.0, 0.0, 10.0), 75.0)
    _blend_in(ct, box, anatomy.prostate(near), 44.0 + 4.0 * anatomy.waves["stool"].at(near))
    _blend_in(ct, box, anatomy.vesicles(near), 30.0)
    box, near = space.near((0.0, -25.0, 65.0), 115.0)
    _blend_in(ct, box, bladder[box], 38.0)
    _blend_in(ct, box, bladder[box] + 4.0, 7.0)
    middle = anatomy.rectum_path.mean(axis=0)
    box, near = space.near((float(middle[0]), float(middle[1]), float(middle[2])), 130.0)
    rectum = anatomy.rectum(near)
    _blend_in(ct, box, rectum, 40.0)
    stool = anatomy.waves["stool"].at(near)
    _blend_in(ct, box, rectum + 3.5, 28.0 + 22.0 * stool)
    _blend_in(ct, box, np.maximum(rectum + 4.0, _below_gas(anatomy, near, stool)), GAS_HU)


def _below_gas(anatomy: Anatomy, near: Space, stool: Singles) -> Singles:
    """Return how far points lie below the level of the gas in the rectum: gas gathers uppermost."""
    path = anatomy.rectum_path
    order = np.argsort(path[:, 2])
    z = near.z.ravel()
    centre = np.interp(z, path[order, 2], path[order, 1])[:, None, None]
    radius = np.interp(z, path[order, 2], anatomy.rectum_radii[order])[:, None, None]
    amount = anatomy.traits["rectum_gas"]
    # A level of −1 radius is empty, +1 full; pockets come and go along the rectum.
    level = (2.2 * amount - 1.75 if amount > 0.35 else -3.0) + 0.5 * stool
    height = (near.y - centre) if anatomy.prone else (centre - near.y)
    return np.asarray(-height - level * radius, dtype=np.float32)


def _paint_bowel(ct: Singles, anatomy: Anatomy, space: Space, bowel: Singles, rng: np.random.Generator) -> None:
    if not anatomy.bowel:
        return
    box, near = space.near((0.0, anatomy.middle_y_mm - 40.0, 105.0), 145.0)
    loops = bowel[box]
    content = 260.0 if anatomy.traits["contrast"] < 0.2 else 22.0
    texture = Waves.draw(rng, 18.0, 45.0).at(near)
    _blend_in(ct, box, loops, 42.0)
    _blend_in(ct, box, loops + 2.5, content + 12.0 * texture)
    _blend_in(ct, box, np.maximum(loops + 3.0, (1.1 - texture) * 8.0), GAS_HU)


def _paint_couch(ct: Singles, body: Mask, grid: Grid, prone: bool) -> None:
    """A flat table top under the patient: two thin skins around foam."""
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    y, x = grid.axes_mm()[1], grid.axes_mm()[2]
    below = (y[rows[0]] - y) if prone else (y - y[rows[-1]])
    across = np.abs(x - (x[0] + x[-1]) / 2.0)
    for low, high, half_width, hu in ((1.0, 4.0, 262.0, COUCH_SKIN_HU), (4.0, 46.0, 255.0, COUCH_FOAM_HU),
                                      (46.0, 49.0, 240.0, COUCH_SKIN_HU)):  # fmt: skip
        plate = ((below > low) & (below <= high))[:, None] & (across <= half_width)[None, :]
        ct[np.broadcast_to(plate[None], ct.shape) & ~body] = hu


def _as_scanned(ct: Singles, grid: Grid, noise_hu: float, rng: np.random.Generator) -> HuArray:
    sigma = (0.0, BLUR_MM / grid.spacing_mm[1], BLUR_MM / grid.spacing_mm[2])
    image = gaussian_filter(ct, sigma)
    noise = gaussian_filter(rng.standard_normal(ct.shape, dtype=np.float32), (0.0, 0.6, 0.6))
    noise *= noise_hu / float(noise.std())
    # Air is clipped at the scale's end on scanners: its noise is one-sided.
    return np.asarray(np.rint(np.clip(image + noise, -1024.0, 3071.0)), dtype=np.int16)
