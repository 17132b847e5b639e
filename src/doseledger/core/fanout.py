"""A function over cases: here, in local processes or on Dask; faults gathered."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.types import Tell as Tell

Result = TypeVar("Result")

# Each worker works on one case with one thread; the pool is what is parallel.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of each case: its result, or the BadCase (SkippedCase included) that stopped it; sorted by case."""

    done: dict[str, Result]
    failed: dict[str, BadCase]


def run_cases(
    function: Callable[..., Result],
    arguments: Mapping[str, tuple[Any, ...]],
    *,
    workers: int,
    cluster: str | None = None,
    tell: Tell,
) -> Outcome[Result]:
    """Return what `function(*arguments[case])` gave for every case, and which cases failed.

    Parameters
    ----------
    function
        A module-level function (it must be picklable).
    arguments
        Arguments by case id.
    workers
        0 runs in this process, n ≥ 1 in a pool of n processes.
    cluster
        Address of a Dask scheduler; used instead of the pool.
    tell
        Called with one line as each case ends.

    Raises
    ------
    Exception
        Anything but BadCase is a fault of ours, not of a case, and stops the run.
    """
    done: dict[str, Result] = {}
    failed: dict[str, BadCase] = {}

    def settle(case_id: str, outcome: Callable[[], Result]) -> None:
        try:
            done[case_id] = outcome()
        except BadCase as error:
            failed[case_id] = error
        note = f": {failed[case_id].reason}" if case_id in failed else ""
        tell(f"[{len(done) + len(failed)}/{len(arguments)}] {case_id}{note}")

    if workers == 0 and cluster is None:
        for case_id, args in arguments.items():
            settle(case_id, lambda args=args: function(*args))  # type: ignore[misc]
    else:
        with _executor(workers, cluster) as pool:
            futures: dict[Future[Result], str] = {pool.submit(function, *args): c for c, args in arguments.items()}
            try:
                for future in as_completed(futures):
                    settle(futures[future], future.result)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Outcome(dict(sorted(done.items())), dict(sorted(failed.items())))


@contextmanager
def _executor(workers: int, cluster: str | None) -> Iterator[Executor]:
    if cluster is not None:
        try:
            from dask.distributed import Client
        except ImportError as error:
            raise NotReady(
                "a cluster address was given, but dask is absent: pip install 'dask[distributed]'"
            ) from error
        with Client(cluster) as client:
            yield client.get_executor(pure=False)
        return
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        # spawn: a forked child would inherit the threads' locks of torch and OpenMP and may hang.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
