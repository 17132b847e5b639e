"""Dose models on OpenKBP, step by step: trees, maps, context, a second stage, projection, a network.

    python benchmarks/openkbp_cases.py DATA LOW --maps
    python benchmarks/trees.py LOW --maps-made [--rows prior trees physics] [--part test]

LOW gets `physics/` (the maps, from CT and contours of the low cases; with `--maps-made` those that are there stay) and
a run a row. Dose and DVH score in Gy over the patients of one part of the splits: `val`, the default, holds 20 of the
training patients, on which recipes are chosen; beside it a 95 % interval over patients, and both scores less the row
before's, patient by patient. Each row is a process of its own, whose CPU seconds and peak memory are told. `second` is
the recipe `dose_trees_beams`, `weighted` one stage of it; `network` is `dose_unet_beams`, the mean of `--seeds` of
them; `mean` is `dose_mean` of these and of the trees of `--with`, which must be there. `projection` is the row before
it, projected onto the beams' doses: it may be named more than once. With `--trained` models that are there are told as
they are.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from openkbp_cases import PROTOCOL
from shipped import PROJECT, shipped_recipe

from doseledger.core.case import Case
from doseledger.core.pool.cluster import local
from doseledger.core.project.protocol import Beams, load_protocol
from doseledger.core.settings import load_settings
from doseledger.core.types import GyArray
from doseledger.dosimetry.openkbp_scores import PatientScore, combine_scores, score_patient
from doseledger.ingest.physics import fields_of, make_cohort_physics
from doseledger.learn.data.inputs import (
    CaseFile,
    OpenCase,
    case_files,
    defined_voxels,
    open_case,
    spec_of,
)
from doseledger.learn.data.patches import as_tensors, read_inputs
from doseledger.learn.kinds import make_family, open_predictor
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.planning.fields.maps import nearest_dose

Predict = Callable[[OpenCase], GyArray]

# Seed, fold, repeat, verdict and provenance of a run.
RUN: tuple[Any, ...] = (1, 0, 0, {"ok": True}, {})
# Changes of `boosting` by row, with maps but for the first; as few folds as a row takes, as none is
# scored by its training cases.
NARROW: dict[str, Any] = {"leaves": 63, "leaf_voxels": 40, "structure_weight": 0.0, "folds": 2, "stages": 1}
PLAIN: dict[str, Any] = NARROW | {"context_mm": []}
TREES: dict[str, dict[str, Any]] = {
    "trees": PLAIN,
    "physics": PLAIN,
    "context": NARROW,
    "leaves": {"structure_weight": 0.0, "folds": 2, "stages": 1},
    "weighted": {"folds": 2, "stages": 1},
    "second": {},
}
ROWS = ("prior", *TREES, "network", "mean", "projection")
WIDE, NETWORK, MEAN = "dose_trees_beams", "dose_unet_beams", "dose_mean"
HEAD = "| | dose | DVH | dose less | DVH less | training, CPU s | CPU s a patient | peak GiB |\n" + "|---" * 8 + "|"


@dataclass(frozen=True)
class Bench:
    """Cases, the part that is scored, voxels drawn of a training case; what all rows share.

    Parameters
    ----------
    epochs, seeds
        Of networks; 0 epochs: as shipped.
    trees
        The row whose dose `mean` has half of.
    trained
        Whether models that are there are not trained again.
    """

    low: Path
    part: str
    voxels: int
    epochs: int = 0
    seeds: int = 1
    trees: str = "second"
    trained: bool = False

    @property
    def numbers(self) -> range:
        """The networks' seeds."""
        return range(1, self.seeds + 1)

    @property
    def beams(self) -> Beams:
        """The protocol's."""
        beams = load_protocol(PROTOCOL).beams
        if beams is None:
            raise SystemExit(f"{PROTOCOL} has no beams")
        return beams

    def files(self, part: str) -> list[CaseFile]:
        """Return the files of a part of the splits."""
        table = pd.read_csv(self.low / "splits.csv")
        return case_files(self.low / "cases", table, part, fold=0, repeat=0, physics=self.low / "physics")


@dataclass(frozen=True)
class Measured:
    """What a row says: scores by patient, CPU seconds of training and a patient, GiB at most."""

    patients: list[PatientScore]
    training_s: float
    patient_s: float
    peak_gib: float


def measure(bench: Bench, row: str, before: str) -> Measured:
    """Return what a row says, after training its model; `before` is the row whose doses a projection projects."""
    began = time.process_time()
    projects = row == "projection"
    predict = predict_of(bench, before if projects else row, trains=not projects)
    told, between = [], time.process_time()
    for file in bench.files(bench.part):
        case, dose_gy = Case.load(file.path), predict(open_case(file))
        told.append(score_case(case, nearest_dose(fields_of(case, bench.beams), dose_gy) if projects else dose_gy))
    each = (time.process_time() - between) / len(told)
    return Measured(told, between - began, each, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def score_case(case: Case, dose_gy: GyArray) -> PatientScore:
    """Return a patient's errors where a dose is possible."""
    masks = {name: case.mask(name) for name in case.present_names}
    inside = np.where(case.valid_dose, dose_gy, np.float32(0.0))
    return score_patient(case.dose_gy, inside, masks, case.valid_dose, float(np.prod(case.grid.spacing_mm)))


def predict_of(bench: Bench, row: str, *, trains: bool) -> Predict:
    """Return a row's model, trained now or before."""
    if row == "prior":
        return fit_mean(bench)
    if row == "mean":
        return _mean(bench, trains)
    if row in TREES:
        maps = [] if row == "trees" else list(bench.beams.maps)
        boosting = {"voxels_per_case": bench.voxels, **TREES[row]}
        changes = {"inputs": {"physics": maps}, "boosting": boosting, "predict": {"project": False}}
        recipe = shipped_recipe(WIDE, changes)
        return _model(bench, row, TrainingRun(WIDE, recipe, 1.0, *RUN, make_family(recipe, None)), trains)
    fit = {"max_epochs": bench.epochs, "validate_every": max(1, bench.epochs // 6)} if bench.epochs else {}
    recipe = shipped_recipe(NETWORK, {"fit": fit, "predict": {"project": False}})
    run = TrainingRun(NETWORK, recipe, load_settings(PROJECT.params).lr, *RUN, make_family(recipe, None))
    models = [_model(bench, f"{row}{seed}", replace(run, seed=seed), trains) for seed in bench.numbers]
    return lambda case: np.mean([model(case) for model in models], axis=0, dtype=np.float32)


def _mean(bench: Bench, trains: bool) -> Predict:
    """Return the mean of a row of trees and of all networks together."""
    weights = {bench.trees: float(bench.seeds), **{f"network{seed}": 1.0 for seed in bench.numbers}}
    recipe = shipped_recipe(MEAN, {"predict": {"project": False}}).model_copy(update={"weights": weights})
    files = {name: _checkpoint(bench, name) for name in weights}
    name = f"mean_{bench.trees}{bench.seeds}"
    return _model(bench, name, TrainingRun(MEAN, recipe, 1.0, *RUN, make_family(recipe, None, files)), trains)


def _checkpoint(bench: Bench, name: str) -> Path:
    return bench.low / name / "checkpoints/best.ckpt"


def _model(bench: Bench, name: str, run: TrainingRun, trains: bool) -> Predict:
    """Return a run's model, in a folder of its name; a training that was interrupted goes on."""
    low = bench.low
    if trains and not (bench.trained and (low / name / "checkpoints/best.ckpt").is_file()):
        places = Places(low / "cases", low / "splits.csv", low / name, low / "resume" / name, low / "physics")
        train(run, places, fresh=False, tell=print)
    predictor = open_predictor(_checkpoint(bench, name), run.recipe)
    return lambda case: predictor.predict(case)["dose_gy"]


def fit_mean(bench: Bench) -> Predict:
    """Return the training patients' mean dose as a model."""
    cases = [open_case(file) for file in bench.files("train")]
    recipe = shipped_recipe("dose_trees", {"inputs": {"physics": []}})
    spec = spec_of(cases, recipe.inputs)
    mean = MeanDose(spec)
    mean.fit(cases)

    def predict(case: OpenCase) -> GyArray:
        sample = as_tensors(read_inputs(case, spec, case.whole))
        with torch.inference_mode():
            dose = mean(sample["image"][None], sample["condition"][None])[0, 0].numpy()
        return np.where(defined_voxels(case), dose * recipe.inputs.dose_scale_gy, 0.0).astype(np.float32)

    return predict


def by_metric(patients: list[PatientScore]) -> str:
    """Return the mean error in Gy of each DVH metric over patients and structures, in words."""
    errors: dict[str, list[float]] = {}
    for patient in patients:
        for (_, metric), error_gy in patient.dvh_gy.items():
            errors.setdefault(metric, []).append(error_gy)
    return ", ".join(f"{metric} {np.mean(found):.2f}" for metric, found in sorted(errors.items()))


def print_row(name: str, row: Measured, before: Measured | None) -> str:
    """Print a row of the table, and return its errors by DVH metric."""
    rng, score = np.random.default_rng(1), combine_scores(row.patients)
    doses, dvh = scores_by_patient(row)
    cells = [name, f"{score.dose_score_gy:.2f} ({_interval(doses, rng)})", f"{score.dvh_score_gy:.2f}", "", ""]
    if before is not None:
        for column, (now, then) in enumerate(zip((doses, dvh), scores_by_patient(before), strict=True)):
            cells[3 + column] = f"{(now - then).mean():+.2f} ({_interval(now - then, rng)})"
    cells += [f"{row.training_s:.0f}", f"{row.patient_s:.1f}", f"{row.peak_gib:.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return by_metric(row.patients)


def scores_by_patient(row: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Return each patient's dose score and mean DVH error in Gy, (patient,)."""
    doses = np.array([patient.dose_gy for patient in row.patients])
    dvh = np.array([combine_scores([patient]).dvh_score_gy for patient in row.patients])
    return doses, dvh


def _interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """95 % interval of a mean over patients, by drawing patients anew."""
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    return " to ".join(f"{end:.2f}" for end in np.percentile(means, [2.5, 97.5]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--part", default="val", choices=("val", "test"))
    parser.add_argument("--maps-made", action="store_true", help="by openkbp_cases.py --maps: of the whole CT")
    parser.add_argument("--workers", type=int, default=1, help="processes that make maps")
    parser.add_argument("--voxels", type=int, default=2000, help="voxels drawn of a training patient")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--epochs", type=int, default=0, help="of the network; as its recipe has them")
    parser.add_argument("--seeds", type=int, default=1, help="networks whose doses are averaged")
    parser.add_argument("--with", dest="trees", default="second", choices=tuple(TREES), help="the other half of `mean`")
    parser.add_argument("--trained", action="store_true", help="models that are there are not trained again")
    args = parser.parse_args()
    bench = Bench(args.low, args.part, args.voxels, args.epochs, args.seeds, args.trees, args.trained)
    if args.rows[0] == "projection":
        parser.error("--rows: projection projects the row before it, name that first")
    if not args.maps_made:
        make_cohort_physics(
            args.low / "cases", bench.beams, args.low / "physics", scale=local(args.workers), tell=print
        )
    rows: list[Measured] = []
    metrics: list[str] = []
    for name, before in zip(args.rows, ["", *args.rows], strict=False):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(measure, bench, name, before).result()
        if not rows:
            print(HEAD)
        metrics.append(f"{name}: {print_row(name, row, rows[-1] if rows else None)}")
        rows.append(row)
    print("\n".join(metrics))


if __name__ == "__main__":
    main()
