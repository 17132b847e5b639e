"""Each tolerance of the records of runs: just inside is the same, just outside is told."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.errors import BadInput
from doseledger.core.files import write_json
from doseledger.ledger.runs.files import files_of_archive
from doseledger.ledger.runs.listing.query import parse_condition
from doseledger.ledger.runs.recompute import differs
from doseledger.ledger.runs.training_check import _end, history
from doseledger.ledger.runs.why import _duration


@pytest.mark.parametrize(("n", "is_read"), [(1000, True), (1001, False), (1099, False)])
def test_a_condition_has_at_most_a_thousand_characters(n: int, is_read: bool) -> None:
    text = "seed == 1".ljust(n)
    with nullcontext() if is_read else pytest.raises(BadInput, match=f"has {n} characters, wanted at most 1000"):
        assert parse_condition(text, {"seed": 1})({"seed": 1})


@pytest.mark.parametrize(("off", "is_other"), [
    (0.0, False), (1.9e-6, False), (-1.9e-6, False), (2.1e-6, True), (-2.1e-6, True), (np.nan, True), (np.inf, True),
])  # fmt: skip
def test_a_number_that_is_measured_again_may_be_off_by_its_rounding(off: float, is_other: bool) -> None:
    assert differs(3.0, 3.0 + off) is is_other


@pytest.mark.parametrize(("share", "is_told"), [(0.0, False), (0.9e-5, False), (1.05e-5, True), (np.nan, True)])
def test_a_score_of_the_history_is_the_checkpoints_to_five_digits(share: float, is_told: bool) -> None:
    scores = {"val_mae_body_gy": 2.0}
    best = SimpleNamespace(epoch=2, scores=scores, recipe=None)
    record: Any = SimpleNamespace(best=best, last=SimpleNamespace(epoch=2))
    frame = pd.DataFrame({"epoch": [1, 2], "val_mae_body_gy": [3.0, 2.0 * (1 + share)]})
    told = [finding.message for finding in _end(record, frame) if "val_mae_body_gy of epoch 2" in finding.message]
    assert bool(told) is is_told


@pytest.mark.parametrize(("rows", "said"), [
    ("1,10,0.5\n2,20,nan\n3,30,0.3\n", "history.csv: epoch 2: found loss nan"),
    ("1,10,0.5\n2,20,inf\n3,30,0.3\n", "history.csv: epoch 2: found loss inf"),
    ("1,10,0.5\n2,10,0.4\n3,30,0.3\n", "a number that does not grow"),
    ("1,10,0.5\n3,20,0.4\n2,30,0.3\n", "epochs out of order"),
    ("1,10,0.5\n2,20,0.4\n3,30,0.3\n", ""),
])  # fmt: skip
def test_an_epoch_without_a_loss_or_out_of_its_place_is_told(rows: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(f"epoch,steps,train_loss,seconds\n{rows}")
    best = SimpleNamespace(epoch=3, scores={}, recipe=None)
    record: Any = SimpleNamespace(files=SimpleNamespace(run=tmp_path), best=best, last=SimpleNamespace(epoch=3))
    told = [finding.message for finding in history(record)]
    assert any(said in message for message in told) if said else not told


@pytest.mark.parametrize("files", ["abc", {"path": "x"}, ["metrics/cases.csv"], [{"sha256": "0"}], [[]], None, 3])
def test_a_manifest_whose_files_are_no_list_of_paths_is_refused(files: object, tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"cohort": "c", "model": "m", "files": files})
    with pytest.raises(BadInput, match=r"manifest\.json: not the manifest of a run"):
        files_of_archive(tmp_path)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (600.0, "10 min")])
def test_two_minutes_are_told_in_minutes(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
