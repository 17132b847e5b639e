"""The comparison report: what it says of two runs, and which runs it refuses to compare."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.known import assert_known_page
from typer.testing import CliRunner, Result

from doseledger.cli.app import app
from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import read_json, write_json
from doseledger.core.project.layout import ModelLayout, VerdictPaths
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.evaluate.compare import compare_models
from doseledger.ledger.runs.compared_runs import (  # fmt: skip
    ComparedRun,
    compared_run,
    differing_settings,
    refuse_unlike,
    run_of_metrics,
)
from doseledger.ledger.runs.files import RunFiles, files_of_model
from doseledger.report.blocks import Picture
from doseledger.report.comparison import DrawnFrom, choose_cases, comparison_context, make_comparison
from doseledger.report.page import ReportOutputs, render_page
from doseledger.report.tables.comparison_tables import (  # fmt: skip
    least_p_note,
    measures_of,
    origin_table,
    paired_statistics,
    statistics_table,
)
from doseledger.report.tables.results import DRAW_SEED

Build = Callable[[Path], Any]


def halve_errors(source: Path, target: Path, factor: float = 0.5) -> Path:
    """A copy of an evaluation whose errors are so much smaller: a better model on the same cases."""
    shutil.copytree(source, target)
    cases = pd.read_csv(target / "cases.csv")
    columns = [name for name in cases.columns if name.startswith("mae_")]
    cases[columns] = cases[columns] * factor
    cases.to_csv(target / "cases.csv", index=False)
    dvh = pd.read_csv(target / "dvh.csv")
    dvh["difference"] = dvh["difference"] * factor
    dvh.to_csv(target / "dvh.csv", index=False)
    return target


def edit(folder: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / f"{table}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


@pytest.fixture
def pair(finished_run: Any, tmp_path: Path) -> list[ComparedRun]:
    """A baseline and a better run, both with predictions."""
    at = finished_run.at
    better = halve_errors(at.metrics, tmp_path / "better")
    return [
        run_of_metrics(at.metrics, "baseline", at.predictions),
        run_of_metrics(better, "better", at.predictions),
    ]


def files_of(at: ModelLayout, **changes: Any) -> RunFiles:
    # The gate on data alone: what the others say is not what these tests are about.
    return replace(files_of_model(at), verdicts={"data": at.layout.data_verdict}, **changes)


def drawn_from(at: ModelLayout, *chosen: str) -> DrawnFrom:
    of = at.layout
    return DrawnFrom(of.cases, load_protocol(of.protocol), load_goals(of.goals), chosen)


def make(runs: list[ComparedRun], at: ModelLayout, folder: Path) -> ReportOutputs:
    outputs = ReportOutputs(folder / "compare.html", folder / "compare.pdf", folder / "figures")
    make_comparison(runs, outputs, at.layout.templates, drawn_from(at), dpi=40, tell=lambda line: None)
    return outputs


def test_known_numbers_stand_in_a_page_that_needs_no_network_and_is_the_same_again(
    pair: list[ComparedRun], finished_run: Any, tmp_path: Path
) -> None:
    outputs = make(pair, finished_run.at, tmp_path / "out")
    text = outputs.html.read_text()
    mean = float(pair[0].cases["mae_body_gy"].mean())
    row = re.search(r"<td>MAE, body \(Gy\)</td>(.*?)</tr>", text, re.DOTALL)
    assert row is not None
    cells = re.findall(r">([^<]*)</td>", row[1])
    assert cells[:4] == ["3", f"{mean:.2f}", f"{mean / 2:.2f}", f"−{mean / 2:.2f}"]
    # Three pairs that all moved one way: p = 2 / 2³, and an effect of −1.
    assert cells[5] == "0.250"
    assert cells[7:] == ["−1.00", "better"]
    assert "the least p that Wilcoxon&#39;s test can give is 0.25" in text
    assert outputs.pdf.read_bytes().startswith(b"%PDF-")
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:image/", "#"))] == []
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(re.findall(r'id="([^"]+)"', text))
    assert str(tmp_path) not in text
    names = sorted(path.name for path in outputs.figures.glob("*.png"))
    assert names == ["dvh_case_0006.png", "dvh_case_0007.png", "dvh_case_0008.png", "errors_better.png"]
    assert_known_page(Path(__file__).parent / "known" / "comparison.txt", text)
    again = make(pair, finished_run.at, tmp_path / "again")
    assert again.html.read_bytes() == outputs.html.read_bytes()
    assert again.pdf.read_bytes() == outputs.pdf.read_bytes()


def test_a_single_pair_is_adjusted_as_the_comparison_of_models_does(pair: list[ComparedRun]) -> None:
    expected = compare_models(pair[0].metrics, pair[1].metrics, np.random.default_rng(DRAW_SEED))
    assert measures_of(paired_statistics(pair)[0]) == measures_of(expected)


def test_more_pairs_make_the_adjusted_p_larger(pair: list[ComparedRun], tmp_path: Path) -> None:
    third = run_of_metrics(halve_errors(pair[0].metrics, tmp_path / "third", 0.9), "third")
    alone, together = paired_statistics(pair)[0], paired_statistics([*pair, third])[0]
    for name, row in measures_of(alone).items():
        if not np.isnan(row["p_adjusted"]):
            assert measures_of(together)[name]["p_adjusted"] >= row["p_adjusted"]


def test_a_gain_in_gamma_is_a_gain(pair: list[ComparedRun], tmp_path: Path) -> None:
    folder = tmp_path / "gamma"
    shutil.copytree(pair[0].metrics, folder)
    edit(folder, "cases", lambda t: t.assign(gamma_3_3_global_percent=t["gamma_3_3_global_percent"].clip(upper=90) - 5))
    worse = run_of_metrics(folder, "worse")
    table = statistics_table("t", paired_statistics([pair[0], worse])[0], (pair[0], worse), dvh=False)
    row = next(row for row in table.rows if row[0].text.startswith("gamma"))
    assert row[-1].text == "baseline"


def test_eight_cases_are_enough_for_the_test_to_speak() -> None:
    assert least_p_note({"n_cases": 8}) == ""
    assert "0.0625" in least_p_note({"n_cases": 5})


def test_settings_that_differ_are_listed_and_equal_ones_are_not(finished_run: Any, tmp_path: Path) -> None:
    at = finished_run.at
    one = compared_run(files_of(at), "one")
    run = tmp_path / "run"
    shutil.copytree(at.run, run)
    (run / "config_resolved.yaml").write_text("model: dose_unet\nlr: 1e-04\nseed: 1.0\nrecipe:\n  kind: diffusion\n")
    other = compared_run(files_of(at, run=run), "other")
    assert differing_settings([one, other]) == {"lr": [0.002, 0.0001], "recipe.kind": ["dose", "diffusion"]}
    silent = run_of_metrics(at.metrics, "silent")
    assert differing_settings([one, silent]) == {}


def test_verdicts_and_a_dirty_tree_are_said_in_red(finished_run: Any, tmp_path: Path) -> None:
    at = finished_run.at
    run = tmp_path / "run"
    shutil.copytree(at.run, run)
    record = read_json(run / "run.json")
    record["provenance"]["git"]["dirty"] = True
    write_json(run / "run.json", {**record, "cases_sha256": "f" * 64})
    findings = tmp_path / "findings.json"
    write_json(
        findings, {**read_json(at.layout.data_verdict.findings), "ok": False, "counts": {"error": 2, "warning": 0}}
    )
    verdicts = {"data": VerdictPaths(findings, findings)}
    other = compared_run(replace(files_of(at, run=run), verdicts=verdicts), "other")
    runs = [compared_run(files_of(at), "first"), other]
    picture = Picture("data:image/png;base64,", "caption", "alt")
    context = comparison_context(runs, paired_statistics(runs), [picture], [])
    text = render_page(at.layout.templates, "comparison.html.j2", context)
    for words in (
        "other was trained on a dirty tree.", "other failed a gate.", "FAILED, 2 errors",
        "The runs were trained on different cases.", "DIRTY · GATE FAILED",
    ):  # fmt: skip
        assert words in text, words
    assert [cell.text for cell in origin_table(runs).rows[2]] == ["tree when trained", "clean", "DIRTY"]


def test_one_run_is_no_comparison(pair: list[ComparedRun]) -> None:
    with pytest.raises(BadInput, match="needs a baseline and at least one other"):
        refuse_unlike(pair[:1])


def test_two_runs_of_one_name_are_refused(pair: list[ComparedRun]) -> None:
    with pytest.raises(BadInput, match="are called alike"):
        refuse_unlike([pair[0], replace(pair[1], label="baseline")])


def test_other_test_cases_are_refused_by_name(pair: list[ComparedRun]) -> None:
    fewer = replace(pair[1], cases=pair[1].cases.iloc[1:])
    with pytest.raises(BadInput, match="tested on different cases: case_0006 in one only"):
        refuse_unlike([pair[0], fewer])


def test_other_files_of_the_same_cases_are_refused_by_name(pair: list[ComparedRun]) -> None:
    cases = pair[1].cases.copy()
    cases.loc[cases["case_id"] == "case_0007", "case_sha256"] = "0" * 64
    with pytest.raises(BadInput, match=r"different files of case_0007 \(another grid"):
        refuse_unlike([pair[0], replace(pair[1], cases=cases)])


def test_other_masks_are_refused_by_name(pair: list[ComparedRun]) -> None:
    with pytest.raises(BadInput, match=r"mae_Rectum_gy \(a mask or a gamma criterion\) in one only"):
        refuse_unlike([pair[0], replace(pair[1], cases=pair[1].cases.drop(columns="mae_Rectum_gy"))])


def test_other_dvh_statistics_are_refused_by_name(pair: list[ComparedRun]) -> None:
    dvh = pair[1].dvh[pair[1].dvh["statistic"] != "D95%"]
    with pytest.raises(BadInput, match=r"different DVH statistics: PTV56 D95%, PTV70 D95%"):
        refuse_unlike([pair[0], replace(pair[1], dvh=dvh)])


def test_predictions_on_another_grid_are_refused(pair: list[ComparedRun], finished_run: Any, tmp_path: Path) -> None:
    at = finished_run.at
    moved = tmp_path / "moved"
    shutil.copytree(at.predictions, moved)
    for path in moved.glob("*.npz"):
        with np.load(path) as npz:
            arrays = dict(npz)
        write_npz(path, {**arrays, "origin_mm": arrays["origin_mm"] + 3.0})
    with pytest.raises(BadCase, match="the case lies on"):
        make([pair[0], replace(pair[1], predictions=moved)], at, tmp_path / "out")


def test_a_run_without_predictions_has_no_dvh_to_draw(
    pair: list[ComparedRun], finished_run: Any, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="no predictions of better are known"):
        make([pair[0], replace(pair[1], predictions=None)], finished_run.at, tmp_path / "out")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"neither an archived run nor a folder that `evaluate` wrote"):
        run_of_metrics(tmp_path, "nothing")


def test_an_unfinished_run_is_refused_with_what_is_missing(finished_run: Any, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"no finished run, 2 file\(s\) are missing: .*run\.json"):
        compared_run(files_of(finished_run.at, run=tmp_path), "unfinished")


def test_a_model_of_another_kind_is_refused(finished_run: Any) -> None:
    with pytest.raises(BadInput, match="only dose models are compared"):
        compared_run(files_of(finished_run.at, tables={}), "segmentation")


def test_a_chosen_case_must_be_a_test_case(pair: list[ComparedRun], finished_run: Any) -> None:
    assert choose_cases(pair, drawn_from(finished_run.at, "case_0007")) == [("Chosen case", "case_0007")]
    with pytest.raises(BadInput, match="case_0001 are no test cases of these runs: case_0006"):
        choose_cases(pair, drawn_from(finished_run.at, "case_0001"))


def test_the_largest_gain_the_middle_and_the_largest_loss_are_drawn(pair: list[ComparedRun], finished_run: Any) -> None:
    errors = pair[0].cases.set_index("case_id")["mae_above_10_percent_gy"]
    picked = choose_cases(pair, drawn_from(finished_run.at))
    # Halved, the largest error gains most.
    assert [case_id for _, case_id in picked] == list(errors.sort_values(ascending=False).index)
    assert [title for title, _ in picked] == ["Most in favour of better", "In the middle", "Least in favour of better"]


def with_errors(pair: list[ComparedRun], **errors: float) -> list[ComparedRun]:
    """The pair, the second run with other errors of some cases."""
    cases = pair[1].cases.copy()
    for case_id, error in errors.items():
        cases.loc[cases["case_id"] == case_id, "mae_above_10_percent_gy"] = error
    return [pair[0], replace(pair[1], cases=cases)]


def test_a_case_without_an_error_is_neither_a_gain_nor_a_loss(pair: list[ComparedRun], finished_run: Any) -> None:
    picked = choose_cases(with_errors(pair, case_0006=float("nan")), drawn_from(finished_run.at))
    assert {case_id for _, case_id in picked} == {"case_0007", "case_0008"}
    assert [title for title, _ in picked] == ["Most in favour of better", "Least in favour of better"]


def test_a_single_case_is_the_best_there_is(pair: list[ComparedRun], finished_run: Any) -> None:
    alone = with_errors(pair, case_0006=float("nan"), case_0007=float("nan"))
    assert choose_cases(alone, drawn_from(finished_run.at)) == [("Most in favour of better", "case_0008")]
    none = with_errors(alone, case_0008=float("nan"))
    with pytest.raises(BadInput, match="no test case has a prediction and an error of every run"):
        choose_cases(none, drawn_from(finished_run.at))


def run_command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["report-compare", *map(str, words)])


def test_the_command_takes_folders_and_says_what_is_missing(
    pair: list[ComparedRun],
    finished_run: Any,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "project"
    shutil.copytree(finished_run.at.layout.root, root)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, root)
    monkeypatch.chdir(root)
    metrics, out = [run.metrics for run in pair], tmp_path / "compared"
    shared = [*metrics, "--out", out, "--label", "old"]
    with pytest.raises(BadInput, match="2 runs and 1 --label; give --label once a run"):
        raise run_command(*shared).exception  # type: ignore[misc]
    shared += ["--label", "new"]
    with pytest.raises(BadInput, match=r"no predictions of old, new are known, .* or --no-dvh"):
        raise run_command(*shared).exception  # type: ignore[misc]
    done = run_command(*shared, "--no-dvh")
    assert done.exit_code == 0, done.exception
    text = (out / "compare.html").read_text()
    assert "new against old" in text
    assert "DVHs were not drawn" in text
    predictions = finished_run.at.predictions
    done = run_command(*shared, "--predictions", predictions, "--predictions", predictions)
    assert done.exit_code == 0, done.exception
    assert len(list((out / "figures").glob("dvh_*.png"))) == 3
    assert (out / "compare.pdf").read_bytes().startswith(b"%PDF-")
