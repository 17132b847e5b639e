"""Files of an OpenKBP patient: sparse CSVs of 128³ voxels.

Axes: the challenge's arrays run (anterior to posterior, right to left, superior to inferior), in C order. Ours are
(z, y, x) with z to the head, y posterior and x to the patient's left, so the last axis comes first and is reversed;
the other two already ascend. See docs/reference/openkbp.md.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.damage import DAMAGED, describe
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid, Triple
from doseledger.core.limit import keeps
from doseledger.dicom.source import read_members
from doseledger.ingest.raw import find_sources

SIDE = 128
# No voxel is smaller or larger.
LEAST_MM, MOST_MM = 0.01, 100.0
REQUIRED_FILES = ("ct", "possible_dose_mask", "voxel_dimensions")
# A sparse CSV has no end mark: one that was cut at a line reads like a whole one, so its content is asked. In file
# order at most 0.02 % of the possible-dose mask lies behind the last dose and 0.004 % behind the last CT value (202
# public patients).
MOST_BEHIND_PERCENT = 0.1
# A contour's last plane is cut where it repeats this share of the plane before up to where it ends, and nothing of what
# follows there; none of 1,568 public contours does, of those cut at random two in five.
CUT_SHARE, LEAST_REPEATED, LEAST_LACKING = 0.8, 20, 10


@dataclass(frozen=True)
class Patient:
    """One patient's files as arrays: (z, y, x), LPS, ascending.

    Parameters
    ----------
    grid
        The centre of the volume is at 0 mm: the challenge tells no position.
    ct_stored
        Values as they are in ct.csv, int32.
    valid_dose
        The possible-dose mask.
    masks
        Bool mask by file name, empty ones included.
    dose_gy
        float32; None where there is no dose.csv.
    """

    grid: Grid
    ct_stored: NDArray[np.int32]
    valid_dose: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]
    dose_gy: NDArray[np.float32] | None


def to_zyx(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the challenge's axes (anterior-posterior, right-left, superior-inferior) as (z, y, x), LPS.

    Examples
    --------
    >>> array = np.zeros((2, 3, 4))
    >>> array[1, 2, 0] = 1.0  # posterior, left, superior
    >>> [int(i) for i in np.argwhere(to_zyx(array))[0]]
    [3, 1, 2]
    """
    return array.transpose(2, 0, 1)[::-1]


def find_patients(raw: Path) -> dict[str, Path]:
    """Return the folder or zip of each patient, by name, sorted.

    Parameters
    ----------
    raw
        The challenge's folder, with `train-pats/pt_N` and the like below it, or a folder or zip a patient.

    Raises
    ------
    BadInput
        If there is no patient, or one is there twice.
    """
    parts = sorted(path for path in raw.glob("*-pats") if path.is_dir())
    if not parts:
        return find_sources(raw)
    found: dict[str, Path] = {}
    for part in parts:
        for patient, path in find_sources(part).items():
            if patient in found:
                raise BadInput(f"{patient} is there twice: in {found[patient].parent.name} and {part.name}; keep one")
            found[patient] = path
    return dict(sorted(found.items()))


def read_patient(source: Path, case_id: str) -> Patient:
    """Return the arrays of one patient's folder, or zip of it.

    Raises
    ------
    BadCase
        If a file is absent, was cut, is no sparse CSV of a 128³ volume, or holds values that can't be.
    """
    tables = {name.removesuffix(".csv"): content for name, content in read_members(source) if name.endswith(".csv")}
    absent = [name for name in REQUIRED_FILES if name not in tables]
    if absent:
        raise BadCase(
            case_id, f"no {', '.join(f'{name}.csv' for name in absent)} among {len(tables)} CSV files; copy it again"
        )
    spacing_mm = _read_spacing(tables.pop("voxel_dimensions"), case_id)
    ct = _read_volume(tables.pop("ct"), "ct", case_id)
    dose = tables.pop("dose", None)
    dose_gy = None if dose is None else _read_dose(dose, case_id)
    masks = {name: _read_mask(content, name, case_id) for name, content in tables.items()}
    _check_whole(ct, dose_gy, masks, case_id)
    origin = [-(SIDE - 1) / 2.0 * spacing for spacing in spacing_mm]
    return Patient(
        grid=Grid((SIDE, SIDE, SIDE), spacing_mm, (origin[0], origin[1], origin[2])),
        ct_stored=np.ascontiguousarray(np.rint(ct).astype(np.int32)),
        valid_dose=masks.pop("possible_dose_mask"),
        masks=masks,
        dose_gy=dose_gy,
    )


def _check_whole(
    ct: NDArray[Any], dose_gy: NDArray[Any] | None, masks: dict[str, NDArray[np.bool_]], case_id: str
) -> None:
    """Refuse a patient one of whose files was cut: what it lacks shows in the others, or in its last plane."""
    possible = masks["possible_dose_mask"]
    if not possible.any():
        raise BadCase(case_id, "possible_dose_mask.csv names no voxel, so no dose would count; copy it again")
    indices = np.flatnonzero(_in_file_order(possible))
    for name, values in (("ct", ct), ("dose", dose_gy)):
        if values is None:
            continue
        known = np.flatnonzero(_in_file_order(values) > 0)
        last = int(known[-1]) if len(known) else -1
        behind = 100.0 * float(np.mean(indices > last))
        if not keeps(behind, most=MOST_BEHIND_PERCENT):
            raise BadCase(
                case_id,
                f"{name}.csv ends before the patient does: {behind:.1f} % of possible_dose_mask.csv lies behind its "
                "last voxel; it was cut, copy it again",
            )
    if dose_gy is not None and (dose_gy[~possible] > 0).any():
        stray = int((dose_gy[~possible] > 0).sum())
        raise BadCase(
            case_id,
            f"dose.csv has a dose in {stray} voxels outside possible_dose_mask.csv, where by definition there is none; "
            "one of the two was cut or is another patient's, copy both again",
        )
    # The possible-dose mask may end in a plane of its own: the dose alone says whether it is whole.
    contours = {name: mask for name, mask in masks.items() if name != "possible_dose_mask"}
    torn = [f"{name}.csv" for name, mask in contours.items() if _is_torn(np.flatnonzero(_in_file_order(mask)))]
    if torn:
        raise BadCase(case_id, f"{', '.join(torn)} ends amid a plane; it was cut, copy it again")


def _in_file_order(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array (z, y, x) flat in the order of the files' indices: what `to_zyx` did, undone."""
    return array[::-1].transpose(1, 2, 0).reshape(-1)


def _is_torn(indices: NDArray[np.intp]) -> bool:
    """Whether ascending indices of a mask stop amid a plane that would go on as the one before does."""
    if not len(indices):
        return False
    plane, end = divmod(int(indices[-1]), SIDE**2)
    here, before = (indices[indices // SIDE**2 == number] % SIDE**2 for number in (plane, plane - 1))
    to_repeat, lacking = before[before <= end], before[before > end]
    if min(len(to_repeat) - LEAST_REPEATED, len(lacking) - LEAST_LACKING) < 0:
        return False
    return len(np.intersect1d(here, to_repeat)) >= CUT_SHARE * len(to_repeat)


def read_dose_csv(path: Path, case_id: str) -> NDArray[np.float32]:
    """Return the dose in Gy, (z, y, x), of one sparse CSV: a prediction as the challenge asks for it.

    Raises
    ------
    BadCase
        If the file is absent, is no sparse CSV of a 128³ volume, or holds values that can't be.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadCase(case_id, f"{path} can't be read ({error}); copy it again") from error
    return _read_dose(content, case_id)


def _read_spacing(content: bytes, case_id: str) -> Triple:
    """Return the voxel size as (z, y, x) in mm; the file has it in the order of the challenge's axes."""
    try:
        values = np.loadtxt(io.BytesIO(content), dtype=np.float64, ndmin=1)
    except DAMAGED as error:
        raise BadCase(case_id, f"voxel_dimensions.csv is no list of numbers ({describe(error)})") from error
    if values.shape != (3,) or not all(keeps(float(value), least=LEAST_MM, most=MOST_MM) for value in values):
        wanted = f"wanted three sizes of {LEAST_MM:g} to {MOST_MM:g} mm"
        raise BadCase(case_id, f"voxel_dimensions.csv holds {values.tolist()}; {wanted}")
    anterior_posterior, right_left, superior_inferior = (float(value) for value in values)
    return superior_inferior, anterior_posterior, right_left


def _read_table(content: bytes, name: str, case_id: str) -> tuple[NDArray[np.int64], pd.Series[Any]]:
    """Return a sparse CSV's flat indices and its column of data."""
    try:
        frame = pd.read_csv(io.BytesIO(content), index_col=0)
        index = frame.index.to_numpy().astype(np.int64) if len(frame) else np.empty(0, dtype=np.int64)
        data = frame["data"]
    except DAMAGED as error:
        raise BadCase(case_id, f"{name}.csv is no sparse volume with a column 'data' ({describe(error)})") from error
    if len(index) and (index.min() < 0 or index.max() >= SIDE**3):
        raise BadCase(case_id, f"{name}.csv has indices from {index.min()} to {index.max()}; 128³ voxels have fewer")
    if len(np.unique(index)) != len(index):
        raise BadCase(case_id, f"{name}.csv names {len(index) - len(np.unique(index))} voxels twice")
    return index, data


def _read_volume(content: bytes, name: str, case_id: str) -> NDArray[np.float64]:
    index, data = _read_table(content, name, case_id)
    values = pd.to_numeric(data, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise BadCase(case_id, f"{name}.csv has {int((~np.isfinite(values)).sum())} voxels without a number")
    flat = np.zeros(SIDE**3, dtype=np.float64)
    flat[index] = values
    return np.ascontiguousarray(to_zyx(flat.reshape(SIDE, SIDE, SIDE)))


def _read_dose(content: bytes, case_id: str) -> NDArray[np.float32]:
    dose_gy = _read_volume(content, "dose", case_id).astype(np.float32)
    if dose_gy.min() < 0:
        raise BadCase(case_id, f"dose.csv goes down to {dose_gy.min():.3f} Gy; a dose is not negative")
    return dose_gy


def _read_mask(content: bytes, name: str, case_id: str) -> NDArray[np.bool_]:
    index, data = _read_table(content, name, case_id)
    # The challenge leaves the column of a mask empty; some tools write ones.
    if not (data.isna().all() or (data == 1).all()):
        raise BadCase(case_id, f"{name}.csv is no mask: its data are neither empty nor 1")
    flat = np.zeros(SIDE**3, dtype=np.bool_)
    flat[index] = True
    return np.ascontiguousarray(to_zyx(flat.reshape(SIDE, SIDE, SIDE)))
