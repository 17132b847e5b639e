"""Refusals of the nouns: what was found, what was wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.core.grid import box_around
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import check_table


@pytest.fixture
def protocol(repository: Path) -> Protocol:
    return load_protocol(repository / "validation/cohorts/prostate/protocol.yaml")


def test_a_case_names_the_structures_that_it_knows(make_case: Callable[..., Case]) -> None:
    with pytest.raises(BadInput, match="case_0001: no structure Liver; there are PTV70, PTV56, Prostate"):
        make_case().mask("Liver")


def test_a_protocol_names_the_structures_that_it_has(protocol: Protocol) -> None:
    with pytest.raises(BadInput, match=r"has no structure Liver; it has .*Rectum"):
        protocol.structure("Liver")


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(BadInput, match="an empty mask has no box"):
        box_around(np.zeros((2, 3, 4), np.bool_), (1, 1, 1))


@pytest.mark.parametrize(("n", "n_told", "more"), [(10, 10, ""), (11, 10, "; and 1 more"), (13, 10, "; and 3 more")])
def test_ten_faults_of_a_table_are_told_and_the_others_counted(n: int, n_told: int, more: str) -> None:
    schema = pa.DataFrameSchema({"dose_gy": pa.Column(float, pa.Check.ge(0.0))}, name="doses")
    with pytest.raises(BadInput) as told:
        check_table(pd.DataFrame({"dose_gy": [-1.0 - i for i in range(n)]}), schema, "doses.csv")
    text = str(told.value)
    assert text.startswith("doses.csv: not a doses table: dose_gy: ")
    assert "found -1.0 in row 0" in text
    assert text.count(" in row ") == n_told
    assert text.endswith(more or f"in row {n - 1}")


@pytest.mark.parametrize(("change", "message"), [
    ({"prescription_gy": {}}, "a protocol with rtdose needs prescription_gy"),
    ({"prescription_gy": {"Liver": 50.0}}, "Liver named, but not among the structures"),
])  # fmt: skip
def test_a_protocol_that_contradicts_itself_is_refused(
    change: dict[str, Any], message: str, repository: Path, tmp_path: Path
) -> None:
    value = read_yaml(repository / "validation/cohorts/prostate/protocol.yaml")
    write_json(tmp_path / "protocol.yaml", {**value, **change})
    with pytest.raises(BadInput, match=message):
        load_protocol(tmp_path / "protocol.yaml")
