"""Paired comparison of two models on the same cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.tables import DVH_METRICS, read_case_metrics, read_table
from doseledger.core.text.lists import first_of
from doseledger.core.text.sheet import Table, as_markdown, format_number, make_table
from doseledger.core.text.words import spell_metric
from doseledger.dosimetry.intervals import bootstrap_interval, holm, paired_test
from doseledger.evaluate.overlap import MORE_IS_BETTER, measure_of
from doseledger.evaluate.summary import is_measure

# Letters of a model's name that heads a column; of a path the head line tells more.
LONGEST_NAME = 20


def compare_models(first: Path, second: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Return the paired statistics of every error and pass rate of two models, by column.

    Parameters
    ----------
    first, second
        What evaluate wrote of each model: its folder, or its `cases.csv` alone. With two folders, the absolute
        differences of each structure's DVH statistics are compared too, as `dvh_<structure>_<statistic>`.
    rng
        Source of the bootstrap.

    Returns
    -------
    dict
        `n_cases`, and by column `first` and `second` (means), `mean_difference` (second − first) with the ends `low`
        and `high` of its 95 % interval (bootstrap over cases), `median_difference`, `p_value` (Wilcoxon, two-sided),
        `p_adjusted` (Holm, over all columns), `effect_size` (rank-biserial, −1 to 1), `n`, and `better`: `first` or
        `second` where the interval leaves 0 out, else `neither`. `only_first` and `only_second` list the columns that
        one side alone has, which can't be compared.

    Raises
    ------
    BadInput
        If a table can't be read, or the two are not of the same cases byte by byte, were evaluated with other gamma
        criteria, or share no column.
    """
    files = [path / "cases.csv" if path.is_dir() else path for path in (first, second)]
    tables = [read_case_metrics(file) for file in files]
    digests = [dict(zip(table["case_id"], table["case_sha256"], strict=True)) for table in tables]
    if digests[0] != digests[1]:
        alone = sorted(
            name for name in set(digests[0]) | set(digests[1]) if digests[0].get(name) != digests[1].get(name)
        )
        raise BadInput(
            f"{first} and {second} are not of the same cases ({first_of(alone, 8)} differ); evaluate both models on "
            "one test set"
        )
    refuse_other_criteria({str(path): table for path, table in zip((first, second), tables, strict=True)})
    ours, theirs = (table.set_index("case_id").sort_index() for table in tables)
    if first.is_dir() and second.is_dir() and "gamma_criteria" in ours:
        ours, theirs = (
            table.join(_dvh_errors(folder), how="left") for table, folder in ((ours, first), (theirs, second))
        )
    measured = [
        [name for name in table.columns if is_measure(name) or name.startswith("dvh_")] for table in (ours, theirs)
    ]
    columns = [name for name in measured[0] if name in measured[1]]
    if not columns:
        raise BadInput(f"{first} and {second} share no error and no pass rate; evaluate them with the same settings")
    only = [[name for name in names if name not in columns] for names in measured]
    found: dict[str, Any] = {"n_cases": len(ours), "only_first": only[0], "only_second": only[1]}
    for name in columns:
        found[name] = _compare(
            ours[name].to_numpy(dtype=np.float64), theirs[name].to_numpy(dtype=np.float64), rng, _more_is_better(name)
        )
    adjusted = holm([found[name]["p_value"] for name in columns])
    for name, p_adjusted in zip(columns, adjusted, strict=True):
        found[name]["p_adjusted"] = p_adjusted
    return found


def refuse_other_criteria(tables: Mapping[str, pd.DataFrame]) -> None:
    """Do nothing if all tables of cases (by what they are called) were evaluated with the same criteria.

    Raises
    ------
    BadInput
        Naming two tables that were not, and the criteria of each: a pass rate above 10 % of the dose is not one above
        20 %, though both stand under the same name.
    """
    kinds = {"gamma_criteria" in table for table in tables.values()}
    if len(kinds) > 1:
        raise BadInput(f"{', '.join(tables)}: a dose and a segmentation share no number; compare models of one kind")
    if kinds == {False}:
        tolerances = {value for table in tables.values() for value in table["surface_tolerance_mm"]}
        if len(tolerances) > 1:
            raise BadInput(
                f"{', '.join(tables)} were evaluated with surface tolerances of {sorted(tolerances)} mm; evaluate all "
                "with one evaluate.surface_tolerance_mm"
            )
        return
    found = [(name, criteria) for name, table in tables.items() for criteria in table["gamma_criteria"].unique()]
    for name, criteria in found[1:]:
        if criteria != found[0][1]:
            raise BadInput(
                f"{found[0][0]} and {name} were evaluated with different gamma criteria ({found[0][1]} against "
                f"{criteria}); evaluate both with one evaluate.gamma"
            )


def _more_is_better(column: str) -> bool:
    return column.startswith("gamma_") or measure_of(column) in MORE_IS_BETTER


def _dvh_errors(folder: Path) -> pd.DataFrame:
    """Return the absolute difference of each structure's statistics between prediction and plan, a row per case."""
    rows = read_table(folder / "dvh.csv", DVH_METRICS)
    columns = "dvh_" + rows["structure"] + "_" + rows["statistic"]
    return rows.assign(column=columns, error=rows["difference"].abs()).pivot(
        index="case_id", columns="column", values="error"
    )


def _compare(
    one: NDArray[np.float64], other: NDArray[np.float64], rng: np.random.Generator, more_is_better: bool
) -> dict[str, Any]:
    test = paired_test(one, other)
    difference = other - one
    low, high = bootstrap_interval(difference, rng)
    known = ~np.isnan(difference)
    better = "neither"
    if low > 0 or high < 0:
        better = "second" if (low > 0) == more_is_better else "first"
    return {
        "first": float(one[known].mean()) if known.any() else math.nan,
        "second": float(other[known].mean()) if known.any() else math.nan,
        "mean_difference": float(difference[known].mean()) if known.any() else math.nan,
        "low": low,
        "high": high,
        "median_difference": test.median_difference,
        "p_value": test.p_value,
        "effect_size": test.effect_size,
        "n": test.n,
        "better": better,
    }


def describe_comparison(
    found: Mapping[str, Any], names: tuple[str, str], draw: Callable[[Table], str] = as_markdown
) -> list[str]:
    """Return a comparison as lines, with its table in Markdown or drawn otherwise.

    Parameters
    ----------
    found
        As `compare_models` gives it.
    names
        What the first and the second are called.
    """
    short = max(map(len, names)) <= LONGEST_NAME
    first, second = names if short else ("first", "second")
    better = {"first": first, "second": second}
    rows = []
    for name, row in found.items():
        if isinstance(row, dict):
            low, high = (format_number(row[end], 2) for end in ("low", "high"))
            numbers = [format_number(row[key], 2) for key in ("first", "second", "mean_difference")]
            tests = [format_number(row[key], 3) for key in ("p_value", "p_adjusted")]
            rows.append(
                (spell_metric(name), *numbers, f"{low} to {high}", *tests, better.get(row["better"], row["better"]))
            )
    columns = ("Measure", f"#{first}", f"#{second}", "#Change", "#95 % interval", "#p", "#p (Holm)", "Better")
    head = f"{found['n_cases']} cases; change: {second} − {first}; p of Wilcoxon's test, and with Holm's correction"
    lines = [head if short else f"{head}; first: {names[0]}, second: {names[1]}", ""]
    lines += draw(make_table("", columns, rows)).splitlines()
    for side, name in (("only_first", first), ("only_second", second)):
        if found[side]:
            lines += ["", f"Not compared, since {name} alone has them: {', '.join(found[side])}."]
    return lines
