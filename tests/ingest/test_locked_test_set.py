"""The test set is locked once, from the present splits, and unlocked only with a reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_bytes
from doseledger.core.project.layout import Layout
from doseledger.core.settings import SplitSettings
from doseledger.core.tables import CASES, SPLITS, TEST_SET, UNLOCKED, read_table, write_table
from doseledger.ingest.locked_test_set import lock, unlock
from doseledger.ingest.splits import make_splits

SETTINGS = SplitSettings(
    seed=5,
    kind="fractions",
    fractions={"train": 0.6, "val": 0.2, "test": 0.2},
    n_folds=5,
    n_repeats=1,
    group_column="group",
)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    rows = [
        {
            "case_id": f"case_{i:02d}",
            "pseudonym": f"p{i:02d}",
            "group": "A",
            "site": "A",
            "source_sha256": sha256_of_bytes(f"source {i}".encode()),
            "sha256": sha256_of_bytes(f"npz {i}".encode()),
            "n_warnings": 0,
        }
        for i in range(10)
    ]
    write_table(tmp_path / "cases.csv", pd.DataFrame(rows), CASES)
    empty = pd.DataFrame({name: pd.Series(dtype=str) for name in TEST_SET.columns})
    write_table(tmp_path / "lock.csv", empty, TEST_SET)
    split(tmp_path, SETTINGS)
    return tmp_path


def split(folder: Path, settings: SplitSettings) -> None:
    make_splits(folder / "cases.csv", folder / "lock.csv", folder / "splits.csv", settings, lambda line: None)


def who_is_tested(folder: Path) -> set[str]:
    splits = read_table(folder / "splits.csv", SPLITS)
    return set(splits[splits["split"] == "test"]["pseudonym"])


def lock_now(folder: Path, reason: str = "first release") -> pd.DataFrame:
    return lock(folder / "lock.csv", folder / "cases.csv", folder / "splits.csv", locked_on="2026-02-01", reason=reason)


def test_locking_fixes_the_present_test_patients_for_every_seed(cohort: Path) -> None:
    before = who_is_tested(cohort)
    table = lock_now(cohort)
    assert set(table["pseudonym"]) == before
    assert set(table["locked_on"]) == {"2026-02-01"}
    split(cohort, SETTINGS.model_copy(update={"seed": 99}))
    assert who_is_tested(cohort) == before


def test_a_locked_test_set_is_not_locked_again(cohort: Path) -> None:
    lock_now(cohort)
    with pytest.raises(BadInput, match="locked already"):
        lock_now(cohort)


def test_a_lock_and_an_unlock_need_a_reason(cohort: Path) -> None:
    with pytest.raises(BadInput, match="a lock needs a reason"):
        lock_now(cohort, reason=" ")
    lock_now(cohort)
    with pytest.raises(BadInput, match="needs --why"):
        unlock(cohort / "lock.csv", unlocked_on="2026-03-01", why="")


def test_unlocking_returns_who_was_removed_and_leaves_the_others(cohort: Path) -> None:
    names = sorted(set(lock_now(cohort)["pseudonym"]))
    removed = unlock(cohort / "lock.csv", unlocked_on="2026-03-01", why="consent withdrawn", pseudonyms=names[:1])
    assert removed["pseudonym"].tolist() == names[:1]
    assert read_table(cohort / "lock.csv", TEST_SET)["pseudonym"].tolist() == names[1:]
    unlock(cohort / "lock.csv", unlocked_on="2026-03-01", why="new release")
    assert (cohort / "lock.csv").read_text() == "pseudonym,source_sha256,locked_on,reason\n"


def test_who_was_unlocked_when_and_why_stays_on_record(cohort: Path) -> None:
    names = sorted(lock_now(cohort)["pseudonym"])
    unlock(cohort / "lock.csv", unlocked_on="2026-03-01", why="consent withdrawn", pseudonyms=names[:1])
    unlock(cohort / "lock.csv", unlocked_on="2026-04-01", why="new release")
    record = read_table(cohort / "lock.unlocked.csv", UNLOCKED)
    assert record["pseudonym"].tolist() == names
    assert record["why"].tolist() == ["consent withdrawn", *["new release"] * (len(names) - 1)]
    assert set(record["locked_on"]) == {"2026-02-01"}


def test_nobody_is_unlocked_who_is_not_locked(cohort: Path) -> None:
    lock_now(cohort)
    with pytest.raises(BadInput, match="not locked: stranger"):
        unlock(cohort / "lock.csv", unlocked_on="2026-03-01", why="test", pseudonyms=["stranger"])


def test_folds_have_no_one_test_set_to_lock(cohort: Path) -> None:
    split(cohort, SETTINGS.model_copy(update={"kind": "folds"}))
    with pytest.raises(BadInput, match="several folds"):
        lock_now(cohort)


def test_splits_older_than_the_cases_are_not_locked(cohort: Path) -> None:
    cases = read_table(cohort / "cases.csv", CASES)
    write_table(cohort / "cases.csv", cases.assign(sha256="0" * 64), CASES)
    with pytest.raises(BadInput, match="run the split stage first"):
        lock_now(cohort)


@pytest.mark.parametrize("name", ["phantom", "openkbp", "prostate"])
def test_every_shipped_lock_is_a_test_set_table(repository: Path, name: str) -> None:
    read_table(Layout(repository, name).test_set, TEST_SET)


def test_a_patient_locked_by_name_stays_with_whichever_data_he_has(cohort: Path) -> None:
    # Synthetic patients are planned anew on each machine: the last bits of their dose, and so the digests, differ.
    cases_csv = cohort / "cases.csv"
    locked = lock(
        cohort / "lock.csv", cases_csv, cohort / "splits.csv", locked_on="2026-02-01", reason="shipped", by_name=True
    )
    assert set(locked["source_sha256"]) == {""}
    cases = read_table(cases_csv, CASES)
    cases["source_sha256"] = [sha256_of_bytes(f"elsewhere {name}".encode()) for name in cases["case_id"]]
    write_table(cases_csv, cases, CASES)
    split(cohort, SETTINGS.model_copy(update={"seed": 99}))
    assert who_is_tested(cohort) == set(locked["pseudonym"])
    write_table(cases_csv, cases[cases["pseudonym"] != locked["pseudonym"][0]], CASES)
    with pytest.raises(BadInput, match="no longer among the cases"):
        split(cohort, SETTINGS)
