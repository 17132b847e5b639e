"""The parity gate: limits kept and broken, and what can't be judged fails."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.gates.parity import judge_parity
from doseledger.parity.contract import Contract, ParityLimit, load_contract


def contract(repository: Path, *limits: tuple[str, str, str, float], part: str = "magnitude") -> Contract:
    loaded = load_contract(repository / "validation/contracts/ptychography.yaml")
    made = [
        ParityLimit(array=array, measure=measure, operator=operator, limit=limit, source="a test", part=part)  # type: ignore[arg-type]
        for array, measure, operator, limit in limits
    ]
    return loaded.model_copy(update={"parity": made})


def pair(file: str, array: str = "diff3d", part: str = "value", **measures: Any) -> dict[str, Any]:
    return {"file": file, "array": array, "part": part, "equal": False, **measures}


def test_every_file_is_held_to_the_limit_and_not_the_first_alone(repository: Path) -> None:
    rules = contract(repository, ("diff3d", "ssim", ">=", 0.9))
    rows = [pair("data_p1e3.npz", ssim=0.95), pair("data_p1e4.npz", ssim=0.9), pair("data_p1e9.npz", ssim=0.89)]
    verdict = judge_parity(rows, [], rules)
    assert not verdict.ok
    assert [f.message for f in verdict.errors] == ["data_p1e9.npz: diff3d: ssim >= 0.9 is not kept, found 0.89"]
    assert judge_parity(rows[:2], [], rules).ok


def test_what_can_not_be_judged_fails(repository: Path) -> None:
    rules = contract(repository, ("diff3d", "ssim", ">=", 0.9))
    assert "can't be judged" in judge_parity([pair("a.npz", ssim=math.nan)], [], rules).errors[0].message
    assert "can't be judged" in judge_parity([pair("a.npz")], [], rules).errors[0].message
    assert "no file of both sets has this array" in judge_parity([], [], rules).errors[0].message


def test_what_stands_alone_fails(repository: Path) -> None:
    rules = contract(repository, ("diff3d", "psnr_db", ">=", 40.0))
    verdict = judge_parity([pair("a.npz", psnr_db=math.inf)], ["b.npz: only in a"], rules)
    assert [(f.case_id, f.message) for f in verdict.errors] == [("b.npz", "b.npz: only in a")]


def test_values_that_only_one_side_has_fail_whatever_the_others_are(repository: Path) -> None:
    rules = contract(repository, ("diff3d", "largest_difference", "<=", 1.0))
    verdict = judge_parity([pair("a.npz", largest_difference=0.0, n_one_sided=3)], [], rules)
    assert [f.message for f in verdict.errors] == ["a.npz: diff3d: 3 values are finite in one of the two only"]


def test_a_limit_on_a_complex_array_is_on_its_magnitude_unless_it_says_phase(repository: Path) -> None:
    rows = [
        pair("a.npz", "probeGuess", "magnitude", largest_difference=0.1),
        pair("a.npz", "probeGuess", "phase", largest_difference=3.0),
    ]
    limit = ("probeGuess", "largest_difference", "<=", 1.0)
    assert judge_parity(rows, [], contract(repository, limit)).ok
    assert not judge_parity(rows, [], contract(repository, limit, part="phase")).ok


def test_a_gate_without_limits_judges_nothing(repository: Path) -> None:
    with pytest.raises(BadInput, match="has no limits under `parity`"):
        judge_parity([], [], contract(repository))


def test_the_digest_is_of_numbers_and_limits_and_not_of_words(repository: Path) -> None:
    rules = contract(repository, ("diff3d", "ssim", ">=", 0.9))
    reworded = rules.model_copy(update={"parity": [rules.parity[0].model_copy(update={"source": "other words"})]})
    rows = [pair("a.npz", ssim=0.95)]
    assert judge_parity(rows, [], rules).digest == judge_parity(rows, [], reworded).digest
    assert judge_parity(rows, [], rules).digest != judge_parity([pair("a.npz", ssim=0.96)], [], rules).digest
