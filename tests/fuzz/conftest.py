"""What a fuzz run found, summed over its slices, at the end of the output."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print inputs, outcomes and peak memory a kind."""
    sums: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, found in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if name == "fuzz":
                    one = sums.setdefault(found.pop("kind"), Counter())
                    one["peak_mb"] = max(one["peak_mb"], found.pop("peak_mb"))
                    one.update(found)
    for kind, counts in sums.items():
        terminalreporter.write_line(f"fuzz {kind}: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
