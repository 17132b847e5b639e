"""A note is written before the run, on a clean tree, and filled in after it, as often as one likes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_text
from doseledger.ledger.runs.experiment import Plan, fill_note, new_note
from doseledger.ledger.runs.listing.index import gather_runs
from doseledger.ledger.runs.listing.rows import RunRow
from doseledger.ledger.runs.prerun import Readiness, examine_readiness

TODAY = date(2026, 3, 1)
PLAN = Plan("dvh-term", "dose_unet", "a DVH term lowers the error", ("mae_gy < 100", "gamma_3_3_global_percent >= 101"))


@pytest.fixture
def ready(project) -> Readiness:
    found = examine_readiness(project.root, project.root / "requirements.lock")
    # What is installed here is not what this test is about.
    return replace(found, findings=tuple(f for f in found.findings if not f.numbers["what"].startswith("package ")))


@pytest.fixture
def note(project, ready: Readiness) -> Path:
    return new_note(project.root / "notes", PLAN, ready, project.root, TODAY)


@pytest.fixture
def row(project) -> RunRow:
    return gather_runs(project.root)[0]


def test_a_note_holds_hypothesis_criteria_settings_seeds_and_environment(note: Path, project) -> None:
    text = note.read_text()
    assert note.name == "2026-03-01-dvh-term.md"
    for wanted in (
        "a DVH term lowers the error", "- `mae_gy < 100`", "fit.max_epochs: 15", "seeds: seed 1, phantom.seed 7028",
        f"commit `{project.git('rev-parse', 'HEAD')}`, clean tree", "lock of packages: SHA256 `",
    ):  # fmt: skip
        assert wanted in text


def test_filling_in_twice_is_the_same_as_once(note: Path, row: RunRow) -> None:
    fill_note(note, row)
    once = note.read_text()
    fill_note(note, row)
    assert note.read_text() == once
    assert "Not run yet" not in once
    assert "| `mae_gy < 100` | mae_gy = " in once
    assert "| met |" in once
    assert "| **missed** |" in once
    assert "Settings changed since the note: none." in once


def test_what_a_person_wrote_is_kept(note: Path, row: RunRow) -> None:
    write_text(note, note.read_text().replace("*(after the run", "It works. *(after the run"))
    fill_note(note, row)
    assert "It works." in note.read_text()


def test_settings_that_the_run_changed_are_named(note: Path, row: RunRow) -> None:
    fill_note(note, replace(row, settings={**row.settings, "lr": 0.5}))
    assert "Settings changed since the note: `lr` 0.002 → 0.5." in note.read_text()


def test_a_dirty_run_is_said_to_be_one(note: Path, row: RunRow) -> None:
    fill_note(note, replace(row, dirty=True))
    assert "**DIRTY TREE**" in note.read_text()


def test_a_run_without_metrics_fills_in_nothing(note: Path, row: RunRow) -> None:
    with pytest.raises(BadInput, match="has no metrics: running"):
        fill_note(note, replace(row, metrics={}, status="running"))


def test_a_note_without_its_place_for_results_is_refused(note: Path, row: RunRow) -> None:
    write_text(note, "# mine\n")
    with pytest.raises(BadInput, match="no place for results"):
        fill_note(note, row)


def test_a_note_is_refused_on_a_dirty_tree(project, ready: Readiness) -> None:
    write_text(project.root / "code.py", "ANSWER = 43\n")
    dirty = examine_readiness(project.root, project.root / "requirements.lock")
    with pytest.raises(NotReady, match=r"DIRTY TREE: 1 tracked file differs from the commit \(code.py\)"):
        new_note(project.root / "notes", PLAN, dirty, project.root, TODAY)
    assert not (project.root / "notes").exists()


def test_code_that_git_does_not_know_is_refused(project) -> None:
    write_text(project.root / "helper.py", "ANSWER = 43\n")
    with pytest.raises(NotReady, match=r"found 1 untracked: helper\.py"):
        examine_readiness(project.root, project.root / "requirements.lock").refuse_unless_ready()


def test_changed_settings_and_results_do_not_make_a_tree_dirty(project, ready: Readiness) -> None:
    write_text(project.root / "params.yaml", (project.root / "params.yaml").read_text().replace("lr: 0.002", "lr: 0.1"))
    assert ready.findings == ()
    found = examine_readiness(project.root, project.root / "requirements.lock")
    assert not [f for f in found.findings if not f.numbers["what"].startswith("package ")]


def test_another_package_than_the_lock_has_is_refused(project) -> None:
    write_text(project.root / "requirements.lock", "numpy==1.0.0 \\\n    --hash=sha256:00\n")
    found = examine_readiness(project.root, project.root / "requirements.lock")
    assert "package numpy" in {f.numbers["what"] for f in found.findings}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, name="My Test"), "wanted small letters, digits and hyphens"),
        (replace(PLAN, model="nobody"), "has no model 'nobody'"),
        (replace(PLAN, criteria=("print(1)",)), "does more than compare"),
        (replace(PLAN, criteria=("mae_gy <",)), "is no condition"),
    ],
)
def test_a_plan_that_is_none_is_refused(project, ready: Readiness, plan: Plan, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        new_note(project.root / "notes", plan, ready, project.root, TODAY)


def test_a_note_is_written_once(note: Path, project, ready: Readiness) -> None:
    with pytest.raises(BadInput, match="is there already; a note is written once"):
        new_note(project.root / "notes", PLAN, ready, project.root, TODAY)


@pytest.mark.parametrize("place", [0, 200, -5])
def test_a_note_that_is_no_text_any_more_is_refused_by_name(place: int, note: Path, row: RunRow) -> None:
    content = bytearray(note.read_bytes())
    content[place] = 0xFF
    note.write_bytes(content)
    with pytest.raises(BadInput, match=r"2026-03-01-dvh-term\.md: can't be read \(.*codec can't decode"):
        fill_note(note, row)


@pytest.mark.parametrize("settings", ["[" * 5000, "a: [", "{a: 1}: b", "a: &x [*x]\n- b"])
def test_settings_of_a_note_that_are_no_yaml_any_more_are_said(settings: str, note: Path, row: RunRow) -> None:
    head, rest = note.read_text().split("```yaml\n")
    write_text(note, f"{head}```yaml\n{settings}\n```{rest.split('```', 1)[1]}")
    with pytest.raises(BadInput, match=r"the note's block of settings \(bring it back with Git\): not valid YAML"):
        fill_note(note, row)
