"""The resume state of a training, written as it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput
from doseledger.core.files import atomic_path
from doseledger.learn.training.archive import digest_of
from doseledger.learn.training.checkpoint import DIGEST
from doseledger.learn.training.ranks import BEGINNING, Start, Team, gather
from doseledger.learn.training.resume import ResumeState
from doseledger.learn.watch.loggers import LoggerName

# What of Lightning's checkpoint decides how a run goes on; the digest is of these.
SEALED = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks")


@dataclass(frozen=True)
class Kept:
    """What is kept of a training besides its own files; changes no number.

    Parameters
    ----------
    every_steps
        A resume state is written after so many steps of the optimiser; 0: as an epoch ends only.
    logger
        Which record is kept beside the resume states too; `csv` is history.csv alone.
    """

    every_steps: int = 0
    logger: LoggerName = "csv"


NOTHING_MORE = Kept()


class StepSeeds(pl.Callback):
    """Seeds torch anew for each batch, by (seed, epoch, batch, process).

    What a network draws as it trains (dropout) so depends on nothing that was drawn before.
    """

    def __init__(self, seed: int, team: Team) -> None:
        self.seed, self.team = seed, team

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed it."""
        key = np.random.SeedSequence([self.seed, trainer.current_epoch, batch_idx, self.team.rank])
        # torch takes a signed number.
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class StateKeeper(pl.Callback):
    """Writes the resume state: inside an epoch, as it ends, and when told to stop.

    It stands behind all callbacks whose state it keeps.

    Parameters
    ----------
    every_steps
        As in `Kept`.
    team
        The processes that train together: each hands in its part, the main one writes.
    """

    def __init__(self, state: ResumeState, every_steps: int, team: Team) -> None:
        self.state, self.every_steps, self.team = state, every_steps, team
        self.position: Start = BEGINNING
        self.last_step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make sure that all processes go on from the same place.

        Raises
        ------
        BadInput
            If some see an interrupted run's state and others don't.
        """
        if len(set(gather(self.state.found))) > 1:
            raise BadInput(
                "some of the processes see an interrupted run to go on from, others don't: the root of resume states "
                "must be one folder that all nodes share"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch to go on in, and how many of its batches are done."""
        return {"position": list(self.position)}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the digest of what decides how the run goes on into the state."""
        checkpoint[DIGEST] = _digest_of_state(checkpoint, self.state.lightning)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps from where a resumed run stands."""
        self.last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the state where it is due: only between two steps, as half a sum of gradients is kept nowhere."""
        step, last = trainer.global_step, batch_idx + 1 >= trainer.num_training_batches
        if step == self.last_step or last:
            return
        self.last_step = step
        due = bool(self.every_steps) and step % self.every_steps == 0
        # Of several processes each hears of it at a time of its own: they could not write together.
        if due or (trainer.received_sigterm and self.team.size == 1):
            self._write(trainer, (trainer.current_epoch, batch_idx + 1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it unless this was the last epoch: a run that was killed there repeats its end, and ends alike."""
        if trainer.current_epoch + 1 < int(trainer.max_epochs or 0) and not trainer.should_stop:
            self._write(trainer, (trainer.current_epoch + 1, 0))

    def _write(self, trainer: pl.Trainer, position: Start) -> None:
        self.position = position
        if not self.team.is_main:
            # It writes nothing, but hands in its part and waits for the others.
            trainer.save_checkpoint(self.state.lightning, weights_only=False)
            return
        with atomic_path(self.state.lightning) as part:
            trainer.save_checkpoint(part, weights_only=False)


def require_whole(state: Path) -> Start:
    """Return where an interrupted run stopped, if its state is as it was written.

    Raises
    ------
    BadInput
        If it can't be read, or is other than what it holds the digest of.
    """

    def refusal(reason: str) -> BadInput:
        return BadInput(
            f"{state}: the interrupted run can't go on, its state is damaged ({reason}); start from the beginning "
            f"with `doseledger train MODEL --fresh`, or delete {state.parent}"
        )

    with refuse_damage(refusal):
        content = torch.load(state, map_location="cpu", weights_only=True)
        said, found = content[DIGEST], _digest_of_state(content, state)
        epoch, n_batches = content["callbacks"][StateKeeper.__name__]["position"]
    if said != found:
        raise refusal("its weights, its optimiser's or its history are not those that were written")
    return int(epoch), int(n_batches)


def _digest_of_state(checkpoint: dict[str, Any], path: Path) -> str:
    return digest_of([checkpoint[name] for name in SEALED], path)
