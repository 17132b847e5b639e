"""CT (or MR) slices of one series -> a volume in HU on a Grid; irregular geometry is refused, never patched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.multival import MultiValue

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.dicom.geometry import Planes, even_step_mm, numbers, read_orientation, to_lps

# What lies outside the reconstructed circle is air by definition of the scale (water 0, air -1000 HU).
AIR_HU = -1000
# What of a scanner shows in its images, by the name that a case keeps it under. None of these is an attribute of DICOM
# PS3.15 table E.1-1: they name a make and a setting, no device and no person.
SCANNER_ATTRIBUTES = {
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "kvp": "KVP",
}
INT16 = np.iinfo(np.int16)
NOT_AXIAL = "the image's planes are not axial; reconstruct it to axial planes before export"


@dataclass(frozen=True)
class Image:
    """An image volume.

    Parameters
    ----------
    values
        int16 (z, y, x): HU for CT.
    grid
        Its own grid, axes ascending in LPS.
    n_padded
        Pixels that the scanner declared as padding, set to air.
    """

    values: NDArray[np.int16]
    grid: Grid
    n_padded: int


def read_image(slices: list[pydicom.Dataset], case_id: str, note: str = "") -> Image:
    """Return the volume of one series in HU, sorted along the slice normal.

    Parameters
    ----------
    slices
        Data sets of the series, in any order.
    case_id
        Who the errors name.
    note
        Added to each refusal: what else is known to be missing.

    Raises
    ------
    BadCase
        Fewer than two slices; slices of different size, spacing or orientation; two at one position; irregular or
        missing positions; a tilted or sheared stack; pixels that can't be decoded.

    Notes
    -----
    DICOM PS3.3 C.7.6.2.1.1 (geometry) and C.11.1.1.2 (Rescale Slope and Intercept).
    """

    try:
        return _read_series(slices, case_id)
    except BadCase as error:
        raise BadCase(case_id, f"{error.reason}; {note}" if note else error.reason) from error


def read_scanner(slices: list[pydicom.Dataset]) -> dict[str, str]:
    """Return what the slices say of the scanner that made them, of `SCANNER_ATTRIBUTES` those that they have.

    Slices that differ give each of their values, sorted, with " | " between.
    """
    found = {}
    for name, keyword in SCANNER_ATTRIBUTES.items():
        said = sorted({_as_text(item.get(keyword)) for item in slices} - {""})
        if said:
            found[name] = " | ".join(said)
    return found


def _as_text(value: object) -> str:
    """Text of an attribute's value; several values are one text, as DICOM writes them."""
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(part).strip() for part in parts)


def _read_series(slices: list[pydicom.Dataset], case_id: str) -> Image:
    planes, order = arrange_slices(slices, case_id)
    volume, n_padded = _hounsfield([slices[i] for i in order], case_id)
    turned, grid = to_lps(volume, planes, case_id, "image")
    if int(np.argmax(np.abs(np.cross(planes.row_xyz, planes.column_xyz)))) != 2:
        raise BadCase(case_id, NOT_AXIAL)
    return Image(np.ascontiguousarray(turned), grid, n_padded)


def arrange_slices(slices: list[pydicom.Dataset], case_id: str) -> tuple[Planes, NDArray[np.intp]]:
    """Return the planes of one series, and the order of its slices along the normal; pixels are not looked at.

    Raises
    ------
    BadCase
        As `read_image` does for the geometry.
    """
    if len(slices) < 2:
        raise BadCase(case_id, f"{len(slices)} image slice found, wanted at least 2; export the whole series")
    first = slices[0]
    row, column = read_orientation(first, case_id)
    spacing = numbers(first, "PixelSpacing", 2, case_id)
    _check_alike(slices, case_id)
    positions = np.stack([numbers(item, "ImagePositionPatient", 3, case_id) for item in slices])
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    step = _slice_step(along[order], case_id)
    lateral = positions - along[:, None] * normal
    shift = float(np.abs(lateral - lateral[0]).max())
    if shift > min(0.1, 0.1 * float(spacing.min())):
        reason = f"slices are shifted sideways by up to {shift:.2f} mm (gantry tilt); reconstruct without tilt"
        raise BadCase(case_id, reason)
    return Planes(row, column, float(spacing[0]), float(spacing[1]), positions[order[0]], step), order


def read_image_grid(slices: list[pydicom.Dataset], case_id: str) -> Grid:
    """Return the grid of one series from its headers, ascending in LPS.

    Raises
    ------
    BadCase
        As `read_image` does for the geometry.
    """
    planes, order = arrange_slices(slices, case_id)
    empty = np.broadcast_to(np.uint8(0), (len(order), int(slices[0].Rows), int(slices[0].Columns)))
    grid = to_lps(empty, planes, case_id, "image")[1]
    if int(np.argmax(np.abs(np.cross(planes.row_xyz, planes.column_xyz)))) != 2:
        raise BadCase(case_id, NOT_AXIAL)
    return grid


def _check_alike(slices: list[pydicom.Dataset], case_id: str) -> None:
    """Refuse slices whose size, pixel spacing or orientation differ from the first one's."""
    first = slices[0]
    wanted = [numbers(first, "PixelSpacing", 2, case_id), np.concatenate(read_orientation(first, case_id))]
    for other in slices[1:]:
        if (other.Rows, other.Columns) != (first.Rows, first.Columns):
            sizes = f"{first.Rows}×{first.Columns} and {other.Rows}×{other.Columns}"
            raise BadCase(case_id, f"slices of {sizes} pixels in one series; export one reconstruction")
        if not np.allclose(numbers(other, "PixelSpacing", 2, case_id), wanted[0], atol=1e-4):
            raise BadCase(case_id, "slices of different PixelSpacing in one series; export one reconstruction")
        if not np.allclose(np.concatenate(read_orientation(other, case_id)), wanted[1], atol=1e-4):
            raise BadCase(
                case_id, "slices of different ImageOrientationPatient in one series; is a localiser among them?"
            )


def _slice_step(along: NDArray[np.float64], case_id: str) -> float:
    """The even step of sorted slice positions in mm."""
    steps = np.diff(along)
    if steps.min() < 0.01:
        at = along[int(np.argmin(steps))]
        raise BadCase(case_id, f"two slices at position {at:.2f} mm; keep one reconstruction of the series")
    step = even_step_mm(along)
    if step is not None:
        return step
    usual = float(np.median(steps))
    missing = np.rint(steps / usual) - 1
    gaps = np.flatnonzero(missing > 0)
    if len(gaps) and np.allclose(steps / usual, missing + 1, atol=0.1):
        where = ", ".join(f"{along[i]:.2f} and {along[i + 1]:.2f}" for i in gaps[:3])
        raise BadCase(
            case_id,
            f"{int(missing.sum())} slices of the usual {usual:g} mm are missing between positions {where} mm; "
            "export the whole series",
        )
    raise BadCase(
        case_id,
        f"slice positions are irregular: steps from {steps.min():.3f} to {steps.max():.3f} mm; "
        "reconstruct the series with one slice distance",
    )


def _hounsfield(slices: list[pydicom.Dataset], case_id: str) -> tuple[NDArray[np.int16], int]:
    """Pixels after slope and intercept, int16 (slice, row, column), and how many were padding."""
    volume = np.empty((len(slices), int(slices[0].Rows), int(slices[0].Columns)), dtype=np.int16)
    n_padded = 0
    for index, item in enumerate(slices):
        if item.get("SamplesPerPixel", 1) != 1 or item.get("PhotometricInterpretation") not in (None, "MONOCHROME2"):
            raise BadCase(case_id, f"pixels are {item.get('PhotometricInterpretation')}, wanted MONOCHROME2")
        try:
            stored = item.pixel_array
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            syntax = item.file_meta.TransferSyntaxUID.name
            raise BadCase(case_id, f"pixels ({syntax}) can't be decoded: {error}; export uncompressed") from error
        slope, intercept = float(item.get("RescaleSlope", 1.0)), float(item.get("RescaleIntercept", 0.0))
        if slope == 1.0 and intercept == int(intercept):
            values = stored.astype(np.int32) + int(intercept)
        else:
            values = np.rint(stored * slope + intercept).astype(np.int32)
        padding = item.get("PixelPaddingValue")
        if padding is not None:
            limit = int(item.get("PixelPaddingRangeLimit", padding))
            # The padding value itself may be real data where it lies inside the scale, as 0 HU does.
            padded = (stored >= min(int(padding), limit)) & (stored <= max(int(padding), limit)) & (values < AIR_HU)
            n_padded += int(padded.sum())
            values[padded] = AIR_HU
        if values.min() < INT16.min or values.max() > INT16.max:
            raise BadCase(case_id, f"values from {values.min()} to {values.max()} after rescaling are no HU")
        volume[index] = values
    return volume, n_padded
