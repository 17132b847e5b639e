"""Records of a training: epochs, history.csv, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from doseledger.core.files import atomic_path, write_text
from doseledger.core.types import Tell
from doseledger.learn.run import SEGMENT_SCORES, Task, monitored_in, trained_name
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint
from doseledger.learn.training.optimiser import plateau_share
from doseledger.learn.training.ranks import Team, gather
from doseledger.learn.training.resume import ResumeState
from doseledger.learn.watch.heartbeat import Pulse
from doseledger.learn.watch.live import Live

COLUMNS = ("epoch", "steps", "lr", "train_loss")
HISTORY_FORMATS = {"epoch": "d", "steps": "d", "seconds": ".2f"}

MakeCheckpoint = Callable[[Task, int, dict[str, float]], Checkpoint]


@dataclass(frozen=True)
class CaseGroups:
    """What each validation goes through, the cases of validation and of training measured beside them; its scores."""

    validated: list[str]
    trained: list[str]
    scores: tuple[str, ...]


class Alive(pl.Callback):
    """Gives a sign of life with every batch and every validated case."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Give one."""
        self.pulse.beat(trainer.current_epoch + 1, trainer.global_step)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Give one."""
        self.pulse.beat(trainer.current_epoch + 1, trainer.global_step)


class Recorder(pl.Callback):
    """Keeps history, best and last checkpoint, and stops early when the recipe says so.

    Parameters
    ----------
    state
        Where best.ckpt is kept too, as the run's folder may be emptied before a resume.
    make_checkpoint
        Our checkpoint of a task at an epoch with its scores.
    live
        Takes one line an epoch, and tells of each as it ends.
    team
        The processes that train together: all keep the same history, the main one writes it.
    groups
        Which of the cases that a validation goes through are which.
    """

    def __init__(
        self,
        out: Path,
        state: ResumeState,
        make_checkpoint: MakeCheckpoint,
        live: Live,
        team: Team,
        groups: CaseGroups,
    ) -> None:
        self.out, self.state, self.make_checkpoint, self.live = out, state, make_checkpoint, live
        self.team, self.groups = team, groups
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.losses: list[torch.Tensor] = []
        self.case_ids: list[str] = []
        self.trained_scores: dict[str, float] = {}
        self.began, self.skipped = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of this one: of the epoch under way the losses, of each process its own."""
        losses, seconds = gather([loss.cpu() for loss in self.losses]), time.perf_counter() - self.began
        return {"history": self.history, "best": self.best, "losses": losses, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over history and epoch of the interrupted run."""
        self.history, self.best = state_dict["history"], state_dict["best"]
        self.losses = state_dict["losses"][self.team.rank]
        self.began = time.perf_counter() - state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the losses of a resumed epoch beside those that follow."""
        self.losses = [loss.to(pl_module.device) for loss in self.losses]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and look how many steps were left out before."""
        task: Any = pl_module
        self.losses, self.began, self.skipped = [], time.perf_counter(), int(task.skipped)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch's loss where it is: reading it from a GPU would wait for that."""
        self.losses.append(outputs["loss"].detach())

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the cases of the last validation."""
        self.case_ids = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Keep the case's name."""
        self.case_ids += batch["case_id"]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the cases of all processes together, each once, and leave those of validation to the task.

        Lightning calls this before the task's own hook of the name, which makes scores of what it finds.
        """
        task: Any = pl_module
        parts = gather(dict(zip(self.case_ids, task.errors, strict=True)))
        errors = {case_id: error for part in parts for case_id, error in part.items()}
        task.errors = [errors[case_id] for case_id in self.groups.trained]
        self.trained_scores = {trained_name(name): score for name, score in task.validation_scores().items()}
        task.errors = [errors[case_id] for case_id in self.groups.validated]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch down; Lightning has validated before this when it was time to."""
        task: Any = pl_module
        epoch = trainer.current_epoch
        fit = task.recipe.fit
        validated = (epoch + 1) % fit.validate_every == 0
        scores = task.validation_scores() if validated else {}
        finite = [loss for loss in torch.stack(self.losses).double().tolist() if math.isfinite(loss)]
        losses = gather(sum(finite) / len(finite) if finite else math.nan)
        row = {
            "epoch": epoch + 1,
            "steps": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": sum(losses) / len(losses),
            **(self.trained_scores if validated else {}),
            **scores,
            "seconds": time.perf_counter() - self.began,
        }
        if int(task.skipped) > self.skipped:
            self.live.tell(f"{int(task.skipped)} steps left out so far: loss or gradients were not finite")
        self.history.append(row)
        monitored = self.groups.scores[0]
        better = validated and scores[monitored] < self.best.get(monitored, float("inf"))
        if better:
            self.best = {"epoch": epoch + 1, **scores}
        if self.team.is_main:
            self._write(task, row, scores, better=better)
        self._follow_plateau(trainer, task)
        if fit.early_stop_epochs and epoch + 1 - self.best.get("epoch", 0) >= fit.early_stop_epochs:
            self.live.tell(f"no better validation for {fit.early_stop_epochs} epochs: stopped early")
            trainer.should_stop = True

    def _follow_plateau(self, trainer: pl.Trainer, task: Any) -> None:
        """Set the rate of a plateau schedule: after a validation that was no better, the next epochs have less."""
        recipe, monitored = task.recipe.optimiser, self.groups.scores[0]
        if recipe.schedule == "plateau":
            share = plateau_share([row[monitored] for row in self.history if monitored in row], recipe)
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = task.lr * share

    def _write(self, task: Any, row: dict[str, float], scores: dict[str, float], *, better: bool) -> None:
        write_text(self.out / "history.csv", history_csv(self.history, self.groups.scores))
        checkpoint = self.make_checkpoint(task, int(row["epoch"]), scores)
        if better:
            save_checkpoint(self.state.folder / "best.ckpt", checkpoint)
            copy_file(self.state.folder / "best.ckpt", self.out / "checkpoints" / "best.ckpt")
        save_checkpoint(self.out / "checkpoints" / "last.ckpt", checkpoint)
        max_epochs = task.recipe.fit.max_epochs
        self.live.tell(describe_epoch(row, max_epochs, better=better))
        self.live.epoch_ended(self.history, self.best, max_epochs)


def history_csv(history: list[dict[str, float]], scores: tuple[str, ...]) -> str:
    """Return the history as CSV, one row an epoch; a score is empty in an epoch without validation."""
    columns = (*COLUMNS, trained_name(scores[0]), *scores, "seconds")
    lines = [",".join(columns)]
    for row in history:
        cells = [format(row[name], HISTORY_FORMATS.get(name, ".6g")) if name in row else "" for name in columns]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def describe_epoch(row: dict[str, float], max_epochs: int, *, better: bool) -> str:
    """Return the epoch's line for console and log."""
    scores, name = "", monitored_in(row)
    if name is not None:
        found, trained = row[name], row[trained_name(name)]
        scores = f", MAE in valid_dose {found:.2f} Gy in validation and {trained:.2f} Gy in training cases"
        if name == SEGMENT_SCORES[0]:
            scores = f", Dice {1.0 - found:.3f} in validation and {1.0 - trained:.3f} in training cases"
    best = " (best)" if better else ""
    return (
        f"epoch {row['epoch']:.0f}/{max_epochs}: loss {row['train_loss']:.4g}{scores}{best}, "
        f"lr {row['lr']:.2e}, {row['seconds']:.1f} s"
    )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(target) as part:
        part.write_bytes(source.read_bytes())


class Log:
    """Says each line, and writes it to the run's log and to a copy that outlives the run's folder."""

    def __init__(self, log: Path, kept: Path, tell: Tell) -> None:
        self.log, self.tell = log, tell
        self.kept = kept
        log.parent.mkdir(parents=True, exist_ok=True)
        if kept.is_file():
            copy_file(kept, log)
        else:
            log.unlink(missing_ok=True)

    def __call__(self, line: str) -> None:
        """Say a line."""
        self.tell(line)
        for file in (self.log, self.kept):
            with file.open("a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
