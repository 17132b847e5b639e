"""Data sets of three kinds, each under its contract, and the order for a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.ledger.bundle_record import Order
from doseledger.ledger.bundle_sources import Wanted

Arrays = dict[str, np.ndarray]


@pytest.fixture
def contracts(repository: Path) -> Path:
    """Folder of the contracts that are shipped."""
    return repository / "validation" / "contracts"


@pytest.fixture
def templates(repository: Path) -> Path:
    return repository / "reports" / "templates"


def ptychography_arrays(photons: float, seed: int = 3) -> Arrays:
    """A scan of 12 positions over 2 regions at a photon dose; patterns of 16×16 pixels."""
    rng = np.random.default_rng(seed)
    probe = np.exp(-np.hypot(*np.mgrid[-8:8, -8:8]) / 4).astype(np.complex64)
    truth = np.exp(1j * rng.normal(0, 0.3, (12, 16, 16))).astype(np.complex64)
    expected = np.abs(np.fft.fft2(probe * truth)) ** 2
    counts = rng.poisson(expected / expected.sum(axis=(1, 2), keepdims=True) * photons)
    return {
        "diff3d": np.sqrt(counts / photons).astype(np.float32),
        "probeGuess": probe,
        "scan_index": np.repeat([0, 1], 6),
        "objectGuess": np.ones((40, 44), np.complex64),
        "ground_truth_patches": truth,
        **{name: rng.uniform(0, 30, 12) for name in ("xcoords", "ycoords", "xcoords_start", "ycoords_start")},
    }


@pytest.fixture
def make_ptychography(tmp_path: Path) -> Callable[..., Path]:
    """make_ptychography("name", seed=3) -> folder of data_p1e3.npz to data_p1e9.npz."""

    def make(name: str = "ptycho", seed: int = 3) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for exponent in range(3, 10):
            write_npz(folder / f"data_p1e{exponent}.npz", ptychography_arrays(10.0**exponent, seed))
        return folder

    return make


@pytest.fixture
def make_stamps(tmp_path: Path) -> Callable[..., Path]:
    """make_stamps("name") -> folder of two files of 20 labelled stamps in 3 bands, some of them missing."""

    def make(name: str = "stamps", seed: int = 5) -> Path:
        folder, rng = tmp_path / name, np.random.default_rng(seed)
        folder.mkdir()
        for part in ("north", "south"):
            images = rng.normal(1.0, 0.2, (20, 3, 12, 12)).astype(np.float32)
            present = np.ones((20, 3), bool)
            present[[2, 7], [0, 2]] = False
            images[~present] = np.nan
            write_npz(
                folder / f"{part}.npz",
                {
                    "images": images,
                    "label": rng.integers(0, 4, 20),
                    "band_present": present,
                    "band_names": np.asarray(["g", "r", "i"]),
                },
            )
        return folder

    return make


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """rewrite(path, diff3d=None, label=array): the NPZ again without diff3d and with another label."""

    def write(path: Path, **changes: np.ndarray | None) -> None:
        with np.load(path) as npz:
            arrays = {name: npz[name] for name in npz.files}
        arrays |= changes  # type: ignore[arg-type]
        write_npz(path, {name: values for name, values in arrays.items() if values is not None})

    return write


@pytest.fixture
def project(make_case: Callable[..., Case], tmp_path: Path) -> Path:
    """A project with two cases, a run, a page, an opaque file with parameters and a test log; no Git, no DVC."""
    root = tmp_path / "project"
    for number in (1, 2):
        case_id = f"case_{number:04d}"
        path = root / "data" / "cases" / "toy" / f"{case_id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_case(case_id, seed=number).save(path)
    (root / "data" / "cases" / "toy" / "cases.csv").write_text("case_id\ncase_0001\ncase_0002\n")
    (root / "models" / "toy" / "checkpoints").mkdir(parents=True)
    (root / "models" / "toy" / "checkpoints" / "best.ckpt").write_bytes(bytes(range(256)) * 40)
    (root / "report.html").write_text("<p>MAE 1.2 Gy</p>")
    (root / "weights.dill").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/never'\ntR.")
    (root / "weights.json").write_text('{"layers": 4}')
    (root / "pytest.log").write_text("....\n==== 41 passed, 1 skipped in 3.21s ====\n")
    return root


@pytest.fixture
def order(project: Path, contracts: Path, templates: Path) -> Callable[..., Order]:
    """order(data=…, scenario=…) -> the order of a bundle of the project's cases."""

    def make(wanted: Wanted | None = None, **changes: object) -> Order:
        whole = Wanted(
            data=(project / "data" / "cases" / "toy",),
            runs=(project / "models" / "toy",),
            reports=(project / "report.html",),
        )
        values = {
            "wanted": wanted or whole,
            "root": project,
            "contract": contracts / "case.yaml",
            "templates": templates,
        }
        return Order(**(values | changes))  # type: ignore[arg-type]

    return make
