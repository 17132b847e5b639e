from __future__ import annotations

from pathlib import Path

import pytest

from doseledger.cli.deliver import _goals_beside
from doseledger.core.errors import BadInput
from doseledger.core.project.layout import Layout


@pytest.mark.parametrize(("cohort", "is_foreign", "has_goals"), [
    ("phantom", False, True), ("phantom", True, True), ("elsewhere", True, False),
])  # fmt: skip
def test_a_dose_is_held_to_the_goals_of_its_cohort_where_there_is_one(
    cohort: str, is_foreign: bool, has_goals: bool, repository: Path
) -> None:
    goals = _goals_beside(Layout(repository, cohort), Path("protocol.yaml") if is_foreign else None)
    assert (goals is not None) is has_goals


def test_a_cohort_that_is_not_there_is_refused_where_the_protocol_is_its_own(repository: Path) -> None:
    with pytest.raises(BadInput, match="cohort 'elsewhere' has no folder"):
        _goals_beside(Layout(repository, "elsewhere"), None)
