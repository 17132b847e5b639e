"""Boosted trees on OpenKBP: with and without physics maps, then projected onto what nine fields can give.

    python benchmarks/openkbp_cases.py DATA LOW
    python benchmarks/trees.py LOW [--part test] [--workers 2]

LOW gets `physics/` (the maps, from CT and contours) and a run a variant. Dose and DVH score in Gy over the patients of
one part of the splits: `val`, the default, holds 20 of the training patients, on which recipes are chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from openkbp_cases import PROTOCOL
from shipped import shipped_recipe

from doseledger.core.case import Case
from doseledger.core.cluster import local
from doseledger.core.protocol import Beams, load_protocol
from doseledger.dosimetry.openkbp_scores import PatientScore, combine_scores, score_patient
from doseledger.ingest.physics import field_case, make_cohort_physics
from doseledger.learn.data.inputs import case_files, open_case
from doseledger.learn.kinds import make_family, open_predictor
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.planning.fields.maps import field_dose, nearest_dose


def score_case(case: Case, dose_gy: np.ndarray) -> PatientScore:
    """Return a patient's errors where a dose is possible."""
    masks = {name: case.mask(name) for name in case.present_names}
    inside = np.where(case.valid_dose, dose_gy, np.float32(0.0))
    return score_patient(case.dose_gy, inside, masks, case.valid_dose, float(np.prod(case.grid.spacing_mm)))


def measure(run: TrainingRun, places: Places, part: str, beams: Beams) -> None:
    """Print the scores of a part, as told and as projected, with CPU seconds a patient."""
    predictor = open_predictor(places.out / "checkpoints/best.ckpt", run.recipe)
    physics = places.physics if run.recipe.physics else None
    files = case_files(places.cases, pd.read_csv(places.splits), part, fold=0, repeat=0, physics=physics)
    told, projected, seconds = [], [], []
    for file in files:
        began, case = time.process_time(), Case.load(file.path)
        dose_gy = predictor.predict(open_case(file))["dose_gy"]
        between = time.process_time()
        nearest_gy = nearest_dose(field_dose(field_case(case), beams), dose_gy)
        seconds.append((between - began, time.process_time() - between))
        told.append(score_case(case, dose_gy))
        projected.append(score_case(case, nearest_gy))
    rows = zip((places.out.name, "… projected"), (told, projected), np.mean(seconds, axis=0), strict=True)
    for name, patients, each in rows:
        score = combine_scores(patients)
        print(
            f"| {name} | {score.dose_score_gy:.2f} / {score.dvh_score_gy:.2f} | {each:.1f} CPU s a patient |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("low", type=Path)
    parser.add_argument("--part", default="val", choices=("val", "test"))
    parser.add_argument("--workers", type=int, default=1, help="processes that make maps")
    args = parser.parse_args()
    beams = load_protocol(PROTOCOL).beams
    cases, splits, physics = args.low / "cases", args.low / "splits.csv", args.low / "physics"
    make_cohort_physics(cases, beams, physics, scale=local(args.workers), tell=print)
    for name, maps in (("anatomy", []), ("physics", list(beams.maps))):
        recipe = shipped_recipe("dose_trees", {"inputs": {"physics": maps}})
        run = TrainingRun("dose_trees", recipe, 1.0, 1, 0, 0, {"ok": True}, {}, make_family(recipe, None))
        places, began = Places(cases, splits, args.low / name, args.low / "resume", physics), time.process_time()
        train(run, places, fresh=True, tell=print)
        print(f"{name}: {time.process_time() - began:.0f} CPU s of training")
        measure(run, places, args.part, beams)


if __name__ == "__main__":
    main()
