"""A male pelvis as implicit shapes, drawn from cited ranges.

Everything is in mm relative to the prostate's centre: +x left, +y posterior, +z to the head. The anatomy is schematic:
organs lie, touch and vary as in planning CT, their fine form is invented (docs/explanation/phantom.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Floats, Singles
from doseledger.phantom.shapes import Point, Space, Waves, blend, capsule, ellipsoid, smooth_path, tube
from doseledger.phantom.traits import load_ranges

WAVES = ("body", "prostate", "bladder", "rectum", "nodes", "fat", "stool", "muscle")
STEPS = 3
# Radius of the nodal volume around the iliac vessels and in the flat obturator space, as shares of node_radius_mm.
NODE_SHARES = (1.0, 0.95, 0.75)


@dataclass(frozen=True)
class Anatomy:
    """One patient's pelvis.

    Parameters
    ----------
    waves
        Smooth random fields that make each organ's surface uneven.
    rectum_path, rectum_radii
        Centre line (point, 3) and radius at each point, from the anus up.
    bowel
        Loops: each a path (point, 3).
    prone
        Whether the patient lies on the belly.
    abutting
        Whether PTV56 stops where PTV70 begins, instead of containing it.
    """

    traits: Mapping[str, float]
    waves: Mapping[str, Waves]
    rectum_path: Floats
    rectum_radii: Floats
    bowel: tuple[Floats, ...]
    prone: bool
    abutting: bool

    @property
    def prostate_radii(self) -> Point:
        """Half axes of the prostate."""
        r = (3000.0 * self.traits["prostate_cc"] / (4.0 * math.pi)) ** (1.0 / 3.0)
        return 1.12 * r, 0.90 * r, r / (1.12 * 0.90)

    @property
    def back_mm(self) -> float:
        """Where the sacrum's hollow begins: behind the widest rectum."""
        return float(np.max(self.rectum_path[:, 1] + self.rectum_radii)) + 7.0

    @property
    def half_depth_mm(self) -> float:
        """Half the anteroposterior diameter: as drawn, but never too small for bladder and sacrum."""
        return max(self.traits["anteroposterior_mm"], self.back_mm + 145.0) / 2.0

    @property
    def middle_y_mm(self) -> float:
        """Middle of the body from front to back."""
        return max(6.0, self.back_mm + 48.0 - self.half_depth_mm)

    @property
    def fat_mm(self) -> float:
        """Depth of the fat under the skin: thicker in larger patients."""
        return self.traits["fat_mm"] * (self.half_depth_mm / 118.0) ** 1.5

    @property
    def half_width_mm(self) -> float:
        """Half the lateral diameter at the hips, wide enough for the trochanters."""
        return max(self.traits["lateral_mm"] / 2.0, self.femur_points(1)[1][0] + 22.0 + 0.8 * self.fat_mm)

    def femur_points(self, side: int) -> tuple[Point, Point, Point]:
        """Centre of the head, root of the neck and lower end of the shaft; side +1 is left."""
        t, s = self.traits, self.traits["pelvis_scale"]
        head = (side * 91.0 * s, -4.0 * s, 18.0 * s)
        offset = t["neck_offset_mm"]
        drop = offset * math.tan(math.radians(t["neck_angle_deg"] - 90.0))
        root = (
            head[0] + side * offset,
            head[1] + offset * math.sin(math.radians(t["neck_version_deg"])),
            head[2] - drop,
        )
        inward = 170.0 * math.sin(math.radians(7.0 - t["hip_angle_deg"]))
        return head, root, (root[0] - side * inward, root[1] + 4.0, root[2] - 170.0)

    def body(self, space: Space) -> Singles:
        """Return the skin: trunk and thighs, flattened by the couch."""
        a, b, middle = self.half_width_mm, self.half_depth_mm, self.middle_y_mm
        # The waist is narrower than the hips, the belly a little deeper.
        lift = np.clip(space.z / 150.0, -0.2, 1.0)
        trunk_a, trunk_b = a * (1.0 - 0.07 * lift), b * (1.0 + 0.03 * lift)
        u, v = np.abs(space.x) / trunk_a, np.abs(space.y - middle) / trunk_b
        # Squarer than an ellipse: |u|^2.5 + |v|^2.5 = 1.
        size = (u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** np.float32(0.4)
        trunk = (size - 1.0) * np.minimum(trunk_a, trunk_b)
        trunk = np.maximum(trunk, -52.0 - space.z)
        legs = None
        for side in (1, -1):
            u, v = (space.x - side * 0.50 * a) / (0.485 * a), (space.y - middle - 2.0) / (0.92 * b)
            leg = (np.sqrt(u * u + v * v) - 1.0) * 0.485 * a + np.maximum(space.z + 20.0, 0.0)
            legs = leg if legs is None else np.minimum(legs, leg)
        if legs is None:
            raise BadInput("a body needs legs")
        skin = blend(np.asarray(trunk, np.float32), np.asarray(legs, np.float32), 24.0)
        skin = skin + 1.5 * self.waves["body"].at(space)
        # The plane of the couch is the scanner's, but a few degrees of roll change nothing here.
        under = (middle + b - self.traits["flattening_mm"]) - space.y
        over = space.y - (middle - b + self.traits["flattening_mm"])
        return np.asarray(np.maximum(skin, -over if self.prone else -under), dtype=np.float32)

    def prostate(self, space: Space) -> Singles:
        """Return the prostate."""
        return ellipsoid(space, (0.0, 0.0, 0.0), self.prostate_radii) + np.float32(1.0) * self.waves["prostate"].at(
            space
        )

    def vesicles(self, space: Space) -> Singles:
        """Return both seminal vesicles."""
        _, ry, rz = self.prostate_radii
        f = (self.traits["vesicle_cc"] / 2.9) ** (1.0 / 3.0)
        y, z = 0.5 * ry, 0.82 * rz
        left, right = (
            capsule(space, (s * 5.0, y, z), (s * 24.0 * f, y + 6.0, z + 13.0), (5.6 * f, 4.6 * f)) for s in (1, -1)
        )
        return np.minimum(left, right)

    def bladder(self, space: Space) -> Singles:
        """Return the bladder with its wall; it rests on the prostate's base and gives way to it."""
        _, _, rz = self.prostate_radii
        volume = 1000.0 * self.traits["bladder_cc"]
        r = (3.0 * volume / (4.0 * math.pi)) ** (1.0 / 3.0)
        a, b = min(1.08 * r, 46.0 * self.traits["pelvis_scale"]), 0.96 * r
        c = 3.0 * volume / (4.0 * math.pi * a * b)
        # The neck sits on the prostate, the dome leans forward over the symphysis.
        lean = (17.0 - b) * np.clip((space.z - rz + 10.0) / c, 0.0, 1.0) - 4.0
        upright = Space(space.x, space.y - lean, space.z)
        field = ellipsoid(upright, (0.0, 0.0, rz + c - 10.0), (a, b, c)) + 1.8 * self.waves["bladder"].at(space)
        return np.asarray(np.maximum(field, 1.5 - np.minimum(self.prostate(space), self.vesicles(space))), np.float32)

    def rectum(self, space: Space) -> Singles:
        """Return the rectum with its wall and contents, from the anal canal to the sigmoid."""
        points = [(float(x), float(y), float(z)) for x, y, z in self.rectum_path]
        field = tube(space, points, [float(r) for r in self.rectum_radii]) + 0.9 * self.waves["rectum"].at(space)
        others = np.minimum(np.minimum(self.prostate(space), self.vesicles(space)), self.bladder(space))
        return np.asarray(np.maximum(field, 1.0 - others), dtype=np.float32)

    def rectum_span_mm(self) -> tuple[float, float]:
        """Lowest and highest z that are contoured as rectum."""
        rz = self.prostate_radii[2]
        return -rz - 21.0, rz + 60.0

    def nodes(self, space: Space) -> Singles:
        """Return the elective nodal volume: common, external and internal iliac and obturator vessels."""
        field = None
        for path, share in zip(self.vessel_paths(), NODE_SHARES * 2, strict=True):
            chain = tube(space, path, [share * self.traits["node_radius_mm"]] * len(path))
            field = chain if field is None else blend(field, chain, 6.0)
        if field is None:
            raise BadInput("no vessel to draw nodes around")
        field = field + 0.8 * self.waves["nodes"].at(space)
        return np.asarray(np.maximum(field, 1.0 - self.bladder(space)), dtype=np.float32)

    def vessel_paths(self) -> list[list[Point]]:
        """Centre lines of the iliac vessels and of the obturator space: three on the left, three on the right."""
        s, top = self.traits["pelvis_scale"], self.traits["node_top_mm"]
        fork = top - 14.0
        bend = (fork + 52.0) / 2.0
        paths: list[list[Point]] = []
        for side in (1.0, -1.0):
            x = side * s
            paths += [
                [(36 * x, 25 * s, top), (48 * x, 19 * s, fork), (53 * x, -3 * s, bend), (54 * x, -21 * s, 53)],
                [(48 * x, 19 * s, fork), (52 * x, 33 * s, (fork + 44) / 2), (51 * x, 34 * s, 44)],
                [(53 * x, -3 * s, bend), (48 * x, -3 * s, 36), (45 * x, -2 * s, 25)],
            ]
        return paths

    def ptv70(self, space: Space) -> Singles:
        """Return the prostate grown by its margin, less towards the rectum."""
        margin, posterior = self.traits["margin_mm"], self.traits["posterior_margin_mm"]
        backward = np.clip(space.y / self.prostate_radii[1], 0.0, 1.0)
        return np.asarray(self.prostate(space) - margin + (margin - posterior) * backward, dtype=np.float32)

    def ptv56(self, space: Space) -> Singles:
        """Return the elective target: vesicles and nodes with their margin, and PTV70 in it or cut out of it."""
        high = self.ptv70(space)
        low = np.minimum(self.vesicles(space), self.nodes(space)) - np.float32(self.traits["margin_mm"])
        return np.asarray(np.maximum(low, -high) if self.abutting else np.minimum(low, high), dtype=np.float32)

    def femur(self, space: Space, side: int) -> Singles:
        """Return the upper femur of one side; +1 is left."""
        head, root, end = self.femur_points(side)
        r = self.traits["head_radius_mm"]
        field = ellipsoid(space, head, (r, r, r))
        field = blend(field, capsule(space, head, root, (0.66 * r, 0.70 * r)), 6.0)
        trochanter = (root[0] + side * 5.0, root[1] + 8.0, root[2] + 12.0)
        field = blend(field, ellipsoid(space, trochanter, (13.0, 16.0, 17.0)), 6.0)
        return blend(field, capsule(space, root, end, (18.0, 14.0)), 6.0)

    def bowel_loops(self, space: Space) -> Singles:
        """Return the small bowel: loops kept clear of the elective target and of the bladder."""
        field = np.full(np.broadcast_shapes(space.x.shape, space.y.shape, space.z.shape), 99.0, dtype=np.float32)
        for path in self.bowel:
            points = [(float(x), float(y), float(z)) for x, y, z in path]
            np.minimum(field, tube(space, points, [self.traits["bowel_radius_mm"]] * len(points)), out=field)
        clear = np.minimum(self.ptv56(space) - self.traits["bowel_gap_mm"], self.bladder(space) - 2.0)
        return np.asarray(np.maximum(field, -clear), dtype=np.float32)


def draw_anatomy(rng: np.random.Generator, *, prone: bool = False, bowel_gap_mm: float | None = None) -> Anatomy:
    """Return a patient drawn from anatomy_ranges.yaml; a gap that is given has a loop of bowel come that near."""
    traits = {name: trait.draw(rng) for name, trait in load_ranges().items()}
    if bowel_gap_mm is not None:
        traits["bowel_gap_mm"] = bowel_gap_mm
    waves = {name: Waves.draw(rng, 35.0, 90.0) for name in WAVES}
    none = np.zeros((0, 3))
    bare = Anatomy(traits, waves, none, np.zeros(0), (), prone, bool(rng.uniform() < 0.2))
    path, radii = _draw_rectum(rng, bare)
    bare = Anatomy(traits, waves, path, radii, (), prone, bare.abutting)
    return Anatomy(traits, waves, path, radii, _draw_bowel(rng, bare, bowel_gap_mm is not None), prone, bare.abutting)


def _draw_rectum(rng: np.random.Generator, anatomy: Anatomy) -> tuple[Floats, Floats]:
    _, ry, rz = anatomy.prostate_radii
    r = anatomy.traits["rectum_radius_mm"]
    x = rng.normal(0.0, 3.0, 4)
    side = rng.choice([-1.0, 1.0])
    points = np.array([
        [0.0, ry + 20.0, -rz - 40.0],
        [0.0, ry + 10.0, -rz - 15.0],
        [x[0], ry - 2.5 + 0.92 * r, -2.0],
        [x[1], ry - 0.5 + r, rz + 6.0],
        [x[2], ry + 13.0 + r, rz + 34.0],
        [x[3] + 8.0 * side, ry + 14.0 + 0.8 * r, rz + 60.0],
        [22.0 * side, ry + 8.0, rz + 80.0],
        [48.0 * side, ry - 4.0, rz + 94.0],
    ])  # fmt: skip
    radii = np.array([10.5, 11.0, 0.92 * r, 1.05 * r, 0.95 * r, 0.80 * r, 0.75 * r, 0.75 * r])
    curve = smooth_path(np.column_stack([points, radii]), STEPS)
    return curve[:, :3], curve[:, 3]


def _draw_bowel(rng: np.random.Generator, anatomy: Anatomy, come_near: bool) -> tuple[Floats, ...]:
    """Draw loops through random points of the free space above the bladder and in front of the nodes.

    Where one shall come near to PTV56, the first begins where it is nearest.
    """
    radius = anatomy.traits["bowel_radius_mm"]
    front = anatomy.middle_y_mm - anatomy.half_depth_mm + anatomy.fat_mm + radius + 14.0
    # Behind y = 5 mm the sigmoid and the upper rectum begin.
    points = rng.uniform((-78.0, front, 20.0), (78.0, 5.0, 170.0), (1500, 3))
    space = Space.of_points(points)
    free = anatomy.ptv56(space) > anatomy.traits["bowel_gap_mm"] + radius + 1.0
    free &= anatomy.bladder(space) > radius + 3.0
    free &= np.abs(points[:, 0]) < 82.0 - 0.25 * np.maximum(60.0 - points[:, 2], 0.0)
    points = points[free]
    nearest = points[[np.argmin(anatomy.ptv56(space)[free])]] if come_near and len(points) else points
    loops: list[Floats] = []
    for _ in range(int(anatomy.traits["bowel_loops"])):
        if len(points) < 8:
            break
        starts = points if loops else nearest
        path = [starts[rng.integers(len(starts))]]
        for _ in range(5):
            # The next bend of a loop is a near one, not the nearest: 30 to 55 mm on.
            away = np.linalg.norm(points - path[-1], axis=1)
            near = np.flatnonzero((away > 28.0) & (away < 55.0))
            if len(near) == 0:
                break
            path.append(points[rng.choice(near)])
        if len(path) > 2:
            loops.append(smooth_path(np.array(path), STEPS))
    return tuple(loops)
