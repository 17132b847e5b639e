"""OpenKBP patients as cases with splits: at low resolution, for trials that a CPU can pay, or at their own.

    python benchmarks/openkbp_cases.py DATA OUT [--full] [--maps] [--workers N]

DATA is the compact form of the challenge's data (folders `train` and `validation` of `pt_N.npz`). OUT gets `cases/` and
`splits.csv`: of the train patients 20, spread evenly, choose the epoch (`val`), the rest are trained on (`train`), the
validation patients are `test`. Each low voxel is the mean of 4x2x2 (z, y, x) of the challenge's, about 10x8x8 mm; a
structure holds a low voxel that it fills by half. `--full` keeps the challenge's voxels, about 2.5x4x4 mm, 18 MB a
case. Cases are cropped to the possible-dose mask.

With `--maps` OUT gets `physics/` too: the beams' maps of the whole CT, not of the cropped case. Those of low cases are
made on 2x2x2 of the challenge's voxels and averaged; a skin or a cavity within a low voxel shows in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.physics import write_physics
from doseledger.core.pool.cluster import local
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import SPLITS, write_table
from doseledger.core.types import GyArray
from doseledger.dicom.distance import signed_distance
from doseledger.ingest.openkbp.case import find_body
from doseledger.ingest.openkbp.files import SIDE, to_zyx
from doseledger.planning.fields.maps import FieldCase, physics_maps

LOW_FACTORS_ZYX = (4, 2, 2)
DOSE_STEP_GY = 0.002
N_SELECTION = 20
PROTOCOL = Path(__file__).resolve().parents[1] / "validation/cohorts/openkbp/protocol.yaml"


def block_mean(array: NDArray[np.float32], factors_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return the mean of each block of so many voxels."""
    z, y, x = factors_zyx
    blocks = array.reshape(array.shape[0] // z, z, array.shape[1] // y, y, array.shape[2] // x, x)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)


def read_case(path: Path, protocol: Protocol, factors_zyx: tuple[int, int, int]) -> Case:
    """Return one patient, so many voxels made one, cropped to where dose is possible."""
    with np.load(path) as npz:

        def volume(name: str) -> NDArray[np.float32]:
            bits = np.unpackbits(npz[name]).reshape(SIDE, SIDE, SIDE)
            return block_mean(to_zyx(bits).astype(np.float32), factors_zyx)

        valid_share = volume("possible_dose_mask")
        masks = {n: volume(f"mask_{n}") if f"mask_{n}" in npz else None for n in protocol.structure_names}
        dose_gy = block_mean(to_zyx(npz["dose_2mgy"].astype(np.float32) * np.float32(DOSE_STEP_GY)), factors_zyx)
        ct = block_mean(to_zyx(np.clip(npz["ct"], 0, 4095).astype(np.float32)), factors_zyx)
        y_mm, x_mm, z_mm = (float(v) for v in npz["voxel_dimensions"])
    valid = valid_share >= 0.5
    box = tuple(slice(v.min(), v.max() + 1) for v in np.nonzero(valid))
    starts = tuple(part.start for part in box)
    spacing = tuple(mm * factor for mm, factor in zip((z_mm, y_mm, x_mm), factors_zyx, strict=True))
    valid = valid[box]
    grid = Grid(valid.shape, spacing, tuple(s * mm for s, mm in zip(starts[::-1], spacing[::-1], strict=True)))
    nothing = np.zeros(valid.shape, dtype=np.bool_)
    low = {name: mask[box] >= 0.5 if mask is not None else nothing for name, mask in masks.items()}
    return Case(
        grid=grid,
        ct_hu=(ct[box] - 1000).astype(np.int16),
        structure_names=protocol.structure_names,
        masks=np.stack(list(low.values())),
        sdf_mm=np.stack([signed_distance(mask, grid, protocol.sdf_clip_mm) for mask in low.values()]),
        present=np.asarray([mask.any() for mask in low.values()]),
        body=valid,
        valid_dose=valid,
        full_shape_zyx=tuple(SIDE // factor for factor in factors_zyx),
        crop_start_zyx=starts,
        meta={"case_id": path.stem, "pseudonym": path.stem, "modality": "CT", "protocol": protocol.name},
        dose_gy=np.where(valid, dose_gy[box], np.float32(0.0)).astype(np.float32),
        prescription_gy={n: gy for n, gy in protocol.prescription_gy.items() if low[n].any()},
        n_fractions=protocol.n_fractions,
    )


def write_case(path: Path, out: Path, factors_zyx: tuple[int, int, int]) -> str:
    """Write one patient's case into a folder; return its SHA256."""
    file = out / f"{path.stem}.npz"
    read_case(path, load_protocol(PROTOCOL), factors_zyx).save(file)
    return sha256_of_file(file)


def whole_maps(path: Path, protocol: Protocol, factors_zyx: tuple[int, int, int]) -> dict[str, GyArray]:
    """Return the beams' maps of one patient in Gy on the case's voxels, the whole volume."""
    made_on = (min(factors_zyx[0], 2), min(factors_zyx[1], 2), min(factors_zyx[2], 2))
    with np.load(path) as npz:

        def share(name: str) -> NDArray[np.float32]:
            bits = np.unpackbits(npz[name]).reshape(SIDE, SIDE, SIDE)
            return block_mean(to_zyx(bits).astype(np.float32), made_on)

        valid = share("possible_dose_mask") >= 0.5
        masks = {n: share(f"mask_{n}") >= 0.5 for n in protocol.structure_names if f"mask_{n}" in npz}
        ct = block_mean(to_zyx(np.clip(npz["ct"], 0, 4095).astype(np.float32)), made_on)
        y_mm, x_mm, z_mm = (float(v) for v in npz["voxel_dimensions"])
    z, y, x = (mm * factor for mm, factor in zip((z_mm, y_mm, x_mm), made_on, strict=True))
    grid = Grid(valid.shape, (z, y, x), (0.0, 0.0, 0.0))
    ct_hu = (ct - 1000).astype(np.int16)
    there = {name: mask for name, mask in masks.items() if mask.any()}
    prescribed = {name: gy for name, gy in protocol.prescription_gy.items() if name in there}
    if protocol.beams is None:
        raise SystemExit(f"{PROTOCOL} has no beams")
    case = FieldCase(ct_hu, grid, find_body(ct_hu, valid, grid), there, prescribed)
    z, y, x = (whole // own for whole, own in zip(factors_zyx, made_on, strict=True))
    maps_gy = physics_maps(case, protocol.beams)
    return {name: block_mean(dose_gy, (z, y, x)) for name, dose_gy in maps_gy.items()}


def write_maps(path: Path, case_path: Path, out: Path, factors_zyx: tuple[int, int, int]) -> None:
    """Write the maps of one patient's case."""
    protocol = load_protocol(PROTOCOL)
    case = Case.load(case_path)
    maps_gy = {name: dose_gy[case.crop] for name, dose_gy in whole_maps(path, protocol, factors_zyx).items()}
    beams = protocol.beams
    if beams is not None:
        write_physics(out / case_path.name, maps_gy, case_sha256=sha256_of_file(case_path), beams=beams)


def main() -> None:
    """Write the cases and their splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--full", action="store_true", help="keep the challenge's voxels")
    parser.add_argument("--maps", action="store_true", help="and maps of the whole CT")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    args = parser.parse_args()
    factors = (1, 1, 1) if args.full else LOW_FACTORS_ZYX
    groups = {
        part: sorted((args.data / part).glob("pt_*.npz"), key=lambda file: int(file.stem[3:]))
        for part in ("train", "validation")
    }
    n_train = len(groups["train"])
    held = set(np.linspace(0, n_train - 1, min(N_SELECTION, n_train // 2)).round().astype(int))
    splits = {
        file: (part, "test" if part == "validation" else "val" if index in held else "train")
        for part, files in groups.items()
        for index, file in enumerate(files)
    }
    arguments = {file.stem: (file, args.out / "cases", factors) for file in splits}
    written = over_cases(write_case, arguments, local(args.workers), tell=print).done
    if args.maps:
        made = {
            file.stem: (file, args.out / "cases" / f"{file.stem}.npz", args.out / "physics", factors) for file in splits
        }
        over_cases(write_maps, made, local(args.workers), tell=print).complete()
    rows = [{"repeat": 0, "fold": 0, "case_id": file.stem, "pseudonym": file.stem, "group": part, "split": split,
             "sha256": written[file.stem]} for file, (part, split) in splits.items()]  # fmt: skip
    write_table(args.out / "splits.csv", pd.DataFrame(rows), SPLITS)
    print(pd.DataFrame(rows)["split"].value_counts().to_string())


if __name__ == "__main__":
    main()
