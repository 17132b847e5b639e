"""Training on a small cohort: what is written, how it resumes, and how it refuses."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import read_yaml, sha256_of_file
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.learn.families.dose import DoseTask
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import DOSE_SCORES, TrainingRun
from doseledger.learn.training.checkpoint import load_checkpoint
from doseledger.learn.training.memory import explained_memory_errors
from doseledger.learn.training.optimiser import lr_share
from doseledger.learn.training.train import Places, train

MakeRun = Callable[..., TrainingRun]


class Killed(RuntimeError):
    """Stands for kill -9 in the middle of an epoch."""


def quietly(run: TrainingRun, places: Places, *, fresh: bool = False) -> list[str]:
    """Train and return what was told."""
    lines: list[str] = []
    train(run, places, fresh=fresh, tell=lines.append)
    return lines


def elsewhere(places: Places, name: str) -> Places:
    """The same cases, another run's folders."""
    return Places(places.cases, places.splits, places.out.with_name(name), places.state_root.with_name(f"{name}_state"))


def kill_at(monkeypatch: pytest.MonkeyPatch, run: TrainingRun, places: Places, *, epoch: int, batch: int) -> None:
    """Train until that batch and no further."""
    step = DoseTask.training_step

    def die(task: DoseTask, samples: dict[str, Any], index: int) -> Any:
        if task.current_epoch == epoch and index == batch:
            raise Killed
        return step(task, samples, index)

    with monkeypatch.context() as patch:
        patch.setattr(DoseTask, "training_step", die)
        with pytest.raises(Killed):
            quietly(run, places)


def assert_same_weights(one: Places, other: Places) -> None:
    for name in ("best", "last"):
        here, there = (folder.out / "checkpoints" / f"{name}.ckpt" for folder in (one, other))
        assert here.read_bytes() == there.read_bytes()


def test_a_run_writes_all_its_files_and_log_and_console_say_the_same(make_run: MakeRun, places: Places) -> None:
    lines = quietly(make_run(), places)
    written = {str(path.relative_to(places.out)) for path in places.out.rglob("*") if path.is_file()}
    assert written == {
        "run.json", "config_resolved.yaml", "dataset_summary.json", "history.csv", "train.log",
        "live.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert (places.out / "train.log").read_text().splitlines() == lines
    assert lines[0] == "starts from the beginning: there is no interrupted run of dose_unet"
    assert lines[2].startswith("epoch 1/3: loss ")
    history = pd.read_csv(places.out / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert list(history["steps"]) == [3, 6, 9]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    record = json.loads((places.out / "run.json").read_text())
    assert record["provenance"] == {"commit": "abc"}
    assert record["data_gate"] == {"ok": True}
    assert read_yaml(places.out / "config_resolved.yaml")["recipe"]["network"]["channels"] == [4, 8]
    summary = json.loads((places.out / "dataset_summary.json").read_text())
    assert [case["case_id"] for case in summary["train"]] == ["case_0001", "case_0002", "case_0003"]
    assert "Bowel" in summary["train"][1]["present"]
    assert not list(places.state_root.glob("*/*"))


def test_no_file_of_a_run_holds_an_absolute_path(make_run: MakeRun, places: Places) -> None:
    quietly(make_run({"fit.max_epochs": 1}), places)
    for path in places.out.rglob("*"):
        if path.is_file():
            assert str(places.cases.parent).encode() not in path.read_bytes()


def test_the_checkpoint_says_what_was_trained_on_and_what_chose_the_epoch(make_run: MakeRun, places: Places) -> None:
    quietly(make_run(), places)
    best = load_checkpoint(places.out / "checkpoints" / "best.ckpt")
    assert best.trained_on == {f"case_000{n}": sha256_of_file(places.cases / f"case_000{n}.npz") for n in (1, 2, 3)}
    assert list(best.selected_on) == ["case_0004"]
    assert best.settings == {"lr": 0.01, "seed": 1, "fold": 0, "repeat": 0}
    history = pd.read_csv(places.out / "history.csv")
    assert best.epoch == int(history["epoch"][history[DOSE_SCORES[0]].idxmin()])
    assert best.scores[DOSE_SCORES[0]] == pytest.approx(history[DOSE_SCORES[0]].min(), rel=1e-4)


def test_the_network_learns_more_than_a_constant_dose(make_run: MakeRun, places: Places) -> None:
    quietly(make_run({"fit.max_epochs": 12, "sampling.patches_per_case": 4}), places)
    case = Case.load(places.cases / "case_0004.npz")
    assert case.dose_gy is not None
    in_body = case.dose_gy[case.body]
    constant = np.abs(in_body - np.median(in_body)).mean()
    history = pd.read_csv(places.out / "history.csv")
    assert history["val_mae_body_gy"].min() < 0.4 * constant


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_run: MakeRun, places: Places) -> None:
    again, other = elsewhere(places, "again"), elsewhere(places, "other")
    short = {"fit.max_epochs": 1}
    quietly(make_run(short), places)
    torch.manual_seed(12345)
    quietly(make_run(short), again)
    quietly(make_run(short, seed=2), other)
    assert_same_weights(places, again)
    assert (places.out / "checkpoints/last.ckpt").read_bytes() != (other.out / "checkpoints/last.ckpt").read_bytes()


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_run_killed_in_mid_epoch_ends_as_an_unbroken_one_to_the_bit(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    run = make_run({"fit.max_epochs": 4, "optimiser.schedule": schedule})
    unbroken = elsewhere(places, "unbroken")
    quietly(run, unbroken)
    kill_at(monkeypatch, run, places, epoch=2, batch=1)
    # DVC empties the folder of a stage before it runs it again.
    shutil.rmtree(places.out)
    torch.manual_seed(999)
    lines = quietly(run, places)
    assert "resumes: settings, data and code are those of the interrupted run" in lines
    assert sum(line.startswith("epoch 1/4") for line in lines) == 0
    assert sum(line.startswith("epoch 1/4") for line in (places.out / "train.log").read_text().splitlines()) == 1
    assert_same_weights(places, unbroken)
    wanted, found = (pd.read_csv(folder.out / "history.csv").drop(columns="seconds") for folder in (unbroken, places))
    pd.testing.assert_frame_equal(found, wanted)


def test_a_run_told_to_stop_is_no_result_and_goes_on_to_the_same_weights(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run({"fit.max_epochs": 3})
    unbroken = elsewhere(places, "unbroken")
    quietly(run, unbroken)
    step = DoseTask.training_step

    def stop(task: DoseTask, samples: dict[str, Any], index: int) -> Any:
        if task.current_epoch == 1 and index == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, samples, index)

    with monkeypatch.context() as patch:
        patch.setattr(DoseTask, "training_step", stop)
        with pytest.raises(NotReady, match="told to stop in epoch 2 of 3; what it had done is kept"):
            quietly(run, places)
    assert any(line.startswith("resumes") for line in quietly(run, places))
    assert_same_weights(places, unbroken)


def test_an_interrupted_run_whose_state_was_damaged_does_not_go_on(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run({"fit.max_epochs": 3})
    kill_at(monkeypatch, run, places, epoch=1, batch=1)
    (state,) = places.state_root.glob("*/*/last.ckpt")
    whole, content = state.read_bytes(), torch.load(state, weights_only=True)
    weight = max(content["state_dict"].values(), key=torch.Tensor.numel)
    place = whole.index(weight.contiguous().numpy().tobytes()) + 3
    state.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(BadInput, match=r"state is damaged \(its weights, its optimiser's or its his.*--fresh"):
        quietly(run, places)
    state.write_bytes(whole[:1000])
    with pytest.raises(BadInput, match=r"last\.ckpt: the interrupted run can't go on, its state is damaged"):
        quietly(run, places)
    state.write_bytes(whole)
    assert any(line.startswith("resumes") for line in quietly(run, places))


@pytest.mark.slow
def test_a_process_ended_by_kill_9_resumes_to_the_same_weights(make_run: MakeRun, places: Places) -> None:
    run = make_run({"fit.max_epochs": 12})
    unbroken = elsewhere(places, "unbroken")
    quietly(run, unbroken)
    task = places.out.with_name("task.pickle")
    task.write_bytes(pickle.dumps((run, places)))
    code = (
        "import pickle, sys, torch\nfrom doseledger.learn.training.train import train\ntorch.set_num_threads(1)\n"
        f"run, places = pickle.load(open({str(task)!r}, 'rb'))\ntrain(run, places, fresh=False, tell=print)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    history = places.out / "history.csv"
    while not (history.is_file() and len(history.read_text().splitlines()) > 4):
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert any(line.startswith("resumes") for line in quietly(run, places))
    assert_same_weights(places, unbroken)


def test_resume_is_refused_when_lr_changed_and_the_run_says_so(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(monkeypatch, make_run(), places, epoch=1, batch=0)
    lines = quietly(make_run(lr=0.005), places)
    assert lines[0] == ("starts from the beginning: the interrupted run of dose_unet differs: lr was 0.01, is 0.005")
    assert any(line.startswith("epoch 1/3") for line in lines)


def test_resume_is_refused_when_a_case_changed(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch, make_case: Callable[..., Case]
) -> None:
    kill_at(monkeypatch, make_run(), places, epoch=1, batch=0)
    make_case("case_0002", seed=77).save(places.cases / "case_0002.npz")
    table = read_table(places.splits, SPLITS)
    table.loc[table["case_id"] == "case_0002", "sha256"] = sha256_of_file(places.cases / "case_0002.npz")
    write_table(places.splits, table, SPLITS)
    assert "cases.case_0002 was" in quietly(make_run(), places)[0]


def test_a_fresh_start_ignores_the_interrupted_run(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(monkeypatch, make_run(), places, epoch=1, batch=0)
    lines = quietly(make_run(), places, fresh=True)
    assert lines[0] == "starts from the beginning: a fresh start was asked for"
    assert (places.out / "train.log").read_text().splitlines() == lines


def test_a_case_that_changed_since_the_gate_is_refused(
    make_run: MakeRun, places: Places, make_case: Callable[..., Case]
) -> None:
    make_case("case_0004", seed=77).save(places.cases / "case_0004.npz")
    with pytest.raises(NotReady, match=r"case_0004: .* it changed after the data gate judged it"):
        quietly(make_run(), places)
    assert not places.out.exists()


def spoil_dose(places: Places, case_id: str) -> None:
    """Make a case's dose NaN behind the data gate's back."""
    path = places.cases / f"{case_id}.npz"
    case = Case.load(path)
    assert case.dose_gy is not None
    replace(case, dose_gy=case.dose_gy * np.float32(np.nan)).save(path)
    table = read_table(places.splits, SPLITS)
    table.loc[table["case_id"] == case_id, "sha256"] = sha256_of_file(path)
    write_table(places.splits, table, SPLITS)


def test_a_loss_that_is_not_a_number_too_often_stops_and_names_the_cases(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_dose(places, "case_0003")
    monkeypatch.setattr("doseledger.learn.training.finite.MOST_SKIPPED", 1)
    with pytest.raises(BadInput, match=r"not finite for the 2th time, in epoch \d, on .*case_0003.*lower lr"):
        quietly(make_run({"prior": "none"}), places)
    # One such dose in the mean would have spoilt the loss of every case.
    with pytest.raises(BadCase, match="case_0003: its dose is not finite; no mean can be taken with it"):
        quietly(make_run(), places)


def test_a_step_on_a_loss_that_is_not_a_number_moves_no_weight_and_is_told(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, honest = [], DoseTask.batch_loss

    def once_infinite(task: DoseTask, batch: dict[str, Any], index: int) -> Any:
        steps.append([weight.detach().clone() for weight in task.network.parameters()])
        loss, dose = honest(task, batch, index)
        return (loss * np.inf, dose) if len(steps) == 2 else (loss, dose)

    monkeypatch.setattr(DoseTask, "batch_loss", once_infinite)
    lines = quietly(make_run({"prior": "none"}), places)
    moved = [
        any(not torch.equal(was, now) for was, now in zip(before, after, strict=True))
        for before, after in pairwise(steps)
    ]
    assert moved[:3] == [True, False, True]
    assert [line for line in lines if "left out" in line] == [
        "1 steps left out so far: loss or gradients were not finite"
    ]
    history = pd.read_csv(places.out / "history.csv")
    assert np.isfinite(history["train_loss"]).all()


def test_too_little_memory_names_patch_and_batch_and_what_to_lower(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(task: DoseTask, samples: dict[str, Any], index: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(DoseTask, "training_step", run_out)
    with pytest.raises(BadInput, match=r"\[16, 24, 32\] voxels, 2 at a time: lower sampling\.batch_size"):
        quietly(make_run(), places)


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_memory_errors(make_recipe()):
        raise RuntimeError("wrong shape")
    with pytest.raises(BadInput, match="out of memory"), explained_memory_errors(make_recipe()):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_training_stops_early_and_the_rate_falls_on_a_plateau(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DoseTask, "validation_scores", lambda task: {DOSE_SCORES[0]: 5.0, "val_mae_body_gy": 5.0})
    changes = {"fit.max_epochs": 9, "fit.early_stop_epochs": 4, "optimiser.schedule": "plateau"}
    lines = quietly(make_run({**changes, "optimiser.plateau_epochs": 1}), places)
    history = pd.read_csv(places.out / "history.csv")
    assert len(history) == 5
    assert "no better validation for 4 epochs: stopped early" in lines
    assert history["lr"].iloc[-1] < 0.01
    assert load_checkpoint(places.out / "checkpoints" / "best.ckpt").epoch == 1


def test_an_epoch_without_validation_leaves_its_score_empty(make_run: MakeRun, places: Places) -> None:
    quietly(make_run({"fit.max_epochs": 3, "fit.validate_every": 2}), places)
    history = pd.read_csv(places.out / "history.csv")
    assert list(history[DOSE_SCORES[0]].isna()) == [True, False, True]
    assert load_checkpoint(places.out / "checkpoints" / "best.ckpt").epoch == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"fit.precision": "bf16-mixed", "optimiser.name": "sgd"},
        {"network": {"name": "dynunet", "filters": [4, 8, 8], "residual": False}, "optimiser.name": "adam"},
        {"loss.gradient": 0.1, "loss.dvh": 0.1, "loss.moment": 0.1, "loss.underdose": 1.0, "fit.accumulate": 2},
        {"inputs.structures": "mask", "inputs.prescription": "none", "prior": "none", "loader.workers": 1},
    ],
)
def test_other_settings_train_too(make_run: MakeRun, places: Places, changes: dict[str, Any]) -> None:
    quietly(make_run({"fit.max_epochs": 1, **changes}), places)
    assert np.isfinite(pd.read_csv(places.out / "history.csv")[DOSE_SCORES[0]]).all()


def test_the_rate_rises_then_follows_the_cosine_to_its_final_share(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe({"optimiser.warmup_share": 0.1, "optimiser.final_share": 0.01}).optimiser
    shares = [lr_share(step, 100, recipe) for step in range(101)]
    assert shares[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert shares[10] == pytest.approx(1.0)
    assert shares[55] == pytest.approx(0.01 + 0.99 * 0.5)
    assert shares[100] == pytest.approx(0.01)
    flat = make_recipe({"optimiser.schedule": "constant"}).optimiser
    assert lr_share(99, 100, flat) == 1.0


def test_a_fold_without_cases_is_named(make_run: MakeRun, places: Places) -> None:
    with pytest.raises(NotReady, match="the splits have no train case in fold 3, repeat 0"):
        quietly(make_run(fold=3), places)
