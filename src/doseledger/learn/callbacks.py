"""What is written down as training goes: one line an epoch, history.csv, the checkpoints and the resume state."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from doseledger.core.fanout import Tell
from doseledger.core.files import atomic_path, write_text
from doseledger.learn.checkpoint import Checkpoint, save_checkpoint
from doseledger.learn.resume import ResumeState
from doseledger.learn.run import MONITORED, Task

HISTORY_COLUMNS = ("epoch", "steps", "lr", "train_loss", MONITORED, "val_mae_body_gy", "seconds")
HISTORY_FORMATS = {"epoch": "d", "steps": "d", "seconds": ".2f"}

MakeCheckpoint = Callable[[Task, int, dict[str, float]], Checkpoint]


class Recorder(pl.Callback):
    """Keeps history, best and last checkpoint and the resume state, and stops early when the recipe says so.

    Parameters
    ----------
    out
        Folder of the run.
    state
        Where the resume state lies; best.ckpt is kept there too, as the run's folder may be emptied before a resume.
    make_checkpoint
        Our checkpoint of a task at an epoch with its scores.
    tell
        Takes one line an epoch.
    """

    def __init__(self, out: Path, state: ResumeState, make_checkpoint: MakeCheckpoint, tell: Tell) -> None:
        self.out, self.state, self.make_checkpoint, self.tell = out, state, make_checkpoint, tell
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.torch_rng: torch.Tensor | None = None
        self.losses: list[torch.Tensor] = []
        self.began = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of this one."""
        return {"history": self.history, "best": self.best, "torch_rng": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the history of the interrupted run."""
        self.history, self.best = state_dict["history"], state_dict["best"]
        self.torch_rng = state_dict["torch_rng"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue torch's random numbers where the interrupted run left them."""
        if self.torch_rng is not None:
            torch.set_rng_state(self.torch_rng)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.losses, self.began = [], time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch's loss where it is: reading it from a GPU would wait for that."""
        self.losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch down; Lightning has validated before this when it was time to."""
        epoch, task = trainer.current_epoch, pl_module
        validated = (epoch + 1) % task.recipe.fit.validate_every == 0
        scores = task.validation_scores() if validated else {}
        row = {
            "epoch": epoch + 1,
            "steps": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": float(torch.stack(self.losses).double().mean()),
            **scores,
            "seconds": time.perf_counter() - self.began,
        }
        self.history.append(row)
        write_text(self.out / "history.csv", history_csv(self.history))
        checkpoint = self.make_checkpoint(task, epoch + 1, scores)
        better = validated and scores[MONITORED] < self.best.get(MONITORED, float("inf"))
        if better:
            self.best = {"epoch": epoch + 1, **scores}
            save_checkpoint(self.state.folder / "best.ckpt", checkpoint)
            copy_file(self.state.folder / "best.ckpt", self.out / "checkpoints" / "best.ckpt")
        save_checkpoint(self.out / "checkpoints" / "last.ckpt", checkpoint)
        self.tell(describe_epoch(row, task.recipe.fit.max_epochs, better=better))
        patience = task.recipe.fit.early_stop_epochs
        if patience and epoch + 1 - self.best.get("epoch", 0) >= patience:
            self.tell(f"no better validation for {patience} epochs: stopped early")
            trainer.should_stop = True
        elif epoch + 1 < task.recipe.fit.max_epochs:
            # Not after the last epoch: a run that was killed there repeats that epoch, and ends as it would have.
            with atomic_path(self.state.lightning) as part:
                trainer.save_checkpoint(part, weights_only=False)


def history_csv(history: list[dict[str, float]]) -> str:
    """Return the history as CSV, one row an epoch; a score is empty in an epoch without validation."""
    lines = [",".join(HISTORY_COLUMNS)]
    for row in history:
        cells = [format(row[name], HISTORY_FORMATS.get(name, ".6g")) if name in row else "" for name in HISTORY_COLUMNS]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def describe_epoch(row: dict[str, float], max_epochs: int, *, better: bool) -> str:
    """Return the epoch's line for console and log."""
    scores = f", validation MAE {row[MONITORED]:.2f} Gy in valid_dose" if MONITORED in row else ""
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
