"""Limits are typed, say where they come from, and are kept by numbers alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.gates.limits import MetricLimit, ShortcutLimit, load_thresholds
from doseledger.gates.model.metrics import judge_gamma, judge_summary
from doseledger.ledger.runs.recompute import differs


def blank_sources(value: Any, path: str = "") -> Iterator[str]:
    """Blank every source in place, and yield where it stood."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        if key == "source":
            value[key] = "  "
            yield f"{path}source"
        else:
            yield from blank_sources(item, f"{path}{key}.")


def test_every_limit_must_say_where_it_comes_from(repository: Path, tmp_path: Path) -> None:
    thresholds = read_yaml(repository / "validation" / "thresholds.yaml")
    where = list(blank_sources(thresholds))
    assert len(where) > 20
    write_json(tmp_path / "thresholds.yaml", thresholds)
    with pytest.raises(BadInput, match="String should have at least 1 character") as caught:
        load_thresholds(tmp_path / "thresholds.yaml")
    assert [path for path in where if f"{path}: String should" not in str(caught.value)] == []


@pytest.mark.parametrize("kind", [MetricLimit, ShortcutLimit])
@pytest.mark.parametrize(
    ("operator", "value", "is_met"),
    [
        ("<=", 3.0, True), ("<=", 3.0001, False), (">=", 3.0, True), (">=", 2.9999, False),
        *((operator, value, False) for operator in ("<=", ">=") for value in (math.nan, math.inf, -math.inf)),
    ],
)  # fmt: skip
def test_a_metric_keeps_its_limit_only_where_it_is_a_number(
    kind: type[MetricLimit], operator: str, value: float, is_met: bool
) -> None:
    fields = {"metric": "mae_body_gy", "operator": operator, "limit": 3.0, "source": "a test", "severity": "error"}
    limit = kind.model_validate({name: fields[name] for name in kind.model_fields})
    assert limit.is_met(value) is is_met


@pytest.mark.parametrize(("off", "is_named"), [(1.9e-6, False), (2.1e-6, True)])
def test_a_summary_may_be_off_by_its_rounding(off: float, is_named: bool) -> None:
    rows = pd.DataFrame({"case_id": ["case_0001"], "mae_body_gy": [2.0]})
    found = judge_summary({"mae_body_gy": 2.0 + off, "n_cases": 1}, rows)
    assert [finding.gate for finding in found] == (["summary_stale"] if is_named else [])
    assert differs(2.0 + off, 2.0) is is_named


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_summary_without_a_number_is_not_the_mean_of_its_cases(value: float) -> None:
    rows = pd.DataFrame({"case_id": ["case_0001"], "mae_body_gy": [2.0]})
    assert [f.gate for f in judge_summary({"mae_body_gy": value, "n_cases": 1}, rows)] == ["summary_stale"]


@pytest.mark.parametrize(
    ("difference", "is_named"), [(9.9e-7, False), (1.1e-6, True), (math.nan, True), (math.inf, True)]
)
def test_gamma_may_be_off_by_a_millionth(difference: float, is_named: bool, repository: Path) -> None:
    limits = load_thresholds(repository / "validation" / "thresholds.yaml").evaluation
    row = {"case_id": "case_0001", "gamma_points_verified": 9, "gamma_largest_difference": difference}
    found = judge_gamma(pd.DataFrame([row]), limits)
    assert [finding.gate for finding in found] == (["gamma_differs"] if is_named else [])
