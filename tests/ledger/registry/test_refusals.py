"""Refusals of criteria and sweeps: what was given, what was wanted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_json
from doseledger.core.tables import CASES
from doseledger.ledger.registry import release as release_module
from doseledger.ledger.registry.criteria import CHECKS, Criterion, _refuse_unknown
from doseledger.ledger.registry.release import _test_set
from doseledger.ledger.runs.sweep import read_range


def criterion(**given: Any) -> Criterion:
    return Criterion(source="a test", **given)


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_a_criterion_is_given_what_its_check_needs_and_nothing_else(check: str) -> None:
    everything: dict[str, Any] = {"limit": 3.0, "metric": "mae_gy", "names": ["gates"]}
    needed = CHECKS[check][1]
    _refuse_unknown(criterion(check=check, **{name: everything[name] for name in needed}), "here")
    for name, value in everything.items():
        given = {key: everything[key] for key in needed - {name}} | ({} if name in needed else {name: value})
        words = f"here: {check} was given {', '.join(sorted(given)) or 'nothing'}, wanted"
        with pytest.raises(BadInput, match=words):
            _refuse_unknown(criterion(check=check, **given), "here")


def test_a_criterion_that_no_code_checks_is_refused() -> None:
    with pytest.raises(BadInput, match=r"here: no check 'luck'; there are .*gates_passed"):
        _refuse_unknown(criterion(check="luck"), "here")


@pytest.mark.parametrize(("text", "is_taken"), [
    ("lr=1e-4:1e-3", True), ("lr=1e-4:1e-3:log", True), ("lr=1e-3:1e-4", False), ("lr=1e-3:1e-3", False),
    ("lr=0:1", True), ("lr=0:1:log", False), ("lr=-1:1:log", False), ("lr=0.1:1:loud", False), ("lr=0.1:x", False),
])  # fmt: skip
def test_a_range_rises_and_is_above_0_where_it_is_logarithmic(text: str, is_taken: bool) -> None:
    if is_taken:
        found = read_range(text)
        assert (found.key, found.log) == ("lr", text.endswith(":log"))
        return
    with pytest.raises(BadInput, match="lr="):
        read_range(text)


def test_the_order_of_a_table_is_nothing_to_the_digest_of_a_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = pd.DataFrame({"pseudonym": ["p2"], "source_sha256": ["s3"]})
    cases = pd.DataFrame({"case_id": ["c1", "c2", "c3"], "source_sha256": ["s1", "s2", "s3"]})
    monkeypatch.setattr(release_module, "read_table", lambda path, schema: cases if schema is CASES else locked)
    anything: Any = SimpleNamespace(at=SimpleNamespace(layout=SimpleNamespace(test_set=None, cases_csv=None)))
    fold = pd.DataFrame({"case_id": ["c1", "c2", "c3", "c4"], "split": ["test", "test", "test", "train"],
                         "pseudonym": ["p1", "p2", "p3", "p4"], "sha256": ["b", "a", "c", "d"]})  # fmt: skip
    found = [_test_set(anything, SimpleNamespace(fold=table)) for table in (fold, fold[::-1])]  # type: ignore[arg-type]
    assert found[0] == found[1]
    assert found[0] == {"cases": 3, "locked": 1, "locked_by_digest": 1, "digest": sha256_of_json(["a", "b", "c"])}
