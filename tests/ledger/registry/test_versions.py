"""The registry on a small project of its own: a real training, a real DVC cache, a clone that fetches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gto.api
import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.runs import judge_again, write_shortcuts
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.cli.shared import Project
from doseledger.cli.train import parent_in
from doseledger.core.case import Case, write_npz
from doseledger.core.errors import BadInput, DoseledgerError, NotReady
from doseledger.core.files import read_json, read_yaml, sha256_of_file, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import load_settings
from doseledger.core.tables import CASES, SKIPPED, SPLITS, TEST_SET, write_table
from doseledger.evaluate.case import Yardsticks
from doseledger.evaluate.cohort import TestSet, evaluate_cohort
from doseledger.evaluate.pooling import EvaluatedRun, pool_runs
from doseledger.gates.verdict import make_verdict, write_verdict
from doseledger.learn.kinds import make_family, open_predictor, recipe_of
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.ledger.audit.anchors import keep_head, tag_anchors
from doseledger.ledger.audit.check import verify
from doseledger.ledger.audit.log import append_entry
from doseledger.ledger.provenance.stamp import run_provenance
from doseledger.ledger.registry import fetch
from doseledger.ledger.registry.criteria import Reproduction
from doseledger.ledger.registry.fetch import Fetched, check_version
from doseledger.ledger.registry.release import missing_for_version, open_release
from doseledger.ledger.registry.reproduce import Comparison, this_machine
from doseledger.ledger.registry.tag import Version, find_version
from doseledger.ledger.runs.recorded_run import recorded_run

# A training, DVC's import and its commands: about half a minute of CPU in all.
pytestmark = pytest.mark.slow

MakeCase = Callable[..., Case]
DVC = [sys.executable, "-m", "dvc"]
PARTS = {"case_0001": "train", "case_0002": "train", "case_0003": "val", "case_0004": "test", "case_0005": "test"}
# The stages of the shipped pipeline by name, with the files that the registry looks for, and no code.
PIPELINE = """
stages:
  ingest: {matrix: {cohort: ["${cohort}"]}, cmd: none, outs: ["data/cases/${item.cohort}"]}
  split:
    matrix: {cohort: ["${cohort}"]}
    cmd: none
    deps: ["data/cases/${item.cohort}/cases.csv", "validation/cohorts/${item.cohort}/test_set.csv"]
    outs: ["data/splits/${item.cohort}.csv"]
  check_data:
    matrix: {cohort: ["${cohort}"]}
    cmd: none
    deps: ["data/splits/${item.cohort}.csv"]
    outs:
      - reports/verdicts/${item.cohort}/data.json: {cache: false}
      - reports/verdicts/${item.cohort}/data_findings.json: {cache: false}
  drift:
    matrix: {cohort: ["${cohort}"]}
    cmd: none
    deps: ["data/splits/${item.cohort}.csv"]
    outs:
      - reports/verdicts/${item.cohort}/drift.json: {cache: false}
      - reports/verdicts/${item.cohort}/drift_findings.json: {cache: false}
  preflight:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["data/splits/${item.cohort}.csv"]
    outs:
      - reports/verdicts/${item.cohort}/${item.model}/preflight.json: {cache: false}
      - reports/verdicts/${item.cohort}/${item.model}/preflight_findings.json: {cache: false}
  train:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: [src/model.py, "data/splits/${item.cohort}.csv"]
    outs: ["models/${item.cohort}/${item.model}"]
  predict:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["models/${item.cohort}/${item.model}/checkpoints/best.ckpt"]
    outs: ["data/predictions/${item.cohort}/${item.model}"]
  evaluate:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["data/predictions/${item.cohort}/${item.model}"]
    outs:
      - data/gamma/${item.cohort}/${item.model}
      - reports/metrics/${item.cohort}/${item.model}/cases.csv: {cache: false}
      - reports/metrics/${item.cohort}/${item.model}/dvh.csv: {cache: false}
      - reports/metrics/${item.cohort}/${item.model}/goals.csv: {cache: false}
      - reports/metrics/${item.cohort}/${item.model}/details.json: {cache: false}
      - reports/metrics/${item.cohort}/${item.model}/calibration.json: {cache: false}
    metrics:
      - reports/metrics/${item.cohort}/${item.model}/summary.json: {cache: false}
  shortcuts:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["data/predictions/${item.cohort}/${item.model}"]
    outs:
      - reports/metrics/${item.cohort}/${item.model}/shortcuts.json: {cache: false}
  judge:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["reports/metrics/${item.cohort}/${item.model}/details.json"]
    outs:
      - reports/verdicts/${item.cohort}/${item.model}/model.json: {cache: false}
      - reports/verdicts/${item.cohort}/${item.model}/model_findings.json: {cache: false}
  report:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["reports/metrics/${item.cohort}/${item.model}/details.json", validation/cohorts]
    outs:
      - reports/html/${item.cohort}/${item.model}/report.html
      - reports/pdf/${item.cohort}/${item.model}/report.pdf
      - reports/figures/${item.cohort}/${item.model}
  gate:
    matrix: {cohort: ["${cohort}"], model: "${models}"}
    cmd: none
    deps: ["reports/verdicts/${item.cohort}/${item.model}/model.json"]
"""
TINY = {"name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8}
GOALS = """name: prostate_sib
protocol: prostate_sib
title: A test
goals:
  - {structure: PTV70, statistic: V66.5Gy, operator: ">=", limit: 98, acceptable: 95, unit: "%", source: a test}
"""


def quiet(_: str) -> None:
    """Progress that nobody reads."""


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dvc(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "ITERATIVE_DO_NOT_TRACK": "1"}
    done = subprocess.run([*DVC, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commit_all(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)


def write_project(root: Path, repository: Path) -> None:
    """The files of a project that Git holds, committed."""
    params = read_yaml(repository / "params.yaml")
    # Without its prior: on it even this network reaches what a candidate must, as the dose hangs on distances alone.
    small = dict(params["dose_unet"], network=TINY, prior="none")
    small["sampling"] = {"patch_zyx": [16, 24, 32], "patches_per_case": 1}
    small["fit"] = {"max_epochs": 1, "validate_every": 1}
    small["loader"] = {"workers": 0}
    small["inputs"] = {"physics": []}
    # YAML holds JSON.
    write_json(root / "params.yaml", {**params, "models": ["dose_unet"], "bases": {}, "dose_unet": small})
    write_text(root / "dvc.yaml", PIPELINE)
    write_text(root / "src/model.py", "DEPTH = 1\n")
    write_text(root / "requirements.lock", "numpy==2\n")
    write_text(root / "docs/page.md", "# A page\n")
    write_text(root / ".gitignore", "/.doseledger/\n__pycache__/\n")
    layout = Layout(root, "phantom")
    shutil.copytree(repository / "validation/cohorts", layout.cohorts)
    write_text(layout.cohorts / "phantom/goals.yaml", GOALS)
    shutil.copyfile(repository / "validation/exit_criteria.yaml", layout.exit_criteria)
    limits = [{"metric": "mae_body_gy", "operator": "<=", "limit": 100.0, "source": "a test"}]
    thresholds = layout.cohorts / "phantom/thresholds.yaml"
    write_json(thresholds, {**read_yaml(thresholds), "metrics": {"dose_unet": limits}})
    write_table(layout.test_set, pd.DataFrame(columns=list(TEST_SET.columns)), TEST_SET)
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Ada Example")
    git(root, "config", "user.email", "ada@example.org")
    dvc(root, "init", "-q")
    dvc(root, "config", "core.analytics", "false")
    commit_all(root, "the project")


def write_cases(root: Path, make_case: MakeCase) -> None:
    folder, rows, dealt = root / "data/cases/phantom", [], []
    for seed, (case_id, part) in enumerate(PARTS.items()):
        case = make_case(case_id, seed=seed, absent=())
        case.save(folder / f"{case_id}.npz")
        shared = {
            "case_id": case_id, "pseudonym": case.meta["pseudonym"], "group": "A",
            "sha256": sha256_of_file(folder / f"{case_id}.npz"),
        }  # fmt: skip
        rows.append({**shared, "site": "A", "source_sha256": case.meta["source_sha256"], "n_warnings": 0})
        dealt.append({**shared, "repeat": 0, "fold": 0, "split": part})
    write_table(folder / "cases.csv", pd.DataFrame(rows), CASES)
    write_table(folder / "skipped.csv", pd.DataFrame(columns=list(SKIPPED.columns)), SKIPPED)
    write_table(root / "data/splits/phantom.csv", pd.DataFrame(dealt), SPLITS)


def run_pipeline(root: Path) -> None:
    """Train, predict, evaluate and judge as the stages do, in this process."""
    settings, layout = load_settings(root / "params.yaml"), Layout(root, "phantom")
    at = layout.model("dose_unet")
    write_verdict(make_verdict("data", "d" * 64, [], {}), layout.data_verdict)
    write_verdict(make_verdict("drift", "c" * 64, [], {}), layout.drift_verdict)
    write_verdict(make_verdict("preflight", "e" * 64, [], {}), at.preflight_verdict)
    recipe = recipe_of(settings, "dose_unet")
    provenance = run_provenance(root, ["doseledger", "train"], layout.packages)
    training = TrainingRun(
        model="dose_unet", recipe=recipe, lr=0.01, seed=1, fold=0, repeat=0,
        token=read_json(layout.data_verdict.token), provenance=provenance, family=make_family(recipe, None),
    )  # fmt: skip
    train(training, Places(layout.cases, layout.splits, at.run, root / ".doseledger/resume"), fresh=True, tell=quiet)
    part = SplitPart(layout.cases, layout.splits, "test", 0, 0)
    predict_part(open_predictor(at.checkpoint, recipe), part, at.predictions, tell=quiet)
    evaluate = settings.evaluate.model_copy(update={"verify_gamma_points": 1})
    yardsticks = Yardsticks(load_protocol(layout.protocol), load_goals(layout.goals), evaluate)
    test_set = TestSet(layout.cases, at.predictions, layout.splits, "test", 0, 0)
    evaluate_cohort(test_set, at.metrics, yardsticks, gamma_out=at.gamma, tell=quiet)
    write_json(at.metrics / "calibration.json", {})
    write_shortcuts(at, ["case_0004", "case_0005"])
    assert judge_again(at).ok
    record = read_json(at.run / "run.json")
    write_text(at.html, f"<html>{record['cases_sha256']} {record['splits_sha256']}</html>")
    write_text(at.pdf, "%PDF-1.7\n")
    write_text(at.figures / "training.svg", "<svg/>")


@dataclass(frozen=True)
class Templates:
    """Projects that the first test that needs one makes, and the others copy."""

    folder: Path

    @property
    def finished(self) -> Path:
        """A finished run that is not committed."""
        return self.folder / "finished"

    @property
    def registered(self) -> Path:
        """The same, committed, registered as v0.1.0 and pushed to a remote."""
        return self.folder / "registered"

    @property
    def store(self) -> Path:
        """That remote."""
        return self.folder / "store"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


def enter(root: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.chdir(root)
    patch.setenv("DVC_ROOT", str(root))
    return root


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """What one of these tests sets is put back: later tests of this process count on it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def finished(
    tmp_path: Path, templates: Templates, make_case: MakeCase, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project whose run is finished and not committed; it is the working folder."""
    made = templates.finished
    if not made.is_dir():
        torch.set_num_threads(1)
        write_project(made, repository)
        write_cases(made, make_case)
        run_pipeline(made)
        dvc(made, "commit", "-q", "-f")
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    # The commands below run in this process, and the number of threads is a part of what they record.
    torch.set_num_threads(1)
    return enter(tmp_path / "project", monkeypatch)


@pytest.fixture
def committed(finished: Path) -> Path:
    """The same, committed: it can be registered."""
    commit_all(finished, "a run")
    return finished


@pytest.fixture
def registered(templates: Templates, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, registered as v0.1.0; its data lie in a remote too."""
    made = templates.registered
    if not made.is_dir():
        commit_all(finished, "a run")
        call(*REGISTER)
        # After the tag: what a version is fetched from is what this clone says now, not what the tag's commit said.
        dvc(finished, "remote", "add", "-d", "store", str(templates.store))
        commit_all(finished, "a remote")
        dvc(finished, "push", "-q")
        shutil.copytree(finished, made, symlinks=True)
    shutil.copytree(made, tmp_path / "registered", symlinks=True)
    return enter(tmp_path / "registered", monkeypatch)


def call(*words: str) -> str:
    """Call a command and return what it printed; its refusals are raised as in the program."""
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def refusal(*words: str) -> str:
    with pytest.raises(DoseledgerError) as caught:
        call(*words)
    return str(caught.value)


def missing(root: Path) -> list[str]:
    return missing_for_version(open_release(Layout(root, "phantom"), "dose_unet"))


REGISTER = ("registry", "register", "dose_unet", "--version", "v0.1.0")


def test_a_finished_run_that_is_not_committed_is_refused_with_all_that_is_missing(finished: Path) -> None:
    told = refusal(*REGISTER)
    assert told.startswith("dose_unet@v0.1.0 can't be registered, 2 thing(s) are missing:")
    assert "the tree is not clean" in told
    assert "dvc.lock is not committed, so no commit names the checkpoint" in told
    assert git(finished, "tag") == ""


def test_a_committed_run_is_registered_by_a_tag_that_says_what_it_is_made_of(committed: Path) -> None:
    assert missing(committed) == []
    assert "dose_unet@v0.1.0 registered on commit" in call(*REGISTER)
    version = find_version(committed, "dose_unet@v0.1.0")
    best = committed / "models/phantom/dose_unet/checkpoints/best.ckpt"
    assert version.commit == git(committed, "rev-parse", "HEAD").strip()
    assert version.record["checkpoint"]["sha256"] == sha256_of_file(best)
    assert version.record["run"]["commit"] == git(committed, "rev-parse", "HEAD~").strip()
    summary = read_json(committed / "reports/metrics/phantom/dose_unet/details.json")
    assert version.record["metrics"]["summary"] == summary
    assert set(version.record["verdicts"]) == {"data", "preflight", "model"}
    assert version.record["verdicts"]["data"] == {"ok": True, "digest": "d" * 64}
    assert version.record["reproduced"]["identical"] is True
    assert version.by == "Ada Example <ada@example.org>"
    assert any(part["title"] == "Limitations" for part in version.record["card"])


def test_gto_itself_reads_the_versions_and_stages(registered: Path) -> None:
    call("registry", "promote", "dose_unet@v0.1.0", "--stage", "research")
    shown = gto.api.show(str(registered))["dose_unet"]
    assert shown["version"] == "v0.1.0"
    assert shown["stage"] == {"research": "v0.1.0"}


def test_the_tag_anchors_the_audit_log_and_a_forged_line_is_found(committed: Path) -> None:
    call(*REGISTER)
    call("registry", "promote", "dose_unet@v0.1.0", "--stage", "research")
    assert len(tag_anchors(committed)) == 2
    told = call("audit", "verify")
    assert "the log holds" in told
    assert "every entry is anchored" in told
    log = committed / ".doseledger/audit.jsonl"
    by_tags = verify(log, tag_anchors(committed))
    # A tag is made before its command's last entry, whose head is kept under a ref.
    assert (by_tags.ok, by_tags.anchored) == (True, 3)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:1]))
    assert "saw 3 entries, here are 1: the log was cut off" in CliRunner().invoke(app, ["audit", "verify"]).output
    log.write_text("".join([lines[0].replace("ada@", "eve@"), *lines[1:]]))
    told = refusal("registry", "promote", "dose_unet@v0.1.0", "--stage", "candidate")
    assert "[audit_log_holds] the audit log does not hold" in told


def test_a_kept_head_alone_stops_a_promotion_on_a_log_that_was_cut(registered: Path) -> None:
    log = registered / ".doseledger/audit.jsonl"
    keep_head(registered, log)
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    assert verify(log, tag_anchors(registered)).ok
    told = refusal("registry", "promote", "dose_unet@v0.1.0", "--stage", "research")
    assert "[audit_log_holds] the audit log does not hold" in told
    assert "entry 2 is not the one that refs/doseledger/audit saw" in told


def test_kept_heads_of_another_log_say_nothing_of_this_one(committed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    for number in range(9):
        append_entry(other, {"event": "began", "number": number})
    keep_head(committed, other)
    assert "dose_unet@v0.1.0 registered on commit" in call(*REGISTER)


def test_the_audit_log_says_who_registered_which_checkpoint(registered: Path) -> None:
    shown = json.loads(call("audit", "show", "--command", "registry register", "--status", "done", "--json"))
    best = registered / "models/phantom/dose_unet/checkpoints/best.ckpt"
    assert shown[-1]["registered"]["checkpoint_sha256"] == sha256_of_file(best)
    assert shown[-1]["who"] == {"name": "Ada Example", "email": "ada@example.org"}


def test_a_version_is_registered_once_and_a_commit_holds_one(registered: Path) -> None:
    git(registered, "checkout", "-q", "dose_unet@v0.1.0")
    assert "dose_unet@v0.1.0 is registered already, and a version never changes" in refusal(*REGISTER)
    told = refusal("registry", "register", "dose_unet", "--version", "v0.2.0")
    assert "this commit is dose_unet@v0.1.0 already" in told
    assert "is no version's name" in refusal("registry", "register", "dose_unet", "--version", "1.0")
    assert "the pipeline trains no 'other'" in refusal("registry", "register", "other", "--version", "v0.1.0")


def test_code_that_changed_since_the_run_is_refused_and_a_page_of_docs_is_not(committed: Path) -> None:
    write_text(committed / "docs/page.md", "# A better page\n")
    commit_all(committed, "a page")
    assert missing(committed) == []
    write_text(committed / "src/other.py", "WIDTH = 2\n")
    commit_all(committed, "code")
    (told,) = missing(committed)
    assert "the code here is not the run's: 1 file(s) differ from commit" in told
    assert "src/other.py" in told


def test_the_out_of_a_stage_elsewhere_in_the_project_is_no_code(finished: Path) -> None:
    stage = {"cmd": "none", "wdir": "../..", "outs": [{"data/raw/phantom.csv": {"cache": False}}]}
    write_json(finished / "data/raw/dvc.yaml", {"stages": {"phantom": stage}})
    git(finished, "add", "data/raw/dvc.yaml")
    write_text(finished / "data/raw/phantom.csv", "case_id,sha256\n")
    dvc(finished, "commit", "-q", "-f", "data/raw/dvc.yaml:phantom")
    commit_all(finished, "a run with its list of raw cases")
    (told,) = missing(finished)
    assert "data/raw/dvc.yaml" in told
    assert "phantom.csv" not in told


def test_files_that_are_not_those_of_dvc_lock_are_refused(committed: Path) -> None:
    write_text(committed / "src/model.py", "DEPTH = 2\n")
    commit_all(committed, "code of a stage")
    told = "\n".join(missing(committed))
    assert (
        "the files here are not those that dvc.lock records: train@phantom-dose_unet: changed deps: src/model.py"
        in told
    )


def test_an_untracked_file_is_no_clean_tree(committed: Path) -> None:
    write_text(committed / "src/new.py", "")
    (told,) = missing(committed)
    assert "the tree is not clean, 1 file(s) changed or unknown to Git: src/new.py" in told


def test_a_file_that_was_renamed_is_told_by_both_its_names(committed: Path) -> None:
    git(committed, "mv", "docs/page.md", "docs/other.md")
    (told,) = missing(committed)
    assert "2 file(s) changed or unknown to Git: docs/other.md, docs/page.md; commit them" in told


def test_a_run_of_a_dirty_tree_a_failed_gate_and_a_lost_report_are_all_told_at_once(committed: Path) -> None:
    run = committed / "models/phantom/dose_unet/run.json"
    record = read_json(run)
    record["provenance"]["git"] |= {"dirty": True, "dirty_paths": ["src/model.py"], "note": "1 tracked file differs"}
    write_json(run, record)
    write_json(committed / "reports/verdicts/phantom/dose_unet/model.json", {"ok": False, "digest": "a" * 64})
    (committed / "reports/html/phantom/dose_unet/report.html").unlink()
    told = refusal(*REGISTER)
    for words in ("DIRTY TREE", "model.json: found ok: false", "report.html: found no file", "the tree is not clean"):
        assert words in told
    assert git(committed, "tag") == ""


def test_a_model_that_takes_a_shortcut_is_refused(committed: Path) -> None:
    at = Layout(committed, "phantom").model("dose_unet")
    write_shortcuts(at, ["case_0004", "case_0005"], mae_gy=20.0)
    assert not judge_again(at).ok
    told = "\n".join(missing(committed))
    assert "[verdicts] verdicts/model.json: found ok: false; dose_unet: distance_mae_ratio is 5" in told


def test_a_stage_without_a_result_is_told(committed: Path) -> None:
    lock = read_yaml(committed / "dvc.lock")
    for stage in ("judge", "gate"):
        del lock["stages"][f"{stage}@phantom-dose_unet"]
    write_json(committed / "dvc.lock", lock)
    commit_all(committed, "without the last word")
    told = "\n".join(missing(committed))
    assert "dvc.lock knows no result of judge@phantom-dose_unet, gate@phantom-dose_unet; run `dvc repro`" in told


def test_a_prediction_that_the_checkpoint_does_not_make_again_is_refused(finished: Path) -> None:
    from doseledger.core.case import write_npz

    path = finished / "data/predictions/phantom/dose_unet/case_0004.npz"
    import numpy as np

    with np.load(path) as npz:
        arrays = dict(npz)
    arrays["dose_gy"] = arrays["dose_gy"] + np.float32(0.5)
    path.unlink()
    write_npz(path, arrays)
    dvc(finished, "commit", "-q", "-f")
    commit_all(finished, "a forged prediction")
    told = refusal(*REGISTER)
    assert "case_0004 predicted again differs by 0.5 Gy from its recorded prediction, wanted at most 0.001" in told


def test_stages_are_refused_with_every_criterion_that_is_not_met(registered: Path) -> None:
    told = refusal("registry", "promote", "dose_unet@v0.1.0", "--stage", "frozen")
    assert told.startswith("dose_unet@v0.1.0 can't be given the stage frozen, 5 thing(s) are missing:")
    for check in ("holds_stage", "test_set_locked", "test_cases", "better_than_baseline", "signed_off"):
        assert f"[{check}] " in told
    told = refusal("registry", "promote", "dose_unet@v0.1.0", "--stage", "candidate")
    assert "[clinical_target] mae_above_10_percent_gy is" in told
    assert "gamma_3_3_global_percent is" in told
    assert "wanted >= 95" in told
    assert "[holds_stage] it was never given the stage research" in told
    assert "no stage 'clinical' in the exit criteria" in refusal(
        "registry", "promote", "dose_unet@v0.1.0", "--stage", "clinical"
    )
    call("registry", "promote", "dose_unet@v0.1.0", "--stage", "research")
    assert "holds the stage research already" in refusal(
        "registry", "promote", "dose_unet@v0.1.0", "--stage", "research"
    )
    shown = call("registry", "show", "dose_unet@v0.1.0")
    assert re.search(r"Stages: research \(Ada Example <ada@example\.org>, \d{4}-\d\d-\d\d\)\.", shown)
    assert "- research: held" in shown
    assert "- candidate: criteria not met:" in shown
    assert "dose_unet@v0.1.0  " in call("registry", "show")


def test_a_signature_counts_when_another_person_gives_it(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = ("registry", "sign-off", "dose_unet@v0.1.0", "--statement", "worst case looked at")
    call(*sign)
    frozen = ("registry", "promote", "dose_unet@v0.1.0", "--stage", "frozen")
    assert "[signed_off] signed off by 0 person(s) other than Ada Example <ada@example.org>, wanted 1" in refusal(
        *frozen
    )
    git(registered, "config", "user.email", "grace@example.org")
    assert "a signature without a statement is none" in refusal(*sign[:-1], " ")
    call(*sign)
    assert "[signed_off]" not in refusal(*frozen)


def test_a_retired_version_is_neither_promoted_nor_fetched(registered: Path, tmp_path: Path) -> None:
    call("registry", "retire", "dose_unet@v0.1.0", "--why", "femurs swapped")
    assert "retired: femurs swapped" in call("registry", "show")
    assert "dose_unet@v0.1.0 is retired (femurs swapped)" in refusal(
        "registry", "promote", "dose_unet@v0.1.0", "--stage", "research"
    )
    assert "dose_unet@v0.1.0 is retired (femurs swapped)" in refusal(
        "registry", "get", "dose_unet@v0.1.0", "--out", str(tmp_path / "model")
    )


def test_nobody_promotes_or_retires_a_version(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(registered, "config", "--unset", "user.email")
    # Neither the settings of whoever runs the tests, nor those of the machine.
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("GIT_AUTHOR_EMAIL", raising=False)
    tags = git(registered, "tag")
    promote = ("registry", "promote", "dose_unet@v0.1.0", "--stage", "research")
    for words in (promote, ("registry", "retire", "dose_unet@v0.1.0", "--why", "femurs swapped")):
        assert "Git does not know who works here; set `git config user.name`" in refusal(*words)
    assert git(registered, "tag") == tags


@pytest.fixture
def clone(registered: Path, templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone of a project whose version lies in a remote of this test's own, and in no cache."""
    there = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(registered), str(there))
    shutil.copytree(templates.store, tmp_path / "store")
    dvc(there, "remote", "modify", "--local", "store", "url", str(tmp_path / "store"))
    return enter(there, monkeypatch)


def test_a_fresh_clone_fetches_a_version_and_predicts_the_same_to_the_bit(
    clone: Path, registered: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(2)
    model, cases = tmp_path / "model", registered / "data/cases/phantom"
    told = call("registry", "get", "dose_unet@v0.1.0", "--out", str(model), "--check", str(cases))
    assert "2 cases predicted again: 2 to the bit" in told
    trained = registered / "models/phantom/dose_unet/checkpoints/best.ckpt"
    assert sha256_of_file(model / "best.ckpt") == sha256_of_file(trained)
    card = (model / "MODEL_CARD.md").read_text()
    assert card.startswith("# dose_unet@v0.1.0\n")
    assert "## Intended use" in card
    assert read_json(model / "version.json")["checkpoint"]["sha256"] == sha256_of_file(trained)
    assert not (clone / "models/phantom/dose_unet").exists()


@pytest.mark.parametrize(
    ("here", "difference_gy", "told"),
    [
        ("another", 0.0005, None),
        ("another", 0.002, "does not predict what it did: case_0004 by 0.002 Gy, wanted at most 0.001 Gy"),
        (
            "the same",
            0.00001,
            "does not predict what it did: case_0004 by 1e-05 Gy, wanted at most nothing (same machine)",
        ),
    ],
)
def test_a_difference_counts_to_the_bit_on_the_same_machine_and_within_a_limit_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: str, difference_gy: float, told: str | None
) -> None:
    machine = {"processor": "a", "device": "CPU", "threads": torch.get_num_threads(), "torch": "2"}
    record = {"reproduced": {"machine": machine, "identical": True}, "predictions": {"path": "predictions"}}
    version = Version("dose_unet", "v0.1.0", "a" * 40, "", "", record)
    fetched = Fetched(tmp_path / "best.ckpt", tmp_path / "card.md", tmp_path / "version.json")
    write_text(tmp_path / "cases/case_0004.npz", "")
    monkeypatch.setattr(fetch, "this_machine", lambda: {**machine, "processor": "a" if here == "the same" else "b"})
    monkeypatch.setattr(fetch, "_get_prediction", lambda *_: True)
    monkeypatch.setattr(fetch, "predict_again", lambda *_: [Comparison("case_0004", False, difference_gy)])
    reproduction = Reproduction(max_difference_gy=0.001, source="a test")

    def check() -> list[Comparison]:
        return check_version(tmp_path, version, fetched, tmp_path / "cases", reproduction, quiet)

    if told is None:
        assert check()[0].max_difference_gy == difference_gy
    else:
        with pytest.raises(BadInput, match=re.escape(told)):
            check()


def test_a_machine_held_to_older_instructions_counts_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_machine()
    assert here == this_machine()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert this_machine()["instructions"] == [*here["instructions"], "ONEDNN_MAX_CPU_ISA=SSE41"]


def test_cases_without_a_recorded_prediction_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = {"processor": "a", "device": "CPU", "threads": torch.get_num_threads(), "torch": "2"}
    record = {"reproduced": {"machine": machine, "identical": True}, "predictions": {"path": "predictions"}}
    version = Version("dose_unet", "v0.1.0", "a" * 40, "", "", record)
    fetched = Fetched(tmp_path / "best.ckpt", tmp_path / "card.md", tmp_path / "version.json")
    for name in ("case_0001", "case_0002", "case_0004"):
        write_text(tmp_path / f"cases/{name}.npz", "")
    monkeypatch.setattr(fetch, "_get_prediction", lambda root, version, case_id, folder: case_id == "case_0004")
    monkeypatch.setattr(fetch, "predict_again", lambda *_: [Comparison("case_0004", True, 0.0)])
    told: list[str] = []
    reproduction = Reproduction(max_difference_gy=0.001, source="a test")
    check_version(tmp_path, version, fetched, tmp_path / "cases", reproduction, told.append)
    assert told[0] == "2 of 3 cases have no recorded prediction to compare with: case_0001, case_0002"


def test_the_cache_serves_where_there_is_no_remote(registered: Path, templates: Templates, tmp_path: Path) -> None:
    dvc(registered, "remote", "remove", "store")
    call("registry", "get", "dose_unet@v0.1.0", "--out", str(tmp_path / "model"))
    assert (tmp_path / "model/best.ckpt").is_file()


def test_another_case_under_the_same_name_proves_nothing_and_is_refused(
    clone: Path, registered: Path, tmp_path: Path, make_case: MakeCase
) -> None:
    cases = tmp_path / "cases"
    make_case("case_0004", seed=99).save(cases / "case_0004.npz")
    get = ("registry", "get", "dose_unet@v0.1.0", "--out", str(tmp_path / "model"), "--check", str(cases))
    assert "not the case that was predicted (other bytes)" in refusal(*get)
    (cases / "case_0004.npz").unlink()
    assert "none of 0 cases was predicted with dose_unet@v0.1.0" in refusal(*get)


def test_a_checkpoint_that_was_changed_in_the_remote_is_refused(clone: Path, tmp_path: Path) -> None:
    version = find_version(clone, "dose_unet@v0.1.0")
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file() and sha256_of_file(file) == version.record["checkpoint"]["sha256"]:
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[:-1] + b"?")
    told = refusal("registry", "get", "dose_unet@v0.1.0", "--out", str(tmp_path / "model"))
    assert "the checkpoint that came has SHA256" in told or "is neither in the cache nor in a remote" in told
    assert not (tmp_path / "model/best.ckpt").exists()


def test_a_clone_without_the_remote_says_how_to_name_it(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    told = refusal("registry", "get", "dose_unet@v0.1.0", "--out", str(tmp_path / "model"))
    assert "best.ckpt is neither in the cache nor in a remote" in told
    assert "`dvc push` where the model was registered" in told


def test_a_training_begins_with_a_version_that_is_fetched_once_and_compared_each_time(registered: Path) -> None:
    settings = load_settings(registered / "params.yaml")
    at = Project(Layout(registered, "phantom"), settings)
    recipe = recipe_of(settings, "dose_unet")
    assert parent_in(at, "dose_fine", recipe) is None
    recipe = recipe.model_copy(update={"init_from": "dose_unet@v0.1.0"})
    version = find_version(registered, "dose_unet@v0.1.0")
    kept = registered / ".doseledger/parents/dose_unet@v0.1.0/best.ckpt"
    for how in ("absent", "there", "damaged"):
        if how == "damaged":
            kept.write_bytes(kept.read_bytes()[:-1])
        parent = parent_in(at, "dose_fine", recipe)
        assert parent is not None
        (line,) = parent.line
        assert (line.name, line.cohort, line.sha256) == (
            "dose_unet@v0.1.0", "phantom", version.record["checkpoint"]["sha256"],
        )  # fmt: skip
        assert sorted(line.trained_on) == ["case_0001", "case_0002"]
        assert sha256_of_file(kept) == line.sha256
    assert [path.name for path in kept.parents[1].iterdir()] == ["dose_unet@v0.1.0"]
    with pytest.raises(DoseledgerError, match=r"dose_unet@v9\.0\.0 is not registered"):
        parent_in(at, "dose_fine", recipe.model_copy(update={"init_from": "dose_unet@v9.0.0"}))
    with pytest.raises(BadInput, match="dose_fine: init_from names dose_dream, neither a model that is trained"):
        parent_in(at, "dose_fine", recipe.model_copy(update={"init_from": "dose_dream"}))


def test_runs_of_other_revisions_are_pooled_by_name(registered: Path, tmp_path: Path) -> None:
    assert "two of the runs are of one and the same checkpoint" in refusal("pool", "HEAD", "dose_unet@v0.1.0")
    assert "dream: no folder of tables, no experiment, tag, branch or commit" in refusal("pool", "HEAD", "dream")
    assert "has no reports/metrics/phantom/dose_fine/cases.csv" in refusal("pool", "HEAD", "--model", "dose_fine")
    at = Layout(registered, "phantom").model("dose_unet")
    first = recorded_run(registered, at, "dose_unet@v0.1.0", tmp_path / "first")
    table = pd.read_csv(first.metrics / "cases.csv")
    # Another fold: its own model on cases of its own.
    other = table.assign(case_id=["case_0008", "case_0009"], case_sha256=["8" * 64, "9" * 64])
    write_text(tmp_path / "second/cases.csv", other.assign(checkpoint_sha256="f" * 64).to_csv(index=False))
    for case_id in other["case_id"]:
        meta = json.dumps({"trained_on": [], "selected_on": []})
        write_npz(tmp_path / f"second/{case_id}.npz", {"meta": np.asarray(meta)})
    second = EvaluatedRun(tmp_path / "second", tmp_path / "second")
    found = pool_runs([first, second], np.random.default_rng(1))
    assert (found["kind"], found["n_runs"], found["n_cases"]) == ("folds", 2, 4)
    # What the checkpoint was trained on is refused as it is by the predictions' own word.
    trained = sha256_of_file(at.layout.cases / "case_0001.npz")
    table.loc[0, ["case_id", "case_sha256"]] = ["case_0001", trained]
    write_text(first.metrics / "cases.csv", table.to_csv(index=False))
    with pytest.raises(BadInput, match=r"the model of dose_unet@v0\.1\.0 was trained or selected on case_0001"):
        pool_runs([first, second], np.random.default_rng(1))
    (tmp_path / "first/best.ckpt").write_bytes(b"another")
    with pytest.raises(BadInput, match="evaluated with another checkpoint than"):
        pool_runs([first, second], np.random.default_rng(1))


def test_a_version_that_nobody_registered_is_told_with_those_that_are(registered: Path) -> None:
    get = ("registry", "get", "dose_unet@v9.0.0", "--out", "model")
    assert "dose_unet@v9.0.0 is not registered; registered are: dose_unet@v0.1.0" in refusal(*get)


def test_a_tag_that_another_program_made_is_no_version_of_ours(registered: Path) -> None:
    git(registered, "tag", "-a", "dose_unet@v3.0.0", "-m", "by hand")
    with pytest.raises(DoseledgerError, match="holds no record of `doseledger registry register`"):
        find_version(registered, "dose_unet@v3.0.0")


def test_a_stage_tag_that_was_made_by_hand_gives_no_stage(registered: Path) -> None:
    commit = git(registered, "rev-parse", "dose_unet@v0.1.0^{commit}").strip()
    git(registered, "tag", "-a", "dose_unet#research#1", "-m", "by hand", commit)
    record = {"format_version": 1, "model": "dose_unet", "version": "v0.1.0", "stage": "research"}
    git(registered, "tag", "-a", "dose_unet#candidate#1", "-m", f"by hand\n\nrecord:\n{json.dumps(record)}", commit)
    assert find_version(registered, "dose_unet@v0.1.0").promotions == ()
    told = refusal("registry", "promote", "dose_unet@v0.1.0", "--stage", "candidate")
    assert "[holds_stage] it was never given the stage research" in told


def test_a_tag_that_says_other_than_its_commit_is_refused(registered: Path) -> None:
    message = git(registered, "for-each-ref", "refs/tags/dose_unet@v0.1.0", "--format=%(contents)")
    head, _, text = message.partition("\nrecord:\n")
    record = json.loads(text)
    record["version"] = "v0.2.0"
    record["metrics"]["summary"]["mae_above_10_percent_gy"] = 1.0
    git(registered, "tag", "-a", "dose_unet@v0.2.0", "-m", f"{head}\nrecord:\n{json.dumps(record)}")
    told = refusal("registry", "promote", "dose_unet@v0.2.0", "--stage", "research")
    assert "tag dose_unet@v0.2.0 does not say what its commit holds: " in told
    assert "details.json has other content" in told
    del record["verdict_files"]["model"]
    git(registered, "tag", "-f", "-a", "dose_unet@v0.2.0", "-m", f"{head}\nrecord:\n{json.dumps(record)}")
    assert "no file is named for the verdict model" in refusal("registry", "show", "dose_unet@v0.2.0")
    git(registered, "tag", "-f", "-a", "dose_unet@v0.1.0", "-m", message)
    assert "its record is of commit" in refusal("registry", "show", "dose_unet@v0.1.0")


def test_outside_a_git_repository_there_is_no_registry(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no Git repository, and versions are Git tags"):
        find_version(tmp_path, "dose_unet@v0.1.0")
