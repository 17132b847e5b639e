"""A dose model and a diffusion of what it leaves over, on OpenKBP at low resolution: error, spread, coverage.

    python benchmarks/openkbp_cases.py DATA LOW --maps
    python benchmarks/diffusion.py LOW --base trees
    python benchmarks/diffusion.py LOW --base mean_dose --base-epochs 36 --epochs 24

On `trees` it is `dose_diffusion_beams` on `dose_trees_beams`, whose residual of a training patient is that of trees
which have not seen it (LOW/second, of benchmarks/trees.py, is taken where it is there); on `mean_dose` a diffusion in
windows on a U-Net that stands on the mean dose. A training is skipped where its checkpoint lies in LOW already, so the
parts can be run one at a time (`--only`), and several at once; predictions are made anew. `val` are the patients of LOW
that the intervals are stretched by, `test` the validation patients of the challenge, on which they are judged.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Model:
    """A model of the benchmark: the folder it lies in, what it is, its base learning rate."""

    name: str
    recipe: ModelRecipe
    lr: float = LR


def fit_of(n_epochs: int, validate_every: int) -> dict[str, Any]:
    """Return how long is trained, in 16-bit arithmetic; 0 epochs: as shipped."""
    if not n_epochs:
        return {}
    return {"max_epochs": n_epochs, "validate_every": validate_every, "precision": "bf16-mixed"}


def models_of(base: str, base_epochs: int, epochs: int) -> tuple[Model, Model]:
    """Return what is stood on, and the diffusion on it."""
    fit = {"fit": fit_of(epochs, epochs)}
    if base == "trees":
        trees = shipped_recipe("dose_trees_beams", {"predict": {"project": False}})
        return Model("second", trees, 1.0), Model("trees_diffusion", shipped_recipe("dose_diffusion_beams", fit))
    unet = shipped_recipe("dose_unet", {**UNET, "fit": fit_of(base_epochs, 4)})
    return Model("low_unet", unet), Model("low_diffusion", shipped_recipe("dose_diffusion", {**DIFFUSION, **fit}))


def physics_of(low: Path, model: Model) -> Path | None:
    """Return the folder of the maps that a model sees, if it does."""
    return low / "physics" if model.recipe.physics else None


def train_once(low: Path, model: Model, base: Path | None = None) -> Path:
    """Train a model, from its base where it has one, unless it is there; return its checkpoint."""
    out = low / model.name
    if not (out / "checkpoints" / "best.ckpt").is_file():
        family = make_family(model.recipe, base)
        run = TrainingRun(model.name, model.recipe, model.lr, SEED, 0, 0, {"ok": True}, {}, family)
        places = Places(low / "cases", low / "splits.csv", out, low / "resume" / model.name, physics_of(low, model))
        train(run, places, fresh=False, tell=print)
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
    base, drawn = models_of(args.base, args.base_epochs, args.epochs)
    checkpoints = [train_once(low, base)]
    if only == "base":
        return
    checkpoints.append(train_once(low, drawn, checkpoints[0]))
    print_cost("trained")
    for part in ("val", "test"):
        if only not in (None, part):
            continue
        for model, checkpoint in zip((base, drawn), checkpoints, strict=True):
            files = SplitPart(low / "cases", low / "splits.csv", part, 0, 0, physics_of(low, model))
            out = low / "predictions" / f"{model.name}_{part}"
            predict_part(open_predictor(checkpoint, model.recipe), files, out, tell=print)
        print_cost(f"{part} predicted")
    if only in (None, "score"):
        print_scores(low, (base.name, drawn.name))
        print_calibration(low, drawn.name)


def print_cost(what: str) -> None:
    """Print this process's CPU seconds and peak memory until now."""
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.process_time():.0f} CPU s, {gib:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
