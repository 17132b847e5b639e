"""New cases against the training cohort: what drifted is named, what did not is let through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from doseledger.cli.check import app
from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, GateFailed
from doseledger.core.files import sha256_of_file, to_json
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.gates.drift import judge
from doseledger.gates.drift.case_inputs import SHARE, measure_inputs
from doseledger.gates.drift.judge import compare_features, compare_images, judge_drift
from doseledger.gates.drift.statistics import (
    ks_p_value,
    learn_reference,
    measure_distances,
    psi,
    psi_by_chance,
    psi_of_values,
)
from doseledger.gates.limits import DriftLimits
from doseledger.gates.verdict import Verdict, verdict_as_json
from doseledger.report.gate_pages import describe_drift, write_page

LIMITS = DriftLimits(alpha=0.01, psi=0.25, hu_psi=0.1, far_ratio=1.5, source="the project")
Healthy = Callable[[int], Case]


def cohort(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Patients with volumes that go together, a body that does not, and one protocol."""
    size = rng.standard_normal(n)
    table = {
        "ptv_cc": 100 + 20 * size + rng.standard_normal(n),
        "prostate_cc": 50 + 10 * size + rng.standard_normal(n),
        "body_cc": 20000 + 2000 * rng.standard_normal(n),
        "n_fractions": np.full(n, 28.0),
    }
    return pd.DataFrame(table, index=[f"case_{i:04d}" for i in range(n)])


def test_psi_of_a_known_table_and_of_itself() -> None:
    expected, found = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    # By hand: 0.1 ln 1.5 + 0 + (-0.1) ln 0.8.
    assert psi(expected, found) == pytest.approx(0.1 * np.log(1.5) - 0.1 * np.log(0.8))
    assert psi(expected, expected) == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8), st.integers(0, 2**31))
def test_psi_is_symmetric_and_never_negative(shares: list[float], seed: int) -> None:
    one = np.asarray(shares) / np.sum(shares)
    other = np.random.default_rng(seed).permutation(one)
    assert psi(one, other) >= 0.0
    assert psi(one, other) == pytest.approx(psi(other, one))


def test_the_psi_that_chance_gives_is_as_often_exceeded_as_it_says() -> None:
    rng = np.random.default_rng(1)
    over = 0
    for _ in range(400):
        value, n_bins = psi_of_values(rng.standard_normal(200), rng.standard_normal(60))
        over += value > psi_by_chance(200, 60, n_bins, 0.05)
    assert 0.01 < over / 400 < 0.08


def test_few_cases_are_not_compared() -> None:
    assert np.isnan(psi_of_values(np.arange(20.0), np.arange(4.0))[0])
    assert np.isnan(psi_of_values(np.arange(7.0), np.arange(20.0))[0])
    assert np.isnan(ks_p_value(np.arange(4.0), np.arange(20.0)))
    assert ks_p_value(np.arange(8.0), np.arange(100.0, 108.0)) == pytest.approx(2 / 12870)


def test_the_distance_is_mahalanobis_where_there_are_many_cases() -> None:
    rng = np.random.default_rng(1)
    known, new = cohort(4000, rng), cohort(5, rng)
    reference = learn_reference(known.iloc[:400])
    found = [row["distance"] for row in measure_distances(reference, new)]
    columns = ["ptv_cc", "prostate_cc", "body_cc"]
    away = (new[columns] - known[columns].median()).to_numpy()
    precision = np.linalg.inv(np.cov(known[columns].to_numpy().T))
    wanted = np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away) / 3)
    assert found == pytest.approx(wanted, rel=0.2)


def test_what_does_not_go_together_is_far_though_each_number_is_common() -> None:
    rng = np.random.default_rng(1)
    known = cohort(60, rng)
    odd = known.iloc[:1].assign(ptv_cc=130.0, prostate_cc=35.0, body_cc=20000.0)
    (case,) = measure_distances(learn_reference(known), odd)
    assert case["ratio"] > 1.5
    assert case["rank_p"] == pytest.approx(1 / 61)
    assert {"ptv_cc", "prostate_cc"} <= set(list(case["features"])[:2])


def test_the_distance_does_not_ask_in_which_unit_a_feature_is() -> None:
    rng = np.random.default_rng(1)
    known, new = cohort(30, rng), cohort(4, rng)
    litres = {"body_cc": 1000.0}
    first = measure_distances(learn_reference(known), new)
    second = measure_distances(
        learn_reference(known.assign(**{k: known[k] / v for k, v in litres.items()})),
        new.assign(**{k: new[k] / v for k, v in litres.items()}),
    )
    assert [row["distance"] for row in first] == pytest.approx([row["distance"] for row in second])


def test_another_protocol_is_named_though_it_varies_not_at_all() -> None:
    rng = np.random.default_rng(1)
    new = cohort(2, rng).assign(n_fractions=20.0)
    found = measure_distances(learn_reference(cohort(30, rng)), new)
    assert [row["changed"] for row in found] == [{"n_fractions": 20.0}] * 2


def test_a_structure_that_is_absent_is_neither_near_nor_far() -> None:
    rng = np.random.default_rng(1)
    known = cohort(20, rng)
    known.loc[known.index[:3], "prostate_cc"] = np.nan
    (case,) = measure_distances(learn_reference(known), known.iloc[:1])
    assert np.isfinite(case["distance"])
    only_one = known.assign(prostate_cc=np.nan)
    only_one.loc[only_one.index[4:6], "prostate_cc"] = [40.0, 60.0]
    assert np.isfinite(learn_reference(only_one).left_out).all()


def test_too_few_training_cases_and_missing_features_are_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(BadInput, match="4 training cases are too few"):
        learn_reference(cohort(4, rng))
    with pytest.raises(BadInput, match="the new cases have no body_cc"):
        measure_distances(learn_reference(cohort(9, rng)), cohort(2, rng).drop(columns="body_cc"))


def test_a_feature_that_moved_is_found_among_many_that_did_not() -> None:
    rng = np.random.default_rng(1)
    names = [f"feature_{i}" for i in range(30)]
    known = pd.DataFrame(rng.standard_normal((40, 30)), columns=names)
    new = pd.DataFrame(rng.standard_normal((20, 30)), columns=names).assign(feature_7=lambda t: t["feature_7"] + 2.5)
    rows = {row["feature"]: row for row in compare_features(known, new, LIMITS)}
    assert [name for name, row in rows.items() if row["ks_p_adjusted"] < LIMITS.alpha] == ["feature_7"]
    assert [name for name, row in rows.items() if row["psi"] > row["psi_limit"]] == ["feature_7"]
    assert rows["feature_7"]["ks_p"] == stats.ks_2samp(known["feature_7"], new["feature_7"]).pvalue


def test_the_image_of_another_scanner_is_told_from_chance() -> None:
    rng = np.random.default_rng(1)
    shares = pd.DataFrame(rng.dirichlet([200, 300, 500], size=20), columns=[f"hu_share_{i}" for i in range(3)])
    same = compare_images(shares, shares.iloc[:6], LIMITS, np.random.default_rng(1))
    assert same["psi"] < same["limit"] == LIMITS.hu_psi
    moved = shares.iloc[:6, [2, 1, 0]].set_axis(shares.columns, axis=1)
    assert compare_images(shares, moved, LIMITS, np.random.default_rng(1))["psi"] > 0.1


def test_what_a_model_is_given_says_nothing_of_the_dose(healthy: Healthy, protocol: Protocol) -> None:
    case = healthy(1)
    assert case.dose_gy is not None
    row = measure_inputs(case, protocol)
    assert measure_inputs(replace(case, dose_gy=2 * case.dose_gy), protocol) == pytest.approx(row, nan_ok=True)
    assert measure_inputs(replace(case, dose_gy=None), protocol) == pytest.approx(row, nan_ok=True)
    assert sum(float(v) for k, v in row.items() if SHARE.match(k)) == pytest.approx(1.0)
    assert row["PTV70_offset_y_mm"] == 0.0
    assert float(row["Rectum_offset_y_mm"]) > 0 > float(row["Bladder_offset_y_mm"])
    assert (row["PTV70_prescription_gy"], row["n_fractions"]) == (70.0, 28.0)
    assert (row["Bowel_present"], row["Rectum_present"]) == (0.0, 1.0)


# The whole gate on files.


Batch = tuple[Layout, Path]


@pytest.fixture
def write_batch(healthy: Healthy, layout: Layout) -> Callable[..., Batch]:
    """Write eight training cases and a folder of six new ones, each of these changed by a function."""

    def write(change: Callable[[Case], Case], new: tuple[int, ...] = tuple(range(9, 15))) -> Batch:
        rows = []
        for number in range(1, 9):
            case = healthy(number)
            path = layout.cases / f"{case.case_id}.npz"
            case.save(path)
            shared = {"repeat": 0, "fold": 0, "pseudonym": case.case_id, "group": "A", "split": "train"}
            rows.append({"case_id": case.case_id, "sha256": sha256_of_file(path), **shared})
        write_table(layout.splits, pd.DataFrame(rows), SPLITS)
        folder = layout.root / "new"
        for number in new:
            change(healthy(number)).save(folder / f"case_{number:04d}.npz")
        return layout, folder

    return write


def judged(batch: Batch, fold: int = 0) -> Verdict:
    layout, new = batch
    return judge_drift(layout, new=new, fold=fold, repeat=0, scale=HERE, tell=lambda line: None)


def test_a_batch_of_the_same_kind_passes(write_batch: Callable[..., Batch]) -> None:
    batch = write_batch(lambda case: case)
    verdict = judged(batch)
    assert verdict.ok, [finding.message for finding in verdict.errors]
    assert (verdict.details["n_reference"], verdict.details["n_new"]) == (8, 6)
    assert to_json(verdict_as_json(judged(batch))) == to_json(verdict_as_json(verdict))


def test_another_scanner_is_named_by_case_by_feature_and_by_image(
    write_batch: Callable[..., Batch], repository: Path, tmp_path: Path
) -> None:
    verdict = judged(write_batch(lambda case: replace(case, ct_hu=(case.ct_hu + 80).astype(np.int16))))
    gates = {finding.gate for finding in verdict.errors}
    assert {"drift_far", "drift_image"} <= gates
    (image,) = [finding for finding in verdict.errors if finding.gate == "drift_image"]
    assert "the images' HU are distributed otherwise than in training" in image.message
    text = "\n".join(describe_drift(verdict))
    assert "The gate **failed**" in text
    assert "| case_0009 |" in text
    assert "nan" not in text
    write_page(verdict, repository / "reports" / "templates" / "drift.html.j2", tmp_path / "drift.html")
    page = (tmp_path / "drift.html").read_text()
    assert "drift_image" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "nan" not in page


def test_six_cases_are_too_few_for_one_of_many_features_to_be_named_and_twenty_are_not() -> None:
    rng = np.random.default_rng(1)
    many = {f"feature_{i}": rng.standard_normal(20) for i in range(75)}

    def named(n_known: int, n_new: int) -> set[str]:
        known, new = cohort(20, rng).assign(**many), cohort(20, rng).assign(**many, body_cc=40000.0 + np.arange(20))
        rows = compare_features(known.iloc[:n_known], new.iloc[:n_new], LIMITS)
        return {row["feature"] for row in rows if row["ks_p_adjusted"] < LIMITS.alpha}

    assert named(8, 6) == set()
    assert named(20, 20) == {"body_cc"}


def test_another_prescription_is_named_on_each_case(write_batch: Callable[..., Batch]) -> None:
    verdict = judged(write_batch(lambda case: replace(case, n_fractions=20), new=(9, 10)))
    found = [finding for finding in verdict.errors if finding.gate == "drift_changed"]
    assert [finding.case_id for finding in found] == ["case_0009", "case_0010"]
    assert "case_0009: n_fractions is 20; all training cases had one and the same other value" in found[0].message
    assert "2 new cases are too few" in next(f.message for f in verdict.findings if f.gate == "drift_few")


def test_a_training_case_among_the_new_ones_is_left_out_and_named(write_batch: Callable[..., Batch]) -> None:
    verdict = judged(write_batch(lambda case: case, new=(8, 9, 10)))
    assert [finding.case_id for finding in verdict.findings if finding.gate == "drift_known"] == ["case_0008"]
    assert [row["case_id"] for row in verdict.details["cases"]] == ["case_0009", "case_0010"]


def test_the_digest_says_on_whom_was_trained(write_batch: Callable[..., Batch]) -> None:
    # One table of splits, two folds of it: the same new cases are held against other training cases.
    batch = write_batch(lambda case: case, new=(9,))
    splits_csv = batch[0].splits
    splits = read_table(splits_csv, SPLITS)
    other = splits.assign(fold=1, split=["val", *["train"] * 7])
    write_table(splits_csv, pd.concat([splits, other], ignore_index=True), SPLITS)
    first, second = (judged(batch, fold).digest for fold in (0, 1))
    assert first != second
    assert first == judged(batch).digest


def test_a_gate_that_can_not_see_its_data_fails(write_batch: Callable[..., Batch], tmp_path: Path) -> None:
    layout, new = batch = write_batch(lambda case: case, new=(9,))
    with pytest.raises(BadInput, match="no test case to look at"):
        judge_drift(layout, fold=0, repeat=0, scale=HERE, tell=print)
    with pytest.raises(BadInput, match="nothing: no new case to look at"):
        judged((layout, tmp_path / "nothing"))
    with pytest.raises(BadInput, match="cohort 'other' has no folder"):
        judged((Layout(layout.root, "other"), new))
    (new / "case_0009.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"1 case\(s\) can't be measured: case_0009"):
        judged(batch)
    (layout.cases / "case_0001.npz").unlink()
    with pytest.raises(BadCase, match=r"case_0001: case_0001\.npz is absent or not the one in the splits"):
        judged(batch)


def with_test_case(layout: Layout, case: Case) -> None:
    """Put a case into the cohort, as its test."""
    path = layout.cases / f"{case.case_id}.npz"
    case.save(path)
    splits = read_table(layout.splits, SPLITS)
    row = splits.iloc[:1].assign(case_id=case.case_id, split="test", sha256=sha256_of_file(path))
    write_table(layout.splits, pd.concat([splits, row], ignore_index=True), SPLITS)


def test_without_new_cases_the_cohorts_own_test_cases_are_looked_at(
    write_batch: Callable[..., Batch], healthy: Healthy
) -> None:
    layout, _ = write_batch(lambda case: case, new=())
    with_test_case(layout, replace(healthy(9), n_fractions=20))
    verdict = judge_drift(layout, fold=0, repeat=0, scale=HERE, tell=lambda line: None)
    assert [row["case_id"] for row in verdict.details["cases"]] == ["case_0009"]
    assert [finding.gate for finding in verdict.errors] == ["drift_changed"]
    (layout.cases / "case_0009.npz").unlink()
    with pytest.raises(BadCase, match=r"case_0009: no case_0009\.npz among the new cases; ingest it"):
        judge_drift(layout, fold=0, repeat=0, scale=HERE, tell=lambda line: None)


def test_a_random_split_with_one_test_patient_is_told_and_never_fails(
    write_batch: Callable[..., Batch], healthy: Healthy
) -> None:
    layout, _ = write_batch(lambda case: case, new=())
    case = healthy(9)
    with_test_case(layout, replace(case, ct_hu=(case.ct_hu + 80).astype(np.int16)))
    verdict = judge_drift(layout, fold=0, repeat=0, scale=HERE, tell=lambda line: None)
    assert verdict.ok, [finding.message for finding in verdict.errors]
    assert {"drift_far", "drift_few"} <= {finding.gate for finding in verdict.findings}
    (few,) = [finding for finding in verdict.findings if finding.gate == "drift_few"]
    assert few.message.endswith("what was found of them is told, and fails nothing")


@pytest.mark.parametrize(
    ("n", "is_new", "fails"), [(4, True, True), (4, False, False), (5, True, True), (5, False, True)]
)
def test_only_few_test_cases_of_the_cohort_itself_fail_nothing(
    n: int, is_new: bool, fails: bool, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    rng = np.random.default_rng(5)
    known, measured = cohort(30, rng), cohort(n, rng)
    measured["ptv_cc"] += 400.0
    tables = (known, measured, {str(name): "0" * 64 for name in measured.index}, [])
    monkeypatch.setattr(judge, "_tables", lambda *args, **options: tables)
    monkeypatch.setattr(judge, "_digest", lambda *args: "0" * 64)
    layout, new = Layout(repository, "phantom"), repository if is_new else None
    verdict = judge_drift(layout, new=new, fold=0, repeat=0, scale=HERE, tell=lambda line: None)
    assert {finding.severity for finding in verdict.findings if finding.gate == "drift_far"} == {
        "error" if fails else "warning"
    }
    assert verdict.ok is not fails
    assert ("drift_few" in {finding.gate for finding in verdict.findings}) is (n < 5)


def test_the_command_writes_page_table_and_findings_of_new_cases(
    write_batch: Callable[..., Batch], enter_project: Callable[[], None], tmp_path: Path
) -> None:
    _, new = write_batch(lambda case: case, new=(9, 10))
    enter_project()
    words = ["check", "drift", str(new), "--scale", "here"]
    outs = {name: tmp_path / "out" / name for name in ("findings", "html", "markdown")}
    words += [word for name, path in outs.items() for word in (f"--{name}", str(path))]
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads(outs["findings"].read_text())
    assert outs["markdown"].read_text().startswith("# Drift: 2 new cases against 8 training cases of phantom\n")
    assert "<title>Drift: phantom</title>" in outs["html"].read_text()


def test_the_command_that_judges_new_cases_fails_with_them(
    write_batch: Callable[..., Batch], enter_project: Callable[[], None], tmp_path: Path
) -> None:
    _, new = write_batch(lambda case: replace(case, n_fractions=20), new=(9,))
    enter_project()
    words = ["check", "drift", str(new), "--scale", "here", "--findings", str(tmp_path / "findings.json")]
    assert isinstance(CliRunner().invoke(app, words).exception, GateFailed)
    assert json.loads((tmp_path / "findings.json").read_text())["ok"] is False


def test_the_stage_writes_page_token_and_findings_of_the_test_cases_and_fails_nothing(
    write_batch: Callable[..., Batch], enter_project: Callable[[], None], healthy: Healthy
) -> None:
    layout, _ = write_batch(lambda case: case, new=())
    with_test_case(layout, replace(healthy(9), n_fractions=20))
    enter_project()
    shown = CliRunner().invoke(app, ["drift", "--scale", "here", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads(layout.drift_verdict.findings.read_text())
    assert json.loads(layout.drift_verdict.token.read_text())["ok"] is False
    assert "<title>Drift: phantom</title>" in layout.drift_page.read_text()


def test_test_cases_beside_few_training_cases_are_not_judged_and_it_is_told(
    write_batch: Callable[..., Batch], repository: Path, tmp_path: Path
) -> None:
    layout, _ = write_batch(lambda case: case)
    splits = read_table(layout.splits, SPLITS)
    splits.loc[splits.index[4:], "split"] = "test"
    write_table(layout.splits, splits, SPLITS)
    verdict = judge_drift(layout, fold=0, repeat=0, scale=HERE, tell=lambda line: None)
    assert verdict.ok
    message = next(f.message for f in verdict.findings if f.gate == "drift_few_training")
    assert "4 training cases tell nothing of how cases vary, wanted 5" in message
    assert verdict.details["cases"] == []
    write_page(verdict, repository / "reports/templates/drift.html.j2", tmp_path / "drift.html")
    assert "drift_few_training" in (tmp_path / "drift.html").read_text()
