"""What DVC can't do is said in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from doseledger.core.errors import NotReady
from doseledger.ledger.provenance.dvc_project import (
    QUEUE_FOLDER,
    cache_folder,
    changed_stages,
    fetch_file,
    pipeline_state,
    queued_experiments,
)

OPENING: list[Callable[[Path], Any]] = [
    cache_folder, pipeline_state, queued_experiments,
    lambda root: changed_stages(root, ["train"]),
    lambda root: fetch_file(root, "best.ckpt", "v1", root / "best.ckpt"),
]  # fmt: skip


@pytest.mark.parametrize("call", OPENING)
def test_a_disk_too_full_for_dvcs_databases_is_told(
    call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    (tmp_path / QUEUE_FOLDER).mkdir(parents=True)
    monkeypatch.setattr(Repo, "__init__", full)
    with pytest.raises(NotReady, match=r"databases can't be read or written \(disk I/O error\): the disk is full"):
        call(tmp_path)
