"""CT or MR planes of one series as a volume; irregular geometry is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.multival import MultiValue

from doseledger.core.damage import shorten
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.text.lists import first_of
from doseledger.dicom.frames import Plane, is_localizer, planes_of
from doseledger.dicom.geometry import Planes, even_step_mm, numbers, read_orientation, to_lps
from doseledger.dicom.pixels import padding_of, read_pixels
from doseledger.dicom.source import in_file, label_of
from doseledger.dicom.values import number, number_of, text_of, value_of, whole

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
# An intercept beyond this, or a value, is no HU; integers up to here add up exactly in 32 bits.
LARGEST_SHIFT = 1 << 20
# How many files a note names.
MOST_NAMED = 3


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
    notes
        What is odd about the files, a sentence each.
    """

    values: NDArray[np.int16]
    grid: Grid
    n_padded: int
    notes: tuple[str, ...] = ()


def read_image(slices: list[pydicom.Dataset], case_id: str, note: str = "") -> Image:
    """Return the volume of one series in HU, sorted along the slice normal.

    Parameters
    ----------
    slices
        Data sets of the series, in any order: one a plane, or enhanced ones of many.
    note
        Added to each refusal: what else is known to be missing.

    Raises
    ------
    BadCase
        Fewer than two slices; slices of different size, spacing or orientation; two at one position; irregular or
        missing positions; a tilted or sheared stack; an attribute that can't be what it says, a CT without its scale;
        pixels that can't be decoded.

    Notes
    -----
    DICOM PS3.3 C.7.6.2.1.1 (geometry) and C.11.1.1.2 (Rescale Slope and Intercept, which a CT must have). Scout views
    are left out.
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
        said = sorted({_as_text(item, keyword) for item in slices} - {""})
        if said:
            found[name] = " | ".join(said)
    return found


def _as_text(item: pydicom.Dataset, keyword: str) -> str:
    """Text of an attribute's value; several values are one text, as DICOM writes them."""
    try:
        value = value_of(item, keyword)
    except BadInput:
        return ""
    parts = value if isinstance(value, MultiValue) else [] if value is None else [value]
    return "\\".join(str(part).strip() for part in parts)


def _read_series(slices: list[pydicom.Dataset], case_id: str) -> Image:
    planes, stack, notes = arrange_slices(slices, case_id)
    volume, n_padded, odd = _hounsfield(stack, case_id)
    turned, grid = _axial(volume, planes, case_id)
    return Image(np.ascontiguousarray(turned), grid, n_padded, (*notes, *odd))


def arrange_slices(slices: list[pydicom.Dataset], case_id: str) -> tuple[Planes, list[Plane], list[str]]:
    """Return the geometry of one series, its planes in order along the normal, and notes; pixels are not looked at.

    Raises
    ------
    BadCase
        As `read_image` does for the geometry.
    """
    stack, notes = _planes(slices, case_id)
    if len(stack) < 2:
        raise BadCase(case_id, f"{len(stack)} image slice found, wanted at least 2; export the whole series")
    spacing = _check_alike(stack, case_id)
    row, column = read_orientation(stack[0].place, case_id)
    positions = np.stack([_numbers(plane, "ImagePositionPatient", 3, case_id) for plane in stack])
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    step = _slice_step(along[order], case_id)
    lateral = positions - along[:, None] * normal
    shift = float(np.abs(lateral - lateral[0]).max())
    if shift > min(0.1, 0.1 * float(spacing.min())):
        reason = f"slices are shifted sideways by up to {shift:.2f} mm (gantry tilt); reconstruct without tilt"
        raise BadCase(case_id, reason)
    planes = Planes(row, column, float(spacing[0]), float(spacing[1]), positions[order[0]], step)
    return planes, [stack[i] for i in order], notes


def read_image_grid(slices: list[pydicom.Dataset], case_id: str) -> Grid:
    """Return the grid of one series from its headers, ascending in LPS.

    Raises
    ------
    BadCase
        As `read_image` does for the geometry.
    """
    planes, stack, _ = arrange_slices(slices, case_id)
    size = whole(stack[0].place, "Rows"), whole(stack[0].place, "Columns")
    return _axial(np.broadcast_to(np.uint8(0), (len(stack), *size)), planes, case_id)[1]


def _axial(volume: NDArray[Any], planes: Planes, case_id: str) -> tuple[NDArray[Any], Grid]:
    turned, grid = to_lps(volume, planes, case_id, "image")
    if int(np.argmax(np.abs(np.cross(planes.row_xyz, planes.column_xyz)))) != 2:
        raise BadCase(case_id, NOT_AXIAL)
    return turned, grid


def _planes(slices: list[pydicom.Dataset], case_id: str) -> tuple[list[Plane], list[str]]:
    """The planes of a series without its scout views, and a note of those."""
    stack: list[Plane] = []
    scouts = []
    for item in slices:
        with in_file(item, case_id):
            if is_localizer(item):
                scouts.append(label_of(item))
            else:
                stack += planes_of(item)
    return stack, [f"{len(scouts)} scout views were left out ({_named(scouts)})"] if scouts else []


def _numbers(plane: Plane, keyword: str, count: int, case_id: str) -> NDArray[np.float64]:
    with in_file(plane.place, case_id):
        return numbers(plane.place, keyword, count, case_id)


def _check_alike(stack: list[Plane], case_id: str) -> NDArray[np.float64]:
    """Return the pixel spacing in mm, after refusing planes whose size, spacing or orientation differ."""
    looks = []
    for plane in stack:
        item = plane.place
        with in_file(item, case_id):
            size = whole(item, "Rows"), whole(item, "Columns")
            spacing = numbers(item, "PixelSpacing", 2, case_id)
            looks.append((size, spacing, np.concatenate(read_orientation(item, case_id))))
            if spacing.min() <= 0:
                raise BadInput(f"PixelSpacing is {spacing.tolist()}, wanted two positive sizes in mm; export again")
    size, spacing, cosines = looks[0]
    for other_size, other_spacing, other_cosines in looks[1:]:
        if other_size != size:
            sizes = f"{size[0]}×{size[1]} and {other_size[0]}×{other_size[1]}"
            raise BadCase(case_id, f"slices of {sizes} pixels in one series; export one reconstruction")
        if not np.allclose(other_spacing, spacing, atol=1e-4):
            raise BadCase(case_id, "slices of different PixelSpacing in one series; export one reconstruction")
        if not np.allclose(other_cosines, cosines, atol=1e-4):
            raise BadCase(
                case_id, "slices of different ImageOrientationPatient in one series; is a localiser among them?"
            )
    return spacing


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
        where = first_of([f"{along[i]:.2f} and {along[i + 1]:.2f} mm" for i in gaps], 3)
        raise BadCase(
            case_id,
            f"{int(missing.sum())} slices of the usual {usual:g} mm are missing between positions {where}; "
            "export the whole series",
        )
    raise BadCase(
        case_id,
        f"slice positions are irregular: steps from {steps.min():.3f} to {steps.max():.3f} mm; "
        "reconstruct the series with one slice distance",
    )


def _hounsfield(stack: list[Plane], case_id: str) -> tuple[NDArray[np.int16], int, list[str]]:
    """Pixels after slope and intercept, int16 (plane, row, column), how many were padding, and what is odd."""
    first = stack[0].place
    volume = np.empty((len(stack), whole(first, "Rows"), whole(first, "Columns")), dtype=np.int16)
    n_padded, pixels = 0, _PixelsOfOneFile()
    scales, bits = [], []
    for index, plane in enumerate(stack):
        with in_file(plane.file, case_id):
            stored = pixels.of(plane)
            if stored.shape != volume.shape[1:]:
                raise BadInput(f"pixels are {stored.shape}, wanted {volume.shape[1:]}; export it again")
            slope, intercept = read_scale(plane.place)
            scales.append(f"slope {slope:g}, intercept {intercept:g}")
            bits.append(f"BitsStored {whole(plane.file, 'BitsStored')}")
            values = _scaled(stored, slope, intercept)
            padding = padding_of(plane.file)
            if padding is not None:
                # The padding value itself may be real data where it lies inside the scale, as 0 HU does.
                padded = (stored >= padding[0]) & (stored <= padding[1]) & (values < AIR_HU)
                n_padded += int(padded.sum())
                values[padded] = AIR_HU
            if values.min() < INT16.min or values.max() > INT16.max:
                raise BadInput(f"values from {values.min():g} to {values.max():g} after rescaling are no HU")
            volume[index] = values
    labels = [label_of(plane.file) for plane in stack]
    return volume, n_padded, [*_odd_ones(scales, labels), *_odd_ones(bits, labels), *_repeats(volume, labels)]


class _PixelsOfOneFile:
    """Pixels of the file that was asked for last: an enhanced image is decoded once, and one file held at a time."""

    def __init__(self) -> None:
        self.file: pydicom.Dataset | None = None
        self.frames: NDArray[np.integer]

    def of(self, plane: Plane) -> NDArray[np.integer]:
        if self.file is not plane.file:
            kind = text_of(plane.file, "PhotometricInterpretation")
            if kind not in ("", "MONOCHROME2"):
                raise BadInput(f"pixels are {shorten(kind)}, wanted MONOCHROME2")
            self.file, self.frames = plane.file, read_pixels(plane.file)
        if plane.index >= len(self.frames):
            raise BadInput(f"frame {plane.index + 1} is described, but there are pixels of {len(self.frames)} frames")
        return self.frames[plane.index]


def read_scale(place: pydicom.Dataset) -> tuple[float, float]:
    """Return rescale slope and intercept of a plane; only images other than CT may leave them out.

    Raises
    ------
    BadInput
        If one is missing or no number, or the slope is not above 0.
    """
    if text_of(place, "Modality") == "CT":
        slope, intercept = number(place, "RescaleSlope"), number(place, "RescaleIntercept")
    else:
        given = number_of(place, "RescaleSlope"), number_of(place, "RescaleIntercept")
        slope, intercept = 1.0 if given[0] is None else given[0], given[1] or 0.0
    if slope <= 0:
        what = "be the same" if slope == 0 else "be turned over, air above bone"
        raise BadInput(f"RescaleSlope is {slope:g}: every pixel would {what}; wanted more than 0, export it again")
    return slope, intercept


def _scaled(stored: NDArray[np.integer], slope: float, intercept: float) -> NDArray[np.int32] | NDArray[np.float64]:
    whole_steps = slope == 1.0 and intercept == np.rint(intercept) and abs(intercept) <= LARGEST_SHIFT
    if whole_steps and stored.dtype.itemsize <= 2:
        return stored.astype(np.int32) + np.int32(intercept)
    return np.rint(stored.astype(np.float64) * slope + intercept)


def _odd_ones(said: Sequence[str], labels: Sequence[str]) -> list[str]:
    """A note of the files that say otherwise than most; those of a series are written alike by most scanners."""
    counts = Counter(said)
    if len(counts) == 1:
        return []
    (usual, count), *_ = counts.most_common()
    odd = [(text, label) for text, label in zip(said, labels, strict=True) if text != usual]
    if len(counts) > MOST_NAMED:
        return [f"{len(odd)} of {len(said)} slices differ from {usual}"]
    kinds = ", ".join(sorted({text for text, _ in odd}))
    return [f"{count} of {len(said)} slices have {usual}, but {kinds} in {_named([label for _, label in odd])}"]


def _repeats(volume: NDArray[np.int16], labels: Sequence[str]) -> list[str]:
    """A note of slices that are copies of the one before; without noise, as in a phantom, most are."""
    pairs = zip(volume, volume[1:], labels[1:], strict=False)
    same = [label for below, here, label in pairs if here.min() < here.max() and np.array_equal(below, here)]
    few = 0 < len(same) < len(volume) / 2
    return [f"{len(same)} slices are copies of the one before: {_named(same)}"] if few else []


def _named(labels: list[str]) -> str:
    known = [label for label in labels if label]
    return first_of(known, MOST_NAMED) if known else f"{len(labels)} files"
