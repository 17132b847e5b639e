"""Rows of features against the suites that ship: what is out of range is named, with the reason that stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.core.grid import Grid
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.gates.features import describe_source, measure_case
from doseledger.gates.suites import judge_features, read_suite
from doseledger.gates.verdict import Finding, make_verdict
from doseledger.report.gate_pages import write_page

Make = Callable[[int], Case]


def with_dose(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    return replace(case, dose_gy=change(np.array(case.dose_gy)).astype(np.float32))


def hot_beyond_targets(case: Case) -> Case:
    spot = np.zeros(case.grid.shape_zyx, bool)
    spot[2:5, 18:21, 22:25] = True
    return with_dose(case, lambda dose: np.where(spot, 79.0, dose))


def low(mask: np.ndarray) -> np.ndarray:
    return np.indices(mask.shape)[0] < 8


# Each fault is in one case of a cohort of its own numbers; the suite must name that case and check.
FAULTS: dict[str, tuple[Callable[[Case], Case], str, str]] = {
    "no rescale intercept": (
        lambda c: replace(c, ct_hu=c.ct_hu + np.int16(1024)),
        "hu_range",
        "ct_median_body_hu is 10.*, wanted -150 to 120.*rescale intercept was not applied",
    ),
    "an image of one tenth": (lambda c: replace(c, ct_hu=c.ct_hu // np.int16(10)), "hu_range", "ct_min_hu is -100"),
    "an outline that is not of this image": (
        lambda c: replace(c, ct_hu=np.roll(c.ct_hu, 12, axis=2)),
        "body_fit",
        "body_air_percent is .*, wanted 0 to 12",
    ),
    "a rectum of a few voxels": (
        lambda c: replace(c, masks=np.stack([m & low(m) if n == 3 else m for n, m in enumerate(c.masks)])),
        "volume",
        "Rectum_volume_cc is .*, wanted 15 to 350",
    ),
    "a femur that is soft tissue": (
        lambda c: replace(c, ct_hu=np.where(c.mask("Femur_L"), 30, c.ct_hu).astype(np.int16)),
        "tissue",
        "Femur_L_median_hu is 30, wanted 80 to 1500",
    ),
    "a target that the dose misses": (
        lambda c: with_dose(c, lambda dose: np.roll(dose, 8, axis=0)),
        "coverage",
        "PTV70_v95_percent is .*, wanted at least 85.*frame of reference",
    ),
    "a hot plan": (lambda c: with_dose(c, lambda dose: 1.3 * dose), "dose_range", "dose_max_percent is 13"),
    "a hot target": (lambda c: with_dose(c, lambda dose: 1.16 * dose), "hot_spot", "PTV70_d2_percent is 1[12]"),
    "a plan of one level for both targets": (
        lambda c: with_dose(c, lambda dose: np.where(dose > 50.0, 70.0, dose)),
        "coverage",
        "PTV56_beyond_hotter_percent is 125, wanted 95 to 115.*one level",
    ),
    "a hot spot beyond the targets": (hot_beyond_targets, "hot_spot", "dose_beyond_targets_percent is 112.9"),
    "a low dose everywhere": (
        lambda c: with_dose(c, lambda dose: 0.8 * dose),
        "coverage",
        "PTV70_d95_percent is .*, wanted 88 to 108",
    ),
    "a dose beside the patient": (
        lambda c: with_dose(c, lambda dose: np.where(c.body, dose, 85.0)),
        "dose_outside_body",
        "dose_outside_valid_max_gy is 85, wanted at most 80",
    ),
    "voxels of a tenth": (
        lambda c: replace(c, grid=Grid(c.grid.shape_zyx, (0.6, 0.6, 0.6), c.grid.origin_mm)),
        "body_extent",
        "body_extent_x_mm is 26.4, wanted 220 to 650",
    ),
    "a dose all over the body": (
        lambda c: with_dose(c, lambda dose: np.maximum(dose, 45.0 * c.body)),
        "plan_sanity",
        "Femur_L_mean_gy is 45, wanted 0.5 to 40",
    ),
}  # fmt: skip


@pytest.fixture
def suite(repository: Path) -> list[dict[str, object]]:
    return read_suite(repository / "validation/cohorts/phantom/suite.json")


def test_the_suite_names_each_fault_and_no_healthy_case(
    healthy: Make, protocol: Protocol, suite: list[dict[str, object]]
) -> None:
    rows = [measure_case(healthy(i), protocol) | describe_source(healthy(i)) for i in range(1, 5)]
    names = {}
    for number, (fault, (spoil, _, _)) in enumerate(FAULTS.items(), 10):
        names[fault] = f"case_{number:04d}"
        rows.append({**measure_case(spoil(healthy(1)), protocol), "case_id": names[fault]})
    findings, results = judge_features(pd.DataFrame(rows), suite)
    assert len(results) == len(suite)
    assert not [finding for finding in findings if finding.case_id and finding.case_id < "case_0010"]
    for fault, (_, gate, message) in FAULTS.items():
        of_case = [finding for finding in findings if finding.case_id == names[fault]]
        assert any(f.gate == gate and re.search(message, f.message) for f in of_case), (fault, of_case)


def expectation(**changes: object) -> dict[str, object]:
    plain: dict[str, object] = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "x", "min_value": 1, "max_value": 2},
        "severity": "critical",
        "meta": {"gate": "volume", "notes": "because"},
    }
    return {**plain, **changes}


def test_a_column_that_is_not_there_is_an_error_and_not_a_pass() -> None:
    table = pd.DataFrame({"case_id": ["a"], "x": [1.5]})
    (finding,), _ = judge_features(table, [expectation(kwargs={"column": "y", "min_value": 1})])
    assert finding.gate == "suite_blind"
    assert 'y could not be judged (Error: The column "y" in BatchData does not exist' in finding.message


def test_an_expectation_that_the_library_does_not_know_is_an_error() -> None:
    table = pd.DataFrame({"case_id": ["a"], "x": [1.5]})
    (finding,), _ = judge_features(table, [expectation(type="expect_wonders")])
    assert (finding.gate, finding.severity) == ("suite_blind", "error")


def test_what_is_not_critical_is_a_warning_and_an_absent_structure_is_neither() -> None:
    table = pd.DataFrame({"case_id": ["a", "b"], "x": [9.0, float("nan")]})
    (finding,), (result,) = judge_features(table, [expectation(severity="info")])
    assert (finding.case_id, finding.severity) == ("a", "warning")
    assert finding.message == "a: x is 9, wanted 1 to 2. because"
    assert result["n_cases"] == 1


def test_an_expectation_of_the_whole_column_is_judged_too() -> None:
    table = pd.DataFrame({"case_id": ["a", "b"], "x": [1.0, 1.0]})
    item = expectation(type="expect_column_mean_to_be_between", kwargs={"column": "x", "min_value": 5})
    (finding,), _ = judge_features(table, [item])
    assert finding.message == "x of the cohort is 1, wanted at least 5. because"


COHORT = pd.DataFrame(
    {
        "case_id": ["a", "b", "c", "d"],
        "x": [1.0, 2.0, 9.0, float("nan")],
        "y": [0.0, 3.0, 1.0, 2.0],
        "kind": ["arc", "static", "arc", None],
    }
)
# What is wanted of the cohort above, and what the gate says of it.
KINDS: dict[str, tuple[str, dict[str, object], list[str]]] = {
    "a number of rows": (
        "expect_table_row_count_to_be_between",
        {"min_value": 5},
        ["expect_table_row_count_to_be_between of the cohort is 4, wanted at least 5. because"],
    ),
    "values that are there once": ("expect_column_values_to_be_unique", {"column": "case_id"}, []),
    "a value that is there twice": (
        "expect_column_values_to_be_unique",
        {"column": "kind"},
        ["a: kind is arc, wanted each value once. because", "c: kind is arc, wanted each value once. because"],
    ),
    "a value in each case": (
        "expect_column_values_to_not_be_null",
        {"column": "x"},
        ["d: x is absent, wanted a value. because"],
    ),
    "one column above another": (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "x", "column_B": "y", "ignore_row_if": "either_value_is_missing"},
        ["b: x is 2, y is 3, wanted x above y. because"],
    ),
    "a mean of the cohort": (
        "expect_column_mean_to_be_between",
        {"column": "x", "max_value": 3},
        ["x of the cohort is 4, wanted at most 3. because"],
    ),
    "one of a set": (
        "expect_column_values_to_be_in_set",
        {"column": "kind", "value_set": ["arc", "imrt"]},
        ["b: kind is static, wanted one of arc, imrt. because"],
    ),
    "two thirds within": (
        "expect_column_values_to_be_between",
        {"column": "x", "max_value": 5, "mostly": 0.66},
        [],
    ),
    "seven tenths within": (
        "expect_column_values_to_be_between",
        {"column": "x", "max_value": 5, "mostly": 0.7},
        ["x is beyond in 1 of the cases (c), wanted at most 5, in 70 % of the cases. because"],
    ),
    "only where a condition holds": (
        "expect_column_values_to_be_between",
        {"column": "x", "max_value": 1, "row_condition": "y >= 3", "condition_parser": "pandas"},
        ["b: x is 2, wanted at most 1, in the cases with y >= 3. because"],
    ),
}


def test_a_suite_of_every_kind_is_judged_in_one_go_and_in_its_own_order() -> None:
    items = [expectation(type=kind, kwargs=kwargs) for kind, kwargs, _ in KINDS.values()]
    findings, results = judge_features(COHORT, items)
    assert [finding.message for finding in findings] == [line for _, _, lines in KINDS.values() for line in lines]
    assert [row["ok"] for row in results] == [not lines for _, _, lines in KINDS.values()]
    assert [row["column"] for row in results][3:6] == ["x", "x and y", "x"]


def test_a_condition_that_can_not_be_read_is_an_error_and_not_a_pass() -> None:
    kwargs = {"column": "x", "min_value": 0, "row_condition": "no such thing", "condition_parser": "pandas"}
    (finding,), _ = judge_features(COHORT, [expectation(kwargs=kwargs)])
    assert (finding.gate, finding.severity) == ("suite_blind", "error")


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinite_feature_is_beyond_every_range(value: float) -> None:
    table = pd.DataFrame({"case_id": ["a"], "x": [value]})
    (finding,), _ = judge_features(table, [expectation(kwargs={"column": "x", "min_value": 1, "max_value": 2})])
    assert (finding.case_id, finding.gate) == ("a", "volume")


@pytest.mark.parametrize("cohort", ["phantom", "openkbp"])
def test_a_suite_that_ships_asks_for_what_every_case_must_have(cohort: str, repository: Path) -> None:
    items = read_suite(Layout(repository, cohort).suite)
    asked = {item["kwargs"].get("column") for item in items if item["type"] == "expect_column_values_to_not_be_null"}
    assert {"ct_median_body_hu", "dose_max_percent", "dose_body_mean_gy", "PTV70_d95_percent"} <= asked
    assert len({item["type"] for item in items}) >= 6


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "x", "kwargs": {}}, "expectation 0: wanted kwargs, meta, severity, type"),
        (expectation(severity="bad"), "severity 'bad', wanted one of critical"),
        (expectation(severity=["info"]), "severity \\['info'\\], wanted one of critical"),
        (expectation(meta=["volume"]), "needs its reason in meta.notes"),
        (expectation(meta={"gate": "volume"}), "needs its reason in meta.notes"),
    ],
)
def test_an_expectation_without_its_reason_is_refused(item: dict[str, object], message: str, tmp_path: Path) -> None:
    write_text(tmp_path / "suite.json", json.dumps({"name": "x", "expectations": [item]}))
    with pytest.raises(BadInput, match=message):
        read_suite(tmp_path / "suite.json")


@pytest.mark.parametrize("cohort", ["phantom", "prostate", "openkbp"])
def test_every_column_of_a_suite_that_ships_is_a_feature(
    cohort: str, repository: Path, healthy: Make, protocol: Protocol
) -> None:
    layout = Layout(repository, cohort)
    items = read_suite(layout.suite)
    wanted = {
        item["kwargs"][key] for item in items for key in ("column", "column_A", "column_B") if key in item["kwargs"]
    }
    shipped = load_protocol(layout.protocol)
    ends = ("volume_cc", "median_hu", "mean_gy")
    target_ends = ("d98_percent", "d95_percent", "d50_percent", "d2_percent", "v95_percent", "beyond_hotter_percent")
    features = {
        column for column in measure_case(healthy(1), protocol) if not column.startswith(protocol.structure_names)
    }
    features |= {f"{structure}_{end}" for structure in shipped.structure_names for end in ends}
    features |= {f"{target}_{end}" for target in shipped.prescription_gy for end in target_ends}
    assert wanted - {"case_id"} <= features | set(describe_source(healthy(1)))


def test_the_page_holds_the_findings_escaped_and_loads_nothing(repository: Path, tmp_path: Path) -> None:
    details = {
        "cohort": "phantom",
        "protocol": "prostate_sib",
        "counts": dict.fromkeys(
            ("cases", "patients", "skipped", "failed", "accepted", "locked", "folds", "train", "val", "test"), 0
        ),
        "optional": [],
        "expectations": [],
        "features": {"Rectum_volume_cc": {"n": 3, "min": 1.0, "median": 2.0, "max": 3.0}},
    }
    finding = Finding("volume", "case_0001", "error", "case_0001: <b>Rectum</b> is small")
    verdict = make_verdict("data", "abc123", [finding], details)
    write_page(verdict, repository / "reports" / "templates" / "data_findings.html.j2", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;Rectum&lt;/b&gt; is small" in page
    assert "abc123" in page
    assert "http" not in page
    assert "<script" not in page
    with pytest.raises(BadInput, match="can't be filled"):
        write_page(
            make_verdict("data", "d", [], {}),
            repository / "reports" / "templates" / "data_findings.html.j2",
            tmp_path / "x",
        )
