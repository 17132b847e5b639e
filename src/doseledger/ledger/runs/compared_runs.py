"""Runs to compare, and whether they may be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json
from doseledger.core.tables import DVH_METRICS, GOAL_METRICS, read_case_metrics, read_table
from doseledger.core.text.lists import first_of
from doseledger.evaluate.compare import refuse_other_criteria
from doseledger.evaluate.summary import is_measure
from doseledger.ledger.provenance.outs import OF_A_RUN, require_recorded
from doseledger.ledger.provenance.recorded import flatten
from doseledger.ledger.runs.files import RunFiles
from doseledger.ledger.runs.record import RunRecord

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "cases": read_case_metrics,
    "dvh": partial(read_table, schema=DVH_METRICS),
    "goals": partial(read_table, schema=GOAL_METRICS),
}
# How many names a message spells out.
SHOWN = 6


@dataclass(frozen=True)
class ComparedRun:
    """One run among those that are compared.

    Parameters
    ----------
    label
        What it is called, unlike all others.
    metrics
        Folder with `cases.csv`, `dvh.csv` and `goals.csv`.
    run
        run.json; empty where only metrics were given.
    settings
        Every setting that decided the weights, flat; empty where only metrics were given.
    verdicts
        What each gate found, by gate.
    predictions
        Folder of predicted doses; None where there is none.
    """

    label: str
    metrics: Path
    cases: pd.DataFrame
    dvh: pd.DataFrame
    goals: pd.DataFrame
    run: dict[str, Any]
    settings: dict[str, Any]
    verdicts: dict[str, dict[str, Any]]
    predictions: Path | None

    @property
    def digests(self) -> dict[str, str]:
        """SHA256 of each test case's file, by case."""
        return dict(zip(self.cases["case_id"], self.cases["case_sha256"], strict=True))

    @property
    def measures(self) -> list[str]:
        """Columns that are errors or pass rates."""
        return [str(name) for name in self.cases.columns if is_measure(str(name))]

    @property
    def commit(self) -> str | None:
        """The commit that trained it, where it says so."""
        commit = self.run.get("provenance", {}).get("git", {}).get("commit")
        return str(commit) if commit else None

    @property
    def dirty(self) -> bool:
        """Whether it was trained on a dirty tree, or does not say on which."""
        return bool(self.run) and bool(self.run.get("provenance", {}).get("git", {}).get("dirty", True))


def compared_run(files: RunFiles, label: str) -> ComparedRun:
    """Return a run of the pipeline or an archived one.

    Raises
    ------
    NotReady
        Naming each file that is missing, or was changed since the stage that made it.
    BadInput
        If a file is not of its form, or the model has no table of doses.
    """
    unlike = sorted(set(READERS) - set(files.tables))
    if unlike:
        raise BadInput(f"{label}: its evaluation has no {', '.join(unlike)}; only dose models are compared here")
    sources = [files.run / "run.json", files.run / "config_resolved.yaml", *files.tables.values()]
    missing = [str(path) for path in sources if not path.is_file()]
    if missing:
        raise NotReady(f"{label} is no finished run, {len(missing)} file(s) are missing: {', '.join(missing)}")
    if files.root is not None and files.manifest is None:
        require_recorded(files.root, OF_A_RUN, files.cohort, files.model)
    verdicts = {
        gate: read_json(verdict.findings) for gate, verdict in files.verdicts.items() if verdict.findings.is_file()
    }
    record = RunRecord(files)
    return replace(
        _evaluated(label, files.tables["cases"].parent, files.predictions),
        run=record.run,
        settings=dict(flatten(record.config)),
        verdicts=verdicts,
    )


def run_of_metrics(folder: Path, label: str, predictions: Path | None = None) -> ComparedRun:
    """Return a run of which only the folder that `evaluate` wrote is known: no settings, no verdicts.

    Raises
    ------
    NotReady
        If it is no such folder.
    """
    missing = [f"{name}.csv" for name in READERS if not (folder / f"{name}.csv").is_file()]
    if missing:
        raise NotReady(
            f"{folder}: neither an archived run nor a folder that `evaluate` wrote (no {', '.join(missing)}); name a "
            "model of the pipeline, a run_YYYYMMDD_HHMMSS, or a folder of metrics"
        )
    return _evaluated(label, folder, predictions)


def _evaluated(label: str, metrics: Path, predictions: Path | None) -> ComparedRun:
    tables = {name: read(metrics / f"{name}.csv") for name, read in READERS.items()}
    return ComparedRun(
        label=label,
        metrics=metrics,
        cases=tables["cases"],
        dvh=tables["dvh"],
        goals=tables["goals"],
        run={},
        settings={},
        verdicts={},
        predictions=predictions if predictions is not None and predictions.is_dir() else None,
    )


def refuse_unlike(runs: Sequence[ComparedRun]) -> None:
    """Do nothing if the runs may be compared: two or more, of the same test cases, measured alike.

    Raises
    ------
    BadInput
        Naming the test cases that only one has, those whose file differs (another grid, other contours), the masks and
        gamma criteria that only one was measured with, or the statistics.
    """
    if len(runs) < 2:
        raise BadInput(f"{len(runs)} run(s) given; a comparison needs a baseline and at least one other run")
    labels = [run.label for run in runs]
    if len(set(labels)) < len(labels):
        raise BadInput(f"two runs are called alike ({', '.join(labels)}); give each a --label of its own")
    baseline = runs[0]
    for other in runs[1:]:
        names = f"{baseline.label} and {other.label}"
        alone = sorted(set(baseline.digests) ^ set(other.digests))
        if alone:
            raise BadInput(
                f"{names} were tested on different cases: {_some(alone)} in one only; evaluate both on one test set"
            )
        changed = sorted(name for name, digest in baseline.digests.items() if other.digests[name] != digest)
        if changed:
            raise BadInput(
                f"{names} saw different files of {_some(changed)} (another grid, other contours or another plan); "
                "ingest once and evaluate both on those cases"
            )
        _refuse_unlike_measures(baseline, other, names)


def _refuse_unlike_measures(baseline: ComparedRun, other: ComparedRun, names: str) -> None:
    refuse_other_criteria({run.label: run.cases for run in (baseline, other)})
    alone = sorted(set(baseline.measures) ^ set(other.measures))
    if alone:
        raise BadInput(
            f"{names} were not measured alike: {_some(alone)} (a mask or a gamma criterion) in one only; evaluate both "
            "with the same protocol and settings"
        )
    statistics = [set(zip(run.dvh["structure"], run.dvh["statistic"], strict=True)) for run in (baseline, other)]
    differ = sorted(" ".join(pair) for pair in statistics[0] ^ statistics[1])
    if differ:
        raise BadInput(
            f"{names} have different DVH statistics: {_some(differ)} in one only; evaluate both with one "
            "evaluate.dvh_statistics"
        )


def _some(names: Sequence[str]) -> str:
    return first_of(names, SHOWN)


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Return each setting that is not the same in all runs that record theirs, a value a run; None where it has none.

    Returns
    -------
    dict
        By dotted name, sorted; a run that records no settings is passed over when others are compared, and has None.
    """
    recorded = [run for run in runs if run.settings]
    names = sorted({name for run in recorded for name in run.settings})
    differ = [name for name in names if len({_key(run.settings, name) for run in recorded}) > 1]
    return {name: [run.settings.get(name) for run in runs] for name in differ}


def _key(settings: Mapping[str, Any], name: str) -> str:
    # 1 and 1.0 are one setting; an absent one is no None.
    value = settings.get(name, "absent")
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
