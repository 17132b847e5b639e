"""The data gate passes a healthy cohort, and names what is wrong with a spoilt one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, GateFailed, NotReady
from doseledger.core.files import read_yaml, write_json, write_text
from doseledger.core.pool.cluster import HERE, local
from doseledger.core.project.layout import Layout, VerdictPaths
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import CASES, SKIPPED, SPLITS, TEST_SET, read_table, write_table
from doseledger.gates.data.cohort import judge_case, judge_cohort, judge_left_out
from doseledger.gates.data.leakage import judge_splits
from doseledger.gates.digests import data_digest
from doseledger.gates.limits import DataLimits, LeftOutLimits
from doseledger.gates.verdict import Finding, Verdict, enforce, read_verdict, require_token, write_verdict

Write = Callable[[list[Case]], Layout]
Make = Callable[[int], Case]


def judged(cohort: Layout, accept: dict[str, str] | None = None) -> Verdict:
    return judge_cohort(cohort, accept or {}, scale=HERE, tell=lambda line: None)


def errors(verdict: Verdict) -> dict[str, str]:
    return {finding.gate: finding.message for finding in verdict.errors}


@pytest.fixture
def cohort(write_cohort: Write, healthy: Make) -> Layout:
    return write_cohort([healthy(i) for i in range(1, 7)])


def test_a_healthy_cohort_passes_and_the_token_holds_ok_and_digest_only(
    cohort: Layout, repository: Path, tmp_path: Path
) -> None:
    shutil.copy(repository / "validation/cohorts/phantom/suite.json", cohort.suite)
    verdict = judged(cohort)
    assert verdict.ok, errors(verdict)
    token, findings_path = cohort.data_verdict.token, cohort.data_verdict.findings
    write_verdict(verdict, cohort.data_verdict)
    enforce(verdict)
    assert json.loads(token.read_text()) == {"ok": True, "digest": data_digest(cohort)}
    findings = json.loads(findings_path.read_text())
    assert findings["details"]["counts"]["cases"] == 6
    assert len(findings["details"]["expectations"]) > 30
    require_token(token, data_digest(cohort), "data")
    assert str(tmp_path) not in findings_path.read_text()
    assert read_verdict(cohort.data_verdict) == verdict


def test_the_verdict_is_the_same_to_the_byte_on_every_run(cohort: Layout, tmp_path: Path) -> None:
    for name in ("one", "two"):
        paths = VerdictPaths(tmp_path / f"{name}.json", tmp_path / f"{name}_findings.json")
        write_verdict(judged(cohort), paths)
    assert (tmp_path / "one_findings.json").read_bytes() == (tmp_path / "two_findings.json").read_bytes()


def test_one_nan_in_a_corner_fails_the_gate_and_both_files_are_written(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    dose = np.array(cases[2].dose_gy)
    dose[-1, -1, -1] = np.nan
    cohort = write_cohort([*cases[:2], replace(cases[2], dose_gy=dose), *cases[3:]])
    verdict, paths = judged(cohort), cohort.data_verdict
    write_verdict(verdict, paths)
    assert json.loads(paths.token.read_text())["ok"] is False
    assert json.loads(paths.findings.read_text())["counts"]["error"] == 1
    with pytest.raises(GateFailed, match=r"\[nan\] case_0003: the dose has 1 NaN"):
        enforce(verdict, paths.findings)
    with pytest.raises(GateFailed, match="the data gate failed"):
        require_token(paths.token, verdict.digest, "data")


def test_a_file_that_was_cut_short_is_a_finding_and_the_rest_is_still_judged(cohort: Layout) -> None:
    path = cohort.cases / "case_0002.npz"
    path.write_bytes(path.read_bytes()[:20000])
    verdict = judged(cohort)
    assert "case_0002" in errors(verdict)["unreadable"]
    assert verdict.details["features"]["Rectum_volume_cc"]["n"] == 5


def test_a_file_that_the_system_gives_to_nobody_is_a_bad_case(
    protocol: Protocol, limits: DataLimits, tmp_path: Path
) -> None:
    (tmp_path / "case_0003.npz").mkdir()
    with pytest.raises(BadCase, match=r"case_0003\.npz: can't be read \(Is a directory\); mend its rights"):
        judge_case(tmp_path / "case_0003.npz", {"sha256": ""}, protocol, limits)


def test_a_case_changed_after_ingest_is_named(cohort: Layout, healthy: Make) -> None:
    case = healthy(4)
    replace(case, ct_hu=case.ct_hu + np.int16(1)).save(cohort.cases / "case_0004.npz")
    assert "case_0004: the file's SHA256" in errors(judged(cohort))["hash"]


def test_a_file_without_a_row_and_a_row_without_a_file_are_named(cohort: Layout, healthy: Make) -> None:
    (cohort.cases / "case_0001.npz").unlink()
    healthy(9).save(cohort.cases / "case_0009.npz")
    found = errors(judged(cohort))
    assert "case_0001: in cases.csv, but there is no" in found["missing_file"]
    assert "case_0009: case_0009.npz is there, but not in cases.csv" in found["unlisted_file"]


def test_a_failed_case_stops_the_gate_until_it_is_accepted_with_a_reason(cohort: Layout) -> None:
    rows = [
        {"case_id": "case_0007", "status": "failed", "reason": "no ROI matches Rectum"},
        {"case_id": "case_0008", "status": "skipped", "reason": "not a simultaneous integrated boost"},
    ]
    write_table(cohort.cases / "skipped.csv", pd.DataFrame(rows), SKIPPED)
    verdict = judged(cohort)
    assert "case_0007: failed: no ROI matches Rectum" in errors(verdict)["failed_case"]
    assert verdict.details["counts"]["skipped"] == 1
    accepted = judged(cohort, {"case_0007": "scan repeated as case_0003"})
    assert accepted.ok
    assert accepted.details["counts"]["accepted"] == 1
    assert accepted.digest == verdict.digest


@pytest.mark.parametrize(
    ("status", "n_cases", "gate"),
    [("skipped", 10, None), ("skipped", 9, "most_skipped"), ("failed", 57, None), ("failed", 56, "most_accepted")],
)
def test_what_is_left_out_is_a_limit_of_the_gate(status: str, n_cases: int, gate: str | None) -> None:
    # Just inside and just outside: 10 of 20 and of 19 skipped (50 %), 10 of 67 and of 66 accepted (15 %).
    rows = pd.DataFrame({"case_id": [f"case_{n:04d}" for n in range(10)], "status": status, "reason": "a test"})
    limits = LeftOutLimits(most_skipped_percent=50.0, most_accepted_percent=15.0, source="a test")
    found = judge_left_out(n_cases, rows, dict.fromkeys(rows["case_id"], "a test"), limits)
    assert [finding.gate for finding in found] == ([gate] if gate else [])
    if gate == "most_skipped":
        assert "10 of 19 patients are skipped by the protocol (skip_when), wanted at most 50 %" in found[0].message
    # A failure that nobody accepted is an error of its own, and not counted here.
    assert judge_left_out(n_cases, rows[rows["status"] == "failed"], {}, limits) == []


def test_accepting_a_case_that_did_not_fail_is_a_warning(cohort: Layout) -> None:
    verdict = judged(cohort, {"case_0099": "old list"})
    assert verdict.ok
    assert any("case_0099: named in ingest.accept_failed" in finding.message for finding in verdict.findings)


def test_the_same_source_under_two_names_is_a_duplicate(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    twin = replace(cases[1], meta={**cases[1].meta, "source_sha256": cases[0].meta["source_sha256"]})
    message = errors(judged(write_cohort([cases[0], twin, *cases[2:]])))["duplicate"]
    assert message.startswith("case_0001 and case_0002: they come from the very same files")


def test_a_near_copy_in_train_and_test_is_leakage(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    rng = np.random.default_rng(0)
    noisy = (cases[0].ct_hu + rng.normal(0, 15, cases[0].ct_hu.shape)).astype(np.int16)
    copy = replace(cases[0], ct_hu=noisy, meta={**cases[0].meta, **only_names(cases[5])})
    message = errors(judged(write_cohort([*cases[:5], copy])))["leakage_copy"]
    assert message.startswith("case_0001 and case_0006: their CT is nearly the same")
    assert "their dose is the same to the last bit" in message
    assert "train and test" in message


def only_names(case: Case) -> dict[str, str]:
    return {name: case.meta[name] for name in ("case_id", "pseudonym", "source_sha256")}


def test_a_mirrored_copy_under_another_name_is_found(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    assert cases[0].dose_gy is not None
    noisy = cases[0].ct_hu + np.random.default_rng(1).normal(0, 10, cases[0].ct_hu.shape).round().astype(np.int16)
    mirrored = replace(
        cases[4],
        ct_hu=np.ascontiguousarray(noisy[..., ::-1]),
        dose_gy=np.ascontiguousarray(cases[0].dose_gy[..., ::-1]),
    )
    message = errors(judged(write_cohort([*cases[:4], mirrored, cases[5]])))["leakage_copy"]
    assert "case_0001 and case_0005: their CT is nearly the same, mirrored along x (corr" in message
    assert "their dose is nearly the same, mirrored along x" in message


def test_the_gate_says_how_far_each_case_is_from_the_rest(cohort: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    far = [{"case_id": "case_0002", "ratio": 5.0}]
    finding = Finding("outlier", "case_0002", "error", "case_0002: far")
    monkeypatch.setattr("doseledger.gates.data.cohort.judge_outliers", lambda inputs, limits: ([finding], far))
    verdict = judged(cohort)
    assert finding in verdict.errors
    assert verdict.details["distances"] == {"case_0002": 5.0}


def test_a_dose_copied_from_another_patient_is_found(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    cases[1] = replace(cases[1], dose_gy=cases[0].dose_gy)
    message = errors(judged(write_cohort(cases)))["duplicate"]
    assert message.startswith("case_0001 and case_0002: their dose is the same to the last bit")


def test_one_patient_on_both_sides_is_leakage(write_cohort: Write, healthy: Make) -> None:
    cases = [healthy(i) for i in range(1, 7)]
    cases[5] = replace(cases[5], meta={**cases[5].meta, "pseudonym": cases[0].meta["pseudonym"]})
    message = errors(judged(write_cohort(cases)))["leakage_patient"]
    assert "patient phantom_case_0001 (case_0001, case_0006) is in test and train" in message


def by_group(cohort: Layout, column: str) -> pd.DataFrame:
    """Write cases of three groups in `column`, and folds that hold out one each; return the splits."""
    cases = read_table(cohort.cases_csv, CASES).assign(**{column: list("AABBCC")})
    write_table(cohort.cases_csv, cases, CASES)
    folds = []
    for fold, held in enumerate("ABC"):
        parts = ["test" if group == held else "val" if i % 2 else "train" for i, group in enumerate(cases[column])]
        folds.append(cases.assign(repeat=0, fold=fold, split=parts)[list(SPLITS.columns)])
    splits = pd.concat(folds, ignore_index=True)
    write_table(cohort.splits, splits, SPLITS)
    return splits


@pytest.mark.parametrize("column", ["group", "site"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_held_out_group_on_both_sides_is_leakage(cohort: Layout, column: str, part: str) -> None:
    splits = by_group(cohort, column)
    judge = partial(judge_splits, read_table(cohort.cases_csv, CASES), locked=read_table(cohort.test_set, TEST_SET))
    assert judge(splits) == []
    splits.loc[(splits["fold"] == 1) & (splits["case_id"] == "case_0004"), "split"] = part
    (finding,) = judge(splits)
    assert (finding.gate, finding.severity) == ("leakage_group", "error")
    assert finding.message.startswith(f"case_0004: of {column} B, which repeat 0 fold 1 holds out as its test, but in")


def test_folds_of_patients_at_random_may_mix_groups(cohort: Layout) -> None:
    cases = read_table(cohort.cases_csv, CASES).assign(group=list("ABABAB"))
    folds = []
    for fold in range(2):
        parts = ["test" if i // 3 == fold else "val" if i % 3 == 0 else "train" for i in range(6)]
        folds.append(cases.assign(repeat=0, fold=fold, split=parts)[list(SPLITS.columns)])
    assert judge_splits(cases, pd.concat(folds), read_table(cohort.test_set, TEST_SET)) == []


def test_splits_dealt_for_other_cases_are_stale(cohort: Layout) -> None:
    splits = read_table(cohort.splits, SPLITS)
    splits.loc[0, "sha256"] = "0" * 64
    write_table(cohort.splits, splits.iloc[:-1], SPLITS)
    messages = " | ".join(finding.message for finding in judged(cohort).errors if finding.gate == "splits_stale")
    assert "case_0001: sha256 changed since the splits were dealt" in messages
    assert "case_0006: in cases.csv, but in no part of repeat 0 fold 0" in messages


def test_a_fold_without_val_is_named(cohort: Layout) -> None:
    splits = read_table(cohort.splits, SPLITS)
    write_table(cohort.splits, splits.assign(split=splits["split"].replace("val", "train")), SPLITS)
    assert "no case in val" in errors(judged(cohort))["splits_empty"]


def test_a_locked_patient_in_train_breaks_the_lock(cohort: Layout, healthy: Make) -> None:
    row = {"pseudonym": "phantom_case_0001", "source_sha256": healthy(1).meta["source_sha256"]}
    gone = {"pseudonym": "phantom_case_0042", "source_sha256": "a" * 64}
    when = {"locked_on": "2026-01-01", "reason": "release"}
    write_table(cohort.test_set, pd.DataFrame([row | when, gone | when]), TEST_SET)
    messages = " | ".join(finding.message for finding in judged(cohort).errors if finding.gate == "lock_broken")
    assert "case_0001: of the locked test patient phantom_case_0001, but in train" in messages
    assert "phantom_case_0042 is not among the cases as he was locked" in messages


def test_an_empty_cohort_fails(cohort: Layout) -> None:
    for path in cohort.cases.glob("*.npz"):
        path.unlink()
    header = (cohort.cases_csv).read_text().splitlines()[0]
    write_text(cohort.cases_csv, header + "\n")
    found = errors(judged(cohort))
    assert {"no_cases", "suite_blind", "splits_stale"} <= set(found)


def test_a_gate_that_cannot_see_its_data_fails(cohort: Layout) -> None:
    cohort.splits.unlink()
    with pytest.raises(BadInput, match=r"splits/phantom\.csv: no such table"):
        judged(cohort)
    with pytest.raises(BadInput, match="cohort 'unheard_of' has no folder"):
        judged(Layout(cohort.root, "unheard_of"))
    limits = read_yaml(cohort.cohorts / "phantom/thresholds.yaml")
    del limits["data"]
    write_json(cohort.cohorts / "phantom/thresholds.yaml", limits)  # JSON is YAML too
    with pytest.raises(BadInput, match=r"phantom/thresholds\.yaml: data: the key is missing"):
        judged(cohort)


def test_an_old_token_is_refused_when_data_or_limits_changed(cohort: Layout) -> None:
    token = cohort.data_verdict.token
    with pytest.raises(NotReady, match="the data gate has not judged yet"):
        require_token(token, data_digest(cohort), "data")
    write_text(token, json.dumps({"ok": True, "digest": data_digest(cohort)}))
    require_token(token, data_digest(cohort), "data")
    splits = read_table(cohort.splits, SPLITS)
    write_table(cohort.splits, splits.assign(split="train"), SPLITS)
    with pytest.raises(NotReady, match="judged something else"):
        require_token(token, data_digest(cohort), "data")


def test_a_reworded_reason_leaves_the_digest_and_a_moved_limit_changes_it(cohort: Layout) -> None:
    before = data_digest(cohort)
    suite = json.loads(cohort.suite.read_text())
    suite["expectations"][0]["meta"]["notes"] = "said in other words"
    write_json(cohort.suite, suite)
    assert data_digest(cohort) == before
    limits_path = cohort.cohorts / "phantom/thresholds.yaml"
    limits = read_yaml(limits_path)
    limits["data"]["near_copy"]["source"] = "said in other words"
    write_json(limits_path, limits)  # JSON is YAML too
    assert data_digest(cohort) == before
    limits["data"]["near_copy"]["ct_correlation"] = 0.9
    write_json(limits_path, limits)
    moved = data_digest(cohort)
    suite["expectations"][0]["kwargs"]["min_value"] -= 1
    write_json(cohort.suite, suite)
    assert len({before, moved, data_digest(cohort)}) == 3


def test_a_pool_of_processes_says_the_same(cohort: Layout) -> None:
    alone = judged(cohort)
    pooled = judge_cohort(cohort, {}, scale=local(1), tell=lambda line: None)
    assert pooled == alone
