"""Findings of the data and drift gates as HTML pages, and of drift as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doseledger.core.files import write_text
from doseledger.core.text.template import render
from doseledger.core.text.words import in_words, spell_feature
from doseledger.gates.verdict import Verdict, verdict_as_json

# Features are told from the most changed on; the rest are in the findings file.
SHOWN = 15


def write_page(verdict: Verdict, template: Path, out: Path) -> None:
    """Write a gate's findings as one self-contained HTML file; GX's own pages load from the network.

    Parameters
    ----------
    template
        The page of that gate: `data_findings.html.j2` or `drift.html.j2` of reports/templates.

    Raises
    ------
    BadInput
        If the template is absent or asks for something that a verdict does not have.
    """
    # Names of structures and reasons come from clinics: nothing of them may become markup.
    write_text(out, render(template.parent, template.name, verdict_as_json(verdict), is_html=True))


def describe_drift(verdict: Verdict) -> list[str]:
    """Return the drift gate's findings, the cases by distance and the most changed features as lines of Markdown."""
    told = verdict.details
    lines = [
        f"# Drift: {told['n_new']} new cases against {told['n_reference']} training cases of {told['cohort']}",
        "",
        f"The gate {'passed' if verdict.ok else '**failed**'}; digest of what was judged `{verdict.digest[:12]}…`.",
        "",
        *[f"- **{finding.severity}** [{finding.gate}] {in_words(finding.message)}" for finding in verdict.findings],
        "",
        "| case | distance | of the farthest training case | what is off, in spreads |",
        "|---|---:|---:|---|",
    ]
    for case in sorted(told["cases"], key=lambda row: -row["distance"]):
        off = ", ".join(f"{spell_feature(name)} {by:+.1f}" for name, by in case["features"].items())
        lines.append(f"| {case['case_id']} | {case['distance']:.2f} | {case['ratio']:.2f} | {off} |")
    image = told["image"]
    lines += [
        "",
        f"HU histogram: PSI {image['psi']:.3f}, at most {image['limit']:.3f}.",
        "",
        "| feature | training | new | KS p (Holm) | PSI | PSI limit |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in most_changed(told["features"])[:SHOWN]:
        cells = [f"{row['reference']:.4g}", f"{row['new']:.4g}", f"{row['ks_p_adjusted']:.2g}"]
        cells += [f"{row['psi']:.2f}", f"{row['psi_limit']:.2f}"]
        lines.append(f"| {spell_feature(row['feature'])} | {' | '.join(cells).replace('nan', '–')} |")
    return lines


def most_changed(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return features in order of their KS p value, those without one last."""
    return sorted(features, key=lambda row: (row["ks_p"] != row["ks_p"], row["ks_p"], row["feature"]))
