"""Paths of a project: where a cohort's, a model's and a run's files lie.

A test holds them to dvc.yaml; a path of the pipeline stands nowhere else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_yaml

PARAMS_FILE = "params.yaml"
PIPELINE_FILE = "dvc.yaml"
LOCK_FILE = "dvc.lock"
PACKAGES_FILE = "requirements.lock"
# What a new project is laid out with; pyproject.toml packs the same into the wheel.
PROJECT_FILES = (
    PIPELINE_FILE, PARAMS_FILE, PACKAGES_FILE, "data/raw/dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore",
    ".gitattributes", ".gitignore", ".pre-commit-config.yaml",
)  # fmt: skip
# Outs that are folders and held to dvc.lock: the SHA256 of cases stands in tables, physics is made of cases.
HASHED_FOLDERS = ("models/", "data/predictions/")
PROJECT_FOLDERS = ("models/recipes", "reports/drill", "reports/templates", "validation")
# The cohort that is made up; all others are patients.
SYNTHETIC_COHORT = "phantom"
# Says `like: phantom` where the files of that cohort hold for what a cohort has none of.
LIKE_FILE = "cohort.yaml"
# Folder, among predictions of test cases, of drawn doses of the validation cases.
VALIDATION = "val"


def find_root() -> Path:
    """Return the project's folder, relative to the working folder: the nearest above with its pipeline and settings.

    Raises
    ------
    NotReady
        If there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PIPELINE_FILE).is_file() and (folder / PARAMS_FILE).is_file():
            return Path(os.path.relpath(folder, here))
    raise NotReady(
        f"{here}: no {PIPELINE_FILE} with a {PARAMS_FILE} here or in a folder above; go into the project's folder"
    )


def main_root() -> Path:
    """Return the main repository's folder, in temporary and queued runs too, whose own folder is thrown away.

    It is DVC_ROOT in a stage; else the nearest folder above with `.dvc`, else with `.git`, else this one.
    """
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    for mark in (".dvc", ".git"):
        for folder in (here, *here.parents):
            if (folder / mark).exists():
                return folder
    return here


class Machine:
    """Paths below the main repository that neither Git nor DVC looks at: they belong to this machine."""

    def __init__(self, root: Path) -> None:
        folder = root / ".doseledger"
        self.root = root
        self.states = folder / "resume"
        # Searches for settings.
        self.sweeps = folder / "sweeps"
        # Registered versions that trainings begin with.
        self.parents = folder / "parents"
        self.ingest_indices = folder / "ingest"
        self.slurm = folder / "slurm"
        self.audit_log = folder / "audit.jsonl"
        self.digests = folder / "digests.sqlite"
        self.run_store = folder / "runs.json"
        self.runs_page = root / "reports/runs.html"
        # Where pages and manifests lie.
        self.reports = root / "reports"


@dataclass(frozen=True)
class VerdictPaths:
    """The two files of one gate's verdict: the token that stages depend on, and the findings."""

    token: Path
    findings: Path


def _like(path: Path) -> str | None:
    if not path.is_file():
        return None
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"like"}:
        raise BadInput(f"{path}: wanted `like: {SYNTHETIC_COHORT}` and nothing else, found {content!r}")
    return str(content["like"])


def _verdict(folder: Path, gate: str) -> VerdictPaths:
    return VerdictPaths(folder / f"{gate}.json", folder / f"{gate}_findings.json")


class Layout:
    """Paths of one cohort in a project.

    Parameters
    ----------
    root
        The project's folder: a temporary one in an experiment that runs in one.
    cohort
        Its name: a folder of validation/cohorts.
    """

    def __init__(self, root: Path, cohort: str) -> None:
        self.root, self.cohort = root, cohort
        # The project's own.
        self.params = root / PARAMS_FILE
        self.pipeline = root / PIPELINE_FILE
        self.lock = root / LOCK_FILE
        self.packages = root / PACKAGES_FILE
        self.templates = root / "reports/templates"
        self.recipes = root / "models/recipes"
        self.code = root / "reports/code"
        self.exit_criteria = root / "validation/exit_criteria.yaml"
        self.cohorts = root / "validation/cohorts"
        # What is resolved of settings, protocol, goals and limits.
        self.settings = root / "reports/settings" / cohort
        # Data.
        self.raw = root / "data/raw" / cohort
        self.raw_list = root / f"data/raw/{cohort}.csv"
        self.cases = root / "data/cases" / cohort
        self.cases_csv = self.cases / "cases.csv"
        self.splits = root / f"data/splits/{cohort}.csv"
        self.physics = root / "data/physics" / cohort
        self.physics_csv = self.physics / "physics.csv"
        # Verdicts and pages.
        verdicts, pages = root / "reports/verdicts" / cohort, root / "reports/html" / cohort
        self.data_verdict, self.drift_verdict = _verdict(verdicts, "data"), _verdict(verdicts, "drift")
        self.data_page, self.drift_page = pages / "data.html", pages / "drift.html"
        self.data_report = pages / "data_report.html"
        self.data_report_pdf = root / "reports/pdf" / cohort / "data_report.pdf"
        self.data_figures = root / "reports/figures" / cohort / "data"
        # What a drill measured, of every cohort: `drill` is this one's.
        self.drills = root / "reports/drill"
        self.test_set = self.cohorts / cohort / "test_set.csv"

    @property
    def drill(self) -> Path:
        """Detection limits of the gates on this cohort, once somebody has measured them."""
        return self.drills / self.cohort / "drill.json"

    @property
    def protocol(self) -> Path:
        """The treatment protocol."""
        return self._cohort_file("protocol.yaml")

    @property
    def goals(self) -> Path:
        """The clinical goals."""
        return self._cohort_file("goals.yaml")

    @property
    def suite(self) -> Path:
        """The suite of expectations."""
        return self._cohort_file("suite.json")

    @property
    def folders(self) -> list[Path]:
        """Folder of the cohort, and that of the synthetic cohort where it is `like` that.

        Raises
        ------
        BadInput
            If there is no such cohort, or it is like another one: stages depend on these two folders alone, so that an
            edit to one clinic's files runs nothing of another's.
        """
        own = self._folder_of(self.cohort)
        like = _like(own / LIKE_FILE)
        if like is None:
            return [own]
        if like != SYNTHETIC_COHORT or like == self.cohort:
            raise BadInput(
                f"{own / LIKE_FILE}: found `like: {like}`, wanted `like: {SYNTHETIC_COHORT}` or no such file; "
                "`doseledger cohort init NEW --from COHORT` copies the files of any cohort"
            )
        return [own, self._folder_of(like)]

    def _folder_of(self, cohort: str) -> Path:
        known = {path.name.casefold(): path.name for path in sorted(self.cohorts.glob("*")) if path.is_dir()}
        if cohort not in known.values():
            close = get_close_matches(cohort.casefold(), known, n=1)
            raise BadInput(
                f"cohort {cohort!r} has no folder in {self.cohorts}; there are {', '.join(known.values()) or 'none'}"
                + (f". Did you mean {known[close[0]]}?" if close else "")
            )
        return self.cohorts / cohort

    def _cohort_file(self, name: str) -> Path:
        folders = self.folders
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        raise BadInput(
            f"{' and '.join(str(folder) for folder in folders)}: no {name}, which every cohort needs; write it"
        )

    def model(self, name: str) -> ModelLayout:
        """Return the paths of a model on this cohort."""
        return ModelLayout(self, name)


class ModelLayout:
    """Paths of one model on one cohort."""

    def __init__(self, layout: Layout, name: str) -> None:
        root, place = layout.root, Path(layout.cohort) / name
        self.layout, self.name = layout, name
        # One file a stage: hashes of code, resolved settings.
        self.code = layout.code / name
        self.settings = layout.settings / name
        # What training starts from: the base's checkpoint, where there is one.
        self.start = self.settings / "start"
        self.run = root / "models" / place
        self.checkpoint = self.run / "checkpoints/best.ckpt"
        self.predictions = root / "data/predictions" / place
        self.gamma = root / "data/gamma" / place
        self.metrics = root / "reports/metrics" / place
        self.shortcuts = self.metrics / "shortcuts.json"
        # Of a dose model whose doses on predicted contours are measured too.
        self.contours = self.metrics / "contours.json"
        self.plans = root / "data/plans" / place
        self.delivery = self.metrics / "deliver.json"
        verdicts = root / "reports/verdicts" / place
        self.preflight_verdict, self.model_verdict = _verdict(verdicts, "preflight"), _verdict(verdicts, "model")
        self.html = root / "reports/html" / place / "report.html"
        self.pdf = root / "reports/pdf" / place / "report.pdf"
        self.figures = root / "reports/figures" / place
