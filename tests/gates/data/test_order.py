"""Order of lists that means nothing: a case's structures, targets and statistics in another order are judged alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import load_settings
from doseledger.evaluate.case import Yardsticks, evaluate_case
from doseledger.evaluate.summary import summarise
from doseledger.gates.data.distances import judge_distances
from doseledger.gates.data.fingerprints import take_fingerprint
from doseledger.gates.data.placement import measure_placement
from doseledger.gates.data.structures import judge_structures
from doseledger.gates.drift.case_inputs import measure_inputs
from doseledger.gates.features import measure_case
from doseledger.gates.limits import load_thresholds


def shuffled(case: Case, order: list[int]) -> Case:
    """The same case, its structures in another order, and its targets too."""
    return replace(
        case,
        structure_names=tuple(case.structure_names[k] for k in order),
        masks=np.ascontiguousarray(case.masks[order]),
        sdf_mm=np.ascontiguousarray(case.sdf_mm[order]),
        present=case.present[order],
        prescription_gy=dict(reversed(case.prescription_gy.items())),
    )


ORDERS = {"turned": [7, 6, 5, 4, 3, 2, 1, 0], "mixed": [3, 0, 7, 1, 5, 2, 6, 4]}


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def pair(request: pytest.FixtureRequest, make_case: Callable[..., Case]) -> tuple[Case, Case]:
    case = make_case("case_0001", seed=5)
    return case, shuffled(case, request.param)


def test_features_and_findings_hang_on_names_and_not_on_places(pair: tuple[Case, Case], repository: Path) -> None:
    cohort = repository / "validation/cohorts/phantom"
    protocol, limits = load_protocol(cohort / "protocol.yaml"), load_thresholds(Layout(repository, "phantom")).data
    for measure in (measure_case, measure_inputs):
        one, other = (measure(case, protocol) for case in pair)
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], nan_ok=True) or one[name] == other[name], name
    clip_mm = protocol.sdf_clip_mm
    judges: tuple[Callable[[Case], Any], ...] = (
        lambda case: judge_structures(case, protocol, limits),
        lambda case: judge_distances(case, clip_mm, limits.sdf),
    )
    for judge in judges:
        # The gate names the order itself: the network's channels hang on it.
        one, other = ([f for f in judge(case) if "in another order" not in f.message] for case in pair)
        assert sorted(one, key=str) == sorted(other, key=str)
    assert [f.gate for f in judge_structures(pair[1], protocol, limits) if "in another order" in f.message] == [
        "missing_channel"
    ]
    first, second = (measure_placement(case, protocol) for case in pair)
    for part, placement in first.items():
        assert (placement.fit, placement.best) == pytest.approx((second[part].fit, second[part].best))
        assert placement.where == second[part].where
    prints = [take_fingerprint(case) for case in pair]
    for name in vars(prints[0]):
        np.testing.assert_array_equal(getattr(prints[0], name), getattr(prints[1], name), err_msg=name)


def test_an_evaluation_hangs_on_names_and_its_summary_on_neither_order_of_cases(
    pair: tuple[Case, Case], repository: Path
) -> None:
    cohort = repository / "validation/cohorts/phantom"
    evaluate = load_settings(repository / "params.yaml").evaluate.model_copy(update={"verify_gamma_points": 2})
    yardsticks = Yardsticks(load_protocol(cohort / "protocol.yaml"), load_goals(cohort / "goals.yaml"), evaluate)
    assert pair[0].dose_gy is not None
    prediction = (pair[0].dose_gy * 0.97 + 0.5 * pair[0].body).astype(np.float32)
    found = [evaluate_case(case, prediction, yardsticks, np.random.default_rng(1)) for case in pair]
    assert found[0].row == pytest.approx(found[1].row, nan_ok=True)
    for table in ("dvh", "goals"):
        one, other = (sorted(getattr(each, table), key=str) for each in found)
        assert str(one) == str(other)
    cases = [
        replace(found[0], row={**found[0].row, "case_id": f"case_{n}", "mae_body_gy": 1.0 + 0.1 * n * n})
        for n in range(5)
    ]
    assert summarise(cases, np.random.default_rng(2)) == summarise(cases[::-1], np.random.default_rng(2))
