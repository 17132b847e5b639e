"""Verdicts, limits, red flags and findings as tables of a report."""

from __future__ import annotations

from typing import Any

from doseledger.core.text.sheet import Cell, Table, format_number, make_table, plural
from doseledger.core.text.words import in_words, spell_metric
from doseledger.gates.model.judge import NOT_JUDGED
from doseledger.report.blocks import Alarm

# Findings that one table shows; the whole list is in the gate's own file.
SHOWN_FINDINGS = 40
# Of shortcuts: no limit stands for it, as a model that adds to nothing has none.
BASE_RATIO = "base_mae_ratio"
# Findings of the metrics gate that are of the training itself (gates/model/training.py).
RED_FLAGS = ("score_implausible", "train_val_gap", "loss_vanishes", "diverges", "training_unseen")


def verdicts_table(verdicts: list[dict[str, Any]]) -> Table:
    """Return one row per gate: what it judged, its verdict, and what it found.

    Parameters
    ----------
    verdicts
        Verdicts as JSON values (`gates.verdict.verdict_as_json`), in the order of the pipeline.
    """
    purpose = {
        "data": "Data: numbers, geometry, protocol, leakage",
        "preflight": "Preflight: the model learns on one batch",
        "metrics": "Metrics: results against their limits",
        "shortcuts": "Shortcuts: the model looks at the patient",
        "drift": "Drift: test patients are like those of training",
    }
    rows = []
    for verdict in verdicts:
        counts = verdict.get("counts", {})
        found = f"{plural(int(counts.get('error', 0)), 'error')}, {plural(int(counts.get('warning', 0)), 'warning')}"
        word = Cell("passed", "good") if verdict["ok"] else Cell("FAILED", "bad")
        rows.append((purpose.get(verdict["gate"], verdict["gate"]), word, found, str(verdict["digest"])[:16]))
    return make_table("Gates", ("Gate", "Verdict", "Found", "@Digest of what was judged"), rows)


def limits_table(verdict: dict[str, Any]) -> Table:
    """Return each limit that the metrics gate holds the model to, and what was found."""
    return _limit_rows("Limits of this model", verdict, "limits", Cell("MISSED", "bad"))


def candidate_table(verdict: dict[str, Any]) -> Table:
    """Return what a candidate for release must reach, and how far this model is from it; nothing is gated on it."""
    return _limit_rows("What a candidate for release must reach", verdict, "candidate", Cell("not yet", "warn"))


def _limit_rows(title: str, verdict: dict[str, Any], key: str, missed: Cell, note: str = "") -> Table:
    rows = [
        (
            spell_metric(limit["metric"]),
            format_number(limit["found"], 3 if abs(limit["found"] or 0.0) < 10 else 1),
            str(limit["wanted"]).replace("<=", "≤").replace(">=", "≥"),
            Cell("met", "good") if limit["ok"] else missed,
            f"{limit['source']} [{limit['metric']}]",
        )
        for limit in verdict.get("details", {}).get(key, [])
    ]
    columns = ("Metric", "#Found", "#Limit", "Verdict", "Source of the limit [its name in thresholds.yaml]")
    judged = verdict["digest"] != NOT_JUDGED
    empty = "No limits are written down for this model." if judged else "This could not be judged; see the findings."
    return make_table(title, columns, rows, note=note, empty=empty)


def red_flags_table(verdict: dict[str, Any]) -> Table:
    """Return the signs that a training is too good to be true or went astray, of the metrics gate's findings."""
    rows = [
        (
            finding["gate"],
            Cell(finding["severity"], "bad" if finding["severity"] == "error" else "warn"),
            in_words(finding["message"]),
        )
        for finding in verdict.get("findings", [])
        if finding["gate"] in RED_FLAGS
    ]
    empty = "No red flag: neither losses nor scores are too good to be true, and training did not go astray."
    if verdict["digest"] == NOT_JUDGED:
        empty = "Red flags of the training are not known: the metrics gate could not judge this model."
    return make_table("Red flags of the training", ("Sign", "Severity", "What was seen"), rows, empty=empty)


def shortcuts_table(verdict: dict[str, Any]) -> Table:
    """Return how the model stands beside trivial ones and with inputs spoiled."""
    base = verdict.get("details", {}).get("numbers", {}).get(BASE_RATIO)
    # A model that adds nothing to a good dose meets every limit: this alone tells what it learned itself.
    note = "" if base is None else f"{spell_metric(BASE_RATIO)}: {format_number(base, 3)}; no limit stands for it."
    title = "Shortcuts: does the model look at the patient?"
    return _limit_rows(title, verdict, "limits", Cell("MISSED", "bad"), note)


def findings_table(verdicts: list[dict[str, Any]]) -> Table:
    """Return what the gates found, errors first."""
    found = [(verdict["gate"], finding) for verdict in verdicts for finding in verdict.get("findings", [])]
    found.sort(key=lambda item: item[1]["severity"])
    rows = [
        (
            gate,
            finding["gate"],
            finding["case_id"] or "cohort",
            Cell(finding["severity"], "bad" if finding["severity"] == "error" else "warn"),
            in_words(finding["message"]),
        )
        for gate, finding in found[:SHOWN_FINDINGS]
    ]
    more = len(found) - len(rows)
    note = f"The first {len(rows)}; {more} more stand in the gates' own files." if more else ""
    columns = ("Gate", "Check", "Case", "Severity", "=Finding")
    return make_table("What the gates found", columns, rows, note=note, empty="The gates found nothing to report.")


def gate_alarms(verdicts: list[dict[str, Any]]) -> list[Alarm]:
    """Return an alarm for each gate that failed, with its first errors."""
    alarms = []
    for verdict in verdicts:
        if verdict["ok"]:
            continue
        errors = [
            in_words(finding["message"]) for finding in verdict.get("findings", []) if finding["severity"] == "error"
        ]
        title = f"The {verdict['gate']} gate failed."
        alarms.append(Alarm("bad", title, f"{plural(len(errors), 'error')}:", tuple(errors[:5])))
    return alarms
