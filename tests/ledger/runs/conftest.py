"""A whole project with one run that tells one story: repository, pipeline, training, metrics, verdicts, report."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doseledger.core.case import write_npz
from doseledger.core.files import read_json, sha256_of_file, sha256_of_json, write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.tables import SPLITS, read_table
from doseledger.evaluate.case import Yardsticks
from doseledger.gates.verdict import make_verdict, verdict_as_json, write_verdict
from doseledger.learn.training.checkpoint import load_checkpoint, save_checkpoint
from doseledger.ledger.provenance.outs import md5_of
from doseledger.ledger.runs.files import RunFiles, files_of_pipeline
from doseledger.ledger.runs.recompute import Recompute

MODEL = "dose_unet"


@dataclass(frozen=True)
class Project:
    """A project's folder and the run in it."""

    root: Path
    yardsticks: Yardsticks

    @property
    def files(self) -> RunFiles:
        return files_of_pipeline(self.at.layout, MODEL)

    @property
    def at(self) -> ModelLayout:
        return Layout(self.root, "phantom").model(MODEL)

    def recompute(self, how_many: int | None = 1) -> Recompute:
        files = self.files
        assert files.cases is not None
        assert files.predictions is not None
        return Recompute(files.cases, files.predictions, self.yardsticks, how_many)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def record(self) -> None:
        """As DVC does after a training."""
        write_lock(self.at)

    def edit_json(self, path: Path, **changes: Any) -> None:
        write_json(path, {**read_json(path), **changes})


@pytest.fixture(scope="session")
def project_cache() -> dict[str, Any]:
    """The project that is made once a session; each test has a copy."""
    return {}


@pytest.fixture
def project(
    build_run: Callable[[Path], Any],
    project_cache: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    repository: Path,
) -> Project:
    """A project that a test may change."""
    if "root" not in project_cache:
        root = tmp_path_factory.mktemp("project")
        finished = build_run(root)
        of = finished.at.layout
        rules = load_protocol(of.protocol), load_goals(of.goals)
        project_cache["yardsticks"] = Yardsticks(*rules, finished.evaluate)
        tell_one_story(finished.at, repository)
        project_cache["root"] = root
    copy = tmp_path / "project"
    shutil.copytree(project_cache["root"], copy)
    return Project(copy, project_cache["yardsticks"])


def tell_one_story(at: ModelLayout, repository: Path) -> None:
    root = at.layout.root
    for name in ("dvc.yaml", "params.yaml", "requirements.lock"):
        shutil.copy(repository / name, root / name)
    small_params(root / "params.yaml", 15)
    write_text(root / ".gitignore", "/data/\n/models/\n/reports/html\n/reports/pdf\n/.dvc/\n")
    write_text(root / "code.py", "ANSWER = 42\n")
    project = Project(root, None)  # type: ignore[arg-type]
    project.git("init", "-q", "-b", "main")
    project.git("config", "user.name", "Ada")
    project.git("config", "user.email", "ada@example.org")
    project.git("add", "dvc.yaml", "params.yaml", "requirements.lock", ".gitignore", "code.py")
    project.git("add", "validation", "reports/templates")
    project.git("commit", "-q", "-m", "Code")
    retrain(at)
    write_records(at, project.git("rev-parse", "HEAD"))
    write_gates(at)
    record = read_json(at.run / "run.json")
    page = f"<html><body>{record['cases_sha256']} {record['splits_sha256']}</body></html>\n"
    write_text(at.html, page)
    write_text(at.pdf, "%PDF-1.7\n")
    write_text(at.figures / "training.png", "a figure")
    write_lock(at)


def small_params(params: Path, epochs: int) -> None:
    """The epochs and the evaluation of the run in these tests, whatever is shipped."""
    from ruamel.yaml import YAML

    yaml = YAML()
    values = yaml.load(params.read_text())
    # The network of the fixture's checkpoint, alone.
    values["models"], values["bases"] = [MODEL], {}
    values[MODEL] |= {"fit": {"max_epochs": epochs}, "prior": "mean_dose", "inputs": {"physics": []}}
    values["evaluate"].update(verify_gamma_points=3)
    with params.open("w") as stream:
        yaml.dump(values, stream)


def retrain(at: ModelLayout) -> None:
    """Checkpoints of a training that ended, in place of the fixture's stub; the predictions become theirs."""
    path = at.checkpoint
    before = sha256_of_file(path)
    stub = load_checkpoint(path)
    epochs = stub.recipe.fit.max_epochs
    scores = {"val_mae_valid_dose_gy": 2.25, "val_mae_body_gy": 2.125}
    save_checkpoint(path, replace(stub, epoch=epochs, scores=scores))
    save_checkpoint(path.with_name("last.ckpt"), replace(stub, epoch=epochs, scores=scores))
    after = sha256_of_file(path)
    table = at.metrics / "cases.csv"
    write_text(table, table.read_text().replace(before, after))
    for file in sorted(at.predictions.glob("*.npz")):
        with np.load(file) as npz:
            arrays = dict(npz)
        meta = {**json.loads(str(arrays["meta"])), "checkpoint_sha256": after}
        write_npz(file, {**arrays, "meta": np.asarray(json.dumps(meta))})
    write_history(at.run / "history.csv", epochs)
    write_text(at.run / "train.log", "trained\n")


def write_history(path: Path, epochs: int, best_gy: float = 2.25) -> None:
    epoch = np.arange(1, epochs + 1)
    score = np.where(epoch % 3 == 0, best_gy + 0.5 * (epochs - epoch), np.nan)
    frame = pd.DataFrame(
        {
            "epoch": epoch, "steps": 32 * epoch, "lr": 0.001, "train_loss": 1.0 / epoch,
            "val_mae_valid_dose_gy": score, "val_mae_body_gy": score - 0.125, "seconds": 1.0,
        }
    )  # fmt: skip
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False)
    write_text(path, buffer.getvalue())


def write_records(at: ModelLayout, commit: str) -> None:
    best = load_checkpoint(at.checkpoint)
    recipe = best.recipe.model_dump(mode="json")
    # YAML holds JSON.
    write_json(at.run / "config_resolved.yaml", {"model": MODEL, **best.settings, "recipe": recipe})
    splits = read_table(at.layout.splits, SPLITS)
    parts = {
        part: [
            {"case_id": row["case_id"], "sha256": row["sha256"]}
            for row in splits[splits["split"] == part].to_dict("records")
        ]
        for part in ("train", "val")
    }
    write_json(at.run / "dataset_summary.json", parts)
    record = read_json(at.run / "run.json")
    git = {"commit": commit, "branch": "main", "dirty": False, "dirty_paths": [], "note": ""}
    cases = {case["case_id"]: case["sha256"] for part in parts.values() for case in part}
    changes = {
        "recipe_sha256": sha256_of_json(recipe),
        "splits_sha256": sha256_of_file(at.layout.splits),
        "cases_sha256": sha256_of_json(cases),
        "data_gate": {"ok": True, "digest": "f" * 64},
        "provenance": {**record["provenance"], "git": git},
    }
    write_json(at.run / "run.json", {**record, **changes})


def write_gates(at: ModelLayout) -> None:
    """A verdict of every gate; the one on the model holds the numbers of its metrics."""
    write_verdict(make_verdict("data", "f" * 64, [], {}), at.layout.data_verdict)
    write_verdict(make_verdict("preflight", "f" * 64, [], {}), at.preflight_verdict)
    summary = read_json(at.metrics / "details.json")
    limit = {"metric": "mae_body_gy", "found": summary["mae_body_gy"], "wanted": "<= 4", "ok": True, "source": "a test"}
    details = {"limits": [limit], "candidate": [], "n_cases": summary["n_cases"]}
    metrics = verdict_as_json(make_verdict("metrics", "e" * 64, [], details))
    verdict = make_verdict("model", "f" * 64, [], {"cohort": "phantom", "model": MODEL, "metrics": metrics})
    write_verdict(verdict, at.model_verdict)


def write_lock(at: ModelLayout) -> None:
    """What DVC records of a repro, with training's folder in its cache."""
    root, listing = at.layout.root, []
    for file in sorted(path for path in at.run.rglob("*") if path.is_file()):
        listing.append({"md5": to_cache(root, file.read_bytes()), "relpath": file.relative_to(at.run).as_posix()})
    folder = to_cache(root, json.dumps(listing).encode(), ".dir")
    out = {"path": f"models/phantom/{MODEL}", "hash": "md5", "md5": folder}
    splits = {"params": {"params.yaml": {"splits": {"seed": 11}}}}
    tables = [
        {"path": path.relative_to(root).as_posix(), "hash": "md5", "md5": md5_of(path)}
        for path in sorted(at.metrics.glob("*.*"))
        if path != at.shortcuts
    ]
    stages = {
        "split@phantom": splits,
        f"train@phantom-{MODEL}": {"cmd": "doseledger train", "outs": [out]},
        f"evaluate@phantom-{MODEL}": {"cmd": "doseledger evaluate", "outs": tables},
    }
    write_json(root / "dvc.lock", {"schema": "2.0", "stages": stages})


def to_cache(root: Path, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    path = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5
