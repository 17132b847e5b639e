"""The parts that every model's report has: verdicts, data, code, training, record."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from doseledger.core.project.layout import SYNTHETIC_COHORT, ModelLayout
from doseledger.core.text.sheet import plural
from doseledger.gates.model.standing import BADGE_STATES, standing_of_run
from doseledger.ledger.provenance.baseline import settings_change
from doseledger.ledger.provenance.commit_link import commit_link
from doseledger.ledger.provenance.recorded import dvc_hashes, stage_names
from doseledger.ledger.provenance.stamp import GitState, git_state
from doseledger.ledger.registry.model_card import model_card
from doseledger.ledger.runs.facts import RunFacts
from doseledger.report.blocks import Alarm, Picture
from doseledger.report.figures.curves import plot_training
from doseledger.report.figures.style import saved_svg
from doseledger.report.page import running
from doseledger.report.tables import sections, verdict_tables
from doseledger.report.tables.data_tables import optional_table

# Stages whose entries in dvc.lock are of the run before.
LATER_STAGES = ("report", "gate")
UNSEEN = "All numbers are of the test cases, which the model was neither trained nor selected on."


def common_context(at: ModelLayout, facts: RunFacts) -> dict[str, Any]:
    """Return what the template of any kind of model prints."""
    root, cohort = at.layout.root, at.layout.cohort
    trained, now = sections.trained_git(facts), git_state(root)
    judged = facts.model_findings["details"]
    measured, shortcuts, drift = (judged[name] for name in ("metrics", "shortcuts", "drift"))
    verdicts = [facts.data_findings, facts.preflight_findings, measured, shortcuts, drift]
    predicted = sections.prediction_settings(facts, at.predictions)
    change = settings_change(root, trained.commit, at.name, sections.settings_of_run(facts, predicted))
    links = (commit_link(root, trained.commit), commit_link(root, now.commit))
    standing = standing_of_run(facts.model_findings, (facts.data_findings, facts.preflight_findings))
    # Its own entry in dvc.lock, and what follows, are of the run before.
    made = [name for name in stage_names(cohort, at.name) if name.partition("@")[0] not in LATER_STAGES]
    commit = (trained.commit or "no commit")[:10]
    state, red = " · DIRTY" if trained.dirty else "", trained.dirty or standing.state == "failed"
    failed = {"passed": "", "provisional": " · PROVISIONAL", "failed": " · GATE FAILED"}[standing.state]
    return {
        "cohort": cohort,
        "model": at.name,
        "protocol_title": facts.protocol.title,
        "standing": standing,
        "badge_state": BADGE_STATES[standing.state],
        "n_cases": plural(len(facts.case_metrics), "test case"),
        "code": trained,
        "alarms": _dirty_alarms(trained),
        "lock_text": sections.lock_sentence(facts),
        "tables": {
            "verdicts": verdict_tables.verdicts_table(verdicts),
            "limits": verdict_tables.limits_table(measured),
            "candidate": verdict_tables.candidate_table(measured),
            "shortcuts": verdict_tables.shortcuts_table(shortcuts),
            "red_flags": verdict_tables.red_flags_table(measured),
            "settings_change": sections.settings_change_table(change),
            "counts": sections.counts_table(facts),
            "splits": sections.splits_table(facts),
            "skipped": sections.skipped_table(facts),
            "optional": optional_table(facts.data_findings),
            "findings": verdict_tables.findings_table(verdicts),
            "code": sections.code_table(facts, trained, now, links),
            "packages": sections.packages_table(facts),
            "training": sections.training_table(facts),
            "hashes": sections.hashes_table(dvc_hashes(at.layout.lock, made)),
        },
        "card": model_card(facts, standing, synthetic=cohort == SYNTHETIC_COHORT),
        "settings_change": change,
        "settings_text": sections.settings_text(facts, predicted),
        **running(f"{at.name} on {cohort}", f"commit {commit}{state}{failed}", alarm=red),
    }


def training_pictures(facts: RunFacts, folder: Path, dpi: int) -> dict[str, Picture]:
    """Save the curves of the training and return them for the page; none of one epoch, which is a point."""
    if len(facts.history) < 2:
        return {}
    draw = partial(plot_training, facts.history, sections.best_epoch(facts.history))
    words = "Training: loss, validation error and learning rate by epoch."
    return {"training": Picture(saved_svg(draw, folder, "training", dpi), words, "Training curves")}


def _dirty_alarms(trained: GitState) -> list[Alarm]:
    if not trained.dirty:
        return []
    text = f"{trained.note[:1].upper()}{trained.note[1:]}. No commit describes the code that made this model."
    return [Alarm("bad", "Trained on a dirty tree.", text, trained.dirty_paths[:10])]
