"""Comparing, pooling and the tools for goals as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from doseledger.cli.compare import app
from doseledger.core.case import write_npz
from doseledger.core.errors import BadInput, GateFailed


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def write_run(folder: Path, errors: list[float]) -> Path:
    folder.mkdir()
    digests = [f"{i:064x}" for i in range(len(errors))]
    table = {
        "case_id": [f"case_{i:04d}" for i in range(len(errors))],
        "case_sha256": digests,
        "checkpoint_sha256": f"{int(1000 * sum(errors)):064x}",
        "mae_body_gy": errors,
        "gamma_3_3_global_percent": 90.0,
        "gamma_criteria": "3 %/3 mm global, cutoff 10 %",
        "gamma_points_verified": 0,
        "gamma_largest_difference": np.nan,
        "goals_evaluable": 5,
        "plan_goals_met": 5,
        "plan_acceptable": True,
        "prediction_goals_met": 4,
        "prediction_acceptable": False,
    }
    pd.DataFrame(table).to_csv(folder / "cases.csv", index=False)
    for name in table["case_id"]:
        write_npz(folder / f"{name}.npz", {"meta": np.asarray(json.dumps({"trained_on": [], "selected_on": []}))})
    return folder


def test_two_models_are_compared_as_json_and_as_markdown(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", [2.0, 3.0, 4.0]), write_run(tmp_path / "b", [1.0, 1.5, 3.0])
    found = json.loads(call("compare", first / "cases.csv", second / "cases.csv", "--json"))
    assert found["mae_body_gy"]["mean_difference"] == pytest.approx(-7 / 6)
    assert found["mae_body_gy"]["better"] == "second"
    shown = call("compare", first / "cases.csv", second / "cases.csv", "--markdown", tmp_path / "table.md")
    assert ["MAE", "in", "body", "(Gy)", "3.00", "1.83", "−1.17"] in [line.split()[:7] for line in shown.splitlines()]
    assert "| MAE in body (Gy) | 3.00 | 1.83 | −1.17 |" in (tmp_path / "table.md").read_text()


def test_seeds_are_pooled_and_a_run_without_its_predictions_is_refused(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", [2.0, 3.0, 4.0]), write_run(tmp_path / "b", [1.0, 1.5, 3.0])
    found = json.loads(call("pool", first, second, "--predictions", first, "--predictions", second, "--json"))
    assert (found["kind"], found["n_runs"]) == ("seeds", 2)
    shown = call("pool", first, second, "--predictions", first, "--predictions", second)
    assert ["MAE", "in", "body", "(Gy)", "2.417"] in [line.split()[:5] for line in shown.splitlines()]
    with pytest.raises(BadInput, match="2 runs, 2 of them folders of tables, and 1 folders of predictions"):
        call("pool", first, second, "--predictions", first)


def test_the_linter_exits_1_and_says_what_is_wrong(repository: Path, tmp_path: Path) -> None:
    goals = repository / "validation/cohorts/phantom/goals.yaml"
    protocol = goals.with_name("protocol.yaml")
    # The protocol that lies beside it.
    assert "goals.yaml: sound" in call("goals", "lint", goals)
    bad = tmp_path / "prostate_sib.yaml"
    bad.write_text(goals.read_text().replace("structure: Rectum", "structure: Rectm"))
    with pytest.raises(GateFailed, match=r"fault\(s\) in 1 of 2 files of goals"):
        call("goals", "lint", goals, bad, "--protocol", protocol)


def test_goals_are_converted_and_shown(repository: Path, tmp_path: Path) -> None:
    goals, out = repository / "validation/cohorts/prostate/goals_chhip.yaml", tmp_path / "chhip_20.yaml"
    words = ["goals", "convert", goals, out, "--fractions", 20, "--from-fractions", 28, "--alpha-beta", "Rectum=3"]
    shown = call(*words, "--keep", "PTV70", "--keep", "PTV56")
    assert "statistic: V60Gy" in shown
    assert shown == out.read_text()
    found = json.loads(call(*words, "--keep", "PTV70", "--keep", "PTV56", "--json"))
    assert found["name"] == "chhip_20"
