"""The report of a run: what it says, in which order, and what it refuses."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.browser import open_browser
from fixtures.known import assert_known_page
from fixtures.runs import judge_again

from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import read_json, write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.tables import TEST_SET, write_table
from doseledger.core.text.sheet import format_number, make_table, plural
from doseledger.evaluate.summary import shown_cases
from doseledger.gates.model.standing import standing_of_run
from doseledger.ledger.registry.model_card import model_card
from doseledger.ledger.runs.facts import load_facts
from doseledger.report.blocks import Picture
from doseledger.report.case_pages import NO_GAMMA, load_comparison
from doseledger.report.model.frame import training_pictures
from doseledger.report.model.run import build_context, make_report
from doseledger.report.page import render_page, write_pdf

Build = Callable[[Path], Any]


class Page(HTMLParser):
    """Headings, addresses and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.words = ""
        self._heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._heading = tag in ("h1", "h2")
        for name, value in attrs:
            if name in ("src", "href", "data", "action", "poster") and value is not None:
                self.addresses.append(value)
            if name == "id" and value is not None:
                self.ids.add(value)

    def handle_data(self, data: str) -> None:
        if self._heading and data.strip():
            self.headings.append(data.strip())
        self.words += f" {data.strip()}"


@dataclass(frozen=True)
class Made:
    """A report on disk."""

    at: ModelLayout
    told: list[str]

    @property
    def text(self) -> str:
        return self.at.html.read_text()


MADE: dict[str, Made] = {}


def make(finished_run: Any, folder: Path) -> Made:
    """The report of a copy of the run: the run itself stays as it is."""
    shutil.copytree(finished_run.at.layout.root, folder)
    at, told = Layout(folder, finished_run.at.layout.cohort).model(finished_run.at.name), []
    make_report(at, finished_run.settings, told.append)
    return Made(at, told)


@pytest.fixture
def made(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report that is made once a session."""
    if "report" not in MADE:
        MADE["report"] = make(finished_run, tmp_path_factory.mktemp("report") / "project")
    return MADE["report"]


PICTURES = ("overview", "overview_dvh", "training", "differences")


def context_of(at: ModelLayout, evaluate: Any) -> dict[str, Any]:
    picture = Picture("data:image/png;base64,", "caption", "alt")
    context = build_context(at, load_facts(at), evaluate, [], dict.fromkeys(PICTURES, picture))
    return context | {"uncertainty": {"text": "", "table": None, "figures": ()}}


def page_of(at: ModelLayout, evaluate: Any) -> str:
    return render_page(at.layout.templates, "report.html.j2", context_of(at, evaluate))


def test_the_page_needs_no_other_file_and_no_network(made: Made) -> None:
    page = Page(made.text)
    assert page.addresses
    assert [address[:60] for address in page.addresses if not address.startswith(("data:image/", "#"))] == []
    assert "@import" not in made.text
    assert re.findall(r"url\((?!data:)", made.text) == []


def test_a_browser_opens_the_page_without_complaint_or_network_and_moves_its_viewer(made: Made, tmp_path: Path) -> None:
    with open_browser(tmp_path) as browser:
        browser.open(made.at.html)
        browser.wait_for("!!document.querySelector('.viewer').dataset.ready")
        read = "document.querySelector('.readout').textContent"
        before = browser.run(read)
        browser.press("PageUp")
        assert browser.run(read) == before
        browser.run("document.querySelector('.stage').focus()")
        browser.press("PageUp")
        assert browser.run(read) != before
        errors = load_facts(made.at).case_metrics.set_index("case_id")["mae_above_10_percent_gy"]
        assert browser.run("document.querySelector('.viewer').dataset.ready") == errors.sort_values().index[1]
        for width in (1280, 390):
            browser.open(made.at.html, width)
            assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        assert browser.complaints == []
        assert browser.requests == [made.at.html.as_uri()]


def test_every_entry_of_the_contents_leads_somewhere(made: Made) -> None:
    page = Page(made.text)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids


def test_the_answer_comes_first_and_what_proves_it_last(made: Made) -> None:
    assert Page(made.text).headings == [
        "Dose prediction report", "2 Agreement of prediction and plan", "3 Clinical goals", "4 Cases", "5 Uncertainty",
        "6 Training", "7 Data", "8 Model card", "9 Gates and limits", "10 Code and environment", "11 Record",
    ]  # fmt: skip
    order = ("On 3 test cases the prediction differs from the plan by", '<span class="badge warn">PROVISIONAL',
             "goals judged alike in", "Dose wash of plan and prediction", "Its DVHs", "Mean absolute error",
             "3 test cases, wanted 20", "<h2>2 ")  # fmt: skip
    places = [made.text.index(words) for words in order]
    assert places == sorted(places)
    assert "a candidate needs 95 %." in made.text[: places[1]]


def test_what_only_a_checker_reads_is_folded_on_screen(made: Made) -> None:
    folded = re.findall(r"<details>\s*<summary><h2>(\d+ [^<]*)</h2></summary>", made.text)
    assert folded == ["9 Gates and limits", "10 Code and environment", "11 Record"]
    assert made.text.index("Digest of what was judged") > made.text.index("<details>")


def test_a_structure_has_one_colour_in_every_table(made: Made) -> None:
    found = re.findall(r'<span class="swatch" style="background: (#\w+)"></span>(\w+)', made.text)
    colours: dict[str, set[str]] = {}
    for colour, name in found:
        colours.setdefault(name, set()).add(colour)
    assert {"PTV70", "Rectum"} <= set(colours)
    assert all(len(found) == 1 for found in colours.values())
    assert len({colour for found in colours.values() for colour in found}) == len(colours)


def test_the_report_holds_what_a_reader_needs_to_trace_it(made: Made) -> None:
    words = Page(made.text).words
    for needed in (
        "a" * 40,  # the commit
        "doseledger train dose_unet",  # the command
        "case_0013", "not a simultaneous integrated boost",  # who was left out, and why
        "The test set is unlocked",
        "dose above 10 % of the highest prescription",  # the mask of an error
        "3 %/3 mm global, cutoff 10 %",  # the criterion of gamma
        "PTV70 V66.5Gy ≥ 98 %",
        "Not a medical device",
        "The cohort is synthetic",
        "lr: 0.002",
        "2.13.0",
    ):  # fmt: skip
        assert needed in words, needed


def test_best_median_and_worst_case_are_drawn_and_saved(made: Made) -> None:
    names = sorted(path.stem.split("_")[0] for path in made.at.figures.glob("*.png"))
    assert names == [
        "best", "best", "dvh", "median", "median", "overview", "overview", "training", "worst", "worst",
    ]  # fmt: skip
    assert {path.suffix for path in made.at.figures.iterdir()} == {".png", ".svg", ".pdf"}
    for title in ("Best case", "Median case", "Worst case"):
        assert title in made.text


def test_plans_stand_in_the_report_where_they_were_made_of_these_doses_and_change_nothing_else(
    build_run: Build, tmp_path: Path
) -> None:
    run = build_run(tmp_path)
    at, evaluate = run.at, run.settings.evaluate
    without = page_of(at, evaluate)
    assert "Deliverable plan" not in without
    checkpoints = sorted(set(load_facts(at).case_metrics["checkpoint_sha256"]))
    plans = {
        "n_cases": 3, "n_failed": 1, "failed": {"case_0009": "<no> table"}, "checkpoint_sha256": checkpoints,
        "gap": {
            "gamma_3_3_percent": 96.37, "gamma_3_2_percent": 94.42, "gamma_2_2_percent": 88.21,
            "mae_above_10_percent_gy": 0.987, "mae_body_gy": None,
        },
        "worst_gamma_3_3_percent": 92.91, "goals_met_percent": {"predicted": 98.04, "delivered": 96.08},
        "mu_per_gy": 346.6, "modulation_score": 0.155, "note": "One engine.",
        "cases": {
            "case_0011": {
                "gamma_3_3_percent": 91.23, "gamma_2_2_percent": 80.19, "mae_above_10_percent_gy": 1.21,
                "d95_before_scaling_gy": None, "goals_met": {"predicted": 17, "delivered": 15}, "goals_evaluable": 17,
                "mu_per_gy": 345.2, "modulation_score": 0.166,
            },
        },
    }  # fmt: skip
    write_json(at.delivery, plans)
    page = page_of(at, evaluate)
    start = page.index("<h3>Deliverable plan</h3>")
    section = page[start : page.index("</section>", start)]
    assert page.replace(section, "") == without
    words = Page(section).words
    for needed in ("3 test cases", "96.4 (92.9)", "0.99", "–", "98.0", "96.1", "347", "0.155", "case_0009: <no> table"):
        assert needed in words, needed
    for needed in ("case_0011", "91.2", "80.2", "1.21", "17 / 15 of 17", "345", "0.166"):
        assert needed in words, needed
    # As a file of means alone says it.
    write_json(at.delivery, {name: value for name, value in plans.items() if name != "cases"})
    assert "The record holds means alone." in page_of(at, evaluate)
    write_json(at.delivery, plans | {"checkpoint_sha256": ["f" * 64]})
    page = page_of(at, evaluate)
    assert "plans on record are of another checkpoint" in page
    assert "96.4" not in page


def test_names_from_a_clinic_never_become_markup(made: Made) -> None:
    assert "<others>" not in made.text
    assert "&lt;others&gt;" in made.text


def test_the_pdf_is_one(made: Made) -> None:
    content = made.at.pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 50_000
    assert made.told[-1] == f"wrote {made.at.pdf}"


def test_equal_inputs_give_equal_bytes(
    made: Made, finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    again = make(finished_run, tmp_path / "elsewhere")
    assert again.at.html.read_bytes() == made.at.html.read_bytes()
    assert again.at.pdf.read_bytes() == made.at.pdf.read_bytes()
    for figure in made.at.figures.iterdir():
        assert (again.at.figures / figure.name).read_bytes() == figure.read_bytes(), figure.name


def test_no_path_of_this_machine_stands_in_the_page(made: Made, finished_run: Any, repository: Path) -> None:
    assert str(finished_run.at.layout.root) not in made.text
    assert str(made.at.layout.root) not in made.text
    assert str(repository) not in made.text


def test_a_missing_file_is_named_with_the_stage_that_makes_it(build_run: Build, tmp_path: Path) -> None:
    at = build_run(tmp_path).at
    shutil.rmtree(at.metrics)
    shutil.rmtree(at.run)
    at.model_verdict.findings.unlink()
    with pytest.raises(NotReady, match=r"details\.json \(made by the stage evaluate\)") as error:
        load_facts(at)
    assert "run.json (made by the stage train)" in str(error.value)
    assert "model_findings.json (made by the stage judge)" in str(error.value)
    assert "10 file(s) are missing" in str(error.value)


def test_a_model_beyond_its_limits_has_its_report_in_red(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    at, path = run.at, run.at.layout.cohorts / "phantom/thresholds.yaml"
    thresholds = read_json(path)
    thresholds["metrics"]["dose_unet"][0]["limit"] = 0.001
    write_json(path, thresholds)
    # It is judged once: the report shows what stands in the verdict.
    assert "PROVISIONAL" in page_of(at, run.evaluate)
    judge_again(at)
    text = page_of(at, run.evaluate)
    assert "NOT FIT FOR RELEASE" in text
    assert "the metrics gate failed: dose_unet: MAE where the dose is above 10 % of the highest" in text
    assert "GATE FAILED" in text  # in the header of every page of the PDF
    assert re.search(r"MISSED.*?\[mae_above_10_percent_gy\]", text, re.DOTALL)

    del thresholds["metrics"]["dose_unet"]
    write_json(path, thresholds)
    judge_again(at)
    text = page_of(at, run.evaluate)
    assert "no limits under metrics.dose_unet" in text
    assert "NOT FIT FOR RELEASE" in text

    findings = at.layout.data_verdict.findings
    write_json(findings, {**read_json(findings), "ok": False})
    assert "the data gate failed" in page_of(at, run.evaluate)


def test_a_run_on_a_dirty_tree_is_red_on_every_page(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    record = read_json(run.at.run / "run.json")
    record["provenance"]["git"] |= {
        "dirty": True,
        "dirty_paths": ["src/doseledger/learn/losses/dose.py"],
        "note": "1 differs",
    }
    write_json(run.at.run / "run.json", record)
    text = page_of(run.at, run.evaluate)
    assert "DIRTY TREE" in text
    assert "src/doseledger/learn/losses/dose.py" in text
    assert re.search(r'@top-right \{ content: "commit aaaaaaaaaa · DIRTY · PROVISIONAL"; .*#b3261e', text)

    del record["provenance"]
    write_json(run.at.run / "run.json", record)
    assert "The run does not record its code revision" in page_of(run.at, run.evaluate)


def test_the_page_of_a_projected_mean_tells_deliverability_and_no_training(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    assert "Deliverability" not in page_of(run.at, run.evaluate)
    names = list(load_facts(run.at).case_metrics["case_id"])
    for number, name in enumerate(names):
        path = run.at.predictions / f"{name}.npz"
        with np.load(path) as npz:
            arrays = {**npz, "undeliverable_gy": np.asarray(0.5 if number else 0.8)}
        write_npz(path, arrays)
    mean = format_number((0.8 + 0.5 * (len(names) - 1)) / len(names), 2)
    write_json(run.at.run / "run.json", read_json(run.at.run / "run.json") | {"parts": {"dose_trees": "a" * 64}})
    text = page_of(run.at, run.evaluate)
    assert f"it lies {mean} Gy from what the model told, in {names[0]} 0.80 Gy. It is no plan yet." in text
    assert "nothing: a mean of models is scored" in text
    assert "optimiser steps" not in text


def test_one_epoch_is_no_curve(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    facts = load_facts(run.at)
    once = replace(facts, history=facts.history.iloc[:1])
    assert training_pictures(once, tmp_path / "figures", 50) == {}
    pictures = {name: Picture("data:,", "caption", "alt") for name in PICTURES if name != "training"}
    context = build_context(run.at, once, run.evaluate, [], pictures)
    page = render_page(run.at.layout.templates, "report.html.j2", context | {
        "uncertainty": {"text": "", "table": None, "figures": ()},
    })  # fmt: skip
    assert "6 Training" in page


def test_the_line_of_models_that_a_training_began_with_is_told(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    text = page_of(run.at, run.evaluate)
    assert text.count("no other model</td>") == 2
    record = read_json(run.at.run / "run.json")
    line = {"cohort": "phantom", "epoch": 12, "trained_on": 17, "selected_on": 4}
    record["ancestors"] = [
        {"name": "dose_fine", "sha256": "a" * 64, **line},
        {"name": "dose_unet@v0.1.0", "sha256": "b" * 64, **line},
    ]
    record["base"] = {"model": "dose_trees", "sha256": "c" * 64}
    write_json(run.at.run / "run.json", record)
    text = page_of(run.at, run.evaluate)
    assert "dose_fine (SHA256 aaaaaaaaaaaa…), begun with dose_unet@v0.1.0 (SHA256 bbbbbbbbbbbb…)" in text
    assert "It stands on the dose of dose_trees (SHA256 cccccccccccc…): what is wrong there is wrong here too." in text
    facts = load_facts(run.at)
    (limits,) = (
        part.lines
        for part in model_card(facts, standing_of_run(facts.model_findings, []), synthetic=True)
        if part.title == "Limitations"
    )
    assert (
        "Its weights began as those of dose_unet@v0.1.0 (cohort phantom, epoch 12, SHA256 bbbbbbbbbbbb…), trained on "
        "17 cases, which count as seen."
    ) in limits


def test_a_locked_test_set_is_named_with_its_date_and_reason(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    rows = [
        {"pseudonym": f"p{n}", "source_sha256": f"{n:064x}", "locked_on": "2026-01-31", "reason": "first release"}
        for n in (1, 2)
    ]
    write_table(run.at.layout.test_set, pd.DataFrame(rows), TEST_SET)
    text = page_of(run.at, run.evaluate)
    assert "The test set is locked since 2026-01-31: 2 cases (first release)." in text
    assert "not locked" not in text


def test_the_hashes_of_this_model_are_recorded_and_those_of_others_are_not(build_run: Build, tmp_path: Path) -> None:
    run = build_run(tmp_path)
    names = (
        "split@phantom", "train@phantom-dose_unet", "train@phantom-other_model", "report@phantom-dose_unet",
        "train@prostate-dose_unet",
    )  # fmt: skip
    stages = "".join(
        f"  {name}:\n    deps:\n    - {{path: src/a.py, md5: code{k}}}\n"
        f"    outs:\n    - {{path: out{k}, md5: digest{k}}}\n"
        for k, name in enumerate(names)
    )
    write_text(run.at.layout.lock, f"schema: '2.0'\nstages:\n{stages}")
    text = page_of(run.at, run.evaluate)
    assert "digest0" in text
    assert "digest1" in text
    assert "digest2" not in text
    assert "digest4" not in text
    # The hash of the report before this one: a report that held it would differ each time.
    assert "digest3" not in text
    assert "code0" not in text


def test_settings_that_changed_after_evaluation_are_noticed(finished_run: Any) -> None:
    gamma = finished_run.evaluate.gamma[0].model_copy(update={"gamma_mm": 2.0})
    evaluate = finished_run.evaluate.model_copy(update={"gamma": [gamma]})
    with pytest.raises(BadInput, match=r"cases\.csv has no gamma_3_2_global_percent"):
        context_of(finished_run.at, evaluate)


def test_a_report_without_a_gamma_criterion_is_refused(finished_run: Any, tmp_path: Path) -> None:
    evaluate = finished_run.evaluate.model_copy(update={"gamma": []})
    without = replace(finished_run, settings=finished_run.settings.model_copy(update={"evaluate": evaluate}))
    with pytest.raises(BadInput, match=r"evaluate\.gamma is empty"):
        make(without, tmp_path / "project")


def test_a_prediction_on_another_grid_is_refused(build_run: Build, tmp_path: Path) -> None:
    at = build_run(tmp_path).at
    path = at.predictions / "case_0006.npz"
    with np.load(path) as npz:
        arrays = dict(npz)
    write_npz(path, {**arrays, "origin_mm": arrays["origin_mm"] + 3.0})
    with pytest.raises(BadCase, match="run predict again"):
        load_comparison(at, "case_0006", NO_GAMMA)


def test_the_gamma_that_was_scored_is_drawn_and_one_of_another_grid_is_refused(
    build_run: Build, tmp_path: Path
) -> None:
    at = build_run(tmp_path).at
    path = at.gamma / "case_0006.npz"
    with np.load(path) as npz:
        gamma = npz["gamma"]
    row = pd.read_csv(at.metrics / "cases.csv").set_index("case_id").loc["case_0006"]
    drawn = load_comparison(at, "case_0006", NO_GAMMA).gamma
    assert np.array_equal(drawn, gamma, equal_nan=True)
    passed = 100 * (drawn[~np.isnan(drawn)] <= 1).mean()
    assert passed == pytest.approx(row["gamma_3_3_global_percent"], abs=1e-4)
    write_npz(path, {"gamma": gamma[1:]})
    with pytest.raises(BadCase, match=r"its gamma map has .* evaluate again"):
        load_comparison(at, "case_0006", NO_GAMMA)
    path.unlink()
    with pytest.raises(BadCase, match=r"no gamma map case_0006\.npz; run evaluate"):
        load_comparison(at, "case_0006", NO_GAMMA)


def test_a_machine_without_pango_gets_a_note_for_a_pdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    note = write_pdf("<p>a page</p>", tmp_path / "report.pdf")
    assert "WeasyPrint can't be loaded" in note
    assert "the HTML report is complete" in note
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    write_pdf("<p>a page</p>", tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == content


def test_a_page_that_asks_for_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must hold all that it shows"):
        write_pdf('<img src="http://example.org/a.png">', tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


def test_a_template_that_asks_for_more_than_there_is_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "page.j2", "{{ dose_gy }}")
    with pytest.raises(BadInput, match="dose_gy"):
        render_page(tmp_path, "page.j2", {})
    with pytest.raises(BadInput, match=r"other\.j2"):
        render_page(tmp_path, "other.j2", {})


@pytest.mark.parametrize(
    ("errors", "picked"),
    [
        ({"a": 3.0, "b": 1.0, "c": 2.0}, [("Best case", "b"), ("Median case", "c"), ("Worst case", "a")]),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, [("Best case", "a"), ("Median case", "b"), ("Worst case", "c")]),
        ({"a": 1.0, "b": 2.0}, [("Best case", "a"), ("Worst case", "b")]),
        ({"a": 1.0, "b": float("nan")}, [("Best case", "a")]),
        ({}, []),
    ],
)
def test_best_median_and_worst_are_different_cases(errors: dict[str, float], picked: list[tuple[str, str]]) -> None:
    assert shown_cases(errors) == picked


def test_numbers_are_printed_with_a_true_minus_and_no_negative_zero() -> None:
    assert format_number(-0.004, 2) == "0.00"
    assert format_number(-1.5, 1, sign=True) == "−1.5"
    assert format_number(float("nan"), 1) == "–"
    assert (plural(1, "case"), plural(0, "case")) == ("1 case", "0 cases")


def test_headings_say_which_columns_hold_numbers_and_hashes() -> None:
    table = make_table("t", ("Case", "#Dose (Gy)", "@MD5"), [("a", 1, "ff")])
    assert [(column.label, column.kind) for column in table.columns] == [
        ("Case", ""),
        ("Dose (Gy)", "number"),
        ("MD5", "hash"),
    ]


def test_the_page_of_a_run_says_what_it_said(made: Made) -> None:
    assert_known_page(Path(__file__).parents[1] / "known" / "run.txt", made.text)
