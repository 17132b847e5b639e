"""The run directory contract: which files a complete run has, in the pipeline's folders and in an archived one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, read_yaml, sha256_of_json
from doseledger.ledger.provenance.pipeline import StageFiles, resolve_stages
from doseledger.ledger.provenance.stamp import PARAMS_FILE, PIPELINE_FILE

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
GATES = ("data", "preflight", "metrics")
# How a gate's findings are called; its token lies beside them.
FINDINGS = "_findings.json"


@dataclass(frozen=True)
class VerdictFiles:
    """The two files of one gate's verdict: the token that stages hang on, and the findings."""

    token: Path
    findings: Path


@dataclass(frozen=True)
class RunFiles:
    """Where the files of one complete run lie.

    Parameters
    ----------
    cohort, model
        What the run is of.
    run
        Folder that training wrote.
    summary
        The metrics' summary (JSON).
    tables
        Tables of an evaluation by name; a dose model has `cases`, `dvh` and `goals`.
    verdicts
        By gate, in the order of the pipeline; `data`, `preflight` and `metrics` are among them.
    html, pdf
        The report.
    splits
        The table of splits that it was trained and tested by.
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
    verdicts: Mapping[str, VerdictFiles]
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


def files_of_pipeline(root: Path, model: str) -> RunFiles:
    """Return where dvc.yaml puts the run of a model on the settings' cohort.

    Parameters
    ----------
    root
        The project's root, with dvc.yaml and params.yaml.
    model
        A name of `models` in the settings.

    Raises
    ------
    BadInput
        If the pipeline trains no such model.
    """
    params = read_yaml(root / PARAMS_FILE)
    return run_files(resolve_stages(read_yaml(root / PIPELINE_FILE), params), str(params.get("cohort")), model, root)


def pipeline_models(root: Path) -> list[str]:
    """Return the models that the pipeline trains, of whatever kind.

    Raises
    ------
    BadInput
        If there is no pipeline.
    """
    return models_of(resolve_stages(read_yaml(root / PIPELINE_FILE), read_yaml(root / PARAMS_FILE)))


def run_files(stages: Mapping[str, StageFiles], cohort: str, model: str, root: Path) -> RunFiles:
    """Return where the stages of a pipeline put the run of a model.

    Raises
    ------
    BadInput
        If they train no such model.
    """
    mine = {name.partition("@")[0]: stage for name, stage in stages.items() if name.partition("@")[2] == model}
    trained = models_of(stages)
    if model not in trained:
        raise BadInput(f"the pipeline trains no {model!r}; {PARAMS_FILE} names: {', '.join(trained)}")
    evaluated, reported = (_stage_of(mine, role, model) for role in ("evaluate", "report"))
    judges = [stages["check_data"], *mine.values()]
    findings = [path for stage in judges for path in stage.outs if path.endswith(FINDINGS)]
    # A model may be predicted more than once, for its calibration too: what is evaluated is what counts.
    predicted = [out for name, stage in mine.items() if name.startswith("predict") for out in stage.outs]
    return RunFiles(
        cohort=cohort,
        model=model,
        run=root / _stage_of(mine, "train", model).outs[0],
        summary=root / evaluated.out("summary.json"),
        tables={Path(path).stem: root / path for path in evaluated.outs if path.endswith(".csv")},
        verdicts={_gate(path): VerdictFiles(root / _token(path), root / path) for path in findings},
        html=root / reported.out(".html"),
        pdf=root / reported.out(".pdf"),
        splits=root / stages["split"].out(".csv"),
        root=root,
        cases=root / stages["ingest"].outs[0],
        predictions=next((root / path for path in predicted if path in evaluated.deps), None),
        figures=next((root / path for path in reported.outs if not Path(path).suffix), None),
    )


def models_of(stages: Mapping[str, StageFiles]) -> list[str]:
    """Return the models that the stages of a pipeline train, of whatever kind."""
    return sorted(name.partition("@")[2] for name in stages if "@" in name and _is_role(name, "train"))


def _is_role(stage: str, role: str) -> bool:
    # Each kind of model has stages of its own: train, train_diffusion.
    name = stage.partition("@")[0]
    return name == role or name.startswith(f"{role}_")


def _stage_of(stages: Mapping[str, StageFiles], role: str, model: str) -> StageFiles:
    found = [stage for name, stage in stages.items() if _is_role(name, role)]
    if len(found) != 1:
        raise BadInput(f"{PIPELINE_FILE} has {len(found)} stages that {role} {model}, wanted one")
    return found[0]


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
            _gate(path): VerdictFiles(folder / _token(path), folder / path)
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
    """Return the name by which a run is told from every other: of its weights and its numbers, wherever it is found.

    Parameters
    ----------
    cohort, model
        What the run is of.
    checkpoint_sha256
        SHA256 of best.ckpt.
    summary
        The metrics' summary.
    """
    return sha256_of_json([cohort, model, checkpoint_sha256, dict(summary)])[:10]


def verdict_speaks_of(findings: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Return whether the metrics gate's findings are of these metrics: the limits that it judged hold their numbers."""
    details = findings.get("details") or {}
    limits = [*details.get("limits", []), *details.get("candidate", [])]
    # Both were written from one number, so they are equal to the last digit.
    same = all(limit.get("found") == summary.get(limit.get("metric")) for limit in limits)
    return same and details.get("n_cases") == summary.get("n_cases")


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
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not {"cohort", "model", "files"} <= set(manifest):
        raise BadInput(f"{path}: not the manifest of a run (wanted cohort, model and files); archive the run again")
    return manifest
