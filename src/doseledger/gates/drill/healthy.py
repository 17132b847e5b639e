"""The cohort without a fault: what its judges said, and what they say with one case exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from doseledger.core.fanout import run_cases
from doseledger.core.layout import Layout
from doseledger.core.protocol import Protocol, load_protocol
from doseledger.core.tables import CASES, SPLITS, read_table
from doseledger.core.types import Tell
from doseledger.gates import suites
from doseledger.gates.data.cohort import CaseReport, judge_case, judge_far
from doseledger.gates.data.leakage import judge_copies
from doseledger.gates.features import Row
from doseledger.gates.limits import DataLimits, load_thresholds
from doseledger.gates.verdict import Finding

# So many cases at most stand for the cohort: all are compared with all, once a faulty copy.
MOST_CASES = 60


@dataclass(frozen=True)
class Healthy:
    """A cohort, or a sample of it, as it is.

    Parameters
    ----------
    protocol, limits, expectations
        What its cases are held to; of the suite, what each case meets by itself.
    cases, splits
        Its tables.
    reports
        What each case gave.
    """

    protocol: Protocol
    limits: DataLimits
    expectations: list[dict[str, Any]]
    cases: pd.DataFrame
    splits: pd.DataFrame
    reports: Mapping[str, CaseReport]

    def judge_copies(self, reports: Mapping[str, CaseReport]) -> list[Finding]:
        """Return which cases are copies of each other."""
        prints = {name: report.fingerprint for name, report in reports.items()}
        return judge_copies(self.cases, self.splits, prints, self.limits.near_copy)

    def judge_with(self, case_id: str, changed: CaseReport) -> list[Finding]:
        """Return what the judges of all cases together say with one exchanged.

        Notes
        -----
        A judge to whom the exchange shows nothing is not asked again: it would say what it said before.
        """
        before, reports = self.reports[case_id], {**self.reports, case_id: changed}
        findings = []
        if not _same_print(before, changed):
            findings += self.judge_copies(reports)
        if not pd.Series(before.inputs).equals(pd.Series(changed.inputs)):
            findings += judge_far(reports.values(), self.limits)[0]
        return findings

    def judge_rows(self, rows: Mapping[str, Row | None]) -> dict[str, list[Finding]]:
        """Return the findings of the suite on rows of features, by name of the row: one run for all of them."""
        table = pd.DataFrame([{**row, "case_id": name} for name, row in rows.items() if row is not None])
        found: dict[str, list[Finding]] = {name: [] for name in rows}
        if table.empty or not self.expectations:
            return found
        for finding in suites.judge_features(table, self.expectations)[0]:
            if finding.case_id in found:
                found[finding.case_id].append(finding)
        return found

    def judge(self) -> list[Finding]:
        """Return all that is found without a fault."""
        findings = [finding for report in self.reports.values() for finding in report.findings]
        for found in self.judge_rows({name: report.row for name, report in self.reports.items()}).values():
            findings += found
        return [*findings, *self.judge_copies(self.reports), *judge_far(self.reports.values(), self.limits)[0]]


def _same_print(one: CaseReport, other: CaseReport) -> bool:
    a, b = one.fingerprint, other.fingerprint
    same_digests = (a.ct_sha256, a.dose_sha256) == (b.ct_sha256, b.dose_sha256)
    return same_digests and np.array_equal(a.ct, b.ct) and np.array_equal(a.dose, b.dose)


def read_healthy(layout: Layout, seed: int, *, workers: int, tell: Tell) -> Healthy:
    """Return a cohort, or a drawn sample of a large one; cases that can't be read are left out.

    Parameters
    ----------
    layout
        Where cases, splits, protocol, suite and limits lie.
    seed
        Of the sample.
    workers
        Processes; 0 works in this one.
    tell
        Called with one line a case.

    Raises
    ------
    BadInput
        If a table, the protocol, the suite or the limits can't be read.
    """
    protocol, limits = load_protocol(layout.protocol), load_thresholds(layout).data
    expectations = [item for item in suites.read_suite(layout.suite) if suites.is_of_one_case(item)]
    cases, splits = read_table(layout.cases_csv, CASES), read_table(layout.splits, SPLITS)
    ids = np.random.default_rng(seed).permutation(sorted(cases["case_id"]))[:MOST_CASES].tolist()
    cases = cases[cases["case_id"].isin(ids)].sort_values("case_id")
    arguments = {
        str(row["case_id"]): (layout.cases / f"{row['case_id']}.npz", row, protocol, limits)
        for row in cases.to_dict("records")
    }
    outcome = run_cases(judge_case, arguments, workers=workers, tell=tell)
    return Healthy(protocol, limits, expectations, cases, splits, outcome.done)
