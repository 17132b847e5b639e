"""A training that is killed inside an epoch and goes on: the bits of an unbroken one, in every kind of network."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from doseledger.core.errors import BadInput, NotReady
from doseledger.learn.data.patches import PatchSampler
from doseledger.learn.kinds import load_recipe, make_family
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.keeping import Kept, require_whole
from doseledger.learn.training.optimiser import plateau_share
from doseledger.learn.training.ranks import RankSampler, Team
from doseledger.learn.training.resume import open_state
from doseledger.learn.training.task import NetworkTask
from doseledger.learn.training.train import Places, fingerprint_parts, open_cases, train

MakeRun = Callable[..., TrainingRun]
# Six steps an epoch, and a state after every second one.
STEPS = {"sampling.batch_size": 1, "fit.max_epochs": 3}
NOISE: dict[str, dict[str, Any]] = {
    "sampling": {"patch_zyx": [16, 24, 32], "batch_size": 1, "patches_per_case": 2},
    "network": {"stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8},
    "fit": {"max_epochs": 2, "validate_every": 1},
    "diffusion": {"validation_steps": 2, "residual": False},
}


class Killed(RuntimeError):
    """Stands for kill -9."""


def quietly(run: TrainingRun, places: Places, *, every: int = 2) -> list[str]:
    lines: list[str] = []
    train(run, places, fresh=False, tell=lines.append, kept=Kept(every_steps=every))
    return lines


def elsewhere(places: Places) -> Places:
    return replace(places, out=places.out.with_name("unbroken"), state_root=places.state_root.with_name("other"))


def kill_at(monkeypatch: pytest.MonkeyPatch, run: TrainingRun, places: Places, epoch: int, batch: int) -> list[str]:
    """Train until that batch and no further; DVC empties the folder of a stage before it runs it again."""
    step = NetworkTask.training_step

    def die(task: NetworkTask, samples: dict[str, Any], index: int) -> Any:
        if (task.current_epoch, index) == (epoch, batch):
            raise Killed
        return step(task, samples, index)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkTask, "training_step", die)
        with pytest.raises(Killed):
            quietly(run, places)
    shutil.rmtree(places.out)
    return [str(state) for state in places.state_root.glob("*/*/last.ckpt")]


def assert_same_run(one: Places, other: Places) -> None:
    for name in ("best", "last"):
        here, there = (folder.out / f"checkpoints/{name}.ckpt" for folder in (one, other))
        assert here.read_bytes() == there.read_bytes()
    wanted, found = (pd.read_csv(folder.out / "history.csv").drop(columns="seconds") for folder in (other, one))
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


@pytest.fixture
def diffusion(shipped_diffusion: dict[str, Any]) -> TrainingRun:
    recipe = load_recipe({**NOISE, "kind": "diffusion"}, shipped_diffusion, "test")
    return TrainingRun("noise", recipe, 0.01, 1, 0, 0, {"ok": True}, {}, make_family(recipe, None))


@pytest.mark.parametrize("kind", ["dose", "accumulated", "left_out", "segmentation", "diffusion"])
def test_a_training_killed_inside_an_epoch_ends_as_an_unbroken_one_to_the_bit(
    kind: str, make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    changes = {"accumulated": {"fit.accumulate": 2}, "left_out": {"prior": "mean_dose_left_out"}}.get(kind, {})
    named = kind in ("segmentation", "diffusion")
    run = request.getfixturevalue(kind) if named else make_run({**STEPS, **changes})
    unbroken = elsewhere(places)
    # No state inside an epoch: that one is written changes no bit either.
    quietly(run, unbroken, every=0)
    (state,) = kill_at(monkeypatch, run, places, epoch=1, batch=5)
    assert require_whole(Path(state)) == ((1, 2) if kind == "accumulated" else (1, 4))
    torch.manual_seed(999)
    trained: list[tuple[int, int]] = []
    step = NetworkTask.training_step

    def count(task: NetworkTask, samples: dict[str, Any], index: int) -> Any:
        trained.append((task.current_epoch, index))
        return step(task, samples, index)

    monkeypatch.setattr(NetworkTask, "training_step", count)
    assert any(line.startswith("resumes") for line in quietly(run, places))
    # Two batches are repeated at most, not the epoch.
    assert trained[0] == require_not_before(kind)
    assert_same_run(places, unbroken)


def require_not_before(kind: str) -> tuple[int, int]:
    return (1, 2) if kind == "accumulated" else (1, 4)


def test_it_may_be_killed_again_and_again_and_by_workers_too(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, unbroken = make_run({**STEPS, "loader.workers": 1}), elsewhere(places)
    quietly(make_run(STEPS), unbroken)
    for epoch, batch in ((0, 3), (0, 5), (1, 0), (2, 3)):
        kill_at(monkeypatch, run, places, epoch, batch)
    quietly(run, places)
    assert_same_run(places, unbroken)


def test_a_told_stop_keeps_the_batch_that_it_came_in(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, unbroken = make_run(STEPS), elsewhere(places)
    quietly(run, unbroken)
    step = NetworkTask.training_step

    def stop(task: NetworkTask, samples: dict[str, Any], index: int) -> Any:
        if (task.current_epoch, index) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, samples, index)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkTask, "training_step", stop)
        with pytest.raises(NotReady, match="told to stop in epoch 2 of 3"):
            quietly(run, places, every=0)
    (state,) = places.state_root.glob("*/*/last.ckpt")
    assert require_whole(state) == (1, 3)
    quietly(run, places, every=0)
    assert_same_run(places, unbroken)


def test_a_plateau_goes_on_counting_over_an_interruption(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**STEPS, "fit.max_epochs": 4, "optimiser.schedule": "plateau", "optimiser.plateau_epochs": 1}
    run, unbroken = make_run(changes), elsewhere(places)
    monkeypatch.setattr(NetworkTask, "validation_scores", lambda task: dict.fromkeys(task.scores, 5.0))
    quietly(run, unbroken)
    kill_at(monkeypatch, run, places, epoch=2, batch=1)
    quietly(run, places)
    assert_same_run(places, unbroken)
    assert pd.read_csv(places.out / "history.csv")["lr"].tolist() == [0.01, 0.01, 0.01, 0.005]


def test_a_plateau_of_a_history_is_torchs(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe({"optimiser.plateau_epochs": 2, "optimiser.plateau_factor": 0.5}).optimiser
    scores = [5.0, 4.0, 4.1, 4.0, 3.99999, 3.9, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.1]
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = ReduceLROnPlateau(optimiser, factor=0.5, patience=2)
    for n, score in enumerate(scores, start=1):
        schedule.step(score)
        assert plateau_share(scores[:n], recipe) == optimiser.param_groups[0]["lr"]
    assert plateau_share(scores, recipe) == 0.125


def test_losses_of_an_epoch_that_were_damaged_do_not_go_on(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(STEPS)
    (state,) = map(Path, kill_at(monkeypatch, run, places, epoch=1, batch=5))
    content = torch.load(state, weights_only=True)
    content["callbacks"]["Recorder"]["losses"][0][1] += 1e-3
    torch.save(content, state)
    with pytest.raises(BadInput, match=r"state is damaged \(its weights, its optimiser's or its history"):
        quietly(run, places)


def test_ranks_leave_out_what_lies_behind_them_in_one_epoch_alone() -> None:
    whole, rest = (RankSampler(PatchSampler(5, 2, seed=1), Team(1, 2), start) for start in ((0, 0), (3, 2)))
    assert rest.sampler.epoch == 3
    for epoch, n_done in ((3, 2), (4, 0)):
        whole.set_epoch(epoch)
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[n_done:]
    assert len(rest) == 5


CHILD = """
import pickle, sys, time
from pathlib import Path
import torch
from doseledger.learn.training.task import NetworkTask
from doseledger.learn.training.train import train

torch.set_num_threads(1)
run, places = pickle.loads(Path(sys.argv[1]).read_bytes())
step, folder = NetworkTask.training_step, Path(sys.argv[1]).parent

def wait(task, samples, index):
    if task.current_epoch == 1 and index == 0:
        (folder / "waits").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
    return step(task, samples, index)

NetworkTask.training_step = wait
train(run, places, fresh=False, tell=print)
"""


@pytest.mark.slow
def test_two_processes_that_train_the_same_at_once_do_not_disturb_each_other(
    make_run: MakeRun, places: Places, tmp_path: Path
) -> None:
    run, other = make_run({**STEPS, "fit.max_epochs": 2}), replace(places, out=places.out.with_name("other"))
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((run, places)))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "task.pickle")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "waits").exists():
        assert child.poll() is None, "training ended before it waited"
        time.sleep(0.02)
    # The child has a state to go on from, and it is not taken from it.
    lines = quietly(run, other)
    assert lines[0] == "starts from the beginning: another process trains the same now"
    assert len(list(places.state_root.glob("*/*/last.ckpt"))) == 1
    parts = fingerprint_parts(run, places, open_cases(run, places))
    with pytest.raises(NotReady, match=r"another process trains this very model now, with .*wait for its end"):
        open_state(places.state_root, run.model, parts, fresh=True, twins=False)
    (tmp_path / "go").touch()
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    assert "there is no interrupted run" in said
    assert_same_run(places, other)
    assert not list(places.state_root.glob("*/*"))
