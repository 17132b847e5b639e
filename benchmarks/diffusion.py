"""A U-Net and a diffusion of what it leaves over, on OpenKBP at low resolution: error, spread, coverage.

    python benchmarks/openkbp_cases.py DATA LOW
    python benchmarks/diffusion.py LOW --unet-epochs 36 --diffusion-epochs 24

A training is skipped where its checkpoint lies in LOW already, so the parts can be run one at a time (`--only`), and
several at once; predictions are made anew. `val` are the patients of LOW that choose the epoch, `test` the validation
patients of the challenge.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shipped import shipped_recipe

from doseledger.core.case import Case
from doseledger.core.tables import SPLITS, read_table
from doseledger.dosimetry.intervals import bootstrap_interval, paired_test
from doseledger.dosimetry.openkbp_scores import score_patient
from doseledger.evaluate.calibration import DrawnSets, calibrate_cohort
from doseledger.evaluate.predictions import load_prediction, load_samples
from doseledger.learn.kinds import make_family, open_predictor
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.dose import CommonRecipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.report.figures.style import house_style, save_figure
from doseledger.report.figures.uncertainty import calibration_figure

LR, SEED = 0.002, 1
# Whole cases at low resolution, one patch each; the network at the cases' own resolution, in 16-bit arithmetic.
SHARED: dict[str, Any] = {
    "sampling": {"patch_zyx": [32, 40, 64], "batch_size": 2, "patches_per_case": 1},
    "network": {"stem_stride_zyx": [1, 1, 1], "channels": [32, 64, 96, 128], "convolutions": [1, 2, 2, 2]},
}
UNET = {**SHARED, "loss": {"target_weight": 1.0}}
DIFFUSION = {
    **SHARED,
    "predict": {"samples": 8, "steps": 12, "sampler": "euler", "antithetic": True, "seed": 7, "windows_at_once": 4},
}


def fit_of(n_epochs: int, validate_every: int) -> dict[str, Any]:
    """Return how long is trained, in 16-bit arithmetic."""
    return {"max_epochs": n_epochs, "validate_every": validate_every, "precision": "bf16-mixed"}


def train_once(low: Path, name: str, recipe: CommonRecipe, base: Path | None = None) -> Path:
    """Train a model, from its base where it has one, unless it is there; return its checkpoint."""
    out = low / "models" / name
    if not (out / "checkpoints" / "best.ckpt").is_file():
        run = TrainingRun(name, recipe, LR, SEED, 0, 0, {"ok": True}, {}, make_family(recipe, base))
        train(run, Places(low / "cases", low / "splits.csv", out, low / "resume"), fresh=False, tell=print)
    return out / "checkpoints" / "best.ckpt"


def score(low: Path, name: str) -> dict[str, np.ndarray]:
    """Return each test patient's dose and DVH score in Gy, and that of a single drawn dose where there are some."""
    found: dict[str, list[float]] = {"dose": [], "dvh": [], "one": []}
    table = read_table(low / "splits.csv", SPLITS)
    for case_id in table.loc[table["split"] == "test", "case_id"]:
        case = Case.load(low / "cases" / f"{case_id}.npz")
        dose_gy = np.asarray(case.dose_gy)
        path = low / "predictions" / f"{name}_test" / f"{case_id}.npz"
        prediction = load_prediction(path)
        masks = {structure: case.mask(structure) for structure in case.present_names}
        patient = score_patient(dose_gy, prediction.dose_gy, masks, case.valid_dose, case.grid.voxel_volume_cc * 1000.0)
        found["dose"].append(patient.dose_gy)
        found["dvh"].append(float(np.mean(list(patient.dvh_gy.values()))))
        if "samples" in np.load(path):
            samples_gy, sampled = load_samples(path)
            found["one"].append(float(np.abs(samples_gy - dose_gy[sampled]).mean()))
    return {key: np.asarray(values) for key, values in found.items()}


def main() -> None:
    """Train, predict and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--unet-epochs", type=int, required=True)
    parser.add_argument("--diffusion-epochs", type=int, required=True)
    parser.add_argument("--only", choices=["unet", "diffusion", "test", "val", "score"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    low, only = args.low, args.only
    unet = shipped_recipe("dose_unet", {**UNET, "fit": fit_of(args.unet_epochs, 4)})
    fit = fit_of(args.diffusion_epochs, args.diffusion_epochs)
    diffusion = shipped_recipe("dose_diffusion", {**DIFFUSION, "fit": fit})
    base = train_once(low, "low_unet", unet)
    if only == "unet":
        return
    drawn = train_once(low, "low_diffusion", diffusion, base)
    for part in ("val", "test"):
        if only not in (None, part):
            continue
        files = SplitPart(low / "cases", low / "splits.csv", part, 0, 0)
        for name, checkpoint, recipe in (("low_unet", base, unet), ("low_diffusion", drawn, diffusion)):
            out = low / "predictions" / f"{name}_{part}"
            predict_part(open_predictor(checkpoint, recipe), files, out, tell=print)
    if only not in (None, "score"):
        return
    rng, scores = np.random.default_rng(1), {name: score(low, name) for name in ("low_unet", "low_diffusion")}
    for name, values in scores.items():
        for key, numbers in values.items():
            if len(numbers):
                low_end, high_end = bootstrap_interval(numbers, rng)
                print(f"{name} {key}: {numbers.mean():.3f} Gy ({low_end:.3f} to {high_end:.3f}), n = {len(numbers)}")
    for key in ("dose", "dvh"):
        print(key, paired_test(scores["low_unet"][key], scores["low_diffusion"][key]))
    predictions = low / "predictions"
    sets = DrawnSets(
        low / "cases", low / "splits.csv", predictions / "low_diffusion_val", predictions / "low_diffusion_test", 0, 0
    )
    found = calibrate_cohort(sets, tell=print)
    for name, value in found["summary"].items():
        print(f"{name} {value:.3f}")
    with house_style():
        save_figure(calibration_figure(found["details"]), low / "figures", "calibration", 100)


if __name__ == "__main__":
    main()
