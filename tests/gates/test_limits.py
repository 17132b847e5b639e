"""Limits are typed: one that does not say where it comes from is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml, write_json
from doseledger.gates.limits import load_thresholds


def blank_sources(value: Any, path: str = "") -> Iterator[str]:
    """Blank every source in place, and yield where it stood."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        if key == "source":
            value[key] = "  "
            yield f"{path}source"
        else:
            yield from blank_sources(item, f"{path}{key}.")


def test_every_limit_must_say_where_it_comes_from(repository: Path, tmp_path: Path) -> None:
    thresholds = read_yaml(repository / "validation" / "thresholds.yaml")
    where = list(blank_sources(thresholds))
    assert len(where) > 20
    write_json(tmp_path / "thresholds.yaml", thresholds)
    with pytest.raises(BadInput, match="String should have at least 1 character") as caught:
        load_thresholds(tmp_path / "thresholds.yaml")
    assert [path for path in where if f"{path}: String should" not in str(caught.value)] == []
