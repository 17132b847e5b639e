"""A new project: pipeline, settings, limits, templates, hooks of Git."""

from __future__ import annotations

import shutil
from pathlib import Path

from doseledger.core.code import SOURCE
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_text
from doseledger.core.project.layout import PIPELINE_FILE, PROJECT_FILES, PROJECT_FOLDERS
from doseledger.ledger.provenance.git import run_git

# In a clone what a project is laid out with lies at the root, in a wheel in this folder.
SHIPPED = "doseledger_project"
# In a clone an edit of the package runs the stage `code`; outside one the package lies elsewhere.
CODE_DEP = "    - src/doseledger\n"


def make_project(folder: Path) -> list[Path]:
    """Lay out a new project in an empty folder, and begin its Git repository where it lies in none.

    Parameters
    ----------
    folder
        New, or empty.

    Returns
    -------
    list of Path
        What was written, relative to `folder`.

    Raises
    ------
    BadInput
        If the folder holds something.
    NotReady
        If the installed package does not bring the files of a project along.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty; name a new folder")
    source = _shipped()
    for name in PROJECT_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    for name in PROJECT_FOLDERS:
        shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pipeline = (folder / PIPELINE_FILE).read_text(encoding="utf-8")
    write_text(folder / PIPELINE_FILE, pipeline.replace(CODE_DEP, "", 1))
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if run_git(folder, "rev-parse", "--git-dir").returncode != 0:
        run_git(folder, "init", "--quiet", "--initial-branch=main")
    return written


def _shipped() -> Path:
    """The folder that holds the files of a project: the clone's root, or what the wheel brought along."""
    for folder in (SOURCE.parent, SOURCE / SHIPPED):
        if all((folder / name).exists() for name in (*PROJECT_FILES, *PROJECT_FOLDERS)):
            return folder
    raise NotReady(f"{SOURCE} brings no {SHIPPED} along; install the wheel or work in a clone")
