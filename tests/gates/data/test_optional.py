"""An optional structure that many cases have lost by its name fails the data gate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.layout import Layout
from doseledger.core.tables import STRUCTURES, write_table
from doseledger.gates.data.cohort import judge_cohort
from doseledger.gates.data.optional import judge_optional
from doseledger.gates.limits import DataLimits


def counted(**values: Any) -> pd.DataFrame:
    row = {"structure": "Bowel", "required": False, "cases": 9, "found": 4, "may_be_cases": 0, "may_be": ""}
    return pd.DataFrame([{**row, **values}])


@pytest.mark.parametrize(
    ("values", "severity", "message"),
    [
        ({"may_be_cases": 5, "may_be": '"Dünndarm" (5)'}, "error",
         r'Bowel: found in 4 of 9 cases; in 5 more an unclaimed ROI may be it: "Dünndarm" \(5\)'),
        ({"found": 0, "may_be_cases": 1, "may_be": '"Darm" (1)'}, "error", "found in 0 of 9 cases; in 1 more"),
        ({"may_be_cases": 4, "may_be": '"Darm" (4)'}, "warning", "found in 4 of 9 cases; in 4 more"),
        ({}, "warning", "found in 4 of 9 cases; no unclaimed ROI of the others is like it"),
        ({"found": 5}, None, ""),
        ({"found": 9}, None, ""),
        ({"found": 0, "cases": 0}, None, ""),
        ({"required": True}, None, ""),
    ],
)  # fmt: skip
def test_an_optional_structure_is_judged_by_those_who_draw_it(
    limits: DataLimits, values: dict[str, Any], severity: str | None, message: str
) -> None:
    findings = judge_optional(counted(**values), limits.optional_found)
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    for finding in findings:
        assert finding.gate == "optional_found"
        assert re.search(message, finding.message)


def test_the_data_gate_names_a_lost_structure_and_fails_without_its_table(
    write_cohort: Callable[[list[Case]], Layout], healthy: Callable[[int], Case]
) -> None:
    cohort = write_cohort([healthy(1)])
    table = cohort.cases / "structures.csv"
    write_table(table, counted(cases=1, found=0, may_be_cases=1, may_be='"Darm" (1)'), STRUCTURES)
    verdict = judge_cohort(cohort, {}, scale=HERE, tell=lambda line: None)
    assert "optional_found" in {finding.gate for finding in verdict.errors}
    assert verdict.details["optional"][0]["may_be"] == '"Darm" (1)'
    table.unlink()
    with pytest.raises(BadInput, match=r"structures\.csv: no such table; run the stage"):
        judge_cohort(cohort, {}, scale=HERE, tell=lambda line: None)
