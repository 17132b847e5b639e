"""Cases against all others of their own cohort: what no limit of one case can see is far from the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.outliers import judge_outliers
from doseledger.gates.drift.case_inputs import measure_inputs
from doseledger.gates.limits import DataLimits

Healthy = Callable[[int], Case]


@pytest.fixture
def inputs(healthy: Healthy, protocol: Protocol) -> pd.DataFrame:
    """What a model is given of sixteen patients."""
    return pd.DataFrame([measure_inputs(healthy(number), protocol) for number in range(1, 17)]).set_index("case_id")


def test_one_patient_whose_image_is_24_hu_too_high_is_far_from_all_others(
    inputs: pd.DataFrame, healthy: Healthy, protocol: Protocol, limits: DataLimits
) -> None:
    findings, distances = judge_outliers(inputs, limits.outliers)
    assert findings == []
    assert [row["case_id"] for row in distances] == list(inputs.index)
    case = healthy(5)
    spoilt = measure_inputs(replace(case, ct_hu=case.ct_hu + np.int16(24)), protocol)
    table = pd.DataFrame([*inputs.drop(index="case_0005").reset_index().to_dict("records"), spoilt])
    findings, _ = judge_outliers(table.set_index("case_id"), limits.outliers)
    (error,) = [finding for finding in findings if finding.severity == "error"]
    assert (error.case_id, error.gate) == ("case_0005", "outlier")
    assert "_hu by +" in error.message


def test_two_patients_with_one_fault_do_not_hide_each_other(limits: DataLimits) -> None:
    rng = np.random.default_rng(1)
    names = [f"feature_{number}" for number in range(12)]
    table = pd.DataFrame(rng.standard_normal((24, 12)), columns=names, index=[f"case_{i:04d}" for i in range(24)])
    table.loc[["case_0003", "case_0017"], names[:6]] += 12.0
    findings, _ = judge_outliers(table, limits.outliers)
    assert [finding.case_id for finding in findings] == ["case_0003", "case_0017"]


def test_the_order_of_cases_and_a_feature_that_all_share_change_nothing(
    inputs: pd.DataFrame, limits: DataLimits
) -> None:
    _, distances = judge_outliers(inputs, limits.outliers)
    turned = inputs.iloc[::-1].assign(couch_mm=3.0)
    _, again = judge_outliers(turned, limits.outliers)
    assert {row["case_id"]: row["ratio"] for row in again} == pytest.approx(
        {row["case_id"]: row["ratio"] for row in distances}
    )
