"""Exit criteria by themselves: each is seen to hold and to fail, and nothing unknown is let in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.core.project.layout import Layout
from doseledger.gates.limits import load_thresholds
from doseledger.ledger.registry.criteria import CHECKS, Criterion, Evidence, judge_phase, load_criteria
from doseledger.ledger.registry.tag import Promotion, Version

RECORD = {
    "format_version": 1,
    "cohort": "prostate",
    "checkpoint": {"path": "best.ckpt", "sha256": "c" * 64},
    "metrics": {"summary": {"mae_above_10_percent_gy": 2.5, "gamma_3_3_global_percent": 96.0}},
    "verdicts": {gate: {"ok": True, "digest": "d" * 64} for gate in ("data", "preflight", "model")},
    "test_set": {"cases": 25, "locked": 25, "locked_by_digest": 25, "digest": "e" * 64},
    "reproduced": {"case": "case_0004", "identical": True, "max_difference_gy": 0.0, "machine": {}},
}


def make_version(name: str = "dose_unet", **changes: Any) -> Version:
    stages = tuple(Promotion(stage, f"{name}#{stage}#1", "", "", {}) for stage in ("research", "candidate"))
    by = "Ada Example <ada@example.org>"
    return Version(name, "v1.0.0", "a" * 40, by, "2026-03-01", {**RECORD, **changes}, stages)


def metrics(mae: float, gamma: float = 96.0) -> dict[str, Any]:
    return {"summary": {"mae_above_10_percent_gy": mae, "gamma_3_3_global_percent": gamma}}


@pytest.fixture
def good(repository: Path) -> Evidence:
    """Evidence of a version that may be frozen."""
    return Evidence(
        version=make_version(),
        baseline=make_version("baseline", metrics=metrics(4.0)),
        target=load_thresholds(Layout(repository, "prostate")).candidate,
        reproduction=load_criteria(repository / "validation/exit_criteria.yaml").reproduction,
        signatures=[{"who": {"name": "Grace", "email": "grace@example.org"}}],
        log_findings=[],
    )


def missing(repository: Path, phase: str, evidence: Evidence) -> list[str]:
    results = judge_phase(load_criteria(repository / "validation/exit_criteria.yaml"), phase, evidence)
    return [f"[{result.criterion.check}] {result.missing}" for result in results if result.missing]


def test_the_shipped_criteria_can_be_met_in_every_phase(repository: Path, good: Evidence) -> None:
    for phase in ("research", "candidate", "frozen"):
        assert missing(repository, phase, good) == []


def test_a_candidate_must_reach_the_clinical_target_of_the_thresholds(repository: Path, good: Evidence) -> None:
    checks = [
        criterion.check for criterion in load_criteria(repository / "validation/exit_criteria.yaml").phases["candidate"]
    ]
    assert "clinical_target" in checks
    target = {limit.metric: (limit.operator, limit.limit) for limit in good.target}
    assert target["mae_above_10_percent_gy"] == ("<=", 3.0)
    assert target["gamma_3_3_global_percent"] == (">=", 95.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": metrics(3.1)}, "[clinical_target] mae_above_10_percent_gy is 3.1, wanted <= 3"),
        ({"metrics": metrics(2.5, 94.9)}, "[clinical_target] gamma_3_3_global_percent is 94.9, wanted >= 95"),
        ({"metrics": {"summary": {}}}, "mae_above_10_percent_gy is not measured, wanted <= 3"),
        (
            {"verdicts": {**RECORD["verdicts"], "model": {"ok": False, "digest": "d" * 64}}},  # type: ignore[dict-item]
            "[gates_passed] the gates model did not pass",
        ),
        ({"verdicts": {}}, "[gates_passed] the gates data, preflight, model did not pass"),
        (
            {"reproduced": {**RECORD["reproduced"], "max_difference_gy": 0.002}},  # type: ignore[dict-item]
            "[reproduced] case_0004 predicted again differed by 0.002 Gy, wanted at most 0.001",
        ),
    ],
)  # fmt: skip
def test_a_candidate_is_refused_what_it_lacks(
    repository: Path, good: Evidence, changes: dict[str, Any], told: str
) -> None:
    (only,) = missing(repository, "candidate", replace(good, version=make_version(**changes)))
    assert told in only


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_set": {**RECORD["test_set"], "locked_by_digest": 24}}, "[test_set_locked] 24 of its 25 test cases"),  # type: ignore[dict-item]
        ({"metrics": metrics(4.1)}, "[better_than_baseline] mae_above_10_percent_gy is 4.1, baseline@v1.0.0 has 4"),
        ({"cohort": "openkbp"}, "[better_than_baseline] baseline@v1.0.0 was tested on other cases"),
        ({"metrics": {"summary": {}}}, "[better_than_baseline] mae_above_10_percent_gy was not measured for both"),
    ],
)
def test_a_version_is_not_frozen_on_less(repository: Path, good: Evidence, changes: dict[str, Any], told: str) -> None:
    (only,) = missing(repository, "frozen", replace(good, version=make_version(**changes)))
    assert told in only


NO_NUMBERS = [float("nan"), float("inf"), float("-inf")]


def judged(check: str, evidence: Evidence, **given: Any) -> str:
    return CHECKS[check][0](evidence, Criterion(check=check, source="a test", **given))


@pytest.mark.parametrize(
    ("mae", "limit", "is_met"),
    [
        (3.5, 0.5, True), (3.51, 0.5, False), (3.999, 0.0, True), (4.0, 0.0, True), (4.001, 0.0, False),
        (4.2, -0.25, True), (4.3, -0.25, False), *((mae, limit, False) for mae in NO_NUMBERS for limit in (0.0, -9.0)),
    ],
)  # fmt: skip
def test_better_than_the_baseline_is_better_by_its_limit(
    mae: float, limit: float, is_met: bool, good: Evidence
) -> None:
    found = judged(
        "better_than_baseline",
        replace(good, version=make_version(metrics=metrics(mae))),
        metric="mae_above_10_percent_gy",
        limit=limit,
    )
    told = f"mae_above_10_percent_gy is {mae:.4g}, baseline@v1.0.0 has 4: wanted lower by at least {limit:g}"
    assert found.startswith(told) is not is_met
    assert (found == "") is is_met


@pytest.mark.parametrize(("mae", "is_met"), [(3.0, True), (3.001, False), *((v, False) for v in NO_NUMBERS)])
def test_a_target_is_reached_by_numbers_alone(mae: float, is_met: bool, good: Evidence) -> None:
    found = judged("clinical_target", replace(good, version=make_version(metrics=metrics(mae))))
    assert ("mae_above_10_percent_gy is" not in found) is is_met


@pytest.mark.parametrize(("off_gy", "is_met"), [(0.00099, True), (0.00101, False), *((v, False) for v in NO_NUMBERS)])
def test_a_prediction_made_again_may_be_off_by_a_milligray(off_gy: float, is_met: bool, good: Evidence) -> None:
    made = {"case": "case_0004", "identical": False, "max_difference_gy": off_gy, "machine": {}}
    assert (judged("reproduced", replace(good, version=make_version(reproduced=made))) == "") is is_met


@pytest.mark.parametrize(("n", "limit", "is_met"), [(19, 20, False), (20, 20, True), (1, 1, True), (0, 1, False)])
def test_a_test_set_has_as_many_cases_as_its_limit(n: int, limit: int, is_met: bool, good: Evidence) -> None:
    version = make_version(test_set={"cases": n, "locked_by_digest": n})
    found = judged("test_cases", replace(good, version=version), limit=limit)
    assert found.startswith(f"tested on {n} cases, wanted at least {limit}") is not is_met
    assert (found == "") is is_met


@pytest.mark.parametrize(("people", "is_met"), [(0, False), (1, False), (2, True)])
def test_as_many_people_sign_off_as_the_limit_asks_for(people: int, is_met: bool, good: Evidence) -> None:
    signatures = [{"who": {"name": "x", "email": f"{n}@example.org"}} for n in range(people)]
    assert (judged("signed_off", replace(good, signatures=signatures), limit=2) == "") is is_met


def test_a_small_test_set_freezes_nothing(repository: Path, good: Evidence) -> None:
    small = {"cases": 19, "locked": 19, "locked_by_digest": 19, "digest": "e" * 64}
    (only,) = missing(repository, "frozen", replace(good, version=make_version(test_set=small)))
    assert "[test_cases] tested on 19 cases, wanted at least 20" in only


def test_a_baseline_must_be_named_and_another(repository: Path, good: Evidence) -> None:
    (only,) = missing(repository, "frozen", replace(good, baseline=None))
    assert "no baseline to compare with; name a registered version with --baseline" in only
    (only,) = missing(repository, "frozen", replace(good, baseline=good.version))
    assert "it was named as its own baseline" in only


@pytest.mark.parametrize("email", [None, "", "ada@example.org", "ADA@example.org"])
def test_the_registrar_and_nobody_sign_nothing_off(repository: Path, good: Evidence, email: str | None) -> None:
    signatures = [{"who": {"name": "Somebody", "email": email}}]
    (only,) = missing(repository, "frozen", replace(good, signatures=signatures))
    assert "[signed_off] signed off by 0 person(s) other than Ada Example" in only


def test_an_address_that_ends_the_registrars_is_another_persons(repository: Path, good: Evidence) -> None:
    signatures = [{"who": {"name": "Somebody", "email": "a@example.org"}}]
    assert missing(repository, "frozen", replace(good, signatures=signatures)) == []


def test_one_person_who_signs_twice_is_one(repository: Path, good: Evidence) -> None:
    twice = [*good.signatures, {"who": {"name": "Grace", "email": "Grace@Example.org"}}]
    check, _ = CHECKS["signed_off"]
    assert "signed off by 1 person(s)" in check(
        replace(good, signatures=twice), Criterion(check="signed_off", limit=2, source="a test")
    )


def test_a_log_that_does_not_hold_gives_no_stage(repository: Path, good: Evidence) -> None:
    for phase in ("research", "candidate", "frozen"):
        (only,) = missing(repository, phase, replace(good, log_findings=["entry 2 was edited"]))
        assert "[audit_log_holds] the audit log does not hold (entry 2 was edited)" in only


def test_stages_come_one_after_the_other(repository: Path, good: Evidence) -> None:
    bare = replace(good, version=replace(good.version, promotions=()))
    assert "[holds_stage] it was never given the stage research" in missing(repository, "candidate", bare)[0]
    assert "[holds_stage] it was never given the stage candidate" in missing(repository, "frozen", bare)[0]


@pytest.mark.parametrize(
    ("criterion", "told"),
    [
        ({"check": "looks_good", "source": "a test"}, "no check 'looks_good'; there are audit_log_holds, better_than"),
        ({"check": "test_cases", "source": "a test"}, "test_cases was given nothing, wanted limit"),
        ({"check": "reproduced", "limit": 1, "source": "a test"}, "reproduced was given limit, wanted nothing"),
        ({"check": "test_cases", "limit": 3}, "source"),
        ({"check": "test_cases", "limit": 3, "source": ""}, "source"),
        ({"check": "test_cases", "limit": 3, "source": "a test", "unless": "late"}, "unless"),
        ({"check": "gates_passed", "names": [], "source": "a test"}, "names"),
    ],
)
def test_a_criterion_that_nothing_checks_is_refused(
    repository: Path, tmp_path: Path, criterion: dict[str, Any], told: str
) -> None:
    content = read_yaml(repository / "validation/exit_criteria.yaml")
    content["phases"]["research"].append(criterion)
    write_json(tmp_path / "exit_criteria.yaml", content)
    with pytest.raises(BadInput, match=told):
        load_criteria(tmp_path / "exit_criteria.yaml")


@pytest.mark.parametrize("phase", ["clinical-use", "Research", "stage2", ""])
def test_a_phase_that_no_tag_could_name_is_refused(repository: Path, tmp_path: Path, phase: str) -> None:
    content = read_yaml(repository / "validation/exit_criteria.yaml")
    content["phases"][phase] = content["phases"]["research"]
    write_json(tmp_path / "exit_criteria.yaml", content)
    with pytest.raises(BadInput, match=r"phases.*pattern '\^\[a-z\]\+\$'"):
        load_criteria(tmp_path / "exit_criteria.yaml")


def test_a_phase_without_a_criterion_is_refused(repository: Path, tmp_path: Path) -> None:
    content = read_yaml(repository / "validation/exit_criteria.yaml")
    content["phases"]["research"] = []
    write_json(tmp_path / "exit_criteria.yaml", content)
    with pytest.raises(BadInput, match=r"phases\.research"):
        load_criteria(tmp_path / "exit_criteria.yaml")


def test_a_phase_that_is_not_there_is_told_with_those_that_are(repository: Path, good: Evidence) -> None:
    with pytest.raises(BadInput, match="no stage 'clinic' in the exit criteria; there are research, candidate, frozen"):
        judge_phase(load_criteria(repository / "validation/exit_criteria.yaml"), "clinic", good)


def test_every_check_says_when_it_is_met() -> None:
    # The site's page of limits shows it.
    assert [name for name, (find, _) in CHECKS.items() if not find.__doc__] == []
