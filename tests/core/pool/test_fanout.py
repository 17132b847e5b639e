"""Work over cases at every scale: same results, nobody lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.work import halve, halve_slowly

from doseledger.core.errors import BadInput, LostCases, NotReady, SkippedCase
from doseledger.core.pool.cluster import HERE, Scale, local, slurm_executor
from doseledger.core.pool.fanout import Outcome, over_cases

REPOSITORY = Path(__file__).resolve().parents[3]
PATHS = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
SLURM = HERE.model_copy(update={"pool": "slurm", "workers": 2, "slurm": {"time": 7, "partition": "cpu", "qos": "low"}})


def run(values: dict[str, int], scale: Scale, folder: Path, told: list[str] | None = None) -> Outcome[bytes]:
    lines = [] if told is None else told
    return over_cases(halve, {c: (c, v, folder) for c, v in values.items()}, scale, tell=lines.append)


def attempts(folder: Path, case_id: str) -> int:
    return len((folder / case_id).read_text().splitlines())


@pytest.fixture(scope="module", params=["here", "local", "dask", "slurm"])
def scale(request: pytest.FixtureRequest) -> Scale:
    if request.param == "dask":
        return request.getfixturevalue("dask_scale")
    if request.param == "slurm":
        return request.getfixturevalue("slurm_scale")
    return HERE if request.param == "here" else local(2)


def test_every_pool_gives_the_same_and_lists_bad_cases(scale: Scale, tmp_path: Path) -> None:
    told: list[str] = []
    values = {"b": 1, "a": 8, "c": 0, "e": 15, "d": 4}
    outcome = run(values, scale, tmp_path, told)
    assert list(outcome.done.items()) == [("a", b"\4\4\4"), ("d", b"\2\2\2")]
    assert {name: error.reason for name, error in outcome.failed.items()} == {
        "b": "found 1, wanted an even number", "c": "nothing to halve", "e": "has no CT"
    }  # fmt: skip
    assert isinstance(outcome.failed["c"], SkippedCase)
    assert [attempts(tmp_path, case_id) for case_id in values] == [1] * 5
    assert sorted(line.split("]")[0] for line in told[:5]) == [f"[{n}/5" for n in range(1, 6)]


def test_a_case_that_breaks_down_once_is_tried_again(scale: Scale, tmp_path: Path) -> None:
    told: list[str] = []
    outcome = run({"a": 3, "b": 8, "c": 13}, scale, tmp_path, told)
    assert not outcome.failed
    assert outcome.done == {"a": b"\1\1\1", "b": b"\4\4\4", "c": b"\6\6\6"}
    assert [attempts(tmp_path, case_id) for case_id in "abc"] == [2, 1, 2]
    assert any(
        re.match(r"a is .* again: OSError: the network drive is gone .* failed, . waiting\)", line) for line in told
    )


def test_a_case_that_breaks_down_twice_is_named_after_all_others_are_done(scale: Scale, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(LostCases, match=r"1 of 4 cases broke down, the others were done: a: KeyError: 'always'"):
        run({"a": 5, "b": 8, "c": 1, "d": 2}, scale, tmp_path, told)
    assert [attempts(tmp_path, case_id) for case_id in "abcd"] == [2, 1, 1, 1]
    assert any("raise KeyError" in line for line in told)


def test_settings_that_are_wrong_for_all_stop_the_run_at_once(scale: Scale, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="settings that hold for all"):
        run({"a": 11}, scale, tmp_path)


def test_a_program_that_breaks_down_on_every_case_is_not_run_over_a_thousand(tmp_path: Path) -> None:
    with pytest.raises(LostCases, match=r"10 of 1000 cases broke down, none was done"):
        run({f"c{n:04d}": 5 for n in range(1000)}, HERE, tmp_path)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_process_that_dies_takes_no_other_case_with_it(tmp_path: Path) -> None:
    told: list[str] = []
    values = {"a": 2, "b": 7, "c": 4, "d": 6, "e": 8}
    outcome = run(values, local(2), tmp_path, told)
    assert outcome.done == {c: bytes([v // 2]) * 3 for c, v in values.items()}
    assert any("b is to be tried again: its process died" in line for line in told)


def test_a_case_that_kills_its_process_twice_is_named_and_no_other_one(tmp_path: Path) -> None:
    with pytest.raises(LostCases, match=r"1 of 5 cases .*: b: its process died; was it killed, or out of memory\?"):
        run({"a": 2, "b": 9, "c": 4, "d": 6, "e": 8}, local(2), tmp_path)


def test_a_dask_worker_that_is_killed_loses_no_case(dask_scale: Scale, tmp_path: Path) -> None:
    values = {f"c{n}": 2 * n + 2 for n in range(12)}
    values["c3"] = 7
    cases = {c: (c, v, tmp_path) for c, v in values.items()}
    outcome = over_cases(halve_slowly, cases, dask_scale, tell=print)
    assert attempts(tmp_path, "c3") == 2
    assert outcome == over_cases(halve, cases, HERE, tell=print)


def test_a_slurm_job_that_is_killed_is_tried_again_where_no_accounts_are_kept(
    slurm_scale: Scale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("doseledger.core.pool.cluster.QUEUE_S", 2.0)
    told: list[str] = []
    outcome = run({"a": 2, "b": 7, "c": 4}, slurm_scale, tmp_path, told)
    assert outcome.done == {"a": b"\1\1\1", "b": b"\3\3\3", "c": b"\2\2\2"}
    assert any("b is to be tried again: its job ended without a result" in line for line in told)


def test_a_slurm_job_is_waited_for_where_the_queue_does_not_answer(
    slurm_scale: Scale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("doseledger.core.pool.cluster.QUEUE_S", 0.0)
    squeue = tmp_path / "programs" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/bash\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}{os.pathsep}{os.environ['PATH']}")
    assert run({"a": 2}, slurm_scale, tmp_path).done == {"a": b"\1\1\1"}


def test_a_scheduler_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'doseledger[scale]'")
    monkeypatch.setattr("doseledger.core.pool.cluster.PATIENCE_S", 1)
    with pytest.raises(NotReady, match=r"no scheduler answers at tcp://127\.0\.0\.1:1"):
        run({"a": 2}, HERE.asked("dask:tcp://127.0.0.1:1"), tmp_path)


@pytest.mark.parametrize(("module", "words"), [("dask.distributed", "dask"), ("submitit", "submitit")])
def test_a_pool_whose_library_is_absent_says_what_to_install(
    module: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    scale = HERE.asked("dask:tcp://127.0.0.1:1") if words == "dask" else SLURM
    with pytest.raises(NotReady, match=rf"{words} is not installed here: pip install 'doseledger\[scale\]'"):
        run({"a": 2}, scale, tmp_path)


def test_a_dask_worker_of_other_code_is_refused(
    dask_scale: Scale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("doseledger.core.pool.fanout.code_digest", lambda module: "edited since")
    with pytest.raises(LostCases, match="runs other code than this process; restart the workers"):
        run({"a": 2}, dask_scale, tmp_path)


def test_the_script_for_slurm_asks_for_what_the_settings_say(slurm_scale: Scale, tmp_path: Path) -> None:
    run({"a": 2, "b": 4, "c": 6}, slurm_scale, tmp_path)
    script = max((tmp_path.parent / "submitted").glob("*.sh"), key=lambda path: path.stat().st_mtime).read_text()
    executor = slurm_executor(slurm_scale, tmp_path / "jobs")
    assert executor.parameters["time"] == 7
    for line in ("--time=7", "--partition=cpu", "--qos=low", "--array=0-2%2", "--job-name=doseledger"):
        assert f"#SBATCH {line}" in script
    assert "export OMP_NUM_THREADS=1" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ray:4", "--scale ray:4: pool"),
        ("local:0", "--scale local:0: workers"),
        ("local:many", "--scale local:many: workers"),
        ("dask", "needs its scheduler's address"),
        ("slurm:4", "needs slurm.time"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(words: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        HERE.asked(words)


def test_a_scale_that_is_asked_for_goes_before_the_settings() -> None:
    assert local(2).asked(None) == local(2)
    assert local(2).asked("local:8") == local(8)
    assert local(2).asked("local") == local(2)
    assert SLURM.asked("slurm:50").workers == 50
    assert HERE.asked("dask:tcp://host:8786").address == "tcp://host:8786"


@pytest.fixture(scope="module")
def dask_scale() -> Iterator[Scale]:
    """A scheduler and two workers on loopback, each a process of its own that comes again where it is killed."""
    pytest.importorskip("distributed", reason="dask is not installed: pip install 'doseledger[scale]'")
    environment = os.environ | {"PYTHONPATH": PATHS, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    started = [subprocess.Popen([*dask, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **ends)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    started += [subprocess.Popen([*worker, "--nworkers", "1"], **ends) for _ in range(2)]
    try:
        yield HERE.asked(f"dask:{address}")
    finally:
        # Workers first: one without a scheduler waits for another.
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SBATCH = """#!/bin/bash
# Takes a script as sbatch does, and runs its tasks one after the other.
# Of a copy: submitit moves its own as soon as this ends.
script={folder}/submitted/$(date +%s%N).sh
cp "$1" "$script"
number=$((100 + $(ls {folder}/submitted | wc -l)))
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
# One job alone is no array.
jobs=$number
if [ -n "$last" ]; then jobs=$(seq -f "${{number}}_%g" 0 "$last"); fi
for job in $jobs; do touch {folder}/queue/$job; done
echo "Submitted batch job $number"
export SLURM_JOB_ID=$number
for job in $jobs; do
  if [ -n "$last" ]; then export SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=${{job#*_}}; fi
  bash "$script"
  rm {folder}/queue/$job
done > /dev/null 2>&1 &
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do if [[ "$1" == *=* || "$1" == --unbuffered ]]; then shift; else shift 2; fi; done
export SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
exec "$@"
"""


@pytest.fixture(scope="module")
def slurm_scale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scale]:
    """Programs that stand for SLURM's: sbatch and srun run a job at once, sacct knows nothing, squeue who is left."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'doseledger[scale]'")
    folder = tmp_path_factory.getbasetemp()
    (folder / "submitted").mkdir()
    (folder / "queue").mkdir()
    programs = folder / "slurm_programs"
    programs.mkdir()
    texts = {"sbatch": SBATCH.format(folder=folder), "srun": SRUN, "squeue": f"#!/bin/bash\nls {folder}/queue\n"}
    for name in ("sbatch", "srun", "sacct", "squeue", "scancel"):
        (programs / name).write_text(texts.get(name, "#!/bin/bash\n"))
        (programs / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv("DVC_ROOT", str(folder))
        yield SLURM
