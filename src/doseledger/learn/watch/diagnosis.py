"""Diagnosis of a hung training: processes, memory, GPU, stacks."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from doseledger.learn.watch.heartbeat import STACKS_FILE

SHARED_MEMORY = Path("/dev/shm")
GPU_QUERY = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,pstate"
# How long a process may take to begin with its stacks, and the driver to answer: one that hangs may be the cause.
STACKS_SECONDS = 5.0
GPU_SECONDS = 20.0
# Stacks that have not grown for so long are whole.
PAUSE_SECONDS = 0.2
SILENT = "none were written: who is stopped, or stuck in the kernel, can't write any"
GB = 1e9


def diagnose(words: str, pid: int, family: Iterable[psutil.Process], folder: Path | None) -> str:
    """Return the diagnosis of a training as text.

    Parameters
    ----------
    pid
        The training's main process.
    family
        It and all that it started.
    folder
        Of its resume state, where it writes its stacks when asked; None asks for none, as a process that does not
        know the question is ended by it.
    """
    members = sorted(family, key=lambda process: (process.pid != pid, process.pid))
    parts = [words]
    parts += ["", "Processes (the training first, then its loaders and ranks)", *map(_describe, members)]
    parts += ["", "Memory", *_memory(), "", "GPU", *_gpus()]
    stacks = "not asked for: it had given no sign of life yet" if folder is None else _stacks(members, folder)
    parts += ["", "Stacks", stacks]
    return "\n".join(parts) + "\n"


def _describe(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            times, memory = process.cpu_times(), process.memory_info()
            return (
                f"{process.pid} (of {process.ppid()}) {process.status()}, {process.num_threads()} threads, "
                f"{times.user + times.system:.1f} s of CPU, {memory.rss / GB:.2f} GB: {' '.join(process.cmdline())}"
            )
    except psutil.NoSuchProcess:
        return f"{process.pid} is gone"


def _memory() -> list[str]:
    seen = psutil.virtual_memory()
    lines = [f"{seen.available / GB:.1f} GB of {seen.total / GB:.1f} GB free"]
    if SHARED_MEMORY.is_dir():
        lines.append(f"{shutil.disk_usage(SHARED_MEMORY).free / GB:.2f} GB free in {SHARED_MEMORY}")
    return lines


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ["no nvidia-smi"]
    try:
        done = subprocess.run(
            [program, f"--query-gpu={GPU_QUERY}", "--format=csv"],
            capture_output=True, text=True, check=False, timeout=GPU_SECONDS,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        return [f"nvidia-smi gives no answer: {error}"]
    return (done.stdout or done.stderr).strip().splitlines()


def _stacks(members: list[psutil.Process], folder: Path) -> str:
    """The stacks of each process, asked one after the other: written at once, their lines would run into each other."""
    file = folder / STACKS_FILE
    parts = [f"Process {process.pid}\n{_stacks_of(process, file)}" for process in members if lives(process)]
    return "\n\n".join(parts) or SILENT


def _stacks_of(process: psutil.Process, file: Path) -> str:
    """Ask a process for its stacks; one that does not know the question is ended by it, as it would be next."""
    before = size = _size(file)
    until = time.monotonic() + STACKS_SECONDS
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGUSR1)
    while time.monotonic() < until and lives(process):
        time.sleep(PAUSE_SECONDS)
        last, size = size, _size(file)
        if before < last == size:
            break
    if size == before:
        return SILENT
    with file.open("rb") as stream:
        stream.seek(before)
        return stream.read().decode(errors="replace").strip()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def lives(process: psutil.Process) -> bool:
    """Return whether a process is still there, and not ended but unreaped."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
