"""Work over cases, whatever pool does it; faults gathered, nothing lost."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Generic, TypeVar

from doseledger.core.code import code_digest
from doseledger.core.errors import BadCase, BadInput, DoseledgerError, LostCases
from doseledger.core.pool.cluster import Answer, Scale, answers_of
from doseledger.core.types import Tell

Result = TypeVar("Result")
# Where so many cases break down and not one was done, it is the program that is broken, and no case is waited for.
MOST_BREAKDOWNS = 10


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of each case: its result, or the BadCase (SkippedCase included) that stopped it; sorted by case."""

    done: dict[str, Result]
    failed: dict[str, BadCase]

    def complete(self) -> dict[str, Result]:
        """Return the result of every case.

        Raises
        ------
        BadCase
            That of the first case that failed.
        """
        for error in self.failed.values():
            raise error
        return self.done


def over_cases(
    work: Callable[..., Result],
    cases: Mapping[str, tuple[Any, ...]],
    scale: Scale,
    *,
    tell: Tell,
    note: Callable[[Result], str] | None = None,
) -> Outcome[Result]:
    """Return what `work(*cases[case_id])` gave for every case, and which cases failed; the same at every scale.

    Parameters
    ----------
    work
        A function of a module, or a `partial` of one: other processes must be able to import it.
    tell
        Called with a line as each case ends, and as one is to be tried again.
    note
        What the line of a case that is done says of its result; None says nothing.

    Raises
    ------
    LostCases
        Naming the cases that broke down twice, by no fault of their own, after all others are done.
    DoseledgerError
        What else of ours but a BadCase the work raises: it holds for all cases, and stops the run.

    Notes
    -----
    A BadCase is an answer, and stands; unless the system failed beneath it, as a network drive may. Such a case, one
    that raised anything else and one whose worker died are tried again once all others have ended.
    """
    board: _Board[Result] = _Board(len(cases), tell, note)
    code = None if scale.pool in ("here", "local") else code_digest(_module_of(work))
    attempt = partial(try_case, work, code)
    again: dict[str, Answer] = {}
    for case_id, answer in answers_of(attempt, list(cases.items()), scale):
        if not answer.again:
            board.settle(case_id, answer)
            continue
        again[case_id] = answer
        tell(f"{case_id} is to be tried again: {answer.fault or answer.refusal} ({board.tally()})")
        if len(again) >= MOST_BREAKDOWNS and not board.done:
            board.lost = {name: found.fault or str(found.refusal) for name, found in again.items()}
            tell(answer.trace)
            raise board.breakdown("none was done")
    for case_id, answer in answers_of(attempt, [(name, cases[name]) for name in again], scale.alone()):
        board.settle(case_id, answer)
    if board.lost:
        raise board.breakdown("the others were done")
    return Outcome(dict(sorted(board.done.items())), dict(sorted(board.failed.items())))


def try_case(work: Callable[..., Any], code: str | None, arguments: tuple[Any, ...]) -> Answer:
    """Return the answer of one attempt; nothing is raised but what ends the process.

    Parameters
    ----------
    code
        Digest that the work's code must have where it runs; None asks for none.
    """
    if code is not None and code != _own_code(_module_of(work)):
        return Answer(fault="its worker runs other code than this process; restart the workers with this code")
    try:
        return Answer(work(*arguments))
    except BadCase as error:
        return Answer(refusal=error, again=_system_failed(error))
    except DoseledgerError as error:
        return Answer(stop=error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        return Answer(fault=fault, trace=traceback.format_exc(), again=True)


def _system_failed(error: BaseException) -> bool:
    """Whether an error of the operating system, which may pass, stands behind another one."""
    below = error.__cause__ or error.__context__
    # A file that isn't there, or is none of the kind, is a fact about the case.
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    if isinstance(below, (OSError, MemoryError)) and not isinstance(below, lasting):
        return True
    return below is not None and _system_failed(below)


def _module_of(work: Callable[..., Any]) -> str:
    return str((work.func if isinstance(work, partial) else work).__module__)


@cache
def _own_code(module: str) -> str:
    """Digest of a module's code as this process met it first: a worker may outlive an edit."""
    return code_digest(module)


@dataclass
class _Board(Generic[Result]):
    """State of each case: done, failed, lost; the rest is waiting."""

    n_cases: int
    tell: Tell
    note: Callable[[Result], str] | None
    done: dict[str, Result] = field(default_factory=dict)
    failed: dict[str, BadCase] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def settle(self, case_id: str, answer: Answer) -> None:
        """Note a case's last answer, and tell it."""
        if answer.stop is not None:
            raise answer.stop
        note = ""
        if answer.fault:
            self.lost[case_id], note = answer.fault, f": lost: {answer.fault}"
        elif answer.refusal is not None:
            self.failed[case_id], note = answer.refusal, f": {answer.refusal.reason}"
        else:
            self.done[case_id] = answer.value
            note = f": {self.note(answer.value)}" if self.note else ""
        ended = len(self.done) + len(self.failed) + len(self.lost)
        self.tell(f"[{ended}/{self.n_cases}] {case_id}{note}")
        if answer.trace:
            self.tell(answer.trace)

    def tally(self) -> str:
        """Return how many cases are done, failed and waiting."""
        done, failed = len(self.done), len(self.failed) + len(self.lost)
        return f"{done} done, {failed} failed, {self.n_cases - done - failed} waiting"

    def breakdown(self, others: str) -> LostCases:
        """Return the error that names the cases that were lost."""
        named = "; ".join(f"{case_id}: {fault}" for case_id, fault in sorted(self.lost.items()))
        return LostCases(
            f"{len(self.lost)} of {self.n_cases} cases broke down, {others}: {named}. That is no fault of their data. "
            "Look at the lines above; where memory ran out, give fewer workers (--scale local:1), and run it again"
        )


def take_shard(case_ids: list[str], shard: str | None) -> list[str]:
    """Return every n-th case from the i-th on, for `shard` "i/n" counted from 1 (a SLURM array needs no more).

    Raises
    ------
    BadInput
        If the shard is not of that form.

    Examples
    --------
    >>> take_shard(["a", "b", "c"], "2/2")
    ['b']
    """
    if shard is None:
        return case_ids
    part, slash, count = shard.partition("/")
    if not (slash and part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)):
        raise BadInput(f"shard {shard!r}: wanted i/n with 1 ≤ i ≤ n, for example 2/8")
    return case_ids[int(part) - 1 :: int(count)]
