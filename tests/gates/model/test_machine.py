"""What a machine lacks is said before a GPU is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from doseledger.core.project.layout import Layout
from doseledger.gates.limits import PreflightLimits, load_thresholds
from doseledger.gates.model.machine import Machine, describe_machine, judge_machine, look_at_machine, mount_type

GOOD = Machine("ext4", 100.0, 32.0, 8.0, has_nvidia_driver=True, torch_cuda="12.8", cuda_available=True)


@pytest.fixture
def limits(repository: Path) -> PreflightLimits:
    return load_thresholds(Layout(repository, "phantom")).preflight


def test_a_good_machine_has_no_finding(limits: PreflightLimits) -> None:
    assert judge_machine(GOOD, limits, loader_workers=4) == []


@pytest.mark.parametrize(
    ("change", "gate", "severity", "message"),
    [
        ({"data_mount": "9p"}, "slow_mount", "warning", "the cases lie on a network mount or a host's folder"),
        ({"data_mount": "nfs4"}, "slow_mount", "warning", "network mount"),
        ({"free_disk_gb": 0.4}, "disk", "error", "less disk is free than the wanted 2 GB"),
        ({"free_memory_gb": 0.7}, "memory", "warning", "less memory is free than the wanted"),
        ({"shared_memory_gb": 0.06}, "shared_memory", "warning", "/dev/shm has less room than the wanted"),
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


def test_what_is_written_down_of_a_short_machine_is_the_same_on_another_one(limits: PreflightLimits) -> None:
    one = replace(GOOD, data_mount="9p", free_disk_gb=0.41, free_memory_gb=0.73, shared_memory_gb=0.06)
    other = replace(GOOD, data_mount="nfs", free_disk_gb=1.3, free_memory_gb=0.2, shared_memory_gb=0.01)
    assert len(judge_machine(one, limits, loader_workers=4)) == 4
    assert judge_machine(one, limits, loader_workers=4) == judge_machine(other, limits, loader_workers=4)
    driver = (replace(GOOD, cuda_available=False, torch_cuda=cuda) for cuda in ("12.8", "11.8"))
    assert len({judge_machine(seen, limits, loader_workers=4)[0].message for seen in driver}) == 1


def test_the_console_is_told_the_numbers() -> None:
    told = describe_machine(replace(GOOD, data_mount="9p", free_disk_gb=0.4, shared_memory_gb=None, torch_cuda=None))
    assert "cases on 9p; free: 0.4 GB of disk, 32.0 GB of memory; /dev/shm none" in told
    assert "torch for the CPU" in told


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
