"""Two models on the same cases: does one do better, by how much, and how sure is that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.tables import CASE_METRICS, read_table
from doseledger.evaluate.intervals import paired_test
from doseledger.evaluate.summary import is_measure


def compare_models(first: Path, second: Path) -> dict[str, Any]:
    """Return the paired test of every error and pass rate of two models, by column.

    Parameters
    ----------
    first, second
        `cases.csv` of the evaluation of each model.

    Returns
    -------
    dict
        `n_cases`, and by column `first` and `second` (means), `median_difference` (second − first), `p_value`
        (Wilcoxon, two-sided, not corrected for the number of columns), `effect_size` (−1 to 1) and `n`.

    Raises
    ------
    BadInput
        If a table can't be read, or the two are not of the same cases byte by byte, or share no column.
    """
    tables = [read_table(path, CASE_METRICS) for path in (first, second)]
    digests = [dict(zip(table["case_id"], table["case_sha256"], strict=True)) for table in tables]
    if digests[0] != digests[1]:
        alone = sorted(
            name for name in set(digests[0]) | set(digests[1]) if digests[0].get(name) != digests[1].get(name)
        )
        raise BadInput(
            f"{first} and {second} are not of the same cases ({', '.join(alone[:8])} differ); evaluate both models on "
            "one test set"
        )
    ours, theirs = (table.set_index("case_id").sort_index() for table in tables)
    columns = [name for name in ours.columns if is_measure(name) and name in theirs]
    if not columns:
        raise BadInput(f"{first} and {second} share no error and no pass rate; evaluate them with the same settings")
    found: dict[str, Any] = {"n_cases": len(ours)}
    for name in columns:
        one, other = ours[name].to_numpy(dtype=np.float64), theirs[name].to_numpy(dtype=np.float64)
        test = paired_test(one, other)
        found[name] = {
            "first": float(ours[name].mean()),
            "second": float(theirs[name].mean()),
            "median_difference": test.median_difference,
            "p_value": test.p_value,
            "effect_size": test.effect_size,
            "n": test.n,
        }
    return found
