"""The data gate: cases, tables and splits of a cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.limit import keeps
from doseledger.core.pool.cluster import Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.tables import (
    CASES,
    SKIPPED,
    SPLITS,
    STRUCTURES,
    TEST_SET,
    read_table,
    rows_of_fold,
    with_present_digests,
)
from doseledger.gates import suites
from doseledger.gates.data import distances, doses, grids, images, leakage, optional, plans, structures
from doseledger.gates.data.fingerprints import Fingerprint, take_fingerprint
from doseledger.gates.data.outliers import judge_outliers
from doseledger.gates.digests import data_digest
from doseledger.gates.drift.case_inputs import measure_inputs
from doseledger.gates.features import Row, describe_source, measure_anatomy, measure_case, measure_parts
from doseledger.gates.limits import DataLimits, LeftOutLimits, load_thresholds
from doseledger.gates.verdict import Finding, Verdict, make_verdict

Tell = Callable[[str], None]
# After one of these nothing of a case can be measured.
UNMEASURABLE = frozenset({"nan", "missing_channel", "body_empty"})


@dataclass(frozen=True)
class CaseReport:
    """What one case gave: its findings, its rows of features and of inputs (None if unfit for one), its fingerprint."""

    findings: tuple[Finding, ...]
    row: Row | None
    inputs: Row | None
    fingerprint: Fingerprint


def judge_cohort(layout: Layout, accept_failed: Mapping[str, str], *, scale: Scale, tell: Tell) -> Verdict:
    """Return the data gate's verdict on a cohort.

    Parameters
    ----------
    layout
        Where cases, splits, protocol, suite, limits and locked test set lie.
    accept_failed
        Failed cases that may be missing, each with its reason (`ingest.accept_failed`).
    scale
        Where cases are judged.
    tell
        Called with one line as each case has been judged.

    Raises
    ------
    BadInput
        If a table, the protocol, the suite or the limits can't be read: a gate that can't see its data fails.

    Notes
    -----
    Each process holds one case at a time. A case that can't be read is a finding, not an end.
    """
    protocol, limits = load_protocol(layout.protocol), load_thresholds(layout).data
    expectations = suites.read_suite(layout.suite)
    cases, splits = read_table(layout.cases_csv, CASES), read_table(layout.splits, SPLITS)
    skipped = read_table(layout.cases / "skipped.csv", SKIPPED)
    locked = with_present_digests(read_table(layout.test_set, TEST_SET), cases)
    counted = read_table(layout.cases / "structures.csv", STRUCTURES)
    findings = _judge_lists(layout.cases, cases, skipped, accept_failed)
    findings += optional.judge_optional(counted, limits.optional_found)
    findings += judge_left_out(len(cases), skipped, accept_failed, limits.left_out)
    rows = {str(row["case_id"]): row for row in cases.to_dict("records")}
    arguments = {
        case_id: (layout.cases / f"{case_id}.npz", row, protocol, limits)
        for case_id, row in rows.items()
        if (layout.cases / f"{case_id}.npz").is_file()
    }
    outcome = over_cases(judge_case, arguments, scale, tell=tell)
    for case_id, error in outcome.failed.items():
        findings.append(Finding("unreadable", case_id, "error", str(error)))
    findings += [finding for report in outcome.done.values() for finding in report.findings]
    findings += leakage.judge_splits(cases, splits, locked)
    prints = {case_id: report.fingerprint for case_id, report in outcome.done.items()}
    findings += leakage.judge_copies(cases, splits, prints, limits.near_copy)
    table = pd.DataFrame([report.row for report in outcome.done.values() if report.row is not None])
    found, results = _judge_table(table, expectations)
    far, distances_of = judge_far(outcome.done.values(), limits)
    details = {
        "cohort": layout.cohort,
        "protocol": protocol.name,
        "counts": _count(cases, splits, skipped, locked, accept_failed),
        "optional": optional.optional_rows(counted),
        "expectations": results,
        "features": _summarise(table),
        "distances": distances_of,
    }
    return make_verdict("data", data_digest(layout), [*findings, *found, *far], details)


def judge_case(path: Path, row: Mapping[str, object], protocol: Protocol, limits: DataLimits) -> CaseReport:
    """Return what one case's file gives; `row` is its row of cases.csv.

    Raises
    ------
    BadCase
        If the file can't be read as a case.
    """
    case_id = path.stem
    findings = []
    with _named(case_id):
        found, wanted = sha256_of_file(path), str(row["sha256"])
        if found != wanted:
            message = (
                f"{case_id}: the file's SHA256 is {found[:12]}…, cases.csv says {wanted[:12]}…: it was changed or "
                "damaged after ingest. Ingest it again"
            )
            findings.append(Finding("hash", case_id, "error", message))
        report = judge_loaded(Case.load(path), row, protocol, limits)
    return replace(report, findings=(*findings, *report.findings))


def judge_loaded(case: Case, row: Mapping[str, object], protocol: Protocol, limits: DataLimits) -> CaseReport:
    """Return what a case gives that has no file, a drill's copy say; see `judge_case`.

    Raises
    ------
    BadCase
        If it can't be judged.
    """
    with _named(case.case_id):
        findings = grids.judge_identity(case, protocol, row)
        findings += grids.judge_grid(case, protocol)
        findings += structures.judge_structures(case, protocol, limits)
        findings += distances.judge_distances(case, protocol.sdf_clip_mm, limits.sdf)
        findings += doses.judge_dose(case, protocol, limits)
        findings += plans.judge_plan(case, protocol)
        print_of_case = take_fingerprint(case)
        if any(finding.gate in UNMEASURABLE for finding in findings):
            return CaseReport(tuple(findings), None, None, print_of_case)
        anatomy = measure_anatomy(case)
        features = measure_case(case, protocol, anatomy) | describe_source(case)
        if not protocol.has_dose:
            features |= measure_parts(case)
        if limits.image is not None:
            image, measures = images.judge_image(case, protocol, limits.image)
            findings, features = [*findings, *image], features | measures
        return CaseReport(tuple(findings), features, measure_inputs(case, protocol, anatomy), print_of_case)


@contextmanager
def _named(case_id: str) -> Iterator[None]:
    """Name the case of garbage that has the form of one: whose it is matters more here than where it broke."""
    try:
        yield
    except BadCase:
        raise
    except (BadInput, KeyError, TypeError, ValueError) as error:
        raise BadCase(
            case_id, f"{case_id}.npz can't be judged ({type(error).__name__}: {error}); ingest it again"
        ) from error


def _judge_lists(
    cases_dir: Path, cases: pd.DataFrame, skipped: pd.DataFrame, accept_failed: Mapping[str, str]
) -> list[Finding]:
    """Judge who is there, who is not, and whether that was accepted."""
    findings = []
    if cases.empty:
        message = "the table of cases is empty: there is nothing to train on; look at skipped.csv for the reasons"
        findings.append(Finding("no_cases", "", "error", message))
    listed, on_disk = set(cases["case_id"]), {path.stem for path in cases_dir.glob("*.npz")}
    for case_id in sorted(listed - on_disk):
        message = f"{case_id}: in cases.csv, but there is no {case_id}.npz; ingest it again"
        findings.append(Finding("missing_file", case_id, "error", message))
    for case_id in sorted(on_disk - listed):
        message = f"{case_id}: {case_id}.npz is there, but not in cases.csv; ingest again, or take the file away"
        findings.append(Finding("unlisted_file", case_id, "error", message))
    for row in skipped.to_dict("records"):
        case_id, reason = str(row["case_id"]), str(row["reason"])
        if row["status"] == "skipped":
            findings.append(Finding("skipped", case_id, "warning", f"{case_id}: skipped by the protocol: {reason}"))
        elif case_id in accept_failed:
            message = f"{case_id}: failed, and accepted because {accept_failed[case_id]!r}: {reason}"
            findings.append(Finding("accepted", case_id, "warning", message))
        else:
            message = f"{case_id}: failed: {reason} (mend it, or name it with a reason in ingest.accept_failed)"
            findings.append(Finding("failed_case", case_id, "error", message))
    failed = set(skipped.loc[skipped["status"] == "failed", "case_id"])
    for case_id in sorted(set(accept_failed) - failed):
        message = f"{case_id}: named in ingest.accept_failed, but it did not fail; take it out of the list"
        findings.append(Finding("accepted", case_id, "warning", message))
    return findings


def judge_left_out(
    n_cases: int, skipped: pd.DataFrame, accept_failed: Mapping[str, str], limits: LeftOutLimits
) -> list[Finding]:
    """Return an error where too many of all patients were skipped, or failed and were accepted.

    Parameters
    ----------
    skipped
        skipped.csv: patients that are no cases, with `case_id` and `status`.
    accept_failed
        Failed cases that may be missing, each with its reason.
    """
    n_all = n_cases + len(skipped)
    is_failed = skipped["status"] == "failed"
    n_skipped = int((~is_failed).sum())
    n_accepted = int((is_failed & skipped["case_id"].isin(list(accept_failed))).sum())
    findings = []
    for gate, count, most, words, cure in (
        (
            "most_skipped", n_skipped, limits.most_skipped_percent, "are skipped by the protocol (skip_when)",
            "see in skipped.csv whether they are of another protocol, or the structure has another name",
        ),
        (
            "most_accepted", n_accepted, limits.most_accepted_percent, "failed and were accepted (accept_failed)",
            "mend some of them: what is left is another cohort than the clinic's",
        ),
    ):  # fmt: skip
        if n_all and not keeps(100.0 * count / n_all, most=most):
            message = f"{count} of {n_all} patients {words}, wanted at most {most:g} %; {cure}"
            findings.append(Finding(gate, "", "error", message, {"count": count, "patients": n_all, "most": most}))
    return findings


def _judge_table(table: pd.DataFrame, expectations: list[dict[str, Any]]) -> tuple[list[Finding], list[dict[str, Any]]]:
    if table.empty:
        message = "not one case could be measured, so the suite of expectations saw nothing"
        return [Finding("suite_blind", "", "error", message)], []
    return suites.judge_features(table, expectations)


def judge_far(reports: Iterable[CaseReport], limits: DataLimits) -> tuple[list[Finding], dict[str, float]]:
    """Return which cases are far from all others, and how far each is per the middle one's distance."""
    inputs = [report.inputs for report in reports if report.inputs is not None]
    table = pd.DataFrame(inputs).set_index("case_id") if inputs else pd.DataFrame()
    findings, distances = judge_outliers(table, limits.outliers)
    return findings, {str(row["case_id"]): round(float(row["ratio"]), 2) for row in distances}


def _count(
    cases: pd.DataFrame,
    splits: pd.DataFrame,
    skipped: pd.DataFrame,
    locked: pd.DataFrame,
    accept_failed: Mapping[str, str],
) -> dict[str, Any]:
    failed = set(skipped.loc[skipped["status"] == "failed", "case_id"])
    first = rows_of_fold(splits, 0, 0)
    return {
        "cases": len(cases),
        "patients": int(cases["pseudonym"].nunique()),
        "skipped": int((skipped["status"] == "skipped").sum()),
        "failed": len(failed),
        "accepted": len(failed & set(accept_failed)),
        "locked": len(locked),
        "folds": len(splits[["repeat", "fold"]].drop_duplicates()),
        **{part: int((first["split"] == part).sum()) for part in leakage.PARTS},
    }


def _summarise(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return least, middle and most of each feature, for the report."""
    columns: Iterable[str] = [name for name in table.columns if name != "case_id"]
    summary = {}
    for name in columns:
        values = pd.to_numeric(table[name], errors="coerce").dropna()
        if len(values):
            summary[name] = {
                "n": len(values),
                "min": round(float(values.min()), 4),
                "median": round(float(values.median()), 4),
                "max": round(float(values.max()), 4),
            }
    return summary
