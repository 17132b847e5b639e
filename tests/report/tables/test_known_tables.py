"""Each table of the reports as a person last read it: every cell with its state, of small known numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.known import assert_known, shown

from doseledger.core.grid import Grid
from doseledger.core.project.protocol import load_protocol
from doseledger.core.settings import load_settings
from doseledger.core.text.sheet import Table
from doseledger.dosimetry.gamma.criteria import GammaCriteria
from doseledger.ledger.provenance.stamp import GitState
from doseledger.report import gamma, prediction, survey
from doseledger.report.model import contours, delivery, frame, segmentation, spread
from doseledger.report.tables import comparison_tables, data_tables, overlap_tables, results, sections

KNOWN = Path(__file__).parents[1] / "known"
COLOURS = {"PTV70": "#ff0000", "Rectum": "#00ff00"}


def check(name: str, *parts: Any) -> None:
    texts = [shown(part) if isinstance(part, Table) else "\n".join(map(str, part)) if isinstance(part,
        list) else str(part)
             for part in parts]  # fmt: skip
    assert_known(KNOWN / f"{name}.txt", "\n\n".join(texts), is_passing=False)


def test_tables_of_a_prediction() -> None:
    def goal(name: str, met: bool | None, acceptable: bool, **values: Any) -> dict[str, Any]:
        return {"goal": name, "structure": name.split()[0], "gating": True, "value": 12.345, "unit": "%", "met": met,
                "acceptable": acceptable, "reason": "", **values}  # fmt: skip

    goals = [goal("PTV70 D95%", True, True, unit="1"), goal("Rectum V45Gy", False, True, gating=False),
             goal("Bowel V45Gy", False, False), goal("Bladder mean", None, False, value=None,
                 reason="it is absent")]  # fmt: skip
    statistics = [
        {"structure": name, "statistic": statistic, "unit": "Gy", "value": value, "sd": sd}
        for name, statistic, value, sd in (
            ("PTV70", "D95%", 66.125, 0.555),
            ("Rectum", "mean", 30.0, None),
            ("PTV70", "mean", 70, 0.1),
        )
    ]
    record = {
        "model": "dose_unet", "epoch": 9, "registered_as": ["a@v1", "a@v2"], "checkpoint_sha256": "c" * 64,
        "program": "1.2", "code_sha256": "d" * 64,
        "commit": "abc", "dirty": True, "input_sha256": "e" * 64, "case_sha256": "f" * 64, "protocol": "p",
        "protocol_sha256": "0" * 64,
        "prescription_gy": {"PTV70": 70.0, "PTV56": 56.5}, "n_fractions": 28, "seen_before_was_judged_by": "name",
        "undeliverable_gy": 1.234,
        "mean_gy": {"PTV70": 70.12, "PTV56": 57.0}, "highest_gy": 75.55, "goals": goals, "settings": {"project": True},
    }  # fmt: skip
    bare = {
        **record,
        "registered_as": [],
        "commit": None,
        "n_fractions": None,
        "goals": [],
        "undeliverable_gy": None,
        "settings": {},
    }
    one = {"mean_gy": record["mean_gy"], "highest_gy": 75.0, "goals": goals, "seen_before": ["x"], "warnings": ["y"]}
    found = {
        "predicted": {"a": one, "b": {**one, "goals": goals[:2], "warnings": []}, "c": {**one, "goals": goals[:1],
            "seen_before": [], "warnings": []},
                      "d": {**one, "goals": goals[3:]}, "e": {key: value for key,
                          value in one.items() if key != "goals"}},
        "failed": {"f": "no CT"},
    }  # fmt: skip
    check(
        "prediction_tables", prediction.goals_table(goals, COLOURS), prediction.statistics_table(statistics, COLOURS,
            drawn=True),
        prediction.statistics_table(statistics[1:2], {}, drawn=False), prediction.provenance_table(record),
        prediction.provenance_table(bare),
        prediction.provenance_table({**record, "dirty": False, "n_fractions": 1}), prediction.predictions_table(found),
        [prediction.tell_prediction(record), prediction.tell_prediction(bare), prediction.tell_deliverability(record),
         prediction.tell_deliverability(bare), prediction.tell_deliverability({**record, "settings": {}})],
    )  # fmt: skip


def test_tables_of_contours_and_plans() -> None:
    flip = {"goal": "Rectum V65Gy", "gating": True, "drawn": 14.2, "predicted": 16.1}
    case = {"dice": 0.91, "mae_body_gy": 0.21, "n_goals": 17, "n_flipped": 2, "flipped": [flip, {**flip, "goal": "B"}]}
    found = {
        "contours_by": "seg", "structures": ["Rectum", "Bladder"], "dice": 0.9, "dice_worst": 0.885,
        "mae_body_gy": 0.15, "mae_body_gy_worst": 0.21,
        "mae_above_10_percent_gy": 0.3, "mae_above_10_percent_gy_worst": None, "plan_mae_body_gy": {"drawn": 1.11,
            "predicted": 1.16},
        "d95_change_gy": {"PTV70": {"mean": -0.12, "largest": -0.4}, "PTV56": None}, "n_goals": 34, "n_flipped": 1,
        "n_seen_flipped": 3,
        "flips": {"Rectum V65Gy": 1, "B": 2}, "cases": {"a": case, "b": {**case, "flipped": [], "n_flipped": 0}},
    }  # fmt: skip
    gap = {f"gamma_{key}_percent": 90.0 + k for k, key in enumerate(("3_3", "3_2", "2_2"))}
    one = {**gap, "mae_above_10_percent_gy": 1.5, "d95_before_scaling_gy": 65.0, "goals_met": {"predicted": 5,
        "delivered": 4}, "goals_evaluable": 6,
           "mu_per_gy": 312.6, "modulation_score": 0.2345}  # fmt: skip
    plans = {
        "gap": {**gap, "mae_above_10_percent_gy": 1.25, "mae_body_gy": 0.75}, "goals_met_percent": {"predicted": 80.0,
            "original": 90.0},
        "worst_gamma_3_3_percent": 81.25, "mu_per_gy": 300.4, "modulation_score": 0.25, "n_cases": 2,
        "failed": {"z": "no CT", "y": "no RTPLAN"},
        "cases": {"b": one, "a": {**one, "goals_met": {"delivered": 4, "original": 3}}},
    }  # fmt: skip
    text, tables = contours._tell(found)
    whole = {**plans, "failed": {}, "n_cases": 1}
    del whole["cases"]
    check(
        "contours_and_plans", text, contours._tell({**found, "flips": {}})[0], *tables, delivery.plans_table(plans),
        delivery.cases_table(plans),
        delivery.plans_table(whole), delivery.cases_table(whole),
    )  # fmt: skip


def test_tables_of_a_segmentation() -> None:
    rows: dict[str, Any] = {"case_id": ["c", "a", "b"]}
    for k, end in enumerate(("", "_Rectum", "_Bladder")):
        for j, measure in enumerate(overlap_tables.TITLES):
            rows[f"{measure}{end}"] = [0.8 - 0.1 * k, 0.9 - 0.01 * j, np.nan if end else 0.7]
    rows |= {f"{measure}_Nothing": [np.nan] * 3 for measure in overlap_tables.TITLES}
    for name in ("Rectum", "Bladder", "Nothing"):
        rows |= {f"volume_cc_{who}_{name}": [80.0, 90.5, 30.0 + k] for k, who in enumerate(("reference", "prediction"))}
    summary: dict[str, Any] = {
        "volume_bias_cc_Rectum": 0.3333,
        "volume_agreement_low_cc_Rectum": -1.0,
        "volume_agreement_high_cc_Rectum": 2.0,
    }
    for k, name in enumerate(segmentation.UNITS):
        summary |= {name: 0.5 + k, f"{name}_low": 0.25, f"{name}_high": 0.75, f"{name}_worst": 0.125}
    summary |= {"dice_Rectum_low": 0.1, "dice_Rectum_high": float("nan")}
    facts: Any = SimpleNamespace(case_metrics=pd.DataFrame(rows), summary=summary)
    check(
        "segmentation_tables", overlap_tables.overlap_table(facts, 1.5, COLOURS), overlap_tables.volumes_table(facts,
            COLOURS),
        overlap_tables.label_cases_table(facts), segmentation.headline_cards(facts, 1.5),
    )  # fmt: skip


def test_tables_of_a_gamma_comparison(tmp_path: Path) -> None:
    grid = Grid((2, 3, 4), (3.0, 2.5, 2.0), (-10.0, -20.0, 5.0))
    dose_gy = np.array([0.5, 1, 2.9, 3, 4.9, 5, 6, 7, 8, 8.9, 9, 10, 10, 10, 10, 10, 2, 2, 2, 2, 1, 1, 1, 1]).reshape(
        grid.shape_zyx
    )
    values = np.where(dose_gy < 1, np.nan, np.linspace(0, 1.95, 24).reshape(grid.shape_zyx))
    values[0, 1, 2] = 1.0
    values[1, 0, 3] = 2.0
    files = tmp_path / "a.dcm", tmp_path / "b.dcm"
    for path in files:
        path.write_text(path.name)
    found = {"pass_rate_percent": 98.456, "n_points": 1200, "n_without": 3, "mean_gamma": 0.1234,
        "highest_gamma": 2.0, "max_dose_reference_gy": 10.0,
             "max_dose_evaluation_gy": 10.5, "engine": "sampled"}  # fmt: skip

    def compared(normalisation: float | None, **more: Any) -> Any:
        criteria = GammaCriteria(3.0, 2.0, 10.0, True, 10, 2.0, normalisation)
        return SimpleNamespace(criteria=criteria, found={**found, **more}, gamma=values,
            reference=SimpleNamespace(dose_gy=dose_gy, grid=grid),
                               evaluation=SimpleNamespace(dose_gy=dose_gy, grid=grid))  # fmt: skip

    own, given = compared(None, highest_gamma=1.99), compared(5.0, largest_difference_from_pymedphys=0.0, n_without=0)
    check(
        "gamma_tables", gamma.numbers_table(own), gamma.numbers_table(given), gamma.levels_table(own),
        gamma.levels_table(given),
        gamma.files_table(own, files), gamma.tell_gamma(given.found, "gamma"), gamma.LEVELS,
    )  # fmt: skip


def model_facts() -> Any:
    """Three test cases, one without a rectum, measured by a body's and a structure's error and one gamma."""
    cases = pd.DataFrame({
        "case_id": ["a", "b", "c"], "mae_above_10_percent_gy": [1.0, 3.0, 3.0], "mae_body_gy": [0.5, 0.25, 0.125],
        "mae_Rectum_gy": [2.0, np.nan, 1.0],
        "mae_Bowel_gy": [np.nan] * 3, "gamma_3_3_global_percent": [98.0, 92.25, np.nan], "gamma_points_verified": [2,
            3, 0],
        "gamma_largest_difference": [0.0, 1e-7, np.nan], "prediction_acceptable": [True, False, True],
        "openkbp_dose_gy": [1.0, 2.0, 4.0],
    })  # fmt: skip
    summary = {"mae_above_10_percent_gy": 2.3333, "mae_above_10_percent_gy_low": 1.0,
        "mae_above_10_percent_gy_high": 3.0, "mae_above_10_percent_gy_worst": 3.0,
               "mae_body_gy": 0.29, "mae_body_gy_worst": 0.5, "gamma_3_3_global_percent": 95.1,
               "gamma_3_3_global_percent_low": float("nan"),
               "gamma_3_3_global_percent_high": 98.0, "gamma_3_3_global_percent_worst": 92.25,
               "plan_acceptable_percent": 100.0,
               "prediction_acceptable_percent": 66.7, "prediction_acceptable_percent_low": 30.0,
               "prediction_acceptable_percent_high": 90.0,
               "openkbp_dose_score": 2.3333, "n_cases": 3}  # fmt: skip
    goals = pd.DataFrame([
        {"case_id": case, "goal": goal, "structure": goal, "gating": goal == "PTV70", "plan": 1.0, "prediction": 2.0,
            "plan_met": True, "plan_acceptable": True,
         "prediction_met": met, "prediction_acceptable": acceptable}
        for case, goal, met, acceptable in (("a", "PTV70", True, True), ("b", "PTV70", False, False), ("b", "Rectum",
            False, False), ("c", "PTV70", False, True))
    ])  # fmt: skip
    return SimpleNamespace(case_metrics=cases, summary=summary, goal_results=goals)


def test_tables_of_a_model_s_results(repository: Path) -> None:
    facts, gammas = model_facts(), {"gamma_3_3_global_percent": "3 %/3 mm"}
    settings = load_settings(repository / "params.yaml")
    dvh = pd.DataFrame([
        {"case_id": case, "structure": structure, "statistic": statistic, "unit": unit, "plan": plan,
            "prediction": plan + by, "difference": by}
        for case, structure, statistic, unit, plan, by in (
            ("a", "Rectum", "mean", "Gy", 30.0, -1.5), ("a", "PTV70", "D95%", "Gy", 66.0, 0.25), ("b", "Rectum",
                "mean", "Gy", 40.0, 0.5),
            ("b", "PTV70", "V95%", "%", 98.0, -2.0), ("b", "Bowel", "mean", "Gy", 1.0, np.nan), ("c", "PTV70", "D95%",
                "Gy", 67.0, np.nan))
    ])  # fmt: skip
    few = SimpleNamespace(**{**vars(facts), "case_metrics": facts.case_metrics.assign(gamma_points_verified=0)})
    same = SimpleNamespace(**{**vars(facts), "case_metrics": facts.case_metrics.assign(gamma_largest_difference=0.0)})
    labels, values = results.difference_rows(dvh)
    check(
        "results_tables", results.headline_cards(facts, gammas), results.summary_table(facts.summary),
        results.errors_table(facts, COLOURS),
        results.gamma_table(facts, gammas), results.gamma_table(few, {}), results.gamma_table(same, gammas),
        results.dvh_table(dvh, COLOURS),
        [*labels, *values], results.cases_table(facts, gammas), results.gamma_names(settings.evaluate),
        results.mae_masks(facts.case_metrics),
        results.goals_sentence(facts.goal_results),
        results.goals_sentence(facts.goal_results.assign(prediction_met=None)),
    )  # fmt: skip


def test_tables_of_a_comparison() -> None:
    def row(first: float, second: float, **values: Any) -> dict[str, Any]:
        return {"n": 3, "first": first, "second": second, "mean_difference": second - first, "low": -1.0,
            "high": -0.25, "p_value": 0.25, "p_adjusted": 0.5,
                "effect_size": -1.0, "better": "second", **values}  # fmt: skip

    found = {
        "n_cases": 5, "mae_body_gy": row(2.0, 1.5), "mae_above_10_percent_gy": row(3.0, 3.5, better="first"),
        "gamma_3_3_global_percent": row(95.0, 96.0, low=float("nan")),
        "dvh_Rectum_mean": row(1.0, 1.0, better="neither"), "dvh_PTV70_D95%": row(1.0, 1.0, n=0),
    }  # fmt: skip
    dvh = pd.DataFrame([
        {"case_id": case, "structure": structure, "statistic": statistic, "unit": unit, "difference": by}
        for case in ("a", "b") for structure, statistic, unit, by in (("Rectum", "mean", "Gy", -2.0), ("PTV70",
            "D95%", "Gy", 1.0), ("PTV70", "V95%", "%", 1.0))
    ])  # fmt: skip
    goals = model_facts().goal_results

    def run(label: str, factor: float, **values: Any) -> Any:
        cases = pd.DataFrame(
            {
                "case_id": ["b", "a"],
                "mae_above_10_percent_gy": [2.0, 3.0 * factor],
                "checkpoint_sha256": [label * 3] * 2,
            }
        )
        return SimpleNamespace(**{
            "label": label, "cases": cases, "dvh": dvh.assign(difference=dvh["difference"] * factor), "goals": goals,
            "settings": {"lr": factor, "same": 1},
            "measures": ["mae_body_gy", "mae_above_10_percent_gy", "gamma_3_3_global_percent", "absent"],
            "digests": {"a": "1", "b": "2"}, "commit": label * 5,
            "run": {"model": label, "cases_sha256": "c", "seed": 1, "fold": 0}, "dirty": factor > 1,
            "verdicts": {"data": {"ok": True}, label: {"ok": False, "counts": {"error": 2}}}, **values,
        })  # fmt: skip

    runs: Any = (run("one", 1.0), run("two", 0.5), run("three", 2.0, settings={}, run={}, commit=None, verdicts={}))
    pair, tables = runs[:2], comparison_tables
    check(
        "comparison_tables", tables.statistics_table("errors", found, pair, dvh=False), tables.statistics_table("dvh",
            found, pair, dvh=True),
        tables.headline_cards(found, pair), tables.settings_table(runs), tables.settings_table(runs[:1]),
        tables.origin_table(runs), tables.verdicts_table(runs),
        tables.goals_table(runs), tables.cases_table(runs), tables.ranked_errors(runs), tables.difference_rows(pair),
        tables.dvh_statistics(runs[0]),
        [tables.least_p_note({"n_cases": n}) for n in (1, 2, 5, 6)],
        [tables.spell_measure(name, {"x_y": "of x"}) for name in ("mae_Rectum_gy", "gamma_2_1_local_percent", "x_y",
            "a_b")],
    )  # fmt: skip


def test_tables_of_a_cohort(repository: Path) -> None:
    protocol = load_protocol(repository / "validation/cohorts/phantom/protocol.yaml")
    features = pd.DataFrame({"Rectum_volume_cc": [50.0, 60.125, np.nan, 70.0], "body_volume_cc": [12345.0, 9999.0,
        10000.0, -0.5], "Bowel_mean_gy": [np.nan] * 4},
                            index=["a", "b", "c", "d"])  # fmt: skip
    parts = pd.Series({"a": "train", "b": "val", "d": "train"})
    verdict = {"details": {
        "optional": [{"structure": "Bowel", "found": 2, "cases": 3, "may_be_cases": 1, "may_be": "bowl (1)"},
                     {"structure": "Skin", "found": 3, "cases": 3, "may_be_cases": 0, "may_be": ""}],
        "expectations": [
            {"column": "Rectum_volume_cc", "wanted": "-10 to 400", "min": 1.0, "max": 12345.6, "n_unexpected": 0,
                "ok": True, "severity": "error", "reason": "r"},
            {"column": "a, b", "wanted": "w", "min": None, "max": None, "n_unexpected": 2, "ok": False,
                "severity": "error", "reason": "r"},
            {"column": "", "wanted": "w", "n_unexpected": 1, "ok": False, "severity": "warning",
                "reason": "r"}]}}  # fmt: skip
    feature = {
        "feature": "body_volume_cc",
        "reference": 100.0,
        "new": -90.0,
        "ks_p": 0.5,
        "ks_p_adjusted": 0.5,
        "psi": 0.1,
        "psi_limit": 0.25,
    }
    drift = {
        "cases": [{"case_id": "b", "distance": 1.2, "ratio": 1.0, "features": {"Rectum_volume_cc": 3.1,
            "body_volume_cc": -2.0}, "changed": {"n_fractions": 5.0}},
                  {"case_id": "a", "distance": 1.2, "ratio": 1.3, "features": {}, "changed": {}}, {"case_id": "c",
                      "distance": 2.0, "ratio": 0.7, "features": {}, "changed": {"n_fractions": 5.5}}],
        "features": [feature, {**feature, "feature": "Rectum_volume_cc", "ks_p": 0.001, "ks_p_adjusted": 0.01,
            "psi": 0.5}, {**feature, "ks_p": None, "ks_p_adjusted": None, "psi": None},
                     *({**feature, "feature": f"x{k}_volume_cc", "ks_p": 0.9, "psi": 0.01 * k,
                         "psi_limit": 0.01 * k} for k in range(19))],
        "limits": {"alpha": 0.01},
    }  # fmt: skip
    rows = {
        "case_id": ["b", "a"],
        "pseudonym": ["p", "q"],
        "group": ["unknown", "G"],
        "site": ["S", "S"],
        "sha256": ["1", "2"],
        "n_warnings": [0, 2],
    }
    skipped = pd.DataFrame(
        {"case_id": ["z", "y", "x"], "status": ["skipped", "failed", "failed"], "reason": ["r1", "r2", "r3"]}
    )
    lock = pd.DataFrame({"locked_on": ["2026-02-01", "2026-01-01"], "reason": ["two", "one"]})
    splits = pd.DataFrame([(f"c{k:02d}", f"p{k // 2}", 0, k % 2, part) for k, part in enumerate([*["train"] * 25,
        *["val"] * 3, "test"])],
                          columns=["case_id", "pseudonym", "repeat", "fold", "split"])  # fmt: skip
    facts: Any = SimpleNamespace(
        cases=pd.DataFrame(rows), skipped=skipped, test_set=lock, splits=splits, run={"fold": 1, "repeat": 0}
    )
    short: Any = SimpleNamespace(
        **{
            **vars(facts),
            "skipped": skipped[:0],
            "test_set": lock[:1],
            "run": {},
            "cases": facts.cases.assign(group="unknown"),
        }
    )
    check(
        "cohort_tables", data_tables.prescription_table(protocol),
        data_tables.prescription_table(protocol.model_copy(update={"n_fractions": None})),
        data_tables.optional_table(verdict), data_tables.optional_table({}), data_tables.features_table(features,
            parts), data_tables.expectations_table(verdict),
        data_tables.expectations_table({}), data_tables.drift_cases_table(drift), data_tables.drift_cases_table({}),
        data_tables.drift_features_table(drift),
        data_tables.drift_features_table({"features": drift["features"][2:3]}), data_tables.drift_features_table({}),
        data_tables.hashes_table(facts.cases, parts),
        sections.counts_table(facts), sections.counts_table(short), sections.skipped_table(facts),
        sections.skipped_table(short), sections.splits_table(facts),
        sections.splits_table(short), [sections.lock_sentence(one) for one in (facts, short,
            SimpleNamespace(test_set=lock[:0]))],
    )  # fmt: skip


def test_tables_of_a_training() -> None:
    git = {"commit": "abc", "branch": None, "dirty": True, "dirty_paths": ["a"], "note": "1 file differs"}
    run = {"seed": 1, "fold": 0, "repeat": 2, "cases_sha256": "c", "ancestors": [{"name": "a", "sha256": "1" * 64},
        {"name": "b", "sha256": "2" * 64}],
           "versions": {"torch": "2.1", "pytorch_lightning": "2.6", "cuda": "12"},
           "provenance": {"git": git, "command": ["doseledger", "train"], "gpus": ["H1", "H2"], "python": "3.11",
               "packages": {"numpy": "2", "scipy": ""}}}  # fmt: skip
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "steps": [10, 20, 30],
            "train_loss": [3.0, 2.0, 1.0],
            "val_mae_body_gy": [2.0, np.nan, 1.23456],
            "lr": 0.1,
            "seconds": [1.2, 1.2, 1.2],
        }
    )
    dataset = {"train": [1, 2], "val": [3]}
    full: Any = SimpleNamespace(
        run=run, history=history, dataset=dataset, config_text="lr: 0.1\nlist:\n  - a\n  - b\nkeep:\n  x: 1\n\n"
    )
    bare: Any = SimpleNamespace(run={}, history=history[["epoch", "train_loss"]], dataset={}, config_text="lr: 1")
    clean, none = GitState("d" * 40, "main", False, (), ""), GitState(None, None, True, (), "no Git")
    hashes = {
        "train": {"deps": {"src/x.py": "1", "data": "2"}, "outs": {"models": "3"}},
        "code": {"deps": {}, "outs": {"reports": "4"}},
    }
    best = [
        sections.best_epoch(frame)
        for frame in (
            history,
            bare.history,
            history.assign(val_mae_body_gy=np.nan),
            history.assign(val_mae_body_gy=[1.0, 2.0, 3.0]),
        )
    ]
    predicted = {"project": True, "batch": 2, "a": "x"}
    check(
        "training_tables", sections.code_table(full, sections.trained_git(full), clean, ("here", "there")),
        sections.code_table(bare, sections.trained_git(bare), none),
        sections.code_table(bare, clean, clean), sections.packages_table(full), sections.packages_table(bare), best,
        sections.training_table(full), sections.training_table(bare),
        sections.hashes_table(hashes), sections.hashes_table({}), sections.settings_text(full, predicted),
        sections.settings_of_run(full, {"a": {"b": 1}}),
    )  # fmt: skip


def test_tables_of_a_survey() -> None:
    def patient(state: str, complaints: list[Any]) -> Any:
        return SimpleNamespace(case_id=state, state=state, complaints=complaints, mid_slice=None, claims={}, hints={},
            rois=[],
                               objects={"plans": [], "doses": [], "series": []}, leftovers=[])  # fmt: skip

    complaints = [
        {
            "sentence": "no CT",
            "kind": "fails",
            "found": [{"text": "MR", "count": 2}, {"text": "PET", "count": 1}],
            "cases": [f"c{k}" for k in range(13)],
        },
        {"sentence": "no dose", "kind": "skipped", "found": [], "cases": ["c1"]},
    ]
    found: Any = SimpleNamespace(
        n_files=100, n_strangers=7, n_broken=3, n_copies=5, patients=[patient("converts", []), patient("fails", [1]),
            patient("skipped", [1, 2])],
        states={"converts": 1, "converts once de-identified": 0, "skipped": 4, "fails": 2},
        complaints=lambda: complaints, protocol=None,
    )  # fmt: skip
    nothing: Any = SimpleNamespace(complaints=lambda: [], patients=[])
    check(
        "survey_tables", survey._cards(found), survey._complaints_table(found), survey._complaints_table(nothing),
        survey._plans_table([]), survey._series_table([]),
        survey._left_table(nothing), survey._rois_table([]), [survey._picture(one, {}) for one in found.patients],
        survey._cases([f"c{k}" for k in range(12)]),
    )  # fmt: skip


@pytest.mark.parametrize("dashed", [False, True])
def test_the_outline_of_a_proposed_roi_is_dashed(dashed: bool) -> None:
    drawn: list[Any] = []
    pen: Any = SimpleNamespace(line=lambda points, **how: drawn.append((points, how)))
    points = [(float(5 * k), 0.0) for k in range(8)]
    survey._outline(pen, points, "#123456", dashed)
    if not dashed:
        assert drawn == [(points, {"fill": "#123456", "width": 4, "joint": "curve"})]
        return
    # A dash and a gap of 12 pixels each, cut at the points of the outline.
    assert drawn == [([points[k], points[k + 1]], {"fill": "#123456", "width": 3}) for k in (0, 1, 2, 5, 6)]


def test_what_a_model_stands_on_and_how_far_its_doses_were_projected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apart = {"a": 0.5, "b": None, "c": 1.25}
    monkeypatch.setattr(delivery, "read_undeliverable", lambda path: apart[path.stem])
    told = delivery.describe_projection(tmp_path, ["a", "b", "c"])
    assert told == (
        "Each dose is the nearest that the protocol's beams can give (predict.project). On average it lies 0.88 Gy "
        "from what the model told, in c 1.25 Gy. It is no plan yet."
    )
    assert delivery.describe_projection(tmp_path, ["b"]) == ""
    one: Any = SimpleNamespace(history=pd.DataFrame({"epoch": [1], "train_loss": [2.0]}))
    assert frame.training_pictures(one, tmp_path, 40) == {}
    summary = {
        "coverage_80_voxels_percent": 1.0,
        "coverage_50_structures_percent": 1.0,
        "factor_80_voxels": 1.5,
        "n": 1,
    }
    assert spread._factors(summary, "voxels") == "–, 1.50"
