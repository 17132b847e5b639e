"""Several processes train one model: each has its share, all hold the same weights, one writes."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from torch.utils.data import DataLoader

from doseledger.core.errors import BadInput
from doseledger.learn.data.patches import PatchSampler
from doseledger.learn.kinds import load_recipe, make_family
from doseledger.learn.recipes.diffusion import TrainedDiffusion
from doseledger.learn.recipes.dose import CommonTrained, TrainedRecipe
from doseledger.learn.recipes.segmentation import TrainedSegmentation
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.callbacks import CaseGroups, Recorder
from doseledger.learn.training.checkpoint import load_checkpoint
from doseledger.learn.training.measured import measured_cases
from doseledger.learn.training.ranks import (
    RankSampler,
    Team,
    cluster_environment,
    gather,
    share_cases,
    share_patches,
    team_of,
    trainer_options,
)
from doseledger.learn.training.train import Places, fingerprint_parts, open_cases, quiet_lightning, train

CLUSTER = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_NTASKS_PER_NODE",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster but the one that a test describes."""
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)


def test_ranks_share_the_patches_of_an_epoch_without_overlap_and_each_has_as_many() -> None:
    whole, shares = PatchSampler(5, 3, seed=1), [RankSampler(PatchSampler(5, 3, seed=1), Team(r, 2)) for r in range(2)]
    for sampler in (whole, *shares):
        sampler.set_epoch(4)
    keys = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(part) for part in keys] == [7, 7]
    # A step's patches are those of the single process, in its order: key 0 and 1, then 2 and 3.
    dealt = [key for pair in zip(*keys, strict=True) for key in pair]
    assert dealt == list(whole)[:14]


def test_one_process_keeps_the_loader_it_had_and_too_few_patches_are_refused() -> None:
    loader: DataLoader[Any] = DataLoader(list(range(6)), batch_size=2, sampler=PatchSampler(3, 2, seed=1))  # type: ignore[arg-type]
    assert share_patches(loader, Team(0, 1)) is loader
    assert len(share_patches(loader, Team(1, 3))) == 1
    with pytest.raises(BadInput, match="an epoch has 6 patches: too few for a batch of 2 on each of 4 processes"):
        share_patches(loader, Team(1, 4))


def test_every_rank_validates_as_many_cases_and_none_is_left_out() -> None:
    cases = ["a", "b", "c", "d", "e"]
    shares = [share_cases(cases, Team(rank, 3)) for rank in range(3)]
    assert {len(share) for share in shares} == {2}
    assert set().union(*shares) == set(cases)
    assert share_cases(cases, Team(0, 1)) == cases
    assert [share_cases(["a"], Team(rank, 3)) for rank in range(3)] == [["a"]] * 3


def test_cases_of_all_ranks_count_once_and_training_cases_are_kept_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder: Any = Recorder.__new__(Recorder)
    recorder.groups, recorder.case_ids = CaseGroups(["v1", "v2"], ["t1"], ("body_gy",)), ["v1", "t1"]
    scores = lambda: {"val_mae_body_gy": sum(task.errors)}  # noqa: E731
    task = SimpleNamespace(errors=[1.0, 5.0], validation_scores=scores)
    monkeypatch.setattr("doseledger.learn.training.callbacks.gather", lambda own: [own, {"v2": 2.0, "v1": 1.0}])
    recorder.on_validation_epoch_end(None, task)
    assert task.errors == [1.0, 2.0]
    assert recorder.trained_scores == {"train_mae_body_gy": 5.0}


def test_alone_nothing_is_gathered_and_no_cluster_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather(3) == [3]
    assert team_of(1, 1) == Team(0, 1)
    options = trainer_options(1, 1)
    assert (options["devices"], len(options["plugins"])) == (1, 1)


def test_a_rank_is_what_lightning_slurm_or_torchrun_number_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert team_of(2, 2) == Team(3, 4)
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=r"this SLURM job can't be told apart .*--ntasks-per-node=4"):
        team_of(2, 2)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert team_of(2, 2) == Team(2, 4)
    with pytest.raises(BadInput, match=r"4 processes were started, but train\.devices 2 on train\.nodes 1 make 2"):
        team_of(2, 1)
    with pytest.raises(BadInput, match="this is process 2 of a job whose settings ask for 1"):
        team_of(1, 1)


def test_the_number_of_processes_is_part_of_what_a_run_is(make_run: Callable[..., TrainingRun], places: Places) -> None:
    run = make_run()
    cases = open_cases(run, places)
    one, two = (fingerprint_parts(replace(run, devices=n), places, cases) for n in (1, 2))
    assert {key for key in one if one[key] != two[key]} == {"processes"}


def test_measuring_training_cases_costs_a_twentieth_at_most_but_one_is_measured(
    make_run: Callable[..., TrainingRun], places: Places
) -> None:
    few, many = make_run(), make_run({"sampling.patches_per_case": 1000})
    cases = open_cases(few, places)
    assert [case.case_id for case in measured_cases(few, cases)] == ["case_0001"]
    assert len(measured_cases(many, cases)) == len(cases["val"]) == 1
    slow = replace(many, family=replace(many.family, passes=10_000))
    assert len(measured_cases(slow, {"train": cases["train"], "val": cases["val"] * 3})) == 1
    more = {"train": cases["train"], "val": cases["val"] * 2}
    assert [case.case_id for case in measured_cases(many, more)] == ["case_0001", "case_0002"]


CHILD = """
import hashlib, os, pickle, sys
import torch
from doseledger.learn.training.callbacks import Recorder
from doseledger.learn.training.train import train

torch.set_num_threads(1)
run, places, fresh = pickle.load(open(sys.argv[1], "rb"))
ended = Recorder.on_train_epoch_end

def with_digest(recorder, trainer, task):
    ended(recorder, trainer, task)
    digest = hashlib.sha256()
    for weight in task.network.state_dict().values():
        digest.update(weight.numpy().tobytes())
    name = f"weights_{trainer.current_epoch}_{recorder.team.rank}"
    places.out.with_name(name).write_text(digest.hexdigest())

def die(recorder, trainer, task):
    if trainer.current_epoch == 1 and "DIE" in os.environ:
        os._exit(9)
    recorder.losses, recorder.began = [], 0.0

Recorder.on_train_epoch_end, Recorder.on_train_epoch_start = with_digest, die
if __name__ == "__main__":
    train(run, places, fresh=fresh, tell=print)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a training in a process of its own, with some environment."""

    def run_it(run: TrainingRun, places: Places, **environment: str) -> subprocess.Popen[str]:
        script, task = tmp_path / "child.py", tmp_path / "task.pickle"
        script.write_text(CHILD)
        task.write_bytes(pickle.dumps((run, places, False)))
        return subprocess.Popen(
            [sys.executable, str(script), str(task)],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return run_it


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def assert_one_run_with_equal_weights(
    places: Places, n_epochs: int, n_ranks: int = 2, kind: type[CommonTrained] = TrainedRecipe
) -> None:
    for epoch in range(n_epochs):
        files = [places.out.with_name(f"weights_{epoch}_{rank}") for rank in range(n_ranks)]
        assert len({file.read_text() for file in files}) == 1
    history = pd.read_csv(places.out / "history.csv")
    assert list(history["epoch"]) == list(range(1, n_epochs + 1))
    best = load_checkpoint(places.out / "checkpoints" / "best.ckpt", kind)
    assert np.isfinite(history[list(best.scores)].to_numpy()).all()
    assert all(torch.isfinite(weight).all() for weight in best.weights.values())
    log = (places.out / "train.log").read_text()
    assert log.count("epoch 1/2") == log.count("epoch 2/2") == 1
    assert "2 processes with 1 patches each make a batch of 2, at the same lr" in log


SMALL = {"sampling.batch_size": 1, "fit.max_epochs": 2}


@pytest.mark.slow
def test_two_processes_train_one_model_and_two_nodes_of_slurm_resume_it(
    make_run: Callable[..., TrainingRun], places: Places, start: Callable[..., subprocess.Popen[str]]
) -> None:
    broken = start(make_run(SMALL, devices=2), places, DIE="1")
    said, _ = broken.communicate(timeout=300)
    assert "epoch 1/2" in said
    assert broken.returncode != 0
    assert json.loads((places.out / "run.json").read_text())["processes"] == {"devices": 2, "nodes": 1}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {
        "SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "127.0.0.1", "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    run = make_run(SMALL, nodes=2)
    nodes = [start(run, places, **shared, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)) for rank in range(2)]
    first, second = [finished(process) for process in nodes]
    assert "resumes: settings, data and code are those of the interrupted run" in first
    assert second == ""
    assert (places.out / "train.log").read_text() == said + first
    assert_one_run_with_equal_weights(places, 2)
    # Three steps an epoch: six patches in batches of two.
    assert list(pd.read_csv(places.out / "history.csv")["steps"]) == [3, 6]
    assert not list(places.state_root.glob("*/*"))


@pytest.mark.slow
def test_two_processes_train_one_diffusion(
    make_run: Callable[..., TrainingRun],
    places: Places,
    start: Callable[..., subprocess.Popen[str]],
    shipped_diffusion: dict[str, Any],
) -> None:
    base = replace(places, out=places.out.with_name("base"))
    train(make_run({"fit.max_epochs": 1}), base, fresh=False, tell=lambda line: None)
    small: dict[str, dict[str, Any]] = {
        "sampling": {"patch_zyx": [16, 24, 32], "batch_size": 1, "patches_per_case": 2},
        "network": {"stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8},
        "fit": {"max_epochs": 2, "validate_every": 1},
        "diffusion": {"validation_steps": 2},
    }
    recipe = load_recipe(small | {"kind": "diffusion"}, shipped_diffusion, "test")
    family = make_family(recipe, base.out / "checkpoints" / "best.ckpt")
    finished(start(TrainingRun("dose_diffusion", recipe, 0.01, 1, 0, 0, {"ok": True}, {}, family, devices=2), places))
    assert_one_run_with_equal_weights(places, 2, kind=TrainedDiffusion)


@pytest.mark.slow
def test_two_processes_train_one_segmentation(
    make_segmentation_run: Callable[..., TrainingRun], places: Places, start: Callable[..., subprocess.Popen[str]]
) -> None:
    broken = start(make_segmentation_run(devices=2), places, DIE="1")
    broken.communicate(timeout=300)
    said = finished(start(make_segmentation_run(devices=2), places))
    assert "resumes: settings, data and code are those of the interrupted run" in said
    assert_one_run_with_equal_weights(places, 2, kind=TrainedSegmentation)


def test_a_machine_of_a_cluster_says_nothing_of_a_training_of_one_process(monkeypatch, tmp_path) -> None:
    # Warnings are errors here.
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.warns(UserWarning, match="srun"):
        SLURMEnvironment.detect()
    assert isinstance(cluster_environment(), LightningEnvironment)
    with quiet_lightning():
        assert not SLURMEnvironment.detect()
