"""The cohort without a fault, and its judges asked again with one case exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import CASES, SPLITS, read_table, rows_of_fold
from doseledger.core.types import Tell
from doseledger.gates import suites
from doseledger.gates.data.cohort import CaseReport, judge_case, judge_far
from doseledger.gates.data.leakage import judge_copies
from doseledger.gates.drift.judge import judge_cases
from doseledger.gates.drift.statistics import learn_reference, measure_distances
from doseledger.gates.features import Row
from doseledger.gates.limits import Thresholds, load_thresholds
from doseledger.gates.verdict import Finding

# So many cases at most stand for the cohort: each faulty copy is compared with all.
MOST_CASES = 60


@dataclass(frozen=True)
class Healthy:
    """A cohort, or a sample of it, as it is."""

    protocol: Protocol
    limits: Thresholds
    # Of the suite, those that each case meets by itself.
    expectations: list[dict[str, Any]]
    cases: pd.DataFrame
    splits: pd.DataFrame
    # Of each case that can be read.
    reports: Mapping[str, CaseReport]

    def part_of(self, case_id: str) -> str | None:
        """Return the part of the first fold that a case is in."""
        rows = rows_of_fold(self.splits, 0, 0)
        return dict(zip(rows["case_id"], rows["split"], strict=True)).get(case_id)

    def judge(self, case_id: str, copies: Mapping[str, CaseReport]) -> dict[str, list[Finding]]:
        """Return what data and drift gate say with each copy of a case in place of the case.

        Parameters
        ----------
        copies
            Theirs, by a name of each copy.
        """
        limits = self.limits.data
        far: dict[str, list[Finding]] = {}
        found = {name: list(copy.findings) for name, copy in copies.items()}
        for name, copy in copies.items():
            reports = {**self.reports, case_id: copy}
            prints = {key: report.fingerprint for key, report in reports.items()}
            found[name] += judge_copies(self.cases, self.splits, prints, limits.near_copy)
            # A fault of the dose changes no input: what costs most is asked once for all of these.
            inputs = repr(copy.inputs)
            if inputs not in far:
                far[inputs] = judge_far(reports.values(), limits)[0]
            found[name] += [item for item in far[inputs] if item.case_id == case_id]
        for item in [*self._judge_suite(copies), *self._judge_drift(case_id, copies)]:
            if item.case_id in found:
                found[item.case_id].append(replace(item, case_id=case_id))
        return found

    def _judge_suite(self, copies: Mapping[str, CaseReport]) -> list[Finding]:
        table = _table({name: copy.row for name, copy in copies.items()}).reset_index()
        if table.empty or not self.expectations:
            return []
        return suites.judge_features(table, self.expectations)[0]

    def _judge_drift(self, case_id: str, copies: Mapping[str, CaseReport]) -> list[Finding]:
        """What the drift gate says of new cases; they are held to all other training cases."""
        others = {name: report.inputs for name, report in self.reports.items() if name != case_id}
        known = _table({name: row for name, row in others.items() if self.part_of(name) == "train"})
        new = _table({name: copy.inputs for name, copy in copies.items()})
        try:
            reference = learn_reference(known)
        except BadInput:
            return []  # too few training cases, or all alike
        return judge_cases(measure_distances(reference, new), self.limits.drift) if len(new) else []


def _table(rows: Mapping[str, Row | None]) -> pd.DataFrame:
    found = [{**row, "case_id": name} for name, row in rows.items() if row is not None]
    return pd.DataFrame(found).set_index("case_id") if found else pd.DataFrame()


def read_healthy(layout: Layout, seed: int, *, scale: Scale, tell: Tell) -> Healthy:
    """Return a cohort, or a drawn sample of a large one, without what can't be read.

    Raises
    ------
    BadInput
        If a table, the protocol, the suite or the limits can't be read.
    """
    protocol, limits = load_protocol(layout.protocol), load_thresholds(layout)
    expectations = [item for item in suites.read_suite(layout.suite) if suites.is_of_one_case(item)]
    cases, splits = read_table(layout.cases_csv, CASES), read_table(layout.splits, SPLITS)
    drawn = np.random.default_rng(seed).permutation(sorted(cases["case_id"]))[:MOST_CASES]
    cases = cases[cases["case_id"].isin(drawn)].sort_values("case_id")
    arguments = {}
    for row in cases.to_dict("records"):
        name = str(row["case_id"])
        arguments[name] = (layout.cases / f"{name}.npz", row, protocol, limits.data)
    reports = over_cases(judge_case, arguments, scale, tell=tell).done
    return Healthy(protocol, limits, expectations, cases, splits, reports)
