"""Tables that cross stages: columns and types, checked wherever they are read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from doseledger.core.damage import DAMAGED, describe, shorten
from doseledger.core.errors import BadInput
from doseledger.core.files import write_text
from doseledger.core.text.lists import first_of

SHA256 = pa.Check.str_matches(r"^[0-9a-f]{64}$", error="a SHA256 in hex")
CASE_ID = pa.Check.str_matches(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", error="letters, digits, '.', '_' and '-' only")
TRUTH = {"True": True, "False": False}
# Of a table that does not fit, named in one message.
MOST_ROWS = 10
SPLIT = pa.Check.isin(["train", "val", "test"])


def _table(name: str, columns: dict[str, pa.Column], unique: list[str]) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(columns, name=name, unique=unique or None, strict=True, coerce=True)


# data/raw/<cohort>.csv: the cases that there are, with the digest of each one's packed DICOM.
RAW = _table("raw", {"case_id": pa.Column(str, CASE_ID), "sha256": pa.Column(str, SHA256)}, ["case_id"])

# cases.csv: one row per NPZ. `pseudonym` is the patient, `group` what leave-one-group-out holds together.
CASES = _table(
    "cases",
    {
        "case_id": pa.Column(str, CASE_ID),
        "pseudonym": pa.Column(str),
        "group": pa.Column(str),
        "site": pa.Column(str),
        "source_sha256": pa.Column(str, SHA256),
        "sha256": pa.Column(str, SHA256),
        "n_warnings": pa.Column(int, pa.Check.ge(0)),
    },
    ["case_id"],
)

# skipped.csv: every raw case that is not in cases.csv, and why.
SKIPPED = _table(
    "skipped",
    {
        "case_id": pa.Column(str, CASE_ID),
        "status": pa.Column(str, pa.Check.isin(["skipped", "failed"])),
        "reason": pa.Column(str, pa.Check.str_length(min_value=1)),
    },
    ["case_id"],
)

# physics.csv: the maps of each case, and why there are none; of which case they are.
PHYSICS = _table(
    "physics",
    {
        "case_id": pa.Column(str, CASE_ID),
        "case_sha256": pa.Column(str, SHA256),
        "sha256": pa.Column(str, pa.Check.str_matches(r"^([0-9a-f]{64})?$", error="a SHA256 in hex, or empty")),
        "reason": pa.Column(str),
    },
    ["case_id"],
)

# structures.csv: how many cases have each structure of the protocol; of those that lack it, how many have an unclaimed
# ROI that may be it, and its names.
STRUCTURES = _table(
    "structures",
    {
        "structure": pa.Column(str),
        "required": pa.Column(bool),
        "cases": pa.Column(int, pa.Check.ge(0)),
        "found": pa.Column(int, pa.Check.ge(0)),
        "may_be_cases": pa.Column(int, pa.Check.ge(0)),
        "may_be": pa.Column(str),
    },
    ["structure"],
)

# data/splits/<cohort>.csv: fractions have repeat 0 and fold 0 only; k folds list every case once per repeat and fold.
SPLITS = _table(
    "splits",
    {
        "repeat": pa.Column(int, pa.Check.ge(0)),
        "fold": pa.Column(int, pa.Check.ge(0)),
        "case_id": pa.Column(str, CASE_ID),
        "pseudonym": pa.Column(str),
        "group": pa.Column(str),
        "split": pa.Column(str, SPLIT),
        "sha256": pa.Column(str, SHA256),
    },
    ["repeat", "fold", "case_id"],
)

# validation/cohorts/<cohort>/test_set.csv: the locked test set, edited only by `doseledger test-set lock` and
# `unlock`. A row without a digest locks a synthetic patient by name: the last bits of his dose differ from machine to
# machine.
TEST_SET = _table(
    "test_set",
    {
        "pseudonym": pa.Column(str),
        "source_sha256": pa.Column(str, pa.Check.str_matches(r"^([0-9a-f]{64})?$", error="a SHA256 in hex, or empty")),
        "locked_on": pa.Column(str, pa.Check.str_matches(r"^\d{4}-\d{2}-\d{2}$", error="a date YYYY-MM-DD")),
        "reason": pa.Column(str, pa.Check.str_length(min_value=1)),
    },
    ["pseudonym", "source_sha256"],
)

# validation/cohorts/<cohort>/test_set.unlocked.csv: who was taken out of a lock, when and why; it only grows.
UNLOCKED = _table(
    "unlocked",
    {
        **TEST_SET.columns,
        "unlocked_on": pa.Column(str, pa.Check.str_matches(r"^\d{4}-\d{2}-\d{2}$", error="a date YYYY-MM-DD")),
        "why": pa.Column(str, pa.Check.str_length(min_value=1)),
    },
    [],
)

_NOT_NEGATIVE = pa.Check.ge(0.0)
_PERCENT = pa.Check.in_range(0.0, 100.0)


def _value() -> pa.Column:
    # A number that there may not be: the row's reason says why.
    return pa.Column(float, nullable=True)


# reports/metrics/<cohort>/<model>/cases.csv: one row per test case. MAE stands under the name of its mask, gamma under
# percent, mm and kind; which ones there are is the protocol's and the settings' choice.
CASE_METRICS = _table(
    "case metrics",
    {
        "case_id": pa.Column(str, CASE_ID),
        "case_sha256": pa.Column(str, SHA256),
        "checkpoint_sha256": pa.Column(str, SHA256),
        r"^mae_.+_gy$": pa.Column(float, _NOT_NEGATIVE, regex=True, nullable=True),
        r"^gamma_.+_percent$": pa.Column(float, _PERCENT, regex=True),
        # All that decides the pass rates; their columns' names leave the cutoff out.
        "gamma_criteria": pa.Column(str),
        "gamma_points_verified": pa.Column(int, pa.Check.ge(0)),
        "gamma_largest_difference": pa.Column(float, _NOT_NEGATIVE, nullable=True),
        "goals_evaluable": pa.Column(int, pa.Check.ge(0)),
        "plan_goals_met": pa.Column(int, pa.Check.ge(0)),
        "plan_acceptable": pa.Column(bool),
        "prediction_goals_met": pa.Column(int, pa.Check.ge(0)),
        "prediction_acceptable": pa.Column(bool),
        r"^openkbp_(dose|dvh)_gy$": pa.Column(float, _NOT_NEGATIVE, regex=True, required=False, nullable=True),
    },
    ["case_id"],
)

_SHARE = pa.Check.in_range(0.0, 1.0)
# The same of a segmentation: each measure over all structures, and of each; empty where neither label has one.
SEGMENT_METRICS = _table(
    "segmentation metrics",
    {
        "case_id": pa.Column(str, CASE_ID),
        "case_sha256": pa.Column(str, SHA256),
        "checkpoint_sha256": pa.Column(str, SHA256),
        "surface_tolerance_mm": pa.Column(float, pa.Check.gt(0.0)),
        r"^(dice|iou|surface_dice)(_.+)?$": pa.Column(float, _SHARE, regex=True, nullable=True),
        r"^hd95_mm(_.+)?$": pa.Column(float, _NOT_NEGATIVE, regex=True, nullable=True),
        r"^volume_cc_(reference|prediction)_.+$": pa.Column(float, _NOT_NEGATIVE, regex=True),
    },
    ["case_id"],
)

# …/dvh.csv: one row per case, structure and statistic; difference is prediction − plan.
DVH_METRICS = _table(
    "DVH metrics",
    {
        "case_id": pa.Column(str, CASE_ID),
        "structure": pa.Column(str),
        "kind": pa.Column(str, pa.Check.isin(["target", "organ"])),
        "statistic": pa.Column(str),
        "unit": pa.Column(str, pa.Check.isin(["Gy", "%", "cc", "1"])),
        "plan": _value(),
        "prediction": _value(),
        "difference": _value(),
        "reason": pa.Column(str),
    },
    ["case_id", "structure", "statistic", "unit"],
)

# …/goals.csv: one row per case and clinical goal; a margin is the room left, negative where the goal is missed.
GOAL_METRICS = _table(
    "goal metrics",
    {
        "case_id": pa.Column(str, CASE_ID),
        "goal": pa.Column(str),
        "structure": pa.Column(str),
        "unit": pa.Column(str, pa.Check.isin(["Gy", "%", "cc", "1"])),
        "limit": pa.Column(float),
        "gating": pa.Column(bool),
        "plan": _value(),
        "prediction": _value(),
        "plan_met": pa.Column("boolean", nullable=True),
        "prediction_met": pa.Column("boolean", nullable=True),
        "plan_acceptable": pa.Column("boolean", nullable=True),
        "prediction_acceptable": pa.Column("boolean", nullable=True),
        "plan_margin": _value(),
        "prediction_margin": _value(),
        "reason": pa.Column(str),
    },
    ["case_id", "goal"],
)


def with_present_digests(locked: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Return a locked test set in which a patient locked by name alone has the digests that his cases have now.

    One who is no longer among the cases keeps an empty digest, which no case has.
    """
    by_name = locked["source_sha256"] == ""
    now = cases[["pseudonym", "source_sha256"]]
    named = locked[by_name].drop(columns="source_sha256").merge(now, on="pseudonym", how="left")
    return pd.concat([locked[~by_name], named.fillna({"source_sha256": ""})], ignore_index=True)[list(locked.columns)]


def rows_of_fold(splits: pd.DataFrame, fold: int, repeat: int, part: str | None = None) -> pd.DataFrame:
    """Return the rows of the splits of one fold and repeat: of all parts, or of train, val or test alone."""
    rows = splits[(splits["fold"] == fold) & (splits["repeat"] == repeat)]
    return rows if part is None else rows[rows["split"] == part]


def read_table(path: Path, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Return a CSV table that has passed its schema.

    Raises
    ------
    BadInput
        If the file is absent, or naming each column and row that does not fit.
    """
    frame = read_frame(path, dtype=str, keep_default_na=False)
    return check_table(_from_text(frame, schema, str(path)), schema, str(path))


def read_frame(path: Path, **options: Any) -> pd.DataFrame:
    """Return a CSV table as it is, whatever its columns.

    Parameters
    ----------
    options
        Of `pandas.read_csv`.

    Raises
    ------
    BadInput
        If the file is absent, is no table, or its rows have more cells than its head.
    """
    try:
        frame = pd.read_csv(path, **options)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such table; run the stage that writes it") from error
    except DAMAGED as error:
        raise BadInput(f"{path}: not a CSV table ({describe(error)}); run the stage that writes it again") from error
    # Of rows with a cell too many pandas makes the first their index, and every column holds its neighbour's values.
    if not isinstance(frame.index, pd.RangeIndex):
        raise BadInput(
            f"{path}: not a CSV table (its rows have more cells than its head); run the stage that writes it again"
        )
    return frame


def _from_text(frame: pd.DataFrame, schema: pa.DataFrameSchema, where: str) -> pd.DataFrame:
    """Give truth values and empty cells the meaning that they have in a CSV.

    Cells are read as text, so that a case called 007 keeps its zeros; but to numpy any text that is not empty is true,
    "False" too, and an empty cell is no number.
    """
    typed = frame.copy()
    for name, column in schema.columns.items():
        is_truth = str(column.dtype) in ("bool", "boolean")
        fits = frame.columns.str.fullmatch(name) if column.regex else frame.columns == name
        for found in frame.columns[fits]:
            cells = frame[found]
            if is_truth:
                strange = cells[~cells.isin([*TRUTH, ""] if column.nullable else list(TRUTH))]
                if len(strange):
                    raise BadInput(
                        f"{where}: not a {schema.name} table: {found}: True or False, found "
                        f"{shorten(repr(strange.iloc[0]))} in row {strange.index[0]}"
                    )
                typed[found] = pd.array([TRUTH.get(cell) for cell in cells], dtype="boolean")
            elif column.nullable:
                typed[found] = cells.where(cells != "", other=None)
    return typed


def read_case_metrics(path: Path) -> pd.DataFrame:
    """Return a table of cases of either kind of model: `CASE_METRICS` of a dose, `SEGMENT_METRICS` of a segmentation.

    Raises
    ------
    BadInput
        As `read_table`.
    """
    with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as stream:
        if "dice" in stream.readline().strip().split(","):
            return read_table(path, SEGMENT_METRICS)
    return read_table(path, CASE_METRICS)


def check_table(frame: pd.DataFrame, schema: pa.DataFrameSchema, where: str) -> pd.DataFrame:
    """Return the table with its columns coerced to the schema's types, or say all that is wrong with it.

    Raises
    ------
    BadInput
        Naming each column and row that does not fit.
    """
    try:
        return schema.validate(frame, lazy=True)
    except (pa.errors.SchemaErrors, pa.errors.SchemaError) as error:
        cases = error.failure_cases
        rows = cases.to_dict("records") if isinstance(cases, pd.DataFrame) else [{"check": str(error)}]
        found = [
            f"{row.get('column') or 'table'}: {row.get('check')}, found {shorten(repr(row.get('failure_case')))}"
            + (f" in row {row['index']}" if row.get("index") is not None else "")
            for row in rows
        ]
        raise BadInput(f"{where}: not a {schema.name} table: {first_of(found, MOST_ROWS, '; ')}") from error


def write_table(path: Path, frame: pd.DataFrame, schema: pa.DataFrameSchema) -> None:
    """Write a table as CSV after checking it, atomically, in the schema's order of columns."""
    checked = check_table(frame, schema, str(path))
    write_text(path, checked[list(schema.columns)].to_csv(index=False, lineterminator="\n"))
