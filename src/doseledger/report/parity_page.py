"""The findings of a parity comparison: Markdown, JSON, tables."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from doseledger.core.files import all_or_none, to_json, write_text
from doseledger.core.text.template import render_markdown
from doseledger.gates.verdict import Verdict
from doseledger.parity.compare import ALL_FILES, ParityResult

# Beyond so many rows the page refers to the table.
MOST_ROWS = 600
MEASURES = (
    ("largest_difference", max), ("rms_difference", max), ("mean_shift_percent", max), ("psnr_db", min), ("ssim", min),
    ("ms_ssim", min),
)  # fmt: skip


def write_parity(out: Path, result: ParityResult, verdict: Verdict | None, templates: Path) -> None:
    """Write parity.json, parity.md, statistics.csv and pairs.csv to a folder.

    Parameters
    ----------
    verdict
        What the gate says of it; None where it was not asked.
    """
    content = result.as_dict()
    if verdict is not None:
        content["verdict"] = {
            "ok": verdict.ok,
            "digest": verdict.digest,
            "findings": [f.message for f in verdict.findings],
        }
    page = render_markdown(templates, "parity.md.j2", _page(result, verdict))
    with all_or_none():
        write_text(out / "parity.json", to_json(_with_infinity(content)))
        write_text(out / "statistics.csv", _table(result.statistics))
        write_text(out / "pairs.csv", _table(result.pairs))
        write_text(out / "parity.md", page)


def _page(result: ParityResult, verdict: Verdict | None) -> dict[str, Any]:
    raw = [row for row in result.statistics if row["stage"] == "raw"]
    single = [row for row in raw if row["file"] != ALL_FILES]
    grouped = [row for row in result.statistics if row["stage"] == "grouped"]
    normalised = [row for row in result.statistics if row["stage"] == "normalised"]
    return {
        "result": result,
        "verdict": verdict,
        "summary": _worst_by_array(result.pairs),
        "overall": [row for row in raw if row["file"] == ALL_FILES],
        "tables": {
            title: rows if len(rows) <= MOST_ROWS else None
            for title, rows in (("As it is", single), ("Normalised", normalised), ("By group", grouped))
        },
    }


def _worst_by_array(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an array and part: how many files are equal, and the worst of each measure with its file."""
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys((row["array"], row["part"]) for row in pairs):
        rows = [row for row in pairs if (row["array"], row["part"]) == key]
        line: dict[str, Any] = {
            "array": key[0], "part": key[1], "n": len(rows), "equal": sum(bool(row["equal"]) for row in rows)
        }  # fmt: skip
        for measure, worst in MEASURES:
            known = [(row[measure], row["file"]) for row in rows if measure in row and not math.isnan(row[measure])]
            line[measure], line[f"{measure}_file"] = worst(known) if known else (None, "")
        found.append(line)
    return found


def _with_infinity(value: Any) -> Any:
    # JSON has no infinity, and null would say that there is no number: equal images have a PSNR, it is infinite.
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: _with_infinity(item) for key, item in value.items()}
    return [_with_infinity(item) for item in value] if isinstance(value, list) else value


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
