"""How fast DVHs are against numpy's histograms and dicompyler-core: one table of CPU seconds and ratios.

    python benchmarks/dvh.py [--dicom FOLDER]

FOLDER holds rtss.dcm and rtdose.dcm; without it the part on DICOM is said to be not measured. CPU time;
the best of several runs, as anything else on the machine can only add to it.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from doseledger.dosimetry.dvh.curves import dvh_curves
from doseledger.evaluate.files.dvh import dvh_of_rtdose

SHAPE = (100, 256, 256)
BIN_GY = 0.01
REPEATS = 7


def least_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least CPU seconds of one call; the first call, which may compile, does not count."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def make_volume() -> tuple[np.ndarray, np.ndarray]:
    """A body and seven organs of clinical sizes in a falling dose: (z, y, x) and (structure, z, y, x)."""
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    masks = [((y - 128) / 100) ** 2 + ((x - 128) / 120) ** 2 <= 1]
    for _ in range(7):
        centre, radius = rng.uniform(0.3, 0.7, 3) * SHAPE, rng.uniform(8, 25, 3)
        masks.append(sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radius, strict=True)) <= 1)
    dose = 70 * np.exp(-((y - 128) ** 2 + (x - 128) ** 2) / 5000) * rng.uniform(0.95, 1.05, SHAPE)
    return dose.astype(np.float32), np.stack(masks)


def numpy_histograms(dose: np.ndarray, masks: np.ndarray, n_bins: int, top: float) -> list[np.ndarray]:
    return [np.histogram(dose[mask], bins=n_bins, range=(0, top))[0] for mask in masks]


def print_row(what: str, ours: float, peer: float) -> None:
    print(f"{what:52s} {1000 * ours:9.1f} ms {1000 * peer:9.1f} ms {peer / ours:8.1f} ×")


def compare_arrays() -> None:
    dose, masks = make_volume()
    for name, chosen in (("body and 7 organs", masks), ("7 organs", masks[1:])):
        edges = dvh_curves(dose, chosen, 1.0, BIN_GY)[0].edges_gy
        for curve, mask in zip(dvh_curves(dose, chosen, 1.0, BIN_GY), chosen, strict=True):
            # With a range in place of edges numpy rounds them to float32, which moves a few voxels by one bin.
            if not np.array_equal(curve.bin_cc, np.histogram(dose[mask], bins=edges)[0]):
                raise SystemExit(f"{name}: the counts differ from numpy's")
        ours = least_seconds(lambda chosen=chosen: dvh_curves(dose, chosen, 1.0, BIN_GY))
        peer = least_seconds(lambda c=chosen, e=edges: numpy_histograms(dose, c, len(e) - 1, float(e[-1])))
        print_row(f"numpy.histogram, {name}, {'×'.join(map(str, SHAPE))}", ours, peer)


def compare_dicom(folder: Path) -> None:
    import pydicom

    # dicompyler-core 0.5.6 asks for a name that pydicom 3 no longer has.
    importlib.import_module("pydicom.dicomio").read_file = pydicom.dcmread
    from dicompylercore import dvhcalc

    rtstruct, rtdose = folder / "rtss.dcm", folder / "rtdose.dcm"
    drawn = {name for name, found in dvh_of_rtdose(rtstruct, rtdose)["structures"].items() if "statistics" in found}
    numbers = [
        int(item.ROINumber)
        for item in pydicom.dcmread(rtstruct).StructureSetROISequence
        if str(item.ROIName).strip() in drawn
    ]
    ours = least_seconds(lambda: dvh_of_rtdose(rtstruct, rtdose), repeats=3)
    peer = least_seconds(lambda: [dvhcalc.get_dvh(str(rtstruct), str(rtdose), n) for n in numbers], repeats=1)
    print_row(f"dicompyler-core, {len(numbers)} ROIs from DICOM files to curves", ours, peer)
    objects = pydicom.dcmread(rtstruct), pydicom.dcmread(rtdose)
    peer = least_seconds(lambda: [dvhcalc.get_dvh(*objects, n) for n in numbers], repeats=1)
    print_row("the same, its files parsed once beforehand", ours, peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicom", type=Path, default=None, help="folder with rtss.dcm and rtdose.dcm")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'against':52s} {'ours':>12s} {'peer':>12s} {'ratio':>10s}")
    compare_arrays()
    if arguments.dicom is None:
        print("dicompyler-core: not measured; give --dicom FOLDER")
    else:
        compare_dicom(arguments.dicom)


if __name__ == "__main__":
    main()
