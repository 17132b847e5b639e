"""A drill finds the detection limits that are known by construction, and leaves the cohort as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, sha256_of_file, write_json
from doseledger.core.pool.cluster import HERE, local
from doseledger.core.project.layout import Layout
from doseledger.gates.digests import data_digest
from doseledger.gates.drill import healthy as healthy_module
from doseledger.gates.drill.cohort import drill
from doseledger.gates.drill.faults import FAULTS, choose_faults
from doseledger.gates.drill.healthy import read_healthy
from doseledger.gates.drill.limits import summarise_fault
from doseledger.report.tables.drill_tables import drill_table

Make = Callable[[int], Case]


@pytest.fixture
def cohort(write_cohort: Callable[[list[Case]], Layout], healthy: Make) -> Layout:
    return write_cohort([healthy(i) for i in range(1, 7)])


def drilled(layout: Layout, *faults: str, n_cases: int = 2, seed: int = 1) -> dict[str, Any]:
    return drill(layout, n_cases, faults, seed, scale=HERE, tell=lambda line: None)


def fault_in(result: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (fault for fault in result["faults"] if fault["name"] == name)
    return found


def with_parity(layout: Layout, parity: dict[str, Any] | None) -> Layout:
    """The cohort held to other limits of parity."""
    path = layout.folders[0] / "thresholds.yaml"
    value = read_yaml(path)
    value["data"]["parity"] = parity
    write_json(path, value)  # JSON is YAML too
    return layout


def parity_of(d95_gy: float) -> dict[str, Any]:
    return {
        "target_d95_gy": d95_gy, "organ_mean_gy": 1000.0, "volume_percent": 1000.0, "min_volume_cc": 5.0,
        "source": "a test",
    }  # fmt: skip


@pytest.mark.parametrize("limit_gy", [0.5, 1.0])
def test_a_dose_scaled_after_ingest_is_seen_from_the_limit_per_d95_on(
    limit_gy: float, cohort: Layout, healthy: Make
) -> None:
    result = drilled(with_parity(cohort, parity_of(limit_gy)), "dose_scaled_later", "dose_high")
    found = fault_in(result, "dose_scaled_later")
    d95_gy = [d95(healthy(int(case_id[-1]))) for case_id in result["cases"]]
    # The scale at which the D95% of the main target has moved by the limit, in percent.
    wanted = 100.0 * limit_gy / min(d95_gy)
    assert found["seen_in_all"] == min(size for size in found["sizes"] if size > wanted)
    assert found["gates"] == {"parity": found["seen_in_half"]}
    # Before ingest the same scale is no matter of parity.
    assert "parity" not in fault_in(result, "dose_high")["gates"]


def d95(case: Case) -> float:
    return float(np.percentile(np.asarray(case.dose_gy)[case.mask("PTV70")], 5.0))


def test_a_gate_that_is_switched_off_sees_nothing_and_the_table_says_so(cohort: Layout) -> None:
    result = drilled(with_parity(cohort, None), "dose_scaled_later")
    found = fault_in(result, "dose_scaled_later")
    assert (found["seen"], found["seen_in_half"], found["seen_in_all"], found["gates"]) == ([0] * 5, None, None, {})
    (row,) = drill_table(result).rows
    assert [cell.text for cell in row[2:5]] == ["0.5 to 5 %", "not up to 5 %", "not up to 5 %"]


def test_the_plan_the_suite_and_the_judges_of_all_cases_are_asked_too(cohort: Layout, healthy: Make) -> None:
    most = [100.0 / 70.0 * float(np.asarray(healthy(i).dose_gy).max()) for i in range(1, 7)]
    limit = 1.04 * max(most)
    expectation = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "dose_max_percent", "max_value": limit},
        "severity": "critical",
        "meta": {"gate": "dose_range", "notes": "A plan."},
    }
    write_json(cohort.suite, {"name": "light", "expectations": [expectation]})
    result = drilled(cohort, "dose_high", "prescription_wrong", "near_copy", "mirrored_copy", n_cases=1)
    (case_id,) = result["cases"]
    own = most[int(case_id[-1]) - 1]
    sizes = fault_in(result, "dose_high")["sizes"]
    wanted = min((size for size in sizes if own * (1.0 + size / 100.0) > limit), default=None)
    assert fault_in(result, "dose_high")["gates"].get("dose_range") == wanted
    # A plan's prescription carries 0.05 Gy.
    assert fault_in(result, "prescription_wrong")["gates"] == {"prescription": 0.1}
    assert fault_in(result, "near_copy")["gates"] == {"leakage_copy": 1.0}
    assert "leakage_copy" in fault_in(result, "mirrored_copy")["gates"]


@pytest.mark.slow
def test_a_larger_fault_of_the_same_kind_is_still_found(cohort: Layout) -> None:
    result = drilled(cohort, n_cases=1)
    assert [fault["name"] for fault in result["faults"]] == [fault.name for fault in FAULTS]
    for fault in result["faults"]:
        assert fault["tried"] == 1, fault["name"]
        assert fault["seen"] == sorted(fault["seen"]), fault["name"]


def test_a_drill_is_the_same_by_its_seed_and_another_by_another(cohort: Layout) -> None:
    names = ("organ_moved", "dose_noise", "ct_slices_repeated")
    one, again, other = (drilled(cohort, *names, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one["seed"] != other["seed"]
    assert (one["cases"], one["faults"]) != (other["cases"], other["faults"])


def test_the_pool_changes_nothing_the_cohort_stays_and_the_result_names_what_was_judged(cohort: Layout) -> None:
    before = {path: sha256_of_file(path) for path in cohort.root.rglob("*") if path.is_file()}
    result = drilled(cohort, "sdf_sign")
    assert {path: sha256_of_file(path) for path in cohort.root.rglob("*") if path.is_file()} == before
    assert result["digest"] == data_digest(cohort)
    assert (result["cohort"], result["n_others"], len(result["cases"])) == (cohort.cohort, 5, 2)
    assert drill(cohort, 2, ["sdf_sign"], 1, scale=local(1), tell=lambda line: None) == result


def test_a_cohort_of_one_case_has_no_other_patients_faults(
    write_cohort: Callable[[list[Case]], Layout], healthy: Make
) -> None:
    result = drilled(write_cohort([healthy(1)]), "near_copy", "dose_other", "sdf_sign")
    assert [(fault["name"], fault["tried"]) for fault in result["faults"]] == [
        ("dose_other", 0),
        ("sdf_sign", 1),
        ("near_copy", 0),
    ]


def test_a_red_case_is_not_drilled(write_cohort: Callable[[list[Case]], Layout], healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    red = [replace(case, n_fractions=5) for case in cases[:4]]
    result = drilled(write_cohort([*red, *cases[4:]]), "sdf_sign", n_cases=6)
    assert result["cases"] == ["case_0005", "case_0006"]


def test_a_cohort_without_a_sound_case_is_refused(write_cohort: Callable[[list[Case]], Layout], healthy: Make) -> None:
    layout = write_cohort([replace(healthy(i), n_fractions=5) for i in range(1, 7)])
    with pytest.raises(BadInput, match="no case passes the data gate, so nobody can tell what a fault adds"):
        drilled(layout, "sdf_sign")


def test_no_case_at_all_is_refused(cohort: Layout) -> None:
    with pytest.raises(BadInput, match="0 cases can't be drilled; wanted at least one"):
        drilled(cohort, "sdf_sign", n_cases=0)


NOTHING: dict[str, list[str]] = {"errors": [], "warnings": []}
ERROR, WARNING = {**NOTHING, "errors": ["parity"]}, {**NOTHING, "warnings": ["outlier"]}


def test_a_size_counts_only_where_all_larger_ones_are_seen_too() -> None:
    (fault,) = choose_faults(["prescription_wrong"])
    sights = {
        "case_0001": [ERROR, NOTHING, ERROR, ERROR],
        "case_0002": [NOTHING, WARNING, WARNING, ERROR],
        "case_0003": None,
    }
    found = summarise_fault(fault, sights)
    assert (found["tried"], found["seen"], found["warned"]) == (2, [1, 0, 1, 2], [0, 1, 1, 0])
    assert (found["seen_in_half"], found["seen_in_all"], found["warned_in_half"]) == (0.5, 2.0, 0.02)
    assert found["gates"] == {"parity": 0.02}
    assert found["cases"]["case_0002"][1] == {"errors": [], "warnings": ["outlier"]}


def test_a_fault_that_no_case_can_have_is_said() -> None:
    (fault,) = choose_faults(["sides_swapped"])
    found = summarise_fault(fault, {"case_0001": None})
    result = {"cases": ["case_0001"], "n_others": 0, "seed": 1, "faults": [found]}
    (row,) = drill_table(result).rows
    assert (found["tried"], found["seen_in_half"], row[3].text) == (0, None, "no case has it")


def test_a_warning_alone_is_told_in_the_table() -> None:
    faults = choose_faults(["prescription_wrong", "sdf_sign"])
    sized = summarise_fault(faults[1], {"case_0001": [NOTHING, WARNING, WARNING, ERROR]})
    whole = summarise_fault(faults[0], {"case_0001": [WARNING]})
    result = {"cases": ["case_0001"], "n_others": 0, "seed": 1, "faults": [sized, whole]}
    rows = drill_table(result).rows
    assert [row[3].text for row in rows] == ["2 Gy (warning from 0.1 Gy)", "not seen (a warning)"]


def test_a_sample_stands_for_a_large_cohort_and_what_can_not_be_read_is_left_out(
    cohort: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = cohort.cases / "case_0002.npz"
    path.write_bytes(path.read_bytes()[:20000])
    result = drilled(cohort, "sdf_sign", n_cases=6)
    assert (len(result["cases"]), result["n_others"]) == (5, 4)
    assert "case_0002" not in result["cases"]
    monkeypatch.setattr("doseledger.gates.drill.healthy.MOST_CASES", 4)
    assert drilled(cohort, "sdf_sign", n_cases=6)["n_others"] in (2, 3)


@pytest.mark.parametrize(("n", "n_drawn"), [(59, 59), (60, 60), (61, 60), (200, 60)])
def test_sixty_cases_at_most_stand_for_a_cohort(
    n: int, n_drawn: int, cohort: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"case_{i:04d}" for i in range(1, n + 1)]
    asked: dict[str, Any] = {}

    def over(_judge: Any, arguments: dict[str, Any], _scale: Any, *, tell: Any) -> Any:
        asked.update(arguments)
        return SimpleNamespace(done={})

    monkeypatch.setattr(healthy_module, "read_table", lambda path, schema: pd.DataFrame({"case_id": names}))
    monkeypatch.setattr(healthy_module, "over_cases", over)
    found = read_healthy(cohort, 1, scale=HERE, tell=lambda line: None)
    assert list(found.cases["case_id"]) == list(asked) == sorted(asked)
    assert len(asked) == n_drawn


def test_the_drift_gate_is_asked_of_a_copy_as_of_a_new_case(cohort: Layout) -> None:
    sound = read_healthy(cohort, 1, scale=HERE, tell=lambda line: None)
    sound = replace(sound, splits=sound.splits.assign(split="train"))
    report = sound.reports["case_0001"]
    assert report.inputs is not None
    changed = replace(report, inputs={**report.inputs, "PTV70_prescription_gy": 72.0})
    found = sound.judge("case_0001", {"as it is": report, "other": changed})
    gates = {name: {item.gate for item in items if item.severity == "error"} for name, items in found.items()}
    assert gates["other"] - gates["as it is"] == {"drift_changed"}
    assert {item.case_id for item in found["other"]} == {"case_0001"}
    # Of four training cases nobody can tell what varies.
    few = replace(sound, splits=sound.splits.assign(split=["train"] * 4 + ["val", "test"]))
    assert "drift_changed" not in {item.gate for item in few.judge("case_0001", {"other": changed})["other"]}
