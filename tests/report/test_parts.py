"""What a report says beyond the run's own tables: its parent's settings, its commit's page, its spread, its flags."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.comparisons import without_gamma
from fixtures.runs import judge_again
from matplotlib.text import Text

from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadCase
from doseledger.core.files import write_json, write_text
from doseledger.ledger.provenance.baseline import settings_change
from doseledger.ledger.provenance.commit_link import commit_address, commit_link
from doseledger.ledger.runs.facts import load_facts
from doseledger.report.figures.curves import StructureCurves, plot_dvh
from doseledger.report.figures.feature_figures import plot_features
from doseledger.report.figures.slices import ISODOSE_COLOURS
from doseledger.report.figures.style import COLOURS, FONT_PT, STRUCTURE_COLOURS, house_style
from doseledger.report.figures.views import Comparison
from doseledger.report.model.run import build_context, describe_uncertainty, make_report
from doseledger.report.model.spread import NO_SPREAD, calibration_table, load_spread, plot_spread
from doseledger.report.tables.results import dvh_table
from doseledger.report.tables.verdict_tables import red_flags_table, shortcuts_table

Build = Callable[[Path], Any]
COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/clinic/dose.git", f"https://github.com/clinic/dose/commit/{COMMIT}"),
        ("git@github.com:clinic/dose.git", f"https://github.com/clinic/dose/commit/{COMMIT}"),
        ("https://me:secret@gitlab.com/rt/group/dose.git", f"https://gitlab.com/rt/group/dose/-/commit/{COMMIT}"),
        ("ssh://git@gitlab.clinic.org:2222/rt/dose", f"https://gitlab.clinic.org/rt/dose/-/commit/{COMMIT}"),
        ("https://git.clinic.org:8443/rt/dose/", f"https://git.clinic.org:8443/rt/dose/commit/{COMMIT}"),
        ("git@bitbucket.org:rt/dose.git", f"https://bitbucket.org/rt/dose/commits/{COMMIT}"),
        ("/srv/git/dose.git", ""),
        ("file:///srv/git/dose.git", ""),
        ("../dose", ""),
        ("", ""),
    ],
)
def test_a_commits_page_is_found_by_the_pattern_of_the_remote(remote: str, address: str) -> None:
    assert commit_address(remote, COMMIT) == address


def git(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=A Physicist", "-c", "user.email=physicist@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def commit_params(root: Path, text: str) -> str:
    write_text(root / "params.yaml", text)
    git(root, "add", "params.yaml")
    git(root, "commit", "-q", "--allow-empty", "-m", "settings")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def history(tmp_path: Path) -> tuple[Path, list[str]]:
    """Three commits: the first settings, another learning rate, another model's settings."""
    git(tmp_path, "init", "-q")
    texts = (
        "seed: 1\nlr: 0.002\ndose_unet:\n  fit:\n    max_epochs: 15\n  loader:\n    workers: 0\nother:\n  fit: 1\n",
        "seed: 1\nlr: 1e-04\ndose_unet:\n  fit:\n    max_epochs: 15\n  loader:\n    workers: 0\nother:\n  fit: 1\n",
        "seed: 1\nlr: 1e-04\ndose_unet:\n  fit:\n    max_epochs: 15\n  loader:\n    workers: 4\nother:\n  fit: 2\n",
    )
    return tmp_path, [commit_params(tmp_path, text) for text in texts]


def test_an_experiment_is_compared_with_the_commit_that_it_began_on(history: tuple[Path, list[str]]) -> None:
    root, commits = history
    found = settings_change(root, commits[2], "dose_unet", {"seed": 1, "lr": 0.01, "fit.max_epochs": 15.0})
    assert found.rows == (("lr", "0.0001", "0.01"),)
    assert commits[2][:10] in found.sentence
    assert "on which training began" in found.sentence


def test_committed_settings_are_compared_with_the_last_that_were_others(history: tuple[Path, list[str]]) -> None:
    root, commits = history
    found = settings_change(root, commits[2], "dose_unet", {"seed": 1, "lr": 1e-4, "fit.max_epochs": 15})
    # Neither another model's settings nor how cases are loaded is a change of this run's.
    assert found.rows == (("lr", "0.002", "0.0001"),)
    assert commits[0][:10] in found.sentence


def test_settings_without_a_history_are_said_to_have_none(history: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, commits = history
    first = settings_change(root, commits[0], "dose_unet", {"seed": 1, "lr": 0.002, "fit.max_epochs": 15})
    assert (first.rows, "none of the last" in first.sentence) == ((), True)
    assert "is not in this repository" in settings_change(root, COMMIT, "dose_unet", {}).sentence
    assert "names no commit" in settings_change(root, None, "dose_unet", {}).sentence


def test_a_remote_gives_the_report_its_link_and_nothing_else_leads_outside(
    build_run: Build, history: tuple[Path, list[str]]
) -> None:
    root, _ = history
    git(root, "remote", "add", "origin", "https://token@gitlab.clinic.org/rt/dose.git")
    assert commit_link(root, COMMIT) == f"https://gitlab.clinic.org/rt/dose/-/commit/{COMMIT}"
    run = build_run(root)
    context = build_context(run.at, load_facts(run.at), run.evaluate, [], {})
    links = {cell.link for table in context["tables"].values() for row in table.rows for cell in row if cell.link}
    head = git(root, "rev-parse", "HEAD")
    assert links == {f"https://gitlab.clinic.org/rt/dose/-/commit/{commit}" for commit in (COMMIT, head)}


def test_red_flags_of_a_training_stand_in_a_table_of_their_own() -> None:
    flag = {"gate": "train_val_gap", "severity": "warning", "message": "a gap of 80%", "case_id": ""}
    limit = {"gate": "limit", "severity": "error", "message": "MAE", "case_id": ""}
    table = red_flags_table({"digest": "f", "findings": [flag, limit]})
    assert [[cell.text for cell in row] for row in table.rows] == [["train_val_gap", "warning", "a gap of 80%"]]
    assert "not known" in red_flags_table({"digest": "not judged", "findings": []}).empty
    assert "No red flag" in red_flags_table({"digest": "f", "findings": []}).empty


def test_shortcuts_and_drift_are_shown_as_they_were_judged(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    context = build_context(run.at, load_facts(run.at), run.evaluate, [], {})
    assert (context["standing"].state, context["badge_state"]) == ("provisional", "warn")
    judged = [[cell.text for cell in row[:2]] for row in context["tables"]["verdicts"].rows]
    assert [name.partition(":")[0] for name, _ in judged] == ["Data", "Preflight", "Metrics", "Shortcuts", "Drift"]
    assert {word for _, word in judged} == {"passed"}
    assert len(context["tables"]["shortcuts"].rows) > 5
    write_json(run.at.shortcuts, {"trivial": {}})
    run.at.layout.drift_verdict.findings.unlink()
    assert not judge_again(run.at).ok
    context = build_context(run.at, load_facts(run.at), run.evaluate, [], {})
    assert (context["standing"].state, context["badge_state"]) == ("failed", "bad")
    named = [reason.partition(":")[0] for reason in context["standing"].reasons]
    assert named == ["the shortcuts gate failed", "the drift gate failed"]


@pytest.fixture
def comparison(make_case: Callable[..., Case]) -> Comparison:
    case = make_case()
    assert case.dose_gy is not None
    return without_gamma(case, (case.dose_gy * 0.97).astype(np.float32))


def test_a_spread_is_drawn_beside_the_error_on_one_scale(comparison: Comparison) -> None:
    spread = np.full(comparison.case.grid.shape_zyx, 1.5, np.float32)
    with house_style():
        figure = plot_spread(comparison, spread, {})
    assert [axis.get_title() for axis in figure.axes[:3]] == ["Isodoses on CT", "Spread", "|Prediction − plan|"]
    shown, error = (figure.axes[k].images[0] for k in (1, 2))
    assert float(shown.get_array().min()) == float(shown.get_array().max()) == 1.5
    assert shown.get_clim() == error.get_clim()
    assert float(error.get_array().min()) >= 0
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= FONT_PT


def test_a_model_without_a_spread_says_that_it_gives_none(tmp_path: Path) -> None:
    write_npz(tmp_path / "case_0001.npz", {"dose_gy": np.zeros((2, 2, 2), np.float32)})
    assert load_spread(tmp_path / "case_0001.npz", (2, 2, 2)) is None
    assert describe_uncertainty({}, [], tmp_path, 40)["text"] == NO_SPREAD


def test_a_spread_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "case_0001.npz", {"dose_sd_gy": np.zeros((2, 2, 3), np.float32)})
    with pytest.raises(BadCase, match="predict again"):
        load_spread(tmp_path / "case_0001.npz", (2, 2, 2))


def calibration() -> dict[str, Any]:
    levels = [
        {"level": x, "voxels": x, "structures": x, "voxels_stretched": x, "structures_stretched": x} for x in (0.5, 0.8)
    ]
    details = {
        "curves": levels,
        "ranks": [0.5, 0.5],
        "spread_against_error": [{"spread_gy": 1.0, "error_gy": 1.2}, {"spread_gy": 2.0, "error_gy": 2.1}],
        "cases": [{"case_id": "case_0006", "mae_gy": 1.0, "expected_mae_gy": 1.1}],
    }
    summary = {"n_cases": 3.0, "n_samples": 8.0, "mae_gy": 1.0, "expected_mae_gy": 1.1}
    summary |= {"factor_80_voxels": 1.25, "factor_80_structures": 2.0}
    for what in ("voxels", "structures"):
        for ending in ("", "_stretched"):
            name = f"coverage_80_{what}{ending}_percent"
            summary |= {name: 71.5, f"{name}_low": 60.1, f"{name}_high": 83.2}
    return {"summary": summary, "details": details}


def test_a_calibrated_model_shows_what_its_intervals_hold(tmp_path: Path) -> None:
    found = describe_uncertainty(calibration(), [], tmp_path / "figures", 40)
    rows = [[cell.text for cell in row] for row in found["table"].rows]
    assert ["voxels", "as drawn", "80", "71.5", "60.1 to 83.2"] in rows
    assert "1.25" in found["table"].note
    assert found["figures"][0].uri.startswith("data:image/svg+xml")
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".png", ".svg", ".pdf"}
    assert calibration_table({}).rows == ()


def test_each_dvh_statistic_has_an_interval_of_its_difference() -> None:
    rows = [
        {"case_id": f"c{n}", "structure": "Rectum", "statistic": "mean", "unit": "Gy", "plan": 30.0, "prediction": 31.0,
         "difference": 1.0}
        for n in range(4)
    ]  # fmt: skip
    table = dvh_table(pd.DataFrame(rows), {"Rectum": "#006080"})
    assert table.rows[0][5:7][1].text == "1.00 to 1.00"
    assert table.rows[0][0].swatch == "#006080"
    assert dvh_table(pd.DataFrame(rows[:2]), {}).rows[0][6].text == "–"


def linear_rgb(colour: str) -> np.ndarray:
    values = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira & Fernandes, IEEE TVCG 15:1291 (2009), severity 1.0, on linear RGB.
VISION = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "palette", [ISODOSE_COLOURS, COLOURS[:6], STRUCTURE_COLOURS[:10]], ids=["isodoses", "curves", "structures"]
)
def test_any_two_colours_can_be_told_apart_without_red_or_green(palette: tuple[str, ...], vision: str) -> None:
    seen = [lab(np.clip(np.array(VISION[vision]) @ linear_rgb(colour), 0, 1)) for colour in palette]
    apart = [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)]
    # 2.3 is just noticeable (Mahy et al., Color Res Appl 19:105, 1994); lines need several times that.
    assert min(apart) > 10


def test_dvhs_of_several_predictions_have_a_line_style_each() -> None:
    dose, percent = np.linspace(0, 80, 9), np.linspace(100, 0, 9)
    curves = StructureCurves("Rectum", False, "#006080", dose, percent, dose, percent, others=((dose, percent),))
    with house_style():
        figure = plot_dvh([curves], [], 80.0, ("first", "second"))
    styles = {str(line._unscaled_dash_pattern) for line in figure.axes[0].lines}  # type: ignore[attr-defined]
    assert len(styles) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plan", "first", "second"]


def test_features_have_a_row_for_each_part() -> None:
    features = pd.DataFrame({"PTV70_volume_cc": [1.0, 2.0, 3.0, np.nan]}, index=["a", "b", "c", "d"])
    parts = pd.Series(["train", "val", "test", "test"], index=features.index)
    with house_style():
        figure = plot_features(features, parts, ["PTV70_volume_cc"])
    axis = figure.axes[0]
    assert axis.get_title(loc="left") == "PTV70 volume (cc)"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["train", "val", "test"]
    assert sorted(x for line in axis.lines[::2] for x in np.asarray(line.get_xdata()).tolist()) == [1.0, 2.0, 3.0]


def test_a_drawn_models_report_shows_its_spread(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    for path in run.at.predictions.glob("*.npz"):
        with np.load(path) as npz:
            arrays = dict(npz)
        write_npz(path, {**arrays, "dose_sd_gy": np.full(arrays["dose_gy"].shape, 0.5, np.float32)})
    write_json(run.at.metrics / "calibration.json", calibration())
    make_report(run.at, run.settings, print)
    text = run.at.html.read_text()
    assert "What intervals of the drawn doses hold" in text
    assert len(list(run.at.figures.glob("*_spread.pdf"))) == 3


def test_the_ratio_to_what_a_network_adds_to_stands_below_the_limits_where_there_is_one() -> None:
    verdict = {"digest": "d", "details": {"limits": [], "numbers": {"base_mae_ratio": 1.0024}}}
    assert (
        shortcuts_table(verdict).note
        == "error ÷ error of the dose that the network adds to: 1.002; no limit stands for it."
    )
    assert shortcuts_table({"digest": "d", "details": {"limits": [], "numbers": {}}}).note == ""
