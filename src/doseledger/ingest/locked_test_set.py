"""The locked test set: who, since when, why; edited here alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.tables import CASES, SPLITS, TEST_SET, UNLOCKED, read_table, write_table


def lock(
    lock_csv: Path, cases_csv: Path, splits_csv: Path, *, locked_on: str, reason: str, by_name: bool = False
) -> pd.DataFrame:
    """Lock the test patients of the present splits and return the table that was written (`tables.TEST_SET`).

    Parameters
    ----------
    lock_csv
        The lock, `validation/cohorts/<cohort>/test_set.csv`; it must be empty.
    locked_on
        Date, YYYY-MM-DD: the caller's, as nothing here reads a clock.
    reason
        Why these patients, in words.
    by_name
        Leave the digests out, for synthetic patients: each machine makes them anew, with other last bits.

    Raises
    ------
    BadInput
        If a test set is locked already, the splits have more than one fold or no test patients, or the splits are
        older than the cases.
    """
    if len(read_table(lock_csv, TEST_SET)):
        raise BadInput(f"{lock_csv}: a test set is locked already; `doseledger test-set unlock --why …` comes first")
    if not reason.strip():
        raise BadInput("a lock needs a reason: say why these patients are the test set")
    cases, splits = read_table(cases_csv, CASES), read_table(splits_csv, SPLITS)
    if len(splits[["repeat", "fold"]].drop_duplicates()) > 1:
        raise BadInput(f"{splits_csv} has several folds, each with a test set of its own: lock one dealt by fractions")
    test = splits[splits["split"] == "test"].merge(
        cases[["case_id", "sha256", "source_sha256"]], on=["case_id", "sha256"], how="left"
    )
    if test.empty:
        raise BadInput(f"{splits_csv} has no test patients to lock")
    stale = test.loc[test["source_sha256"].isna(), "case_id"].tolist()
    if stale:
        raise BadInput(f"{splits_csv} is older than {cases_csv} for {', '.join(stale)}; run the split stage first")
    table = test[["pseudonym", "source_sha256"]].sort_values(["pseudonym", "source_sha256"], ignore_index=True)
    if by_name:
        table = table.assign(source_sha256="").drop_duplicates()
    table = table.assign(locked_on=locked_on, reason=reason.strip())
    write_table(lock_csv, table, TEST_SET)
    return table


def unlock(lock_csv: Path, *, unlocked_on: str, why: str, pseudonyms: list[str] | None = None) -> pd.DataFrame:
    """Take patients out of the lock, and return the rows that were removed.

    They are kept beside the lock, in `test_set.unlocked.csv`, with date and reason: whoever reads a later result can
    see who was once tested on.

    Parameters
    ----------
    unlocked_on
        Date, YYYY-MM-DD: the caller's, as nothing here reads a clock.
    why
        The reason: without one nothing is unlocked.
    pseudonyms
        Whom to unlock; None unlocks all.

    Raises
    ------
    BadInput
        If there is no reason, or nobody of that name is locked.
    """
    if not why.strip():
        raise BadInput("unlocking a test set needs --why: whoever was tested on may be trained on from now on")
    table = read_table(lock_csv, TEST_SET)
    wanted = sorted(set(table["pseudonym"])) if pseudonyms is None else pseudonyms
    strangers = [name for name in wanted if name not in set(table["pseudonym"])]
    if strangers or table.empty:
        raise BadInput(f"{lock_csv}: not locked: {', '.join(strangers) or 'nobody is'}")
    is_removed = table["pseudonym"].isin(wanted)
    removed = table[is_removed].assign(unlocked_on=unlocked_on, why=why.strip())
    record = lock_csv.with_suffix(".unlocked.csv")
    earlier = [read_table(record, UNLOCKED)] if record.is_file() else []
    # The record first: a crash between the two leaves a patient locked and named, never unlocked and forgotten.
    write_table(record, pd.concat([*earlier, removed], ignore_index=True), UNLOCKED)
    write_table(lock_csv, table[~is_removed], TEST_SET)
    return removed
