"""Leakage: a patient, scan or near-copy on both sides; the lock of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.gates.data.fingerprints import Fingerprint
from doseledger.gates.limits import NearCopyLimits
from doseledger.gates.verdict import Finding

PARTS = ("train", "val", "test")
# A copy may be mirrored along any axis; the first is the copy as it is. What each is called in a finding.
FLIPPED_AXES = ((), (3,), (2,), (1,), (2, 3), (1, 3), (1, 2), (1, 2, 3))
FLIPS = ("", *(f", mirrored along {' and '.join('zyx'[axis - 1] for axis in axes)}" for axes in FLIPPED_AXES[1:]))


def judge_splits(cases: pd.DataFrame, splits: pd.DataFrame, locked: pd.DataFrame) -> list[Finding]:
    """Return what is wrong with the table of splits.

    Parameters
    ----------
    cases, splits, locked
        The tables `tables.CASES`, `tables.SPLITS` and `tables.TEST_SET`.
    """
    if splits.empty:
        return [Finding("splits_stale", "", "error", "the table of splits is empty; run the split stage")]
    findings = _judge_freshness(cases, splits)
    for (repeat, fold), rows in splits.groupby(["repeat", "fold"]):
        where = f"repeat {repeat} fold {fold}"
        findings += _judge_fold(rows, where)
        findings += _judge_complete(cases, rows, locked, where)
        findings += _judge_lock(cases, rows, locked, where)
    for column in ("group", "site"):
        findings += _judge_groups(cases, splits, column)
    return findings


def _judge_freshness(cases: pd.DataFrame, splits: pd.DataFrame) -> list[Finding]:
    findings = []
    columns = ["case_id", "pseudonym", "group", "sha256"]
    said = splits[columns].drop_duplicates()
    both = said.merge(cases[columns], on="case_id", how="left", suffixes=("_split", "_case"))
    for row in both.to_dict("records"):
        case_id = str(row["case_id"])
        if not isinstance(row["sha256_case"], str):
            message = f"{case_id}: in the splits, but not in cases.csv; run the split stage again"
            findings.append(Finding("splits_stale", case_id, "error", message))
            continue
        changed = [name for name in columns[1:] if row[f"{name}_split"] != row[f"{name}_case"]]
        if changed:
            message = f"{case_id}: {', '.join(changed)} changed since the splits were dealt; run the split stage again"
            findings.append(Finding("splits_stale", case_id, "error", message, {"columns": changed}))
    return findings


def _judge_fold(rows: pd.DataFrame, where: str) -> list[Finding]:
    findings = []
    empty = [part for part in ("train", "val") if part not in set(rows["split"])]
    if empty:
        message = f"{where}: no case in {', '.join(empty)}; wanted some in each. Run the split stage again"
        findings.append(Finding("splits_empty", "", "error", message))
    sides = rows.groupby("pseudonym")["split"].agg(lambda parts: sorted(set(parts)))
    for name, parts in sides.items():
        if len(parts) > 1:
            ids = rows.loc[rows["pseudonym"] == name, "case_id"].tolist()
            message = f"patient {name} ({', '.join(ids)}) is in {' and '.join(parts)} of {where}; wanted one side"
            findings.append(Finding("leakage_patient", ids[0], "error", message, {"cases": ids}))
    return findings


def _judge_groups(cases: pd.DataFrame, splits: pd.DataFrame, column: str) -> list[Finding]:
    """Judge folds that hold one group out each: none of it may be trained or tuned on in that fold.

    The table does not say how it was dealt. It was by group where there is one fold for each group and each tests on
    cases of its own group alone; folds of patients at random, who are all tested once, can't look so and still leak.
    """
    group_of = dict(zip(cases["case_id"], cases[column], strict=True))
    table = splits[splits["case_id"].isin(group_of)]
    table = table.assign(held=table["case_id"].map(group_of))
    tested = table[table["split"] == "test"].groupby(["repeat", "fold"])["held"].agg(lambda held: sorted(set(held)))
    groups = sorted(set(group_of.values()))
    if len(groups) < 2 or sorted(tested) != [[group] for group in groups]:
        return []
    findings = []
    for fold_of in tested.reset_index().to_dict("records"):
        repeat, fold, (group,) = fold_of["repeat"], fold_of["fold"], fold_of["held"]
        rows = table[(table["repeat"] == repeat) & (table["fold"] == fold) & (table["held"] == group)]
        leaked = rows[rows["split"] != "test"]
        if leaked.empty:
            continue
        ids, parts = leaked["case_id"].tolist(), " and ".join(sorted(set(leaked["split"])))
        message = (
            f"{', '.join(ids)}: of {column} {group}, which repeat {repeat} fold {fold} holds out as its test, but in "
            f"its {parts}; wanted on one side. Run the split stage again"
        )
        findings.append(Finding("leakage_group", ids[0], "error", message, {"cases": ids, column: group}))
    return findings


def _judge_complete(cases: pd.DataFrame, rows: pd.DataFrame, locked: pd.DataFrame, where: str) -> list[Finding]:
    # A locked patient may be in no part of a fold: his new scans are neither tested nor trained on.
    free = cases[~cases["pseudonym"].isin(locked["pseudonym"])]
    absent = sorted(set(free["case_id"]) - set(rows["case_id"]))
    if not absent:
        return []
    message = f"{', '.join(absent)}: in cases.csv, but in no part of {where}; run the split stage again"
    return [Finding("splits_stale", absent[0], "error", message, {"cases": absent})]


def _judge_lock(cases: pd.DataFrame, rows: pd.DataFrame, locked: pd.DataFrame, where: str) -> list[Finding]:
    findings = []
    gone = sorted(set(locked["source_sha256"]) - set(cases["source_sha256"]))
    for row in locked[locked["source_sha256"].isin(gone)].to_dict("records"):
        message = f"locked test patient {row['pseudonym']} is not among the cases as he was locked; bring him back"
        findings.append(Finding("lock_broken", "", "error", message))
    trained = rows[rows["pseudonym"].isin(locked["pseudonym"]) & (rows["split"] != "test")]
    for row in trained.to_dict("records"):
        case_id = str(row["case_id"])
        message = f"{case_id}: of the locked test patient {row['pseudonym']}, but in {row['split']} of {where}"
        findings.append(Finding("lock_broken", case_id, "error", message))
    return findings


def judge_copies(
    cases: pd.DataFrame, splits: pd.DataFrame, prints: Mapping[str, Fingerprint], limits: NearCopyLimits
) -> list[Finding]:
    """Return which cases are one and the same under two names, and which of these lie on both sides of a split.

    Parameters
    ----------
    cases, splits
        The tables `tables.CASES` and `tables.SPLITS`.
    limits
        From which correlation on two images or doses count as one.
    """
    rows = {str(row["case_id"]): row for row in cases.to_dict("records")}
    source = {case_id: str(row["source_sha256"]) for case_id, row in rows.items()}
    ids = sorted(set(prints) & set(rows))
    empty = np.zeros((0, 1), np.float32)
    near_ct, flip_ct = _correlate(np.stack([prints[i].ct for i in ids]) if ids else empty)
    near_dose, flip_dose = _correlate(np.stack([prints[i].dose for i in ids]) if ids else empty)
    near = ~(near_ct < limits.ct_correlation) | ~(near_dose < limits.dose_correlation)
    near |= _alike([prints[i].ct_sha256 for i in ids]) | _alike([prints[i].dose_sha256 for i in ids])
    ordered, number = sorted(rows), {case_id: k for k, case_id in enumerate(ids)}
    suspect = _alike([source[case_id] for case_id in ordered])
    known = np.flatnonzero([case_id in number for case_id in ordered])
    suspect[np.ix_(known, known)] |= near
    findings = []
    for i, j in np.argwhere(np.triu(suspect, 1)):
        one, other = ordered[i], ordered[j]
        reasons = ["they come from the very same files"] if source[one] == source[other] else []
        if one in number and other in number:
            a, b, pair = prints[one], prints[other], (number[one], number[other])
            same_dose = bool(a.dose_sha256) and a.dose_sha256 == b.dose_sha256
            same_image = a.ct_sha256 == b.ct_sha256
            reasons += _compare(a.image, same_image, float(near_ct[pair]), limits.ct_correlation, FLIPS[flip_ct[pair]])
            reasons += _compare(
                "dose", same_dose, float(near_dose[pair]), limits.dose_correlation, FLIPS[flip_dose[pair]]
            )
        if reasons:
            findings.append(_pair_finding((rows[one], rows[other]), splits, reasons))
    return findings


def _alike(words: list[str]) -> NDArray[np.bool_]:
    """Return which two of some words are the same, (n, n)."""
    numbers = np.unique(words, return_inverse=True)[1] if words else np.zeros(0, np.intp)
    return np.equal.outer(numbers, numbers)


def _correlate(prints: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the greatest correlation of each two prints, (case, case), and under which of `FLIPS` it is."""
    cubes = prints.reshape(len(prints), *[round(prints.shape[1] ** (1 / 3))] * 3)
    found = np.stack([prints @ np.flip(cubes, axes).reshape(prints.shape).T for axes in FLIPPED_AXES])
    return found.max(axis=0), found.argmax(axis=0)


def _compare(what: str, same: bool, correlation: float, limit: float, how: str) -> list[str]:
    if same:
        return [f"their {what} is the same to the last bit"]
    if not correlation < limit:
        return [f"their {what} is nearly the same{how} (correlation {correlation:.3f}, wanted below {limit:g})"]
    return []


def _pair_finding(pair: tuple[dict[Any, Any], dict[Any, Any]], splits: pd.DataFrame, reasons: list[str]) -> Finding:
    one, other = (str(row["case_id"]) for row in pair)
    why = "; ".join(reasons)
    sides = _sides(splits, one, other)
    numbers = {"cases": [one, other], "reasons": reasons}
    if sides:
        message = (
            f"{one} and {other}: {why}; and they are on both sides of a split ({sides}), so the test would be of what "
            "was learned by heart. Give them one pseudonym, or take one out"
        )
        return Finding("leakage_copy", one, "error", message, numbers)
    if pair[0]["pseudonym"] == pair[1]["pseudonym"]:
        message = f"{one} and {other}, of one patient: {why}. Is one of them a copy?"
        return Finding("duplicate", one, "warning", message, numbers)
    message = (
        f"{one} and {other}: {why}, under the names {pair[0]['pseudonym']} and {pair[1]['pseudonym']}. Take one out"
    )
    return Finding("duplicate", one, "error", message, numbers)


def _sides(splits: pd.DataFrame, one: str, other: str) -> str:
    """Say where two cases are apart, e.g. `train and test`; empty where they never are."""
    keys = ["repeat", "fold"]
    both = splits[splits["case_id"] == one].merge(splits[splits["case_id"] == other], on=keys)
    apart = both[both["split_x"] != both["split_y"]]
    if apart.empty:
        return ""
    first = apart.iloc[0]
    return f"{first['split_x']} and {first['split_y']}"
