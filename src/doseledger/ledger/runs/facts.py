"""Facts of a report: the files of one run, read and held together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol as TypedProtocol

import pandas as pd

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json
from doseledger.core.project.layout import ModelLayout
from doseledger.core.project.protocol import GoalSet, Protocol, load_goals, load_protocol
from doseledger.core.tables import (
    CASES,
    DVH_METRICS,
    GOAL_METRICS,
    SKIPPED,
    SPLITS,
    TEST_SET,
    read_case_metrics,
    read_frame,
    read_table,
    rows_of_fold,
)  # fmt: skip
from doseledger.ledger.runs.files import DETAILS

Reader = Callable[[Path], Any]


class CohortTables(TypedProtocol):
    """The tables of a cohort, and the fold and repeat (`run`) that one looks at."""

    @property
    def run(self) -> dict[str, Any]:
        """`fold` and `repeat`, and what else is known of a run."""

    @property
    def cases(self) -> pd.DataFrame:
        """cases.csv."""

    @property
    def skipped(self) -> pd.DataFrame:
        """skipped.csv."""

    @property
    def splits(self) -> pd.DataFrame:
        """The table of splits, of all folds."""

    @property
    def test_set(self) -> pd.DataFrame:
        """The locked test set."""


@dataclass(frozen=True)
class RunFacts:
    """Everything that was read; the names are those of the files."""

    run: dict[str, Any]
    config_text: str
    dataset: dict[str, Any]
    history: pd.DataFrame
    summary: dict[str, Any]
    calibration: dict[str, Any]
    case_metrics: pd.DataFrame
    dvh: pd.DataFrame
    goal_results: pd.DataFrame
    cases: pd.DataFrame
    skipped: pd.DataFrame
    splits: pd.DataFrame
    test_set: pd.DataFrame
    data_findings: dict[str, Any]
    preflight_findings: dict[str, Any]
    model_findings: dict[str, Any]
    protocol: Protocol
    goals: GoalSet

    @property
    def is_segmentation(self) -> bool:
        """Whether the model segments; else it predicts a dose."""
        return "dice" in self.case_metrics


def stands_on(run: Mapping[str, Any]) -> str:
    """Return which models a run's own takes the dose of, in words: a network's base, a mean's parts; empty if none.

    Parameters
    ----------
    run
        As run.json has it.
    """
    base = run.get("base")
    models = {base["model"]: base["sha256"]} if base else run.get("parts", {})
    return ", ".join(f"{name} (SHA256 {sha256[:12]}…)" for name, sha256 in models.items())


def load_facts(at: ModelLayout) -> RunFacts:
    """Return the files of a run.

    Raises
    ------
    NotReady
        Naming every file that is missing and the stage that makes it.
    BadInput
        If a file is not of its form.
    """
    of = at.layout
    sources: dict[str, tuple[Path, str, Reader]] = {
        "run": (at.run / "run.json", "train", read_json),
        "config_text": (at.run / "config_resolved.yaml", "train", _read_text),
        "dataset": (at.run / "dataset_summary.json", "train", read_json),
        "history": (at.run / "history.csv", "train", read_frame),
        "summary": (at.metrics / DETAILS, "evaluate", read_json),
        "calibration": (at.metrics / "calibration.json", "evaluate", read_json),
        "case_metrics": (at.metrics / "cases.csv", "evaluate", read_case_metrics),
        "dvh": (at.metrics / "dvh.csv", "evaluate", lambda path: read_table(path, DVH_METRICS)),
        "goal_results": (at.metrics / "goals.csv", "evaluate", lambda path: read_table(path, GOAL_METRICS)),
        "cases": (of.cases_csv, "ingest", lambda path: read_table(path, CASES)),
        "skipped": (of.cases / "skipped.csv", "ingest", lambda path: read_table(path, SKIPPED)),
        "splits": (of.splits, "split", lambda path: read_table(path, SPLITS)),
        "test_set": (of.test_set, "", lambda path: read_table(path, TEST_SET)),
        "data_findings": (of.data_verdict.findings, "check_data", read_json),
        "preflight_findings": (at.preflight_verdict.findings, "preflight", read_json),
        "model_findings": (at.model_verdict.findings, "judge", read_json),
        "protocol": (of.protocol, "", load_protocol),
        "goals": (of.goals, "", load_goals),
    }
    missing = [
        f"{path} ({f'made by the stage {stage}' if stage else 'a file of the project'})"
        for path, stage, _ in sources.values()
        if not path.is_file()
    ]
    if missing:
        raise NotReady(
            f"no report on {at.name} yet, {len(missing)} file(s) are missing: {'; '.join(missing)}. "
            "Run `dvc repro`, which makes what comes before"
        )
    return RunFacts(**{name: read(path) for name, (path, _, read) in sources.items()})


def _read_text(path: Path) -> str:
    with refuse_damage(lambda reason: BadInput(f"{path}: no text ({reason}); run the stage that writes it again")):
        return path.read_text(encoding="utf-8")


def fold_rows(facts: CohortTables) -> pd.DataFrame:
    """Return the splits of the fold and repeat that this run was trained on."""
    return rows_of_fold(facts.splits, int(facts.run.get("fold", 0)), int(facts.run.get("repeat", 0)))
