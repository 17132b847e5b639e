"""Metrics in the field's words: every name that a limit or a history has, and no word besides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doseledger.core.files import read_yaml
from doseledger.core.text.words import in_words, short_metric, spell_metric
from doseledger.evaluate.shortcuts.ablation import ALTERATIONS
from doseledger.evaluate.shortcuts.trivial import RIVALS, mae_ratios
from doseledger.learn.run import DOSE_SCORES, SEGMENT_SCORES, trained_name


def metrics_in(value: object) -> set[str]:
    if isinstance(value, dict):
        named = {str(value["metric"])} if "metric" in value else set()
        return named.union(*(metrics_in(item) for item in value.values()))
    return set().union(*(metrics_in(item) for item in value)) if isinstance(value, list) else set()


def test_every_metric_of_every_limit_has_words(repository: Path) -> None:
    files = [*repository.glob("validation/cohorts/*/thresholds.yaml"), repository / "validation/exit_criteria.yaml"]
    names = set().union(*(metrics_in(read_yaml(path)) for path in files))
    assert len(names) > 12
    assert [name for name in sorted(names) if spell_metric(name) == name] == []


def test_every_metric_of_a_run_has_words_and_a_short_heading_of_its_own(repository: Path) -> None:
    files = [*repository.glob("validation/cohorts/*/thresholds.yaml"), repository / "validation/exit_criteria.yaml"]
    names = set().union(*(metrics_in(read_yaml(path)) for path in files))
    row = {f"{rival}_mae{mask}_gy": 1.0 for rival in ("model", *RIVALS) for mask in ("", "_above_10_percent")}
    names |= {*mae_ratios([row]), *(one.name for one in ALTERATIONS), *map(trained_name, DOSE_SCORES)}
    names |= {"gamma_3_3_global_percent", "gamma_3_3_local_percent", "gamma_2_2_global_percent", "mae_body_gy_worst"}
    heads = {name: short_metric(name) for name in names}
    assert len(set(heads.values())) == len(heads)
    assert {name: head for name, head in heads.items() if len(head) > 26 or (name == head and name != "dice")} == {}


def test_every_ratio_of_errors_has_words_of_its_own() -> None:
    row = {f"{rival}_mae{mask}_gy": 1.0 for rival in ("model", *RIVALS) for mask in ("", "_above_10_percent")}
    words = {name: spell_metric(name) for name in mae_ratios([row])}
    assert [name for name, told in words.items() if told == name] == []
    assert len(set(words.values())) == len(words) == 2 * len(RIVALS)
    assert "mean dose by place and distance" in words["prior_mae_ratio"]


def test_every_answer_and_every_score_has_words() -> None:
    names = [one.name for one in ALTERATIONS] + [*DOSE_SCORES, *SEGMENT_SCORES, *map(trained_name, DOSE_SCORES)]
    # What a comparison lists, a row a measure of a case.
    names += ["openkbp_dose_gy", "openkbp_dvh_gy", "mae_valid_dose_gy", "gamma_3_3_global_percent"]
    assert [name for name in names if spell_metric(name) == name] == []


@pytest.mark.parametrize(
    "text",
    [
        "case_0007: no ROI matches Rectum (evaluate.verify_gamma_points)", "run `doseledger check data`",
        "reports/metrics/phantom/dose_unet/mae_body_gy.json", "PTV70 and Femur_L overlap", "the dice are cast",
    ],
)  # fmt: skip
def test_cases_models_paths_and_english_keep_their_letters(text: str) -> None:
    assert in_words(text) == text


def test_a_finding_reads_as_a_sentence() -> None:
    told = in_words("m: mae_above_10_percent_gy is 3.1, wanted <= 2.5 (ct_shuffle_change_gy, val_mae_PTV70_gy)")
    assert not re.search(r"\b[a-z]+_[a-z_]+", told)
    assert told == (
        "m: MAE where the dose is above 10 % of the highest prescription (Gy) is 3.1, wanted ≤ 2.5 (change of dose "
        "with the CT's voxels shuffled (Gy), MAE in PTV70 (Gy), validation cases)"
    )
