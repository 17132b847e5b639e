"""Fixtures that several test folders share."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from doseledger.core.case import Case
from doseledger.core.grid import Grid

# Fixtures of several rooms.
pytest_plugins = ["fixtures.bundles", "fixtures.runs"]
REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data that is never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data are not part of the repository: no shared/data beside this checkout")
    return SHARED_DATA


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """fill_disk(folder, after): the disk is full for every file below the folder after so many."""

    def patch(folder: Path, after: int) -> None:
        mkdir, written = Path.mkdir, []

        # Whoever writes a file makes sure of its folder first.
        def mkdir_or_refuse(self: Path, *args: Any, **kwargs: Any) -> None:
            if self.is_relative_to(folder):
                written.append(self)
                if len(written) > after:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            mkdir(self, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", mkdir_or_refuse)

    return patch


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """tests/dicom/factory.py: tiny DICOM patients of known geometry; importlib mode puts no test folder on the path."""
    spec = importlib.util.spec_from_file_location("dicom_factory", REPOSITORY / "tests" / "dicom" / "factory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up by name while it is being made.
    sys.modules["dicom_factory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _own_audit_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests do out of the checkout's own audit log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("project")))
        yield


def signed_distance(mask: np.ndarray, spacing_mm: tuple[float, float, float], clip_mm: float = 50.0) -> np.ndarray:
    """Signed distance of a mask by scipy, negative inside, half a voxel in doubt: good enough for test cases."""
    if not mask.any():
        return np.full(mask.shape, clip_mm, np.float16)
    outside = distance_transform_edt(~mask, sampling=spacing_mm)
    inside = distance_transform_edt(mask, sampling=spacing_mm)
    return np.clip(outside - inside, -clip_mm, clip_mm).astype(np.float16)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """Factory of small, healthy prostate cases: make_case("case_0001", seed=3) -> Case of 24×40×48 voxels."""

    def make(case_id: str = "case_0001", seed: int = 1, absent: tuple[str, ...] = ("Bowel",)) -> Case:
        rng = np.random.default_rng(seed)
        grid = Grid((24, 40, 48), (6.0, 6.0, 6.0), (-70.0, -117.0, -141.0))
        z, y, x = np.meshgrid(*grid.axes_mm(), indexing="ij")
        jitter = rng.uniform(-4.0, 4.0, size=3)

        def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
            cz, cy, cx = (c + j for c, j in zip(centre, jitter, strict=True))
            return ((z - cz) / radii[0]) ** 2 + ((y - cy) / radii[1]) ** 2 + ((x - cx) / radii[2]) ** 2 <= 1.0

        body = (y / 105.0) ** 2 + (x / 130.0) ** 2 <= 1.0
        ptv70 = ellipsoid((0, 0, 0), (24, 21, 24))
        shapes = {
            "PTV70": ptv70,
            "PTV56": ptv70 | ellipsoid((18, 4, 0), (36, 24, 42)),
            "Prostate": ellipsoid((0, 0, 0), (18, 15, 18)),
            "Rectum": ellipsoid((0, 45, 0), (50, 15, 15)),
            "Bladder": ellipsoid((38, -30, 0), (24, 22, 30)),
            "Femur_L": ellipsoid((0, 0, 95), (60, 21, 21)),
            "Femur_R": ellipsoid((0, 0, -95), (60, 21, 21)),
            "Bowel": ellipsoid((60, -45, 0), (10, 20, 40)),
        }
        names = tuple(shapes)
        masks = np.stack([shapes[n] & body if n not in absent else np.zeros(grid.shape_zyx, bool) for n in names])
        depth = distance_transform_edt(~masks[0], sampling=grid.spacing_mm)
        low = distance_transform_edt(~masks[1], sampling=grid.spacing_mm)
        dose = np.maximum(71.0 * np.exp(-depth / 30.0), 57.5 * np.exp(-low / 28.0)) * (1 + 0.01 * rng.standard_normal())
        dose = np.where(body, dose, 0.0).astype(np.float32)
        ct = np.where(body, 30 + 12 * rng.standard_normal(grid.shape_zyx), -1000).astype(np.int16)
        ct[(masks[5] | masks[6]) & body] += 500
        digest = f"{seed:064x}"
        native = {key: list(value) for key, value in asdict(grid).items()}
        return Case(
            grid=grid,
            ct_hu=ct,
            structure_names=names,
            masks=masks,
            sdf_mm=np.stack([signed_distance(m, grid.spacing_mm) for m in masks]),
            present=masks.any(axis=(1, 2, 3)),
            body=body,
            valid_dose=body,
            full_shape_zyx=grid.shape_zyx,
            crop_start_zyx=(0, 0, 0),
            meta={
                "case_id": case_id, "pseudonym": f"phantom_{case_id}", "group": "A", "site": "A", "modality": "CT",
                "source_sha256": digest, "protocol": "prostate_sib", "warnings": [], "parity": {},
                "native_image_grid": native, "native_dose_grid": native,
            },
            dose_gy=dose,
            prescription_gy={"PTV70": 70.0, "PTV56": 56.0},
            n_fractions=28,
        )  # fmt: skip

    return make
