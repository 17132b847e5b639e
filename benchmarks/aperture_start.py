"""Apertures predicted from beam's-eye views: a start for the optimiser that knows how other plans gave their doses.

    python benchmarks/aperture_start.py PROJECT [--steps 200]

PROJECT holds the synthetic cohort (raw data, cases, splits). Boosted trees learn, pixel by pixel of each segment's
beam's-eye view, whether the plan of a training patient is open there: from that patient's dose and structures seen
along the ray. For a test patient the pixels' probabilities become the interval of each leaf pair that holds most of
them, and the optimiser goes on from there. Beside it: the start that ships (half apertures that sweep over the target).
Both mimic the test patient's dose with the same points. A row tells the penalty at the start and after so many steps,
and after how many steps and CPU seconds each falls below what the shipped start has in the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from doseledger.core.case import Case
from doseledger.core.plan import Arc
from doseledger.core.settings import load_settings
from doseledger.core.types import Floats
from doseledger.dicom.plan.read import read_plan
from doseledger.dicom.source import lenient, read_source
from doseledger.planning.dose.operator import arc_operators
from doseledger.planning.dose.raytrace import density_map
from doseledger.planning.machine.geometry import beam_frame, gantry_at
from doseledger.planning.machine.linac import Machine, load_machine
from doseledger.planning.optimise.arcs import isocentre_of
from doseledger.planning.optimise.descent import descend
from doseledger.planning.optimise.mimic import mimic_objectives
from doseledger.planning.optimise.patient import Patient, PlanStyle
from doseledger.planning.optimise.problem import Problem
from doseledger.planning.optimise.sampling import sampled_points
from doseledger.planning.optimise.start import start_arcs

CELL_MM, STEP_MM, REACH_MM = 5.0, 5.0, 130.0
ORGANS = ("Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")
EVERY = 4
MARKS = (0, 25, 50, 100)


def patient_of(case: Case) -> Patient:
    """Return a case to be planned for its own dose."""
    return Patient(
        case_id=case.case_id, ct_hu=case.ct_hu, grid=case.grid, body=case.body,
        masks={name: case.mask(name) for name in case.present_names}, prescription_gy=case.prescription_gy,
        n_fractions=case.n_fractions or 0, dose_grid=case.grid, wanted_dose_gy=case.dose_gy,
    )  # fmt: skip


class Views:
    """What a patient's dose and structures are along the rays of a beam."""

    def __init__(self, case: Case) -> None:
        self.grid, nothing = case.grid, np.zeros(case.grid.shape_zyx, dtype=np.bool_)
        names = (*case.prescription_gy, *ORGANS)
        masks = [case.mask(name) if name in case.present_names else nothing for name in names]
        self.volumes = [case.dose_gy, *(mask.astype(np.float32) for mask in masks)]

    def of(self, arc: Arc, segment: int, machine: Machine) -> tuple[Floats, Floats, Floats]:
        """Return features (pair, cell, feature) of a segment, the cells' middles in mm, and the pairs' numbers."""
        boundary = machine.leaves.boundary_mm
        y = 0.5 * (boundary[1:] + boundary[:-1])
        pairs = np.flatnonzero((y > arc.jaw_y_mm[0]) & (y < arc.jaw_y_mm[1]))
        x = np.arange(arc.jaw_x_mm[0] + CELL_MM / 2, arc.jaw_x_mm[1], CELL_MM)
        xx, yy = np.meshgrid(x, y[pairs])
        angle = gantry_at(arc, segment, 0.5)
        frame = beam_frame(arc, angle, machine.source_axis_mm)
        turn = np.deg2rad(arc.collimator_deg)
        u, v = xx * np.cos(turn) - yy * np.sin(turn), xx * np.sin(turn) + yy * np.cos(turn)
        plane = (
            np.asarray(arc.isocentre_xyz_mm) + u[..., None] * frame.across_xyz + v[..., None] * frame.along_xyz
        )
        ray = (plane - frame.source_xyz_mm) / machine.source_axis_mm
        depth = np.arange(-REACH_MM, REACH_MM + 1.0, STEP_MM)
        points = plane[..., None, :] + depth[:, None] * ray[..., None, :]
        index = self.grid.mm_to_index(points.reshape(-1, 3)[:, ::-1]).T
        shape = (*xx.shape, len(depth))
        dose, *seen = (ndimage.map_coordinates(v, index, order=0, mode="nearest").reshape(shape) for v in self.volumes)
        thick = [STEP_MM * one.sum(axis=2) for one in seen]
        hot = np.maximum(seen[0], seen[1])
        inside = (dose * hot).sum(axis=2) / np.maximum(hot.sum(axis=2), 1.0)
        open_to = np.array([_edges(row > 0) for row in thick[1] + thick[0]])
        left = np.arange(len(x)) - open_to[:, :1]
        right = open_to[:, 1:] - np.arange(len(x))
        told = [dose.mean(axis=2), dose.max(axis=2), inside, *thick, left, right, xx, yy]
        phase = segment / (arc.n_control_points - 1)
        told += [np.full(xx.shape, one) for one in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)), phase)]
        told.append(np.full(xx.shape, 1.0 if arc.clockwise else 0.0))
        return np.stack(told, axis=-1).astype(np.float32), x, pairs


def _edges(there: np.ndarray) -> tuple[float, float]:
    found = np.flatnonzero(there)
    return (float(found[0]), float(found[-1])) if len(found) else (np.nan, np.nan)


def open_share(arc: Arc, segment: int, x: Floats, pairs: Floats) -> Floats:
    """Return how much of each cell a segment's leaves leave open, (pair, cell): mean of its two control points."""
    leaf = arc.leaf_mm[segment : segment + 2][:, :, pairs]
    low, high = x - CELL_MM / 2, x + CELL_MM / 2
    clear = np.minimum(high, leaf[:, 1, :, None]) - np.maximum(low, leaf[:, 0, :, None])
    return np.clip(clear / CELL_MM, 0.0, 1.0).mean(axis=0)


def training_pixels(project: Path, names: list[str], machine: Machine) -> Iterator[tuple[Floats, Floats]]:
    """Yield features and whether a pixel is open, segment by segment, of the training patients' plans."""
    for name in names:
        views = Views(Case.load(project / f"data/cases/phantom/{name}.npz"))
        with lenient():
            files, _ = read_source(project / f"data/raw/phantom/{name}.zip")
        rtplan = next(f.dataset for f in files if f.dataset.Modality == "RTPLAN")
        for arc in read_plan(rtplan, name).arcs:
            for segment in range(0, arc.n_control_points - 1, EVERY):
                features, x, pairs = views.of(arc, segment, machine)
                yield features.reshape(-1, features.shape[-1]), open_share(arc, segment, x, pairs).ravel() > 0.5


def opened(arc: Arc, views: Views, trees: HistGradientBoostingClassifier, machine: Machine) -> Arc:
    """Return an arc whose leaf pairs hold the interval that most of the trees' probability speaks for."""
    n = arc.n_control_points - 1
    tips = np.empty((n, 2, arc.leaf_mm.shape[2]))
    for segment in range(n):
        features, x, pairs = views.of(arc, segment, machine)
        share = trees.predict_proba(features.reshape(-1, features.shape[-1]))[:, 1].reshape(features.shape[:2])
        tips[segment] = 0.5 * (arc.leaf_mm[segment] + arc.leaf_mm[segment + 1])
        for row, pair in enumerate(pairs):
            low, high = _best_interval(share[row] - 0.5)
            if high > low:
                tips[segment, :, pair] = x[low] - CELL_MM / 2, x[high - 1] + CELL_MM / 2
            else:
                tips[segment, :, pair] = tips[segment, :, pair].mean()
    # A control point stands between two segments.
    leaf = np.concatenate([tips[:1], 0.5 * (tips[1:] + tips[:-1]), tips[-1:]])
    return replace(arc, leaf_mm=leaf)


def _best_interval(gain: Floats) -> tuple[int, int]:
    """First and past-the-last cell of the run with the greatest sum; an empty one where none is above 0."""
    total = np.concatenate([[0.0], np.cumsum(gain)])
    lowest = np.minimum.accumulate(total)
    end = int(np.argmax(total - lowest))
    return int(np.argmin(total[: end + 1])), end


def compare(name: str, project: Path, trees: HistGradientBoostingClassifier, steps: int) -> None:
    """Print the rows of one test patient: from the shipped start, and from the predicted one."""
    machine, deliver = load_machine(), load_settings(Path(__file__).resolve().parents[1] / "params.yaml").deliver
    case = Case.load(project / f"data/cases/phantom/{name}.npz")
    patient, views = patient_of(case), Views(case)
    targets = np.any([patient.masks[t] for t in patient.prescription_gy], axis=0)
    target_xyz = case.grid.index_to_mm(np.argwhere(targets))[:, ::-1].astype(np.float32)
    shipped = start_arcs(target_xyz, isocentre_of(patient), machine, PlanStyle(), deliver.segments_per_arc)
    rng = np.random.default_rng(deliver.seed)
    points, asked = sampled_points(patient, mimic_objectives(patient), deliver.n_points, rng)
    density = density_map(patient.ct_hu, patient.image_grid, machine.density)
    problem = Problem(machine, arc_operators(shipped, density, machine, points), asked, patient.n_fractions)
    hottest = next(a.points for a in asked if a.objective.structure == patient.hottest_target)
    goal = np.inf
    for kind in ("shipped", "predicted"):
        began, trace = time.process_time(), []
        arcs = shipped if kind == "shipped" else tuple(opened(arc, views, trees, machine) for arc in shipped)
        looked = time.process_time() - began
        arcs = tuple(problem.feasible(arc, arc.leaf_mm, arc.segment_mu) for arc in arcs)
        factor = patient.prescription_gy[patient.hottest_target] / float(problem.dose(arcs)[hottest].mean())
        arcs = tuple(problem.feasible(arc, arc.leaf_mm, arc.segment_mu * factor) for arc in arcs)

        def note(step: int, _: int, value: float, trace: list = trace, began: float = began) -> None:
            trace.append((step, value, time.process_time() - began))

        _, end = descend(problem, arcs, steps, note)
        goal = end if kind == "shipped" else goal
        reached = next((f"{step} steps, {cpu:.1f} CPU s" for step, value, cpu in trace if value <= goal), "never")
        values = " / ".join(f"{min(v for s, v, _ in trace if s <= mark):.3g}" for mark in MARKS)
        print(f"| {name} | {kind} ({looked:.1f} CPU s) | {values} | {end:.3g} | {reached} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    splits = pd.read_csv(args.project / "data/splits/phantom.csv")
    names = {part: sorted(splits.loc[splits["split"] == part, "case_id"]) for part in ("train", "test")}
    began = time.process_time()
    pixels = list(training_pixels(args.project, names["train"], load_machine()))
    features, is_open = (np.concatenate(part) for part in zip(*pixels, strict=True))
    between = time.process_time()
    trees = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.1, max_leaf_nodes=63, random_state=1)
    trees.fit(features, is_open)
    seen, fitted = between - began, time.process_time() - between
    print(f"{len(is_open)} pixels of {len(pixels)} segments seen in {seen:.0f} CPU s, fitted in {fitted:.0f}")
    print("| case | start | penalty at 0 / 25 / 50 / 100 steps | in the end | reaches the shipped start's end after |")
    print("|---|---|---|---|---|")
    for name in names["test"]:
        compare(name, args.project, trees, args.steps)


if __name__ == "__main__":
    main()
