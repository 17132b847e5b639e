"""The data report as HTML and PDF."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput, NotReady
from doseledger.core.files import read_json, sha256_of_file
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import Protocol, load_protocol
from doseledger.core.settings import Settings
from doseledger.core.tables import CASES, SKIPPED, SPLITS, TEST_SET, read_table
from doseledger.core.types import Tell
from doseledger.gates.features import Row, measure_case
from doseledger.ledger.runs.facts import fold_rows
from doseledger.report.blocks import Picture
from doseledger.report.figures.drill_figure import plot_drill
from doseledger.report.figures.feature_figures import group_features, plot_features
from doseledger.report.figures.mid_slices import plot_mid_slices
from doseledger.report.figures.style import house_style, saved_svg, small_uri, structure_colours
from doseledger.report.page import ReportOutputs, running, write_report
from doseledger.report.tables import sections, verdict_tables
from doseledger.report.tables.data_tables import (
    drift_cases_table,
    drift_features_table,
    expectations_table,
    features_table,
    hashes_table,
    optional_table,
    prescription_table,
)
from doseledger.report.tables.drill_tables import drill_table, drill_that_holds

TEMPLATE = "data_report.html.j2"
CONTENTS = (
    ("summary", "Summary"), ("cohort", "Cohort"), ("slices", "Slices"), ("features", "Features"),
    ("expectations", "Expectations"), ("limits", "Detection limits"), ("drift", "Drift"), ("record", "Record"),
)  # fmt: skip
# Patients whose slices a page shows: it has to be sent as one file.
MOST_SLICES = 60


@dataclass(frozen=True)
class DataFacts:
    """Everything that was read of a cohort; the names are those of the files."""

    run: dict[str, Any]
    cases: pd.DataFrame
    skipped: pd.DataFrame
    splits: pd.DataFrame
    test_set: pd.DataFrame
    verdict: dict[str, Any]
    drift: dict[str, Any] | None
    drill: tuple[Mapping[str, Any], str]
    features: pd.DataFrame

    @property
    def parts(self) -> pd.Series:
        """train, val or test by case, of the fold that is looked at."""
        return fold_rows(self).set_index("case_id")["split"]


def make_data_report(layout: Layout, settings: Settings, tell: Tell, *, scale: Scale = HERE) -> None:
    """Write the report of a cohort: self-contained HTML, PDF, and every figure as PNG, SVG and PDF.

    Raises
    ------
    NotReady
        Naming each file that is missing.
    BadInput
        If a case can't be read or is not the one in the tables, or the gates judged another cohort.

    Notes
    -----
    Equal inputs give equal bytes: no clock and no host name stand in any of the files.
    """
    protocol = load_protocol(layout.protocol)
    facts = load_data_facts(layout, protocol, fold=settings.fold, repeat=settings.repeat, scale=scale, tell=tell)
    figures, dpi = layout.data_figures, settings.report.figure_dpi
    pictures = {
        "slices": _draw_slices(facts, protocol, layout, scale, tell),
        "features": _draw_features(facts, protocol, figures, dpi),
        "drill": _draw_drill(facts.drill[0], figures, dpi),
    }
    pages = [path for path in (layout.data_page, layout.drift_page) if path.is_file()]
    html = layout.data_report
    links = [(path.name, quote(Path(os.path.relpath(path, html.parent)).as_posix())) for path in pages]
    outputs = ReportOutputs(html, layout.data_report_pdf, layout.data_figures)
    context = data_context(layout.cohort, protocol, facts, pictures, links)
    write_report(layout.templates, TEMPLATE, context, outputs, tell)


def load_data_facts(
    layout: Layout, protocol: Protocol, *, fold: int, repeat: int, scale: Scale = HERE, tell: Tell
) -> DataFacts:
    """Return the tables, verdicts and features of a cohort.

    Raises
    ------
    NotReady, BadInput
        As `make_data_report`.
    """
    tables = {
        "cases": (layout.cases_csv, CASES),
        "skipped": (layout.cases / "skipped.csv", SKIPPED),
        "splits": (layout.splits, SPLITS),
        "test_set": (layout.test_set, TEST_SET),
    }
    judged, drift = [layout.data_verdict.findings], layout.drift_verdict.findings
    judged += [drift] if drift.is_file() else []
    missing = [str(path) for path in [*(path for path, _ in tables.values()), *judged] if not path.is_file()]
    if missing:
        raise NotReady(
            f"no report on the cohort {layout.cohort} yet, {len(missing)} file(s) are missing: {', '.join(missing)}. "
            "Run `dvc repro report_data`, which makes them first"
        )
    read = {name: read_table(path, schema) for name, (path, schema) in tables.items()}
    verdicts = [_verdict(path, layout.cohort) for path in judged]
    features = _measure(layout, protocol, read["cases"], scale, tell=tell)
    drill = read_json(layout.drill) if layout.drill.is_file() else None
    return DataFacts(
        run={"fold": fold, "repeat": repeat},
        cases=read["cases"],
        skipped=read["skipped"],
        splits=read["splits"],
        test_set=read["test_set"],
        verdict=verdicts[0],
        drift=verdicts[1] if len(verdicts) > 1 else None,
        drill=drill_that_holds(drill, verdicts[0]),
        features=features,
    )


def _verdict(path: Path, cohort: str) -> dict[str, Any]:
    verdict = read_json(path)
    found = verdict.get("details", {}).get("cohort") if isinstance(verdict, dict) else None
    if found != cohort:
        raise BadInput(f"{path}: findings of the cohort {found!r}, wanted {cohort!r}; run the gate on this cohort")
    return dict(verdict)


def _measure(layout: Layout, protocol: Protocol, cases: pd.DataFrame, scale: Scale, *, tell: Tell) -> pd.DataFrame:
    """Features of every case, a row each, by case."""
    digests = dict(zip(cases["case_id"], cases["sha256"], strict=True))
    arguments = {case_id: (layout.cases / f"{case_id}.npz", digest, protocol) for case_id, digest in digests.items()}
    outcome = over_cases(measure_judged_case, arguments, scale, tell=tell)
    if outcome.failed:
        raise BadInput("; ".join(str(error) for error in outcome.failed.values()))
    return pd.DataFrame(list(outcome.done.values())).set_index("case_id")


def measure_judged_case(path: Path, sha256: str, protocol: Protocol) -> Row:
    """Return the features of a case's file.

    Raises
    ------
    BadCase
        If it is absent, can't be read, or is not the one in the table.
    """
    case = Case.load(path)
    if sha256_of_file(path) != sha256:
        raise BadCase(case.case_id, f"{path.name} is not the one in cases.csv; run ingest again")
    return measure_case(case, protocol)


def shown_in_slices(facts: DataFacts) -> list[str]:
    """Return the cases whose slices are shown: those that a gate names first, then as many as there is room for."""
    found = facts.verdict.get("findings", [])
    named = {str(finding["case_id"]) for finding in found if finding.get("case_id")}
    order = sorted(facts.cases["case_id"], key=lambda case_id: (case_id not in named, case_id))
    return sorted(order[:MOST_SLICES])


def slices_sentence(facts: DataFacts) -> str:
    """Return which cases are shown, and how their slices lie."""
    n = len(facts.cases)
    some = f"{MOST_SLICES} of {n} cases, those that the data gate names first. " if n > MOST_SLICES else ""
    return (
        f"{some}Axial and coronal, through the centre of the target of the highest prescription, or of all structures "
        "where there is none. The patient's left is on the right. A swapped pair shows as colours on the wrong sides."
    )


def _draw_slices(facts: DataFacts, protocol: Protocol, layout: Layout, scale: Scale, tell: Tell) -> list[Picture]:
    colours, parts = structure_colours(protocol.structure_names), facts.parts
    shown = shown_in_slices(facts)
    arguments = {case_id: (layout.cases / f"{case_id}.npz", colours) for case_id in shown}
    drawn = over_cases(draw_mid_slices, arguments, scale, tell=tell).done
    pictures = []
    for case_id, (uri, absent) in drawn.items():
        lacking = f"; absent: {', '.join(absent)}" if absent else ""
        caption = f"{case_id}, {parts.get(case_id, 'in no part')}{lacking}"
        pictures.append(Picture(uri, caption, f"Axial and coronal slice of {case_id} with the contours of structures"))
    return pictures


def draw_mid_slices(path: Path, colours: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the slices of a case's file as data URI, and the structures that are absent.

    Raises
    ------
    BadCase
        If it is absent or can't be read.
    """
    case = Case.load(path)
    with house_style():
        uri = small_uri(plot_mid_slices(case, colours))
    return uri, tuple(name for name in case.structure_names if name not in case.present_names)


def _draw_features(facts: DataFacts, protocol: Protocol, folder: Path, dpi: int) -> list[Picture]:
    parts = facts.parts.reindex(facts.features.index)
    varied = [str(name) for name in facts.features.columns if facts.features[name].nunique() > 1]
    pictures = []
    for title, names in group_features(varied, list(protocol.prescription_gy)).items():
        stem = "features_" + "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_")
        uri = saved_svg(partial(plot_features, facts.features, parts, names), folder, stem, dpi)
        caption = (
            f"{title}: one point per case, a bar at the median of each part. Height within a row has no meaning; "
            "features that are equal in all cases stand in the table alone."
        )
        pictures.append(Picture(uri, caption, f"{title} of the cases by part of the splits"))
    return pictures


def _draw_drill(drill: Mapping[str, Any], folder: Path, dpi: int) -> list[Picture]:
    """The detection limits, a figure for each group of faults."""
    pictures = []
    tried = [fault for fault in drill["faults"] if fault["tried"]]
    for group in dict.fromkeys(fault["group"] for fault in tried):
        faults = [fault for fault in tried if fault["group"] == group]
        uri = saved_svg(partial(plot_drill, faults), folder, f"drill_{group.lower().replace(' ', '_')}", dpi)
        caption = (
            f"{group}: sizes tried, each cell filled as high as the share of the "
            f"{len(drill['cases'])} cases in which the fault is seen. *: put in after ingest."
        )
        alt = f"Detection limits: {group}; the table says the same"
        pictures.append(Picture(uri, caption, alt))
    return pictures


def data_context(
    cohort: str,
    protocol: Protocol,
    facts: DataFacts,
    pictures: Mapping[str, Sequence[Picture]],
    links: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Return everything that the template prints; `pictures` are those of slices, features and drill."""
    verdicts = [verdict for verdict in (facts.verdict, facts.drift) if verdict is not None]
    passed = all(verdict["ok"] for verdict in verdicts)
    drift: Mapping[str, Any] = (facts.drift or {}).get("details", {})
    return {
        "cohort": cohort,
        "protocol_title": protocol.title,
        "contents": CONTENTS,
        "verdict_ok": passed,
        "alarms": verdict_tables.gate_alarms(verdicts),
        "links": links,
        "lock_text": sections.lock_sentence(facts),
        "has_drift": bool(drift),
        "drill_text": facts.drill[1],
        "slices_text": slices_sentence(facts),
        "legend": structure_colours(protocol.structure_names),
        "tables": {
            "verdicts": verdict_tables.verdicts_table(verdicts),
            "counts": sections.counts_table(facts),
            "prescription": prescription_table(protocol),
            "splits": sections.splits_table(facts),
            "skipped": sections.skipped_table(facts),
            "optional": optional_table(facts.verdict),
            "findings": verdict_tables.findings_table(verdicts),
            "features": features_table(facts.features, facts.parts),
            "expectations": expectations_table(facts.verdict),
            "drill": drill_table(facts.drill[0]),
            "drift_cases": drift_cases_table(drift),
            "drift_features": drift_features_table(drift),
            "hashes": hashes_table(facts.cases, facts.parts),
        },
        "pictures": pictures,
        **running(f"cohort {cohort}", "data report" + ("" if passed else " · GATE FAILED"), alarm=not passed),
    }
