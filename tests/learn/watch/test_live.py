"""What can be read while training goes on: the same with and without Weights & Biases, and nothing that leaves here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from doseledger.core.errors import NotReady
from doseledger.core.files import read_json
from doseledger.learn.run import DOSE_SCORES, TrainingRun
from doseledger.learn.training.keeping import Kept
from doseledger.learn.training.train import Places, train
from doseledger.learn.watch.loggers import ENVIRONMENT, Record, open_logger, require_logger

MakeRun = Callable[..., TrainingRun]


class FakeWandb(ModuleType):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.kept: dict[str, bytes] = {}
        self.ended: list[int] = []
        self.mode_then = ""

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **arguments: Any) -> FakeWandb:
        self.started, self.mode_then = arguments, os.environ["WANDB_MODE"]
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        self.rows.append((step, row))

    def log_artifact(self, path: str, *, name: str, type: str, aliases: list[str]) -> None:
        self.kept[f"{type} {name}:{' '.join(aliases)}"] = Path(path).read_bytes()

    def finish(self, exit_code: int = 0) -> None:
        self.ended.append(exit_code)


def spoil(monkeypatch: pytest.MonkeyPatch, logger: str) -> None:
    """Set what a logger's library reads; given back, as it was, when the test ends."""
    folders = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR") if logger == "wandb" else ()
    for name in (*ENVIRONMENT.get(logger, {}), *folders):
        monkeypatch.setenv(name, "before")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    spoil(monkeypatch, "wandb")
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def without_seconds(path: Path) -> list[str]:
    return [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]


def test_an_offline_record_holds_the_history_and_changes_nothing(
    make_run: MakeRun, places: Places, wandb: FakeWandb
) -> None:
    run = make_run({"fit.max_epochs": 2})
    train(run, places, fresh=False, tell=lambda line: None, kept=Kept(logger="wandb"))
    assert (wandb.mode_then, wandb.started["mode"], wandb.ended) == ("offline", "offline", [0])
    assert os.environ["WANDB_DATA_DIR"] == str(places.state_root.parent / "wandb/data")
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert wandb.started["dir"] == str(places.state_root.parent / "wandb")
    assert wandb.started["config"]["recipe"]["network"]["channels"] == [4, 8]
    assert [step for step, _ in wandb.rows] == [1, 2]
    assert DOSE_SCORES[0] in wandb.rows[0][1]
    alone = Places(places.cases, places.splits, places.out.with_name("alone"), places.state_root)
    wandb.rows.clear()
    train(run, alone, fresh=False, tell=lambda line: None)
    assert wandb.rows == []
    assert without_seconds(places.out / "history.csv") == without_seconds(alone.out / "history.csv")
    assert (places.out / "live.json").read_bytes() == (alone.out / "live.json").read_bytes()
    best, other = (folder / "checkpoints" / "best.ckpt" for folder in (places.out, alone.out))
    assert best.read_bytes() == other.read_bytes()
    assert wandb.kept == {"model dose_unet:best": best.read_bytes()}


def test_a_record_of_a_training_that_failed_says_so_and_keeps_no_checkpoint(tmp_path: Path, wandb: FakeWandb) -> None:
    record = Record(tmp_path / "wandb", tmp_path / "best.ckpt", "dose_unet", "f" * 12, {})
    with pytest.raises(KeyError), open_logger("wandb", record):
        raise KeyError("case")
    assert (wandb.ended, wandb.kept) == ([1], {})


def test_a_record_without_its_library_is_refused_before_the_first_step(
    make_run: MakeRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NotReady, match=r"train\.logger is wandb, but wandb is absent: pip install wandb, or set"):
        train(make_run(), places, fresh=False, tell=lambda line: None, kept=Kept(logger="wandb"))
    assert not (places.out / "history.csv").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_preflight_refuses_a_logger_that_is_not_installed(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, name)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotReady, match=rf"train\.logger is {name}, but {name} is absent: pip install {name}"):
        require_logger(name)
    require_logger("csv")


@pytest.mark.parametrize("kind", ["dose", "segmentation"])
@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_record_of_a_library_that_is_installed_holds_each_epoch_the_best_checkpoint_and_else_no_case(
    name: Any, kind: str, make_run: MakeRun, segmentation: TrainingRun, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed: its record is not written here")
    spoil(monkeypatch, name)
    run = segmentation if kind == "segmentation" else make_run({"fit.max_epochs": 2})
    train(run, places, fresh=False, tell=lambda line: None, kept=Kept(logger=name))
    written = [path for path in (places.state_root.parent / name).rglob("*") if path.is_file()]
    best = (places.out / "checkpoints/best.ckpt").read_bytes()
    told = [content for content in (path.read_bytes() for path in written) if content != best]
    assert len(written) - len(told) == (0 if name == "tensorboard" else 1)
    text = b"".join(told)
    assert run.family.scores[0].encode() in text
    assert b"case_000" not in text
    assert b"phantom_case" not in text
    alone = replace(places, out=places.out.with_name("alone"))
    train(run, alone, fresh=False, tell=lambda line: None)
    assert without_seconds(places.out / "history.csv") == without_seconds(alone.out / "history.csv")
    assert (alone.out / "checkpoints/best.ckpt").read_bytes() == best


def test_what_loggers_are_told_names_no_case(make_run: MakeRun, tmp_path: Path, wandb: FakeWandb) -> None:
    from doseledger.learn.training.run_files import resolved_settings

    best = tmp_path / "best.ckpt"
    best.write_bytes(b"weights")
    record = Record(tmp_path / "wandb", best, "dose_unet", "f" * 12, resolved_settings(make_run()))
    with open_logger("wandb", record) as sink:
        assert sink is not None
        sink({"epoch": 1, "train_loss": 0.5})
    assert "case_" not in str(wandb.started)
    assert wandb.rows == [(1, {"epoch": 1, "train_loss": 0.5})]


def test_dvc_reads_the_live_numbers_of_an_unfinished_training(
    make_run: MakeRun, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doseledger.learn.training.callbacks import Recorder

    seen: list[dict[str, Any]] = []
    ended = Recorder.on_train_epoch_end

    def look(recorder: Any, trainer: Any, task: Any) -> None:
        ended(recorder, trainer, task)
        seen.append(read_json(places.out / "live.json"))

    monkeypatch.setattr(Recorder, "on_train_epoch_end", look)
    train(make_run({"fit.max_epochs": 2, "fit.validate_every": 2}), places, fresh=False, tell=lambda line: None)
    assert [one["percent_done"] for one in seen] == [50.0, 100.0]
    assert DOSE_SCORES[0] not in seen[0]["latest"]
    assert seen[1]["best"][DOSE_SCORES[0]] == seen[1]["latest"][DOSE_SCORES[0]]
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {**os.environ, "ITERATIVE_DO_NOT_TRACK": "1"}
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, env=quiet, check=True)
    shown = subprocess.run(
        [*dvc, "metrics", "show", str(places.out / "live.json"), "--md"],
        cwd=tmp_path, env=quiet, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert f"latest.{DOSE_SCORES[0]}" in shown
