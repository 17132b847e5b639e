"""What commands leave in the audit log, whichever way they end."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.cli.audited import this_machine
from doseledger.core.errors import BadInput, GateFailed
from doseledger.core.files import sha256_of_bytes, sha256_of_file, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.tables import CASES, TEST_SET, write_table
from doseledger.ledger.audit.anchors import ANCHOR_KEY, anchor_line, anchor_values, file_anchors, keep_head, ref_anchors
from doseledger.ledger.audit.check import verify
from doseledger.ledger.audit.log import (
    NO_ENTRY,
    append_entry,
    hash_of,
    read_entries,
    read_head,
    read_log_id,
    serialise,
)
from doseledger.ledger.audit.recording import Footprint, digest_of, note_fact, record_command
from doseledger.ledger.audit.view import Filter, describe_entry, matches
from doseledger.ledger.provenance.stages import code_of, write_files
from doseledger.report.page import write_pdf

PAGE = '<html><head><meta name="description" content="{}"></head><body>a report</body></html>'
COHORTS = ("phantom", "prostate")
EXECUTABLE = Path(sys.executable).with_name("doseledger")


def audited_commands(group: Any, path: tuple[str, ...] = ()) -> dict[str, tuple[str, tuple[str, ...], Any]]:
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= audited_commands(command, (*path, name))
        elif hasattr(command.callback, "audited_as"):
            found[" ".join((*path, name))] = (*command.callback.audited_as, command)
    return found


AUDITED = audited_commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", sorted(AUDITED))
def test_a_command_is_recorded_under_its_own_name_and_with_paths_that_there_are(path: str) -> None:
    name, paths, command = AUDITED[path]
    assert name == path
    parameters = {parameter.name for parameter in command.params}
    assert inspect.signature(command.callback).parameters.keys() == parameters
    # A path that is no argument is one of the layout's; what were neither would be left out of the log unsaid.
    layout = Layout(Path(), "phantom")
    places = [layout.model("dose_unet"), layout] if "model" in parameters else [layout]
    given = {place for place in paths if "|" not in place and place in parameters}
    looked_up = [place.partition("|")[2] or place for place in paths if place not in given]
    assert [place for place in looked_up if not any(place in dir(where) for where in places)] == []


def test_what_changes_data_models_or_verdicts_is_recorded() -> None:
    assert {
        "ingest", "split", "raw deidentify", "check data", "drift", "preflight", "train", "predict", "evaluate",
        "shortcuts", "judge", "gate", "report", "report-data", "test-set lock", "test-set unlock", "recipe use",
        "deliver dose", "deliver plan", "registry register", "registry promote", "registry sign-off", "registry retire",
        "registry get", "runs check", "runs archive",
    } <= set(AUDITED)  # fmt: skip
    judges = typer.main.get_command(app).commands["check"].commands  # type: ignore[attr-defined]
    # What hooks of Git ask before a commit is not recorded.
    assert {f"check {name}" for name in judges if name not in ("staged", "code")} <= set(AUDITED)


def record(log: Path, footprint: Footprint, error: BaseException | None = None) -> list[dict[str, Any]]:
    """Entries of a command that writes its outputs and then raises the error, if there is one."""
    with contextlib.suppress(type(error) if error is not None else ()), record_command(log, log.parent, footprint):
        for path in footprint.outputs.values():
            write_text(path, "made\n")
        if error is not None:
            raise error
    return list(read_entries(log))


def test_a_command_leaves_what_it_read_as_it_begins_and_what_it_wrote_as_it_ends(tmp_path: Path) -> None:
    source, made = tmp_path / "in.csv", tmp_path / "out.csv"
    write_text(source, "given\n")
    footprint = Footprint("split", {"out": made, "seed": 3, "none": None}, {"source": source}, {"out": made}, "all")
    began, ended = record(tmp_path / "audit.jsonl", footprint)
    assert (began["event"], began["command"], began["reads"]) == ("began", "split", "all")
    assert began["arguments"] == {"out": str(made), "seed": 3}
    assert began["inputs"]["source"]["sha256"] == sha256_of_bytes(b"given\n")
    assert (ended["event"], ended["began"], ended["status"], ended["error"]) == ("ended", 1, "done", None)
    assert ended["outputs"]["out"]["sha256"] == sha256_of_bytes(b"made\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("params.yaml: lr is no number"), "failed"),
        (ZeroDivisionError("a fault of ours"), "failed"),
        (KeyboardInterrupt(), "stopped"),
        (typer.Exit(0), "done"),
        (typer.Exit(1), "failed"),
    ],
)
def test_a_command_that_does_not_end_well_is_recorded_as_such(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    ended = record(tmp_path / "audit.jsonl", Footprint("train", {}, {}, {}), error)[-1]
    assert ended["status"] == status
    assert (ended["error"] is None) == (status == "done")


def test_a_verdict_is_read_from_the_token_that_the_command_wrote(tmp_path: Path) -> None:
    token, log = tmp_path / "data.json", tmp_path / "audit.jsonl"
    with (
        contextlib.suppress(GateFailed),
        record_command(log, tmp_path, Footprint("check data", {}, {}, {"token": token})),
    ):
        write_json(token, {"ok": False, "digest": "a" * 64})
        raise GateFailed("the data gate found 1 error(s)")
    assert list(read_entries(log))[-1]["verdicts"] == [{"token": str(token), "ok": False, "digest": "a" * 64}]


def test_a_fact_belongs_to_the_command_that_runs_and_to_no_other(tmp_path: Path) -> None:
    note_fact("promoted", {"name": "nobody runs"})
    log = tmp_path / "audit.jsonl"
    with record_command(log, tmp_path, Footprint("registry promote", {}, {}, {})):
        note_fact("promoted", {"name": "dose_unet@v0.1.0", "share": float("nan")})
    assert list(read_entries(log))[-1]["promoted"] == {"name": "dose_unet@v0.1.0", "share": None}


def test_a_log_that_cannot_be_written_stops_a_command_before_it_does_anything(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.mkdir()
    done = []
    with (
        pytest.raises(BadInput, match="what leaves no record is not run"),
        record_command(log, tmp_path, Footprint("train", {}, {}, {})),
    ):
        done.append("trained")
    assert done == []


def test_a_log_that_is_lost_on_the_way_fails_the_command_and_hides_no_other_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"

    def run_and_lose(error: BadInput | None) -> None:
        with record_command(log, tmp_path, Footprint("train", {}, {}, {})):
            log.unlink()
            log.mkdir()
            if error is not None:
                raise error

    with pytest.raises(BadInput, match="the audit log can't be written"):
        run_and_lose(None)
    log.rmdir()
    with pytest.raises(BadInput, match="no such case"):
        run_and_lose(BadInput("no such case"))
    assert "warning: " in capsys.readouterr().err


def test_a_folder_of_cases_goes_by_its_table_and_another_by_all_its_files(tmp_path: Path) -> None:
    write_text(tmp_path / "cases/cases.csv", "case_id\n")
    write_text(tmp_path / "cases/case_0001.npz", "large")
    assert digest_of(tmp_path / "cases") == {
        "path": str(tmp_path / "cases"), "sha256": sha256_of_bytes(b"case_id\n"), "of": "cases.csv",
    }  # fmt: skip
    write_text(tmp_path / "run/a/x.txt", "1")
    before = digest_of(tmp_path / "run")
    assert (before["of"], before["n"]) == ("files", 1)
    shutil.move(tmp_path / "run/a", tmp_path / "run/b")
    assert digest_of(tmp_path / "run")["sha256"] != before["sha256"]
    assert digest_of(tmp_path / "nothing")["sha256"] is None


def test_outside_a_git_repository_the_log_is_kept_and_names_whom_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    began = record(tmp_path / "audit.jsonl", Footprint("ingest", {}, {}, {}))[0]
    assert began["who"] == {"name": None, "email": None}
    assert began["commit"] is None
    assert "unknown: ingest began" in describe_entry(began)


def test_the_log_is_the_projects_own_from_any_folder_and_any_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "project/data/raw"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert this_machine().root == tmp_path / "main"
    monkeypatch.delenv("DVC_ROOT")
    (tmp_path / "project/.git").mkdir()
    assert this_machine().audit_log == tmp_path / "project/.doseledger/audit.jsonl"
    (tmp_path / "project/data/.dvc").mkdir()
    assert this_machine().root == tmp_path / "project/data"


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Path:
    """A folder in which `doseledger split` runs, for two cohorts."""
    rows = [
        {
            "case_id": f"case_{n:04d}", "pseudonym": f"p{n}", "group": "A", "site": "A", "source_sha256": f"{n:064x}",
            "sha256": f"{n:064x}", "n_warnings": 0,
        }
        for n in range(1, 11)
    ]  # fmt: skip
    shutil.copytree(repository / "validation/cohorts", tmp_path / "validation/cohorts")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(repository / name, tmp_path / name)
    for cohort in COHORTS:
        layout = Layout(tmp_path, cohort)
        write_table(layout.cases_csv, pd.DataFrame(rows), CASES)
        write_table(layout.test_set, pd.DataFrame(columns=list(TEST_SET.columns)), TEST_SET)
    write_files({layout.code / "split.json": code_of("split")})
    return tmp_path


def test_stages_at_once_share_one_log(project: Path) -> None:
    environment = {**os.environ, "DVC_ROOT": str(project)}
    running = [
        subprocess.Popen(
            [EXECUTABLE, "split", "--cohort", cohort], cwd=project, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for cohort in COHORTS
    ]  # fmt: skip
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    log = project / ".doseledger/audit.jsonl"
    assert verify(log, []).ok
    entries = list(read_entries(log))
    assert sorted(entry["event"] for entry in entries) == ["began", "began", "ended", "ended"]
    splits = {entry["outputs"]["splits"]["sha256"] for entry in entries if entry["event"] == "ended"}
    assert splits == {sha256_of_file(project / "data/splits/phantom.csv")}
    read = {entry["inputs"]["cases_csv"]["path"] for entry in entries if entry["event"] == "began"}
    assert read == {f"data/cases/{cohort}/cases.csv" for cohort in COHORTS}


def test_a_judges_limits_are_recorded_whatever_cohorts_they_come_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    log = this_machine().audit_log

    def recorded() -> str:
        # Nothing was measured here: what it was given is recorded all the same.
        assert CliRunner().invoke(app, ["judge", "dose_unet"]).exit_code != 0
        began = [entry for entry in read_entries(log) if entry["event"] == "began"][-1]
        return str(began["inputs"]["thresholds"]["sha256"])

    before = recorded()
    assert recorded() == before
    limits = project / "validation/cohorts/phantom/thresholds.yaml"
    write_text(limits, limits.read_text().replace("limit: 4.5", "limit: 9.5"))
    assert recorded() != before


def test_verify_tells_from_which_entry_on_nothing_is_anchored(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    log = this_machine().audit_log
    for number in range(3):
        append_entry(log, {"event": "began", "number": number})
    head = CliRunner().invoke(app, ["audit", "head", "--json"]).output
    write_text(project / "manifest.json", head)
    page = f"<html><footer>{anchor_line(log)}</footer></html>"
    write_text(project / "report.html", page)
    append_entry(log, {"event": "ended"})
    told = CliRunner().invoke(app, ["audit", "verify", "manifest.json", "report.html"])
    assert told.exit_code == 0
    assert "4 entries, 2 anchors" in told.output
    assert "from entry 4 on nothing is anchored yet" in told.output
    # What lies in this clone can be rewritten with the log; what a person brought can't.
    assert "all anchors lie in this clone" in told.output
    told = CliRunner().invoke(app, ["audit", "verify", "--head", anchor_line(log)])
    assert "up to entry 4 the log is what a head from outside saw" in told.output
    old = json.loads(head)["audit"]["sha256"].upper()
    told = CliRunner().invoke(app, ["audit", "verify", "--head", old])
    assert "up to entry 3 the log is what a head from outside saw; of what came later only this clone" in told.output
    told = CliRunner().invoke(app, ["audit", "verify", "--head", "0" * 64])
    assert told.exit_code != 0
    assert "that was given from outside: the log was cut off or written anew" in told.output
    told = CliRunner().invoke(app, ["audit", "verify", "manifest.json", "--json"])
    assert json.loads(told.output)["unanchored_from"] == 4
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
    told = CliRunner().invoke(app, ["audit", "verify", "manifest.json"])
    assert isinstance(told.exception, GateFailed)
    assert "does not follow on" in told.output
    assert "entry 3 is not the one that manifest.json saw" in told.output


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[:2]


def cut_and_gone_on(lines: list[bytes]) -> list[bytes]:
    return rewritten([*lines[:2], lines[0], lines[0]])


def rewritten(lines: list[bytes]) -> list[bytes]:
    """The work of a forger who knows the format: one word changed, and every hash made anew."""
    previous, forged = NO_ENTRY, []
    for number, line in enumerate(lines, start=1):
        entry = {**json.loads(line), "n": number, "previous": previous, "number": f"forged {number}"}
        previous = entry["sha256"] = hash_of(entry)
        forged.append(serialise(entry) + b"\n")
    return forged


def gone(lines: list[bytes]) -> list[bytes]:
    return []


FORGERIES = pytest.mark.parametrize("forge", [cut, cut_and_gone_on, rewritten, gone])
Forge = Callable[[list[bytes]], list[bytes]]


def forge_log(log: Path, forge: Forge) -> None:
    log.write_bytes(b"".join(forge(log.read_bytes().splitlines(keepends=True))))
    # The chain itself holds: whoever forged it wrote it anew.
    assert verify(log, []).ok


@FORGERIES
@pytest.mark.parametrize("kept", ["html", "pdf"])
def test_a_page_from_elsewhere_finds_a_log_that_was_forged_after_it(
    forge: Forge, kept: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    log = this_machine().audit_log
    for number in range(3):
        append_entry(log, {"event": "began", "number": number})
    page = project / "kept/report.html"
    write_text(page, PAGE.format(anchor_line(log)))
    if kept == "pdf":
        assert write_pdf(page.read_text(), page.with_suffix(".pdf")) == ""
    append_entry(log, {"event": "ended"})
    words = ["audit", "verify", f"kept/report.{kept}"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "4 entries, 1 anchors" in told.output
    forge_log(log, forge)
    told = CliRunner().invoke(app, words)
    assert isinstance(told.exception, GateFailed)
    assert f"report.{kept} saw" in told.output


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of Git without a commit, on a machine where Git does not know who works."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    return root


def test_each_head_is_kept_as_a_commit_under_a_ref_of_its_own(repository_of_nobody: Path) -> None:
    root, log = repository_of_nobody, repository_of_nobody / ".doseledger/audit.jsonl"
    heads = []
    for number in range(3):
        append_entry(log, {"event": "began", "number": number})
        keep_head(root, log)
        heads.append(read_head(log))
    kept = ref_anchors(root)
    assert [anchor.head for anchor in kept] == heads[::-1]
    assert {anchor.log_id for anchor in kept} == {read_log_id(log)}
    assert {anchor.where for anchor in kept} == {"refs/doseledger/audit"}
    assert git(root, "rev-list", "--count", "refs/doseledger/audit") == "3"
    # It names no person, holds no file, and is no branch.
    said = git(root, "log", "--format=%an <%ae>", "-1", "refs/doseledger/audit")
    assert said == "doseledger <doseledger@localhost>"
    assert git(root, "ls-tree", "-r", "refs/doseledger/audit") == ""
    assert git(root, "branch", "--all") == ""
    assert git(root, "for-each-ref", "--format=%(refname)") == "refs/doseledger/audit"


def test_a_log_without_an_entry_has_no_head_to_keep(repository_of_nobody: Path) -> None:
    keep_head(repository_of_nobody, repository_of_nobody / ".doseledger/audit.jsonl")
    assert ref_anchors(repository_of_nobody) == []
    assert git(repository_of_nobody, "for-each-ref") == ""


@pytest.mark.parametrize("without", ["a repository", "git"])
def test_without_git_no_head_is_kept_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    if without == "git":
        git(tmp_path, "init", "-q")
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    log = tmp_path / "audit.jsonl"
    append_entry(log, {"event": "began"})
    keep_head(tmp_path, log)
    assert ref_anchors(tmp_path) == []


@FORGERIES
def test_the_kept_heads_find_a_log_that_was_forged_after_them(
    forge: Forge, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    git(project, "init", "-q")
    log = this_machine().audit_log
    for number in range(3):
        append_entry(log, {"event": "began", "number": number})
        keep_head(project, log)
    append_entry(log, {"event": "ended"})
    told = CliRunner().invoke(app, ["audit", "verify"])
    assert told.exit_code == 0, told.output
    assert "4 entries, 3 anchors" in told.output
    assert "from entry 4 on nothing is anchored yet" in told.output
    forge_log(log, forge)
    told = CliRunner().invoke(app, ["audit", "verify"])
    assert isinstance(told.exception, GateFailed)
    assert "refs/doseledger/audit saw" in told.output


def test_the_kept_heads_of_another_clones_log_are_left_out_by_name_only(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    git(project, "init", "-q")
    other = project / "other.jsonl"
    append_entry(other, {"event": "elsewhere"})
    keep_head(project, other)
    append_entry(this_machine().audit_log, {"event": "here"})
    told = CliRunner().invoke(app, ["audit", "verify"])
    assert isinstance(told.exception, GateFailed)
    told = CliRunner().invoke(app, ["audit", "verify", "--elsewhere", read_log_id(other)])
    assert told.exit_code == 0, told.output


def test_a_command_keeps_the_head_of_its_last_entry(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    git(project, "init", "-q")
    done = CliRunner().invoke(app, ["split"])
    assert done.exit_code == 0, done.exception
    log = this_machine().audit_log
    assert [anchor.head for anchor in ref_anchors(project)] == [read_head(log)]
    assert read_head(log).length == 2
    # One that fails leaves its head too.
    assert CliRunner().invoke(app, ["judge", "dose_unet"]).exit_code != 0
    assert [anchor.head.length for anchor in ref_anchors(project)] == [4, 2]


def test_an_anchor_of_another_clones_log_is_left_out_by_name_only(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = project / "other.jsonl"
    append_entry(other, {"event": "elsewhere"})
    write_json(project / "theirs.json", {"audit": anchor_values(other)})
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    append_entry(this_machine().audit_log, {"event": "here"})
    told = CliRunner().invoke(app, ["audit", "verify", "theirs.json"])
    assert isinstance(told.exception, GateFailed)
    assert "name that log with --elsewhere" in str(told.exception)
    log_id = str(anchor_values(other)["log_id"])
    assert f"it names the log {log_id}" in told.output
    told = CliRunner().invoke(app, ["audit", "verify", "theirs.json", "--elsewhere", log_id])
    assert told.exit_code == 0


def test_a_file_without_a_head_is_no_anchor(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"files": []})
    with pytest.raises(BadInput, match="holds no head of an audit log"):
        file_anchors(tmp_path / "manifest.json")
    with pytest.raises(BadInput, match="no such file to compare"):
        file_anchors(tmp_path / "nothing.json")
    (tmp_path / "list.json").write_text(json.dumps({ANCHOR_KEY: {"length": [3], "sha256": "0" * 64}}))
    with pytest.raises(BadInput, match=r"list\.json: the length of the log's head is no number"):
        file_anchors(tmp_path / "list.json")


def test_an_anchor_survives_text_and_json(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    append_entry(log, {})
    write_text(tmp_path / "page.html", f"<p>{anchor_line(log)}</p>")
    write_json(tmp_path / "manifest.json", {"audit": anchor_values(log)})
    assert [a.head for a in file_anchors(tmp_path / "page.html")] == [read_head(log)]
    assert [a.head for a in file_anchors(tmp_path / "manifest.json")] == [read_head(log)]
    assert file_anchors(tmp_path / "page.html")[0].log_id == file_anchors(tmp_path / "manifest.json")[0].log_id


ENTRY = {
    "n": 7, "at": "2026-03-01T10:00:00.000+00:00", "event": "ended", "command": "check data", "status": "failed",
    "seconds": 1.5, "error": "GateFailed: the data gate found 1 error(s)\nand more",
    "who": {"name": "Ada Example", "email": "ada@example.org"}, "reads": "all",
    "outputs": {"token": {"path": "data.json", "sha256": "a" * 64}, "html": {"path": "p.html", "sha256": None}},
    "verdicts": [{"token": "data.json", "ok": False, "digest": "b" * 64}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), True),
        (Filter(command="check data", who="ADA", since="2026-03-01", until="2026-03-01", status="failed"), True),
        (Filter(command="check"), False),
        (Filter(who="grace"), False),
        (Filter(since="2026-03-02"), False),
        (Filter(until="2026-02-28"), False),
        (Filter(status="done"), False),
        (Filter(about="b" * 64), True),
        (Filter(about="case_0007"), False),
    ],
)
def test_entries_are_found_by_what_they_hold(wanted: Filter, found: bool) -> None:
    assert matches(ENTRY, wanted) is found


def test_an_entry_is_told_in_words() -> None:
    text = describe_entry(ENTRY)
    assert "Ada Example <ada@example.org>: check data ended: failed after 1.5 s" in text
    assert "GateFailed: the data gate found 1 error(s)" in text
    assert "wrote data.json aaaaaaaaaaaa" in text
    assert "wrote p.html absent" in text
    assert "data.json: failed, digest bbbbbbbbbbbb" in text
