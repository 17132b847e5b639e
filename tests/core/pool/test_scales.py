"""Scales by their words and defaults, the state of a run over cases told line by line, and what is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doseledger.core.errors import BadCase, BadInput, LostCases
from doseledger.core.pool.cluster import HERE, ONE_THREAD, Answer, Scale, _one_thread, answers_of, local
from doseledger.core.pool.fanout import MOST_BREAKDOWNS, Outcome, _system_failed, over_cases, take_shard, try_case
from doseledger.core.schema import load_block


def test_scales_are_what_they_are_asked_to_be() -> None:
    assert HERE.model_dump() == {"pool": "here", "workers": 1, "address": "", "slurm": {}}
    assert local(3).model_dump() == {"pool": "local", "workers": 3, "address": "", "slurm": {}}
    slurm = load_block(Scale, {"pool": "slurm", "workers": 4, "address": "", "slurm": {"time": 5}}, "scale")
    assert slurm.asked("here").model_dump() == {**slurm.model_dump(), "pool": "here"}
    assert slurm.asked("local:7").workers == 7
    assert slurm.asked("slurm") == slurm
    assert (slurm.alone(), HERE.alone(), local(5).alone()) == (slurm, HERE, local(1))
    dask = slurm.asked("dask:tcp://a:1")
    assert (dask.pool, dask.address, dask.workers, dask.alone()) == ("dask", "tcp://a:1", 4, dask)


def test_each_worker_has_one_thread_and_this_process_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with _one_thread():
        assert {os.environ[name] for name in ONE_THREAD} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert set(ONE_THREAD) == {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"}


def work(name: str, folder: Path) -> str:
    """Whatever the name asks for; the first attempt of `once` breaks down, that of `late` meets a lost drive."""
    kind = name.split("_")[0]
    first = not (folder / name).exists()
    (folder / name).touch()
    if kind == "bad":
        raise BadCase(name, "no CT")
    if kind == "lost" or (kind == "once" and first):
        raise ValueError("broke")
    if kind == "late" and first:
        raise BadCase(name, "no drive") from OSError(5, "I/O error")
    if kind == "stop":
        raise BadInput("wrong for all")
    return name.upper()


def run(names: list[str], folder: Path) -> tuple[Outcome[str] | None, list[str], str]:
    told: list[str] = []
    try:
        found = over_cases(work, {n: (n, folder) for n in names}, HERE, tell=told.append, note=lambda r: f"made {r}")
    except (LostCases, BadInput) as error:
        return None, told, str(error)
    return found, told, ""


def shown(told: list[str]) -> list[str]:
    """The lines without tracebacks and places in files."""
    return [line.split(" (/")[0] for line in told if not line.startswith("Traceback")]


def test_every_line_of_a_run_says_how_many_ended_and_how(tmp_path: Path) -> None:
    outcome, told, _ = run(["once_b", "bad_c", "ok_d", "late_a"], tmp_path)
    assert outcome is not None
    assert outcome.done == {"late_a": "LATE_A", "ok_d": "OK_D", "once_b": "ONCE_B"}
    assert list(outcome.done) == ["late_a", "ok_d", "once_b"]
    assert list(outcome.failed) == ["bad_c"]
    assert shown(told) == [
        "once_b is to be tried again: ValueError: broke",
        "[1/4] bad_c: no CT",
        "[2/4] ok_d: made OK_D",
        "late_a is to be tried again: late_a: no drive (1 done, 1 failed, 2 waiting)",
        "[3/4] once_b: made ONCE_B",
        "[4/4] late_a: made LATE_A",
    ]
    assert told[0].endswith("(0 done, 0 failed, 4 waiting)")
    with pytest.raises(BadCase, match="bad_c: no CT"):
        outcome.complete()
    assert Outcome({"a": 1}, {}).complete() == {"a": 1}


def test_a_case_that_is_lost_is_told_with_its_traceback_after_all_others(tmp_path: Path) -> None:
    outcome, told, said = run(["lost_b", "ok_a", "lost_c"], tmp_path)
    assert outcome is None
    assert said.startswith("2 of 3 cases broke down, the others were done: lost_b: ValueError: broke (")
    assert "; lost_c: ValueError: broke (" in said
    assert [line for line in shown(told) if line.startswith("[")] == [
        "[1/3] ok_a: made OK_A", "[2/3] lost_b: lost: ValueError: broke", "[3/3] lost_c: lost: ValueError: broke",
    ]  # fmt: skip
    assert sum(line.startswith("Traceback") for line in told) == 2


@pytest.mark.parametrize(("n", "is_stopped"), [(MOST_BREAKDOWNS - 1, False), (MOST_BREAKDOWNS, True)])
def test_ten_breakdowns_and_nothing_done_stop_a_run(n: int, is_stopped: bool, tmp_path: Path) -> None:
    _, told, said = run([f"lost_{k:02d}" for k in range(n)], tmp_path)
    assert f"{n} of {n} cases broke down, {'none was done' if is_stopped else 'the others were done'}: " in said
    assert sum(line.startswith("Traceback") for line in told) == (1 if is_stopped else n)
    _, _, said = run(["ok_a", *(f"lost_{k:02d}" for k in range(n))], tmp_path)
    assert "the others were done" in said


def test_what_is_wrong_for_all_stops_a_run(tmp_path: Path) -> None:
    outcome, told, said = run(["ok_a", "stop_b", "ok_c"], tmp_path)
    assert (outcome, said, shown(told)) == (None, "wrong for all", ["[1/3] ok_a: made OK_A"])
    assert run([], tmp_path)[0] == Outcome({}, {})
    assert list(answers_of(lambda arguments: Answer(), [], HERE.model_copy(update={"pool": "dask"}))) == []


@pytest.mark.parametrize(
    ("below", "is_passing"),
    [
        (OSError(5, "x"), True), (MemoryError(), True), (ConnectionError(), True), (FileNotFoundError(), False),
        (PermissionError(), False), (IsADirectoryError(), False), (NotADirectoryError(), False), (ValueError(), False),
    ],
)  # fmt: skip
def test_only_what_the_system_may_mend_is_tried_again(below: Exception, is_passing: bool) -> None:
    error, between = BadCase("a", "b"), ValueError()
    error.__cause__ = below
    assert _system_failed(error) is is_passing
    error.__cause__, between.__context__ = between, below
    assert _system_failed(error) is is_passing
    assert not _system_failed(BadCase("a", "b"))


def test_a_worker_of_other_code_says_so_and_does_nothing(tmp_path: Path) -> None:
    answer = try_case(work, "another digest", ("ok_a", tmp_path))
    assert answer == Answer(fault="its worker runs other code than this process; restart the workers with this code")
    assert list(tmp_path.iterdir()) == []
    assert try_case(work, None, ("ok_a", tmp_path)) == Answer("OK_A")
    assert Answer() == Answer(None, None, "", "", False, None)


def test_a_shard_is_every_nth_case_from_its_own_on() -> None:
    ids = list("abcdefg")
    assert [take_shard(ids, f"{i}/3") for i in (1, 2, 3)] == [list("adg"), list("be"), list("cf")]
    assert take_shard(ids, "1/1") == ids
    for bad in ("0/1", "2/1", "1/0", "-1/2", "1/2/3", "a/2", "1/b", "/"):
        with pytest.raises(BadInput, match="wanted i/n with 1 ≤ i ≤ n"):
            take_shard(ids, bad)
