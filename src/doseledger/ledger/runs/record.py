"""The record of a run: each file read once, on demand."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import read_json, read_yaml
from doseledger.core.tables import SPLITS, read_frame, read_table
from doseledger.evaluate.predictions import read_settings
from doseledger.learn.kinds import open_checkpoint
from doseledger.learn.training.checkpoint import Checkpoint
from doseledger.ledger.runs.files import RunFiles
from doseledger.ledger.runs.recompute import Tables, read_tables

# What the table of cases of any kind of model has.
EVALUATED = ("case_id", "case_sha256", "checkpoint_sha256")


class RunRecord:
    """The files of one run, read as they are asked for.

    Raises
    ------
    BadInput, NotReady
        From each property: if its file is absent or not of its form.
    """

    def __init__(self, files: RunFiles) -> None:
        self.files = files

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json: settings, hashes, provenance."""
        return _mapping(self.files.run / "run.json", read_json(self.files.run / "run.json"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """config_resolved.yaml: every setting that decided the weights."""
        path = self.files.run / "config_resolved.yaml"
        return _mapping(path, read_yaml(path))

    @cached_property
    def predict_settings(self) -> dict[str, Any]:
        """How it predicted, as its predictions say; empty where none are here."""
        folder = self.files.predictions
        paths = sorted(folder.glob("*.npz")) if folder is not None and folder.is_dir() else []
        return read_settings(paths[0]) if paths else {}

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """dataset_summary.json: the cases of training and validation."""
        path = self.files.run / "dataset_summary.json"
        return _mapping(path, read_json(path))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The metrics' summary."""
        return _mapping(self.files.summary, read_json(self.files.summary))

    @cached_property
    def best(self) -> Checkpoint:
        """The best checkpoint."""
        return open_checkpoint(self.files.best_checkpoint)

    @cached_property
    def last(self) -> Checkpoint:
        """The last checkpoint."""
        return open_checkpoint(self.files.run / "checkpoints" / "last.ckpt")

    @cached_property
    def fold(self) -> pd.DataFrame:
        """The splits of this run's fold and repeat."""
        splits = read_table(self.files.splits, SPLITS)
        return splits[(splits["fold"] == int(self.run["fold"])) & (splits["repeat"] == int(self.run["repeat"]))]

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """Which cases were evaluated, of which content and by which checkpoint, for any kind of model."""
        path = self.files.tables["cases"]
        return read_frame(path, dtype=str, usecols=list(EVALUATED))

    @cached_property
    def tables(self) -> Tables:
        """The tables of its evaluation."""
        return read_tables(self.files.tables, self.summary)

    def verdict(self, gate: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a gate's token and findings."""
        place = self.files.verdicts[gate]
        return _mapping(place.token, read_json(place.token)), _mapping(place.findings, read_json(place.findings))


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: wanted a mapping, found {type(value).__name__}")
    return value
