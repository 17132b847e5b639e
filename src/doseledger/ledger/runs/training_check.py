"""Settings, cases, history and checkpoints of a training, held together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.tables import read_frame
from doseledger.core.text.lists import first_of
from doseledger.gates.verdict import Finding
from doseledger.learn.run import monitored_in
from doseledger.learn.training.resume import changed_parts
from doseledger.ledger.runs.checklist import fault
from doseledger.ledger.runs.record import RunRecord

SETTINGS = ("lr", "seed", "fold", "repeat")
# What a history of any kind of model has; its scores differ.
HISTORY_COLUMNS = ("epoch", "steps", "train_loss")
# history.csv has six digits.
HISTORY_ROUNDING = 1e-5
AGAIN = "train again, or bring the folder back with `dvc checkout`"


def config(record: RunRecord) -> Iterator[Finding]:
    """Yield where config_resolved.yaml, run.json and the best checkpoint disagree on the settings."""
    resolved, run, best = record.config, record.run, record.best
    name = "config_resolved.yaml"
    for key in ("model", *SETTINGS):
        of_checkpoint = best.model if key == "model" else best.settings.get(key)
        for other, value in (("run.json", run[key]), ("the checkpoint", of_checkpoint)):
            if resolved[key] != value:
                yield fault(f"{name}: {key}", repr(resolved[key]), f"{value!r}, as {other} has it", AGAIN)
    recipe = best.recipe.model_dump(mode="json")
    changes = changed_parts(recipe, resolved["recipe"])
    if changes:
        yield fault(name, first_of(changes, 5, "; "), "the recipe that the checkpoint was trained with", AGAIN)
    digest = sha256_of_json(resolved["recipe"])
    if run["recipe_sha256"] != digest:
        yield fault(f"{name}: recipe", f"{digest[:12]}…", f"{run['recipe_sha256'][:12]}…, as run.json has it", AGAIN)


def dataset(record: RunRecord) -> Iterator[Finding]:
    """Yield where the cases of dataset_summary.json are not those of the splits, the checkpoint and run.json."""
    summary, best = record.dataset, record.best
    parts = {part: {str(case["case_id"]): str(case["sha256"]) for case in summary[part]} for part in ("train", "val")}
    kept = {"train": dict(best.trained_on), "val": dict(best.selected_on)}
    for part, cases in parts.items():
        rows = record.fold[record.fold["split"] == part]
        dealt = dict(zip(rows["case_id"].astype(str), rows["sha256"].astype(str), strict=True))
        for other, wanted in (("the splits have", dealt), ("the checkpoint has", kept[part])):
            yield from _other_cases(f"dataset_summary.json: {part}", cases, other, wanted)
    together = sha256_of_json(parts["train"] | parts["val"])
    if together != record.run["cases_sha256"]:
        trained = f"{record.run['cases_sha256'][:12]}…, as run.json has it"
        yield fault("dataset_summary.json: cases together", f"{together[:12]}…", trained, AGAIN)
    splits = sha256_of_file(record.files.splits)
    if splits != record.run["splits_sha256"]:
        trained = f"{record.run['splits_sha256'][:12]}…, which it was trained by"
        yield fault("the table of splits", f"{splits[:12]}…", trained, "bring those splits back, or train again")


def _other_cases(what: str, found: Mapping[str, str], other: str, wanted: Mapping[str, str]) -> Iterator[Finding]:
    for case_id in sorted(set(found) | set(wanted)):
        if found.get(case_id) != wanted.get(case_id):
            mine, theirs = (str(cases.get(case_id, "absent"))[:12] for cases in (found, wanted))
            yield fault(f"{what}: {case_id}", mine, f"{theirs}, as {other} it", AGAIN, case_id)


def history(record: RunRecord) -> Iterator[Finding]:
    """Yield epochs that are missing, double or out of order, numbers that are none, and an end that came too soon."""
    frame = read_history(record.files.run / "history.csv")
    epochs = [int(epoch) for epoch in frame["epoch"]]
    last = record.last.epoch
    missing = sorted(set(range(1, last + 1)) - set(epochs))
    double = sorted({epoch for epoch in epochs if epochs.count(epoch) > 1})
    beyond = sorted({epoch for epoch in epochs if not 1 <= epoch <= last})
    for word, found in (("missing", missing), ("there twice", double), ("beyond the last checkpoint", beyond)):
        if found:
            yield fault("history.csv", f"epoch {first_of(found, 10)} {word}", f"each of 1 to {last} once", AGAIN)
    if not (missing or double or beyond) and epochs != sorted(epochs):
        yield fault("history.csv", "epochs out of order", f"1 to {last} in order", AGAIN)
    if any(later <= earlier for earlier, later in pairwise(frame["steps"])):
        yield fault("history.csv: steps", "a number that does not grow", "more steps each epoch", AGAIN)
    for row in frame.to_dict("records"):
        if not math.isfinite(row["train_loss"]):
            yield fault(f"history.csv: epoch {row['epoch']}", f"loss {row['train_loss']}", "a number", AGAIN)
    yield from _end(record, frame)


def read_history(path: Path) -> pd.DataFrame:
    """Return the history of a training, one row an epoch.

    Raises
    ------
    BadInput
        If it is absent, or lacks a column.
    """
    frame = read_frame(path)
    absent = [name for name in HISTORY_COLUMNS if name not in frame]
    if absent:
        raise BadInput(f"{path}: no column {', '.join(absent)}")
    return frame


def _end(record: RunRecord, frame: pd.DataFrame) -> Iterator[Finding]:
    last, best = record.last.epoch, record.best
    fit = getattr(best.recipe, "fit", None)
    for row in frame[frame["epoch"] == best.epoch].to_dict("records"):
        for name, score in best.scores.items():
            written = float(row.get(name, math.nan))
            if not math.isclose(written, float(score), rel_tol=HISTORY_ROUNDING):
                what = f"history.csv: {name} of epoch {best.epoch}"
                yield fault(what, f"{written:g}", f"{float(score):.6g}, as best.ckpt has it", AGAIN)
    monitored = monitored_in(list(frame.columns))
    if monitored is not None and frame[monitored].notna().any():
        epoch = int(frame["epoch"].iloc[int(frame[monitored].argmin())])
        if epoch != best.epoch:
            yield fault("best.ckpt", f"epoch {best.epoch}", f"{epoch}, the best of history.csv", AGAIN)
    if fit is None:
        # Trees have no epochs.
        return
    patient = fit.early_stop_epochs and last - best.epoch >= fit.early_stop_epochs
    if last != fit.max_epochs and not patient:
        found = f"{last} as the last epoch"
        wanted = f"{fit.max_epochs} (fit.max_epochs), or an early stop after {fit.early_stop_epochs} epochs"
        yield fault("history.csv", found, wanted, "start the training again: it goes on where it stopped")


def checkpoints(record: RunRecord) -> Iterator[Finding]:
    """Yield where best and last checkpoint are not of one training; reading them shows that they load at all."""
    best, last = record.best, record.last
    for name, first, second in (
        ("model", best.model, last.model),
        ("settings", best.settings, last.settings),
        ("training cases", best.trained_on, last.trained_on),
        ("validation cases", best.selected_on, last.selected_on),
        ("weights by name and shape", _shapes(best.weights), _shapes(last.weights)),
    ):
        if first != second:
            yield fault("last.ckpt", f"other {name} than best.ckpt", "checkpoints of one training", AGAIN)
    if best.epoch > last.epoch:
        yield fault("best.ckpt", f"epoch {best.epoch}", f"at most {last.epoch}, the last one's", AGAIN)


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
