"""ROIs of a structure set: type, volume, side, outlines on a slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.project.protocol import Protocol
from doseledger.dicom.read_structures import Roi, read_contours
from doseledger.dicom.values import MALFORMED
from doseledger.ingest.body import find_body_roi
from doseledger.ingest.names.nomenclature import Side, read_name

Polygon = NDArray[np.float64]
# Contours nearer to each other along z are of one plane.
PLANE_TOLERANCE_MM = 0.1
MM3_PER_CC = 1000.0
# Edges that are tested for points on a plane, at most: ten seconds' work.
MOST_TESTED = 100_000_000


@dataclass(frozen=True)
class RoiFacts:
    """What is seen of one ROI.

    Parameters
    ----------
    polygons
        (z in mm, points (n, 2) as x, y in mm) of each closed contour.
    volume_cc
        Areas of its contours times the distance of their planes; None without contours.
    side
        Where it lies from the body's middle: L or R where it lies there whole, else both.
    fault
        Why its contours can't be read; empty where they can.
    """

    name: str
    number: int
    kind: str
    polygons: list[tuple[float, Polygon]]
    volume_cc: float | None
    side: Side
    fault: str = ""

    @property
    def drawn(self) -> bool:
        """Whether there are contours, readable or not."""
        return bool(self.polygons or self.fault)

    @property
    def low_mm(self) -> NDArray[np.float64]:
        """Least x, y, z of its contours."""
        return _extreme(self.polygons, np.min)

    @property
    def high_mm(self) -> NDArray[np.float64]:
        """Largest x, y, z of its contours."""
        return _extreme(self.polygons, np.max)


def _extreme(polygons: Sequence[tuple[float, Polygon]], pick: Any) -> NDArray[np.float64]:
    ends = np.stack([np.append(pick(points, axis=0), z) for z, points in polygons])
    extreme: NDArray[np.float64] = pick(ends, axis=0)
    return extreme


def measure_rois(rois: Sequence[Roi], protocol: Protocol | None, slice_mm: float | None) -> list[RoiFacts]:
    """Return what is seen of each ROI, in the order of the structure set.

    Parameters
    ----------
    protocol
        Whose names the outline has; without one, TG-263's External and the ROI type tell it.
    slice_mm
        Distance of the image's slices: how thick a structure of one plane is.
    """
    read = [(roi, *_read(roi)) for roi in rois]
    outline = _outline(list(rois), protocol)
    middle = None
    for roi, polygons, _ in read:
        if roi is outline and polygons:
            middle = (_extreme(polygons, np.min)[0] + _extreme(polygons, np.max)[0]) / 2.0
    return [
        RoiFacts(
            name=roi.name,
            number=roi.number,
            kind=roi.interpreted_type,
            polygons=polygons,
            volume_cc=volume_cc(polygons, slice_mm),
            side=_side(polygons, middle),
            fault=fault,
        )
        for roi, polygons, fault in read
    ]


def _outline(rois: list[Roi], protocol: Protocol | None) -> Roi | None:
    if protocol is not None:
        return find_body_roi(rois, protocol)
    kinds = [roi for roi in rois if roi.items and roi.interpreted_type == "EXTERNAL"]
    return next(iter([*kinds, *(roi for roi in rois if roi.items and read_name(roi.name).organ == "External")]), None)


def _read(roi: Roi) -> tuple[list[tuple[float, Polygon]], str]:
    if not roi.items:
        return [], ""
    try:
        return read_contours(roi, "").polygons, ""
    except BadCase as error:
        return [], error.reason
    except MALFORMED as error:
        return [], f"contours of {roi.name} can't be read ({type(error).__name__}); export the structure set again"


def _side(polygons: list[tuple[float, Polygon]], middle_mm: float | None) -> Side:
    if middle_mm is None or not polygons:
        return ""
    low, high = _extreme(polygons, np.min)[0], _extreme(polygons, np.max)[0]
    return "L" if low > middle_mm else "R" if high < middle_mm else "both"


def volume_cc(polygons: Sequence[tuple[float, Polygon]], slice_mm: float | None) -> float | None:
    """Return the volume of a stack of contours in cc, None where there is none or it can't be told.

    It can't of one plane of unknown thickness, and of thousands of contours within each other.

    Notes
    -----
    A contour inside another is a hole, even-odd. Meant for a survey: planes that are missing count as empty.
    """
    planes: list[tuple[float, list[Polygon]]] = []
    for z, points in sorted(polygons, key=lambda item: item[0]):
        if planes and z - planes[-1][0] <= PLANE_TOLERANCE_MM:
            planes[-1][1].append(points)
        else:
            planes.append((z, [points]))
    steps = np.diff([z for z, _ in planes])
    step = float(np.median(steps)) if len(steps) else slice_mm
    if not planes or step is None:
        return None
    volume = sum(_area_mm2(plane) for _, plane in planes) * step / MM3_PER_CC
    return None if math.isnan(volume) else volume


def _area_mm2(plane: Sequence[Polygon]) -> float:
    """Area within contours of one plane, even-odd; NaN where telling which lie inside which would take too long."""
    areas = np.asarray([abs(_shoelace(points)) for points in plane])
    if len(plane) == 1:
        return float(areas[0])
    starts, around = np.stack([points[0] for points in plane]), np.zeros(len(plane), dtype=np.intp)
    tested = 0
    for points, area in zip(plane, areas, strict=True):
        low, high = points.min(axis=0), points.max(axis=0)
        inner = np.flatnonzero((areas < area) & ((starts >= low) & (starts <= high)).all(axis=1))
        tested += len(inner) * len(points)
        if tested > MOST_TESTED:
            return float("nan")
        around[inner] += _holds(points, starts[inner])
    return float((areas * np.where(around % 2, -1.0, 1.0)).sum())


def _shoelace(points: Polygon) -> float:
    x, y = points[:, 0] - points[0, 0], points[:, 1] - points[0, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0


def _holds(polygon: Polygon, points: Polygon) -> NDArray[np.bool_]:
    """Which points (n, 2) lie inside a polygon, by the crossings of a ray along x."""
    x, y = polygon.T
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    found = np.empty(len(points), dtype=np.bool_)
    for index, (at_x, at_y) in enumerate(points):
        crossed = np.flatnonzero((y > at_y) != (y1 > at_y))
        meets = x[crossed] + (at_y - y[crossed]) * (x1[crossed] - x[crossed]) / (y1[crossed] - y[crossed])
        found[index] = np.count_nonzero(meets > at_x) % 2
    return found
