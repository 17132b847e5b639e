"""Damaged files of a project: YAML, JSON, tables, notes, the audit log."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.damage import BY_SUFFIX, as_json, damage_text, damage_tree
from fuzz.kinds import Kind, Reader, Spoilt, Told, rewrite, silent

from doseledger.core import tables
from doseledger.core.files import write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_goals, load_protocol
from doseledger.core.settings import load_settings
from doseledger.evaluate.compare import compare_models
from doseledger.gates.data.leakage import judge_splits
from doseledger.gates.limits import load_thresholds
from doseledger.gates.model.judge import judge_model
from doseledger.gates.suites import read_suite
from doseledger.gates.verdict import passed_token, read_verdict
from doseledger.ingest.cohort import _read_groups, _read_index
from doseledger.ingest.privacy.key import KEY, read_key
from doseledger.ingest.splits import make_splits
from doseledger.learn.kinds import recipe_of
from doseledger.learn.training.resume import list_states, open_state
from doseledger.learn.watch.heartbeat import describe_state
from doseledger.ledger.audit.anchors import file_anchors
from doseledger.ledger.audit.check import Anchor, verify
from doseledger.ledger.audit.log import append_entry, read_entries, read_head, read_log_id
from doseledger.ledger.bundle.bitrot import recorded_outs
from doseledger.ledger.provenance.recipes import describe_recipes, put_recipe
from doseledger.ledger.provenance.recorded import dvc_hashes
from doseledger.ledger.provenance.stamp import stage_outs
from doseledger.ledger.registry.criteria import load_criteria
from doseledger.ledger.runs.check import check_run
from doseledger.ledger.runs.compared_runs import compared_run
from doseledger.ledger.runs.doctor import dvc_at_work
from doseledger.ledger.runs.experiment import BEGIN, END, fill_note
from doseledger.ledger.runs.facts import load_facts
from doseledger.ledger.runs.files import files_of_model, files_of_pipeline
from doseledger.ledger.runs.listing.index import gather_runs, rows_of_archives, rows_of_states, rows_of_workspace
from doseledger.parity.contract import load_contract
from doseledger.planning.machine.linac import load_machine

COHORT, MODEL = "phantom", "dose_unet"
NOTE = f"""# An experiment
```yaml
lr: 0.001
network:
  channels: 8
```
- `mae_body_gy < 3`

{BEGIN}
{END}
"""


def project_kind(finished: Path, repository: Path) -> Kind:
    """A finished run in its project: settings, limits, records, verdicts, tables."""

    def make(folder: Path) -> None:
        shutil.copytree(finished, folder)
        _furnish(folder, repository)

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        # As many of each form, however many files it has.
        suffix = rng.choice(sorted({Path(name).suffix for name in FILES}))
        name = rng.choice(sorted(name for name in FILES if Path(name).suffix == suffix))
        path = folder / name
        words = rewrite(path, lambda content: _spoilt(rng, path, content))
        return Spoilt(words, (path.name, path.stem, str(path.parent), MODEL), FILES[name])

    return Kind(make, spoil, READERS)


def _spoilt(rng: random.Random, path: Path, content: bytes) -> bytes:
    if path.suffix in (".yaml", ".lock", ".dvc") and rng.random() < 0.6:
        from ruamel.yaml import YAML

        return as_json(damage_tree(rng, YAML(typ="safe", pure=True).load(content.decode())))
    return BY_SUFFIX.get(path.suffix, damage_text)(rng, content)


def _furnish(folder: Path, repository: Path) -> None:
    """What else a project has: settings, contracts, a lock, resume states, notes, an archived run's manifest."""
    for name in ("params.yaml", "dvc.yaml", "validation/exit_criteria.yaml", "validation/contracts/case.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, folder / name)
    shutil.copytree(repository / "models/recipes", folder / "models/recipes")
    shutil.copytree(repository / "validation/cohorts/prostate", folder / "validation/cohorts/prostate")
    shutil.copy(repository / "src/doseledger/planning/machine/machines/generic.yaml", folder / "machine.yaml")
    # Of a folder that is not here: a recorded one is held to its hash before anything in it is read.
    outs = [{"path": f"models/{COHORT}/elsewhere", "hash": "md5", "md5": "a" * 32 + ".dir", "size": 5, "nfiles": 3}]
    stage = {"cmd": "doseledger train dose_unet", "deps": outs, "params": {"params.yaml": {"lr": 0.1}}, "outs": outs}
    write_json(folder / "dvc.lock", {"schema": "2.0", "stages": {f"train@{COHORT}-{MODEL}": stage}})
    write_json(folder / "data/raw/phantom.dvc", {"outs": outs})
    state = folder / "states" / MODEL / "0123456789abcdef"
    write_json(state / "fingerprint.json", {"lr": 0.1, "recipe": {"kind": "dose", "fit": {"max_epochs": 3}}, "seed": 1})
    write_json(state / "heartbeat.json", {"pid": 2**22, "count": 3, "epoch": 1, "step": 9, "phase": "trains"})
    write_text(state / "last.ckpt", "weights")
    write_json(folder / "index.json", {"case_0001": {"key": "k", "md5": "m", "sha256": "s", "status": "converted"}})
    write_json(
        folder / ".dvc/tmp/rwlock",
        {"write": {"a": {"pid": 1, "cmd": "dvc repro"}}, "read": {"b": [{"pid": 1, "cmd": "x"}]}},
    )
    write_text(folder / "note.md", NOTE)
    write_json(folder / "head.json", {"audit": {"length": 3, "sha256": "a" * 64, "log_id": "b" * 64}})
    files = [{"path": f"verdicts/{gate}_findings.json", "sha256": "a" * 64, "size": 3} for gate in ("data", "model")]
    manifest = {
        "cohort": COHORT,
        "model": MODEL,
        "files": files,
        "id": "0123456789",
        "check": {"errors": []},
        "dirty": False,
    }
    write_json(folder / "archive/run_20240101_000000/manifest.json", {**manifest, "archived_at": "2024-01-01"})
    write_json(folder / "archive/run_20240101_000000/metrics_summary.json", {"mae_body_gy": 1.0, "n_cases": 3})
    write_json(folder / "archive/run_20240101_000000/verdicts/data.json", {"ok": True, "digest": "d"})
    write_text(folder / "groups.csv", "case_id,group,site\ncase_0001,A,A\ncase_0002,B,A\n")
    row = ",".join("a" * 64 if "sha256" in name else "anon_1" for name in KEY.columns)
    write_text(folder / "key.csv", ",".join(KEY.columns) + f"\n{row}\n")


def _layout(folder: Path) -> Layout:
    return Layout(folder, COHORT)


def _table(path: Callable[[Layout], Path], schema: Any) -> Reader:
    return lambda folder, out: tables.read_table(path(_layout(folder)), schema)


def _fill(folder: Path, out: Path) -> None:
    (row,) = rows_of_workspace(folder)
    fill_note(shutil.copy(folder / "note.md", out / "note.md"), row)


def _judge_tables(folder: Path, out: Path) -> Any:
    at = _layout(folder)
    cases, splits = tables.read_table(at.cases_csv, tables.CASES), tables.read_table(at.splits, tables.SPLITS)
    locked = tables.with_present_digests(tables.read_table(at.test_set, tables.TEST_SET), cases)
    return judge_splits(cases, splits, locked)


def _deal(folder: Path, out: Path) -> Any:
    at = _layout(folder)
    settings = load_settings(folder / "params.yaml").splits
    return make_splits(at.cases_csv, at.test_set, out / "splits.csv", settings, silent)


def _state(folder: Path, out: Path) -> Any:
    shutil.copytree(folder / "states", out / "states")
    open_state(out / "states", MODEL, {"lr": 0.2}, fresh=False)
    return [describe_state(one) for one in list_states(folder / "states")], rows_of_states(folder / "states")


def _recipe(folder: Path, out: Path) -> None:
    at = Layout(Path(shutil.copytree(folder / "models/recipes", out / "models/recipes")).parents[1], COHORT)
    shutil.copy(folder / "params.yaml", out / "params.yaml")
    describe_recipes(at)
    put_recipe(at, "dose_mednext")


def _at(folder: Path) -> Any:
    return _layout(folder).model(MODEL)


READERS: Mapping[str, Reader] = {
    "protocol": lambda folder, out: load_protocol(_layout(folder).protocol),
    "goals": lambda folder, out: load_goals(_layout(folder).goals),
    "thresholds": lambda folder, out: load_thresholds(_layout(folder)),
    "like": lambda folder, out: load_thresholds(Layout(folder, "prostate")),
    "settings": lambda folder, out: recipe_of(load_settings(folder / "params.yaml"), MODEL),
    "files": lambda folder, out: files_of_pipeline(_layout(folder), MODEL),
    "recipes": _recipe,
    "contract": lambda folder, out: load_contract(folder / "validation/contracts/case.yaml"),
    "criteria": lambda folder, out: load_criteria(folder / "validation/exit_criteria.yaml"),
    "machine": lambda folder, out: load_machine(folder / "machine.yaml"),
    "lock": lambda folder, out: dvc_hashes(folder / "dvc.lock"),
    "outs": lambda folder, out: recorded_outs(folder),
    "stamp": lambda folder, out: stage_outs(folder),
    "runs": lambda folder, out: gather_runs(folder, [folder / "archive"], states=folder / "states"),
    "archives": lambda folder, out: rows_of_archives(folder / "archive"),
    "facts": lambda folder, out: load_facts(_at(folder)),
    "judge": lambda folder, out: judge_model(_at(folder), fold=0, repeat=0),
    "check": lambda folder, out: check_run(files_of_model(_at(folder))),
    "compared": lambda folder, out: compared_run(files_of_model(_at(folder)), "a run"),
    "compare": lambda folder, out: compare_models(_at(folder).metrics, _at(folder).metrics, np.random.default_rng(1)),
    "suite": lambda folder, out: read_suite(_layout(folder).suite),
    "verdict": lambda folder, out: read_verdict(_layout(folder).data_verdict),
    "model verdict": lambda folder, out: read_verdict(_at(folder).model_verdict),
    "token": lambda folder, out: passed_token(_layout(folder).data_verdict.token, "data"),
    "states": _state,
    "index": lambda folder, out: _read_index(folder / "index.json"),
    "dvc": lambda folder, out: dvc_at_work(folder),
    "note": _fill,
    "anchors": lambda folder, out: file_anchors(folder / "head.json"),
    "groups": lambda folder, out: _read_groups(folder / "groups.csv", ["case_0001", "case_0002"]),
    "key": lambda folder, out: read_key(folder / "key.csv"),
    "cases": _table(lambda at: at.cases_csv, tables.CASES),
    "skipped": _table(lambda at: at.cases / "skipped.csv", tables.SKIPPED),
    "leakage": _judge_tables,
    "deal": _deal,
}  # fmt: skip
RUN, METRICS, VERDICTS = f"models/{COHORT}/{MODEL}", f"reports/metrics/{COHORT}/{MODEL}", f"reports/verdicts/{COHORT}"
OF_RUN, ARCHIVED = ("facts", "judge", "check", "compared", "runs"), "archive/run_20240101_000000"
FILES: dict[str, tuple[str, ...]] = {
    "validation/cohorts/phantom/protocol.yaml": ("protocol",),
    "validation/cohorts/phantom/goals.yaml": ("goals",),
    "validation/cohorts/phantom/thresholds.yaml": ("thresholds", "like", "judge"),
    "validation/cohorts/prostate/cohort.yaml": ("like",),
    "validation/cohorts/phantom/suite.json": ("suite",),
    "validation/contracts/case.yaml": ("contract",),
    "validation/exit_criteria.yaml": ("criteria",),
    "machine.yaml": ("machine",),
    "params.yaml": ("settings", "files", "recipes", "runs"),
    "dvc.yaml": ("outs", "stamp", "runs"),
    "dvc.lock": ("lock", "outs", "stamp", "runs"),
    "data/raw/phantom.dvc": ("outs",),
    "models/recipes/dose_mednext.yaml": ("recipes",),
    f"{RUN}/config_resolved.yaml": OF_RUN,
    f"{RUN}/run.json": OF_RUN,
    f"{RUN}/dataset_summary.json": OF_RUN,
    f"{RUN}/history.csv": OF_RUN,
    f"{METRICS}/details.json": OF_RUN,
    f"{METRICS}/calibration.json": OF_RUN,
    f"{METRICS}/shortcuts.json": ("judge",),
    f"{METRICS}/cases.csv": (*OF_RUN, "compare"),
    f"{METRICS}/dvh.csv": (*OF_RUN, "compare"),
    f"{METRICS}/goals.csv": (*OF_RUN, "compare"),
    f"{VERDICTS}/data.json": ("verdict", "token", "check", "runs"),
    f"{VERDICTS}/data_findings.json": ("verdict", "facts", "check", "runs"),
    f"{VERDICTS}/drift_findings.json": ("judge",),
    f"{VERDICTS}/{MODEL}/model.json": ("model verdict", "check", "runs"),
    f"{VERDICTS}/{MODEL}/model_findings.json": ("model verdict", "facts", "check", "runs"),
    f"states/{MODEL}/0123456789abcdef/fingerprint.json": ("states", "runs"),
    f"states/{MODEL}/0123456789abcdef/heartbeat.json": ("states", "runs"),
    f"{ARCHIVED}/manifest.json": ("archives",),
    f"{ARCHIVED}/metrics_summary.json": ("archives",),
    f"{ARCHIVED}/verdicts/data.json": ("archives",),
    "index.json": ("index",),
    ".dvc/tmp/rwlock": ("dvc",),
    "head.json": ("anchors",),
    "note.md": ("note",),
    "groups.csv": ("groups",),
    "key.csv": ("key",),
    f"data/cases/{COHORT}/cases.csv": ("cases", "leakage", "deal", "facts"),
    f"data/cases/{COHORT}/skipped.csv": ("skipped", "facts"),
    f"data/splits/{COHORT}.csv": ("leakage", "judge", "facts", "check"),
    f"validation/cohorts/{COHORT}/test_set.csv": ("leakage", "deal", "facts"),
}  # fmt: skip


def log_kind() -> Kind:
    """An audit log of eight entries, one of which names a line that was cut short."""

    def make(folder: Path) -> None:
        log = folder / "audit.jsonl"
        for number in range(8):
            append_entry(log, {"event": "began", "command": f"train {number}", "arguments": {"a": [1, None]}})
            if number == 4:
                log.write_bytes(log.read_bytes() + b'{"n": 6, "at"')

    def spoil(rng: random.Random, folder: Path) -> Spoilt:
        log = folder / "audit.jsonl"
        before = list(read_entries(log))
        words = rewrite(log, lambda content: _damage_log(rng, content))
        return Spoilt(words, ("audit.jsonl",), shows=_entries(log) != before)

    def check(folder: Path, out: Path) -> Told:
        found = verify(folder / "audit.jsonl", [])
        # Of what was cut off at its end a log alone can't tell.
        return Told({"entries": [] if found.ok else None}, said=not found.ok or found.head.length < 8)

    def append(folder: Path, out: Path) -> Any:
        log = shutil.copy(folder / "audit.jsonl", out / "audit.jsonl")
        return append_entry(log, {"event": "ended"}), verify(log, [Anchor("a tag", read_head(log))])

    readers: dict[str, Reader] = {
        "verify": check, "append": append,
        "head": lambda folder, out: (read_head(folder / "audit.jsonl"), read_log_id(folder / "audit.jsonl")),
    }  # fmt: skip
    return Kind(make, spoil, readers)


def _entries(log: Path) -> Any:
    try:
        return list(read_entries(log))
    except Exception:  # judged by the readers; here it only says that the log is another
        return None


def _damage_log(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.5:
        return damage_text(rng, content)
    lines = content.splitlines(keepends=True)
    here = rng.randrange(len(lines))
    try:
        lines[here] = as_json(damage_tree(rng, json.loads(lines[here]))) + b"\n"
    except ValueError:
        lines[here] = lines[here][:-3]
    return b"".join(lines)
