"""The NPZ contract: one patient's image, structures and dose on one grid.

A case is written without compression, so that a member can be memory-mapped and a patch reads only its own voxels. All
arrays are (z, y, x) on `Case.grid`, LPS; `full_shape_zyx` and `crop_start_zyx` put any of them back on the grid before
cropping.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import ZIP_DATE, atomic_path
from doseledger.core.grid import MOST_OUTSIDE_PERCENT, Grid, IntTriple, box_within
from doseledger.core.npz import open_npz, read_head
from doseledger.core.types import Box

FORMAT_VERSION = 1
# Local file header of a ZIP member: 30 bytes, then the name and the extra field (PKWARE APPNOTE 4.3.7).
ZIP_HEADER_BYTES = 30
# Arrays of 0 and 1 on disk that are bool in memory.
BOOLEANS = ("masks", "body", "valid_dose")


@dataclass(frozen=True)
class Case:
    """One patient on one grid.

    Parameters
    ----------
    grid
        Grid of every array.
    ct_hu
        Image, int16 (z, y, x); Hounsfield units for CT, the scanner's own units for MR (`meta["modality"]`).
    structure_names
        Name of each structure, in the order of `masks`, `sdf_mm` and `present`.
    masks
        bool (structure, z, y, x): whether a voxel's centre lies inside the contour.
    sdf_mm
        float16 (structure, z, y, x): signed distance to the surface in mm, negative inside, clipped; the clip
        value everywhere when the structure is absent.
    present
        bool (structure,).
    body, valid_dose
        bool (z, y, x): the patient's outline, and where a dose is defined.
    full_shape_zyx, crop_start_zyx
        Size of the grid before cropping, and where on it this case begins.
    meta
        JSON: case_id, pseudonym, group, site, modality, source_sha256, converter version, parity and more.
    dose_gy
        Total plan dose, float32 (z, y, x); None where the protocol asks for none.
    prescription_gy
        Prescribed total dose in Gy by target name; empty where there is none.
    n_fractions
        Planned fractions; None where there is no prescription.
    """

    grid: Grid
    ct_hu: NDArray[np.int16]
    structure_names: tuple[str, ...]
    masks: NDArray[np.bool_]
    sdf_mm: NDArray[np.float16]
    present: NDArray[np.bool_]
    body: NDArray[np.bool_]
    valid_dose: NDArray[np.bool_]
    full_shape_zyx: IntTriple
    crop_start_zyx: IntTriple
    meta: dict[str, Any]
    dose_gy: NDArray[np.float32] | None = None
    prescription_gy: dict[str, float] = field(default_factory=dict)
    n_fractions: int | None = None

    @property
    def case_id(self) -> str:
        """Pseudonymous identifier, the file's stem."""
        return str(self.meta["case_id"])

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the bool mask (z, y, x) of a structure; all False when it is absent.

        Raises
        ------
        BadInput
            If the case does not know the name.
        """
        if name not in self.structure_names:
            raise BadInput(f"{self.case_id}: no structure {name}; there are {', '.join(self.structure_names)}")
        return self.masks[self.structure_names.index(name)]

    @property
    def present_names(self) -> tuple[str, ...]:
        """Names of the structures that are there."""
        return tuple(name for name, there in zip(self.structure_names, self.present, strict=True) if there)

    @property
    def full_grid(self) -> Grid:
        """The grid before cropping."""
        z, y, x = (float(value) for value in self.grid.index_to_mm(-np.asarray(self.crop_start_zyx)))
        return Grid(self.full_shape_zyx, self.grid.spacing_mm, (z, y, x))

    @property
    def crop(self) -> Box:
        """Where this case lies on its full grid."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.crop_start_zyx, self.grid.shape_zyx, strict=True))
        return z, y, x

    @property
    def reach(self) -> Box:
        """Voxels (z, y, x) within the plan's own dose grid; the whole grid where nobody noted it.

        Beyond them `dose_gy` holds 0 and nothing is known: no statistic of a dose may count them.
        """
        native = self.meta.get("native_dose_grid")
        if not isinstance(native, dict):
            z, y, x = (slice(0, n) for n in self.grid.shape_zyx)
            return z, y, x
        box = box_within(self.grid, Grid(**{key: tuple(value) for key, value in native.items()}))
        return (slice(0, 0), slice(0, 0), slice(0, 0)) if box is None else box

    def lacks_dose(self, name: str) -> bool:
        """Return whether more than 0.1 % of a structure lies beyond the plan's dose grid.

        It then has no dose as a whole.

        Raises
        ------
        BadInput
            If the case does not know the name.
        """
        mask = self.mask(name)
        n_all = int(mask.sum())
        n_beyond = n_all - int(mask[self.reach].sum())
        return 100.0 * n_beyond > MOST_OUTSIDE_PERCENT * n_all

    @property
    def main_target(self) -> str | None:
        """Name of the target with the highest prescription of those that have a voxel; None where none has."""
        falling = sorted(self.prescription_gy, key=lambda name: -self.prescription_gy[name])
        return next((name for name in falling if self.mask(name).any()), None)

    @classmethod
    def load(cls, path: Path) -> Case:
        """Return a case from disk after checking its form whole.

        Raises
        ------
        BadCase
            If the file breaks the contract: a key, dtype or shape, or an archive that was cut short.
        """
        with _as_bad_case(path), open_npz(path) as npz:

            def read(name: str) -> NDArray[Any]:
                array: NDArray[Any] = npz[name]
                return _as_bool(path, name, array) if name in BOOLEANS else array

            return _assemble(path, npz, read)

    @classmethod
    def mapped(cls, path: Path) -> Case:
        """Return a case whose volumes stay on disk, as read-only memory maps, after checking dtypes and shapes.

        Only for a file whose bytes were judged before: that masks hold 0 and 1 alone is not looked at.

        Raises
        ------
        BadCase
            If the file breaks the contract: a key, dtype or shape, or an archive that was cut short.
        """
        with _as_bad_case(path), open_npz(path) as npz:

            def read(name: str) -> NDArray[Any]:
                array = map_member(path, name)
                return array.view(np.bool_) if name in BOOLEANS and array.dtype == np.uint8 else array

            return _assemble(path, npz, read)

    def save(self, path: Path) -> None:
        """Write the case atomically, without compression; the same case always gives the same bytes.

        Raises
        ------
        BadCase
            If an array breaks the contract, or a number of the meta is not finite.
        """
        check_form(self)
        with atomic_path(path) as part:
            write_npz(part, _arrays(self))


def _arrays(case: Case) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "format_version": np.asarray(FORMAT_VERSION, dtype=np.int32),
        "ct_hu": case.ct_hu,
        "masks": case.masks.astype(np.uint8),
        "sdf_mm": case.sdf_mm,
        "present": case.present,
        "body": case.body.astype(np.uint8),
        "valid_dose": case.valid_dose.astype(np.uint8),
        "structure_names": np.asarray(case.structure_names, dtype=np.str_),
        "spacing_mm": np.asarray(case.grid.spacing_mm, dtype=np.float64),
        "origin_mm": np.asarray(case.grid.origin_mm, dtype=np.float64),
        "full_shape_zyx": np.asarray(case.full_shape_zyx, dtype=np.int32),
        "crop_start_zyx": np.asarray(case.crop_start_zyx, dtype=np.int32),
        "meta": np.asarray(_meta_as_json(case)),
    }
    if case.dose_gy is not None:
        arrays["dose_gy"] = case.dose_gy
    if case.prescription_gy:
        arrays["target_names"] = np.asarray(list(case.prescription_gy), dtype=np.str_)
        arrays["prescription_gy"] = np.asarray(list(case.prescription_gy.values()), dtype=np.float64)
    if case.n_fractions is not None:
        arrays["n_fractions"] = np.asarray(case.n_fractions, dtype=np.int32)
    return arrays


def _meta_as_json(case: Case) -> str:
    try:
        return json.dumps(case.meta, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        reason = f"its meta holds NaN or infinity, which JSON does not know ({error}); look at its plan and dose"
        raise BadCase(case.case_id, reason) from error


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a stored (uncompressed) NPZ with fixed dates: equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=ZIP_DATE)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as stream:
                # asarray and not ascontiguousarray: the latter makes a scalar one-dimensional.
                np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)


@contextmanager
def _as_bad_case(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadCase(path.stem, f"no such file: {path}") from error
    except KeyError as error:
        raise BadCase(path.stem, f"{path} has no key {error}; ingest it again") from error
    except UNREADABLE as error:
        reason = describe(error)
        if path.suffix != ".npz":
            raise BadCase(path.stem, f"{path} is no case (NPZ); of raw data: `doseledger survey`") from error
        raise BadCase(path.stem, f"{path} can't be read ({reason}); it may be cut short, ingest it again") from error


def _assemble(path: Path, npz: Any, read: Callable[[str], NDArray[Any]]) -> Case:
    """Return a case of an open NPZ; `read` gives its volumes."""
    version = int(npz["format_version"])
    if version != FORMAT_VERSION:
        raise BadCase(path.stem, f"{path} has format {version}, wanted {FORMAT_VERSION}; ingest it again")
    ct_hu = read("ct_hu")
    targets = [str(name) for name in npz["target_names"]] if "target_names" in npz else []
    doses = (float(value) for value in npz["prescription_gy"]) if targets else ()
    case = Case(
        grid=Grid(ct_hu.shape, tuple(npz["spacing_mm"]), tuple(npz["origin_mm"])),
        ct_hu=ct_hu,
        structure_names=tuple(str(name) for name in npz["structure_names"]),
        masks=read("masks"),
        sdf_mm=read("sdf_mm"),
        present=npz["present"],
        body=read("body"),
        valid_dose=read("valid_dose"),
        full_shape_zyx=_triple(npz["full_shape_zyx"]),
        crop_start_zyx=_triple(npz["crop_start_zyx"]),
        meta=_meta_of(npz, path),
        dose_gy=read("dose_gy") if "dose_gy" in npz else None,
        prescription_gy=dict(zip(targets, doses, strict=True)),
        n_fractions=int(npz["n_fractions"]) if "n_fractions" in npz else None,
    )
    check_form(case)
    if case.case_id != path.stem:
        raise BadCase(path.stem, f"the file says it is {case.case_id}; name it {case.case_id}.npz or ingest it again")
    return case


def _meta_of(npz: Any, path: Path) -> dict[str, Any]:
    meta = json.loads(str(npz["meta"]))
    if not isinstance(meta, dict) or "case_id" not in meta:
        raise BadCase(path.stem, f"{path}: meta names no case_id; ingest it again")
    return meta


def _triple(values: NDArray[Any]) -> IntTriple:
    z, y, x = (int(value) for value in values)
    return z, y, x


def _as_bool(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype not in (np.uint8, np.bool_) or (array.size and array.max() > 1):
        raise BadCase(path.stem, f"{name} must hold 0 and 1 as uint8, found {array.dtype} up to {array.max()}")
    return array.astype(np.bool_)


def check_form(case: Case) -> None:
    """Refuse a case whose arrays do not have the dtypes and shapes of the contract.

    Raises
    ------
    BadCase
        Naming the array, what was found and what was wanted. What the numbers *mean* is for the gates to judge.
    """
    shape, n = case.grid.shape_zyx, len(case.structure_names)
    wanted: list[tuple[str, NDArray[Any] | None, Any, tuple[int, ...]]] = [
        ("ct_hu", case.ct_hu, np.int16, shape),
        ("masks", case.masks, np.bool_, (n, *shape)),
        ("sdf_mm", case.sdf_mm, np.float16, (n, *shape)),
        ("present", case.present, np.bool_, (n,)),
        ("body", case.body, np.bool_, shape),
        ("valid_dose", case.valid_dose, np.bool_, shape),
        ("dose_gy", case.dose_gy, np.float32, shape),
    ]
    for name, array, dtype, array_shape in wanted:
        if array is not None and (array.dtype != dtype or array.shape != array_shape):
            found = f"{array.dtype} {array.shape}"
            raise BadCase(case.case_id, f"{name} is {found}, wanted {np.dtype(dtype)} {array_shape}; ingest it again")
    if len(set(case.structure_names)) != n:
        raise BadCase(case.case_id, f"a structure is named twice: {case.structure_names}")
    beyond = (c + s > f for c, s, f in zip(case.crop_start_zyx, shape, case.full_shape_zyx, strict=True))
    if min(case.crop_start_zyx) < 0 or any(beyond):
        raise BadCase(
            case.case_id, f"crop {case.crop_start_zyx} + {shape} reaches beyond the full grid {case.full_shape_zyx}"
        )


def map_member(path: Path, name: str) -> NDArray[Any]:
    """Return one array of an NPZ as a read-only memory map, so that a slice of it reads a slice.

    Raises
    ------
    BadCase
        If the member is absent or compressed.
    """
    with _as_bad_case(path), zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            raise BadCase(path.stem, f"{name} is compressed and can't be mapped; ingest it again")
        stream.seek(info.header_offset)
        header = stream.read(ZIP_HEADER_BYTES)
        name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = info.header_offset + ZIP_HEADER_BYTES + name_bytes + extra_bytes
        stream.seek(start)
        head = read_head(stream, name, path)
        offset = stream.tell()
        if offset - start + head.n_bytes != info.file_size:
            raise BadCase(path.stem, f"{name} says {head.shape}, which does not fit its bytes; ingest it again")
        order: Literal["F", "C"] = "F" if head.fortran else "C"
        return np.memmap(path, dtype=head.dtype, mode="r", offset=offset, shape=head.shape, order=order)


def read_meta(path: Path) -> dict[str, Any]:
    """Return a case's meta alone, without reading its volumes."""
    with _as_bad_case(path), open_npz(path) as npz:
        return _meta_of(npz, path)
