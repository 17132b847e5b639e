"""The drift gate's findings as Markdown, for the notes of a periodic check."""

from __future__ import annotations

from typing import Any

from doseledger.gates.verdict import Verdict

# Features are told from the most changed on; the rest are in the findings file.
SHOWN = 15


def describe_drift(verdict: Verdict) -> list[str]:
    """Return the drift gate's findings, the cases by distance and the most changed features as lines of Markdown."""
    told = verdict.details
    lines = [
        f"# Drift: {told['n_new']} new cases against {told['n_reference']} training cases of {told['cohort']}",
        "",
        f"The gate {'passed' if verdict.ok else '**failed**'}; digest of what was judged `{verdict.digest[:12]}…`.",
        "",
        *[f"- **{finding.severity}** [{finding.gate}] {finding.message}" for finding in verdict.findings],
        "",
        "| case | distance | of the farthest training case | what is off, in spreads |",
        "|---|---:|---:|---|",
    ]
    for case in sorted(told["cases"], key=lambda row: -row["distance"]):
        off = ", ".join(f"{name} {by:+.1f}" for name, by in case["features"].items())
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
        lines.append(f"| {row['feature']} | {' | '.join(cells).replace('nan', '–')} |")
    return lines


def most_changed(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return features in order of their KS p value, those without one last."""
    return sorted(features, key=lambda row: (row["ks_p"] != row["ks_p"], row["ks_p"], row["feature"]))
