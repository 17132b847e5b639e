"""Patients stay out of Git: whatever ends a repro, and whatever DVC does to its own rules then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from doseledger.core.files import write_text
from doseledger.ledger.provenance.stamp import cached_outs

BIN = Path(sys.executable).parent
PATIENTS = (
    "data/raw/prostate/case_0001/ct_001.dcm",
    "data/raw/prostate/case_0001.zip",
    "data/raw/case_0001.zip",
    "data/cases/prostate/case_0001.npz",
    "data/cases/prostate/cases.csv",
    "data/physics/prostate/case_0001.npz",
    "data/physics/prostate/keys.json",
    "data/splits/prostate.csv",
    "data/predictions/prostate/dose_unet/case_0001.npz",
    "data/plans/prostate/dose_unet/case_0001/rtplan.dcm",
    "models/prostate/dose_unet/checkpoints/best.ckpt",
    "models/prostate/dose_unet/run.json",
    "reports/html/prostate/dose_unet/report.html",
    "reports/pdf/prostate/dose_unet/report.pdf",
    "reports/figures/prostate/dose_unet/slices.png",
    "reports/runs.html",
)
KEPT = (
    "data/raw/prostate.csv",
    "data/raw/prostate.dvc",
    "data/raw/dvc.yaml",
    "data/raw/dvc.lock",
    "models/recipes/dose_unet_large.yaml",
    "reports/metrics/prostate/dose_unet/summary.json",
    "reports/verdicts/prostate/data.json",
    "reports/templates/report.html.j2",
    "dvc.lock",
    "params.yaml",
)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Neither the user's own ignore file nor a surrounding repository may help.
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "XDG_CONFIG_HOME": str(folder / ".git" / "none"),
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    """An empty repository under the project's root ignore file."""
    write_text(tmp_path / ".gitignore", (repository / ".gitignore").read_text())
    run(tmp_path, "git", "init", "--quiet")
    return tmp_path


def fill(project: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_text(project / name, "a patient\n")


def untracked(project: Path) -> set[str]:
    lines = run(project, "git", "status", "--untracked-files=all", "--porcelain").stdout.splitlines()
    return {line[3:] for line in lines} - {".gitignore"}


def test_the_root_ignore_file_alone_keeps_patients_out_and_records_in(project: Path) -> None:
    fill(project, PATIENTS + KEPT)
    assert untracked(project) == set(KEPT)


@pytest.fixture
def outs(repository: Path) -> dict[str, bool]:
    """Every out of the pipeline, as the file that it is or a file in the folder, and whether DVC keeps it."""
    from dvc.repo import Repo

    with Repo(str(repository)) as repo:
        found = {
            Path(out.fs_path).relative_to(repository).as_posix(): out.use_cache
            for stage in repo.index.stages
            for out in stage.outs
        }
    return {path if Path(path).suffix else f"{path}/x": is_cached for path, is_cached in found.items()}


def test_git_ignores_just_the_outs_that_dvc_caches(outs: dict[str, bool], project: Path) -> None:
    kept = {path for path, is_cached in outs.items() if not is_cached}
    assert 0 < len(kept) < len(outs)
    fill(project, tuple(outs))
    assert untracked(project) == kept


def test_the_doctor_looks_for_just_the_outs_that_dvc_caches(
    outs: dict[str, bool], repository: Path, project: Path
) -> None:
    for name in ("dvc.yaml", "data/raw/dvc.yaml"):
        write_text(project / name, (repository / name).read_text())
    fill(project, tuple(outs))
    run(project, "git", "add", "--force", ".")
    listed = run(project, "git", "ls-files", "--", *cached_outs(project)).stdout.split()
    assert set(listed) == {path for path, is_cached in outs.items() if is_cached}


def test_dvc_finds_its_files_beside_what_git_ignores(repository: Path, project: Path) -> None:
    write_text(project / "data/raw/dvc.yaml", "stages:\n  phantom:\n    cmd: mkdir p\n    outs:\n      - p\n")
    run(project, "dvc", "init", "--quiet")
    assert "data/raw/dvc.yaml:phantom" in run(project, "dvc", "stage", "list", "--all").stdout
    write_text(project / "data/raw/prostate/case_0001.zip", "a patient\n")
    assert run(project, "dvc", "add", "data/raw/prostate").returncode == 0
    assert "data/raw/prostate.dvc" in run(project, "git", "status", "--porcelain", "-uall").stdout


def test_a_gate_that_fails_leaves_no_patient_in_git_status(project: Path) -> None:
    write = "mkdir -p {0} && echo patient > {0}/case_0001.npz"
    write_text(
        project / "dvc.yaml",
        "stages:\n"
        f"  ingest:\n    cmd: {write.format('data/cases/phantom')}\n    outs:\n      - data/cases/phantom\n"
        f"  train:\n    cmd: {write.format('models/phantom/dose_unet')}\n    deps:\n      - data/cases/phantom\n"
        "    outs:\n      - models/phantom/dose_unet\n"
        "  gate:\n    cmd: exit 1\n    deps:\n      - models/phantom/dose_unet\n",
    )
    run(project, "dvc", "init", "--quiet")
    assert run(project, "dvc", "repro").returncode != 0
    assert (project / "models/phantom/dose_unet/case_0001.npz").is_file()
    assert not {name for name in untracked(project) if name.startswith(("data/", "models/"))}
