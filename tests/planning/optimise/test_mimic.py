"""Objectives that mimic a dose, and what a penalty on monitor units costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid, resample_linear
from doseledger.planning.machine.complexity import beam_complexity, plan_complexity
from doseledger.planning.machine.linac import Machine
from doseledger.planning.optimise.arcs import optimise_plan, optimise_to
from doseledger.planning.optimise.mimic import COVER_SHARE, ORGAN_VOLUMES, mimic_objectives
from doseledger.planning.optimise.objectives import NORMAL_TISSUE, Objective, PointObjective
from doseledger.planning.optimise.patient import OptimiserSettings, Patient, PlanStyle
from doseledger.planning.optimise.sampling import PLANNED, WANTED, WANTED_SHARE, sampled_points

QUICK = OptimiserSettings(
    segments_per_arc=20, iterations=12, sub_angles=2, dose_spacing_mm=(8.0, 8.0, 8.0), n_points=1500
)


@pytest.fixture(scope="module")
def wanting(pelvis: Patient) -> Patient:
    """The pelvis with a wanted dose: the prescriptions in the targets, 20 Gy in the rest of the body."""
    wanted = np.where(pelvis.body, 20.0, 0.0).astype(np.float32)
    for name in ("PTV56", "PTV70"):
        wanted[pelvis.masks[name]] = pelvis.prescription_gy[name]
    return replace(pelvis, wanted_dose_gy=wanted)


def test_targets_and_tissue_are_held_to_the_dose_and_organs_not_above_it(wanting: Patient) -> None:
    found = mimic_objectives(wanting)
    kinds = {(one.structure, one.kind) for one in found}
    assert {(NORMAL_TISSUE, "mimic"), ("PTV70", "mimic"), ("PTV56", "mimic"), ("Rectum", "mimic_max")} <= kinds
    assert ("Rectum", "mimic") not in kinds
    # Gamma counts a voxel of tissue as much as one of a target, and there are many times as many.
    weight = {(one.structure, one.kind): one.weight for one in found}
    held = [weight[NORMAL_TISSUE, "mimic"], weight["PTV70", "mimic"], weight["Rectum", "mimic_max"]]
    assert held == sorted(held, reverse=True)
    assert held[0] > 4 * held[1]
    cover = {one.structure: one.dose_gy for one in found if one.kind == "min_dose"}
    # The hottest is held to its prescription, which the plan is scaled to, the other to what it shall have.
    assert cover == {"PTV70": pytest.approx(COVER_SHARE * 70.0), "PTV56": pytest.approx(56.0)}
    levels = [(one.volume_percent, one.dose_gy) for one in found if one.kind == "dvh_max" and one.structure == "Rectum"]
    rectum = wanting.wanted_dose_gy[wanting.masks["Rectum"]]
    assert levels == [(volume, pytest.approx(np.percentile(rectum, 100 - volume))) for volume in ORGAN_VOLUMES]


def test_less_than_is_wanted_costs_an_organ_nothing_and_tissue_as_much_as_more() -> None:
    points, limit = np.arange(2), np.array([20.0, 20.0])
    for kind, values in (("mimic_max", (0.0, 9.0)), ("mimic", (9.0, 9.0))):
        asked = PointObjective(Objective("Rectum", kind, 0.0, 1.0), points, limit)
        found = [asked.value_and_slope(np.full(2, gy))[0] for gy in (17.0, 23.0)]
        assert tuple(found) == pytest.approx(values)


def test_tissue_is_drawn_wherever_dose_is_wanted_and_without_a_wish_only_near_targets(wanting: Patient) -> None:
    objective = [Objective(NORMAL_TISSUE, "max_dose", 20.0, 1.0)]
    far = {}
    for patient in (wanting, replace(wanting, wanted_dose_gy=None)):
        points, _ = sampled_points(patient, objective, 4000, np.random.default_rng(1))
        far[patient.wanted_dose_gy is None] = float(np.abs(points[:, 0]).max())
    assert far[False] > 130 > far[True]
    dim = replace(wanting, wanted_dose_gy=0.9 * WANTED_SHARE * 70.0 * (wanting.wanted_dose_gy > 0))
    points, _ = sampled_points(dim, objective, 4000, np.random.default_rng(1))
    assert float(np.abs(points[:, 0]).max()) == far[True]


def test_tissue_has_most_points_where_a_dose_is_wanted_and_all_of_them_are_about_as_many_as_asked_for(
    wanting: Patient,
) -> None:
    n_points = 800
    for patient, shares in ((wanting, WANTED), (replace(wanting, wanted_dose_gy=None), PLANNED)):
        objectives = [Objective(name, "max_dose", 20.0, 1.0) for name in (NORMAL_TISSUE, "PTV70", "PTV56", "Rectum")]
        points, asked = sampled_points(patient, objectives, n_points, np.random.default_rng(1))
        counts = {one.objective.structure: len(one.points) for one in asked}
        wanted = {one.structure: int(n_points * shares.of(one.structure, patient)) for one in objectives}
        assert counts == wanted
        assert len(points) == sum(wanted.values())
    assert WANTED.normal > 2 * (WANTED.hottest + WANTED.target + 6 * WANTED.organ)


def test_a_dose_that_nothing_can_be_made_of_is_refused(wanting: Patient) -> None:
    with pytest.raises(BadCase, match="pelvis: there is no dose to mimic"):
        mimic_objectives(replace(wanting, wanted_dose_gy=None))
    holed = wanting.wanted_dose_gy.copy()
    holed[0, 0, 0] = np.nan
    with pytest.raises(BadCase, match="finite and not negative"):
        mimic_objectives(replace(wanting, wanted_dose_gy=holed))
    with pytest.raises(BadCase, match="PTV70 a D95% of 0 Gy; is it its dose"):
        mimic_objectives(replace(wanting, wanted_dose_gy=0.0 * wanting.wanted_dose_gy))
    with pytest.raises(BadCase, match="wanted_dose_gy has"):
        replace(wanting, wanted_dose_gy=wanting.wanted_dose_gy[1:])


def test_a_dose_that_no_beams_give_is_refused_as_one_and_a_short_optimisation_as_that(
    wanting: Patient, machine: Machine
) -> None:
    # 20 Gy in all of the body, up to the targets' edge and beyond the beams: more steps only take from the targets.
    objectives = mimic_objectives(wanting)
    with pytest.raises(BadCase, match=r"pelvis: PTV70 has D95% .*Gy from the plan's.*look at the prediction"):
        optimise_to(wanting, machine, (PlanStyle(), QUICK), objectives, np.random.default_rng(1))
    made = optimise_plan(wanting, machine, PlanStyle(), QUICK, np.random.default_rng(1))
    own = replace(wanting, wanted_dose_gy=resample_linear(made.dose_gy, made.dose_grid, wanting.grid, outside=0.0))
    hot = replace(own, prescription_gy={"PTV70": 90.0, "PTV56": 56.0})
    with pytest.raises(BadCase, match="give the optimiser more iterations or points"):
        optimise_to(hot, machine, (PlanStyle(), QUICK), mimic_objectives(own), np.random.default_rng(1))


def test_a_scan_of_its_own_grid_gives_the_plan_of_the_same_patient(pelvis: Patient, machine: Machine) -> None:
    # The CT cut out of a larger scan, whose voxels beyond are air.
    grid, pad = pelvis.grid, 3
    wide = Grid(
        tuple(n + 2 * pad for n in grid.shape_zyx),
        grid.spacing_mm,
        tuple(o - pad * s for o, s in zip(grid.origin_mm, grid.spacing_mm, strict=True)),
    )
    scan = np.pad(pelvis.ct_hu, pad, constant_values=-1000)
    doses = [
        optimise_plan(patient, machine, PlanStyle(), QUICK, np.random.default_rng(1)).dose_gy
        for patient in (pelvis, replace(pelvis, ct_hu=scan, ct_grid=wide))
    ]
    assert np.abs(doses[0] - doses[1]).max() < 0.5


def test_a_penalty_on_monitor_units_takes_some_away_and_none_changes_nothing(pelvis: Patient, machine: Machine) -> None:
    plans = [
        optimise_plan(pelvis, machine, PlanStyle(), replace(QUICK, mu_weight=weight), np.random.default_rng(1))
        for weight in (0.0, 20.0)
    ]
    plain = optimise_plan(pelvis, machine, PlanStyle(), QUICK, np.random.default_rng(1))
    assert plain.dose_gy.tobytes() == plans[0].dose_gy.tobytes()
    assert plans[1].plan.total_mu < 0.9 * plans[0].plan.total_mu


def test_a_penalty_on_edges_makes_neighbouring_leaves_more_alike_and_none_changes_nothing(
    pelvis: Patient, machine: Machine
) -> None:
    plain, none, smooth = (
        optimise_plan(pelvis, machine, PlanStyle(), settings, np.random.default_rng(1))
        for settings in (QUICK, replace(QUICK, edge_weight=0.0), replace(QUICK, edge_weight=4.0))
    )
    assert plain.dose_gy.tobytes() == none.dose_gy.tobytes()
    edges = machine.leaves.boundary_mm
    score = [
        plan_complexity([beam_complexity(arc, edges) for arc in made.plan.arcs]).modulation_score
        for made in (plain, smooth)
    ]
    assert score[1] > 1.05 * score[0]
