"""The heartbeat of a training, and its stacks on request."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from doseledger.core.errors import BadInput, DoseledgerError, NotReady
from doseledger.core.files import read_json, write_json

BEAT_FILE = "heartbeat.json"
STACKS_FILE = "stacks.txt"
# What an interrupted training goes on from.
STATE_FILE = "last.ckpt"
# Holds the process id of the watchdog that started a training.
WATCHED_BY = "DOSELEDGER_WATCHED_BY"
# A beat costs a small file: steps shorter than this share one.
LEAST_SECONDS_BETWEEN_BEATS = 0.5

Phase = Literal["opens", "trains", "refused"]


@dataclass(frozen=True)
class Beat:
    """What a training says of itself.

    Parameters
    ----------
    count
        How many beats this process has given: what changes is alive. No clock, which may be set back.
    phase
        `opens` until the first batch is done, then `trains`; `refused` when it ended with an error that a person must
        mend.
    """

    pid: int
    count: int
    epoch: int
    step: int
    phase: Phase


def read_beat(file: Path) -> Beat | None:
    """Return the beat in a file; None if there is none, or it is no beat."""
    try:
        return Beat(**read_json(file))
    except (BadInput, TypeError):
        return None


def find_beat(state_root: Path, pid: int) -> tuple[Path, Beat] | None:
    """Return the folder of the resume state that a process works on, and its last beat; None if there is none yet."""
    for file in sorted(state_root.glob(f"*/*/{BEAT_FILE}")):
        beat = read_beat(file)
        if beat is not None and beat.pid == pid:
            return file.parent, beat
    return None


def describe_state(folder: Path) -> dict[str, str | int | None]:
    """Return of a run's resume state its model, its fingerprint, and epoch, step and process of its last beat."""
    beat = read_beat(folder / BEAT_FILE)
    reached = (beat.epoch, beat.step, beat.pid) if beat else (None, None, None)
    return {
        "model": folder.parent.name,
        "fingerprint": folder.name,
        **dict(zip(("epoch", "step", "pid"), reached, strict=True)),
    }


class Pulse:
    """Writes the beats of this process.

    Parameters
    ----------
    folder
        Of the resume state: outside the run's own, which a stage may empty.
    main
        Whether this process speaks for the training; of several that train together the one does that started the
        others. Their pulse is silent, but a refusal is written by any, in the first one's name.
    """

    def __init__(self, folder: Path, *, main: bool = True) -> None:
        self.folder, self.main = folder, main
        self.last = Beat(os.getpid() if main else os.getppid(), 0, 0, 0, "opens")
        self.last_s = -LEAST_SECONDS_BETWEEN_BEATS
        self.watchdog = int(os.environ[WATCHED_BY]) if main and WATCHED_BY in os.environ else None
        self._write(self.last)

    def beat(self, epoch: int, step: int, phase: Phase = "trains") -> None:
        """Say that this process is alive; twice within half a second is once.

        Raises
        ------
        NotReady
            If the watchdog that started this process is gone: nobody would end what it started.
        """
        if self.watchdog is not None and os.getppid() != self.watchdog:
            raise NotReady("the watchdog that started this training is gone; start it again to go on")
        if phase != self.last.phase or time.monotonic() - self.last_s >= LEAST_SECONDS_BETWEEN_BEATS:
            self._write(Beat(self.last.pid, self.last.count + 1, epoch, step, phase))

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Write down that it was an error for a person to mend that ended the block: to start again would not help."""
        try:
            yield
        except DoseledgerError:
            self.main = True
            self._write(Beat(self.last.pid, self.last.count + 1, self.last.epoch, self.last.step, "refused"))
            raise

    def _write(self, beat: Beat) -> None:
        self.last, self.last_s = beat, time.monotonic()
        if self.main:
            write_json(self.folder / BEAT_FILE, asdict(beat))


@contextmanager
def stacks_on_request(folder: Path) -> Iterator[None]:
    """Answer the signal USR1 with the stacks of all threads, appended to a file in the folder, while the block runs.

    Where there is no such folder, or no such signal, nothing is done.

    Notes
    -----
    faulthandler writes them in the signal handler itself, so that a thread which is stuck in C, or waits for a lock,
    is seen too; loader processes forked in the block answer as well.
    """
    if not hasattr(signal, "SIGUSR1") or not folder.is_dir():
        yield
        return
    with (folder / STACKS_FILE).open("a", encoding="utf-8") as stream:
        faulthandler.register(signal.SIGUSR1, file=stream, all_threads=True, chain=False)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGUSR1)
