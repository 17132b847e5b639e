"""The files of a complete run, in the pipeline's folders or an archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, read_yaml, sha256_of_json
from doseledger.core.project.layout import PARAMS_FILE, Layout, ModelLayout, VerdictPaths

# As `evaluate` calls it, whose import would cost a second.
DETAILS = "details.json"
# As `judge` calls a part that it could not judge.
NOT_JUDGED = "not judged"
MANIFEST = "manifest.json"
EXAMPLES = "examples"
# What training writes, relative to its folder.
TRAINING_FILES = (
    "run.json",
    "config_resolved.yaml",
    "dataset_summary.json",
    "history.csv",
    "train.log",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
)
# The gates that every run has; a pipeline may have more.
GATES = ("data", "preflight", "model")
TABLES = ("cases", "dvh", "goals")
# How a gate's findings are called; its token lies beside them.
FINDINGS = "_findings.json"


@dataclass(frozen=True)
class RunFiles:
    """Where the files of one complete run lie.

    Parameters
    ----------
    summary
        All numbers of the evaluation (JSON).
    tables
        Tables of an evaluation by name; a dose model has `cases`, `dvh` and `goals`.
    verdicts
        By gate, in the order of the pipeline; `data`, `preflight` and `model`.
    root
        The project, whose Git repository knows the run's commit; None where there is none.
    manifest
        The list of an archived run's files with their SHA256; None for the pipeline's own folders.
    cases
        Folder of cases, as the pipeline has it; an archived run holds none.
    predictions
        Folder of predicted doses, all of the test set or the examples of an archived run.
    figures
        Folder of the report's figures; an archived run has them among its examples.
    """

    cohort: str
    model: str
    run: Path
    summary: Path
    tables: Mapping[str, Path]
    verdicts: Mapping[str, VerdictPaths]
    html: Path
    pdf: Path
    splits: Path
    root: Path | None = None
    manifest: Path | None = None
    cases: Path | None = None
    predictions: Path | None = None
    figures: Path | None = None

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint that is evaluated and released."""
        return self.run / "checkpoints" / "best.ckpt"

    def by_name(self) -> dict[str, Path]:
        """Return every file of the contract by the name that it has in an archived run."""
        files = {name: self.run / name for name in TRAINING_FILES}
        files |= {"metrics_summary.json": self.summary, "splits.csv": self.splits}
        files |= {f"metrics/{name}.csv": path for name, path in self.tables.items()}
        for gate, verdict in self.verdicts.items():
            files |= {f"verdicts/{gate}.json": verdict.token, f"verdicts/{gate}{FINDINGS}": verdict.findings}
        return files | {"report.html": self.html, "report.pdf": self.pdf}


def files_of_pipeline(layout: Layout, model: str) -> RunFiles:
    """Return where the pipeline puts the run of a model.

    Raises
    ------
    BadInput
        If the settings name no such model.
    """
    trained = trained_models(layout.params)
    if model not in trained:
        raise BadInput(f"the pipeline trains no {model!r}; {PARAMS_FILE} names: {', '.join(trained)}")
    return files_of_model(layout.model(model))


def trained_models(params: Path) -> list[str]:
    """Return the models that params.yaml names, of whatever kind.

    Raises
    ------
    BadInput
        If it can't be read, or names none.
    """
    content = read_yaml(params)
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list) or not models:
        raise BadInput(f"{params}: wanted a list of `models`")
    return [str(name) for name in models]


def files_of_model(at: ModelLayout) -> RunFiles:
    """Return where the pipeline puts the run of a model, trained or not."""
    return RunFiles(
        cohort=at.layout.cohort,
        model=at.name,
        run=at.run,
        summary=at.metrics / DETAILS,
        tables={name: at.metrics / f"{name}.csv" for name in TABLES},
        verdicts={
            "data": at.layout.data_verdict,
            "preflight": at.preflight_verdict,
            "model": at.model_verdict,
        },
        html=at.html,
        pdf=at.pdf,
        splits=at.layout.splits,
        root=at.layout.root,
        cases=at.layout.cases,
        predictions=at.predictions,
        figures=at.figures,
    )


def _gate(findings: str) -> str:
    return Path(findings).name.removesuffix(FINDINGS)


def _token(findings: str) -> str:
    return f"{findings.removesuffix(FINDINGS)}.json"


def files_of_archive(folder: Path, root: Path | None = None) -> RunFiles:
    """Return where the files of an archived run lie.

    Parameters
    ----------
    folder
        `run_YYYYMMDD_HHMMSS`, as `runs archive` writes it.
    root
        The project, to look the run's commit up in; None leaves that out.

    Raises
    ------
    NotReady
        If it has no manifest: it is no archived run, or one that was never finished.
    BadInput
        If the manifest is no manifest.
    """
    manifest = read_manifest(folder)
    listed = [str(item["path"]) for item in manifest["files"]]
    return RunFiles(
        cohort=str(manifest["cohort"]),
        model=str(manifest["model"]),
        run=folder,
        summary=folder / "metrics_summary.json",
        tables={Path(path).stem: folder / path for path in listed if path.startswith("metrics/")},
        verdicts={
            _gate(path): VerdictPaths(folder / _token(path), folder / path)
            for path in listed
            if path.endswith(FINDINGS)
        },
        html=folder / "report.html",
        pdf=folder / "report.pdf",
        splits=folder / "splits.csv",
        root=root,
        manifest=folder / MANIFEST,
        predictions=folder / EXAMPLES,
    )


def run_id(cohort: str, model: str, checkpoint_sha256: str, summary: Mapping[str, Any]) -> str:
    """Return the name by which a run is told from every other: of its weights and its numbers, wherever it is found."""
    return sha256_of_json([cohort, model, checkpoint_sha256, dict(summary)])[:10]


def verdict_speaks_of(findings: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Return whether the verdict on a model is of these metrics: the limits that it judged hold their numbers."""
    metrics = _mapping(_mapping(findings.get("details")).get("metrics"))
    if metrics.get("digest") == NOT_JUDGED:
        # It judged what was there, and could not see it.
        return True
    details = _mapping(metrics.get("details"))
    limits = [_mapping(limit) for key in ("limits", "candidate") for limit in details.get(key) or []]
    # Both were written from one number, so they are equal to the last digit.
    same = all(limit.get("found") == summary.get(str(limit.get("metric"))) for limit in limits)
    return same and details.get("n_cases") == summary.get("n_cases")


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of a verdict; empty where the file was damaged into another form, which then speaks of no metrics."""
    return value if isinstance(value, Mapping) else {}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an archived run.

    Raises
    ------
    NotReady
        If there is none.
    BadInput
        If it is not one of ours.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotReady(f"{folder}: no {MANIFEST}, so this is no archived run; `doseledger runs archive` makes one")
    manifest: dict[str, Any] = read_json(path)
    is_whole = isinstance(manifest, dict) and {"cohort", "model", "files"} <= set(manifest)
    files = manifest["files"] if is_whole else None
    if not isinstance(files, list) or not all(isinstance(item, dict) and "path" in item for item in files):
        wanted = "cohort, model and files, each with its path"
        raise BadInput(f"{path}: not the manifest of a run (wanted {wanted}); archive the run again")
    return manifest
