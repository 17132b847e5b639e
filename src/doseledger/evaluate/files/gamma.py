"""Gamma of two dose files: RTDOSE, cases and predictions on their own grids."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import atomic_path, sha256_of_bytes
from doseledger.core.grid import Grid
from doseledger.core.npz import open_npz
from doseledger.core.planes import ROUNDED_MM, TINY_MM
from doseledger.core.types import Floats
from doseledger.dicom.pixels import n_frames
from doseledger.dicom.read_dose import read_dose, read_dose_plane
from doseledger.dicom.source import in_file, lenient, read_file
from doseledger.dicom.values import text_of
from doseledger.dicom.write.gamma import make_gamma_dose
from doseledger.dicom.write.objects import to_bytes
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.gpu import torch_map
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import exact_gamma_map, gamma_map, summarise
from doseledger.dosimetry.gamma.reference import reference_map, verify_points
from doseledger.evaluate.summary import DRAW_SEED

Axes = tuple[NDArray[np.float64], ...]
Engine = Literal["auto", "sampled", "torch", "exact", "pymedphys"]
# `auto` is `torch` where there is a GPU and `sampled` elsewhere: two ways to one map.
ENGINES = {"sampled": gamma_map, "torch": torch_map, "exact": exact_gamma_map, "pymedphys": reference_map}
SAMPLED = ("sampled", "torch")
# What tells whether two RTDOSE files belong together.
BELONGING = {"patient": "PatientID", "frame of reference": "FrameOfReferenceUID"}
# One of these is there where an NVIDIA driver is: on Linux, and on Linux within Windows.
DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/dxg"))


@dataclass(frozen=True, eq=False)
class DoseFile:
    """A dose on disk.

    Parameters
    ----------
    dose_gy
        float32 (z, y, x).
    belongs_to
        What the file says of whom and where it is of, by name; what it leaves out is not there.
    """

    dose_gy: NDArray[np.float32]
    grid: Grid
    belongs_to: dict[str, str]

    def doubts(self, other: DoseFile) -> list[str]:
        """Return what both files say and say differently."""
        both = self.belongs_to.keys() & other.belongs_to.keys()
        return sorted(name for name in both if self.belongs_to[name] != other.belongs_to[name])


@dataclass(frozen=True, eq=False)
class ComparedDoses:
    """Two doses, gamma of the second against the first on its grid (z, y, x), and what was found, as JSON values."""

    reference: DoseFile
    evaluation: DoseFile
    criteria: GammaCriteria
    gamma: Floats
    found: dict[str, Any]


def gamma_of_files(
    reference: Path, evaluation: Path, criteria: GammaCriteria, *, engine: Engine, verify: int
) -> dict[str, Any]:
    """Return what `compare_doses` found alone: pass rate in percent, mean, counts."""
    return compare_doses(reference, evaluation, criteria, engine=engine, verify=verify).found


def compare_doses(
    reference: Path, evaluation: Path, criteria: GammaCriteria, *, engine: Engine, verify: int
) -> ComparedDoses:
    """Return gamma of an evaluation dose against a reference dose.

    `differ` names what the files say of patient, frame of reference or case, and say differently: a measured dose may
    well have a frame of its own, so it is told and not refused.

    Parameters
    ----------
    reference, evaluation
        RTDOSE files, or NPZ of a case or a prediction. The reference is the one whose points are asked.
    criteria
        Percent, mm, cutoff and the like.
    engine
        `sampled` has pymedphys' definition, `torch` the same on a GPU, `auto` is `torch` for volumes where there is a
        GPU and else `sampled`; `exact` is the continuous minimum, `pymedphys` runs pymedphys itself.
    verify
        How many points of a sampled map are checked against pymedphys, drawn with a fixed seed.

    Raises
    ------
    BadInput
        If a file is neither, or one is a plane and the other a volume or another plane.
    NotReady
        If `torch` is asked for and there is no GPU.
    """
    if verify and engine not in ("auto", *SAMPLED):
        raise BadInput(f"--verify checks a sampled map against pymedphys, not {engine}; leave one of them out")
    files = [read_dose_file(path) for path in (reference, evaluation)]
    kept = _common_axes(*(file.grid for file in files))
    planes = [file.dose_gy.reshape([file.grid.shape_zyx[axis] for axis in kept]).astype(np.float64) for file in files]
    axes = [tuple(file.grid.axes_mm()[axis] for axis in kept) for file in files]
    pair = DosePair(axes[0], planes[0], axes[1], planes[1])
    if engine == "auto":
        # A plane is done before a GPU has started.
        engine = "torch" if len(kept) == 3 and has_gpu() else "sampled"
    gamma = ENGINES[engine](pair, criteria)
    known = gamma[np.isfinite(gamma)]
    found: dict[str, Any] = {
        **asdict(summarise(gamma, pair, criteria)),
        "mean_gamma": float(known.mean()),
        "highest_gamma": float(known.max()),
        "max_dose_reference_gy": float(planes[0].max()),
        "max_dose_evaluation_gy": float(planes[1].max()),
        "criteria": asdict(criteria),
        "engine": engine,
        "differ": files[0].doubts(files[1]),
    }
    if verify:
        rng = np.random.default_rng(DRAW_SEED)
        found["largest_difference_from_pymedphys"] = verify_points(gamma, pair, criteria, n_points=verify, rng=rng)
    return ComparedDoses(files[0], files[1], criteria, gamma.reshape(files[0].grid.shape_zyx), found)


def gamma_words(criteria: GammaCriteria) -> str:
    """Return criteria as the field writes them.

    Examples
    --------
    >>> gamma_words(GammaCriteria(3, 2, 10, local=True, interp_fraction=10, max_gamma=2))
    'gamma 3 %/2 mm local, cutoff 10 %'
    """
    kind = "local" if criteria.local else "global"
    return f"gamma {criteria.gamma_percent:g} %/{criteria.gamma_mm:g} mm {kind}, cutoff {criteria.cutoff_percent:g} %"


def require_rtdose(reference: Path) -> Dataset:
    """Return the RTDOSE of a volume that a gamma map can be written beside.

    Raises
    ------
    BadInput
        If the file is no RTDOSE, or one of a single plane.
    """
    wanted = "the RTDOSE of a volume, whose patient, study and frame the gamma map takes over"
    if reference.suffix == ".npz":
        raise BadInput(f"--rtdose: {reference} is an NPZ; wanted as reference {wanted}")
    with lenient():
        dataset = read_file(reference, "RTDOSE", wanted)
        try:
            with in_file(dataset, reference.name):
                is_plane = n_frames(dataset) == 1
        except BadCase as error:
            raise BadInput(str(error)) from error
    if is_plane:
        raise BadInput(f"--rtdose: {reference} is a single plane; wanted {wanted}")
    return dataset


def write_gamma_map(compared: ComparedDoses, reference: Dataset, out: Path) -> None:
    """Write a gamma map as RTDOSE: relative numbers, 0 where there is none.

    Parameters
    ----------
    reference
        Of `require_rtdose`.

    Raises
    ------
    BadInput
        If the reference names no study or frame of reference.
    """
    what = sha256_of_bytes(np.ascontiguousarray(compared.gamma).tobytes())
    key = f"gamma/{text_of(reference, 'SOPInstanceUID')}/{what}/{gamma_words(compared.criteria)}"
    with lenient():
        dataset = make_gamma_dose(
            reference,
            compared.gamma,
            compared.reference.grid,
            label=gamma_words(compared.criteria),
            key=key,
            version=version("doseledger"),
        )
        content = to_bytes(dataset)
    with atomic_path(out) as part:
        part.write_bytes(content)


def has_gpu() -> bool:
    """Return whether there is a GPU that PyTorch can use; PyTorch, slow to load, is asked only where a driver is."""
    if not any(driver.exists() for driver in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def read_dose_file(path: Path) -> DoseFile:
    """Return the dose of an RTDOSE, or of the NPZ of a case or prediction.

    Raises
    ------
    BadInput
        If the file is neither, or holds no dose.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    with lenient():
        dataset = read_file(path, "RTDOSE", "an RTDOSE, or the NPZ of a case or prediction")
        try:
            with in_file(dataset, path.name):
                is_plane = n_frames(dataset) == 1
                said = {name: text_of(dataset, keyword) for name, keyword in BELONGING.items()}
            read = read_dose_plane(dataset, path.name) if is_plane else read_dose(dataset, path.name)
        except BadCase as error:
            raise BadInput(str(error)) from error
    return DoseFile(read.dose_gy, read.grid, {name: value for name, value in said.items() if value})


def _read_npz(path: Path) -> DoseFile:
    try:
        with open_npz(path) as npz:
            dose = npz["dose_gy"]
            grid = Grid(dose.shape, tuple(npz["spacing_mm"]), tuple(npz["origin_mm"]))
            meta = json.loads(str(npz["meta"])) if "meta" in npz else {}
            return DoseFile(dose, grid, {"case": str(meta["case_id"])} if "case_id" in meta else {})
    except KeyError as error:
        raise BadInput(f"{path}: no {error} in it; give an RTDOSE, a case with a dose, or a prediction") from error
    except UNREADABLE as error:
        raise BadInput(f"{path} can't be read ({describe(error)})") from error


def _common_axes(reference: Grid, evaluation: Grid) -> list[int]:
    """Return the axes that both doses extend along; a flat axis is left out where both lie on the same plane."""
    flat = [n == 1 for n in reference.shape_zyx]
    if flat != [n == 1 for n in evaluation.shape_zyx]:
        raise BadInput(
            f"the reference has {reference.shape_zyx} voxels (z, y, x), the evaluation {evaluation.shape_zyx}: "
            "a plane can be compared with a parallel plane only, a volume with a volume"
        )
    for axis, is_flat in enumerate(flat):
        apart = abs(reference.origin_mm[axis] - evaluation.origin_mm[axis])
        if is_flat and apart > ROUNDED_MM + TINY_MM:
            raise BadInput(f"the two planes lie {apart:.2f} mm apart along {'zyx'[axis]}; give planes of one position")
    return [axis for axis in range(3) if not flat[axis]]
