"""A training under watch: ended when its heartbeat stops, and restarted.

Nothing is ended that the watchdog did not start: processes are known by id and time of birth, and the child's own are
found among its descendants and in the session that was opened for it. No process is ever looked for by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from doseledger.core.errors import NotReady
from doseledger.core.files import write_text
from doseledger.core.types import Tell
from doseledger.learn.watch.diagnosis import diagnose, lives
from doseledger.learn.watch.heartbeat import STATE_FILE, WATCHED_BY, Beat, find_beat

DIAGNOSES = "watchdog"
LOG_FILE = "train.log"
FRESH = "--fresh"

Why = Literal["done", "refused", "silent", "crashed", "told"]


@dataclass(frozen=True)
class WatchRules:
    """How patient a watchdog is.

    Parameters
    ----------
    silence_s
        A training without a new beat for so long is taken for dead.
    first_batch_s
        The same until its first batch is done: cases are opened and compared with their digests before that.
    tries
        Starts in a row after which it gives up: that finished no epoch and kept no state to go on from.
    ending_s
        How long processes may take to end by themselves when they are told to.
    """

    silence_s: float
    first_batch_s: float
    tries: int
    ending_s: float = 20.0
    poll_s: float = 1.0


@dataclass(frozen=True)
class Ending:
    """How one start of the training ended: why, in words, its exit status, and its last sign of life."""

    why: Why
    words: str
    status: int
    folder: Path | None
    beat: Beat | None


def watch(command: list[str], state_root: Path, rules: WatchRules, *, tell: Tell) -> int:
    """Return the exit status of a training that was started, watched, and started again as often as it helps.

    Parameters
    ----------
    command
        The training's command line; it resumes by itself.
    state_root
        Root of the resume states, below which it writes its heartbeat.

    Raises
    ------
    NotReady
        If it gives up, or was told to stop itself.
    """
    started, failures, reached, kept = 0, 0, 0, 0
    while True:
        started += 1
        ending = _run_once(command, state_root, rules)
        if ending.why in ("done", "refused"):
            return ending.status
        if ending.why == "told":
            raise NotReady("the watchdog was told to stop, and has stopped the training; start it again to go on")
        epoch = ending.beat.epoch if ending.beat else 0
        before, kept = kept, _kept_at(ending.folder)
        # From one start to the next an epoch was finished or a state kept: it goes on, however often it stumbles.
        failures, reached = (1 if epoch > reached or kept > before else failures + 1), max(epoch, reached)
        if ending.beat is not None:
            # The fresh start has been made; to make it again would throw away what was done since.
            command = [word for word in command if word != FRESH]
        goes_on = failures < rules.tries
        line = f"watchdog: {ending.words}; " + (
            f"starts it again ({failures} of {rules.tries} tries that kept nothing new)" if goes_on else "gives up"
        )
        tell(line)
        _log(ending.folder, line)
        if not goes_on:
            raise NotReady(
                f"the training was started {started} times and ended before its time each time; the last {failures} "
                f"kept nothing new. Last: {ending.words}. What it had done is kept: mend the cause, then start again"
            )


def _run_once(command: list[str], state_root: Path, rules: WatchRules) -> Ending:
    # In a session of its own: what is typed at the watchdog's terminal reaches the watchdog alone.
    environment = {**os.environ, WATCHED_BY: str(os.getpid())}
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    family: set[psutil.Process] = set()
    folder, beat = None, None
    # What a process of the same id left behind long ago is no sign of this one.
    stale = find_beat(state_root, child.pid)
    changed_s = time.monotonic()
    with _told_to_stop() as told:
        while not _has_ended(child.pid):
            family |= _family_of(child.pid)
            found = find_beat(state_root, child.pid)
            if found is not None and found != stale and found[1] != beat:
                (folder, beat), changed_s = found, time.monotonic()
            patience_s = rules.silence_s if beat is not None and beat.phase == "trains" else rules.first_batch_s
            if told():
                child.terminate()
                _wait(lambda: _has_ended(child.pid), rules.ending_s)
                status = _end(child, family, rules)
                return Ending("told", "told to stop", status, folder, beat)
            if time.monotonic() - changed_s > patience_s:
                words = f"no sign of life for {patience_s:g} s ({_place(beat)})"
                target = state_root / DIAGNOSES / f"{time.strftime('%Y%m%d_%H%M%S')}_{child.pid}.txt"
                write_text(target, diagnose(words, child.pid, family | _family_of(child.pid), folder))
                status = _end(child, family, rules)
                return Ending("silent", f"{words}; diagnosis in {target}", status, folder, beat)
            time.sleep(rules.poll_s)
    found = find_beat(state_root, child.pid)
    if found is not None and found != stale:
        folder, beat = found
    status = _end(child, family, rules)
    if status == 0:
        return Ending("done", "done", 0, folder, beat)
    phase = beat.phase if beat is not None else "opens"
    if phase == "refused" or (status > 0 and phase == "opens"):
        # One of several processes may refuse, and the main one end by the signal that this brings.
        return Ending("refused", f"ended with exit status {status}", max(status, 1), folder, beat)
    cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status} of no error of ours"
    return Ending("crashed", f"ended by {cause} ({_place(beat)})", status, folder, beat)


def _place(beat: Beat | None) -> str:
    if beat is None:
        return "before its first beat"
    return f"epoch {beat.epoch}, step {beat.step}, process {beat.pid}"


def _kept_at(folder: Path | None) -> int:
    """When the state was written that a training goes on from, in ns; 0 where there is none."""
    state = folder / STATE_FILE if folder is not None else None
    return state.stat().st_mtime_ns if state is not None and state.is_file() else 0


def _log(folder: Path | None, line: str) -> None:
    """Append a line to the log that the resumed run goes on with."""
    if folder is not None and folder.is_dir():
        with (folder / LOG_FILE).open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped, so that its process id is no one else's yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _family_of(pid: int) -> set[psutil.Process]:
    """The child, its descendants, and whoever of its session has outlived a parent."""
    family: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        family |= {main, *main.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == pid:
                family.add(process)
    return family


def _end(child: subprocess.Popen[bytes], family: Iterable[psutil.Process], rules: WatchRules) -> int:
    """End the child and all that it started, if anything of it is left, and return its exit status."""
    everyone = {*family, *_family_of(child.pid)}
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in filter(lives, everyone):
            with suppress(psutil.NoSuchProcess):
                end(process)
        _wait(lambda: not any(map(lives, everyone)), rules.ending_s)
    return child.wait()


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether a signal has asked the watchdog itself to stop."""
    heard: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in signals}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
