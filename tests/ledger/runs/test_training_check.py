"""What the records of a training say of each other: every finding of a record with known faults, word by word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.gates.verdict import Finding
from doseledger.ledger.runs.checklist import Check, fault, run_checks
from doseledger.ledger.runs.training_check import checkpoints, config, dataset, history, read_history

RECIPE = {"fit": {"max_epochs": 6, "early_stop_epochs": 2}}
A, B, C, D, E = ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64)
AGAIN = "Train again, or bring the folder back with `dvc checkout`."


def told(findings: Any) -> list[str]:
    return [f"{one.case_id}|{one.message}" if one.case_id else one.message for one in findings]


def checkpoint(**values: Any) -> SimpleNamespace:
    recipe = SimpleNamespace(model_dump=lambda mode: {"mode": mode, **RECIPE}, fit=SimpleNamespace(**RECIPE["fit"]))
    settings = {"lr": 0.1, "seed": 1, "fold": 0, "repeat": 2}
    weights = {"w": np.zeros((2, 3)), "b": np.zeros(3)}
    return SimpleNamespace(**{
        "model": "dose_unet", "settings": settings, "recipe": recipe, "trained_on": {"case_1": A, "case_2": B},
        "selected_on": {"case_3": C}, "weights": weights, "scores": {"val_mae_valid_dose_gy": 2.0}, "epoch": 3,
        **values,
    })  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Any:
    """The records of a training of six epochs on two cases, chosen on a third one."""
    (tmp_path / "splits.csv").write_text("splits\n")
    parts = {"train": {"case_1": A, "case_2": B}, "val": {"case_3": C}}
    summary = {part: [{"case_id": k, "sha256": v} for k, v in cases.items()] for part, cases in parts.items()}
    rows = [(part, *item) for part, cases in parts.items() for item in cases.items()] + [("test", "case_4", D)]
    recipe = {"mode": "json", **RECIPE}
    settings = {"model": "dose_unet", "lr": 0.1, "seed": 1, "fold": 0, "repeat": 2}
    run = {**settings, "recipe_sha256": sha256_of_json(recipe),
        "splits_sha256": sha256_of_file(tmp_path / "splits.csv"),
           "cases_sha256": sha256_of_json(parts["train"] | parts["val"])}  # fmt: skip
    return SimpleNamespace(
        config={**settings, "recipe": recipe}, run=run, dataset=summary, best=checkpoint(), last=checkpoint(epoch=6),
        fold=pd.DataFrame(rows, columns=["split", "case_id", "sha256"]),
        files=SimpleNamespace(splits=tmp_path / "splits.csv", run=tmp_path),
    )  # fmt: skip


def write_history(record: Any, **columns: Any) -> None:
    values = {"epoch": [1, 2, 3, 4, 5, 6], "steps": [10, 20, 30, 40, 50, 60], "train_loss": [6.0, 5, 4, 3, 2, 1],
              "val_mae_valid_dose_gy": [4.0, 3.0, 2.0, 2.5, 2.25, 2.75], **columns}  # fmt: skip
    pd.DataFrame(values).to_csv(record.files.run / "history.csv", index=False)


def test_records_of_one_training_agree(record: Any) -> None:
    write_history(record)
    assert [told(check(record)) for check in (config, dataset, history, checkpoints)] == [[], [], [], []]


def test_each_setting_is_that_of_the_record_and_of_the_checkpoint(record: Any) -> None:
    record.config |= {"lr": 0.2, "model": "other"}
    record.run["seed"] = 5
    record.best.settings = {**record.best.settings, "repeat": 7}
    name = "config_resolved.yaml"
    assert told(config(record)) == [
        f"{name}: model: found 'other', wanted 'dose_unet', as run.json has it. {AGAIN}",
        f"{name}: model: found 'other', wanted 'dose_unet', as the checkpoint has it. {AGAIN}",
        f"{name}: lr: found 0.2, wanted 0.1, as run.json has it. {AGAIN}",
        f"{name}: lr: found 0.2, wanted 0.1, as the checkpoint has it. {AGAIN}",
        f"{name}: seed: found 1, wanted 5, as run.json has it. {AGAIN}",
        f"{name}: repeat: found 2, wanted 7, as the checkpoint has it. {AGAIN}",
    ]


def test_five_changes_of_a_recipe_are_spelled_out_and_its_hash_compared(record: Any) -> None:
    recipe = {"mode": "json", "fit": {"max_epochs": 7, "early_stop_epochs": 2}}
    record.config["recipe"] = recipe
    digest, trained = sha256_of_json(recipe)[:12], record.run["recipe_sha256"][:12]
    assert told(config(record)) == [
        f"config_resolved.yaml: found fit.max_epochs was 6, is 7, wanted the recipe that the checkpoint was "
        f"trained with. {AGAIN}",
        f"config_resolved.yaml: recipe: found {digest}…, wanted {trained}…, as run.json has it. {AGAIN}",
    ]
    record.config["recipe"] = {**recipe, **{f"more_{k}": 1 for k in range(6)}}
    (first, _) = told(config(record))
    assert " and 2 more, wanted" in first


def test_cases_of_training_are_those_of_splits_and_checkpoint(record: Any) -> None:
    record.dataset["train"][1]["sha256"] = E
    record.dataset["val"].append({"case_id": "case_5", "sha256": D})
    record.best.trained_on = {"case_1": A}
    together = sha256_of_json({"case_1": A, "case_2": E, "case_3": C, "case_5": D})[:12]
    record.files.splits.write_text("others\n")
    splits = sha256_of_file(record.files.splits)[:12]
    name = "dataset_summary.json"
    assert told(dataset(record)) == [
        f"case_2|{name}: train: case_2: found {E[:12]}, wanted {B[:12]}, as the splits have it. {AGAIN}",
        f"case_2|{name}: train: case_2: found {E[:12]}, wanted absent, as the checkpoint has it. {AGAIN}",
        f"case_5|{name}: val: case_5: found {D[:12]}, wanted absent, as the splits have it. {AGAIN}",
        f"case_5|{name}: val: case_5: found {D[:12]}, wanted absent, as the checkpoint has it. {AGAIN}",
        f"{name}: cases together: found {together}…, wanted {record.run['cases_sha256'][:12]}…, as run.json has "
        f"it. {AGAIN}",
        f"the table of splits: found {splits}…, wanted {record.run['splits_sha256'][:12]}…, which it was trained by. "
        "Bring those splits back, or train again.",
    ]


WANTED = f"wanted each of 1 to 6 once. {AGAIN}"
BEST_2 = f"best.ckpt: found epoch 3, wanted 2, the best of history.csv. {AGAIN}"


@pytest.mark.parametrize(("columns", "said"), [
    ({"epoch": [1, 2, 3, 4, 5, 5]},
     [f"history.csv: found epoch 6 missing, {WANTED}", f"history.csv: found epoch 5 there twice, {WANTED}"]),
    ({"epoch": [0, 1, 2, 3, 4, 7], "val_mae_valid_dose_gy": [9.0, 9, 9, 2, 9, 9]},
     [f"history.csv: found epoch 5, 6 missing, {WANTED}",
      f"history.csv: found epoch 0, 7 beyond the last checkpoint, {WANTED}"]),
    ({"epoch": [1, 2, 3, 4, 6, 5]}, [f"history.csv: found epochs out of order, wanted 1 to 6 in order. {AGAIN}"]),
    ({"steps": [10, 20, 30, 30, 50, 60]},
     [f"history.csv: steps: found a number that does not grow, wanted more steps each epoch. {AGAIN}"]),
    ({"train_loss": [1.0, np.nan, np.inf, 1, 1, 1]},
     [f"history.csv: epoch 2: found loss nan, wanted a number. {AGAIN}",
      f"history.csv: epoch 3: found loss inf, wanted a number. {AGAIN}"]),
    ({"val_mae_valid_dose_gy": [4.0, 1.5, 2.0, 2.5, np.nan, 3]}, [BEST_2]),
    ({"val_mae_valid_dose_gy": [4.0, 3.0, 2.125, 2.5, 2.25, 3]},
     [f"history.csv: val_mae_valid_dose_gy of epoch 3: found 2.125, wanted 2, as best.ckpt has it. {AGAIN}"]),
    ({"val_mae_valid_dose_gy": [np.nan] * 6},
     [f"history.csv: val_mae_valid_dose_gy of epoch 3: found nan, wanted 2, as best.ckpt has it. {AGAIN}"]),
])  # fmt: skip
def test_a_history_with_known_faults_is_told_so(columns: dict[str, Any], said: list[str], record: Any) -> None:
    write_history(record, **columns)
    assert told(history(record)) == said


@pytest.mark.parametrize(("best", "last", "early", "is_whole"), [
    (3, 6, 2, True), (3, 5, 2, True), (3, 4, 2, False), (3, 5, 0, False), (3, 5, 3, False), (3, 7, 0, False),
])  # fmt: skip
def test_a_training_ends_with_its_last_epoch_or_an_early_stop(
    best: int, last: int, early: int, is_whole: bool, record: Any
) -> None:
    fit = SimpleNamespace(max_epochs=6, early_stop_epochs=early)
    record.best = checkpoint(epoch=best, recipe=SimpleNamespace(fit=fit), scores={})
    record.last = checkpoint(epoch=last)
    epoch = np.arange(1, last + 1)
    scores = np.where(epoch == best, 1.0, 2.0)
    write_history(record, epoch=epoch, steps=epoch, train_loss=1.0, val_mae_valid_dose_gy=scores)
    wanted = [] if is_whole else [
        f"history.csv: found {last} as the last epoch, wanted 6 (fit.max_epochs), or an early stop after "
        f"{early} epochs. "
        "Start the training again: it goes on where it stopped."
    ]  # fmt: skip
    assert told(history(record)) == wanted
    # Trees have no epochs.
    record.best = checkpoint(epoch=best, recipe=SimpleNamespace(), scores={})
    assert told(history(record)) == []


def test_a_history_without_its_columns_is_refused(record: Any) -> None:
    (record.files.run / "history.csv").write_text("epoch,val_loss\n1,2\n")
    with pytest.raises(BadInput, match=r"history\.csv: no column steps, train_loss$"):
        read_history(record.files.run / "history.csv")


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": "other"}, "model"), ({"settings": {"lr": 1}}, "settings"), ({"trained_on": {}}, "training cases"),
    ({"selected_on": {}}, "validation cases"), ({"weights": {"w": np.zeros((3, 2))}}, "weights by name and shape"),
])  # fmt: skip
def test_best_and_last_checkpoint_are_of_one_training(changes: dict[str, Any], words: str, record: Any) -> None:
    record.last = checkpoint(epoch=3, **changes)
    wanted = f"last.ckpt: found other {words} than best.ckpt, wanted checkpoints of one training. {AGAIN}"
    assert told(checkpoints(record)) == [wanted]
    record.last = checkpoint(epoch=2)
    assert told(checkpoints(record)) == [f"best.ckpt: found epoch 3, wanted at most 2, the last one's. {AGAIN}"]


def test_a_checklist_tells_what_blocks_it_once_and_a_warning_fails_no_point() -> None:
    def blocked() -> Any:
        yield fault("a", "b", "c", "do", "case_1")
        raise BadInput("no such file")

    def of_another_form() -> Any:
        return [{}["key"]]

    warning = fault("w", "x", "y", "look", severity="warning")
    checks = [Check("one", "first", blocked), Check("two", "second", blocked), Check("three", "third",
        lambda: [warning]),
              Check("four", "fourth", of_another_form), Check("five", "fifth", list)]  # fmt: skip
    findings, points = run_checks(checks)
    mine = {"what": "a", "found": "b", "wanted": "c", "do": "do"}
    first = Finding("one", "case_1", "error", "a: found b, wanted c. Do.", mine)
    assert findings[0] == first
    assert findings[2] == replace(first, gate="two")
    assert findings[3] == replace(warning, gate="three")
    assert [(one.gate, one.message) for one in (findings[1], *findings[4:])] == [
        ("one", "first: found no such file, wanted a file that can be read. Mend what the message names, and "
         "check again."),
        ("four", "fourth: found a record of another form than training and evaluation write (KeyError: 'key'), "
         "wanted a file that can be read. Mend what the message names, and check again."),
    ]  # fmt: skip
    assert points == [
        {"check": "one", "title": "first", "ok": False, "errors": 2, "blocked_by": ""},
        {"check": "two", "title": "second", "ok": False, "errors": 1, "blocked_by": "one"},
        {"check": "three", "title": "third", "ok": True, "errors": 0, "blocked_by": ""},
        {"check": "four", "title": "fourth", "ok": False, "errors": 1, "blocked_by": ""},
        {"check": "five", "title": "fifth", "ok": True, "errors": 0, "blocked_by": ""},
    ]
