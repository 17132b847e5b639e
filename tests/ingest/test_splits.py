"""Patients are dealt by a seed, stay together, hardly move when one is added, and a locked test set never moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes
from doseledger.core.settings import SplitSettings
from doseledger.core.tables import CASES, SPLITS, TEST_SET, read_table, write_table
from doseledger.ingest.splits import count_parts, deal, make_splits


def settings_of(**changes: Any) -> SplitSettings:
    values: dict[str, Any] = {
        "seed": 11,
        "kind": "fractions",
        "fractions": {"train": 0.7, "val": 0.15, "test": 0.15},
        "n_folds": 5,
        "n_repeats": 1,
        "group_column": "group",
    }
    return SplitSettings(**{**values, **changes})


def cases_of(n_patients: int, scans: int = 1, groups: str = "AB") -> pd.DataFrame:
    rows = []
    for patient in range(n_patients):
        for scan in range(scans):
            name = f"p{patient:03d}"
            rows.append(
                {
                    "case_id": f"case_{patient:03d}_{scan}",
                    "pseudonym": name,
                    "group": groups[patient % len(groups)],
                    "site": groups[patient % len(groups)],
                    "source_sha256": sha256_of_bytes(f"source {name} {scan}".encode()),
                    "sha256": sha256_of_bytes(f"npz {name} {scan}".encode()),
                    "n_warnings": 0,
                }
            )
    return pd.DataFrame(rows)


def locked_of(cases: pd.DataFrame, *pseudonyms: str) -> pd.DataFrame:
    rows = cases[cases["pseudonym"].isin(pseudonyms)][["pseudonym", "source_sha256"]]
    return rows.assign(locked_on="2026-01-31", reason="first release")


NOBODY = pd.DataFrame({name: pd.Series(dtype=str) for name in TEST_SET.columns})


def part_of(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["pseudonym"], splits["split"], strict=True))


def test_twenty_four_patients_are_dealt_in_the_proportions_asked_for() -> None:
    counts = count_parts(deal(cases_of(24), settings_of(), NOBODY))
    assert {part: count["patients"] for part, count in counts.items()} == {"train": 16, "val": 4, "test": 4}


def test_the_same_seed_deals_alike_and_another_seed_differently() -> None:
    cases = cases_of(40)
    first = deal(cases, settings_of(), NOBODY)
    pd.testing.assert_frame_equal(first, deal(cases.sample(frac=1.0, random_state=3), settings_of(), NOBODY))
    assert part_of(first) != part_of(deal(cases, settings_of(seed=12), NOBODY))


def test_all_scans_of_a_patient_are_on_one_side() -> None:
    splits = deal(cases_of(20, scans=3), settings_of(), NOBODY)
    assert (splits.groupby("pseudonym")["split"].nunique() == 1).all()
    assert len(splits) == 60


@hypothesis_settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 60), seed=st.integers(0, 1000))
def test_adding_a_patient_moves_at_most_one_other_across_each_border(n: int, seed: int) -> None:
    before = part_of(deal(cases_of(n), settings_of(seed=seed), NOBODY))
    after = part_of(deal(cases_of(n + 1), settings_of(seed=seed), NOBODY))
    moved = [name for name, part in before.items() if after[name] != part]
    # One across the border of test, and from there one across the border of val.
    assert len(moved) <= 3


def test_adding_a_patient_to_five_folds_moves_at_most_one_at_each_border() -> None:
    settings = settings_of(kind="folds")

    def fold_of(n: int) -> dict[str, int]:
        splits = deal(cases_of(n), settings, NOBODY)
        test = splits[splits["split"] == "test"]
        return dict(zip(test["pseudonym"], test["fold"], strict=True))

    before, after = fold_of(50), fold_of(51)
    assert sum(after[name] != fold for name, fold in before.items()) <= 4


def test_folds_test_every_patient_once_a_repeat_and_repeats_differ() -> None:
    splits = deal(cases_of(23), settings_of(kind="folds", n_repeats=2), NOBODY)
    test = splits[splits["split"] == "test"]
    assert (test.groupby(["repeat", "pseudonym"]).size() == 1).all()
    assert len(test) == 2 * 23
    assert len(splits) == 2 * 5 * 23
    first, second = (set(test[(test["repeat"] == r) & (test["fold"] == 0)]["pseudonym"]) for r in (0, 1))
    assert first != second


def test_two_folds_are_possible() -> None:
    splits = deal(cases_of(12), settings_of(kind="folds", n_folds=2), NOBODY)
    assert set(splits["split"]) == {"train", "val", "test"}


def test_no_group_is_on_both_sides_when_one_is_left_out() -> None:
    splits = deal(cases_of(24, groups="ABC"), settings_of(kind="leave_one_group_out"), NOBODY)
    assert sorted(splits["fold"].unique()) == [0, 1, 2]
    for _, fold in splits.groupby("fold"):
        tested = set(fold[fold["split"] == "test"]["group"])
        assert len(tested) == 1
        assert tested.isdisjoint(fold[fold["split"] != "test"]["group"])


def test_a_patient_of_two_groups_cannot_be_left_out_by_group() -> None:
    cases = cases_of(12, scans=2)
    cases.loc[0, "group"] = "C"
    with pytest.raises(BadInput, match="p000 is in group A, C"):
        deal(cases, settings_of(kind="leave_one_group_out"), NOBODY)


def test_one_group_alone_cannot_be_left_out() -> None:
    with pytest.raises(BadInput, match="needs two values of group, found \\['A'\\]"):
        deal(cases_of(12, groups="A"), settings_of(kind="leave_one_group_out"), NOBODY)


def test_a_locked_patient_stays_in_test_whatever_the_seed_and_new_ones_go_to_train_and_val() -> None:
    old = cases_of(20)
    locked = locked_of(old, "p003", "p007", "p011")
    for seed in (1, 2, 3):
        splits = deal(cases_of(30), settings_of(seed=seed), locked)
        assert set(splits[splits["split"] == "test"]["pseudonym"]) == {"p003", "p007", "p011"}
    assert count_parts(splits)["val"]["patients"] == round(27 * 0.15 / 0.85)


def test_with_a_locked_test_set_the_folds_take_turns_as_val() -> None:
    cases = cases_of(20)
    splits = deal(cases, settings_of(kind="folds"), locked_of(cases, "p000", "p001"))
    for _, fold in splits.groupby("fold"):
        assert set(fold[fold["split"] == "test"]["pseudonym"]) == {"p000", "p001"}
    assert (splits[splits["split"] == "val"].groupby("pseudonym").size() == 1).all()


def test_a_locked_patient_of_another_group_is_left_out_of_that_fold() -> None:
    cases = cases_of(20)
    splits = deal(cases, settings_of(kind="leave_one_group_out"), locked_of(cases, "p000"))
    held_b = splits[splits["fold"] == 1]
    assert set(held_b[held_b["split"] == "test"]["group"]) == {"B"}
    assert "p000" not in set(held_b["pseudonym"])


def test_a_new_scan_of_a_locked_patient_is_neither_tested_nor_trained_on() -> None:
    locked = locked_of(cases_of(20), "p003")
    splits = deal(cases_of(20, scans=2), settings_of(), locked)
    assert splits[splits["pseudonym"] == "p003"]["case_id"].tolist() == ["case_003_0"]


def test_a_locked_patient_whose_data_changed_is_refused() -> None:
    cases = cases_of(20)
    locked = locked_of(cases, "p003")
    cases.loc[3, "source_sha256"] = "f" * 64
    with pytest.raises(BadInput, match="p003: its source data changed since it was locked"):
        deal(cases, settings_of(), locked)


def test_a_locked_patient_who_is_gone_is_refused() -> None:
    cases = cases_of(20)
    with pytest.raises(BadInput, match="p003: it is no longer among the cases"):
        deal(cases[cases["pseudonym"] != "p003"], settings_of(), locked_of(cases, "p003"))


def test_a_locked_patient_under_a_new_name_is_refused() -> None:
    cases = cases_of(20)
    locked = locked_of(cases, "p003")
    cases.loc[3, "pseudonym"] = "p999"
    with pytest.raises(BadInput, match="p003: its data are now under the name p999"):
        deal(cases, settings_of(), locked)


def test_inverted_fractions_are_refused() -> None:
    with pytest.raises(ValueError, match="are the fractions inverted"):
        settings_of(fractions={"train": 0.15, "val": 0.15, "test": 0.7})


def test_a_locked_test_set_larger_than_train_is_refused() -> None:
    cases = cases_of(12)
    with pytest.raises(BadInput, match="proportions are inverted"):
        deal(cases, settings_of(), locked_of(cases, *(f"p{i:03d}" for i in range(8))))


def test_too_few_patients_for_three_parts_are_refused() -> None:
    with pytest.raises(BadInput, match="no patient for train"):
        deal(cases_of(2), settings_of(), NOBODY)
    with pytest.raises(BadInput, match="4 patients can't be dealt to 5 folds"):
        deal(cases_of(4), settings_of(kind="folds"), NOBODY)


def test_no_cases_at_all_are_refused() -> None:
    with pytest.raises(BadInput, match="no cases to split"):
        deal(cases_of(1).iloc[:0], settings_of(), NOBODY)


def test_the_stage_writes_the_table_and_tells_the_real_proportions(tmp_path: Path) -> None:
    write_table(tmp_path / "cases.csv", cases_of(24), CASES)
    write_table(tmp_path / "lock.csv", NOBODY, TEST_SET)
    told: list[str] = []
    counts = make_splits(
        tmp_path / "cases.csv", tmp_path / "lock.csv", tmp_path / "splits.csv", settings_of(), told.append
    )
    assert counts["train"] == {"patients": 16, "cases": 16}
    assert "train 16 patients / 16 cases (66.7 %)" in told[0]
    assert "not locked" in told[-1]
    first = (tmp_path / "splits.csv").read_bytes()
    assert len(read_table(tmp_path / "splits.csv", SPLITS)) == 24
    make_splits(tmp_path / "cases.csv", tmp_path / "lock.csv", tmp_path / "splits.csv", settings_of(), told.append)
    assert (tmp_path / "splits.csv").read_bytes() == first
