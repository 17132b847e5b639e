"""Runs of models that take no steps: their log, and one epoch's result."""

from __future__ import annotations

from typing import Any

from doseledger.core.files import write_text
from doseledger.core.types import Tell
from doseledger.learn.run import DOSE_SCORES
from doseledger.learn.training.callbacks import history_csv
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint
from doseledger.learn.training.train import Places
from doseledger.learn.watch.live import Live
from doseledger.learn.watch.red_flags import RedFlagLimits


def begin_log(places: Places, tell: Tell) -> Tell:
    """Return what tells a line and writes it to the run's log, which begins anew."""
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        tell(line)
        write_text(places.out / "train.log", "\n".join(lines) + "\n")

    return log


def write_result(
    places: Places,
    checkpoint: Checkpoint,
    row: dict[str, Any],
    log: Tell,
    red_flags: RedFlagLimits | None,
) -> None:
    """Write history, both checkpoints and live numbers of a run whose only epoch has ended.

    Parameters
    ----------
    row
        The history's, with the scores of the checkpoint.
    """
    write_text(places.out / "history.csv", history_csv([row], DOSE_SCORES))
    for name in ("best", "last"):
        save_checkpoint(places.out / "checkpoints" / f"{name}.ckpt", checkpoint)
    Live(places.out, red_flags, log).epoch_ended([row], {"epoch": 1, **checkpoint.scores}, 1)
