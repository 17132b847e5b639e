"""Boosted trees on OpenKBP beside the mean dose: with and without physics maps, projected onto nine fields' doses.

    python benchmarks/openkbp_cases.py DATA LOW
    python benchmarks/trees.py LOW [--rows prior anatomy physics] [--part test] [--workers 2]

LOW gets `physics/` (the maps, from CT and contours) and a run a variant. Dose and DVH score in Gy over the patients of
one part of the splits: `val`, the default, holds 20 of the training patients, on which recipes are chosen; beside it a
95 % interval over patients, and the dose score less the row before's, patient by patient.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from openkbp_cases import PROTOCOL
from shipped import shipped_recipe

from doseledger.core.case import Case
from doseledger.core.pool.cluster import local
from doseledger.core.project.protocol import Beams, load_protocol
from doseledger.dosimetry.openkbp_scores import PatientScore, combine_scores, score_patient
from doseledger.ingest.physics import fields_of, make_cohort_physics
from doseledger.learn.data.inputs import (
    CaseFile,
    OpenCase,
    case_files,
    defined_voxels,
    open_case,
    spec_of,
    whole_box,
)
from doseledger.learn.data.patches import as_tensors, read_inputs
from doseledger.learn.kinds import make_family, open_predictor
from doseledger.learn.networks.mean_dose import MeanDose
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.planning.fields.maps import nearest_dose

# Trees without and with the maps of the beams.
VARIANTS = ("anatomy", "physics")


def score_case(case: Case, dose_gy: np.ndarray) -> PatientScore:
    """Return a patient's errors where a dose is possible."""
    masks = {name: case.mask(name) for name in case.present_names}
    inside = np.where(case.valid_dose, dose_gy, np.float32(0.0))
    return score_patient(case.dose_gy, inside, masks, case.valid_dose, float(np.prod(case.grid.spacing_mm)))


Rows = list[tuple[str, list[PatientScore]]]


def measure(name: str, predict: Callable[[OpenCase], np.ndarray], files: list[CaseFile], beams: Beams) -> Rows:
    """Return the scores of each patient, as told and as projected; CPU seconds a patient are printed."""
    told, projected, seconds = [], [], []
    for file in files:
        began, case = time.process_time(), Case.load(file.path)
        dose_gy = predict(open_case(file))
        between = time.process_time()
        nearest_gy = nearest_dose(fields_of(case, beams), dose_gy)
        seconds.append((between - began, time.process_time() - between))
        told.append(score_case(case, dose_gy))
        projected.append(score_case(case, nearest_gy))
    each = np.mean(seconds, axis=0)
    print(f"{name}: {each[0]:.2f} CPU s a patient, projected {each[1]:.2f} more", flush=True)
    return [(name, told), (f"{name}, projected", projected)]


def print_rows(rows: Rows) -> None:
    """Print the table: scores, and the dose score less the row before's with an interval over patients."""
    rng, before = np.random.default_rng(1), None
    print("| | dose | DVH | dose less the row before |\n|---|---|---|---|")
    for name, patients in rows:
        score, doses = combine_scores(patients), np.array([patient.dose_gy for patient in patients])
        cells = [f"{score.dose_score_gy:.2f} ({_interval(doses, rng)})", f"{score.dvh_score_gy:.2f}"]
        less = "" if before is None else f"{(doses - before).mean():+.2f} ({_interval(doses - before, rng)})"
        print(f"| {name} | {cells[0]} | {cells[1]} | {less} |", flush=True)
        before = doses


def _interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """95 % interval of a mean over patients, by drawing patients anew."""
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    return " to ".join(f"{end:.2f}" for end in np.percentile(means, [2.5, 97.5]))


def fit_mean(cases: list[OpenCase]) -> Callable[[OpenCase], np.ndarray]:
    """Return the training patients' mean dose as a model."""
    recipe = shipped_recipe("dose_trees", {"inputs": {"physics": []}})
    spec = spec_of(cases, recipe.inputs)
    mean = MeanDose(spec)
    mean.fit(cases)

    def predict(case: OpenCase) -> np.ndarray:
        sample = as_tensors(read_inputs(case, spec, whole_box(case, (1, 1, 1))))
        with torch.inference_mode():
            dose = mean(sample["image"][None], sample["condition"][None])[0, 0].numpy()
        return np.where(defined_voxels(case), dose * recipe.inputs.dose_scale_gy, 0.0).astype(np.float32)

    return predict


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--part", default="val", choices=("val", "test"))
    parser.add_argument("--workers", type=int, default=1, help="processes that make maps")
    parser.add_argument("--rows", nargs="+", default=["prior", *VARIANTS], choices=("prior", *VARIANTS))
    args = parser.parse_args()
    beams = load_protocol(PROTOCOL).beams
    cases, splits, physics = args.low / "cases", args.low / "splits.csv", args.low / "physics"
    make_cohort_physics(cases, beams, physics, scale=local(args.workers), tell=print)
    table, rows = pd.read_csv(splits), []

    def files_of(part: str) -> list[CaseFile]:
        return case_files(cases, table, part, fold=0, repeat=0, physics=physics)

    for name in args.rows:
        began = time.process_time()
        if name == "prior":
            predict = fit_mean([open_case(file) for file in files_of("train")])
        else:
            recipe = shipped_recipe(
                "dose_trees", {"inputs": {"physics": list(beams.maps) if name == "physics" else []}}
            )
            run = TrainingRun("dose_trees", recipe, 1.0, 1, 0, 0, {"ok": True}, {}, make_family(recipe, None))
            train(run, Places(cases, splits, args.low / name, args.low / "resume", physics), fresh=True, tell=print)
            predictor = open_predictor(args.low / name / "checkpoints/best.ckpt", recipe)
            predict = lambda case, model=predictor: model.predict(case)["dose_gy"]  # noqa: E731
        print(f"{name}: {time.process_time() - began:.0f} CPU s of training", flush=True)
        rows += measure(name, predict, files_of(args.part), beams)
    print_rows(rows)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
