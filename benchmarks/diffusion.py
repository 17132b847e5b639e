"""A dose model and a diffusion of what it leaves over, on OpenKBP at low resolution: error, spread, coverage.

    python benchmarks/openkbp_cases.py DATA LOW --maps
    python benchmarks/diffusion.py LOW --base trees
    python benchmarks/diffusion.py LOW --base mean_dose --epochs 24

On `trees` it is `dose_diffusion_beams` on `dose_trees_beams`, whose residual of a training patient is that of trees
which have not seen it (LOW/second, of benchmarks/trees.py, is taken where it is there); on `mean_dose` a diffusion in
windows on a U-Net that stands on the mean dose. A training is skipped where its checkpoint lies in LOW already, so the
parts can be run one at a time (`--only`), and several at once; predictions are made anew. `val` are the patients of LOW
that intervals are stretched by, `test` the validation patients of the challenge, on which they are judged.
"""

from __future__ import annotations

import argparse
import resource
import time
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
from doseledger.learn.recipes.dose import ModelRecipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.report.figures.style import house_style, save_figure
from doseledger.report.figures.uncertainty import calibration_figure

LR, SEED = 0.002, 1
# Whole cases at low resolution, one patch each; the network at the cases' own resolution, in 16-bit arithmetic.
SHARED: dict[str, Any] = {
    "inputs": {"physics": []},
    "sampling": {"patch_zyx": [32, 40, 64], "batch_size": 2, "patches_per_case": 1},
    "network": {"stem_stride_zyx": [1, 1, 1], "channels": [32, 64, 96, 128], "convolutions": [1, 2, 2, 2]},
}
UNET = {**SHARED, "prior": "mean_dose", "loss": {"target_weight": 1.0}}
DIFFUSION = {
    **SHARED,
    "predict": {"samples": 8, "steps": 12, "sampler": "euler", "antithetic": True, "seed": 7, "windows_at_once": 4},
}


def fit_of(n_epochs: int, validate_every: int) -> dict[str, Any]:
    """Return how long is trained, in 16-bit arithmetic; 0 epochs: as shipped."""
    if not n_epochs:
        return {}
    return {"max_epochs": n_epochs, "validate_every": validate_every, "precision": "bf16-mixed"}


def models_of(base: str, base_epochs: int, epochs: int) -> dict[str, ModelRecipe]:
    """Return what is stood on, and the diffusion on it, by the folder that each lies in."""
    fit = {"fit": fit_of(epochs, epochs)}
    if base == "trees":
        trees = shipped_recipe("dose_trees_beams", {"predict": {"project": False}})
        return {"second": trees, "trees_diffusion": shipped_recipe("dose_diffusion_beams", fit)}
    unet = shipped_recipe("dose_unet", {**UNET, "fit": fit_of(base_epochs, 4)})
    return {"low_unet": unet, "low_diffusion": shipped_recipe("dose_diffusion", {**DIFFUSION, **fit})}


def train_once(low: Path, name: str, recipe: ModelRecipe, base: Path | None = None) -> Path:
    """Train a model, from its base where it has one, unless it is there; return its checkpoint."""
    out = low / name
    if not (out / "checkpoints" / "best.ckpt").is_file():
        run = TrainingRun(name, recipe, LR, SEED, 0, 0, {"ok": True}, {}, make_family(recipe, base))
        places = Places(low / "cases", low / "splits.csv", out, low / "resume" / name, low / "physics")
        train(run, places, fresh=False, tell=print)
    return out / "checkpoints" / "best.ckpt"


def part_of(low: Path, which: str) -> SplitPart:
    """Return the patients of one part of the splits."""
    return SplitPart(low / "cases", low / "splits.csv", which, 0, 0, low / "physics")


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


def print_scores(low: Path, names: tuple[str, str]) -> None:
    """Print both models' errors, and their difference patient by patient."""
    rng, scores = np.random.default_rng(1), {name: score(low, name) for name in names}
    for name, values in scores.items():
        for key, numbers in values.items():
            if len(numbers):
                low_end, high_end = bootstrap_interval(numbers, rng)
                print(f"{name} {key}: {numbers.mean():.3f} Gy ({low_end:.3f} to {high_end:.3f}), n = {len(numbers)}")
    base, drawn = (scores[name] for name in names)
    for key in ("dose", "dvh"):
        low_end, high_end = bootstrap_interval(drawn[key] - base[key], rng)
        apart = f"{np.mean(drawn[key] - base[key]):+.3f} Gy ({low_end:+.3f} to {high_end:+.3f})"
        print(key, "less its base's", apart, paired_test(base[key], drawn[key]))


def print_calibration(low: Path, name: str) -> None:
    """Print how many of the test patients' doses intervals hold, and draw it as the report does."""
    val, test = (low / "predictions" / f"{name}_{part}" for part in ("val", "test"))
    found = calibrate_cohort(DrawnSets(low / "cases", low / "splits.csv", val, test, 0, 0), tell=print)
    for key, value in found["summary"].items():
        print(f"{key} {value:.3f}")
    with house_style():
        save_figure(calibration_figure(found["details"]), low / "figures", f"calibration_{name}", 100)


def main() -> None:
    """Train, predict and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--base", choices=["trees", "mean_dose"], default="trees")
    parser.add_argument("--base-epochs", type=int, default=36, help="of the U-Net on the mean dose")
    parser.add_argument("--epochs", type=int, default=0, help="of the diffusion; as its recipe has them")
    parser.add_argument("--only", choices=["base", "diffusion", "test", "val", "score"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    low, only = args.low, args.only
    models = models_of(args.base, args.base_epochs, args.epochs)
    checkpoint, checkpoints = None, dict[str, Path]()
    for name, recipe in models.items():
        checkpoints[name] = checkpoint = train_once(low, name, recipe, checkpoint)
        print_cost(f"{name} trained")
        if only == "base":
            return
    for part in ("val", "test"):
        if only not in (None, part):
            continue
        for name, recipe in models.items():
            out = low / "predictions" / f"{name}_{part}"
            predict_part(open_predictor(checkpoints[name], recipe), part_of(low, part), out, tell=print)
        print_cost(f"{part} predicted")
    if only in (None, "score"):
        base, drawn = models
        print_scores(low, (base, drawn))
        print_calibration(low, drawn)


def print_cost(what: str) -> None:
    """Print this process's CPU seconds and peak memory until now."""
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.process_time():.0f} CPU s, {gib:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
