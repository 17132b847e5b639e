"""Red flags of a training's history, and scores too good to be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.tables import read_frame
from doseledger.gates.limits import TrainingLimits
from doseledger.gates.verdict import Finding, Severity

# Mean errors of the dose that a prediction from anatomy can bring below the least plausible one only by having seen it.
WHOLE_DOSE_ERRORS = ("mae_valid_dose_gy", "mae_body_gy", "mae_above_10_percent_gy")
# Not judged, and never the same twice.
CLOCK = frozenset({"seconds"})


def read_history(path: Path) -> list[dict[str, float]]:
    """Return a training's history, one row an epoch, without its clock; what is empty is left out.

    Raises
    ------
    BadInput
        If there is none, or it is no history, or an epoch or its loss is empty, or anything in it is no finite number:
        a gate that can't see its data fails.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no history of the training; train the model again")
    table = read_frame(path)
    wanted = {"epoch", "train_loss"}
    if not wanted <= set(table.columns) or table.empty:
        raise BadInput(f"{path}: a history has {', '.join(sorted(wanted))} and a row an epoch; train the model again")
    table = table.drop(columns=sorted(CLOCK & set(table.columns)))
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    # A score may be empty, in an epoch without validation; what is there must be a number.
    empty = table.isna().to_numpy() & ~table.columns.isin(wanted)
    if not (np.isfinite(numbers.to_numpy()) | empty).all():
        raise BadInput(f"{path}: an epoch, a loss or a score is no number; train the model again")
    return [
        {str(name): float(value) for name, value in row.items() if pd.notna(value)}
        for row in numbers.to_dict("records")
    ]


def judge_training(history: list[dict[str, float]], limits: TrainingLimits, model: str) -> list[Finding]:
    """Return the red flags of a training: of the epoch whose weights were kept, and of where its losses went."""
    from doseledger.learn.watch.red_flags import final_red_flags, was_measured_on_training

    findings = [
        Finding(flag.name, "", flag.severity, f"{model}: {flag.message}", dict(flag.numbers))
        for flag in final_red_flags(history, limits)
    ]
    if not was_measured_on_training(history):
        message = (
            f"{model}: its history holds no error of training cases, so nobody can tell whether it learned them by "
            "heart; train it again"
        )
        findings.append(Finding("training_unseen", "", "warning", message))
    return findings


def judge_plausible(rows: pd.DataFrame, limits: TrainingLimits, model: str) -> list[Finding]:
    """Return which scores on the test cases are better than a prediction can have.

    Parameters
    ----------
    rows
        The table of metrics, a row per case.
    """
    found: list[tuple[str, Severity, str, float]] = []
    in_gy, in_percent = limits.least_mae_gy, limits.most_gamma_percent
    if in_gy is not None:
        for column in sorted(set(WHOLE_DOSE_ERRORS) & set(rows.columns)):
            mean_gy = float(pd.to_numeric(rows[column], errors="coerce").mean())
            words = f"is {mean_gy:.3f} Gy over {len(rows)} cases: nearer to the plan than a plan made to mimic it"
            # So written, what is no number is found too.
            if not mean_gy > in_gy.warning:
                found.append((column, "error" if not mean_gy > in_gy.error else "warning", words, mean_gy))
    if in_percent is not None:
        for column in sorted(name for name in rows.columns if name.startswith("gamma_") and name.endswith("_percent")):
            least = float(pd.to_numeric(rows[column], errors="coerce").min())
            words = f"is at least {least:.2f} % in each of {len(rows)} cases: what a copy of the plan would have"
            if not least < in_percent.warning:
                found.append((column, "error" if not least < in_percent.error else "warning", words, least))
    findings = []
    for column, severity, words, value in found:
        advice = "look for the plan's dose among the inputs, and for test patients in training"
        message = f"{model}: {column} {words}; {advice}"
        findings.append(Finding("score_implausible", "", severity, message, {"metric": column, "found": value}))
    return findings
