"""Limits are typed, merged block by block over cohorts, say where they come from, and are kept by numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol
from doseledger.gates.features import measure_case
from doseledger.gates.limits import MetricLimit, ShortcutLimit, Thresholds, load_thresholds
from doseledger.gates.model.metrics import judge_gamma, judge_summary
from doseledger.ledger.runs.recompute import differs


def sources_in(value: Any, path: str = "") -> Iterator[tuple[Any, str]]:
    """Yield each block that says a source, and where that source stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key == "source":
            yield value, f"{path}source"
        else:
            yield from sources_in(item, f"{path}{key}.")


def put(layout: Layout, cohort: str, thresholds: Any = None, *, like: str | None = None) -> None:
    """Write a cohort's thresholds.yaml and cohort.yaml, where given; JSON is YAML too."""
    (layout.cohorts / cohort).mkdir(exist_ok=True)
    for name, value in (("thresholds", thresholds), ("cohort", like and {"like": like})):
        if value is not None:
            write_json(layout.cohorts / cohort / f"{name}.yaml", value)


def test_every_limit_must_say_where_it_comes_from(layout: Layout) -> None:
    thresholds = read_yaml(layout.cohorts / "phantom/thresholds.yaml")
    found = list(sources_in(thresholds))
    assert len(found) > 20
    unasked = []
    # A message lists so many faults at most.
    for start in range(0, len(found), 20):
        some = found[start : start + 20]
        said = [block["source"] for block, _ in some]
        for block, _ in some:
            block["source"] = "  "
        put(layout, "phantom", thresholds)
        with pytest.raises(BadInput, match="String should have at least 1 character") as caught:
            load_thresholds(layout)
        unasked += [path for _, path in some if f"{path}: String should" not in str(caught.value)]
        for (block, _), source in zip(some, said, strict=True):
            block["source"] = source
    assert unasked == []


@pytest.mark.parametrize("cohort", ["phantom", "prostate", "openkbp"])
def test_the_limits_that_ship_are_whole_and_hold_for_every_model(cohort: str, repository: Path) -> None:
    thresholds = load_thresholds(Layout(repository, cohort))
    for model in ("dose_unet", "a_model_of_tomorrow"):
        limits = [*thresholds.metrics_of(model), *thresholds.shortcuts_of(model), *thresholds.candidate]
        assert all(len(limit.source) > 10 for limit in limits)


def test_a_block_of_ones_own_wins_and_a_missing_one_comes_from_the_cohort_that_it_is_like(layout: Layout) -> None:
    others = load_thresholds(layout)
    probes = {"warn_auc": 0.6, "red_auc": 0.7, "source": "this clinic"}
    put(layout, "clinic", {"probes": probes}, like="phantom")
    own = load_thresholds(Layout(layout.root, "clinic"))
    assert own.probes.model_dump() == probes
    assert own.model_dump(exclude={"probes"}) == others.model_dump(exclude={"probes"})
    assert load_thresholds(layout) == others


def test_a_block_is_taken_as_a_whole_and_not_key_by_key(layout: Layout) -> None:
    put(layout, "clinic", {"probes": {"warn_auc": 0.6, "source": "x"}}, like="phantom")
    with pytest.raises(BadInput, match=r"clinic/thresholds\.yaml: probes\.red_auc: the key is missing"):
        load_thresholds(Layout(layout.root, "clinic"))


def test_limits_that_are_no_mapping_or_unknown_or_missing_are_refused(layout: Layout) -> None:
    put(layout, "phantom", [1, 2])
    with pytest.raises(BadInput, match=r"phantom/thresholds\.yaml: wanted a mapping of limits, found list"):
        load_thresholds(layout)
    put(layout, "alone", {"prbes": {}})
    with pytest.raises(BadInput, match="probes: the key is missing") as caught:
        load_thresholds(Layout(layout.root, "alone"))
    assert "prbes: Extra inputs are not permitted" in str(caught.value)


def test_an_unknown_cohort_is_told_the_nearest_name(layout: Layout) -> None:
    with pytest.raises(BadInput, match=r"cohort 'phantm' has no folder in .*; there are .*\. Did you mean phantom\?"):
        load_thresholds(Layout(layout.root, "phantm"))
    with pytest.raises(BadInput, match="cohort 'zzz' has no folder") as caught:
        load_thresholds(Layout(layout.root, "zzz"))
    assert "Did you mean" not in str(caught.value)


LIMIT = {"metric": "mae_body_gy", "operator": "<=", "limit": 3.0, "source": "the clinic"}
BEATEN = [
    {"metric": f"{name}_mae_ratio", "operator": "<=", "limit": 1.0, "source": "the clinic", "severity": "error"}
    for name in ("template", "distance")
]


def with_models(layout: Layout, **blocks: Any) -> Thresholds:
    put(layout, "clinic", blocks, like="phantom")
    return load_thresholds(Layout(layout.root, "clinic"))


def test_limits_under_a_models_name_hold_for_it_and_those_under_default_for_all_others(layout: Layout) -> None:
    metrics = {"dose_unet": [LIMIT | {"limit": 2.0}], "default": [LIMIT]}
    shortcuts = {"dose_unet": [{**item, "limit": 0.5} for item in BEATEN], "default": BEATEN}
    found = with_models(layout, metrics=metrics, shortcuts=shortcuts)
    assert [limit.limit for limit in found.metrics_of("dose_unet")] == [2.0]
    assert [limit.limit for limit in found.metrics_of("dose_mednext")] == [3.0]
    assert [limit.limit for limit in found.shortcuts_of("dose_unet")] == [0.5, 0.5]
    assert [limit.limit for limit in found.shortcuts_of("dose_mednext")] == [1.0, 1.0]


@pytest.mark.parametrize("limits", [{}, {"other": [LIMIT]}, {"dose_unet": [], "default": [LIMIT]}])
def test_a_model_without_limits_is_refused(limits: dict[str, Any], layout: Layout) -> None:
    found = with_models(layout, metrics=limits, shortcuts={"other": BEATEN})
    with pytest.raises(BadInput, match=r"no limits under metrics\.dose_unet, nor under metrics\.default"):
        found.metrics_of("dose_unet")
    with pytest.raises(BadInput, match=r"no limits under shortcuts\.dose_unet, nor under shortcuts\.default"):
        found.shortcuts_of("dose_unet")


@pytest.mark.parametrize("left", [0, 1])
def test_shortcut_limits_must_say_what_a_model_must_beat(left: int, layout: Layout) -> None:
    found = with_models(layout, shortcuts={"default": [BEATEN[left]]})
    with pytest.raises(BadInput, match=f"have no limit of {BEATEN[1 - left]['metric']}"):
        found.shortcuts_of("dose_unet")


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
    fields |= {"above_cases": 0, "provisional": False}
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
def test_gamma_may_be_off_by_a_millionth(difference: float, is_named: bool, layout: Layout) -> None:
    limits = load_thresholds(layout).evaluation
    row = {"case_id": "case_0001", "gamma_points_verified": 9, "gamma_largest_difference": difference}
    found = judge_gamma(pd.DataFrame([row]), limits)
    assert [finding.gate for finding in found] == (["gamma_differs"] if is_named else [])


@pytest.mark.parametrize(("alone_cc", "percent"), [(4.9, math.nan), (5.1, 105.0)])
def test_five_cc_beyond_hotter_targets_are_told_by_themselves(
    alone_cc: float, percent: float, make_case: Callable[..., Case], protocol: Protocol
) -> None:
    case = make_case()
    low, high = case.mask("PTV56"), case.mask("PTV70")
    kept = np.flatnonzero(low & ~high)[: math.ceil(alone_cc / case.grid.voxel_volume_cc)]
    masks = np.array(case.masks)
    alone = np.zeros(low.size, np.bool_)
    alone[kept] = True
    masks[case.structure_names.index("PTV56")] = high | alone.reshape(low.shape)
    dose_gy = np.where(high, 70.0, 56.0 * 1.05).astype(np.float32)
    row = measure_case(replace(case, masks=masks, dose_gy=dose_gy), protocol)
    assert row["PTV56_beyond_hotter_percent"] == pytest.approx(percent, nan_ok=True)
    assert "PTV70_beyond_hotter_percent" not in row
