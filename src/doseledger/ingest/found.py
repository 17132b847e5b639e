"""Counts of cases by structure, and ROIs that may be an absent one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.case import map_member, read_meta
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import STRUCTURES
from doseledger.ingest.names.hints import Clue, find_hints


def count_structures(paths: Iterable[Path], protocol: Protocol) -> pd.DataFrame:
    """Return how many of the cases have each structure of a protocol, in the form of structures.csv."""
    found: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {name: Counter() for name in protocol.structure_names}
    n_cases = 0
    for path in paths:
        n_cases += 1
        present = {str(name) for name in map_member(path, "structure_names")[map_member(path, "present")]}
        found.update(present)
        for name, roi in _may_be(read_meta(path), present, protocol).items():
            lost[name] += 1
            names[name][roi] += 1
    rows = [
        {
            "structure": structure.name,
            "required": structure.required,
            "cases": n_cases,
            "found": found[structure.name],
            "may_be_cases": lost[structure.name],
            "may_be": "; ".join(f'"{roi}" ({n})' for roi, n in sorted(names[structure.name].items())),
        }
        for structure in protocol.structures
    ]
    return pd.DataFrame(rows, columns=list(STRUCTURES.columns))


def _may_be(meta: Mapping[str, Any], present: set[str], protocol: Protocol) -> dict[str, str]:
    """The unclaimed ROI that each absent structure of a case may be."""
    free = [Clue(str(item["roi"]), str(item.get("type", ""))) for item in meta.get("unmatched_rois") or []]
    # What was read and lost on the way is no question of names.
    read = present | set(meta.get("aliases_used") or {})
    absent = [structure for structure in protocol.structures if structure.name not in read]
    return {name: hint.roi for name, hint in find_hints(absent, free, protocol).items()} if free else {}


def describe_lost(table: pd.DataFrame) -> list[str]:
    """Return a line for each structure that some cases lack: in how many it was found, and what may be it."""
    lines = []
    for row in table.to_dict("records"):
        if row["found"] == row["cases"]:
            continue
        text = f"{row['structure']}: found in {row['found']} of {row['cases']}"
        if row["may_be"]:
            text += f"; unclaimed ROIs that may be it: {row['may_be']}. Rename them, or add the alias to the protocol"
        lines.append(text)
    return lines
