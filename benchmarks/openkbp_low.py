"""OpenKBP patients at a quarter of their resolution or less, for trials of dose models that a CPU can pay.

    python benchmarks/openkbp_low.py DATA OUT

DATA is the compact form of the challenge's data (folders `train` and `validation` of `pt_N.npz`). OUT gets `cases/` and
`splits.csv`: of the train patients 20, spread evenly, choose the epoch (`val`), the rest are trained on (`train`), the
validation patients are `test`. Each low voxel is the mean of 4x2x2 (z, y, x) of the challenge's, about 10x8x8 mm; a
structure holds a low voxel that it fills by half. Cases are cropped to the possible-dose mask.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.cohort.openkbp_files import SIDE, to_zyx
from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.core.grid import Grid
from doseledger.core.protocol import Protocol, load_protocol
from doseledger.core.tables import SPLITS, write_table
from doseledger.dicom.distance import signed_distance

FACTORS_ZYX = (4, 2, 2)
DOSE_STEP_GY = 0.002
N_SELECTION = 20
PROTOCOL = Path(__file__).resolve().parents[1] / "validation" / "protocols" / "head_neck_openkbp.yaml"


def block_mean(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of each block of FACTORS_ZYX voxels."""
    z, y, x = FACTORS_ZYX
    blocks = array.reshape(array.shape[0] // z, z, array.shape[1] // y, y, array.shape[2] // x, x)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)


def low_case(path: Path, protocol: Protocol) -> Case:
    """Return one patient at low resolution, cropped to where dose is possible."""
    with np.load(path) as npz:

        def volume(name: str) -> NDArray[np.float32]:
            bits = np.unpackbits(npz[name]).reshape(SIDE, SIDE, SIDE)
            return block_mean(to_zyx(bits).astype(np.float32))

        valid_share = volume("possible_dose_mask")
        masks = {n: volume(f"mask_{n}") if f"mask_{n}" in npz else None for n in protocol.structure_names}
        dose_gy = block_mean(to_zyx(npz["dose_2mgy"].astype(np.float32) * np.float32(DOSE_STEP_GY)))
        ct = block_mean(to_zyx(np.clip(npz["ct"], 0, 4095).astype(np.float32)))
        y_mm, x_mm, z_mm = (float(v) for v in npz["voxel_dimensions"])
    valid = valid_share >= 0.5
    box = tuple(slice(v.min(), v.max() + 1) for v in np.nonzero(valid))
    starts = tuple(part.start for part in box)
    spacing = tuple(mm * factor for mm, factor in zip((z_mm, y_mm, x_mm), FACTORS_ZYX, strict=True))
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
        full_shape_zyx=tuple(SIDE // factor for factor in FACTORS_ZYX),
        crop_start_zyx=starts,
        meta={"case_id": path.stem, "pseudonym": path.stem, "modality": "CT", "protocol": protocol.name},
        dose_gy=np.where(valid, dose_gy[box], np.float32(0.0)).astype(np.float32),
        prescription_gy={n: gy for n, gy in protocol.prescription_gy.items() if low[n].any()},
        n_fractions=protocol.n_fractions,
    )


def main() -> None:
    """Write the cases and their splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    protocol = load_protocol(PROTOCOL)
    rows = []
    for part in ("train", "validation"):
        files = sorted((args.data / part).glob("pt_*.npz"), key=lambda file: int(file.stem[3:]))
        held = set(np.linspace(0, len(files) - 1, N_SELECTION).round().astype(int)) if part == "train" else set()
        for index, file in enumerate(files):
            case = low_case(file, protocol)
            case.save(args.out / "cases" / f"{file.stem}.npz")
            split = "test" if part == "validation" else "val" if index in held else "train"
            digest = sha256_of_file(args.out / "cases" / f"{file.stem}.npz")
            rows.append({"repeat": 0, "fold": 0, "case_id": file.stem, "pseudonym": file.stem, "group": part,
                         "split": split, "sha256": digest})  # fmt: skip
    write_table(args.out / "splits.csv", pd.DataFrame(rows), SPLITS)
    print(pd.DataFrame(rows)["split"].value_counts().to_string())


if __name__ == "__main__":
    main()
