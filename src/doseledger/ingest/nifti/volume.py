"""A NIfTI volume: read into LPS, with the way back to the file's own axes.

NIfTI says where voxels are in RAS; everything else here is LPS and (z, y, x). This is the border.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from doseledger.core.damage import DAMAGED, describe
from doseledger.core.errors import BadCase
from doseledger.core.grid import MOST_VOXELS, Grid
from doseledger.core.limit import keeps
from doseledger.core.types import Array, Floats, Triple

GZIP = b"\x1f\x8b"
# Size of the header, which is its first number, by NIfTI's version; and where the magic stands.
NIFTI_1, NIFTI_2 = (348, 344, b"n+1"), (540, 4, b"n+2")
# RAS counts x to the right's opposite and y to the front: both turn.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# How far the corners of a volume may lie apart by sform and by qform, a quaternion in single precision.
SAME_PLACE_MM = 0.1
# Axes are at right angles, and along the patient's, but for rounding.
SKEW, ROUNDING_DEG = 1e-3, 0.01
# What nibabel says of sound headers too: an offset that SPM can't map, and a turn that nifti1.h reads as 1.
HARMLESS = ("SPM", "qfac")
# A packed file of some MB can say that it unpacks to more than any machine holds.
MOST_BYTES = 1 << 31
# Codes of the unit of length (nifti1.h); files that name none mean mm.
LENGTHS = {0: "mm", 1: "metres", 2: "mm", 3: "micrometres"}


@dataclass(frozen=True)
class Volume:
    """One NIfTI volume.

    Parameters
    ----------
    values
        (z, y, x) along LPS, in the file's numbers after its slope and intercept.
    grid
        Where they are. A tilted volume keeps its own axes, each named after the nearest of LPS.
    tilt_deg
        Greatest angle between an axis and the nearest of LPS.
    header
        The file's header, nibabel's, with sform and qform.
    orientation
        nibabel's step from the file's axes to LPS, (3, 2).
    """

    values: Array
    grid: Grid
    tilt_deg: float
    header: Any
    orientation: Floats

    @property
    def axes(self) -> str:
        """Where the file's axes point to, `RAS` for example."""
        from nibabel.orientations import ornt2axcodes

        return "".join(ornt2axcodes(self.orientation, (("R", "L"), ("A", "P"), ("I", "S"))))

    def in_file_axes(self, values: Array) -> Array:
        """Return values (z, y, x) on this volume's grid along the axes of its file."""
        from nibabel.orientations import apply_orientation, ornt_transform

        as_it_is = np.stack([np.arange(3.0), np.ones(3)], axis=1)
        turned: Array = apply_orientation(values.transpose(2, 1, 0), ornt_transform(as_it_is, self.orientation))
        return turned


def read_volume(content: bytes, name: str, case_id: str) -> Volume:
    """Return the volume that a `.nii` or `.nii.gz` file holds.

    Parameters
    ----------
    name
        How it is called in messages.

    Raises
    ------
    BadCase
        If it is no NIfTI or was cut; has no single volume of numbers (4D, RGB, complex); or does not say where
        its voxels are: no sform and no qform, both and they differ, axes not at right angles, lengths not in mm.
    """
    header, raw = _unpack(content, name, case_id)
    values = _values(header, raw, name, case_id)
    affine = RAS_TO_LPS @ _affine(header, values.shape, name, case_id)
    return _turned(values, affine, header, name, case_id)


def unpack(content: bytes, name: str, case_id: str) -> bytes:
    """Return a NIfTI file's bytes without compression, so that a copy packed otherwise is the same.

    Raises
    ------
    BadCase
        If it is no NIfTI, or was cut.
    """
    return _unpack(content, name, case_id)[1]


def _unpack(content: bytes, name: str, case_id: str) -> tuple[Any, bytes]:
    """The header, and the file's bytes without compression: as many as the header says, at most one more."""
    try:
        packed = content.startswith(GZIP)
        head = zlib.decompressobj(31).decompress(content, NIFTI_2[0]) if packed else content[: NIFTI_2[0]]
        header = _read_header(head, name, case_id)
        n_bytes = _n_bytes(header, name, case_id)
        raw = zlib.decompressobj(31).decompress(content, n_bytes + 1) if packed else content
    except DAMAGED as error:
        raise BadCase(case_id, f"{name} can't be unpacked ({describe(error)}); copy it again") from error
    if len(raw) < n_bytes:
        raise BadCase(case_id, f"{name} was cut: {len(raw)} of {n_bytes} bytes are there; copy it again")
    if len(raw) > n_bytes:
        # Bytes too many before the last voxel move all behind them.
        raise BadCase(case_id, f"{name} goes on behind the {n_bytes} bytes that its header counts; copy it again")
    return header, raw


def _bad_header(name: str, case_id: str, reason: str) -> BadCase:
    return BadCase(case_id, f"{name} has a header that can't be ({reason}); convert it again")


@contextmanager
def _refuse_header(name: str, case_id: str) -> Iterator[None]:
    """Raise BadCase for what nibabel finds impossible: its own error is none of Python's."""
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (*DAMAGED, HeaderDataError) as error:
        raise _bad_header(name, case_id, describe(error)) from error


def _read_header(head: bytes, name: str, case_id: str) -> Any:
    import nibabel

    for (size, at, magic), kind in ((NIFTI_1, nibabel.Nifti1Header), (NIFTI_2, nibabel.Nifti2Header)):
        if size in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")) and len(head) >= size:
            if head[at : at + 3] != magic:
                break
            with _refuse_header(name, case_id):
                said = kind.diagnose_binaryblock(head[:size]).splitlines()
                faults = [line for line in said if not any(word in line for word in HARMLESS)]
                if not faults:
                    header = kind.from_fileobj(io.BytesIO(head[:size]), check=False)
                    # nibabel would refuse the qform of a header that leaves this out.
                    header["pixdim"][0] = header["pixdim"][0] or 1
                    return header
            raise _bad_header(name, case_id, faults[0])
    raise BadCase(case_id, f"{name} is no NIfTI in one file; convert it to .nii or .nii.gz")


def _n_bytes(header: Any, name: str, case_id: str) -> int:
    shape = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    dtype = header.get_data_dtype()
    if dtype.fields is not None or dtype.kind == "c":
        kind = "colours (RGB)" if dtype.fields is not None else "complex numbers"
        raise BadCase(case_id, f"{name} holds {kind}; wanted one number a voxel, convert it")
    # An axis of one voxel beyond the third says nothing.
    shape = shape[:3] + [n for n in shape[3:] if n != 1]
    if len(shape) != 3:
        what = f"has {len(shape)} dimensions {shape}"
        raise BadCase(case_id, f"{name} {what}; wanted one volume of 3, take out the channel or phase that is meant")
    n_bytes = math.prod(shape) * int(dtype.itemsize)
    if min(shape) < 1 or math.prod(shape) > MOST_VOXELS or n_bytes > MOST_BYTES:
        raise BadCase(case_id, f"{name} says that it has {shape} voxels, which no scan has; copy it again")
    start = int(header["vox_offset"])
    if start < int(header.single_vox_offset):
        raise BadCase(case_id, f"{name} says that its numbers begin at byte {start}; convert it again")
    return start + n_bytes


def _values(header: Any, raw: bytes, name: str, case_id: str) -> Array:
    """The numbers (x, y, z) in the file's own order."""
    shape = tuple(int(n) for n in header["dim"][1:4])
    start, dtype = int(header["vox_offset"]), header.get_data_dtype()
    stored = np.frombuffer(raw, dtype=dtype, count=math.prod(shape), offset=start).reshape(shape, order="F")
    with _refuse_header(name, case_id):
        with_slope = header.get_slope_inter()
    slope, intercept = 1.0 if with_slope[0] is None else with_slope[0], with_slope[1] or 0.0
    values = stored if (slope, intercept) == (1.0, 0.0) else stored * float(slope) + float(intercept)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        n_bad = int(values.size - np.isfinite(values).sum())
        raise BadCase(case_id, f"{name} has {n_bad} voxels that are NaN or infinite; wanted none, export it again")
    return values


def _affine(header: Any, shape: tuple[int, ...], name: str, case_id: str) -> Floats:
    """From voxels of the file to RAS in mm; by sform, else by qform."""
    unit = LENGTHS.get(int(header["xyzt_units"]) & 7, "an unknown unit")
    if unit != "mm":
        raise BadCase(case_id, f"{name} counts lengths in {unit}, wanted mm; convert it")
    with _refuse_header(name, case_id):
        (sform, _), (qform, _) = header.get_sform(coded=True), header.get_qform(coded=True)
    known = [affine for affine in (sform, qform) if affine is not None]
    if not known:
        raise BadCase(case_id, f"{name} has neither sform nor qform: where left is nobody knows; set one of the two")
    if not all(np.isfinite(affine).all() for affine in known):
        raise BadCase(case_id, f"{name} has a place that is no number (sform or qform); set one of the two")
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1.0], indexing="ij")).reshape(4, -1)
    apart_mm = float(np.abs((known[0] - known[-1]) @ corners).max())
    if not keeps(apart_mm, most=SAME_PLACE_MM):
        raise BadCase(
            case_id,
            f"{name} lies in two places: by its sform {apart_mm:.1f} mm away from its qform; find out which is meant, "
            "and write it into both",
        )
    return np.asarray(known[0], dtype=np.float64)


def _turned(values: Array, affine: Floats, header: Any, name: str, case_id: str) -> Volume:
    """The volume along LPS; `affine` leads from the file's voxels to LPS in mm."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not keeps(float(spacing.min()), least=1e-6):
        found = f"{name} has voxels of {spacing.tolist()} mm"
        raise BadCase(case_id, f"{found}; wanted three positive sizes, mend its sform")
    directions = affine[:3, :3] / spacing
    if not keeps(float(np.abs(directions.T @ directions - np.eye(3)).max()), most=SKEW):
        raise BadCase(case_id, f"{name} has axes that are not at right angles (sheared); resample it to a plain grid")
    # To the nearest axes of LPS: nibabel's words are of RAS, the arithmetic is the same.
    orientation = np.asarray(io_orientation(affine), dtype=np.float64)
    along = affine @ inv_ornt_aff(orientation, values.shape)
    own_axes = along[:3, :3] / np.linalg.norm(along[:3, :3], axis=0)
    tilt_deg = float(np.degrees(np.arccos(np.clip(np.diag(own_axes).min(), -1.0, 1.0))))
    tilt_deg = tilt_deg if tilt_deg > ROUNDING_DEG else 0.0
    origin_xyz = own_axes.T @ along[:3, 3] if tilt_deg else along[:3, 3]
    turned = apply_orientation(values, orientation).transpose(2, 1, 0)
    spacing_xyz = np.linalg.norm(along[:3, :3], axis=0)
    grid = Grid(turned.shape, _zyx(spacing_xyz), _zyx(origin_xyz))
    return Volume(np.ascontiguousarray(turned), grid, tilt_deg, header, orientation)


def _zyx(xyz: Floats) -> Triple:
    x, y, z = (float(value) for value in xyz)
    return z, y, x
