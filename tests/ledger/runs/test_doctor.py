"""What killed runs leave behind is found and explained, and nothing is touched."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.known import assert_known

from doseledger.core.files import write_json, write_text
from doseledger.ledger.runs import doctor as module
from doseledger.ledger.runs.doctor import dvc_at_work, examine

DEAD = 2**22 + 1


def found(project) -> dict[str, str]:
    symptoms = examine(project.root, project.root / ".doseledger/resume")
    return {symptom.what: f"{symptom.severity}: {symptom.found}; {symptom.do}" for symptom in symptoms}


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_healthy_project_has_nothing(project) -> None:
    assert examine(project.root, project.root / ".doseledger/resume") == []


def test_a_patient_that_git_tracks_is_found(project) -> None:
    write_text(project.root / "data/cases/phantom/case_0009.npz", "a patient\n")
    assert found(project) == {}
    project.git("add", "--force", "data/cases/phantom/case_0009.npz")
    symptom = found(project)["files in Git that belong to DVC or to this machine"]
    assert symptom.startswith(
        "mend: 1 tracked: data/cases/phantom/case_0009.npz; `git rm -r --cached data/cases/phantom`"
    )


@pytest.mark.parametrize(
    "patient",
    [
        "data/cases/phantom/case_0009.npz",
        "data/cases/clinic/case_0009.npz",
        "data/raw/phantom/case_0009.zip",
        "data/splits/clinic.csv",
        "models/clinic/my_unet/checkpoints/best.ckpt",
        "reports/html/clinic/data.html",
        "elsewhere/deep/case_0009.zip",
    ],
)
def test_a_tracked_file_below_an_out_is_found_whatever_the_ignore_rules_say(project, patient: str) -> None:
    # As when a rule was taken out, or DVC took its own back.
    write_text(project.root / ".gitignore", "")
    repository = Path(__file__).resolve().parents[3]
    write_text(project.root / "data/raw/dvc.yaml", (repository / "data/raw/dvc.yaml").read_text())
    write_text(
        project.root / "elsewhere.dvc", "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: elsewhere\n"
    )
    write_text(project.root / patient, "a patient\n")
    written = (
        "reports/metrics/clinic/dose_unet/summary.json", "reports/code/ingest.json", "data/raw/phantom.csv",
        "models/recipes/dose_own.yaml",
    )  # fmt: skip
    for name in written:
        write_text(project.root / name, "{}\n")
    assert found(project) == {}
    project.git("add", "--force", patient, *written, "elsewhere.dvc", "data/raw/dvc.yaml")
    symptom = found(project)["files in Git that belong to DVC or to this machine"]
    assert symptom.startswith(f"mend: 1 tracked: {patient}; `git rm -r --cached {Path(patient).parent}`")


def test_a_killed_experiment_in_the_workspace_is_explained(project) -> None:
    head = project.git("rev-parse", "HEAD")
    project.git("update-ref", "refs/exps/exec/EXEC_HEAD", head)
    project.git("checkout", "-q", "--detach")
    text = (project.root / "params.yaml").read_text()
    write_text(project.root / "params.yaml", text.replace("lr: 0.002", "lr: 0.1"))
    # DVC stages them.
    project.git("add", "params.yaml")
    (project.root / "requirements.lock").unlink()
    before = snapshot(project.root)
    symptom = found(project)["an experiment that was killed"]
    assert symptom.startswith(f"mend: HEAD is detached at {head[:7]}")
    assert (
        "`git checkout main`, then `git checkout HEAD -- params.yaml requirements.lock`, then `dvc checkout`" in symptom
    )
    assert snapshot(project.root) == before
    project.git("checkout", "-q", "main")
    project.git("checkout", "HEAD", "--", "params.yaml", "requirements.lock")
    project.git("update-ref", "-d", "refs/exps/exec/EXEC_HEAD")
    assert found(project) == {}
    assert project.git("status", "--porcelain", "--untracked-files=no") == ""


def test_the_mark_of_the_last_result_is_no_symptom(project) -> None:
    project.git("update-ref", "refs/exps/exec/EXEC_APPLY", "HEAD")
    assert found(project) == {}


def test_an_orphan_of_a_temporary_experiment_is_found_by_its_name(project) -> None:
    folder = project.root / ".dvc/tmp/exps/standalone/tmpabc"
    entry = {"pid": DEAD, "cmd": "dvc exp run --temp"}
    write_json(folder / ".dvc/tmp/rwlock", {"read": {}, "write": {str(folder / "o"): entry}})
    info = {"root_dir": str(folder), "name": "aural-sera", "status": 2}
    write_json(project.root / ".dvc/tmp/exps/run/1234/1234.run", info)
    symptom = found(project)["an experiment in a temporary folder that was killed"]
    assert "tmpabc (aural-sera" in symptom
    assert "`rm -r .dvc/tmp/exps/standalone/tmpabc`" in symptom


def test_a_lock_of_a_dead_process_is_only_noted(project) -> None:
    entry = {"pid": DEAD, "cmd": "dvc repro"}
    write_json(project.root / ".dvc/tmp/rwlock", {"read": {}, "write": {"o": entry}})
    assert found(project)["DVC's lock on files"].startswith(f"note: held by process {DEAD}")


def test_an_interrupted_training_is_told_with_how_to_go_on(project) -> None:
    folder = project.root / ".doseledger/resume/dose_unet" / ("a" * 16)
    write_json(folder / "fingerprint.json", {"recipe": {}})
    assert "doseledger resume clear dose_unet" in found(project)["an interrupted training"]


def test_a_half_written_file_of_a_dead_process_is_found_and_one_of_a_living_is_not(project) -> None:
    write_text(project.root / "models" / f"best.ckpt.{DEAD}.part", "half")
    (project.root / "models" / f"last.ckpt.{os.getpid()}.part").write_text("half")
    assert f"models/best.ckpt.{DEAD}.part" in found(project)["a half-written file"]
    assert "last.ckpt" not in str(found(project))


def test_a_lock_of_git_is_found(project) -> None:
    write_text(project.root / ".git/index.lock", "")
    assert found(project)["Git's lock"].startswith("mend: .git/index.lock")


def test_a_damaged_lock_of_dvc_stops_nothing(project) -> None:
    write_text(project.root / ".dvc/tmp/rwlock", "{")
    assert found(project) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[" * 100_000, b"7", b'{"write": 7}', b'{"write": {"a": 7}}', b'{"read": {"a": 7}}',
        b'{"read": {"a": [7]}}', b'{"write": {"a": {"pid": "x", "cmd": 1}}}',
        b'{"write": {"a": {"pid": null, "cmd": 1}}}',
    ],
)  # fmt: skip
def test_a_damaged_lock_of_dvc_holds_nobody(content: bytes, tmp_path: Path) -> None:
    lock = tmp_path / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_bytes(content)
    assert dvc_at_work(tmp_path) == {}


def test_all_that_killed_runs_left_is_told_word_by_word(project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project.root
    head = project.git("rev-parse", "--short", "HEAD")
    for number in range(7):
        write_text(root / f"data/cases/c{number}/case_{number}.npz", "a patient")
        project.git("add", "--force", f"data/cases/c{number}/case_{number}.npz")
    for name, status in (("tmpabc", 2), ("tmpxyz", 0)):
        folder = root / ".dvc/tmp/exps/standalone" / name
        write_json(folder / ".dvc/tmp/rwlock", {"read": {"o": [{"pid": DEAD, "cmd": "dvc exp run"}]}, "write": {}})
        (folder / "weights").write_bytes(bytes(2_600_000))
        if status:
            info = {"root_dir": str(folder), "name": "aural-sera", "status": status}
            write_json(root / ".dvc/tmp/exps/run/1234/1234.run", info)
    locks = {
        "write": {"o": {"pid": DEAD, "cmd": "dvc repro"}},
        "read": {"p": [{"pid": DEAD + 1, "cmd": "dvc pull"}, {"pid": 1}]},
    }
    write_json(root / ".dvc/tmp/rwlock", locks)
    write_json(root / ".doseledger/resume/dose_unet" / ("a" * 16) / "fingerprint.json", {"recipe": {}})
    write_text(root / "models" / f"best.ckpt.{DEAD}.part", "half")
    (root / "models/last.ckpt.word.part").write_text("half a file")
    (root / ".venv").mkdir()
    (root / ".venv" / f"x.{DEAD}.part").write_text("half")
    write_text(root / ".git/index.lock", "")
    told = []

    def tell(title: str) -> None:
        told.append(f"== {title}")
        for one in examine(root, root / ".doseledger/resume"):
            told.extend(["", f"{one.severity}: {one.what}", one.found, one.means, one.do])

    tell("everything at once")
    monkeypatch.setattr(module, "is_alive", lambda pid, program: pid == DEAD and program == "dvc")
    tell("DVC at work")
    monkeypatch.undo()
    (root / ".git/index.lock").unlink()
    project.git("reset", "-q")
    project.git("checkout", "-q", "--detach")
    tell("a detached head")
    project.git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    project.git("update-ref", "refs/exps/exec/EXEC_APPLY", "HEAD")
    tell("an experiment that changed nothing")
    project.git("commit", "-q", "--allow-empty", "-m", "of no branch")
    write_text(root / "params.yaml", "lr: 1")
    tell("an experiment of no branch")
    project.git("checkout", "-q", "-f", "main")
    tell("marks alone")
    text = "\n".join(told).replace(project.git("rev-parse", "--short", "HEAD@{1}"), "(commit)").replace(head, "(head)")
    assert_known(Path(__file__).parent / "known" / "doctor.txt", text)


def test_a_stage_whose_dvc_is_gone_is_told_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(
        pid: int, cwd: Path, words: list[str], parents: tuple[str, ...] = (), **environment: str
    ) -> SimpleNamespace:
        above = [SimpleNamespace(cmdline=lambda line=line: line.split()) for line in parents]
        return SimpleNamespace(
            info={"pid": pid, "cwd": str(cwd), "cmdline": words}, environ=lambda: environment, parents=lambda: above
        )

    def gone() -> None:
        raise module.psutil.NoSuchProcess(9)

    stage = {"DVC_STAGE": "train@m"}
    hidden = process(7, tmp_path, ["doseledger"])
    hidden.environ = gone
    found = [
        process(1, tmp_path, ["python", "/x/doseledger", "train"], **stage), process(2, tmp_path / "below",
            ["doseledger", "train"], ("bash -c x dvc",), **stage),
        process(3, tmp_path.parent, ["doseledger"], **stage), process(4, tmp_path, ["python", "-m", "doseledger"],
            **stage), process(5, tmp_path, ["doseledger"]),
        process(6, tmp_path, ["doseledger"], ("bash", "python dvc repro"), **stage), hidden,
        SimpleNamespace(info={"pid": 8, "cwd": None, "cmdline": None}),
    ]  # fmt: skip
    monkeypatch.setattr(module.psutil, "process_iter", lambda names: found)
    told = list(module._orphan_stages(tmp_path))
    assert [one.found for one in told] == [f"process {pid} is still at work on train@m" for pid in (1, 2)]
    assert told[0].do == "`kill 1` (a training keeps its state), then `dvc repro`, which goes on"
    assert told[0].severity == "mend"
