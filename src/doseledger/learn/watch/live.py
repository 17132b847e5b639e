"""A training as it goes on: live.json and red flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doseledger.core.files import write_json
from doseledger.core.types import Tell
from doseledger.learn.watch.loggers import Row, Sink
from doseledger.learn.watch.red_flags import RedFlagLimits, red_flags

LIVE_FILE = "live.json"
# No clock in a file of the run: equal runs give equal bytes.
NOT_TOLD = frozenset({"seconds"})


class Live:
    """Tells of each epoch as it ends.

    Parameters
    ----------
    out
        Folder of the run, which gets live.json; `dvc metrics show` and `dvc exp show` read it.
    limits
        Of the red flags; None looks for none.
    """

    def __init__(self, out: Path, limits: RedFlagLimits | None, tell: Tell, sink: Sink | None = None) -> None:
        self.out, self.limits, self.tell, self.sink = out, limits, tell, sink
        self.told: set[tuple[str, str]] = set()

    def epoch_ended(self, history: Sequence[Row], best: Row, max_epochs: int) -> None:
        """Write the history's latest row where it can be seen, and say what is wrong with it."""
        flags = red_flags(history, self.limits) if self.limits else []
        value = live_metrics(history, best, max_epochs)
        write_json(self.out / LIVE_FILE, {**value, "red_flags": sorted(flag.name for flag in flags)})
        for flag in flags:
            # Once each, and again when it becomes an error.
            if (flag.name, flag.severity) not in self.told:
                self.tell(f"red flag ({flag.severity}) {flag.name}: {flag.message}")
            self.told |= {(flag.name, "warning"), (flag.name, flag.severity)}
        if self.sink is not None:
            self.sink(history[-1])


def live_metrics(history: Sequence[Row], best: Row, max_epochs: int) -> dict[str, Any]:
    """Return the latest of each number of a history, the best epoch's scores, and how far the run has come."""
    latest = {name: value for row in history for name, value in row.items() if name not in NOT_TOLD}
    epoch = int(latest.pop("epoch"))
    return {
        "epoch": epoch,
        "max_epochs": max_epochs,
        "percent_done": round(100.0 * epoch / max_epochs, 1),
        "latest": latest,
        "best": dict(best),
    }
