"""Sections on stages that are off as they ship: absent, stale, or told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.files import read_mapping
from doseledger.core.text.sheet import Table

Found = Mapping[str, Any]


def optional_section(
    path: Path, case_metrics: pd.DataFrame, stale: str, tell: Callable[[Found], tuple[str, tuple[Table, ...]]]
) -> dict[str, Any] | None:
    """Return text and tables of what such a stage found; None where it did not run.

    Parameters
    ----------
    path
        What the stage wrote, with its `checkpoint_sha256`: one, or a sorted list.
    case_metrics
        Of the evaluated predictions; what was found with another checkpoint says nothing of these.
    stale
        What is said in place of that.
    tell
        From what was found to text and tables.

    Raises
    ------
    BadInput
        If the file is no JSON mapping.
    """
    if not path.is_file():
        return None
    found = read_mapping(path)
    used = found.get("checkpoint_sha256")
    holds = (used if isinstance(used, list) else [used]) == sorted(set(case_metrics["checkpoint_sha256"]))
    text, tables = tell(found) if holds else (stale, ())
    return {"text": text, "tables": tables}
