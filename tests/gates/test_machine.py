"""What a machine lacks is said before a GPU is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doseledger.gates.limits import PreflightLimits, load_thresholds
from doseledger.gates.machine import Machine, judge_machine, look_at_machine, mount_type

GOOD = Machine("ext4", 100.0, 32.0, 8.0, has_nvidia_driver=True, torch_cuda="12.8", cuda_available=True)


@pytest.fixture
def limits(repository: Path) -> PreflightLimits:
    return load_thresholds(repository / "validation" / "thresholds.yaml").preflight


def test_a_good_machine_has_no_finding(limits: PreflightLimits) -> None:
    assert judge_machine(GOOD, limits, loader_workers=4) == []


@pytest.mark.parametrize(
    ("change", "gate", "severity", "message"),
    [
        ({"data_mount": "9p"}, "slow_mount", "warning", "the cases lie on a 9p mount"),
        ({"data_mount": "nfs4"}, "slow_mount", "warning", "nfs4 mount"),
        ({"free_disk_gb": 0.4}, "disk", "error", "0.4 GB of disk are free, wanted 2"),
        ({"free_memory_gb": 0.7}, "memory", "warning", "0.7 GB of memory are free"),
        ({"shared_memory_gb": 0.06}, "shared_memory", "warning", "/dev/shm has 0.06 GB free"),
        ({"torch_cuda": None, "cuda_available": False}, "cuda_build", "warning", "torch is a CPU build"),
        ({"cuda_available": False}, "cuda_build", "warning", "sees no GPU"),
    ],
)
def test_the_gate_warns_of(
    change: dict[str, object], gate: str, severity: str, message: str, limits: PreflightLimits
) -> None:
    (finding,) = judge_machine(replace(GOOD, **change), limits, loader_workers=4)  # type: ignore[arg-type]
    assert (finding.gate, finding.severity) == (gate, severity)
    assert message in finding.message


def test_small_shared_memory_does_not_matter_without_loader_processes(limits: PreflightLimits) -> None:
    assert judge_machine(replace(GOOD, shared_memory_gb=0.01), limits, loader_workers=0) == []


def test_a_machine_without_a_gpu_is_no_fault(limits: PreflightLimits) -> None:
    plain = replace(GOOD, has_nvidia_driver=False, torch_cuda=None, cuda_available=False)
    assert judge_machine(plain, limits, loader_workers=4) == []


def test_the_deepest_mount_counts_and_not_the_longest_name() -> None:
    mounts = [("/", "ext4"), ("/srv/data", "nfs"), ("/srv/database", "xfs")]
    assert mount_type(Path("/srv/data/cases"), mounts) == "nfs"
    assert mount_type(Path("/srv/database/cases"), mounts) == "xfs"
    assert mount_type(Path("/home"), []) == ""


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    machine = look_at_machine(tmp_path, tmp_path / "not" / "yet" / "there")
    assert machine.free_disk_gb > 0
    assert machine.free_memory_gb > 0
