"""The machine under a training: data folder, free space, GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from doseledger.gates.limits import PreflightLimits
from doseledger.gates.verdict import Finding, Severity

# Every patch is a read of a few small pieces: over one of these each costs a round trip. 9p is what WSL and some
# virtual machines mount their host's folders with.
SLOW_MOUNTS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "9p", "drvfs", "afs", "fuse.sshfs", "fuse.gcsfuse", "fuse.s3fs"}
)
CGROUP_LIMITS = ((Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),)
SHARED_MEMORY = Path("/dev/shm")
GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What was seen of a machine.

    Parameters
    ----------
    data_mount
        File system that the cases lie on, e.g. `ext4` or `9p`; empty if it can't be told.
    free_disk_gb, free_memory_gb
        Room where the run is written, and memory that may still be taken (a container's limit counts).
    shared_memory_gb
        Free room in /dev/shm; None where there is none.
    has_nvidia_driver
        Whether `nvidia-smi` is there.
    torch_cuda
        CUDA version that torch was built for; None for a CPU build.
    """

    data_mount: str
    free_disk_gb: float
    free_memory_gb: float
    shared_memory_gb: float | None
    has_nvidia_driver: bool
    torch_cuda: str | None
    cuda_available: bool


def look_at_machine(data: Path, out: Path) -> Machine:
    """Return what this machine is like for data in one folder and a run written to another."""
    import psutil
    import torch

    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    return Machine(
        data_mount=mount_type(data, ((part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True))),
        free_disk_gb=shutil.disk_usage(there).free / GB,
        free_memory_gb=min([psutil.virtual_memory().available, *_container_rooms()]) / GB,
        shared_memory_gb=shutil.disk_usage(SHARED_MEMORY).free / GB if SHARED_MEMORY.is_dir() else None,
        has_nvidia_driver=shutil.which("nvidia-smi") is not None,
        torch_cuda=torch.version.cuda,
        cuda_available=torch.cuda.is_available(),
    )


def mount_type(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """Return the type of the file system that a path lies on: of the deepest mount point above it.

    Examples
    --------
    >>> mount_type(Path("/mnt/c/cases"), [("/", "ext4"), ("/mnt/c", "9p"), ("/mnt/cases", "nfs")])
    '9p'
    """
    whole = path.resolve()
    above = [(len(Path(point).parts), kind) for point, kind in mounts if whole.is_relative_to(point)]
    return max(above, default=(0, ""))[1]


def _container_rooms() -> list[int]:
    """Bytes that a container may still take; empty where nothing limits it."""
    rooms = []
    for limit, used in CGROUP_LIMITS:
        try:
            rooms.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return rooms


def describe_machine(machine: Machine) -> str:
    """Return in one line what was seen of a machine, for the console: a verdict holds nothing of its host."""
    shared = "none" if machine.shared_memory_gb is None else f"{machine.shared_memory_gb:.2f} GB free"
    driver = "there" if machine.has_nvidia_driver else "absent"
    return (
        f"cases on {machine.data_mount or 'an unknown file system'}; free: {machine.free_disk_gb:.1f} GB of disk, "
        f"{machine.free_memory_gb:.1f} GB of memory; /dev/shm {shared}; NVIDIA driver {driver}; torch for "
        f"{'CUDA ' + machine.torch_cuda if machine.torch_cuda else 'the CPU'}; GPU "
        f"{'seen' if machine.cuda_available else 'not seen'}"
    )


def judge_machine(machine: Machine, limits: PreflightLimits, loader_workers: int) -> list[Finding]:
    """Return what of a machine will slow a training down or end it.

    Parameters
    ----------
    limits
        Least room.
    loader_workers
        Processes that load patches: they hand them over through shared memory.

    Notes
    -----
    The messages say what was wanted and not how much there is (`describe_machine` does): they are written down, and
    a number of the host would give other bytes each time.
    """
    found: list[tuple[str, Severity, str]] = []
    if machine.data_mount in SLOW_MOUNTS:
        message = (
            "the cases lie on a network mount or a host's folder: every patch is read over it, and a GPU will wait. "
            "Copy them to a local disk"
        )
        found.append(("slow_mount", "warning", message))
    if machine.free_disk_gb < limits.min_free_disk_gb:
        room = f"less disk is free than the wanted {limits.min_free_disk_gb:g} GB"
        found.append(("disk", "error", f"{room}: the checkpoints may not fit. Make room (`dvc gc` frees the cache)"))
    if machine.free_memory_gb < limits.min_free_memory_gb:
        room = f"less memory is free than the wanted {limits.min_free_memory_gb:g} GB"
        found.append(("memory", "warning", f"{room}: lower patch or batch size, or end other programs"))
    shared = machine.shared_memory_gb
    if loader_workers > 0 and shared is not None and shared < limits.min_shared_memory_gb:
        room = f"/dev/shm has less room than the wanted {limits.min_shared_memory_gb:g} GB for {loader_workers} loaders"
        found.append(("shared_memory", "warning", f"{room}: start the container with --shm-size=2g, or set workers: 0"))
    if machine.has_nvidia_driver and machine.torch_cuda is None:
        message = (
            "there is an NVIDIA driver, but torch is a CPU build: install torch from a CUDA index, or train slowly"
        )
        found.append(("cuda_build", "warning", message))
    elif machine.torch_cuda is not None and machine.has_nvidia_driver and not machine.cuda_available:
        message = "torch is built for CUDA, but sees no GPU: is the driver older than that CUDA?"
        found.append(("cuda_build", "warning", message))
    return [Finding(gate, "", severity, message) for gate, severity, message in found]
