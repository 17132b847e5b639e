"""One damaged input under watch: which exception, how long, how much memory, what was written or run."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doseledger.core.errors import DoseledgerError

MOST_SECONDS = 10.0
MOST_BYTES = 2 << 30
# What never ends in C alone is ended by this clock, with its stack.
STUCK_SECONDS = 120.0
RUNS = frozenset({"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pty.spawn", "socket.connect"})
# Its writes are no part of the reading: compiled code.
COMPILED = (".nbc", ".nbi", ".pyc", ".tmp")


class TooLong(BaseException):
    """The clock of the processor ran out."""


class Watch:
    """Sees what Python's audit events say of writing and running while an input is read."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in RUNS and "git" not in str(args[:2]):
            self.seen.append(f"ran {event} {args[:2]!r}")
        elif event == "open" and isinstance(args[0], (str, bytes)) and self._writes(args[1], args[2]):
            self._place(event, args[0])
        elif event in ("os.mkdir", "os.remove", "os.symlink", "os.link", "os.truncate", "os.rename", "os.rmdir"):
            # A rename is written to its second path, a link made at it.
            self._place(event, args[1] if event in ("os.rename", "os.symlink", "os.link") else args[0])

    @staticmethod
    def _writes(mode: Any, flags: Any) -> bool:
        if isinstance(mode, str):
            return any(letter in mode for letter in "wax+")
        return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _place(self, event: str, path: Any) -> None:
        where = os.path.abspath(os.fsdecode(path))
        if not (where.startswith(f"{self.inside}{os.sep}") or where.startswith("/dev/") or where.endswith(COMPILED)):
            self.seen.append(f"{event} {where}")


WATCH = Watch()


@contextmanager
def bounded() -> Iterator[None]:
    """Bound processor time and memory of the block."""

    def stop(*_: object) -> None:
        raise TooLong

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGPROF, stop)
    faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, old)


def read_watched(read: Callable[[], Any], inside: Path, named: tuple[str, ...]) -> tuple[str, str, Any]:
    """Return how a reading ended (`ok`, `refused`, or what was wrong with it), in words, and what it returned.

    Parameters
    ----------
    read
        The reading.
    inside
        The only folder that may be written to.
    named
        One of these must be part of a refusal: who or what was refused.
    """
    WATCH.inside, WATCH.seen, started, value = inside, [], time.process_time(), None
    try:
        with bounded():
            value = read()
        outcome, words = "ok", ""
    except DoseledgerError as error:
        outcome, words = "refused", str(error)
        if not any(name in words for name in named):
            outcome = "unnamed"
        elif len(words) > 20_000:
            outcome = "endless words"
    except TooLong:
        outcome, words = "hang", traceback.format_exc(limit=-3)
    except MemoryError:
        outcome, words = "memory", traceback.format_exc(limit=-3)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, words = "foreign", traceback.format_exc(limit=-3)
    finally:
        WATCH.inside = None
    if WATCH.seen:
        outcome, words = "outside", f"{WATCH.seen[:3]} {words}"
    elif outcome in ("ok", "refused") and time.process_time() - started > MOST_SECONDS:
        outcome = "hang"
    return outcome, words, value
