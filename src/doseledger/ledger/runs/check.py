"""The reproducibility checklist of a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from doseledger.core.errors import DoseledgerError
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.project.layout import LOCK_FILE
from doseledger.core.text.lists import first_of
from doseledger.gates.model.metrics import judge_cases
from doseledger.gates.verdict import Finding, Verdict, make_verdict
from doseledger.ledger.provenance.outs import OF_A_RUN, changed_outs, cure, full_names, recorded_of
from doseledger.ledger.provenance.revisions import commit_is_known
from doseledger.ledger.runs import recompute as again
from doseledger.ledger.runs import training_check
from doseledger.ledger.runs.checklist import Check, fault, run_checks
from doseledger.ledger.runs.files import RunFiles, read_manifest, verdict_speaks_of
from doseledger.ledger.runs.recompute import Recompute
from doseledger.ledger.runs.record import RunRecord


def check_run(files: RunFiles, *, recompute: Recompute | None = None) -> Verdict:
    """Return the verdict of the reproducibility checklist on a run.

    Parameters
    ----------
    files
        Where the run lies: `files_of_model` or `files_of_archive`.
    recompute
        What it takes to measure cases again from their predictions; None leaves that point out, and says so.

    Returns
    -------
    Verdict
        Of the gate `run`. Each finding's `numbers` hold what, found, wanted and do; `details["checks"]` is the
        checklist with a tick or a cross a point; the digest is of every file of the contract.

    Notes
    -----
    It never raises for what is wrong with a run: a file that is absent or can't be read is a finding.
    """
    record = RunRecord(files)
    checks = [
        Check("files", "every file of the contract is there", partial(_missing_files, files)),
        Check("checkpoint", "best and last checkpoint load", partial(training_check.checkpoints, record)),
        Check("config", "settings agree with checkpoint and record", partial(training_check.config, record)),
        Check("dataset", "training cases agree with splits and checkpoint", partial(training_check.dataset, record)),
        Check("history", "every epoch is in the history once", partial(training_check.history, record)),
        Check("tested", "the test set was evaluated, by this checkpoint", partial(_tested, record)),
        Check("metrics", "the summary follows from the tables", partial(_metrics, record)),
        Check("report", "the report is there and of this run", partial(_report, record)),
        Check("verdicts", "every gate passed, on this run", partial(_verdicts, record)),
        Check("code", "committed code made it", partial(_code, record)),
    ]
    if recompute is not None:
        checks.append(
            Check("recomputed", "cases measured again give the same", partial(_recomputed, record, recompute))
        )
    if files.manifest is not None:
        checks.append(Check("manifest", "every archived byte is as it was", partial(_manifest, files)))
    elif files.root is not None:
        recorded = partial(_recorded, files.root, files)
        checks.append(Check("recorded", "tables, verdicts and weights are those that dvc.lock records", recorded))
    findings, points = run_checks(checks)
    details = {
        "cohort": files.cohort,
        "model": files.model,
        "checks": points,
        "recomputed_cases": _measured(record, recompute) if recompute is not None else [],
    }
    return make_verdict("run", run_digest(files), findings, details)


def run_digest(files: RunFiles) -> str:
    """Return the digest of a run: of every file of the contract by name and content; an absent file counts as such."""
    digests = {name: sha256_of_file(path) if path.is_file() else "absent" for name, path in files.by_name().items()}
    return sha256_of_json(digests)


def _missing_files(files: RunFiles) -> Iterator[Finding]:
    for name, path in files.by_name().items():
        if not path.is_file():
            yield fault(name, f"no file {path}", "a file of the run", "run `dvc repro`, which makes what is missing")
        elif path.stat().st_size == 0:
            yield fault(name, f"{path} is empty", "a file with content", "run `dvc repro` after deleting it")


def _tested(record: RunRecord) -> Iterator[Finding]:
    from doseledger.learn.training.checkpoint import read_seen

    test = record.fold[record.fold["split"] == "test"]
    seen = read_seen(record.files.best_checkpoint, record.files.cohort)
    for finding in judge_cases(record.evaluated, test, seen, sha256_of_file(record.files.best_checkpoint)):
        wanted = "the test set of the splits, never seen, all of it by the best checkpoint"
        yield fault("cases.csv", finding.message, wanted, "predict and evaluate again", finding.case_id)


def _metrics(record: RunRecord) -> Iterator[Finding]:
    if not set(again.TABLES) <= set(record.files.tables):
        found = f"tables {', '.join(record.files.tables)}, of which no recomputation is known"
        do = "trust the evaluation, or evaluate again"
        yield fault("summary.json", found, f"tables {', '.join(again.TABLES)}", do, severity="warning")
        return
    yield from again.changed_summary(record.tables)
    yield from again.changed_goal_counts(record.tables)


def _recomputed(record: RunRecord, recompute: Recompute) -> Iterator[Finding]:
    yield from again.changed_cases(record.tables, record.files.splits, recompute)


def _measured(record: RunRecord, recompute: Recompute) -> list[str]:
    try:
        return again.cases_to_measure(record.tables, recompute)
    except DoseledgerError:
        return []


def _report(record: RunRecord) -> Iterator[Finding]:
    do = "run `dvc repro`, which writes the report of what is there"
    page = record.files.html.read_bytes() if record.files.html.is_file() else b""
    if b"</html>" not in page[-200:]:
        yield fault("report.html", "no whole page", "a page that ends with </html>", do)
    for name in ("cases_sha256", "splits_sha256"):
        if str(record.run[name]).encode() not in page:
            yield fault("report.html", f"no mention of {name} {record.run[name][:12]}…", "the hashes of this run", do)
    pdf = record.files.pdf.read_bytes()[:5] if record.files.pdf.is_file() else b""
    if pdf != b"%PDF-":
        yield fault("report.pdf", f"{pdf!r} at its beginning", "a PDF", do)


def _verdicts(record: RunRecord) -> Iterator[Finding]:
    for gate in record.files.verdicts:
        token, findings = record.verdict(gate)
        if token["ok"] is not True:
            errors = [item["message"] for item in findings.get("findings", []) if item.get("severity") == "error"]
            found = "; ".join(["ok: false", *([first_of(errors, 3, "; ")] if errors else [])])
            yield fault(f"verdicts/{gate}.json", found, "ok: true", "mend what the gate names, and run it again")
        if (token["ok"], token["digest"]) != (findings.get("ok"), findings.get("digest")):
            found = f"token {token['digest'][:12]}…, findings {str(findings.get('digest'))[:12]}…"
            yield fault(f"verdicts/{gate}.json", found, "one verdict in both files", "run the gate again")
    trained_on = record.run["data_gate"]
    token, _ = record.verdict("data")
    if trained_on != token:
        found = f"the data gate's verdict {str(token.get('digest'))[:12]}…"
        wanted = f"{str(trained_on.get('digest'))[:12]}…, which training was given"
        yield fault("verdicts/data.json", found, wanted, training_check.AGAIN)
    yield from _stale_model_verdict(record)


def _stale_model_verdict(record: RunRecord) -> Iterator[Finding]:
    _, findings = record.verdict("model")
    if not verdict_speaks_of(findings, record.summary):
        found = "numbers that are not those of the evaluation"
        yield fault("verdicts/model.json", found, "a verdict on this summary", "run `dvc repro`")


def _code(record: RunRecord) -> Iterator[Finding]:
    provenance = record.run["provenance"]
    git, do = provenance["git"], "commit the code and train again: a dirty run can't be registered"
    if not git["commit"]:
        yield fault("run.json", f"no commit ({git['note']})", "the commit whose code trained it", do)
        return
    if git["dirty"]:
        changed = first_of(git["dirty_paths"], 5)
        yield fault("run.json", f"DIRTY TREE: {git['note']} ({changed})", "a clean tree when training began", do)
    if not provenance.get("lock_sha256"):
        yield fault("run.json", "no digest of the lock of packages", "one", "train beside requirements.lock")
    root = record.files.root
    if root is not None and commit_is_known(root, git["commit"]) is False:
        found = f"commit {git['commit'][:12]}, which this repository does not have"
        yield fault("run.json", found, "a commit of this repository", "fetch the branch that holds it")


def _recorded(root: Path, files: RunFiles) -> Iterator[Finding]:
    lock, stages = root / LOCK_FILE, full_names(OF_A_RUN, files.cohort, files.model)
    for item in changed_outs(root, stages):
        found, wanted = f"MD5 {item.found[:12]}…", f"{item.recorded[:12]}…, as {item.stage} left it"
        yield fault(item.path, found, wanted, cure([item]))
    never = [name for name in stages if not recorded_of(lock, [name])]
    if never:
        found = f"no record of {', '.join(never)}"
        do = "run `dvc repro`: without it nobody can tell whether their files were changed since"
        yield fault(LOCK_FILE, found, "the hashes of every stage", do, severity="warning")


def _manifest(files: RunFiles) -> Iterator[Finding]:
    if files.manifest is None:
        return
    folder = files.manifest.parent
    listed = {str(item["path"]): item for item in read_manifest(folder)["files"]}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {files.manifest.name}
    do = "take the folder from where it was archived, or archive the run again"
    for name in sorted(set(listed) - there):
        yield fault(name, "no such file", f"{listed[name]['size']} bytes", do)
    for name in sorted(there - set(listed)):
        yield fault(name, "a file that the manifest does not list", "only what was archived", do)
    for name in sorted(there & set(listed)):
        digest = sha256_of_file(folder / name)
        if digest != listed[name]["sha256"]:
            yield fault(name, f"SHA256 {digest[:12]}…", f"{listed[name]['sha256'][:12]}…, as archived", do)
