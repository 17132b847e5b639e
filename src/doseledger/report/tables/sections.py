"""Sections of the report on data, code, training and record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import parse_yaml
from doseledger.core.text.sheet import Cell, Table, make_table, plural
from doseledger.core.text.words import PARTS as PARTS_IN_WORDS
from doseledger.core.text.words import spell_metric
from doseledger.evaluate.predictions import read_settings
from doseledger.ledger.provenance.baseline import SettingsChange
from doseledger.ledger.provenance.recorded import flatten
from doseledger.ledger.provenance.stamp import GitState
from doseledger.ledger.runs.facts import CohortTables, RunFacts, fold_rows, stands_on

PARTS = ("train", "val", "test")
# A list of plain values in YAML, one a line: it fits one line.
PLAIN_LIST = re.compile(r"(?m)^( *\w+:)\n((?: *- [\w.+-]+\n)+)")


def counts_table(facts: CohortTables) -> Table:
    """Return how many cases there are, how many are not, and what the gate warned of."""
    skipped = int((facts.skipped["status"] == "skipped").sum())
    failed = int((facts.skipped["status"] == "failed").sum())
    warned = int((facts.cases["n_warnings"] > 0).sum())
    rows = [
        ("cases in the cohort", len(facts.cases)),
        ("patients", facts.cases["pseudonym"].nunique()),
        ("groups", ", ".join(sorted({str(group) for group in facts.cases["group"]} - {"unknown"})) or "not recorded"),
        ("cases with a warning from the import", warned),
        ("skipped (outside the protocol)", skipped),
        ("failed (could not be used)", Cell(str(failed), "bad" if failed else "")),
    ]
    return make_table("Cohort", ("", "#Count"), rows)


def skipped_table(facts: CohortTables) -> Table:
    """Return each case that is not in the cohort, and why."""
    rows = [
        (row.case_id, Cell(str(row.status), "bad" if row.status == "failed" else "warn"), row.reason)
        for row in facts.skipped.sort_values(["status", "case_id"]).itertuples()
    ]
    return make_table("Cases left out", ("Case", "Status", "=Reason"), rows, empty="No case was left out.")


def splits_table(facts: CohortTables) -> Table:
    """Return the real proportions of train, val and test, by patient and by case."""
    fold = fold_rows(facts)
    patients = max(1, fold["pseudonym"].nunique())
    rows = []
    for part in PARTS:
        members = fold[fold["split"] == part]
        count = members["pseudonym"].nunique()
        names = ", ".join(members["case_id"]) if len(members) <= 12 else f"{len(members)} cases, in the table of splits"
        rows.append((part, count, len(members), f"{100 * count / patients:.1f}", names))
    run = facts.run
    note = f"Patients stay whole; repeat {run.get('repeat', 0)}, fold {run.get('fold', 0)}. Shares are of patients."
    return make_table("Splits", ("Part", "#Patients", "#Cases", "#Share (%)", "Cases"), rows, note=note)


def lock_sentence(facts: CohortTables) -> str:
    """Return whether the test set is locked, since when and why."""
    lock = facts.test_set
    if lock.empty:
        return (
            "The test set is unlocked: it moves with the seed of the splits, so results of different seeds are not "
            "results on the same patients."
        )
    dates = sorted(set(lock["locked_on"]))
    reasons = "; ".join(sorted(set(lock["reason"])))
    since = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"The test set is locked since {since}: {plural(len(lock), 'case')} ({reasons})."


def trained_git(facts: RunFacts) -> GitState:
    """Return the code revision that the training recorded; a run without one counts as dirty."""
    record = facts.run.get("provenance", {}).get("git")
    if not record:
        return GitState(None, None, True, (), "the run does not record its code revision")
    return GitState(
        record["commit"], record["branch"], bool(record["dirty"]), tuple(record["dirty_paths"]), record["note"]
    )


def code_table(facts: RunFacts, trained: GitState, now: GitState, links: tuple[str, str] = ("", "")) -> Table:
    """Return which code trained the model, with which command, seeds and machine.

    Parameters
    ----------
    trained, now
        The code revisions that trained the model and that make the report.
    links
        Addresses of their pages at the remote; empty where there is none.
    """
    run, provenance = facts.run, facts.run.get("provenance", {})
    gpus = provenance.get("gpus")
    rows = [
        ("commit that trained it", Cell(trained.commit or "none", "hash" if trained.commit else "bad", links[0])),
        ("tree when trained", Cell(f"dirty: {trained.note}", "bad") if trained.dirty else Cell("clean", "good")),
        ("branch", trained.branch or "none (detached)"),
        ("commit that made this report", Cell(now.commit or "none", "hash", links[1])),
        ("tree when reported", Cell(f"dirty: {now.note}", "bad") if now.dirty else Cell("clean", "good")),
        ("command", Cell(" ".join(provenance.get("command", [])) or "not recorded", "hash")),
        ("seed, fold, repeat", f"{run.get('seed')}, {run.get('fold')}, {run.get('repeat')}"),
        ("weights begun with", _begun_with(run)),
        ("stands on the dose of", stands_on(run) or "no other model"),
        ("device", run.get("device", "not recorded")),
        ("CUDA", provenance.get("cuda") or run.get("versions", {}).get("cuda") or "none"),
        ("GPUs", ", ".join(gpus) if gpus else "none"),
        ("platform", provenance.get("platform", "not recorded")),
        ("lock of packages (SHA256)", Cell(provenance.get("lock_sha256") or "not recorded", "hash")),
        ("cases (SHA256 of all)", Cell(run.get("cases_sha256", "not recorded"), "hash")),
        ("splits (SHA256)", Cell(run.get("splits_sha256", "not recorded"), "hash")),
    ]
    return make_table("Code, command, machine", ("", "Value"), rows)


def _begun_with(run: dict[str, Any]) -> str:
    """The line of models that a training began with, the nearest first."""
    line = [f"{one['name']} (SHA256 {one['sha256'][:12]}…)" for one in run.get("ancestors", [])]
    return ", begun with ".join(line) or "no other model"


def packages_table(facts: RunFacts) -> Table:
    """Return the versions of the packages that can change a number."""
    provenance = facts.run.get("provenance", {})
    found = {"python": provenance.get("python"), **provenance.get("packages", {}), **facts.run.get("versions", {})}
    # One package, whether it is named as it is installed or as it is imported.
    versions = {str(name).replace("_", "-"): version for name, version in found.items()}
    rows = [(name, version) for name, version in sorted(versions.items()) if version]
    return make_table("Versions when trained", ("", "Version"), rows)


def best_epoch(history: pd.DataFrame) -> int | None:
    """Return the epoch of the best checkpoint: the least value of the first validation score; None without one."""
    scores = [str(name) for name in history.columns if str(name).startswith("val_")]
    if not scores:
        return None
    values = pd.to_numeric(history[scores[0]], errors="coerce")
    return int(history["epoch"].iloc[int(values.argmin())]) if values.notna().any() else None


def training_table(facts: RunFacts) -> Table:
    """Return how long and on what the model trained, and its scores at the best epoch."""
    history, best = facts.history, best_epoch(facts.history)
    rows: list[tuple[Any, ...]] = [("epochs", len(history))]
    if facts.run.get("parts"):
        rows = [("trained", "nothing: a mean of models is scored")]
    elif "steps" in history:
        rows.append(("optimiser steps", int(history["steps"].iloc[-1])))
    if "seconds" in history:
        rows.append(("seconds", f"{float(history['seconds'].sum()):.0f}"))
    rows += [(words, len(facts.dataset.get(part, []))) for part, words in PARTS_IN_WORDS.items()]
    if best is not None:
        rows.append(("best epoch", best))
        row = history[history["epoch"] == best].iloc[0]
        for name in history.columns:
            if str(name).startswith("val_") or str(name).endswith("loss"):
                rows.append((f"{spell_metric(str(name))}, at the best epoch", f"{float(row[name]):.4g}"))
    return make_table("Training", ("", "#Value"), rows)


def hashes_table(hashes: dict[str, dict[str, dict[str, str]]]) -> Table:
    """Return the hash of every file that a stage read and wrote."""
    rows = [
        (stage, {"deps": "read", "outs": "wrote"}[kind], path, digest)
        for stage, kinds in hashes.items()
        for kind in ("deps", "outs")
        for path, digest in kinds[kind].items()
        # Code is named by the commit; here stand data and results.
        if not path.startswith("src/")
    ]
    empty = "There is no dvc.lock: these files were made outside the pipeline, and nothing ties them to their sources."
    note = "MD5 as DVC keeps them in dvc.lock; files of code are named by the commit above."
    return make_table("Data and results", ("Stage", "Did", "Path", "@MD5"), rows, note=note, empty=empty)


def prediction_settings(facts: RunFacts, predictions: Path) -> dict[str, Any]:
    """Return the settings that the predictions were made with, as the first test case's says them."""
    return read_settings(predictions / f"{facts.case_metrics['case_id'].iloc[0]}.npz")


def settings_of_run(facts: RunFacts, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decided these results, by dotted name: of training, and those of the predictions."""
    config = parse_yaml(facts.config_text, "config_resolved.yaml")
    if not isinstance(config, dict):
        raise BadInput("config_resolved.yaml: wanted a mapping; train the model again")
    recipe = config.pop("recipe", {})
    config.pop("model", None)
    return config | dict(flatten(recipe)) | dict(flatten({"predict": predicted}))


def settings_change_table(change: SettingsChange) -> Table:
    """Return each setting that differs from the parent's."""
    columns = ("Setting", "Before", "This run")
    return make_table("Settings that differ from the parent", columns, change.rows)


def settings_text(facts: RunFacts, predicted: Mapping[str, Any]) -> str:
    """Return the settings that decided these results: of training as it recorded them, and those of the predictions."""
    lines = [
        f"  {name}: {str(value).lower() if isinstance(value, bool) else value}" for name, value in predicted.items()
    ]
    text = facts.config_text.rstrip() + "\n" + "\n".join(["predict:", *sorted(lines)]) + "\n"
    return PLAIN_LIST.sub(lambda found: f"{found[1]} [{', '.join(found[2].replace('- ', '').split())}]\n", text)
