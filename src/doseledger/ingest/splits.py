"""Splits: patients dealt by a seed, with a locked test set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.settings import SplitSettings
from doseledger.core.tables import (
    CASES,
    SPLITS,
    TEST_SET,
    check_table,
    read_table,
    rows_of_fold,
    with_present_digests,
    write_table,
)
from doseledger.core.types import Tell

PARTS = ("train", "val", "test")
# Streams of the seed: who is tested and who is tuned on are drawn apart, so that neither hangs on the other.
STREAM_TEST, STREAM_VAL = 0, 1


def make_splits(
    cases_csv: Path, lock_csv: Path, out_csv: Path, settings: SplitSettings, tell: Tell
) -> dict[str, dict[str, int]]:
    """Write the table of splits and return how many patients and cases each part of the first fold really holds.

    Parameters
    ----------
    cases_csv, lock_csv
        The table of cases, and the locked test set (a header alone means unlocked).
    out_csv
        Where the table of splits goes.
    settings
        How patients are dealt.
    tell
        Called with one line per fold, giving its real proportions.

    Returns
    -------
    dict
        `{"train": {"patients": 17, "cases": 17}, …}`.

    Raises
    ------
    BadInput
        If the locked patients are not there unchanged, or the proportions cannot be had.
    """
    cases = read_table(cases_csv, CASES)
    locked = with_present_digests(read_table(lock_csv, TEST_SET), cases)
    splits = deal(cases, settings, locked)
    for (repeat, fold), part in splits.groupby(["repeat", "fold"]):
        left_out = len(cases) - len(part)
        note = f"; {left_out} case(s) of locked patients left out" if left_out else ""
        tell(f"repeat {repeat} fold {fold}: {describe(part)}{note}")
    tell(f"test set locked: {len(locked)} case(s)" if len(locked) else "test set not locked: it moves with the seed")
    write_table(out_csv, splits, SPLITS)
    return count_parts(rows_of_fold(splits, 0, 0))


def count_parts(fold: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the number of patients and cases in each part of one fold."""
    return {
        part: {
            "patients": int(fold.loc[fold["split"] == part, "pseudonym"].nunique()),
            "cases": int((fold["split"] == part).sum()),
        }
        for part in PARTS
    }


def describe(fold: pd.DataFrame) -> str:
    """Return the real proportions of one fold in words, e.g. `train 17 patients (70.8 %), …`."""
    counts = count_parts(fold)
    total = max(1, sum(count["patients"] for count in counts.values()))
    return ", ".join(
        f"{part} {count['patients']} patients / {count['cases']} cases ({100.0 * count['patients'] / total:.1f} %)"
        for part, count in counts.items()
    )


def deal(cases: pd.DataFrame, settings: SplitSettings, locked: pd.DataFrame) -> pd.DataFrame:
    """Return which part every case belongs to, in every repeat and fold.

    Parameters
    ----------
    cases
        Table of cases (`tables.CASES`).
    settings
        Seed, kind and proportions.
    locked
        Locked test set (`tables.TEST_SET`); without rows the test patients are drawn too.

    Returns
    -------
    DataFrame
        `tables.SPLITS`, sorted by repeat, fold and case.

    Raises
    ------
    BadInput
        If a locked patient is gone, changed or renamed; if a part would be empty; if train would not be the largest.

    Notes
    -----
    The unit is the patient: all cases of one pseudonym stay together. A patient's place in the order depends on the
    seed and on his own pseudonym alone, so a patient who is added moves at most one other across each border.

    A locked patient is never trained or tuned on. Whoever is locked but does not belong to the test set of a fold (a
    new scan of a locked patient, or a locked patient of a group that this fold trains on) is left out of that fold.
    """
    if cases.empty:
        raise BadInput("no cases to split: ingest wrote an empty cases.csv; look at skipped.csv for the reasons")
    _check_locked(cases, locked)
    if settings.kind == "leave_one_group_out":
        folds = _leave_one_group_out(cases, settings, locked)
    else:
        free = sorted(set(cases["pseudonym"]) - set(locked["pseudonym"]))
        by_fractions = settings.kind == "fractions"
        dealt = _deal_fractions(free, settings, locked) if by_fractions else _deal_folds(free, settings, locked)
        folds = {key: _rows(cases, part_of, locked) for key, part_of in dealt.items()}
    frames = []
    for (repeat, fold), rows in folds.items():
        _check_proportions(rows, f"repeat {repeat} fold {fold}", settings)
        frames.append(rows.assign(repeat=repeat, fold=fold))
    table = pd.concat(frames).sort_values(["repeat", "fold", "case_id"], ignore_index=True)
    return check_table(table[list(SPLITS.columns)], SPLITS, "splits")


def _place(seed: int, repeat: int, stream: int, pseudonym: str) -> float:
    """Where a patient stands in the order, in [0, 1)."""
    name = int.from_bytes(hashlib.sha256(pseudonym.encode()).digest()[:8], "little")
    return float(np.random.default_rng([seed, repeat, stream, name]).random())


def _ordered(patients: list[str], seed: int, repeat: int, stream: int) -> list[str]:
    return sorted(patients, key=lambda name: (_place(seed, repeat, stream, name), name))


def _share_of(n: int, fraction: float) -> int:
    """Round a share of n patients: a part that was asked for gets at least one."""
    return min(n, max(1, round(n * fraction))) if fraction > 0 else 0


def _carve_val(patients: list[str], settings: SplitSettings, repeat: int) -> dict[str, str]:
    """Deal patients to train and val only, in the proportion that the settings give these two."""
    train, val = settings.fractions["train"], settings.fractions["val"]
    order = _ordered(patients, settings.seed, repeat, STREAM_VAL)
    n_val = _share_of(len(order), val / (train + val))
    return {name: "val" if i < n_val else "train" for i, name in enumerate(order)}


Dealt = dict[tuple[int, int], dict[str, str]]


def _deal_fractions(free: list[str], settings: SplitSettings, locked: pd.DataFrame) -> Dealt:
    test: list[str] = []
    if locked.empty:
        order = _ordered(free, settings.seed, 0, STREAM_TEST)
        test = order[: _share_of(len(order), settings.fractions["test"])]
    rest = [name for name in free if name not in set(test)]
    return {(0, 0): {**dict.fromkeys(test, "test"), **_carve_val(rest, settings, 0)}}


def _deal_folds(free: list[str], settings: SplitSettings, locked: pd.DataFrame) -> Dealt:
    """Hold out one block of patients after the other: as test, or as val where the test set is locked."""
    if len(free) < settings.n_folds:
        raise BadInput(f"{len(free)} patients can't be dealt to {settings.n_folds} folds; lower splits.n_folds")
    held_as = "test" if locked.empty else "val"
    dealt: Dealt = {}
    for repeat in range(settings.n_repeats):
        order = _ordered(free, settings.seed, repeat, STREAM_TEST)
        # Blocks of neighbours and not every k-th: a patient who is added then moves one other at each border only.
        edges = np.linspace(0, len(order), settings.n_folds + 1).round().astype(int)
        for fold in range(settings.n_folds):
            held = order[edges[fold] : edges[fold + 1]]
            rest = [name for name in order if name not in set(held)]
            others = _carve_val(rest, settings, repeat) if locked.empty else dict.fromkeys(rest, "train")
            dealt[repeat, fold] = {**dict.fromkeys(held, held_as), **others}
    return dealt


def _leave_one_group_out(
    cases: pd.DataFrame, settings: SplitSettings, locked: pd.DataFrame
) -> dict[tuple[int, int], pd.DataFrame]:
    """Test on one group after the other, train on the rest; a locked patient of the rest is left out."""
    column = settings.group_column
    groups_of = cases.groupby("pseudonym")[column].agg(lambda groups: sorted(set(groups)))
    for name, groups in groups_of.items():
        if len(groups) > 1:
            raise BadInput(
                f"patient {name} is in {column} {', '.join(groups)}: a patient on both sides of a held-out {column} "
                "would leak; give his cases one group"
            )
    group_of = {str(name): str(groups[0]) for name, groups in groups_of.items()}
    if len(set(group_of.values())) < 2:
        raise BadInput(f"leave_one_group_out needs two values of {column}, found {sorted(set(group_of.values()))}")
    folds = {}
    for fold, group in enumerate(sorted(set(group_of.values()))):
        held = [name for name in group_of if group_of[name] == group]
        rest = [name for name in group_of if group_of[name] != group and name not in set(locked["pseudonym"])]
        part_of = {**dict.fromkeys(held, "test"), **_carve_val(rest, settings, 0)}
        split = cases["pseudonym"].map(part_of)
        folds[0, fold] = cases.assign(split=split)[split.notna()]
    return folds


def _rows(cases: pd.DataFrame, part_of: dict[str, str], locked: pd.DataFrame) -> pd.DataFrame:
    """Return the cases of dealt patients and the very cases that are locked; a locked patient's new scans are not."""
    is_locked = cases["source_sha256"].isin(locked["source_sha256"])
    split = cases["pseudonym"].map(part_of).where(~is_locked, "test")
    return cases.assign(split=split)[split.notna()]


def _check_locked(cases: pd.DataFrame, locked: pd.DataFrame) -> None:
    digest_of = {str(d): str(p) for d, p in zip(cases["source_sha256"], cases["pseudonym"], strict=True)}
    for name, digest in zip(locked["pseudonym"], locked["source_sha256"], strict=True):
        if digest_of.get(digest) == name:
            continue
        if digest in digest_of:
            found = f"its data are now under the name {digest_of[digest]}"
        elif name in set(cases["pseudonym"]):
            found = "its source data changed since it was locked"
        else:
            found = "it is no longer among the cases"
        raise BadInput(
            f"locked test patient {name}: {found} (locked digest {digest[:12]}…). Bring the locked data back, or "
            "change the lock on purpose with `doseledger test-set unlock --why …`"
        )


def _check_proportions(rows: pd.DataFrame, where: str, settings: SplitSettings) -> None:
    """Refuse a fold in which a part that was asked for is empty, or in which train is not the largest."""
    counts = {part: count["patients"] for part, count in count_parts(rows).items()}
    wanted = {"train"} | {part for part, fraction in settings.fractions.items() if fraction > 0}
    empty = [part for part in PARTS if part in wanted and counts[part] == 0]
    if empty:
        raise BadInput(f"{where}: no patient for {', '.join(empty)} ({describe(rows)}); add patients or change splits")
    # Two folds, or one large site held out, rightly test on more than they train on; fractions never do.
    rivals = ("val", "test") if settings.kind == "fractions" else ("val",)
    if counts["train"] < max(counts[part] for part in rivals):
        raise BadInput(f"{where}: proportions are inverted, train is not the largest ({describe(rows)})")
