"""How well other patients' mean dose tells a patient's: by place about the targets, by distance, and mixed.

    python benchmarks/mean_dose.py data/cases/phantom
    python benchmarks/mean_dose.py data/cases/openkbp

Each case is left out in turn, and told by what `prior: mean_dose` makes of all the others, without a network. Mean
absolute error in Gy, in the body and where the plan gives more than a tenth of the prescription; then the worst case's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from shipped import shipped_recipe

from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import read_sample
from doseledger.learn.networks.mean_dose import MeanDose

SHARES = {"by place": 1.0, "by distance": 0.0, "mixed": None}


def errors_gy(prior: MeanDose, case: OpenCase) -> tuple[float, float]:
    """Return a prior's mean error in the body of a case, and where the plan gives more than a tenth."""
    sample = read_sample(case, prior.spec, case.whole)
    image, condition = (torch.from_numpy(sample[name])[None] for name in ("image", "condition"))
    with torch.no_grad():
        told = prior(image, condition)[0].numpy()
    inside = sample["body"] & sample["valid_dose"]
    scale_gy = prior.spec.recipe.dose_scale_gy
    error, dose = np.abs(told - sample["dose"])[inside] * scale_gy, sample["dose"][inside] * scale_gy
    return float(error.mean()), float(error[dose > 0.1 * case.main_prescription_gy].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--model", default="dose_unet", help="whose inputs")
    options = parser.parse_args()
    paths = sorted(options.cases.glob("*.npz"))
    cases = [open_case(CaseFile(path.stem, path, sha256_of_file(path))) for path in paths]
    spec = spec_of(cases, shipped_recipe(options.model).inputs)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SHARES}
    shares = []
    for case in cases:
        prior = MeanDose(spec)
        prior.fit([other for other in cases if other is not case])
        shares.append(float(prior.place_share))
        for name, share in SHARES.items():
            prior.place_share.fill_(shares[-1] if share is None else share)
            found[name].append(errors_gy(prior, case))
    print(f"{len(cases)} cases; the share of place is {min(shares):.2f} to {max(shares):.2f}\n")
    print("| mean | body / dose > 10 % | worst case |\n|---|---|---|")
    for name, rows in found.items():
        body, above = np.mean(rows, axis=0)
        print(f"| {name} | {body:.2f} / {above:.2f} | {max(row[0] for row in rows):.2f} |")


if __name__ == "__main__":
    main()
