"""Tables, verdicts and weights held to dvc.lock: changed by one byte they are refused, whoever reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.pipeline import COHORT, MODELS, Resolved, resolve_pipeline
from fixtures.projects import copy_cohorts, enter_project

from doseledger.cli import shared
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_json, write_text
from doseledger.ledger.provenance.outs import (
    OF_A_RUN,
    READS,
    changed_outs,
    full_names,
    md5_of,
    recorded_of,
    recorded_outs,
    require_recorded,
)

DVC = [sys.executable, "-m", "dvc"]
CASES = "reports/metrics/phantom/dose_unet/cases.csv"
EVALUATE = "evaluate@phantom-dose_unet"
# As the project's stages: a table that is not cached, a folder of weights, and a stage that reads both while
# `dvc repro` is still at work.
LOOK = (
    "from pathlib import Path; import sys; "
    "from doseledger.ledger.provenance.outs import recorded_of, changed_outs; "
    "names = ['train@phantom-dose_unet', 'evaluate@phantom-dose_unet']; "
    "print(sorted(recorded_of(Path('dvc.lock'), names))); "
    "sys.exit(len(changed_outs(Path('.'), names)))"
)
PIPELINE = {
    "stages": {
        "train": {
            "matrix": {"model": ["phantom-dose_unet"]},
            "cmd": "mkdir -p models/phantom/dose_unet/checkpoints && cp seed models/phantom/dose_unet/a.csv"
            " && cp seed models/phantom/dose_unet/checkpoints/b.ckpt",
            "deps": ["seed"],
            "outs": ["models/phantom/dose_unet"],
        },
        "evaluate": {
            "matrix": {"model": ["phantom-dose_unet"]},
            "cmd": f"mkdir -p $(dirname {CASES}) && cp seed {CASES}",
            "deps": ["models/phantom/dose_unet"],
            "outs": [{CASES: {"cache": False}}],
        },
        "judge": {
            "matrix": {"model": ["phantom-dose_unet"]},
            "cmd": f'{sys.executable} -c "{LOOK}" > seen',
            "deps": [CASES],
            "outs": [{"seen": {"cache": False}}],
        },
    }
}


def write_lock(root: Path, outs: dict[str, str], stage: str = EVALUATE) -> None:
    listed = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in outs.items()]
    write_json(root / "dvc.lock", {"schema": "2.0", "stages": {stage: {"cmd": "x", "outs": listed}}})


def test_a_table_of_one_other_byte_is_refused_with_stage_and_cure(tmp_path: Path) -> None:
    path = tmp_path / CASES
    write_text(path, "case_id,mae_body_gy\ncase_0001,2.0\n")
    write_lock(tmp_path, {CASES: md5_of(path)})
    require_recorded(tmp_path, READS["judge"], "phantom", "dose_unet")
    write_text(path, "case_id,mae_body_gy\ncase_0001,1.0\n")
    wanted = (
        r"changed since the stage that made it ran: reports/metrics/phantom/dose_unet/cases\.csv has the MD5 .{12}…, "
        r".{12}… was recorded of evaluate@phantom-dose_unet: never edit what a stage wrote; make it again with "
        r"`dvc repro --force --single-item evaluate@phantom-dose_unet`"
    )
    with pytest.raises(NotReady, match=wanted):
        require_recorded(tmp_path, READS["judge"], "phantom", "dose_unet")
    # Another model's, and a stage that does not read it, go on.
    require_recorded(tmp_path, READS["judge"], "phantom", "dose_mednext")
    require_recorded(tmp_path, READS["predict"], "phantom", "dose_unet")


@pytest.mark.parametrize("stage", ["judge", "report"])
def test_judge_and_report_stop_at_a_table_that_was_changed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    enter_project(repository, copy_cohorts(repository, tmp_path), monkeypatch)
    write_text(tmp_path / CASES, "case_id\n")
    write_lock(tmp_path, {CASES: md5_of(tmp_path / CASES)})
    assert shared.stage(stage, None, "dose_unet").layout.cohort == "phantom"
    write_text(tmp_path / CASES, "case_id\ncase_0001\n")
    with pytest.raises(NotReady, match=r"cases\.csv has the MD5"):
        shared.stage(stage, None, "dose_unet")


def test_predictions_that_were_changed_are_not_evaluated(tmp_path: Path) -> None:
    folder = "data/predictions/phantom/dose_unet"
    write_text(tmp_path / folder / "case_0001.npz", "a dose")
    write_lock(tmp_path, {folder: md5_of(tmp_path / folder)}, "predict@phantom-dose_unet")
    for reader in ("evaluate", "shortcuts", "report"):
        require_recorded(tmp_path, READS[reader], "phantom", "dose_unet")
    write_text(tmp_path / folder / "case_0001.npz", "the plan's own dose")
    for reader in ("evaluate", "shortcuts", "report"):
        with pytest.raises(NotReady, match=f"changed since the stage that made it ran: {folder} has the MD5"):
            require_recorded(tmp_path, READS[reader], "phantom", "dose_unet")


def test_what_is_not_there_or_not_recorded_changes_nothing(tmp_path: Path) -> None:
    require_recorded(tmp_path, OF_A_RUN, "phantom", "dose_unet")
    write_lock(tmp_path, {CASES: "0" * 32})
    require_recorded(tmp_path, OF_A_RUN, "phantom", "dose_unet")
    # Pages and figures are nobody's input.
    page = "reports/html/phantom/data.html"
    write_text(tmp_path / page, "<html>")
    write_lock(tmp_path, {page: "0" * 32}, "check_data@phantom")
    require_recorded(tmp_path, OF_A_RUN, "phantom", "dose_unet")


def test_a_lock_that_is_none_is_refused_and_a_strange_entry_records_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "dvc.lock", "stages: 3\n")
    with pytest.raises(BadInput, match=r"not a dvc\.lock"):
        changed_outs(tmp_path, [EVALUATE])
    for stages in ({EVALUATE: 3}, {EVALUATE: {"outs": None}}, {EVALUATE: {"outs": [{"path": CASES}]}}):
        assert recorded_outs({"stages": stages}, [EVALUATE]) == {}
    assert recorded_outs({}, [EVALUATE]) == {}


def test_the_stages_that_a_command_looks_at_are_those_that_it_depends_on(repository: Path, tmp_path: Path) -> None:
    resolved = resolve_pipeline(repository, tmp_path)
    for stage, reads in READS.items():
        for model in MODELS:
            (name,) = full_names([stage], COHORT, model)
            found = {other for other in OF_A_RUN if _depends(resolved, name, *full_names([other], COHORT, model))}
            assert found == set(reads), stage


def _depends(resolved: dict[str, Resolved], stage: str, other: str) -> bool:
    """Whether a stage reads a table, a verdict, weights or predictions that another makes."""
    folders = ("models/", "data/predictions/")
    held = {out for out in resolved[other].outs if Path(out).suffix in (".csv", ".json") or out.startswith(folders)}
    deps = resolved[stage].deps
    pairs = [(Path(dep), Path(out)) for dep in deps for out in held]
    return any(dep == out or out in dep.parents or dep in out.parents for dep, out in pairs)


@pytest.mark.slow
def test_dvc_has_recorded_what_a_stage_made_before_the_next_one_starts(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_json(root / "dvc.yaml", PIPELINE)
    write_text(root / "seed", "one\n")
    git = ["git", "-C", str(root), "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for command in (["init", "-q"], ["config", "core.analytics", "false"], ["repro", "-q"]):
        subprocess.run([*DVC, *command], cwd=root, check=True, capture_output=True)
    both = str(sorted([CASES, "models/phantom/dose_unet"]))
    assert (root / "seen").read_text().strip() == both
    # Our hash of a folder is DVC's.
    recorded = recorded_of(root / "dvc.lock", ["train@phantom-dose_unet"])
    assert recorded["models/phantom/dose_unet"][1] == md5_of(root / "models/phantom/dose_unet")
    # The second time, with an entry of the first in the lock, and in an experiment's own folder.
    write_text(root / "seed", "two\n")
    subprocess.run([*DVC, "repro", "-q"], cwd=root, check=True, capture_output=True)
    assert (root / "seen").read_text().strip() == both
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    write_text(root / "seed", "three\n")
    done = subprocess.run(
        [*DVC, "exp", "run", "--temp", "-n", "third"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    named = subprocess.run(
        [*git, "for-each-ref", "refs/exps", "--format=%(refname)"], capture_output=True, text=True, check=True
    )
    (ref,) = [name for name in named.stdout.split() if name.endswith("/third")]
    shown = subprocess.run([*git, "show", f"{ref}:seen"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == both


def test_of_a_folder_the_files_are_named_that_differ_from_what_the_cache_knows(tmp_path: Path) -> None:
    folder = "data/predictions/phantom/dose_unet"
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*DVC, "init", "-q"], cwd=tmp_path, check=True)
    for name in ("case_0001", "case_0002", "case_0003"):
        write_text(tmp_path / folder / f"{name}.npz", name)
    subprocess.run([*DVC, "add", "-q", folder], cwd=tmp_path, check=True)
    write_lock(tmp_path, {folder: md5_of(tmp_path / folder)}, "predict@phantom-dose_unet")
    (tmp_path / folder / "case_0001.npz").unlink()
    write_text(tmp_path / folder / "case_0003.npz", "another dose")
    (item,) = changed_outs(tmp_path, ["predict@phantom-dose_unet"])
    assert item.files == ("case_0001.npz", "case_0003.npz")
    with pytest.raises(
        NotReady, match=r"was recorded of predict@phantom-dose_unet \(in case_0001\.npz, case_0003\.npz\)"
    ):
        require_recorded(tmp_path, READS["evaluate"], "phantom", "dose_unet")
