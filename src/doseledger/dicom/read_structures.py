"""RTSTRUCT to ROIs by name and type; contours parsed on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from doseledger.core.errors import BadCase
from doseledger.core.planes import ROUNDED_MM, TINY_MM
from doseledger.dicom.source import in_file, label_of
from doseledger.dicom.values import finite, items_of, read_items, text_of, what_is, whole

CLOSED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# A name is a long string (LO): PS3.5 6.2 gives it 64 characters.
MOST_NAME_CHARACTERS = 64
# Far more than anybody draws: a file beyond that is damaged, and would take hours.
MOST_CONTOURS, MOST_POINTS = 50_000, 5_000_000
# Ten metres off the origin nobody is treated; arithmetic in pixels holds until there.
FARTHEST_MM = 10_000.0


@dataclass(frozen=True)
class Roi:
    """One region of interest of a structure set.

    Parameters
    ----------
    number, name
        ROI Number and ROI Name, cut short where it is longer than DICOM allows.
    interpreted_type
        RT ROI Interpreted Type, e.g. EXTERNAL, PTV, ORGAN; empty where none is given.
    frame_of_reference_uid
        Frame of reference that its contours are in; empty where none is given.
    items
        Its Contour Sequence, not yet parsed.
    file
        How its file is called in messages; empty where it came from none.
    """

    number: int
    name: str
    interpreted_type: str
    frame_of_reference_uid: str
    items: list[pydicom.Dataset] = field(repr=False)
    file: str = ""

    def __post_init__(self) -> None:
        if len(self.name) > MOST_NAME_CHARACTERS:
            object.__setattr__(self, "name", self.name[: MOST_NAME_CHARACTERS - 1] + "…")


@dataclass(frozen=True)
class Contours:
    """The closed contours of one ROI.

    Parameters
    ----------
    polygons
        (z in mm, points (n, 2) as x, y in mm) of each contour, in the order of the file.
    n_ignored
        Contours that enclose nothing: POINT, OPEN types, fewer than three points.
    n_repeated
        Exact repeats of a contour, counted once: an even number of them would cancel.
    """

    polygons: list[tuple[float, NDArray[np.float64]]]
    n_ignored: int
    n_repeated: int

    def notes(self, name: str) -> list[str]:
        """Return what was left out, as warnings about a structure of that name."""
        notes = []
        if self.n_ignored:
            notes.append(f"{self.n_ignored} contours of {name} enclose nothing (points or open): left out")
        if self.n_repeated:
            notes.append(f"{self.n_repeated} contours of {name} are exact repeats and count once")
        return notes


def read_rois(dataset: pydicom.Dataset, case_id: str) -> list[Roi]:
    """Return the ROIs of an RTSTRUCT in the order of its Structure Set ROI Sequence.

    Raises
    ------
    BadCase
        If it has no ROI, two of one number, or one without a number; naming file, item and attribute.

    Notes
    -----
    DICOM PS3.3 C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour), C.8.8.8 (RT ROI Observations).
    """
    with in_file(dataset, case_id):
        kinds = dict(read_items(dataset, "RTROIObservationsSequence", _kind))
        contours: dict[int, list[pydicom.Dataset]] = {}
        for number, items in read_items(dataset, "ROIContourSequence", _drawn):
            contours.setdefault(number, []).extend(items)
        rois = [
            Roi(number, name, kinds.get(number, ""), frame, contours.get(number, []), label_of(dataset))
            for number, name, frame in read_items(dataset, "StructureSetROISequence", _named)
        ]
        if not rois:
            raise BadCase(case_id, "the RTSTRUCT has no ROI; export it again")
        if len({roi.number for roi in rois}) < len(rois):
            raise BadCase(case_id, "two ROIs of the RTSTRUCT have one ROI Number; export it again")
        return rois


def _kind(item: pydicom.Dataset) -> tuple[int, str]:
    return whole(item, "ReferencedROINumber"), text_of(item, "RTROIInterpretedType")


def _drawn(item: pydicom.Dataset) -> tuple[int, list[pydicom.Dataset]]:
    return whole(item, "ReferencedROINumber"), items_of(item, "ContourSequence")


def _named(item: pydicom.Dataset) -> tuple[int, str, str]:
    frame = text_of(item, "ReferencedFrameOfReferenceUID")
    number = whole(item, "ROINumber")
    return number, text_of(item, "ROIName").strip() or f"ROI {number} without a name", frame


def read_contours(roi: Roi, case_id: str) -> Contours:
    """Return the closed contours of an ROI in mm.

    Raises
    ------
    BadCase
        If a contour is not in an axial plane, its data are no triples of finite numbers or reach out of any room, or
        there are more of them than anybody draws.
    """
    if len(roi.items) > MOST_CONTOURS:
        raise BadCase(case_id, f"{roi.name} has {len(roi.items)} contours, wanted at most {MOST_CONTOURS}; thin them")
    polygons: list[tuple[float, NDArray[np.float64]]] = []
    seen: set[bytes] = set()
    n_ignored = n_repeated = n_points = 0
    for item in roi.items:
        if item.get("ContourGeometricType") not in CLOSED_TYPES:
            n_ignored += 1
            continue
        points = _points(item, roi, case_id, MOST_POINTS - n_points)
        n_points += len(points)
        if len(points) < 3:
            n_ignored += 1
            continue
        spread = float(np.ptp(points[:, 2]))
        if spread > ROUNDED_MM + TINY_MM:
            raise BadCase(
                case_id,
                f"a contour of {roi.name} spans {spread:.2f} mm in z, wanted axial planes; draw it on axial slices",
            )
        key = points.tobytes()
        if key in seen:
            n_repeated += 1
            continue
        seen.add(key)
        polygons.append((float(np.median(points[:, 2])), np.ascontiguousarray(points[:, :2])))
    return Contours(polygons, n_ignored, n_repeated)


def _points(item: pydicom.Dataset, roi: Roi, case_id: str, most: int) -> NDArray[np.float64]:
    """Contour Data as (n, 3) in mm, at most so many points."""
    in_roi = f"{roi.file}: ContourData of {roi.name}" if roi.file else f"ContourData of {roi.name}"
    element = item.get_item("ContourData")
    value = None if element is None else element.value
    n_numbers = 0 if value is None else value.count(b"\\") + 1 if isinstance(value, bytes) else len(value)
    if n_numbers > 3 * most:
        raise BadCase(case_id, f"{roi.name} has more than {MOST_POINTS} points in its contours; thin them")
    if isinstance(value, bytes):
        # Straight from the file's text: pydicom would make an object of each number, which costs ten times the rest.
        text = value.rstrip(b" \0").replace(b"\\", b" ").decode("ascii", errors="replace")
        given: list[Any] = text.split()
        try:
            numbers = np.asarray(list(map(float, given)), dtype=np.float64)
        except ValueError:
            numbers = np.full(1, np.nan)
    else:
        given = [] if value is None else list(value)
        numbers = np.asarray([np.nan if finite(v) is None else float(v) for v in given], dtype=np.float64)
    if numbers.size % 3 or not np.all(np.isfinite(numbers)):
        odd = next((what_is(v) for v in given if finite(v) is None), f"{len(given)} numbers")
        raise BadCase(
            case_id,
            f"{in_roi} is not a list of (x, y, z) in mm (there is {odd}); export the structure set again",
        )
    if numbers.size and float(np.abs(numbers).max()) > FARTHEST_MM:
        raise BadCase(
            case_id,
            f"{in_roi} reaches to {float(np.abs(numbers).max()):.3g} mm, wanted at most "
            f"{FARTHEST_MM:g} mm from the origin; export the structure set again",
        )
    return numbers.reshape(-1, 3)


def slab_thickness_mm(roi: Roi) -> float | None:
    """Return Contour Slab Thickness (3006,0044) in mm where all contours of an ROI name one and the same, else None."""
    said = {str(item.get("ContourSlabThickness") or "") for item in roi.items}
    try:
        value = float(said.pop()) if len(said) == 1 else 0.0
    except ValueError:
        return None
    return value if 0.0 < value < FARTHEST_MM else None


def referenced_image_uids(dataset: pydicom.Dataset) -> set[str]:
    """Return the SOP Instance UIDs of the images that the structure set is drawn on (3006,0016)."""
    return {
        text_of(image, "ReferencedSOPInstanceUID")
        for series in _referenced_series(dataset)
        for image in items_of(series, "ContourImageSequence")
    } - {""}


def referenced_series_uids(dataset: pydicom.Dataset) -> set[str]:
    """Return the Series Instance UIDs that the structure set is drawn on."""
    return {text_of(series, "SeriesInstanceUID") for series in _referenced_series(dataset)} - {""}


def _referenced_series(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [
        series
        for frame in items_of(dataset, "ReferencedFrameOfReferenceSequence")
        for study in items_of(frame, "RTReferencedStudySequence")
        for series in items_of(study, "RTReferencedSeriesSequence")
    ]


def referenced_frames(dataset: pydicom.Dataset) -> set[str]:
    """Return every Frame of Reference UID that the structure set names."""
    frames = {text_of(item, "FrameOfReferenceUID") for item in items_of(dataset, "ReferencedFrameOfReferenceSequence")}
    rois = items_of(dataset, "StructureSetROISequence")
    return (frames | {text_of(roi, "ReferencedFrameOfReferenceUID") for roi in rois}) - {""}
