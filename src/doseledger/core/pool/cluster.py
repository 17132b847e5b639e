"""Pools that work on cases: this process, local processes, Dask and SLURM."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field, model_validator

from doseledger.core.errors import BadCase, BadInput, DoseledgerError, NotReady
from doseledger.core.project.layout import Machine, main_root
from doseledger.core.schema import Block, load_block

# Each worker works on one case with one thread; the pool is what is parallel.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
INSTALL = "pip install 'doseledger[scale]'"
# How long a scheduler may take to answer, in seconds.
PATIENCE_S = 10
# A SLURM job works on several cases, so that its start doesn't outweigh them; so many jobs come to each worker.
JOBS_A_WORKER = 4
POLL_S = 1.0
# How often SLURM's queue is asked, in seconds. A job that is not in it twice and shows no result
# was lost; not in it once it may have a result that a network drive is late with.
QUEUE_S = 30.0


class Scale(Block):
    """Where cases are worked on; it changes no result.

    Parameters
    ----------
    pool
        `here` (this process), `local` (processes of this machine), `dask` or `slurm`.
    workers
        Processes of `local`; jobs of `slurm` that run at once.
    address
        Of Dask's scheduler, `tcp://host:8786`; empty for other pools.
    slurm
        Options of sbatch by name, `time` (minutes) among them; `setup` is a list of shell lines.
    """

    pool: Literal["here", "local", "dask", "slurm"]
    workers: Annotated[int, Field(ge=1)]
    address: str
    slurm: dict[str, str | int | list[str]]

    @model_validator(mode="after")
    def _pool_is_named(self) -> Scale:
        if self.pool == "dask" and not self.address:
            raise ValueError("pool dask needs its scheduler's address, for example tcp://host:8786")
        if self.pool == "slurm" and "time" not in self.slurm:
            raise ValueError("pool slurm needs slurm.time: the minutes that a job may take")
        return self

    def asked(self, words: str | None) -> Scale:
        """Return the scale that a person asked for; what the words leave open is as it was.

        Parameters
        ----------
        words
            `here`, `local:4`, `dask:tcp://host:8786` or `slurm:20`; None changes nothing.

        Raises
        ------
        BadInput
            If it is none of these.
        """
        if words is None:
            return self
        pool, _, more = words.partition(":")
        given: dict[str, Any] = {"address": more} if pool == "dask" else {"workers": more}
        return load_block(Scale, self.model_dump() | {"pool": pool} | (given if more else {}), f"--scale {words}")

    def alone(self) -> Scale:
        """Return the scale at which no case can take another down with it."""
        return local(1) if self.pool == "local" else self


HERE = Scale(pool="here", workers=1, address="", slurm={})


def local(workers: int) -> Scale:
    """Return the scale of so many processes of this machine."""
    return HERE.model_copy(update={"pool": "local", "workers": workers})


@dataclass(frozen=True)
class Answer:
    """The result of one attempt at a case.

    Parameters
    ----------
    fault, trace
        What broke down that is no fault of the case, and its traceback.
    again
        Whether another attempt may end otherwise.
    stop
        What makes all further work futile: settings, say, that can't be read.
    """

    value: Any = None
    refusal: BadCase | None = None
    fault: str = ""
    trace: str = ""
    again: bool = False
    stop: DoseledgerError | None = None


Attempt = Callable[[tuple[Any, ...]], Answer]
Task = tuple[str, tuple[Any, ...]]
Answers = Iterator[tuple[str, Answer]]


def answers_of(attempt: Attempt, tasks: Sequence[Task], scale: Scale) -> Answers:
    """Yield each case and the answer of its attempt, as they come.

    Raises
    ------
    NotReady
        If the pool isn't there, or what it needs is not installed.
    """
    if not tasks:
        return
    if scale.pool == "here":
        for case_id, arguments in tasks:
            yield case_id, attempt(arguments)
    else:
        yield from {"local": _on_processes, "dask": _on_dask, "slurm": _on_slurm}[scale.pool](attempt, tasks, scale)


def _on_processes(attempt: Attempt, tasks: Sequence[Task], scale: Scale) -> Answers:
    """Yield answers of local processes; where one dies, those that ran are lost, and the others go on in a new pool."""
    waiting = deque(tasks)
    while waiting:
        workers = min(scale.workers, len(waiting))
        # spawn: a forked child would inherit the threads' locks of torch and OpenMP and may hang.
        context = multiprocessing.get_context("spawn")
        with _one_thread(), ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                yield from _of_one_pool(pool, attempt, waiting, workers)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _of_one_pool(pool: ProcessPoolExecutor, attempt: Attempt, waiting: deque[Task], workers: int) -> Answers:
    running: dict[Future[Answer], str] = {}
    broken = False
    while running or (waiting and not broken):
        # No more than there are processes: whoever runs while one of them dies is a suspect, and nobody else.
        while waiting and not broken and len(running) < workers:
            try:
                future = pool.submit(attempt, waiting[0][1])
            except BrokenProcessPool:
                broken = True
                break
            running[future] = waiting.popleft()[0]
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            error = future.exception()
            broken |= isinstance(error, BrokenProcessPool)
            yield running.pop(future), future.result() if error is None else _lost(error)


def _lost(error: BaseException, *, again: bool = True) -> Answer:
    """The answer where a worker gave none."""
    if isinstance(error, BrokenProcessPool):
        return Answer(fault="its process died; was it killed, or out of memory?", again=again)
    return Answer(fault=f"{type(error).__name__}: {error}", again=again)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _on_dask(attempt: Attempt, tasks: Sequence[Task], scale: Scale) -> Answers:
    """Yield answers of a Dask scheduler's workers; the tasks of one that dies go to others."""
    try:
        from dask.distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise NotReady(f"pool dask: dask is not installed here: {INSTALL}") from error
    try:
        client = Client(scale.address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NotReady(
            f"pool dask: no scheduler answers at {scale.address} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        if crowded := sorted(name for name, threads in client.nthreads().items() if threads > 1):
            raise NotReady(
                f"pool dask: {', '.join(crowded)} would work on several cases in one process; "
                "start workers with `dask worker --nthreads 1`, as many as there are cores"
            )
        key = uuid4().hex
        futures = {client.submit(attempt, args, key=f"{name}-{key}", pure=False): name for name, args in tasks}
        for future in as_completed(list(futures), loop=client.loop):
            if future.status == "cancelled":
                yield futures[future], Answer(fault="the scheduler was lost, or cancelled it", again=True)
                continue
            broken = future.exception()
            # Dask itself has tried it on several workers, each of which died.
            tired = isinstance(broken, KilledWorker)
            yield futures[future], future.result() if broken is None else _lost(broken, again=not tired)
            future.release()


def _on_slurm(attempt: Attempt, tasks: Sequence[Task], scale: Scale) -> Answers:
    """Yield answers of SLURM jobs, several cases a job; logs stay where a job was lost."""
    home = Machine(main_root()).slurm
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=home))
    size = max(1, len(tasks) // (scale.workers * JOBS_A_WORKER))
    batches = [tasks[first : first + size] for first in range(0, len(tasks), size)]
    jobs = dict(enumerate(slurm_executor(scale, folder).map_array(_Batch(attempt), batches)))
    sound, absent, lost, asked_s = True, set[str](), set[str](), time.monotonic()
    try:
        while jobs:
            if time.monotonic() >= asked_s + QUEUE_S:
                now_absent = _absent({job.job_id for job in jobs.values()})
                lost, absent, asked_s = absent & now_absent, now_absent, time.monotonic()
            for number, job in list(jobs.items()):
                is_done = job.done()
                if not is_done and job.job_id not in lost:
                    continue
                del jobs[number]
                if is_done and job.exception() is None:
                    yield from job.result()
                    continue
                sound = False
                for case_id, _ in batches[number]:
                    yield case_id, Answer(fault=f"its job ended without a result: {job.paths.stderr}", again=True)
            if jobs:
                time.sleep(POLL_S)
    finally:
        for job in jobs.values():
            job.cancel(check=False)
    if sound:
        shutil.rmtree(folder, ignore_errors=True)


def _absent(job_ids: set[str]) -> set[str]:
    """Return those jobs that are not in SLURM's queue; none where it does not answer.

    Where no accounts are kept, `sacct` and so submitit never say that a job ended.
    """
    command = ("squeue", "--noheader", "--array", "--me", "--format=%i")
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=QUEUE_S)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return job_ids - set(said.stdout.split()) if said.returncode == 0 else set()


@dataclass(frozen=True)
class _Batch:
    """Several cases, one after the other."""

    attempt: Attempt

    def __call__(self, tasks: Sequence[Task]) -> list[tuple[str, Answer]]:
        return [(case_id, self.attempt(arguments)) for case_id, arguments in tasks]


def slurm_executor(scale: Scale, folder: Path) -> Any:
    """Return submitit's executor, which writes the script that sbatch gets.

    Parameters
    ----------
    folder
        Gets scripts, logs, arguments and results; on a file system that all nodes share.

    Raises
    ------
    NotReady
        If submitit is not installed, or this is no node of a SLURM cluster.
    BadInput
        If an option is not of the wanted form.
    """
    try:
        import submitit
    except ImportError as error:
        raise NotReady(f"pool slurm: submitit is not installed here: {INSTALL}") from error
    try:
        executor = submitit.SlurmExecutor(folder=folder)
    except RuntimeError as error:
        raise NotReady(
            "pool slurm: there is no srun here; go to a node of the cluster from which one submits"
        ) from error
    names = submitit.SlurmExecutor._valid_parameters()
    options: dict[str, Any] = {name: value for name, value in scale.slurm.items() if name in names}
    others = {name: value for name, value in scale.slurm.items() if name not in names}
    lines = [*(f"export {name}={value}" for name, value in ONE_THREAD.items()), *options.pop("setup", [])]
    try:
        executor.update_parameters(
            **{"job_name": "doseledger", "wckey": None, **options},
            setup=lines,
            array_parallelism=scale.workers,
            additional_parameters=others,
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise BadInput(f"scale.slurm: {error}") from error
    return executor
