"""Probes see a planted shortcut, see nothing in noise, and say when there is too little to see anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from doseledger.cli.check import app
from doseledger.core.case import Case
from doseledger.core.errors import BadInput, GateFailed
from doseledger.core.files import sha256_of_file
from doseledger.core.pool.cluster import HERE
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import CASES, write_table
from doseledger.gates.drift import probes
from doseledger.gates.drift.metadata import _plain, judge_metadata, read_labels
from doseledger.gates.drift.probes import ProbeScore, _dealt, cross_validate, images_needed, judge_score
from doseledger.gates.drift.stacks import judge_stack, read_stack, region_features
from doseledger.gates.limits import ProbeLimits
from doseledger.gates.verdict import Verdict

LIMITS = ProbeLimits(warn_auc=0.65, red_auc=0.80, source="the project")


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PERMUTATIONS", 9)


def write_stack(path: Path, spoil: Callable[[np.ndarray], None], n: int = 60, size: int = 16, **arrays: Any) -> Path:
    """Noise of two labels in turn; `spoil` changes the images of the second one in place."""
    images = np.random.default_rng(1).standard_normal((n, size, size))
    labels = np.arange(n) % 2
    second = images[labels == 1]
    spoil(second)
    images[labels == 1] = second
    np.savez(path, **{"images": images, "labels": labels, **arrays})
    return path


def judged(path: Path, region: str) -> Verdict:
    return judge_stack(path, (region,), LIMITS, np.random.default_rng(1))  # type: ignore[arg-type]


def nothing(images: np.ndarray) -> None:
    return None


def brighter_border(images: np.ndarray) -> None:
    images[:, :, :2] += 1.0


def brighter_core(images: np.ndarray) -> None:
    images[:, 5:11, 5:11] += 0.8


def smoother(images: np.ndarray) -> None:
    images[:, 1:] = (images[:, 1:] + images[:, :-1]) / np.sqrt(2.0)


@pytest.mark.parametrize("region", ["core", "border"])
def test_noise_tells_a_probe_nothing(region: str, tmp_path: Path) -> None:
    verdict = judged(write_stack(tmp_path / "s.npz", nothing), region)
    assert verdict.findings == ()
    assert verdict.details["regions"][region]["auc"] < 0.65
    assert verdict.details["regions"][region]["p_value"] > 0.1
    assert judged(tmp_path / "s.npz", region) == verdict


@pytest.mark.parametrize(
    ("spoil", "sees", "sees_not"), [(brighter_border, "border", "core"), (brighter_core, "core", "border")]
)
def test_a_label_that_shows_in_one_region_is_red_there_and_only_there(
    spoil: Callable[[np.ndarray], None], sees: str, sees_not: str, tmp_path: Path
) -> None:
    path = write_stack(tmp_path / "s.npz", spoil)
    (finding,) = judged(path, sees).errors
    assert finding.gate == "probe"
    assert f"the label can be told from the {sees} alone: AUC" in finding.message
    assert finding.numbers["p_value"] == pytest.approx(0.1)
    assert judged(path, sees_not).ok


def test_a_label_that_shows_in_the_grain_alone_is_red_in_both(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "s.npz", smoother, n=80, size=32)
    assert not judged(path, "core").ok
    assert not judged(path, "border").ok


def test_volumes_and_words_as_labels_do_too(tmp_path: Path) -> None:
    images = np.random.default_rng(2).standard_normal((45, 8, 12, 12))
    labels = np.asarray(["GE", "Philips", "Siemens"] * 15)
    images[labels == "GE", 0] += 1.0
    np.savez(tmp_path / "s.npz", images=images, labels=labels)
    assert not judged(tmp_path / "s.npz", "border").ok
    assert judged(tmp_path / "s.npz", "core").ok


def test_a_patient_is_never_on_both_sides_of_a_fold() -> None:
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(20), 5)
    features = rng.standard_normal((20, 30))[patients] + 0.01 * rng.standard_normal((100, 30))
    labels = rng.permutation(np.arange(20) % 2)[patients]
    alone = cross_validate(features, labels, None, LIMITS, np.random.default_rng(1))
    together = cross_validate(features, labels, patients, LIMITS, np.random.default_rng(1))
    # Five pictures of each patient: whoever deals them apart recognises the patient.
    assert alone.auc > 0.95
    assert together.auc < 0.75
    assert (together.n, together.n_independent) == (100, 20)


def test_between_both_limits_is_a_warning_and_few_images_are_told() -> None:
    def findings(auc: float, n: int) -> list[tuple[str, str]]:
        score = ProbeScore(auc, 0.2, n, n, images_needed(0.65, 0.5))
        return [(finding.gate, finding.severity) for finding in judge_score("the core", score, LIMITS)]

    assert findings(0.65, 100) == []
    assert findings(0.6501, 100) == [("probe", "warning")]
    assert findings(0.80, 100) == [("probe", "warning")]
    assert findings(0.81, 100) == [("probe", "error")]
    assert findings(0.5, 20) == [("probe_small", "warning")]


def test_the_number_needed_is_what_chance_says_it_is() -> None:
    rng = np.random.default_rng(1)
    n = images_needed(0.65, 0.5)
    draws = [np.mean(rng.standard_normal((n // 2, 1)) > rng.standard_normal((1, n // 2))) for _ in range(4000)]
    assert np.mean(np.asarray(draws) > 0.65) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(60)}, r"1 label\(s\), the rarest"),
        ({"labels": np.zeros(59)}, r"60 images, but labels are \(59,\)"),
        ({"groups": np.zeros((60, 1))}, "60 images, but groups are"),
        ({"images": np.zeros((60, 5))}, r"wanted \(n, y, x\)"),
        ({"images": np.full((60, 5, 5), np.nan)}, "holds NaN"),
        ({"groups": np.arange(60) % 2}, "the rarest with 1 independent"),
    ],
)
def test_a_stack_that_can_not_be_probed_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_stack(tmp_path / "s.npz", nothing, **arrays)
    with pytest.raises(BadInput, match=message):
        judged(path, "core")


def test_a_file_that_is_no_stack_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", pictures=np.zeros((3, 3)))
    with pytest.raises(BadInput, match="has no images and no labels"):
        read_stack(tmp_path / "s.npz")
    (tmp_path / "s.npz").write_bytes(b"PK nothing")
    with pytest.raises(BadInput, match="can't be read as NPZ"):
        read_stack(tmp_path / "s.npz")


def test_a_region_shows_nothing_of_the_other() -> None:
    images = np.zeros((2, 20, 20))
    images[1, 5:15, 5:15] = 1.0
    assert np.array_equal(*region_features(images, "border"))
    assert not np.array_equal(*region_features(images, "core"))
    images = np.ones((2, 20, 20))
    images[1, 5:15, 5:15] = 0.0
    images[0] = 0.0
    assert np.array_equal(*region_features(images, "core"))


def test_the_command_exits_1_on_a_shortcut_and_prints_json(enter_project: Callable[[], None], tmp_path: Path) -> None:
    path = write_stack(tmp_path / "s.npz", brighter_border)
    enter_project()
    words = ["check", "stack", str(path), "--region"]
    shown = CliRunner().invoke(app, [*words, "border", "--json"])
    assert isinstance(shown.exception, GateFailed)
    assert json.loads(shown.output)["details"]["regions"]["border"]["auc"] > 0.8
    assert CliRunner().invoke(app, [*words, "core"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, [*words, "middle"]).exception, BadInput)


# Labels of a cohort's cases.


def write_cases(folder: Path, cases: list[Case]) -> None:
    rows = []
    for case in cases:
        case.save(folder / f"{case.case_id}.npz")
        shared = {name: case.meta[name] for name in ("pseudonym", "group", "site", "source_sha256")}
        digest = sha256_of_file(folder / f"{case.case_id}.npz")
        rows.append({"case_id": case.case_id, **shared, "sha256": digest, "n_warnings": 0})
    write_table(folder / "cases.csv", pd.DataFrame(rows), CASES)


def case_of_site(make_case: Callable[..., Case], number: int, site: str, shift_hu: int) -> Case:
    case = make_case(f"case_{number:04d}", seed=number)
    meta = {**case.meta, "site": site, "scanner": {"kernel": f"kernel of {site}"}, "plan": {"technique": "arc"}}
    return replace(case, ct_hu=(case.ct_hu + shift_hu).astype(np.int16), meta=meta)


def test_a_scanner_that_shows_in_the_image_is_named(
    make_case: Callable[..., Case], protocol: Protocol, tmp_path: Path
) -> None:
    shifts = {"A": 0, "B": 25}
    cases = [case_of_site(make_case, i, "AB"[i % 2], shifts["AB"[i % 2]]) for i in range(1, 13)]
    write_cases(tmp_path, cases)
    assert set(read_labels(tmp_path, [case.case_id for case in cases])) == {"site", "scanner_kernel", "order"}
    verdict = judge_metadata(tmp_path, protocol, LIMITS, np.random.default_rng(1), scale=HERE, tell=print)
    named = {finding.message.split(" alone")[0] for finding in verdict.errors}
    assert {
        "the label can be told from the inputs (site)",
        "the label can be told from the inputs (scanner_kernel)",
    } <= named
    assert verdict.details["labels"]["site"]["auc"] == 1.0
    small = [finding for finding in verdict.findings if finding.gate == "probe_small"]
    assert len(small) == 3
    assert "12 independent images or cases say little" in small[0].message


def test_a_scanner_that_drifted_with_time_shows_in_the_order_of_cases(
    make_case: Callable[..., Case], protocol: Protocol, tmp_path: Path
) -> None:
    cases = [case_of_site(make_case, i, "A", 4 * i) for i in range(1, 13)]
    write_cases(tmp_path, cases)
    verdict = judge_metadata(tmp_path, protocol, LIMITS, np.random.default_rng(1), scale=HERE, tell=print)
    assert set(verdict.details["labels"]) == {"order"}
    assert [finding.gate for finding in verdict.errors] == ["probe"]
    assert "(order)" in verdict.errors[0].message


def test_a_label_of_one_patient_is_left_out_and_told_and_the_rest_is_probed(
    make_case: Callable[..., Case], protocol: Protocol, tmp_path: Path
) -> None:
    cases = [case_of_site(make_case, i, "AB"[i % 2], 0) for i in range(1, 15)]
    # Five cases of one patient, all that a third site sent.
    cases += [
        replace(case, meta={**case.meta, "pseudonym": "patient_of_c"})
        for case in (case_of_site(make_case, i, "C", 0) for i in range(15, 20))
    ]
    write_cases(tmp_path, cases)
    verdict = judge_metadata(tmp_path, protocol, LIMITS, np.random.default_rng(1), scale=HERE, tell=print)
    assert verdict.details["labels"]["site"]["labels"] == {"A": 7, "B": 7}
    unasked = {finding.numbers["label"]: finding for finding in verdict.findings if finding.gate == "probe_unasked"}
    assert set(unasked) == {"site", "scanner_kernel"}
    assert unasked["site"].severity == "warning"
    assert "the inputs (site): too few patients of C to be probed, wanted 5 each" in unasked["site"].message


def test_an_input_that_nobody_can_probe_is_told(
    make_case: Callable[..., Case], protocol: Protocol, tmp_path: Path
) -> None:
    write_cases(tmp_path, [case_of_site(make_case, i, "AB"[i > 6], 0) for i in range(1, 9)])
    verdict = judge_metadata(tmp_path, protocol, LIMITS, np.random.default_rng(1), scale=HERE, tell=print)
    assert verdict.details["labels"]["order"] == {"labels": {}, "auc": None}
    messages = [finding.message for finding in verdict.findings if finding.gate == "probe_unasked"]
    assert "the inputs (order): too few patients a label to be probed, wanted 5 with each of two" in messages
    assert len(messages) == 3


def test_the_digest_says_by_which_protocol_the_inputs_were_read(
    make_case: Callable[..., Case], protocol: Protocol, tmp_path: Path
) -> None:
    write_cases(tmp_path, [case_of_site(make_case, i, "A", i) for i in range(1, 4)])

    def digest(by: Protocol) -> str:
        return judge_metadata(tmp_path, by, LIMITS, np.random.default_rng(1), scale=HERE, tell=print).digest

    assert digest(protocol) == digest(protocol)
    assert digest(protocol) != digest(protocol.model_copy(update={"crop": "none"}))


def test_labels_of_a_case_are_its_plain_words_numbers_and_what_plan_and_scanner_say() -> None:
    meta = {
        "site": "north", "n": 3, "is_ct": True, "share": 0.5, "warnings": ["x"],
        "scanner": {"model": "A", "kvp": 120}, "plan": {"machine": "T1"}, "parity": {"PTV70": "x"},
        "native_image_grid": {"spacing_mm": [3, 1, 1], "shape_zyx": [9, 512, 256], "origin_mm": [0, 0, 7]},
    }  # fmt: skip
    assert _plain(meta) == {
        "site": "north", "n": "3", "is_ct": "True", "scanner_model": "A", "plan_machine": "T1",
        "native_spacing_mm": "[3, 1, 1]", "native_shape_yx": "[512, 256]",
    }  # fmt: skip
    assert _plain({"plan": "none", "scanner": None}) == {"plan": "none"}


@pytest.mark.parametrize(("n_independent", "is_told"), [(29, True), (30, False), (31, False)])
def test_as_many_images_as_are_needed_are_enough(n_independent: int, is_told: bool) -> None:
    score = ProbeScore(0.5, 0.5, 40, n_independent, 30)
    limits = ProbeLimits(warn_auc=0.65, red_auc=0.8, source="a test's own")
    assert [finding.gate for finding in judge_score("the core", score, limits)] == ["probe_small"] * is_told


def test_labels_are_dealt_by_patient_where_each_has_one_and_singly_where_not() -> None:
    rng = np.random.default_rng(3)
    members, single = np.repeat(np.arange(6), 4), np.tile([0, 1], 12)
    of_patients = np.repeat([0, 1, 0, 1, 0, 1], 4)
    for _ in range(20):
        dealt = _dealt(of_patients, members, rng)
        assert [len(set(dealt[members == one])) for one in range(6)] == [1] * 6
        assert dealt.sum() == of_patients.sum()
    dealt = [_dealt(single, members, rng) for _ in range(20)]
    assert all(one.sum() == 12 for one in dealt)
    assert any(len(set(one[:4])) == 2 for one in dealt)
