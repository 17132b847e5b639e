"""Lines of progress: in a log as they are, on a terminal a bar with the time left."""

from __future__ import annotations

import atexit
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

COUNTED = re.compile(r"\[(\d+)/(\d+)\] (\S+)")


class Bar:
    """One bar at a time, below the lines that say more than that a case is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, line: str) -> None:
        """Draw a line like `[3/24] case_0003` as a bar; print any other, and what a counted one says besides."""
        counted = COUNTED.match(line)
        if counted is None or counted[0] != line:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if counted is None:
            return
        done, total = int(counted[1]), int(counted[2])
        progress = self._begun()
        if self._task is None:
            self._task = progress.add_task(counted[3], total=total)
        progress.update(self._task, completed=done, total=total, description=counted[3])
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None

    def _begun(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._progress.start()
        return self._progress


_bar: Bar | None = None


def tell(line: str) -> None:
    """Print a line of progress to stderr: stdout holds a command's result alone."""
    global _bar
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return
    if _bar is None:
        from rich.console import Console

        _bar = Bar(Console(stderr=True))
        atexit.register(_bar.close)
    _bar.show(line)
