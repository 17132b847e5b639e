"""Refusals of the gates: how many errors, which are shown, and what a stack lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import write_npz
from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import write_json
from doseledger.gates.drift.stacks import read_stack
from doseledger.gates.verdict import Finding, enforce, make_verdict, passed_token


@pytest.mark.parametrize("n", [1, 10, 11, 40])
def test_a_failed_gate_tells_its_first_errors_and_counts_the_rest(n: int, tmp_path: Path) -> None:
    found = [Finding("volume", f"case_{k}", "error", f"too small {k}.", {}) for k in range(n)]
    verdict = make_verdict("data", "digest", [*found, Finding("outlier", "", "warning", "odd", {})], {})
    with pytest.raises(GateFailed) as told:
        enforce(verdict, tmp_path / "found.json")
    lines = str(told.value).splitlines()
    assert lines[0] == f"the data gate found {n} error(s):"
    assert lines[-1] == f"All findings: {tmp_path / 'found.json'}"
    shown = [line for line in lines if line.startswith("  - [volume] too small")]
    left = n - len(shown)
    assert ([line for line in lines if "more" in line] == [f"  - and {left} more"]) is (left > 0)
    assert len(lines) == 2 + len(shown) + (left > 0)
    with pytest.raises(GateFailed) as told:
        enforce(verdict)
    assert "All findings" not in str(told.value)


def test_only_a_token_that_says_yes_lets_a_stage_run(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with pytest.raises(NotReady, match=r"the data gate has not judged yet: no .*data\.json"):
        passed_token(path, "data")
    write_json(path, {"ok": True})
    with pytest.raises(NotReady, match="is no token of a gate"):
        passed_token(path, "data")
    for no in (False, 1, "true", None):
        write_json(path, {"ok": no, "digest": "d"})
        with pytest.raises(GateFailed, match=r"data\.json: the data gate failed; read its findings and mend"):
            passed_token(path, "data")
    write_json(path, {"ok": True, "digest": "d"})
    assert passed_token(path, "data") == {"ok": True, "digest": "d"}


IMAGES, LABELS = np.zeros((6, 4, 4)), np.arange(6) % 2


@pytest.mark.parametrize(("arrays", "message"), [
    ({"groups": LABELS}, "has no images and no labels; wanted images, labels and, where known, groups"),
    ({"images": IMAGES}, "has no labels; wanted"),
    ({"images": IMAGES[0], "labels": LABELS}, r"images are \(4, 4\), wanted \(n, y, x\) or \(n, z, y, x\)"),
    ({"images": IMAGES, "labels": LABELS[1:]}, r"6 images, but labels are \(5,\)"),
    ({"images": IMAGES, "labels": LABELS, "groups": LABELS[:, None]}, r"6 images, but groups are \(6, 1\)"),
    ({"images": IMAGES + np.nan, "labels": LABELS}, "an image holds NaN or infinity"),
])  # fmt: skip
def test_a_stack_that_can_not_be_probed_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_npz(tmp_path / "stack.npz", arrays)
    with pytest.raises(BadInput, match=message):
        read_stack(tmp_path / "stack.npz")


def test_a_stack_of_volumes_with_groups_is_read(tmp_path: Path) -> None:
    write_npz(tmp_path / "stack.npz", {"images": IMAGES[:, None], "labels": LABELS, "groups": LABELS + 4})
    stack = read_stack(tmp_path / "stack.npz")
    assert stack.images.shape == (6, 1, 4, 4)
    assert stack.groups is not None
    assert (stack.labels.tolist(), stack.groups.tolist()) == ([0, 1, 0, 1, 0, 1], [4, 5, 4, 5, 4, 5])
