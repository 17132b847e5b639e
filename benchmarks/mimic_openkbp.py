"""Doses of OpenKBP mimicked by nine fields of free fluence: plans, network-like doses, and one that no beam gives.

    python benchmarks/mimic_openkbp.py DATA [--patients 8]

DATA is the compact form of the challenge's data; its validation patients are taken in order, at the challenge's
voxels. Wanted are the plan's dose (another system's engine and optimiser), that dose as a network might tell it
(blurred by 4 mm, with smooth errors of 1 Gy), and an ideal one (the prescription in the targets, halved each 5 mm
beyond them). A row says how near nine fields come: mean absolute error and gamma above 10 % of the maximum, the error
of D95% in the target of the highest prescription, and CPU seconds. No leaves are sequenced: fluence is free.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from openkbp_cases import PROTOCOL, read_case
from scipy import ndimage

from doseledger.core.case import Case
from doseledger.core.project.protocol import load_protocol
from doseledger.core.types import GyArray
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.dosimetry.gamma.grids import DosePair
from doseledger.dosimetry.gamma.map import pass_rate_percent
from doseledger.ingest.physics import field_case
from doseledger.planning.fields.maps import field_dose, nearest_dose

BLUR_MM, ERROR_GY, ERROR_MM, HALF_MM = 4.0, 1.0, 10.0, 5.0
CRITERIA = ((3.0, 3.0), (2.0, 2.0))


def wanted_doses(case: Case, rng: np.random.Generator) -> dict[str, GyArray]:
    """Return the doses to be mimicked, by name, in Gy (z, y, x)."""
    spacing = np.asarray(case.grid.spacing_mm)
    plan = case.dose_gy
    noise = ndimage.gaussian_filter(rng.normal(size=plan.shape), ERROR_MM / spacing)
    told = ndimage.gaussian_filter(plan, BLUR_MM / spacing) + ERROR_GY * noise / noise.std()
    ideal = np.zeros(plan.shape)
    for name, gy in case.prescription_gy.items():
        far = ndimage.distance_transform_edt(~case.mask(name), sampling=spacing)
        ideal = np.maximum(ideal, gy * 0.5 ** (far / HALF_MM))
    return {
        name: np.where(case.valid_dose, np.maximum(dose, 0.0), 0.0).astype(np.float32)
        for name, dose in (("plan", plan), ("network-like", told), ("ideal", ideal))
    }


def compare(case: Case, wanted: GyArray, given: GyArray) -> list[float]:
    """Return error and pass rates above 10 % of the maximum, and the error of D95% in the main target."""
    high = wanted >= 0.1 * wanted.max()
    main = case.mask(max(case.prescription_gy, key=case.prescription_gy.__getitem__))
    axes = case.grid.axes_mm()
    rates = []
    for percent, mm in CRITERIA:
        criteria = GammaCriteria(percent, mm, cutoff_percent=10.0, local=False, interp_fraction=5, max_gamma=1.1)
        rates.append(pass_rate_percent(DosePair(axes, wanted, axes, given), criteria).pass_rate_percent)
    d95 = np.percentile(given[main], 5) - np.percentile(wanted[main], 5)
    return [float(np.abs(given - wanted)[high].mean()), *rates, float(d95)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--patients", type=int, default=8)
    args = parser.parse_args()
    protocol = load_protocol(PROTOCOL)
    files = sorted((args.data / "validation").glob("pt_*.npz"), key=lambda file: int(file.stem[3:]))
    rows: dict[str, list[list[float]]] = {}
    for number, file in enumerate(files[: args.patients]):
        case = read_case(file, protocol, (1, 1, 1))
        began = time.process_time()
        fields = field_dose(field_case(case), protocol.beams)
        prepared = time.process_time() - began
        for name, wanted in wanted_doses(case, np.random.default_rng(number)).items():
            began = time.process_time()
            given = nearest_dose(fields, wanted)
            seconds = prepared + time.process_time() - began
            rows.setdefault(name, []).append([*compare(case, wanted, given), seconds])
        print(
            f"{file.stem}: " + "; ".join(f"{n} {r[-1][0]:.2f} Gy, {r[-1][1]:.1f} %" for n, r in rows.items()),
            flush=True,
        )
    print("| wanted | MAE Gy | gamma 3 %/3 mm | 2 %/2 mm | D95% off, Gy | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, values in rows.items():
        low, middle, high = np.min(values, axis=0), np.mean(values, axis=0), np.max(values, axis=0)
        cells = [f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in zip(low, middle, high, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
