"""The project's errors: whom it concerns, what is wrong, how to mend it."""

from __future__ import annotations

import re

# A damaged file may hold a value of megabytes, and a cohort thousands of faults: nobody reads more than this.
MOST_CHARACTERS = 10_000


def cut(text: str, most: int) -> str:
    """Return a text of at most so many letters: a longer one ends in an ellipsis."""
    return text if len(text) <= most else text[:most] + "…"


class DoseledgerError(Exception):
    """Base of all errors that a person can mend; the command line prints its message and exits 1.

    A message without end is cut, and ends in an ellipsis.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message, MOST_CHARACTERS))


class BadInput(DoseledgerError):
    """A setting, a file or an argument is not what the contract asks for."""


class BadCase(DoseledgerError):
    """One patient's data can't be used; the cohort goes on without it, and the gate decides.

    Parameters
    ----------
    reason
        What is wrong, what would be right, and how to mend it.
    """

    def __init__(self, case_id: str, reason: str) -> None:
        # A single file is the case itself, and is named once.
        named = re.match(rf"{re.escape(case_id)}(\.\w+)?: ", reason)
        super().__init__(reason if named else f"{case_id}: {reason}")
        self.case_id = case_id
        self.reason = cut(reason, MOST_CHARACTERS)

    def __reduce__(self) -> tuple[type[BadCase], tuple[str, str]]:
        # An exception with two arguments crosses a process border only when it says how to be rebuilt.
        return type(self), (self.case_id, self.reason)


class SkippedCase(BadCase):
    """A sound case outside the protocol (`skip_when`): listed with its reason, not a failure."""


class GateFailed(DoseledgerError):
    """A gate found something that stops the pipeline; its findings are on disk."""


class NotReady(DoseledgerError):
    """Something that must come first is missing or stale: a verdict, a split, a checkpoint."""


class LostCases(DoseledgerError):
    """Work on cases broke down, twice: a fault of program or machine, not of their data."""
