"""Training on a small cohort: what is written, how it resumes, and how it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from doseledger.learn.tasks import DoseTask
from doseledger.learn.train import Places, TrainingRun, train

MakeRun = Callable[..., TrainingRun]


class Killed(RuntimeError):
    """Stands for kill -9 in the middle of an epoch."""


def quietly(run: TrainingRun, places: Places, *, fresh: bool = False) -> list[str]:
    """Train and return what was told."""
    lines: list[str] = []
    train(run, places, fresh=fresh, tell=lines.append)
    return lines


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


def test_a_run_writes_all_its_files(make_run: MakeRun, places: Places) -> None:
    quietly(make_run(), places)
    written = {str(path.relative_to(places.out)) for path in places.out.rglob("*") if path.is_file()}
    assert written == {
        "run.json", "config_resolved.yaml", "dataset_summary.json", "history.csv", "train.log",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip


def test_a_run_killed_in_mid_epoch_ends_as_an_unbroken_one_to_the_bit(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run({"fit.max_epochs": 4})
    unbroken = Places(places.cases, places.splits, places.out.with_name("unbroken"), places.state_root / "other")
    quietly(run, unbroken)
    kill_at(monkeypatch, run, places, epoch=2, batch=1)
    # DVC empties the folder of a stage before it runs it again.
    shutil.rmtree(places.out)
    lines = quietly(run, places)
    assert lines[0] == "resumes: settings, data and code are those of the interrupted run"
    for name in ("best", "last"):
        there, here = (folder.out / "checkpoints" / f"{name}.ckpt" for folder in (unbroken, places))
        assert here.read_bytes() == there.read_bytes()
