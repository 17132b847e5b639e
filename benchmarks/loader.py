"""How fast patches come from memory-mapped cases, against decoding whole NPZ files: CPU seconds and ratios.

    python benchmarks/loader.py [--cases FOLDER] [--patches N]

FOLDER holds cases as ingest writes them; without it one synthetic case of a clinic's size is made. Every way ends in
the same tensors: channels, condition, dose and masks of a patch. CPU time on warm files, as anything else on the
machine can only add to the wall clock; from a cold disk it is the bytes read that count, and they are told too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import as_tensors, read_sample
from doseledger.learn.recipes.dose import InputRecipe

SHAPE = (128, 224, 224)
PATCH = (64, 96, 96)
NAMES = ("PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")
RECIPE = InputRecipe(
    structures="sdf", sdf_scale_mm=50.0, prescription="numbers_and_map", place="targets", physics=[], dose_scale_gy=70.0
)


def make_case(folder: Path) -> Path:
    """Write a case of spheres of a clinic's size and return its path."""
    rng = np.random.default_rng(1)
    grid = Grid(SHAPE, (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in SHAPE], indexing="ij", sparse=True)
    masks, sdf = [], []
    for _ in NAMES:
        centre = rng.uniform(0.35, 0.65, 3) * SHAPE
        distance = np.sqrt((3 * (z - centre[0])) ** 2 + (2 * (y - centre[1])) ** 2 + (2 * (x - centre[2])) ** 2) - 40
        sdf.append(np.clip(distance, -50, 50).astype(np.float16))
        masks.append(distance < 0)
    body = np.ones(SHAPE, dtype=bool)
    case = Case(
        grid=grid,
        ct_hu=rng.integers(-1000, 1500, SHAPE).astype(np.int16),
        structure_names=NAMES,
        masks=np.stack(masks),
        sdf_mm=np.stack(sdf),
        present=np.ones(len(NAMES), dtype=bool),
        body=body,
        valid_dose=body,
        full_shape_zyx=SHAPE,
        crop_start_zyx=(0, 0, 0),
        meta={"case_id": "case_0001"},
        dose_gy=(70 * rng.random(SHAPE)).astype(np.float32),
        prescription_gy={"PTV70": 70.0, "PTV56": 56.0},
        n_fractions=28,
    )
    path = folder / "case_0001.npz"
    case.save(path)
    return path


def draw_box(case: OpenCase, rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A patch anywhere in the case, or the whole of an axis that is shorter."""
    size = [min(n, p) for n, p in zip(case.shape_zyx, PATCH, strict=True)]
    start = [int(rng.integers(n - s + 1)) for n, s in zip(case.shape_zyx, size, strict=True)]
    return (start[0], start[1], start[2]), (size[0], size[1], size[2])


def seconds_a_patch(work: Callable[[np.random.Generator], object], n_patches: int) -> float:
    """Least CPU seconds of a patch over three runs."""
    found = []
    for _ in range(3):
        rng = np.random.default_rng(0)
        start = time.process_time()
        for _ in range(n_patches):
            work(rng)
        found.append((time.process_time() - start) / n_patches)
    return min(found)


def measure(case: OpenCase, n_patches: int) -> None:
    """Print the table for one case."""
    spec = spec_of([case], RECIPE)
    with tempfile.TemporaryDirectory() as name:
        packed = Path(name) / "packed.npz"
        with np.load(case.file.path) as npz:
            np.savez_compressed(packed, **npz)

        def decode(path: Path, rng: np.random.Generator) -> object:
            (z, y, x), (dz, dy, dx) = draw_box(case, rng)
            with np.load(path) as npz:
                arrays = {key: npz[key] for key in ("ct_hu", "sdf_mm", "masks", "body", "valid_dose", "dose_gy")}
            part = (..., slice(z, z + dz), slice(y, y + dy), slice(x, x + dx))
            image = np.concatenate([arrays["ct_hu"][None], arrays["sdf_mm"]])[part].astype(np.float32)
            return torch.from_numpy(image), [np.ascontiguousarray(arrays[key][part]) for key in arrays]

        ways: list[tuple[str, Callable[[np.random.Generator], object], int]] = [
            ("memory-mapped patch", lambda rng: as_tensors(read_sample(case, spec, draw_box(case, rng))), n_patches),
            ("whole stored NPZ", lambda rng: decode(case.file.path, rng), max(2, n_patches // 8)),
            ("whole deflated NPZ", lambda rng: decode(packed, rng), 2),
        ]
        megabytes = case.file.path.stat().st_size / 1e6
        print(f"{case.case_id}: {case.shape_zyx} voxels, {len(case.structure_names)} structures, {megabytes:.0f} MB")
        print(f"patches of {PATCH} voxels; deflated the file has {packed.stat().st_size / 1e6:.0f} MB")
        base = None
        for label, work, count in ways:
            seconds = seconds_a_patch(work, count)
            base = base or seconds
            print(f"{label:22s} {1000 * seconds:9.1f} ms of CPU a patch   ratio {seconds / base:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="folder of cases as ingest writes them")
    parser.add_argument("--patches", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = sorted(arguments.cases.glob("*.npz"))[:2] if arguments.cases else [make_case(Path(name))]
        for path in paths:
            measure(open_case(CaseFile(path.stem, path, sha256_of_file(path))), arguments.patches)


if __name__ == "__main__":
    main()
