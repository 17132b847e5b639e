"""What each command hands on: the functions it calls, with what, in which order, and what it prints of their answers.

The functions are stand-ins; what they do is tried in their own rooms. A file of tests/cli/known that is deleted is
written anew.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from fixtures.known import assert_known
from fixtures.projects import copy_cohorts
from pydantic import BaseModel
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.files import write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.gates.verdict import Finding, Verdict, make_verdict

# Letters of settings that are spelled out.
MOST = 400
FIT, WARNED = ([], "d" * 64), ([Finding("volume", "case_0001", "warning", "case_0001: small")], "e" * 64)
UNFIT = ([Finding("nan", "case_0002", "error", "case_0002: NaN")], "f" * 64)


def verdict(gate: str, found: tuple[list[Finding], str] = FIT, **details: Any) -> Verdict:
    return make_verdict(gate, found[1], found[0], details)


def plain(value: Any, root: Path) -> str:
    """A value in words: paths from the project's folder on, objects by their kind and fields."""

    def inner(one: Any) -> str:
        return plain(one, root)

    if isinstance(value, Path):
        return value.relative_to(root).as_posix() if value.is_relative_to(root) else value.as_posix()
    if isinstance(value, (Layout, ModelLayout)):
        return f"{type(value).__name__} {getattr(value, 'name', value.cohort if isinstance(value, Layout) else '')}"
    if isinstance(value, BaseModel):
        # Long settings go by their kind alone: what they hold is no business of a command's.
        values = value.model_dump_json()
        told = value.name if hasattr(value, "name") else values if len(values) < MOST else "…"
        return f"{type(value).__name__}({told})"
    if isinstance(value, Verdict):
        return f"verdict of {value.gate}"
    if isinstance(value, SimpleNamespace):
        return f"<{getattr(value, 'called', 'something')}>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f"{one.name}={inner(getattr(value, one.name))}" for one in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inner(key)}: {inner(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"{type(value).__name__}[{', '.join(map(inner, value))}]"
    if isinstance(value, np.random.Generator):
        return f"rng whose next number is {value.integers(10**6)}"
    if isinstance(value, pd.DataFrame):
        return f"table of {len(value)} rows"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return type(value).__name__ if " object at 0x" in repr(value) else repr(value)


@dataclasses.dataclass
class Program:
    """The program in a project, with stand-ins for what its commands call."""

    root: Path
    patch: pytest.MonkeyPatch
    lines: list[str]

    def stand_in(self, **answers: Any) -> None:
        """Put a function that notes its arguments in place of each `module__name` below doseledger."""
        for target, answer in answers.items():
            path, _, name = target.rpartition("__")
            module = importlib.import_module(f"doseledger.{path.replace('__', '.')}")
            self.patch.setattr(module, name, self._noting(name, answer))

    def _noting(self, name: str, answer: Any) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            told = [plain(value, self.root) for value in args]
            told += [f"{key}={plain(value, self.root)}" for key, value in kwargs.items()]
            self.lines.append(f"  {name}({', '.join(told)})")
            if isinstance(answer, Exception):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        noted.__name__ = name
        return noted

    def run(self, words: str, *more: str) -> None:
        """Note a command line, what it calls, prints, and how it ends."""
        self.lines.append(f"$ {' '.join([words, *more])}")
        done = CliRunner().invoke(app, [*words.split(), *more])
        self.lines += [f"  out: {line}" for line in done.stdout.splitlines()]
        self.lines += [f"  err: {line}" for line in done.stderr.splitlines()]
        if done.exception is not None:
            text = f"  ends with {type(done.exception).__name__}: {done.exception}"
            self.lines += text.splitlines()

    def check(self, name: str) -> None:
        text = "\n".join(self.lines).replace(str(self.root), "(root)")
        assert_known(Path(__file__).parent / "known" / f"{name}.txt", text)


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


@pytest.fixture
def program(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    root = tmp_path / "project"
    layout = copy_cohorts(repository, root)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, root / name)
    shutil.copytree(repository / "reports/templates", layout.templates)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK", "DVC_EXP_NAME", "DVC_STAGE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.argv", ["doseledger"])
    # The command line is put together once.
    monkeypatch.setattr("typer.testing._get_command", lambda _: command_line())
    made = Program(root, monkeypatch, [])
    made.stand_in(
        ledger__provenance__stages__require_stage=None, ledger__provenance__outs__require_recorded=None,
        ledger__audit__anchors__keep_head=None,
    )  # fmt: skip
    return made


def test_training(program: Program) -> None:
    program.stand_in(
        gates__digests__data_digest="the data's digest", gates__verdict__require_token="token",
        gates__verdict__enforce=None, learn__kinds__make_family="family", ledger__provenance__stamp__run_provenance={},
        ledger__provenance__stamp__git_state=SimpleNamespace(describe=lambda: "DIRTY"),
        learn__watch__loggers__require_logger=None, gates__run_digest__run_digest="the run's digest",
        learn__training__train__train=None, gates__model__preflight__judge_preflight=verdict("preflight", WARNED),
    )  # fmt: skip
    for words in ("preflight dose_unet", "preflight dose_trees --json", "train dose_unet", "train nobody",
                  "train dose_trees --fresh --devices 2 --nodes 3 --cohort prostate"):  # fmt: skip
        program.run(words)
    program.check("training")


def test_predicting_and_measuring(program: Program) -> None:
    draws = SimpleNamespace(called="predictor", draws=True)
    alone = SimpleNamespace(called="predictor", draws=False)
    measured = {"n_cases": 3, "mae_above_10_percent_gy": 1.25, "mae_above_10_percent_gy_worst": 2.0}
    program.stand_in(
        learn__predict__predictor__predict_part=None, learn__kinds__open_predictor=draws,
        ingest__physics__projected=lambda one: one,
        evaluate__cohort__evaluate_cohort=measured, evaluate__segmentation__evaluate_segmentations={"n_cases": 2},
        evaluate__calibration__calibrate_cohort={"calibrated": 1}, core__files__write_json=None,
        evaluate__shortcuts__measure__measure_shortcuts={},
        evaluate__shortcuts__measure__shortcut_numbers={"a": 0.12345},
        evaluate__contours__measure_contours={"x": 1}, evaluate__contours__describe_contours=["of contours"],
    )  # fmt: skip
    for words in ("predict dose_unet", "predict dose_unet --part val --out elsewhere --scale local:2",
                  "shortcuts dose_unet", "shortcuts dose_unet --scale here --json", "contours dose_unet",
                  "contours dose_unet --by seg", "evaluate dose_unet", "evaluate dose_unet --json --scale here",
                  "evaluate dose_unet --part val", "evaluate dose_unet --predictions p",
                  "evaluate dose_unet --part val --out o --predictions p", "evaluate dose_unet --out o"):  # fmt: skip
        program.run(words)
    program.stand_in(learn__kinds__open_predictor=alone)
    program.run("predict dose_trees")
    (program.root / "data/predictions/phantom/dose_trees/test").mkdir(parents=True)
    (program.root / "data/predictions/phantom/dose_unet/val").mkdir(parents=True)
    for words in ("evaluate dose_trees", "evaluate dose_unet", "evaluate dose_unet --part train --out o"):
        program.run(words)
    params = (program.root / "params.yaml").read_text()
    write_text(program.root / "params.yaml", params.replace("contours: {}", "contours: {dose_unet: seg_own}"))
    program.run("contours dose_unet")
    program.check("measuring")


def test_judging(program: Program) -> None:
    program.stand_in(
        gates__model__judge__judge_model=verdict("model", WARNED), gates__verdict__read_verdict=verdict("model"),
        report__gate_pages__write_page=None, gates__data__cohort__judge_cohort=verdict("data", UNFIT),
        gates__drift__judge__judge_drift=verdict("drift", WARNED), gates__drift__stacks__judge_stack=verdict("stack"),
        gates__drift__metadata__judge_metadata=verdict("metadata", UNFIT), ledger__runs__listing__index__gather_runs=[],
        report__runs__write_index=None, report__gate_pages__describe_drift=["a", "b"],
        gates__drill__cohort__drill={"faults": [], "cases": ["a"], "n_others": 2, "seed": 3},
    )  # fmt: skip
    for words in ("judge dose_unet", "judge dose_unet --json", "gate dose_unet", "check data",
        "check data --scale here",
                  "drift", "check drift new --cohort prostate",
                  "check drift new --html p.html --markdown m.md --findings f.json",
                  "check stack s.npz --region core --seed 5", "check stack s.npz", "check stack s.npz --region middle",
                  "check metadata --seed 3", "check metadata --findings f.json", "drill",
                  "drill --cases 2 --fault nan --seed 1"):  # fmt: skip
        program.run(words)
    program.lines += [(program.root / name).read_text() for name in ("m.md", "f.json")]
    program.lines += [f"drill written: {Layout(program.root, 'phantom').drill.is_file()}"]
    program.stand_in(gates__verdict__read_verdict=verdict("model", UNFIT))
    program.run("gate dose_unet")
    program.check("judging")


def test_code_that_is_stale_and_files_that_are_staged(program: Program) -> None:
    staged = importlib.import_module("doseledger.ledger.provenance.staged")
    for found in ([], [staged.StagedFile("a.npz", "a case")]):
        program.stand_in(ledger__provenance__staged__staged_data=found)
        program.run("check staged")
        program.run("check staged --json")
    for stale in ([], [program.root / "reports/code/train.json"]):
        program.stand_in(ledger__provenance__stages__stale_code=stale)
        program.run("check code")
    program.check("staged")


def test_single_files(program: Program) -> None:
    one = SimpleNamespace(called="compared", found={
        "pass_rate_percent": 98.765, "n_points": 1000, "mean_gamma": 0.1234, "highest_gamma": 1.5, "n_without": 0,
        "differ": [], "largest_difference_from_pymedphys": 1.5e-12})  # fmt: skip
    other = SimpleNamespace(called="compared", found={**one.found, "n_without": 7, "differ": ["frame", "patient"]})
    program.stand_in(
        evaluate__files__gamma__compare_doses=one, evaluate__files__gamma__require_rtdose="rtdose",
        evaluate__files__gamma__write_gamma_map=None, report__gamma__write_gamma_page=None,
        evaluate__files__dvh__dvh_of_case={"of": "case"}, evaluate__files__dvh__dvh_of_rtdose={"of": "rtdose"},
        evaluate__files__dvh__describe_lines=["lines"], evaluate__openkbp__score_openkbp={"dose_score": 1.23456,
            "dvh_score": 2.0},
        evaluate__files__plan_complexity__complexity_of_files=([{"plan": 1}], []),
        evaluate__files__plan_complexity__describe_complexity=["complex", "plan"],
        evaluate__files__control_points__write_control_points=lambda path, out, machine: {path.stem: {"beams": 2,
            "segments": 9}},
        report__figures__plan_figure__plot_plan=None,
        planning__machine__linac__load_machine=lambda path: f"machine {path}",
    )  # fmt: skip
    for words in (
        "dose gamma a b", "dose gamma a b --percent 2 --mm 1 --cutoff 20 --local --interp 5 --max-gamma 1.5 "
        "--normalisation-gy 60 --engine exact --verify 9", "dose gamma a b --engine quick",
        "dose gamma a b --page p.htm",
        "dose gamma a b --page p.html --rtdose m.dcm --json", "dose dvh c.npz",
        "dose dvh c.npz d.npz --statistic D95% --statistic mean",
        "dose dvh RS.dcm", "dose dvh RS.dcm RD.dcm --prescription-gy 60", "dose score p r", "dose score p r --json",
        "plan complexity a.dcm b.dcm --machine tissue", "plan complexity a.dcm --json",
        "plan control-points a.dcm b.dcm --out o", "plan control-points x/a.dcm y/a.dcm --out o",
        "plan figure case.zip out.png",
        "plan figure case.zip out.png --protocol validation/cohorts/prostate/protocol.yaml",
    ):  # fmt: skip
        program.run(words)
    program.stand_in(
        evaluate__files__gamma__compare_doses=other, evaluate__files__plan_complexity__complexity_of_files=([],
            ["a: bad", "b: bad"]),
    )  # fmt: skip
    program.run("dose gamma a b")
    program.run("plan complexity a.dcm")
    program.check("single_files")


def test_recomputed_doses_and_fitted_machines(program: Program) -> None:
    made = importlib.import_module("doseledger.evaluate.files.plan_dose").Recomputed
    values = {
        "case_id": "c",
        "n_voxels": 9,
        "greatest_gy": 70.126,
        "worst_gy": 0.01,
        "mean_gy": 0.001234,
        "warning": "",
    }

    def dose(case: Path, beam: Any) -> Any:
        known = {field.name: values.get(field.name) for field in dataclasses.fields(made)}
        worst = {"a": 0.01, "b": 0.0101, "c": float("nan")}[case.stem]
        return made(**known | {"case_id": case.stem, "worst_gy": worst, "warning": "odd" if case.stem == "c" else ""})

    fit = SimpleNamespace(machine="machine", rows=[
        {"kind": "profile", "side_mm": 100.0, "depth_mm": 50.0, "worst_percent": 1.234, "rms_percent": 0.5},
        {"kind": "output", "side_mm": 30.0, "depth_mm": 0.0, "worst_percent": 2.0, "rms_percent": 1.0}])  # fmt: skip
    program.stand_in(
        evaluate__files__plan_dose__recompute_dose=dose,
        planning__machine__linac__load_machine=lambda path: f"machine {path}",
        planning__commissioning__scans__read_scans=(["curve"], ["a scan of air"]),
        planning__commissioning__fit__fit_machine=fit, planning__commissioning__fit__machine_as_yaml="yaml\n",
    )  # fmt: skip
    write_text(program.root / "s.csv", "scan\n")
    for words in ("dose recompute a.zip", "dose recompute a.zip b.zip --machine tissue",
        "dose recompute b --limit-gy 0.02",
                  "dose recompute c.zip --json", "machine fit s.csv --out m.yaml --name Linac1",
                  "machine fit s.csv --out m.yaml --name L --like own.yaml --gy-per-mu 0.01 --json"):  # fmt: skip
        program.run(words)
    program.lines.append((program.root / "m.yaml").read_text())
    program.check("recomputed")


def test_delivering(program: Program) -> None:
    predictor = SimpleNamespace(
        called="predictor",
        sha256="s" * 64,
        checkpoint=SimpleNamespace(all_trained_on={"a": 1}, all_selected_on={"b": 2}),
    )
    found = {"patients": {}, "failed": {}}
    program.stand_in(
        deliver__dose__read_prescription_options=lambda texts: dict.fromkeys(texts, 60.0),
        learn__kinds__recipe_of="recipe",
        deliver__dose__protocol_of_prediction=lambda rules, doses, fractions: rules,
        learn__kinds__open_predictor=predictor,
        learn__training__checkpoint__model_of="dose_unet", ingest__physics__projected=lambda one: one,
        deliver__seen__seen_cases="seen",
        report__prediction__page_maker="page maker",
        report__prediction__predictions_table=importlib.import_module("doseledger.core.text.sheet").make_table("t",
            ("a",), [("b",)]),
        ledger__registry__tag__model_origin="origin", deliver__dose__find_patients=["patient"],
        deliver__dose__predict_folder=found,
        planning__machine__linac__load_machine=lambda path: f"machine {path}",
        deliver__wishes__with_wishes=lambda goals, wishes: goals,
        deliver__wishes__read_wishes=lambda texts, rules: list(texts), deliver__gap__describe_delivery=["a plan"],
        deliver__robustness__describe_robustness=["robust"], core__files__read_json={},
        deliver__cohort__deliver_cohort={"n_cases": 3, "n_failed": 1},
        core__pool__fanout__over_cases=lambda *_,
        **__: SimpleNamespace(complete=lambda: {"case_1": {"plan": {"warnings": ["odd"]}}}),
    )  # fmt: skip
    for words in ("deliver dose m.ckpt patient out",
        "deliver dose m.ckpt patient out --batch --prescription PTV70=60 --fractions 20 "
                  "--grid-mm 2.5 --bits 32 --cases own --no-page --json", "deliver dose m.ckpt patient out --bits 8",
                  "deliver dose m.ckpt patient out --grid-mm 0", "deliver plan dose_unet",
                  "deliver plan dose_unet --robustness",
                  "deliver plan dose_unet --out o", "deliver plan dose_unet --mu-weight 0", "deliver plan case_1",
                  "deliver plan case_1 --out o", "deliver plan case_1 --out o --robustness --goal G --model dose_trees "
                  "--prediction p.npz --machine tissue --mu-weight 0 --edge-weight 1 --outline-margin-mm 2 "
                  "--json"):  # fmt: skip
        program.run(words)
    shutil.rmtree(program.root / "reports/templates")
    program.stand_in(deliver__dose__predict_folder={**found, "failed": {"p1": "no CT", "p2": "no RTSTRUCT"}})
    program.run("deliver dose m.ckpt patient out")
    program.check("delivering")


def test_structures_and_segmentations(program: Program) -> None:
    rows = {"Rectum": {"name": "Rectum", "image_volume_cc": 61.234}, "Bowel": {"reason": "it is empty"}}
    answer = {"warnings": ["odd"], "structures": rows, "files": ["rtstruct.dcm"]}
    program.stand_in(
        deliver__structures__write_structures=answer, deliver__structures__check_formats=lambda formats: tuple(formats),
        ingest__nifti__files__holds_nifti=lambda path: path.suffix == ".nii", learn__kinds__recipe_of="recipe",
        learn__kinds__open_predictor="predictor", deliver__dose__find_patients=["patient"],
        deliver__nifti__segment_images={"segmented": ["a"], "failed": {}},
        deliver__series__describe_structures=["described"],
        deliver__series__segment_patients={"segmented": ["a"], "failed": {"b": "no CT"}},
        deliver__nifti__describe_failures="b failed",
    )  # fmt: skip
    for words in ("structures write m.npz images out",
        "structures write m.npz images out --format seg --structure Rectum --largest-part all "
                  "--fill-holes Rectum --own-names --identity --json", "segment seg a.nii out",
                  "segment seg a.nii out --identity",
                  "segment seg a.nii out --batch", "segment seg a.nii out --own-names",
                  "segment seg a.nii out --format seg",
                  "segment seg patient out --checkpoint c.ckpt",
                  "segment seg patients out --batch --format seg --own-names --identity --json"):  # fmt: skip
        program.run(words)
    del rows["Bowel"]
    program.run("structures write m.npz images out")
    program.check("structures")


def test_cases(program: Program) -> None:
    count = importlib.import_module("doseledger.ingest.cohort").IngestCount
    counts = count(converted=1, reused=2, skipped=3, failed=4)
    table = pd.DataFrame({"case_id": ["a", "b"], "sha256": ["1", ""]})
    program.stand_in(
        phantom__cohort__make_cohort="made", phantom__cohort__tabulate_goals=table, ingest__pack__pack=4,
        ledger__provenance__dvc_project__cache_folder=program.root / "cache", ingest__cohort__ingest=counts,
        ingest__outcome__describe_outcome="what became of them", ingest__outcome__outcome_rows=[{"case_id": "a"}],
        ingest__outcome__refuse_nothing=None, ingest__privacy__deidentify__deidentify=["a", "b"],
        ingest__privacy__deidentify__read_salt="salt", ingest__privacy__key__key_beside="key",
        ingest__splits__make_splits={"train": {"patients": 3, "cases": 4}, "test": {"patients": 1, "cases": 1}},
        ingest__locked_test_set__lock=table, ingest__locked_test_set__unlock=table,
        ingest__physics__make_cohort_physics=table,
    )  # fmt: skip
    for words in (
        "phantom", "phantom --json --scale here", "raw pack r", "raw pack r --cohort prostate", "raw pack r --out z",
        "raw pack r --out z --cohort openkbp --json", "ingest", "ingest --shard 1/3", "ingest --json", "ingest r",
        "ingest r c",
        "ingest r c --shard 2/3 --link frame-of-reference --scale local:3",
        "ingest r c --protocol validation/cohorts/prostate/protocol.yaml",
        "ingest --protocol p.yaml", "raw deidentify r clean --salt s",
        "raw deidentify r clean --salt s --cohort prostate",
        "split", "split --json", "test-set unlock --why done --pseudonym a",
        "test-set unlock --why done --cohort prostate",
        "physics", "physics --cohort prostate --scale here", "physics --json",
    ):  # fmt: skip
        program.run(words)
    program.run("test-set lock --reason", "first look")
    program.run("test-set lock --by-name --reason", "first look")
    program.patch.setenv("DVC_STAGE", "ingest")
    program.run("ingest")
    import datetime

    program.lines = [line.replace(datetime.date.today().isoformat(), "(today)") for line in program.lines]
    program.check("cases")


def test_pages(program: Program) -> None:
    program.stand_in(
        report__model__run__make_report=None, report__data__make_data_report=None,
        report__comparison__make_comparison=None,
        ledger__runs__compared_runs__compared_run=lambda files,
        label: SimpleNamespace(called=f"{label} of {files.predictions}"),
        ledger__runs__compared_runs__run_of_metrics=lambda folder, label, predictions: SimpleNamespace(called=label),
    )  # fmt: skip
    (program.root / "tables").mkdir()
    (program.root / "data/cases/phantom").mkdir(parents=True)
    for words in (
        "report dose_unet", "report-data", "report-data --scale here --cohort prostate",
        "report-compare dose_unet tables --out o",
        "report-compare dose_unet dose_trees --out o --no-dvh --label one --label other "
        "--predictions p --predictions q", "report-compare dose_unet --out o --case a --case b --cohort prostate",
        "report-compare dose_unet dose_trees --out o --label one",
        "report-compare dose_unet --out o --predictions p --predictions q",
    ):  # fmt: skip
        program.run(words)
    at = Layout(program.root, "phantom").model("dose_trees")
    write_text(at.html, "page")
    program.run("where")
    program.run("where --json")
    program.check("pages")


def test_the_projects_own_files(program: Program) -> None:
    left = (
        program.root / "reports/code/gone.json",
        program.root / "reports/settings/phantom/dose_unet/start/gone.json",
    )
    for path in left:
        write_json(path, {})
    why = importlib.import_module("doseledger.ledger.runs.why")
    rerun = why.Rerun("train@phantom-dose_unet", ("code: a",), (), 3.0)
    program.stand_in(
        ledger__provenance__stages__code_files=lambda layout, settings: {layout.code / "train.json": {"a": "1",
            "b": "2"}},
        ledger__runs__why__find_reruns=[rerun], ledger__runs__why__describe_plan=["the plan"],
        ledger__provenance__recipes__describe_recipes={"one": "a text", "two": "more"},
        ledger__provenance__recipes__put_recipe=["a line"],
        ledger__provenance__recipes__suggest_recipe="recipe: 1\n", learn__recipes__budget__find_budget="budget",
        ledger__provenance__new_project__make_project=[Path("a"), Path("b/c")],
    )  # fmt: skip
    for words in ("init new", "init new --json", "code", "code --json", "settings", "settings dose_unet",
        "settings dose_unet --json",
                  "why", "why --plan --cohort prostate", "why --json", "base dose_unet", "base dose_trees",
                  "base dose_unet --part x",
                  "recipe list", "recipe list --json", "recipe suggest",
                  "recipe suggest seg_own --memory-gb 8 --out r.yaml",
                  "recipe suggest seg_own --out r.yaml", "recipe use one"):  # fmt: skip
        program.run(words)
    program.lines += [f"{path.name} of {path.parent.name} is left: {path.exists()}" for path in left]
    program.check("project")


def test_runs_and_their_archive(program: Program) -> None:
    row = importlib.import_module("doseledger.ledger.runs.listing.rows").RunRow
    rows = [row("a" * 10, "2026-03-01", "phantom", "dose_unet", "complete", where=("main",), settings={"lr": 0.1}),
            row("b" * 10, "2026-03-02", "phantom", "dose_unet", "failed", where=("exp",),
                metrics={"mae_body_gy": 1.0})]  # fmt: skip

    def point(check: str, *, ok: bool, blocked: str = "") -> dict[str, Any]:
        return {"check": check, "ok": ok, "title": f"the {check}", "errors": int(not ok), "blocked_by": blocked}

    def judged(files: Any, *, recompute: Any) -> Verdict:
        found = UNFIT if files.model == "dose_trees" else FIT
        points = [point("files", ok=True), point("config", ok=files.model != "dose_trees", blocked="files")]
        return verdict("run", found, model=files.model, cohort=files.cohort, checks=points,
                       recomputed_cases=["case_1", "case_2"] if recompute else [])  # fmt: skip

    program.stand_in(
        ledger__runs__check__check_run=lambda files, recompute=None: judged(files, recompute=recompute),
        ledger__runs__listing__index__gather_runs=rows, report__runs__write_index=None,
        ledger__runs__archive__archive_run=Path("run_1"),
        ledger__runs__archive__example_cases=["case_1"], ledger__audit__recording__note_fact=None,
        ledger__audit__anchors__anchor_values={"length": 1},
        ledger__runs__listing__index__rows_of_experiment_at_work=rows[:1],
    )  # fmt: skip
    program.patch.setattr("datetime.datetime", SimpleNamespace(now=lambda zone: f"now in {zone}", fromtimestamp=None))
    for words in ("runs check dose_unet", "runs check", "runs check --json --cohort prostate",
        "runs check dose_unet --recompute 2 --json",
                  "runs check dose_unet --recompute all --cases own", "runs check dose_unet --recompute some",
                  "runs archive dose_unet target", "runs archive dose_trees target --examples 0 --json", "runs list",
                  "runs list --columns",
                  "runs list exp --format csv", "runs list --sort mae_gy --descending --metric mae_body_gy "
                  "--archives x --archives y",
                  "runs list --metric mae_bod_gy", "runs list --format xml", "runs compare main exp",
                  "runs compare main exp --all --format markdown",
                  "runs compare main", "runs index", "runs index --archives x"):  # fmt: skip
        program.run(words)
    program.run("runs list --where", "mae_body_gy < 2")
    program.patch.setenv("DVC_EXP_NAME", "quick")
    program.run("runs index")
    program.check("runs")


def test_the_audit_log_and_experiments(program: Program) -> None:
    checks, log = (importlib.import_module(f"doseledger.ledger.audit.{name}") for name in ("check", "log"))
    head = log.AuditHead(7, "a" * 64)
    anchors = [checks.Anchor("tag v1", head, "l" * 64), checks.Anchor("a ref", head)]

    def checked(n_found: int, anchored: int, outside: int) -> Any:
        found = tuple(checks.AuditFinding(k, f"finding {k}") for k in range(n_found))
        return checks.AuditCheck(head, found, (checks.AuditFinding(3, "cut short"),), anchored, outside)

    prerun = importlib.import_module("doseledger.ledger.runs.prerun")
    fault = importlib.import_module("doseledger.ledger.runs.checklist").fault
    made = {"packages": {"numpy": "2", "torch": "3"}, "git": {"commit": "abc"}, "python": "3.11", "platform": "Linux"}
    ready = prerun.Readiness((), made, {"seed": 1, "splits.seed": 2})
    symptom = importlib.import_module("doseledger.ledger.runs.doctor").Symptom
    entries = [{"n": k} for k in range(4)]
    row = importlib.import_module("doseledger.ledger.runs.listing.rows").RunRow
    program.stand_in(
        ledger__audit__anchors__tag_anchors=anchors[:1], ledger__audit__anchors__ref_anchors=anchors[1:],
        ledger__audit__anchors__file_anchors=[], ledger__audit__anchors__read_given=lambda text: f"given {text}",
        ledger__audit__check__verify=checked(0, 7, 7), ledger__audit__log__read_entries=entries,
        ledger__audit__view__matches=lambda entry, wanted: entry["n"] > 0,
        ledger__audit__view__describe_entry=lambda entry: f"entry {entry['n']}",
        ledger__audit__anchors__anchor_values={"length": 7},
        ledger__audit__anchors__anchor_line="audit log: 7 entries", ledger__runs__prerun__examine_readiness=ready,
        ledger__runs__experiment__new_note=Path("notes/a.md"), ledger__runs__experiment__fill_note=None,
        ledger__runs__listing__index__gather_runs=[row("a" * 10, "", "phantom", "dose_unet", "complete", where=("exp",
            ))],
        ledger__runs__doctor__examine=[], ledger__runs__sweep__run_trial=1.5,
        ledger__runs__sweep__sweep=lambda search, run, tell: [{"name": "s-0", "score": run("s-0", {"lr": 0.1}),
            "settings": {"lr": 0.1}}],
    )  # fmt: skip
    for words in ("audit verify", f"audit verify {program.root}/m.json ../n.json --head h1 --head h2 --log "
    f"other --elsewhere {'l' * 64}",
                  "audit show",
                  "audit show --command train --who me --since 2026-01-01 --until 2026-02-01 "
                  "--status done --about x --last 2 --json",
                  "audit head", "audit head --json", "experiment ready", "experiment ready --json", "doctor",
                  "experiment fill n.md --run exp --archives x"):  # fmt: skip
        program.run(words)
    program.run(
        "experiment new dvh-term --model dose_unet --notes notes --hypothesis", "it helps", "--criterion", "mae_gy < 3"
    )
    for check in (checked(2, 5, 0), checked(1, 7, 5), checked(0, 6, 6)):
        program.stand_in(ledger__audit__check__verify=check)
        program.run("audit verify")
        program.run("audit verify --json")
    program.stand_in(
        ledger__audit__view__matches=lambda entry, wanted: False, ledger__runs__doctor__examine=[symptom("mend", "a",
            "b", "c", "d"), symptom("note", "e", "f", "g", "h")],
        ledger__runs__prerun__examine_readiness=prerun.Readiness((fault("code", "dirty", "clean", "commit"),), made,
            {}),
    )  # fmt: skip
    for words in ("audit show", "doctor", "doctor --json", "experiment ready"):
        program.run(words)
    layout = Layout(program.root, "phantom")
    write_text(layout.splits, "case_id,pseudonym,group,sha256,repeat,fold,split\n" + "".join(
        f"case_{k},p{k},A,{k:064x},0,{fold},{part}\n" for k, (fold, part) in enumerate([(0, "train"), (0, "val"), (0,
            "val"), (0, "test"), (1, "test")])))  # fmt: skip
    for words in (
        "sweep dose_unet --space lr=1e-4:1e-2:log",
        "sweep dose_unet --space a=1:3 --space b=x,y --name own --trials 3 --seed 9 --json",
    ):
        program.run(words)
    import datetime

    program.lines = [line.replace(repr(datetime.date.today()), "(today)") for line in program.lines]
    program.check("records")


def test_the_registry(program: Program) -> None:
    tag = importlib.import_module("doseledger.ledger.registry.tag")
    given = tag.Promotion("research", "dose_unet#research", "me", "2026-03-02", {})
    record = {"checkpoint": {"sha256": "c" * 64}, "cohort": "phantom"}
    version = tag.Version("dose_unet", "v0.1.0", "a" * 40, "me", "2026-03-01T10:00", record, (given,))
    retired = dataclasses.replace(version, version="v0.2.0", retired="wrong", promotions=())
    bare = dataclasses.replace(version, version="v0.3.0", promotions=())
    fetched = SimpleNamespace(called="fetched", checkpoint=Path("o/best.ckpt"))
    criterion = SimpleNamespace(check="metrics")
    results = [
        SimpleNamespace(criterion=criterion, missing="too few cases"),
        SimpleNamespace(criterion=criterion, missing=""),
    ]
    program.stand_in(
        ledger__registry__release__open_release="release", ledger__registry__versions__register=version,
        ledger__registry__versions__promote=version,
        ledger__registry__versions__sign_off={"by": "me"}, ledger__registry__versions__retire=retired,
        ledger__audit__recording__note_fact=None,
        ledger__registry__tag__read_versions=[version, retired, bare], ledger__registry__tag__find_version=version,
        ledger__registry__fetch__write_card="card",
        ledger__registry__versions__judge_stage=lambda files, version, stage,
        baseline: results if stage == "candidate" else results[1:],
        ledger__registry__fetch__fetch_version=fetched, ledger__registry__fetch__keep_version=Path("kept.ckpt"),
        ledger__registry__fetch__check_version=[SimpleNamespace(identical=True), SimpleNamespace(identical=False)],
    )  # fmt: skip
    shutil.copy(
        Path(__file__).parents[2] / "validation/exit_criteria.yaml", program.root / "validation/exit_criteria.yaml"
    )
    for words in ("registry register dose_unet --version v0.1.0",
        "registry register dose_unet --version v0.1.0 --cohort prostate --json",
                  "registry promote dose_unet@v0.1.0 --stage research",
                  "registry promote dose_unet@v0.1.0 --stage candidate --baseline dose_trees@v0.1.0",
                  "registry show", "registry show --json", "registry show dose_unet@v0.1.0",
                  "registry show dose_unet@v0.1.0 --baseline x@v1 --json",
                  "registry get dose_unet@v0.1.0 --out o",
                  "registry get dose_unet@v0.1.0 --out o --check cases"):  # fmt: skip
        program.run(words)
    program.run("registry sign-off dose_unet@v0.1.0 --statement", "looked at")
    program.run("registry retire dose_unet@v0.1.0 --why", "wrong data")
    program.stand_in(ledger__registry__tag__read_versions=[])
    program.run("registry show")
    kept = importlib.import_module("doseledger.cli.record.registry").kept_version("dose_unet@v0.1.0")
    program.lines.append(f"kept: {kept}")
    program.check("registry")


def test_bundles_and_parity(program: Program) -> None:
    verify = importlib.import_module("doseledger.ledger.bundle.verify")
    rot = importlib.import_module("doseledger.ledger.bundle.bitrot")
    whole, bad = (
        verify.BundleCheck("x.tar", [], 4, 12_345_678),
        verify.BundleCheck("x.tar", ["a: changed"], 4, 12_345_678),
    )
    result = SimpleNamespace(
        called="result",
        pairs=[{"equal": True}, {"equal": False}, {"equal": True}],
        unpaired=["b.npz: alone"],
        n_compared=2,
    )
    write_text(program.root / "x.tar.index.json", "{}")
    program.stand_in(
        ledger__bundle__pack__pack={"size": 2_500_000, "parts": [1, 2]}, ledger__audit__recording__note_fact=None,
        ledger__provenance__dvc_project__cache_folder=Path("cache"), core__files__sha256_of_file="digest",
        ledger__audit__anchors__anchor_values={"length": 1},
        ledger__bundle__verify__verify_bundle=whole, ledger__bundle__rehydrate__rehydrate=whole,
        parity__contract__load_contract=SimpleNamespace(called="rules", name="case"),
        parity__check__check_data_set=SimpleNamespace(lines=[], files={"a": 1}),
        ledger__bundle__bitrot__verify_recorded=rot.RotReport([], 5, 9, 1000, ["gone"]),
        ledger__bundle__bitrot__verify_objects=rot.RotReport(["object bad"], 3, 3, 10, []),
        parity__compare__compare_sets=result, gates__parity__judge_parity=verdict("parity", UNFIT),
        report__parity_page__write_parity=None,
    )  # fmt: skip
    protocol = "validation/cohorts/phantom/protocol.yaml"
    for words in (
        "bundle pack x.tar",
        "bundle pack x.tar --data d --run r --report p --contract c.yaml --file a.h5 --file b.h5 "
        "--params - --params p.json "
        "--stage s --stage - --evidence e.log --part-size-mb 3 --scenario S-1 "
        f"--dicom-protocol {protocol} --templates t --json",
        "bundle pack x.tar --scenario ../x", "bundle verify x.tar", "bundle verify x.tar --sha256 abc --json",
        "bundle rehydrate x.tar out",
        "bundle rehydrate x.tar out --sha256 abc --json", "bundle check d --contract c.yaml", "verify",
        "verify . --whole-cache", "verify --whole-cache --json",
        "parity a b --contract c --out o",
        "parity a b --contract c --out o --limit 3 --scenario S --json --templates t",
        "parity a b --contract c --out o --gate",
        "parity a b --contract c --out o --gate --findings f.json --json",
        "parity a b --contract c --out o --findings f.json",
        "parity a b --contract c --out o --gate --limit 2",
    ):  # fmt: skip
        program.run(words)
    program.stand_in(
        ledger__bundle__verify__verify_bundle=bad, parity__check__check_data_set=SimpleNamespace(lines=["a: NaN"],
            files={"a": 1, "b": 2}),
        ledger__bundle__bitrot__verify_recorded=rot.RotReport(["a rotted"], 5, 9, 1000, []),
    )  # fmt: skip
    for words in ("bundle verify x.tar", "bundle check d --contract c.yaml --json", "verify"):
        program.run(words)
    program.stand_in(ledger__provenance__dvc_project__cache_folder=None)
    program.run("verify elsewhere")
    write_text(program.root / ".doseledger/audit.jsonl", "")
    program.run("bundle pack x.tar")
    program.check("bundles")


def test_what_the_audit_log_keeps_of_a_command(program: Program) -> None:
    found: list[Any] = []
    program.patch.setattr("doseledger.cli.audited.recorded_as", lambda footprint: found.append(footprint) or _Nothing())
    program.stand_in(ingest__splits__make_splits={}, report__model__run__make_report=None,
        gates__verdict__read_verdict=verdict("model"),
                     ledger__runs__listing__index__gather_runs=[], report__runs__write_index=None,
                     evaluate__files__control_points__write_control_points={},
                     phantom__cohort__make_cohort="made", phantom__cohort__tabulate_goals=pd.DataFrame())  # fmt: skip
    for words in ("split", "report dose_unet --cohort prostate", "gate dose_unet",
        "plan control-points a.dcm --out o --machine tissue", "phantom",
                  "predict dose_unet --part val --out elsewhere", "predict dose_unet",
                  "split --cohort nobody"):  # fmt: skip
        program.lines.append(f"$ {words}")
        CliRunner().invoke(app, words.split())
        program.lines.append(f"  {plain(found[-1], program.root)}")
    program.check("audited")


class _Nothing:
    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def test_comparing_goals_and_interrupted_trainings(program: Program) -> None:
    for name in ("t", "u"):
        write_text(program.root / name / "cases.csv", "case_id\n")
    program.stand_in(
        evaluate__compare__compare_models={"a": 1}, evaluate__compare__describe_comparison=["compared"],
        evaluate__pooling__pool_runs={"k": 1}, evaluate__pooling__describe_pool=["pooled"],
        ledger__runs__recorded_run__recorded_run=lambda root, paths, name, folder: name,
        evaluate__files__goals__lint_goal_file=lambda path, protocol: ["odd", "bad"] if path.stem == "b" else [],
        evaluate__files__goals__convert_goal_file=SimpleNamespace(called="goals", model_dump=lambda mode: {"as": mode}),
        evaluate__files__goals__goals_as_yaml="yaml\n", learn__training__resume__list_states=[Path("state")],
        learn__watch__heartbeat__describe_state={"model": "m", "fingerprint": "f", "epoch": 3, "step": 4},
        learn__training__resume__clear_states=2, learn__watch__watchdog__watch=3,
    )  # fmt: skip
    for words in (
        "compare t u", "compare t u --markdown m.md --seed 3 --json", "pool t u --predictions p --predictions q",
        "pool t u --predictions p", "pool t nobody --predictions p", "pool one two",
        "pool one two --model dose_trees --markdown n.md --seed 2 --json", "goals lint a.yaml",
        "goals lint a.yaml b.yaml --protocol p.yaml", "goals lint b.yaml --json",
        "goals convert a b --fractions 20 --alpha-beta Rectum=3 --keep PTV70 --from-fractions 28",
        "goals convert a b --fractions 20 --alpha-beta Rectum=3 --json", "resume list", "resume list dose_unet --json",
        "resume clear dose_unet", "watchdog -- train dose_unet", "watchdog -- predict dose_unet",
    ):  # fmt: skip
        program.run(words)
    program.stand_in(learn__training__resume__list_states=[])
    program.run("resume list")
    for name, value in (("WORLD_SIZE", "1"), ("SLURM_NTASKS", "2"), ("SLURM_NTASKS", "1")):
        program.patch.setenv(name, value)
        program.run("watchdog -- train dose_unet")
        program.patch.delenv(name)
    program.lines += [(program.root / name).read_text() for name in ("m.md", "n.md")]
    program.check("compared")
