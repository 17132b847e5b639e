"""Numbers that a limit may be: just inside its range is taken, just outside refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from doseledger.core.schema import Block
from doseledger.gates import limits
from doseledger.gates.model.machine import Machine, describe_machine, judge_machine

SIGN = {"warning": 1.0, "error": 2.0, "source": "x"}
IMAGE = {
    "least_skin_fit": 0.5, "least_organ_fit": 0.5, "least_skin_share": 1.0, "least_organ_share": 1.0,
    "dose_share": SIGN, "least_dose_skin_share": 1.0, "slice_jump": SIGN, "most_slice_air_percent": 50.0,
    "most_dose_jump_gy": 5.0,
}  # fmt: skip
PREFLIGHT = {"max_loss_ratio": 0.5, "min_free_disk_gb": 2.0, "min_free_memory_gb": 1.0, "min_shared_memory_gb": 0.5}
METRIC = {"metric": "m", "operator": "<=", "limit": 1.0, "severity": "error"}
DRIFT = {"alpha": 0.01, "psi": 0.25, "hu_psi": 0.1, "far_ratio": 1.5}
PERCENT = ([0, 100], [-0.1, 100.1])
NOT_NEGATIVE = ([0, 1e6], [-1e-9])
# Block, its other fields, field, numbers that it may be, numbers that it may not be.
RANGES: list[tuple[type[Block], dict[str, Any], str, list[float], list[float]]] = [
    (limits.SdfLimits, {}, "max_wrong_percent", *PERCENT),
    (limits.BodyLimits, {"organ_outside_percent": 1.0}, "target_outside_percent", *PERCENT),
    (limits.DoseUnitLimits, {"high_factor": 2.0, "negative_gy": 0.01}, "low_factor", *NOT_NEGATIVE),
    (limits.NearCopyLimits, {"dose_correlation": 0.9}, "ct_correlation", [0.001, 0.999], [0, 1]),
    (limits.ImageLimits, IMAGE, "least_skin_fit", [0, 1], [-0.01, 1.01]),
    (limits.ImageLimits, IMAGE, "least_organ_fit", [0, 1], [-0.01, 1.01]),
    (limits.OutlierLimits, {"error_ratio": 3.0, "least_cases": 9}, "warning_ratio", [1], [0.99]),
    (limits.OutlierLimits, {"warning_ratio": 3.0, "least_cases": 9}, "error_ratio", [1], [0.99]),
    (limits.OutlierLimits, {"warning_ratio": 3.0, "error_ratio": 4.0}, "least_cases", [5], [4]),
    (limits.PreflightLimits, PREFLIGHT, "max_loss_ratio", [0.001, 0.999], [0, 1]),
    (limits.ShortcutLimit, METRIC, "above_cases", [0, 100], [-1]),
    (limits.ProbeLimits, {"red_auc": 0.8}, "warn_auc", [0.5, 1], [0.49, 1.01]),
    (limits.ProbeLimits, {"warn_auc": 0.6}, "red_auc", [0.5, 1], [0.49, 1.01]),
    (limits.DriftLimits, DRIFT, "alpha", [0.001, 0.499], [0, 0.5]),
    (limits.DriftLimits, DRIFT, "psi", [0.001], [0]),
    (limits.DriftLimits, DRIFT, "hu_psi", [0.001], [0]),
    (limits.DriftLimits, DRIFT, "far_ratio", [1], [0.99]),
    (limits.BadgeLimits, {}, "least_test_cases", [1], [0]),
]


@pytest.mark.parametrize(
    ("block", "others", "name", "inside", "outside"), RANGES, ids=lambda one: str(getattr(one, "__name__", one))[:24]
)
def test_a_limit_is_taken_inside_its_range_and_refused_outside(
    block: type[Block], others: dict[str, Any], name: str, inside: list[float], outside: list[float]
) -> None:
    for value in inside:
        assert getattr(block.model_validate({**others, "source": "x", name: value}), name) == value
    for value in outside:
        with pytest.raises(ValidationError, match=name):
            block.model_validate({**others, "source": "x", name: value})


def test_a_limit_holds_for_every_cohort_and_is_measured_unless_it_says_otherwise() -> None:
    plain = limits.ShortcutLimit.model_validate({**METRIC, "source": "x"})
    assert (plain.above_cases, plain.provisional) == (0, False)


GOOD = Machine("ext4", 2.0, 1.0, 0.5, has_nvidia_driver=True, torch_cuda="12.8", cuda_available=True)


@pytest.mark.parametrize(
    ("change", "gates"),
    [
        ({}, []), ({"free_disk_gb": 1.99}, ["disk"]), ({"free_memory_gb": 0.99}, ["memory"]),
        ({"shared_memory_gb": 0.49}, ["shared_memory"]), ({"shared_memory_gb": None}, []), ({"data_mount": "xfs"}, []),
        ({"torch_cuda": None}, ["cuda_build"]), ({"cuda_available": False}, ["cuda_build"]),
        ({"cuda_available": False, "has_nvidia_driver": False}, []),
        ({"torch_cuda": None, "has_nvidia_driver": False}, []),
    ],
)  # fmt: skip
def test_a_machine_has_as_much_as_is_wanted_or_is_named(change: dict[str, Any], gates: list[str]) -> None:
    wanted = limits.PreflightLimits.model_validate({**PREFLIGHT, "source": "x"})
    machine = Machine(**{**GOOD.__dict__, **change})
    assert [finding.gate for finding in judge_machine(machine, wanted, 1)] == gates


def test_a_machine_is_described_in_one_line() -> None:
    assert describe_machine(GOOD) == (
        "cases on ext4; free: 2.0 GB of disk, 1.0 GB of memory; /dev/shm 0.50 GB free; NVIDIA driver there; torch for "
        "CUDA 12.8; GPU seen"
    )
    bare = Machine("", 2.0, 1.0, None, has_nvidia_driver=False, torch_cuda=None, cuda_available=False)
    assert describe_machine(bare) == (
        "cases on an unknown file system; free: 2.0 GB of disk, 1.0 GB of memory; /dev/shm none; NVIDIA driver absent; "
        "torch for the CPU; GPU not seen"
    )
