"""A slice through the middle of the target, with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage

from doseledger.core.grid import Grid
from doseledger.dicom.source import lenient, parse_dataset
from doseledger.dicom.values import MALFORMED
from doseledger.ingest.survey.dump import Found
from doseledger.ingest.survey.objects import Series
from doseledger.ingest.survey.rois import Polygon, RoiFacts

# Soft-tissue window, in HU; of an MR the middle 96 % of its values.
WINDOW_HU = (-160.0, 240.0)
MR_PERCENTILES = (2.0, 98.0)
# Pictures in a page are no larger: two hundred of them are sent as one file.
MOST_PIXELS = 192
# Grey values of air about the body, the least part of a picture that is a body, and what is shown about it.
DARK, LEAST_BODY, MARGIN_PX = 25, 0.02, 6
DECODING = (*MALFORMED, RuntimeError)


@dataclass(frozen=True)
class MidSlice:
    """A picture: grey values (row, column) of the patient seen from the feet, and outlines in its pixels.

    Parameters
    ----------
    grey
        uint8; the patient's left is on the right, his back below.
    outlines
        Name of the ROI, and (n, 2) as column, row.
    aspect
        Height of a pixel per its width.
    """

    grey: NDArray[np.uint8]
    outlines: list[tuple[str, Polygon]]
    aspect: float
    z_mm: float


def take_mid_slice(series: Series, grid: Grid, rois: Sequence[RoiFacts], target: str) -> MidSlice | None:
    """Return the slice through the middle of a target with the outlines of all ROIs; None where it can't be decoded.

    Parameters
    ----------
    target
        ROI Name of what the slice goes through; of the image's middle where it is not drawn.
    """
    middle = next((roi for roi in rois if roi.name == target and roi.polygons), None)
    low, high = grid.extent_mm[0][0], grid.extent_mm[1][0]
    z_mm = (low + high) / 2.0 if middle is None else float((middle.low_mm[2] + middle.high_mm[2]) / 2.0)
    item = min(series.items, key=lambda found: abs(_z_mm(found) - z_mm))
    if not np.isfinite(_z_mm(item)):
        return None
    image = _read_grey(item, series.modality)
    if image is None:
        return None
    z_mm, half = _z_mm(item), grid.spacing_mm[0] / 2.0
    origin, spacing = np.asarray(grid.origin_mm[:0:-1]), np.asarray(grid.spacing_mm[:0:-1])
    outlines = [
        (roi.name, (points - origin) / spacing) for roi in rois for z, points in roi.polygons if abs(z - z_mm) <= half
    ]
    row_cut, column_cut = body_cut(image, [points for _, points in outlines])
    image, first = image[row_cut, column_cut], np.asarray((column_cut.start, row_cut.start))
    step = max(1, -(-max(image.shape) // MOST_PIXELS))
    shown = [(name, (points - first) / step) for name, points in outlines]
    return MidSlice(image[::step, ::step], shown, float(spacing[1] / spacing[0]), z_mm)


def body_cut(grey: NDArray[np.uint8], outlines: Sequence[Polygon]) -> tuple[slice, slice]:
    """Return the rows and columns that hold the body, the largest part that is not dark, and every outline.

    Parameters
    ----------
    grey
        (row, column).
    outlines
        (n, 2) each, as column, row.
    """
    parts, n_parts = ndimage.label(grey > DARK)
    sizes = np.bincount(parts.ravel())[1:]
    if n_parts == 0 or sizes.max() < LEAST_BODY * grey.size:
        return slice(0, grey.shape[0]), slice(0, grey.shape[1])
    body = np.argwhere(parts == 1 + int(sizes.argmax()))
    points = np.concatenate([body, *(np.asarray(outline)[:, ::-1] for outline in outlines)])
    points = points[np.isfinite(points).all(axis=1)]
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - MARGIN_PX, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1 + MARGIN_PX, grey.shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _z_mm(found: Found) -> float:
    position = found.header.get("ImagePositionPatient")
    try:
        return float(position[2]) if position is not None else np.nan
    except DECODING:
        return np.nan


def _read_grey(item: Found, modality: str) -> NDArray[np.uint8] | None:
    """The slice as grey values, turned so that x grows to the right and y downwards."""
    with lenient():
        try:
            dataset = parse_dataset(item.file.read())
            if dataset is None or dataset.pixel_array.ndim != 2:
                return None
            slope, intercept = dataset.get("RescaleSlope") or 1.0, dataset.get("RescaleIntercept") or 0.0
            values = dataset.pixel_array.astype(np.float32) * float(slope) + float(intercept)
            return _as_grey(_turned(values, dataset), WINDOW_HU if modality == "CT" else None)
        except DECODING:
            return None


def _turned(values: NDArray[np.float32], dataset: pydicom.Dataset) -> NDArray[np.float32]:
    cosines = np.asarray([float(value) for value in dataset.ImageOrientationPatient])
    # A row that runs along y is a patient on his side: rows and columns change places.
    if abs(cosines[1]) > abs(cosines[0]):
        values, cosines = values.T, np.roll(cosines, 3)
    values = values[:, ::-1] if cosines[0] < 0 else values
    return values[::-1] if cosines[4] < 0 else values


def _as_grey(values: NDArray[np.float32], window: tuple[float, float] | None) -> NDArray[np.uint8]:
    low, high = window if window is not None else np.percentile(values, MR_PERCENTILES)
    share = (values - low) / max(float(high - low), 1e-6)
    return np.rint(255.0 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
