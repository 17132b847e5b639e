"""Kills and damage: the next `dvc repro` ends with the hashes of an unbroken run, or says what to do.

`make test` tries a few on the stages up to the data gate; `make faults` all of them on the whole pipeline, each stage
killed FAULTS_POINTS times at points drawn by FAULTS_SEED. Each test leaves the project whole for the next.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fixtures.clone import Clone, clone_of

from doseledger.core.files import atomic_path, read_json, read_yaml, to_json, write_json, write_stored_zip
from doseledger.dicom.files.members import source_digest
from doseledger.ledger.bundle.bitrot import recorded_outs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POINTS = int(os.environ.get("FAULTS_POINTS", "0"))
SEED = os.environ.get("FAULTS_SEED", "1")
PHANTOM = "data/raw/dvc.yaml:phantom"
OF_DATA = ["code", "settings@phantom", PHANTOM, "ingest@phantom", "split@phantom", "physics@phantom"]
OF_DATA += ["check_data@phantom"]
BELOW = ["drift@phantom", "report_data@phantom"]
BELOW += [f"{name}@phantom-dose_unet" for name in ("model_settings", "preflight", "train", "predict", "evaluate")]
BELOW += [f"{name}@phantom-dose_unet" for name in ("shortcuts", "judge", "report")]
TARGETS = [BELOW[1], BELOW[-1]] if POINTS else OF_DATA[-1:]
in_full = pytest.mark.skipif(not POINTS, reason="part of `make faults`")
KILLED = [(stage, at) for stage in OF_DATA + BELOW for at in range(POINTS)] or [("ingest@phantom", 0)]
TINY = {
    "scale.pool": "here", "models": ["dose_unet"], "bases": {}, "dose_unet.prior": "mean_dose",
    "phantom.n_patients": 4, "phantom.in_plane_pixels": 96, "phantom.segments_per_arc": 24,
    "phantom.iterations": 40, "phantom.attempts": 1,
    "splits.fractions.train": 0.5, "splits.fractions.val": 0.25, "splits.fractions.test": 0.25,
    "evaluate.verify_gamma_points": 5, "report.figure_dpi": 40, "dose_unet.fit.max_epochs": 2,
    "model_base.fit.validate_every": 1, "model_base.sampling.patch_zyx": [16, 32, 32],
    "model_base.network.channels": [4, 8, 8], "model_base.network.embedding": 4,
}  # fmt: skip


class Project(Clone):
    """A tiny project, what an unbroken run of it left, and how long each stage took."""

    whole: dict[str, str]
    seconds: dict[str, float]

    @property
    def log(self) -> Path:
        """What the runs that were started say."""
        return self.root.with_suffix(".log")

    def start(self, *targets: str) -> subprocess.Popen[bytes]:
        with self.log.open("w") as log:
            return subprocess.Popen(
                ["dvc", "repro", *targets], cwd=self.root, env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def repro(self, **options: Any) -> str:
        """What `dvc repro` says where it fails; nothing where it succeeds."""
        done = self.run("dvc", "repro", *TARGETS, ok=False, **options)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr[-4000:]
        return done.stdout + done.stderr if done.returncode else ""

    def forget(self, stage: str) -> None:
        """Undo a stage, so that nothing but running it brings its outs back."""
        pipeline, _, name = stage.rpartition(":")
        path = self.root / (pipeline or "dvc.yaml")
        lock = read_yaml(path.with_suffix(".lock"))
        record = lock["stages"].pop(name)
        for out in record.get("outs", []):
            remove(self.root / out["path"])
        with atomic_path(path.with_suffix(".lock")) as part:
            part.write_text(to_json(lock))
        for state in (".dvc/cache/runs", ".doseledger/ingest", ".doseledger/resume"):
            remove(self.root / state)

    def hashes(self) -> dict[str, str]:
        """SHA256 of every file of every out, clocks left out, and of what the lock files record."""
        found = {}
        for out in recorded_outs(self.root):
            path = self.root / out.path
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                content = without_clock(file)
                if content:
                    found[str(file.relative_to(self.root))] = hashlib.sha256(content).hexdigest()
        return found


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def without_clock(file: Path) -> bytes:
    """The content of a file that two unbroken runs have in common."""
    if file.is_dir() or file.name in ("train.log", "report.html", "report.pdf"):
        # They show the seconds of an epoch, and the commit.
        return b""
    if file.name == "run.json":
        # Of the commit it tells which files were changed by then, dvc.lock among them.
        return to_json({**read_json(file), "provenance": None}).encode()
    if file.name == "history.csv":
        with file.open() as stream:
            return str([{**row, "seconds": None} for row in csv.DictReader(stream)]).encode()
    return file.read_bytes()


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = Path(os.environ.get("FAULTS_ROOT") or tmp_path_factory.mktemp("tiny")) / "project"
    notes = root.with_suffix(".json")
    if notes.exists():
        made = Project(root)
        made.whole, made.seconds = read_json(notes).values()
        return made
    made = Project(clone_of(repository, root, TINY).root)
    running, began = made.start(*TARGETS), {}
    while running.poll() is None:
        time.sleep(0.2)
        for stage in re.findall(r"^Running stage '(.*)'", made.log.read_text(), re.M):
            began.setdefault(stage, time.monotonic())
    assert running.returncode == 0, made.log.read_text()[-4000:]
    times = [*began.values(), time.monotonic()]
    made.seconds = {stage: times[at + 1] - times[at] for at, stage in enumerate(began)}
    made.whole = made.hashes()
    made.commit("an unbroken run")
    shutil.copytree(root, root.with_name("whole"), symlinks=True)
    write_json(notes, {"whole": made.whole, "seconds": made.seconds})
    return made


@pytest.fixture(autouse=True)
def _is_whole_again(project: Project) -> Iterator[None]:
    """After whatever was done, `dvc repro` makes the project that of the unbroken run."""
    yield
    said, found = project.repro(), project.hashes()
    changed = {name for name in found.keys() | project.whole.keys() if found.get(name) != project.whole.get(name)}
    if said or changed:
        # The next test begins with a whole one.
        shutil.rmtree(project.root)
        shutil.copytree(project.root.with_name("whole"), project.root, symlinks=True)
    assert (said, changed) == ("", set())


def until_it_runs(project: Project, running: subprocess.Popen[bytes], stage: str) -> None:
    while f"Running stage '{stage}'" not in project.log.read_text():
        assert running.poll() is None, project.log.read_text()[-4000:]
        time.sleep(0.05)


def end(running: subprocess.Popen[bytes]) -> None:
    """Wait until nobody of a process group is left."""
    running.wait()
    with suppress(ProcessLookupError):
        while True:
            os.killpg(running.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize(("stage", "at"), KILLED)
def test_a_stage_that_was_killed_runs_again_to_the_same_hashes(project: Project, stage: str, at: int) -> None:
    project.forget(stage)
    running = project.start(stage)
    until_it_runs(project, running, stage)
    time.sleep(random.Random(f"{SEED} {stage} {at}").uniform(0.0, 1.05) * project.seconds[stage])
    if at % 2:
        # Every second time DVC alone, whose stage goes on beside the next one.
        running.kill()
        assert project.repro() == ""
    else:
        os.killpg(running.pid, signal.SIGKILL)
    end(running)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one byte amid a file as a disk does: size and times stay."""
    times = path.stat()
    with path.open("r+b") as stream:
        stream.seek(times.st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def one_of(project: Project, pattern: str) -> Path:
    found = sorted(path for path in project.root.glob(pattern) if path.is_file())
    if pattern == PHYSICS:
        # Of a case that the model predicts: no other stage reads the maps of all.
        found = [path for path in found if (project.root / PREDICTED / path.name).is_file()]
    return random.Random(f"{SEED} {pattern}").choice(found) if found else pytest.skip(f"no {pattern}")


def own_copy(path: Path) -> Path:
    """A file in place of what may be a link to the cache's object, which is left alone."""
    with atomic_path(path) as part:
        shutil.copyfile(path, part)
    return path


def cached(project: Project, path: Path) -> Path:
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


FILES = ["data/raw/phantom/*.zip", "data/raw/phantom.csv", "data/cases/phantom/*.npz", "data/cases/phantom/cases.csv"]
FILES += ["data/splits/phantom.csv", "data/physics/phantom/*", "reports/verdicts/phantom/data.json"]
FILES += [".doseledger/ingest/*", ".doseledger/digests.sqlite", ".doseledger/audit.jsonl", "reports/code/ingest.json"]
MORE = ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "history.csv"]
MORE = [f"models/phantom/dose_unet/{name}" for name in MORE]
MORE += ["data/predictions/phantom/dose_unet/*.npz", "data/gamma/phantom/dose_unet/*", ".doseledger/resume/*/*/*"]
MORE += ["reports/metrics/phantom/dose_unet/summary.json", "reports/verdicts/phantom/dose_unet/model.json"]
HURT = {"cut": truncate, "removed": Path.unlink}


@pytest.mark.parametrize("how", HURT if POINTS else ["cut"])
@pytest.mark.parametrize("pattern", FILES + MORE if POINTS else FILES[2:3])
def test_a_file_that_was_cut_or_removed_is_made_again(project: Project, pattern: str, how: str) -> None:
    path = own_copy(one_of(project, pattern))
    HURT[how](path)


PHYSICS, PREDICTED = "data/physics/phantom/*.npz", "data/predictions/phantom/dose_unet"
READ_BY = {"data/cases/phantom/*.npz": "check_data@phantom"}
MODEL = {
    "models/phantom/dose_unet/checkpoints/best.ckpt": "predict",
    f"{PREDICTED}/*.npz": "evaluate",
    "data/gamma/phantom/dose_unet/*.npz": "report",
    PHYSICS: "predict",
}
if POINTS:
    READ_BY["data/raw/phantom/*.zip"] = "ingest@phantom"
    READ_BY |= {pattern: f"{stage}@phantom-dose_unet" for pattern, stage in MODEL.items()}


@pytest.mark.parametrize("pattern", READ_BY)
def test_a_byte_that_flipped_in_cache_and_copy_is_told_with_what_to_do(project: Project, pattern: str) -> None:
    path = one_of(project, pattern)
    copies = {cached(project, path), path}
    flip(path)
    if not path.samefile(min(copies - {path})):
        flip(min(copies - {path}))
    project.forget(READ_BY[pattern])
    said, told = project.repro(), project.run("doseledger", "verify", ".", ok=False).stdout
    for copy in copies:
        copy.unlink()
    assert path.stem in said, said
    name = str(path.relative_to(project.root))
    assert f"{name} (" in told
    assert f"delete both, then `dvc pull {name}`, or make it again with `dvc repro`" in told


@contextmanager
def readable_by_its_owner_alone() -> Iterator[Callable[[], None]]:
    """What makes a child of root heed the permissions of files, as everybody else does."""
    libc = ctypes.CDLL(None)
    drop, capabilities = 24, (1, 2)
    yield lambda: [libc.prctl(drop, one, 0, 0, 0) for one in capabilities] and None


@in_full
@pytest.mark.parametrize("pattern", READ_BY)
def test_a_file_that_may_not_be_read_is_named(project: Project, pattern: str) -> None:
    path = one_of(project, pattern)
    project.forget(READ_BY[pattern])
    mode = path.stat().st_mode
    path.chmod(0)
    with readable_by_its_owner_alone() as heed:
        said = project.repro(preexec_fn=heed)
    path.chmod(mode)
    assert path.stem in said, said
    assert re.search(r"[Pp]ermission", said), said


@in_full
def test_a_slice_that_was_removed_is_named_by_case(project: Project) -> None:
    path = one_of(project, "data/raw/phantom/*.zip")
    whole = path.read_bytes()
    own_copy(path)
    with zipfile.ZipFile(path) as raw:
        members = {name: raw.read(name) for name in raw.namelist()}
    slices = sorted(name for name in members if "ct" in name.lower())
    del members[slices[len(slices) // 2]]
    write_stored_zip(path, members)
    # 1. the list of raw cases sees it
    project.forget("ingest@phantom")
    # Alone: the phantoms' own stage would make the patient anew.
    done = project.run("dvc", "repro", "--single-item", "ingest@phantom", ok=False)
    said = done.stdout + done.stderr
    assert re.search(rf"1 changed \({path.stem}\) of 4 cases. Fetch the whole cohort", said), said
    # 2. so does the image, where the list was made anew
    raw_list = project.root / "data/raw/phantom.csv"
    listed = raw_list.read_text()
    mine = f"{path.stem},{source_digest(path)}"
    rows = [mine if row.startswith(path.stem) else row for row in listed.split()]
    raw_list.write_text("\n".join([*rows, ""]))
    project.run("doseledger", "ingest", "--cohort", "phantom", ok=False)
    said = (project.root / "data/cases/phantom/skipped.csv").read_text()
    assert re.search(rf"{path.stem},failed,.*slice", said), said
    raw_list.write_text(listed)
    with atomic_path(path) as part:
        part.write_bytes(whole)


FILLED = ["ingest@phantom", "train@phantom-dose_unet", "report@phantom-dose_unet"]


@in_full
@pytest.mark.parametrize("stage", FILLED)
def test_a_full_disk_is_told_and_once_freed_the_run_goes_on(project: Project, stage: str, tmp_path: Path) -> None:
    # 1. a copy of the project on a disk of its own, without the stage's outs
    # Links to the cache's objects become files of their own.
    used = int(subprocess.check_output(["du", "-sb", project.root], text=True).split()[0])
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={3 * used}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; a limit of file sizes stands for it below")
    try:
        shutil.copytree(project.root, disk / "project", symlinks=True)
        there = Project(disk / "project")
        before = shutil.disk_usage(disk).used
        there.forget(stage)
        needed = before - shutil.disk_usage(disk).used
        # 2. room for a part of them alone
        room = random.Random(f"{SEED} {stage}").uniform(0.1, 0.9) * needed
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, int(shutil.disk_usage(disk).free - room))
        said = there.repro()
        assert re.search("disk is full|No space left", said), said
        # 3. room for all
        (disk / "filler").unlink()
        assert there.repro() == ""
        assert there.hashes() == project.whole
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@in_full
@pytest.mark.parametrize("stage", FILLED)
def test_files_that_grow_beyond_what_is_allowed_are_told(project: Project, stage: str) -> None:
    # The command itself: DVC's own databases would come first, and it says "disk I/O error" of them.
    project.forget(stage)
    name, model = stage.partition("@")[0], ["dose_unet"] if "dose_unet" in stage else []
    most = random.Random(f"{SEED} {stage}").randrange(4096, 100_000)
    limit = (most, most)
    done = project.run(
        "doseledger", name, *model, "--cohort", "phantom", ok=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode
    assert "Traceback" not in done.stderr, done.stderr
    assert re.search("too large|so large", done.stderr), done.stderr


@in_full
@pytest.mark.parametrize("stage", FILLED)
def test_of_two_runs_at_once_one_waits_or_is_told(project: Project, stage: str) -> None:
    project.forget(stage)
    running = project.start(*TARGETS)
    said = project.repro()
    if running.wait():
        assert not said
        said = project.log.read_text()
    assert not said or re.search("Unable to acquire lock|is busy", said), said
