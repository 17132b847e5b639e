"""Judgement of delivered doses, bands under errors, and masks on other voxels: whole results of small known inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Goal, GoalSet
from doseledger.deliver import robustness
from doseledger.deliver.gap import Doses, describe_delivery, dose_gap, judge_delivery, summarise_deliveries
from doseledger.deliver.masks import MaskSet, _holding, check_image, mask_on_image, read_masks
from doseledger.deliver.robustness import Scene, describe_robustness, robustness_of, scenarios
from doseledger.deliver.seen import SeenCases, seen_cases
from doseledger.dosimetry.dvh.grammar import parse_statistic
from doseledger.dosimetry.dvh.statistics import structure_dose
from doseledger.planning.dose.raytrace import DensityMap
from doseledger.planning.machine.linac import load_machine


def goals_of(*goals: dict[str, Any]) -> GoalSet:
    rows = [Goal.model_validate({"source": "a test", **goal}) for goal in goals]
    return GoalSet(name="known", protocol="prostate_sib", title="known", goals=rows)


GOALS = goals_of(
    {"structure": "PTV70", "statistic": "D95%", "operator": ">=", "limit": 60.0, "unit": "Gy", "gating": True},
    {
        "structure": "Rectum",
        "statistic": "mean",
        "operator": "<=",
        "limit": 1.0,
        "unit": "Gy",
        "acceptable": 90.0,
        "gating": False,
    },
    {"structure": "Rectum", "statistic": "mean", "operator": "<=", "limit": 0.5, "unit": "Gy"},
    {"structure": "Bowel", "statistic": "mean", "operator": "<=", "limit": 50.0, "unit": "Gy"},
)


@pytest.fixture
def doses(make_case: Callable[..., Case]) -> tuple[Case, Doses]:
    case = make_case()
    predicted = case.dose_gy
    assert predicted is not None
    wave = np.random.default_rng(5).normal(0.0, 1.0, predicted.shape).astype(np.float32)
    return case, Doses(predicted, (predicted + 2.0 + wave) * case.body, (predicted * 0.9).astype(np.float32))


def test_a_delivery_is_judged_beside_the_predicted_and_the_original_dose(doses: tuple[Case, Doses]) -> None:
    case, three = doses
    assert three.original is not None
    plan = SimpleNamespace(total_mu=612.3456, n_fractions=28, prescription_gy={"PTV70": 70.0, "PTV56": 56.0})
    planned: Any = SimpleNamespace(plan=plan, scale=1.04321987, objective=12.345678)
    found = judge_delivery(case, three, planned, GOALS)
    unscaled = three.delivered / np.float32(1.04321987)

    def value(dose: np.ndarray, name: str, statistic: str) -> float:
        samples = structure_dose(dose, case.mask(name), case.grid.voxel_volume_cc)
        return round(samples.measure(parse_statistic(statistic)).value, 4)

    assert (found["case_id"], found["note"][:33]) == ("case_0001", "One dose engine planned and judge")
    off = np.abs(three.delivered - three.predicted)
    assert found["gap"]["mae_above_10_percent_gy"] == pytest.approx(float(off[three.predicted > 7.0].mean()), abs=1e-4)
    assert found["gap"]["mae_body_gy"] == pytest.approx(float(off[case.body].mean()), abs=1e-4)
    names = ["gamma_3_3_percent", "gamma_3_2_percent", "gamma_2_2_percent", "mae_above_10_percent_gy", "mae_body_gy"]
    assert list(found["gap"]) == names
    rates = [found["gap"][name] for name in names[:3]]
    assert 100.0 > rates[0] >= rates[1] > rates[2] > 10.0
    norm = found["normalisation"]
    assert (norm["target"], norm["scale"]) == ("PTV70", 1.0432)
    assert norm["d95_gy"] == value(three.delivered, "PTV70", "D95%")
    assert norm["before"]["d95_gy"] == value(unscaled, "PTV70", "D95%")
    assert list(norm["before"]) == ["gamma_3_3_percent", "mae_above_10_percent_gy", "mae_body_gy", "d95_gy"]
    assert {k: norm["before"][k] for k in list(norm["before"])[:3]} == dose_gap(
        case, three.predicted, unscaled, [(3.0, 3.0)]
    )
    original = dose_gap(case, three.predicted, three.original, [(3.0, 3.0)])
    assert found["original_against_predicted"] == original
    assert original["mae_body_gy"] == pytest.approx(float(0.1 * three.predicted[case.body].mean()), abs=2e-3)
    by_name = {"predicted": three.predicted, "delivered": three.delivered, "original": three.original}
    wanted = [
        {"structure": name, "statistic": s, **{who: value(dose, name, s) for who, dose in by_name.items()}}
        for name in case.present_names
        for s in (
            ("D98%", "D95%", "D50%", "D2%", "mean") if name in ("PTV70", "PTV56") else ("D2%", "D20%", "D50%", "mean")
        )
    ]
    assert found["dvh"] == wanted
    assert [row["goal"] for row in found["goals"]] == [goal.name for goal in GOALS.goals]
    target, rectum, strict, bowel = found["goals"]
    assert [target[who] for who in by_name] == [value(dose, "PTV70", "D95%") for dose in by_name.values()]
    assert (target["gating"], target["source"], rectum["gating"]) == (True, "a test", False)
    assert [target[f"{who}_met"] for who in by_name] == [target[who] >= 60.0 for who in by_name]
    assert [rectum[f"{who}_met"] for who in by_name] == [False] * 3
    assert [rectum[f"{who}_acceptable"] for who in by_name] == [True] * 3
    assert [strict[f"{who}_acceptable"] for who in by_name] == [False] * 3
    assert [(bowel[who], bowel[f"{who}_met"]) for who in by_name] == [(None, None)] * 3
    assert found["goals_met"] == {who: int(target[who] >= 60.0) for who in by_name}
    assert found["goals_evaluable"] == 3
    # 612.3456 MU and 28 fractions for 70 Gy.
    assert found["plan"] == {"mu": 612.35, "mu_per_gy": 244.94, "penalty": 12.3457}
    bare = judge_delivery(case, replace(three, original=None), planned, GOALS)
    assert bare["original_against_predicted"] is None
    assert list(bare["goals_met"]) == ["predicted", "delivered"]


def test_a_case_with_no_voxel_above_a_tenth_has_no_error_there(doses: tuple[Case, Doses]) -> None:
    case, three = doses
    low = np.minimum(three.predicted, np.float32(7.0))
    assert dose_gap(case, low, three.delivered, [])["mae_above_10_percent_gy"] is None


def delivered(case_id: str, gamma: float, mae: float, met: int, **changes: Any) -> dict[str, Any]:
    gap = {"gamma_3_3_percent": gamma, "gamma_3_2_percent": 90.0, "gamma_2_2_percent": gamma - 20.0,
           "mae_above_10_percent_gy": mae, "mae_body_gy": None}  # fmt: skip
    return {
        "case_id": case_id, "gap": gap, "goals_evaluable": 3, "goals_met": {"predicted": 3, "delivered": met},
        "checkpoint_sha256": "b" * 64, "note": "the note",
        "normalisation": {"target": "PTV70", "scale": 1.01, "d95_gy": 70.0,
                          "before": {"d95_gy": 69.3, "gamma_3_3_percent": 88.888}},
        "plan": {"mu": 600.4, "mu_per_gy": 240.0, "complexity": {"modulation_score": 0.31}}, **changes,
    }  # fmt: skip


def test_plans_of_a_test_set_are_summed_up_by_means_the_worst_and_each_case() -> None:
    other = delivered("case_2", 80.0, 2.0, 1, checkpoint_sha256="a" * 64)
    other["normalisation"] = {**other["normalisation"], "scale": 1.0301}
    other["plan"] = {"mu": 1.0, "mu_per_gy": None, "complexity": {"modulation_score": 0.5}}
    found = summarise_deliveries({"case_2": other, "case_1": delivered("case_1", 95.0, 1.0, 2)}, {"case_3": "no CT"})
    assert found.pop("note").startswith("One dose engine planned and judged")
    assert found == {
        "n_cases": 2, "n_failed": 1, "failed": {"case_3": "no CT"}, "checkpoint_sha256": ["a" * 64, "b" * 64],
        "gap": {"gamma_3_3_percent": 87.5, "gamma_3_2_percent": 90.0, "gamma_2_2_percent": 67.5,
                "mae_above_10_percent_gy": 1.5, "mae_body_gy": None},
        "worst_gamma_3_3_percent": 80.0, "goals_met_percent": {"predicted": 100.0, "delivered": 50.0},
        "normalisation_scale": 1.02, "mu_per_gy": 240.0, "modulation_score": 0.405,
        "cases": {
            "case_1": {"gamma_3_3_percent": 95.0, "gamma_2_2_percent": 75.0, "mae_above_10_percent_gy": 1.0,
                       "d95_before_scaling_gy": 69.3, "goals_met": {"predicted": 3, "delivered": 2},
                       "goals_evaluable": 3, "mu_per_gy": 240.0, "modulation_score": 0.31},
            "case_2": {"gamma_3_3_percent": 80.0, "gamma_2_2_percent": 60.0, "mae_above_10_percent_gy": 2.0,
                       "d95_before_scaling_gy": 69.3, "goals_met": {"predicted": 3, "delivered": 1},
                       "goals_evaluable": 3, "mu_per_gy": None, "modulation_score": 0.5},
        },
    }  # fmt: skip
    assert list(found["cases"]) == ["case_1", "case_2"]
    nothing = delivered("case_1", 95.0, 1.0, 0, goals_evaluable=0, goals_met={"predicted": 0, "delivered": 0})
    assert summarise_deliveries({"case_1": nothing}, {})["goals_met_percent"] == {"predicted": 0.0, "delivered": 0.0}
    none = summarise_deliveries({}, {"case_3": "no CT"})
    assert (none["n_cases"], none["gap"], none["worst_gamma_3_3_percent"], none["mu_per_gy"]) == (0, {}, None, None)


def test_a_delivery_is_told_as_a_table() -> None:
    one = delivered("case_1", 95.0, 1.0, 2)
    one["gap"]["mae_body_gy"] = 0.5
    one["dvh"] = [{"structure": "PTV70", "statistic": "D95%", "predicted": 70.0, "delivered": 69.456}]
    met = {"met": True, "fair": False, "missed": False, "none": None}
    acceptable = {"met": True, "fair": True, "missed": False, "none": None}
    one["goals"] = [
        {"goal": name, "predicted": 1.5, "predicted_met": True, "predicted_acceptable": True,
         "delivered": None if name == "none" else 2.0, "delivered_met": met[name],
         "delivered_acceptable": acceptable[name]}
        for name in met
    ]  # fmt: skip
    assert describe_delivery(one) == [
        "case_1: gamma of the plan's dose against the predicted one: 3 %/3 mm 95.00 %, 3 %/2 mm 90.00 %, "
        "2 %/2 mm 75.00 %",
        "  MAE 1.00 Gy above 10 %, 0.50 Gy in the body; 600 MU, 240 MU/Gy, modulation score 0.310",
        "  scaled by 1.0100 to D95% 70.00 Gy of PTV70 (before: 69.30 Gy, gamma 3 %/3 mm 88.89 %)",
        "  " + " " * 44 + "     predicted     delivered",
        "  " + "PTV70 D95% (Gy)".ljust(44) + "         70.00         69.46",
        "  " + "met".ljust(44) + "        1.50 ✓        2.00 ✓",
        "  " + "fair".ljust(44) + "        1.50 ✓        2.00 ~",
        "  " + "missed".ljust(44) + "        1.50 ✓        2.00 ✗",
        "  " + "none".ljust(44) + "        1.50 ✓           –  ",
        "  " + "goals met".ljust(44) + "        3 of 3        2 of 3",
        "  the note",
    ]


@dataclass(frozen=True)
class OneArc:
    isocentre_xyz_mm: tuple[float, float, float]


@dataclass(frozen=True)
class ArcPlan:
    arcs: tuple[OneArc, ...]
    n_fractions: int


@pytest.fixture
def scene(make_case: Callable[..., Case]) -> tuple[Scene, Any]:
    """A dose of 1 Gy and a about a hundredth a mm of x, less what density, width and attenuation take."""
    density = DensityMap(np.ones((2, 2, 2), np.float32), Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    plan: Any = ArcPlan((OneArc((10.0, 20.0, 30.0)), OneArc((1.0, 2.0, 3.0))), 25)
    goals = goals_of(
        {"structure": "PTV70", "statistic": "D95%", "operator": ">=", "limit": 25.0, "unit": "Gy"},
        {"structure": "Rectum", "statistic": "V25Gy", "operator": "<=", "limit": 30.0, "unit": "%"},
        {"structure": "Rectum", "statistic": "mean", "operator": "<=", "limit": 99.0, "unit": "Gy"},
        {"structure": "Rectum", "statistic": "mean", "operator": "<=", "limit": 99.0, "unit": "Gy", "minus": ["PTV70"]},
        {"structure": "Bowel", "statistic": "mean", "operator": "<=", "limit": 99.0, "unit": "Gy"},
        {"structure": "PTV70", "statistic": "CI", "operator": ">=", "limit": 0.5, "unit": "1"},
    )
    return Scene(make_case(), density, load_machine(), goals), plan


def test_errors_move_all_isocentres_the_other_way_and_scale_density_or_beam(scene: tuple[Scene, Any]) -> None:
    known, plan = scene
    found = list(scenarios(plan, known.density, known.machine))
    assert found[0].plan is plan
    moved = {one.name: [(arc.isocentre_xyz_mm) for arc in one.plan.arcs] for one in found}
    assert moved["y +3 mm"] == [(10.0, 17.0, 30.0), (1.0, -1.0, 3.0)]
    assert moved["z -5 mm"] == [(10.0, 20.0, 35.0), (1.0, 2.0, 8.0)]
    names = [f"{axis} {sign}{mm} mm" for mm in (3, 5) for axis in "xyz" for sign in "+-"]
    wanted = [("nominal", "nominal"), *((f"setup_{name[3]}_mm", name) for name in names)]
    wanted += [("density_3_percent", f"density {sign}3 %") for sign in "+-"]
    wanted += [("other_beam", f"beam {what} {by} %") for what in ("width", "attenuation") for by in
               (("+10", "-10") if what == "width" else ("+2", "-2"))]  # fmt: skip
    assert [(one.kind, one.name) for one in found] == wanted
    assert all(one.density is known.density for one in found[:13])
    assert found[13].density.grid is known.density.grid


def test_bands_are_the_least_and_most_of_each_kind_and_the_plan_as_it_is(
    scene: tuple[Scene, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, plan = scene
    case, asked = known.case, []

    def dose(one: Any, density: DensityMap, machine: Any, points: np.ndarray, angles: int) -> np.ndarray:
        asked.append((points.shape, points.dtype, angles))
        level = 1.0 + 0.0097 * (points[:, 0] - (one.arcs[0].isocentre_xyz_mm[0] - 10.0)) * float(density.relative.max())
        return (level * machine.beam.attenuation_per_mm / known.machine.beam.attenuation_per_mm).astype(np.float32)

    monkeypatch.setattr(robustness, "dose_at_points", dose)
    monkeypatch.setattr(robustness, "VOXELS", 120)
    found = robustness_of(known, plan, np.random.default_rng(3))
    names = case.present_names
    # As many voxels of each as it has, and no more than 120, as drawn from the same generator.
    rng, where = np.random.default_rng(3), {}
    for name in names:
        voxels = np.argwhere(case.mask(name))
        chosen = np.sort(rng.choice(len(voxels), size=min(120, len(voxels)), replace=False))
        where[name] = case.grid.index_to_mm(voxels[chosen])[:, 2]
    total = sum(map(len, where.values()))
    assert asked == [((total, 3), np.float32, 1)] * 19
    assert (found["case_id"], found["voxels_a_structure"]) == ("case_0001", 120)

    def gy(name: str, move: float = 0.0, dense: float = 1.0, weak: float = 1.0) -> np.ndarray:
        return 25.0 * (1.0 + 0.0097 * (where[name] + move) * dense) * weak

    kinds = {
        "nominal": [{}], "setup_3_mm": [{}, {"move": 3.0}, {"move": -3.0}],
        "setup_5_mm": [{}, {"move": 5.0}, {"move": -5.0}], "density_3_percent": [{}, {"dense": 1.03}, {"dense": 0.97}],
        "other_beam": [{}, {"weak": 1.02}, {"weak": 0.98}],
    }  # fmt: skip
    every = [gy(name, **change) for name in names for changes in kinds.values() for change in changes]
    top = max(dose.max() for dose in every)
    edges = np.arange(0.0, top + 2.0, 1.0)
    assert found["dose_gy"] == edges.tolist()
    assert list(found["structures"]) == list(names)
    for name in ("PTV70", "Femur_R"):
        assert list(found["structures"][name]) == list(kinds)
        for kind, changes in kinds.items():
            held = [gy(name, **change) for change in changes]
            curves = [[100.0 * np.mean(dose >= edge) for edge in edges] for dose in held]
            band = found["structures"][name][kind]
            # A voxel of just that dose is on either side by its last digit.
            assert band["least_percent"] == pytest.approx(np.min(curves, axis=0), abs=0.9)
            assert band["most_percent"] == pytest.approx(np.max(curves, axis=0), abs=0.9)
            means = [dose.mean() for dose in held]
            assert band["statistics_gy"]["mean"] == pytest.approx([min(means), max(means)], abs=2e-3)
            cold = [np.percentile(dose, 2) for dose in held]
            assert band["statistics_gy"]["D98%"] == pytest.approx([min(cold), max(cold)], abs=0.5)
            assert list(band["statistics_gy"]) == ["D98%", "D95%", "D2%", "mean"]
    # What is taken away, absent, or needs the whole dose is not judged.
    rows = {row["goal"]: row for row in found["goals"]}
    assert list(rows) == [goal.name for goal in known.goals.goals[:3]]
    # Beams off sideways or along leave these doses as they are: eight of them, besides the plan as it is and widths.
    each = [*[{}] * 11, *(change for kind in list(kinds)[1:] for change in kinds[kind][1:])]
    volumes = [100.0 * np.mean(gy("Rectum", **change) >= 25.0) for change in each]
    rectum = rows["Rectum V25Gy ≤ 30 %"]
    assert (rectum["of"], len(each)) == (19, 19)
    assert [rectum["least"], rectum["most"]] == pytest.approx([min(volumes), max(volumes)], abs=0.9)
    assert rectum["met"] == sum(volume <= 30.0 for volume in volumes)
    mean = rows["Rectum mean ≤ 99 Gy"]
    means = [gy("Rectum", **change).mean() for change in each]
    assert [mean["met"], mean["least"], mean["most"]] == pytest.approx([19, min(means), max(means)], abs=2e-3)


def test_bands_are_told_with_their_ends_and_the_goals_that_an_error_breaks() -> None:
    def row(low: float, high: float) -> dict[str, Any]:
        return {"statistics_gy": {name: [low, high] for name in ("D98%", "D95%", "D2%", "mean")}}

    found = {
        "case_id": "case_1", "scenarios": {"nominal": "nominal", "x +3 mm": "setup_3_mm", "x -3 mm": "setup_3_mm"},
        "structures": {"PTV": {"nominal": row(60.0, 60.0), "setup_3_mm": row(59.25, 60.125)}},
        "goals": [{"goal": "PTV D95% ≥ 59 Gy", "met": 2, "of": 3, "least": 58.5, "most": 60.0},
                  {"goal": "kept", "met": 3, "of": 3, "least": 1.0, "most": 2.0}],
    }  # fmt: skip
    cells = "               60.00      59.25 to 60.12"
    assert describe_robustness(found) == [
        "case_1 under errors, in Gy:", "  " + " " * 24 + "             nominal          setup_3_mm",
        *(f"  {f'PTV {name}':24}{cells}" for name in ("D98%", "D95%", "D2%", "mean")),
        "  PTV D95% ≥ 59 Gy: met in 2 of 3 (58.50 to 60.00)",
    ]  # fmt: skip


@pytest.mark.parametrize(("volume_cc", "n"), [
    # Voxels of 1 mm³ at distances 1, 2, 2, 3, 9 tenths of a mm from a surface, and four inside.
    (0.004, 4), (0.0052, 5), (0.006, 7), (0.007, 7), (0.0076, 8), (0.009, 8), (0.0002, 4), (0.02, 4), (0.002, 4),
])  # fmt: skip
def test_a_surface_moves_half_a_voxel_at_most_to_keep_a_volume(volume_cc: float, n: int) -> None:
    field = np.array([-0.9, -0.8, -0.7, -0.6, 0.1, 0.2, 0.2, 0.3, 0.9], np.float32).reshape(1, 1, 9)
    found = _holding(field, volume_cc, Grid((1, 1, 9), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    assert int(found.sum()) == n
    assert found.ravel()[:n].all()


def test_a_mask_goes_to_its_own_voxels_of_the_image_or_to_none() -> None:
    grid = Grid((2, 3, 4), (3.0, 2.0, 1.0), (6.0, 4.0, 2.0))
    mask = np.random.default_rng(1).random(grid.shape_zyx) < 0.5
    image = Grid((5, 6, 9), (3.0, 2.0, 1.0), (0.0, 0.0, 0.0))
    found = mask_on_image(mask, grid, image)
    assert np.array_equal(found[2:4, 2:5, 2:6], mask)
    assert found.sum() == mask.sum()
    far = Grid(grid.shape_zyx, grid.spacing_mm, (600.0, 4.0, 2.0))
    assert not mask_on_image(mask, far, image).any()
    empty = mask_on_image(np.zeros_like(mask), Grid((2, 3, 4), (3.0, 2.0, 1.5), (6.0, 4.0, 2.0)), image)
    assert not empty.any()
    # Beyond the image's end a mask is interpolated, and what lies there is lost.
    over = Grid((2, 3, 4), (3.0, 2.0, 1.0), (12.0, 4.0, 2.0))
    whole = mask_on_image(np.ones_like(mask), over, image)
    assert whole[4].any()
    assert not whole[:3].any()


def test_the_masks_of_a_prediction_are_read_with_what_it_says_of_itself(tmp_path: Path) -> None:
    masks = np.zeros((3, 2, 3, 4), np.uint8)
    masks[0, 0], masks[2, 1] = 1, 1
    arrays: dict[str, Any] = {
        "masks": masks, "structure_names": np.array(["A", "B", "C"]), "spacing_mm": np.array([3.0, 2.0, 1.0]),
        "origin_mm": np.array([5.0, 6.0, 7.0]), "cleaned": np.array(["largest part", "", "holes filled"]),
        "meta": np.asarray(json.dumps({"case_id": "case_7", "model": "seg"})),
    }  # fmt: skip
    write_npz(tmp_path / "a.npz", arrays)
    found = read_masks(tmp_path / "a.npz")
    assert found.grid == Grid((2, 3, 4), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0))
    assert {name: mask.tolist() for name, mask in found.masks.items()} == {
        "A": (masks[0] > 0).tolist(),
        "C": (masks[2] > 0).tolist(),
    }
    assert found.masks["A"].dtype == np.bool_
    assert (found.case_id, found.model, found.absent, found.cleaned) == (
        "case_7", "seg", ["B"], {"A": "largest part", "B": "", "C": "holes filled"},
    )  # fmt: skip
    assert (found.modality, found.pseudonym, found.ct_hu, found.knows_image) == ("CT", "", None, False)
    bare = {name: arrays[name] for name in ("structure_names", "spacing_mm", "origin_mm")}
    write_npz(tmp_path / "b.npz", bare | {"labels": np.array([[[0, 1], [3, 3]]], np.uint8)})
    other = read_masks(tmp_path / "b.npz")
    assert (other.case_id, other.model, other.cleaned, other.absent) == ("b", "unknown", {}, ["B"])
    assert other.masks["C"].tolist() == [[[False, False], [True, True]]]
    for wrong in (masks * 2, masks[:2], masks[0], masks.astype(np.int16)):
        write_npz(tmp_path / "c.npz", {**arrays, "masks": wrong})
        with pytest.raises(BadCase, match=r"c: masks are .* for 3 names, wanted 0 and 1 as uint8"):
            read_masks(tmp_path / "c.npz")


def test_the_masks_of_a_case_are_read_with_its_body_and_image(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = replace(make_case(), meta={**make_case().meta, "modality": "MR", "pseudonym": "anon_7"})
    case.save(tmp_path / "case_0001.npz")
    found = read_masks(tmp_path / "case_0001.npz")
    assert list(found.masks) == [*case.present_names, "BODY"]
    assert np.array_equal(found.masks["BODY"], case.body)
    assert (found.absent, found.model, found.prescription_gy) == (["Bowel"], "", {"PTV70": 70.0, "PTV56": 56.0})
    assert (found.modality, found.pseudonym, found.grid) == ("MR", "anon_7", case.grid)
    assert np.array_equal(found.ct_hu, case.ct_hu)


def test_an_image_is_compared_inside_the_masks_alone() -> None:
    grid = Grid((4, 5, 6), (3.0, 2.0, 1.0), (0.0, 0.0, 0.0))
    ct_hu = np.arange(120, dtype=np.int16).reshape(grid.shape_zyx)
    inside = np.zeros(grid.shape_zyx, bool)
    inside[1:3, 1:3, 1:3] = True
    other = np.where(inside, ct_hu, 999).astype(np.int16)
    check_image(MaskSet("case_1", grid, {"A": inside}, ct_hu=ct_hu), other, grid)
    with pytest.raises(
        BadCase, match="case_1: the image is not the one of the case: values differ by up to nan inside"
    ):
        check_image(MaskSet("case_1", grid, {}, ct_hu=ct_hu), other, grid)
    other[1, 1, 1] = ct_hu[1, 1, 1] - 5
    with pytest.raises(BadCase, match="values differ by up to 5 inside the patient"):
        check_image(MaskSet("case_1", grid, {"A": inside}, ct_hu=ct_hu), other, grid)
    low = Grid((4, 5, 6), (3.0, 2.0, 1.0), (-4.0, 0.0, 0.0))
    words = (
        r"the masks lie from \(-4\.0, 0\.0, 0\.0\) to \(5\.0, 8\.0, 5\.0\) mm .* the image from \(0\.0, 0\.0, 0\.0\) to"
    )
    with pytest.raises(BadCase, match=words):
        check_image(MaskSet("case_1", low, {"A": inside}), other, grid)


def test_what_a_model_has_seen_is_told_by_name_patient_and_image(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case, other = make_case("case_0001"), make_case("case_0002", seed=2)
    case.save(tmp_path / "case_0001.npz")
    seen = seen_cases({"case_0001": "1", "4711": "2"}, {"case_0001": "1", "val": "3"}, tmp_path)
    assert seen.roles == {"case_0001": "trained on", "val": "selected on", "4711": "trained on"}
    assert list(seen.images.values()) == ["case_0001"]
    assert seen.compared == (
        "the image, with those of 1 cases, and folder name and PatientID, with the names of 3 cases"
    )
    assert seen.matches(other, "nobody") == []
    assert seen.matches(other, "4711") == [
        "the model was trained on a case of this PatientID: its dose here is no test of the model"
    ]
    found = seen.matches(replace(case, meta={**case.meta, "case_id": "val"}), "")
    assert found == [
        "the model was selected on a case of this name: its dose here is no test of the model",
        "the model was trained on this very image (case_0001): its dose here is no test of it",
    ]
    turned = replace(other, ct_hu=case.ct_hu.reshape(case.ct_hu.shape[::-1]).reshape(case.ct_hu.shape))
    assert len(seen.matches(turned, "")) == 1
    assert SeenCases({"a": "trained on"}, {}).compared == "folder name and PatientID, with the names of 1 cases"
