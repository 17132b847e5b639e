"""The record of a run: each file read once, on demand."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import read_mapping, read_yaml
from doseledger.core.tables import SPLITS, read_frame, read_table, rows_of_fold
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
        return read_mapping(self.files.run / "run.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config_resolved.yaml: every setting that decided the weights."""
        path = self.files.run / "config_resolved.yaml"
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise BadInput(f"{path}: wanted a mapping, found {type(content).__name__}")
        return content

    @cached_property
    def predict_settings(self) -> dict[str, Any]:
        """How it predicted, as its predictions say; empty where none are here."""
        folder = self.files.predictions
        paths = sorted(folder.glob("*.npz")) if folder is not None and folder.is_dir() else []
        return read_settings(paths[0]) if paths else {}

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """dataset_summary.json: the cases of training and validation."""
        return read_mapping(self.files.run / "dataset_summary.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The metrics' summary."""
        return read_mapping(self.files.summary)

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
        return rows_of_fold(read_table(self.files.splits, SPLITS), int(self.run["fold"]), int(self.run["repeat"]))

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
        return read_mapping(place.token), read_mapping(place.findings)
