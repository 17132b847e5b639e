"""The watchdog ends what hangs, starts again what crashed, leaves alone what refuses, and touches nothing else."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from doseledger.core.errors import BadInput, NotReady
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.learn.watch.diagnosis import diagnose
from doseledger.learn.watch.heartbeat import WATCHED_BY, Pulse, find_beat, read_beat, stacks_on_request
from doseledger.learn.watch.watchdog import WatchRules, watch

RULES = WatchRules(silence_s=1.0, first_batch_s=30.0, tries=2, ending_s=1.0, poll_s=0.05)
# What every child begins with: its pulse, how often it was started, and a grandchild of its own.
BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from doseledger.core.errors import BadInput
from doseledger.learn.watch.heartbeat import Pulse, stacks_on_request
folder = Path(sys.argv[1]) / "dose_unet" / "0123456789abcdef"
folder.mkdir(parents=True, exist_ok=True)
starts = folder / "starts"
n_starts = len(starts.read_text()) + 1 if starts.is_file() else 1
starts.write_text("x" * n_starts)
pulse = Pulse(folder)
def note(name, pid): (folder / name).write_text(str(pid))
def worker():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    note("worker", child.pid)
"""


@pytest.fixture
def child(tmp_path: Path) -> Callable[[str], list[str]]:
    """The command line of a training that does what a piece of code says."""

    def make(code: str) -> list[str]:
        script = tmp_path / "child.py"
        script.write_text(BEGIN + textwrap.dedent(code))
        return [sys.executable, str(script), str(tmp_path / "resume")]

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "resume" / "dose_unet" / "0123456789abcdef"


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    """A process of the same program that is none of the watchdog's business."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def is_gone(folder: Path, name: str) -> bool:
    pid = int((folder / name).read_text())
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def watched(command: list[str], folder: Path, rules: WatchRules = RULES) -> tuple[int, list[str]]:
    lines: list[str] = []
    return watch(command, folder.parents[1], rules, tell=lines.append), lines


def test_a_training_that_ends_well_is_started_once(child: Callable[[str], list[str]], folder: Path) -> None:
    status, lines = watched(child("pulse.beat(1, 1)"), folder)
    assert (status, lines) == (0, [])
    assert (folder / "starts").read_text() == "x"


def test_a_training_that_hangs_is_diagnosed_ended_with_its_own_and_started_again(
    child: Callable[[str], list[str]], folder: Path, bystander: psutil.Process
) -> None:
    command = child(
        """
        if n_starts == 1:
            note("main", os.getpid())
            worker()
            with stacks_on_request(folder):
                pulse.beat(3, 96)
                def wait_for_ever():
                    time.sleep(600)
                wait_for_ever()
        """
    )
    status, lines = watched(command, folder)
    assert status == 0
    assert (folder / "starts").read_text() == "xx"
    assert lines[0].startswith("watchdog: no sign of life for 1 s (epoch 3, step 96, process ")
    assert "starts it again (1 of 2 tries that kept nothing new)" in lines[0]
    assert (folder / "train.log").read_text().splitlines() == lines
    assert is_gone(folder, "main")
    assert is_gone(folder, "worker")
    assert bystander.is_running()
    diagnosis = next((folder.parents[1] / "watchdog").glob("*.txt")).read_text()
    assert "in wait_for_ever" in diagnosis
    assert f"{(folder / 'main').read_text()} (of {os.getpid()}) " in diagnosis
    assert f"{(folder / 'worker').read_text()} (of {(folder / 'main').read_text()}) " in diagnosis
    assert " GB free" in diagnosis


def test_a_training_whose_loaders_hang_is_ended_with_them(
    child: Callable[[str], list[str]], folder: Path, bystander: psutil.Process
) -> None:
    command = child(
        """
        if n_starts == 2:
            sys.exit(0)
        import torch
        class Stuck(torch.utils.data.Dataset):
            def __len__(self): return 8
            def __getitem__(self, index):
                def wait_in_the_loader():
                    note("loader1", os.getpid())
                    time.sleep(600)
                if index == 1:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    wait_in_the_loader()
                note("loader0", os.getpid())
                return index
        with stacks_on_request(folder):
            for step, _ in enumerate(torch.utils.data.DataLoader(Stuck(), num_workers=2)):
                # The watchdog's patience begins with the first beat: on a busy machine the other loader may be slow.
                while not (folder / "loader1").is_file():
                    time.sleep(0.01)
                pulse.beat(1, step)
        """
    )
    status, lines = watched(command, folder)
    assert status == 0
    assert len(lines) == 1
    assert is_gone(folder, "loader0")
    assert is_gone(folder, "loader1")
    assert bystander.is_running()
    assert "in wait_in_the_loader" in next((folder.parents[1] / "watchdog").glob("*.txt")).read_text()


def test_each_process_writes_its_stacks_alone_and_of_one_that_cannot_it_is_said(tmp_path: Path) -> None:
    code = """
        import os, sys, time
        from pathlib import Path
        from doseledger.learn.watch.heartbeat import stacks_on_request
        def deep(levels):
            if levels: return deep(levels - 1)
            Path(sys.argv[1], f"ready{os.getpid()}").touch()
            time.sleep(600)
        with stacks_on_request(Path(sys.argv[1])):
            for _ in range(3):
                if not os.fork(): break
            deep(60)
    """
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(code))
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)]) as main:
        try:
            while len(list(tmp_path.glob("ready*"))) < 4:
                time.sleep(0.01)
            members = [psutil.Process(main.pid), *psutil.Process(main.pid).children()]
            members[-1].suspend()
            text = diagnose("hangs", main.pid, members, tmp_path)
        finally:
            for process in psutil.Process(main.pid).children():
                process.kill()
            main.kill()
    parts = dict(part.split("\n", 1) for part in text.split("\nStacks\n")[1].rstrip().split("\n\nProcess "))
    heads = [f"Process {main.pid}", *(str(process.pid) for process in sorted(members[1:], key=lambda one: one.pid))]
    assert list(parts) == heads
    stopped = parts.pop(str(members[-1].pid))
    assert stopped == "none were written: who is stopped, or stuck in the kernel, can't write any"
    for stack in parts.values():
        # The innermost call, the deep ones, the module's own.
        lines = [re.fullmatch(r'  File ".+child\.py", line \d+ in (\S+)', line) for line in stack.splitlines()[1:]]
        assert [line and line[1] for line in lines] == ["deep"] * 61 + ["<module>"]


def test_a_training_that_a_signal_ended_goes_on_and_leaves_no_orphan(
    child: Callable[[str], list[str]], folder: Path, bystander: psutil.Process
) -> None:
    command = child(
        """
        pulse.beat(n_starts, 1)
        if n_starts == 1:
            worker()
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    status, lines = watched(command, folder)
    assert status == 0
    assert lines[0].startswith("watchdog: ended by signal SIGKILL (epoch 1, step 1, process ")
    assert is_gone(folder, "worker")
    assert bystander.is_running()


def test_a_fresh_start_is_made_once(child: Callable[[str], list[str]], folder: Path) -> None:
    command = child(
        """
        with (folder / "words").open("a") as stream:
            stream.write(" ".join(sys.argv[2:]) + ";")
        pulse.beat(1, 1)
        if n_starts == 1:
            os.abort()
        """
    )
    assert watched([*command, "--fresh", "--seed"], folder)[0] == 0
    assert (folder / "words").read_text() == "--fresh --seed;--seed;"


def test_an_error_for_a_person_to_mend_is_not_tried_again(child: Callable[[str], list[str]], folder: Path) -> None:
    command = child(
        """
        pulse.beat(2, 10)
        try:
            with pulse.refusals():
                raise BadInput("the loss became nan")
        except BadInput:
            sys.exit(1)
        """
    )
    assert watched(command, folder) == (1, [])
    assert (folder / "starts").read_text() == "x"


def test_settings_that_are_refused_before_training_begins_are_not_tried_again(
    child: Callable[[str], list[str]], folder: Path
) -> None:
    assert watched(child("sys.exit(1)"), folder) == (1, [])
    assert (folder / "starts").read_text() == "x"


def test_it_gives_up_after_tries_that_finish_no_epoch(child: Callable[[str], list[str]], folder: Path) -> None:
    command = child("pulse.beat(min(n_starts, 3), 1)\nos.abort()")
    lines: list[str] = []
    with pytest.raises(NotReady, match=r"started 4 times .* the last 2 kept nothing new.*SIGABRT .*mend the cause"):
        watch(command, folder.parents[1], RULES, tell=lines.append)
    # The second and the third start got an epoch further each: only what gets nowhere is given up.
    assert [line.split("; ")[-1] for line in lines] == [
        "starts it again (1 of 2 tries that kept nothing new)",
        "starts it again (1 of 2 tries that kept nothing new)",
        "starts it again (1 of 2 tries that kept nothing new)",
        "gives up",
    ]


def test_a_state_kept_inside_an_epoch_is_no_try_in_vain(child: Callable[[str], list[str]], folder: Path) -> None:
    command = child(
        """
        if n_starts < 4:
            (folder / "last.ckpt").write_bytes(b"state")
        pulse.beat(1, n_starts)
        os.abort()
        """
    )
    lines: list[str] = []
    with pytest.raises(NotReady, match=r"started 4 times"):
        watch(command, folder.parents[1], RULES, tell=lines.append)
    assert [line.split("; ")[-1][:24] for line in lines] == ["starts it again (1 of 2 "] * 3 + ["gives up"]


def test_a_training_that_never_begins_has_the_longer_patience(child: Callable[[str], list[str]], folder: Path) -> None:
    # After its first beat the child ends at once; even so a busy machine may take seconds to say so.
    rules = WatchRules(silence_s=5.0, first_batch_s=60.0, tries=1, ending_s=1.0, poll_s=0.05)
    assert watched(child("time.sleep(6.0)\npulse.beat(1, 1)"), folder, rules) == (0, [])
    short = WatchRules(silence_s=30.0, first_batch_s=1.5, tries=1, ending_s=1.0, poll_s=0.05)
    with pytest.raises(NotReady, match=r"no sign of life for 1\.5 s \(epoch 0, step 0"):
        watched(child("time.sleep(600)"), folder, short)


def test_a_watchdog_that_is_told_to_stop_stops_the_training(
    child: Callable[[str], list[str]], folder: Path, tmp_path: Path
) -> None:
    command = child("pulse.beat(1, 1)\nworker()\nnote('main', os.getpid())\ntime.sleep(600)")
    script = tmp_path / "dog.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom doseledger.learn.watch.watchdog import WatchRules, watch\n"
        "rules = WatchRules(60.0, 60.0, 1, ending_s=1.0, poll_s=0.05)\n"
        f"watch({command!r}, Path({str(folder.parents[1])!r}), rules, tell=print)\n"
    )
    dog = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    while not (folder / "main").is_file():
        assert dog.poll() is None
        time.sleep(0.05)
    dog.send_signal(signal.SIGTERM)
    _, said = dog.communicate()
    assert "told to stop, and has stopped the training" in said
    assert is_gone(folder, "main")
    assert is_gone(folder, "worker")


def test_a_training_whose_watchdog_is_gone_stops_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WATCHED_BY, str(os.getppid()))
    Pulse(tmp_path).beat(1, 1)
    monkeypatch.setenv(WATCHED_BY, "1")
    with pytest.raises(NotReady, match="the watchdog that started this training is gone"):
        Pulse(tmp_path).beat(1, 1)


def test_beats_change_as_it_goes_and_a_torn_file_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "dose_unet" / "abc"
    pulse = Pulse(folder)
    assert find_beat(tmp_path, os.getpid()) == (folder, pulse.last)
    assert pulse.last.phase == "opens"
    pulse.beat(1, 5)
    pulse.beat(1, 6)
    found = find_beat(tmp_path, os.getpid())
    assert found is not None
    assert (found[1].count, found[1].step, found[1].phase) == (1, 5, "trains")
    (folder / "heartbeat.json").write_text('{"pid": 1')
    assert read_beat(folder / "heartbeat.json") is None
    assert find_beat(tmp_path, os.getpid()) is None


def test_the_pulse_of_a_second_process_is_silent_until_it_refuses(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, main=False)
    pulse.beat(1, 1)
    assert not (tmp_path / "heartbeat.json").exists()
    with pytest.raises(BadInput), pulse.refusals():
        raise BadInput("nan")
    beat = read_beat(tmp_path / "heartbeat.json")
    assert beat is not None
    assert (beat.phase, beat.pid) == ("refused", os.getppid())


def test_stacks_are_written_when_asked_for(tmp_path: Path) -> None:
    with stacks_on_request(tmp_path):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert "test_stacks_are_written_when_asked_for" in (tmp_path / "stacks.txt").read_text()


HANGS_ONCE = """
import os, pickle, sys, time
import torch
from doseledger.learn.families.dose import DoseTask
from doseledger.learn.training.train import train
torch.set_num_threads(1)
run, places = pickle.load(open(sys.argv[1], "rb"))
step, mark = DoseTask.training_step, sys.argv[1] + ".hung"
def stuck_in_a_step(task, batch, index):
    if task.current_epoch == 1 and index == 1 and not os.path.exists(mark):
        open(mark, "w").close()
        time.sleep(600)
    return step(task, batch, index)
DoseTask.training_step = stuck_in_a_step
train(run, places, fresh=False, tell=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_a_training_that_hung_ends_with_the_weights_of_an_unbroken_one(
    make_run: Callable[..., TrainingRun], places: Places, tmp_path: Path
) -> None:
    run = make_run({"fit.max_epochs": 3})
    unbroken = Places(places.cases, places.splits, tmp_path / "unbroken", tmp_path / "unbroken_state")
    train(run, unbroken, fresh=False, tell=lambda line: None)
    (tmp_path / "hangs_once.py").write_text(HANGS_ONCE)
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((run, places)))
    lines: list[str] = []
    rules = WatchRules(silence_s=20.0, first_batch_s=300.0, tries=2, ending_s=2.0, poll_s=0.1)
    command = [sys.executable, str(tmp_path / "hangs_once.py"), str(tmp_path / "task.pickle")]
    assert watch(command, places.state_root, rules, tell=lines.append) == 0
    (told,) = lines
    # Beats are not written more often than they are looked at: the last one may be of the epoch before.
    assert re.search(r"no sign of life for 20 s \(epoch [12], step ", told)
    assert "in stuck_in_a_step" in next((places.state_root / "watchdog").glob("*.txt")).read_text()
    log = (places.out / "train.log").read_text().splitlines()
    assert told in log
    assert log.index(told) < next(n for n, line in enumerate(log) if line.startswith("resumes: "))
    for name in ("best", "last"):
        found, wanted = (folder.out / "checkpoints" / f"{name}.ckpt" for folder in (places, unbroken))
        assert found.read_bytes() == wanted.read_bytes()
