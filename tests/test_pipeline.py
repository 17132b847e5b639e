"""dvc.yaml against the code: what a stage's command reaches is what the stage depends on."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from doseledger.core.files import read_yaml
from doseledger.core.project.layout import Layout
from doseledger.core.settings import load_settings
from doseledger.ledger.provenance.stages import MODEL_STAGES, STAGES, code_of, model_files, stale_code

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
PACKAGE = "doseledger"
# They write what the others depend on.
FIRST = {"code", "settings", "model_settings", "base", "part"}
# What a command does besides its stage's work, and no result hangs on: it finds files and settings (which the stage
# depends on, resolved), asks whether gates have passed, and records.
AROUND = (
    "doseledger.cli",
    "doseledger.core.errors",
    "doseledger.core.project.layout",
    "doseledger.gates.digests",
    "doseledger.gates.limits",
    "doseledger.gates.run_digest",
    "doseledger.gates.verdict",
    "doseledger.ingest.outcome",
    "doseledger.learn.kinds",
    "doseledger.learn.run",
    "doseledger.ledger.provenance",
    "doseledger.report.tables.results",
)


@cache
def command_modules() -> dict[str, ast.Module]:
    """Return the trees of the modules that hold the commands."""
    return {file.stem: ast.parse(file.read_text()) for file in sorted((SOURCE / PACKAGE / "cli").glob("*.py"))}


def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in command_modules()[module].body if isinstance(node, ast.FunctionDef)}


def command_functions() -> dict[str, tuple[str, ast.FunctionDef]]:
    """Return the module and function of each command, `check data` included."""
    found = {}
    for module in command_modules():
        for function in functions_of(module).values():
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(".command"):
                    group = ast.unparse(decorator.func).split(".")[0]
                    name = decorator.args[0].value if decorator.args else function.name.replace("_", "-")
                    found[name if group == "app" else f"{group.removesuffix('_app')} {name}"] = (module, function)
    return found


def modules_named(node: ast.AST) -> set[str]:
    """Return the modules of ours that a function imports from."""
    items = (item for item in ast.walk(node) if isinstance(item, ast.ImportFrom))
    return {str(item.module) for item in items if str(item.module).startswith(PACKAGE)}


def modules_of_command(command: str) -> set[str]:
    """Return what a command imports, itself and through the functions of its module that it calls."""
    module, function = command_functions()[command]
    helpers, todo, seen, found = functions_of(module), [function], set(), set()
    while todo:
        node = todo.pop()
        found |= modules_named(node)
        called = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} & helpers.keys() - seen
        seen |= called
        todo += [helpers[name] for name in called]
    return found


def stages() -> dict[str, dict]:
    found = {}
    for path in (REPOSITORY / "dvc.yaml", REPOSITORY / "data/raw/dvc.yaml"):
        for name, stage in read_yaml(path)["stages"].items():
            found[name] = stage.get("do", stage)
    return found


def command_of(stage: dict) -> str:
    words = stage["cmd"].split()
    assert words[0] == "doseledger", f"a stage is one command of ours, found {stage['cmd']}"
    two = " ".join(words[1:3])
    return two if two in command_functions() else words[1]


def test_every_stage_depends_on_the_one_file_of_its_code() -> None:
    assert set(stages()) == FIRST | set(STAGES) | set(MODEL_STAGES)
    for name, stage in stages().items():
        files = {dep for dep in stage["deps"] if dep.startswith("reports/code/")}
        model = "${key}/" if name == "contours" else "${item.model}/"
        own = f"reports/code/{model if name in MODEL_STAGES else ''}{name}.json"
        assert files == (set() if name in FIRST else {own})
        assert not [dep for dep in stage["deps"] if dep.startswith("src/") and name != "code"]


@pytest.mark.parametrize("name", sorted((set(STAGES) | set(MODEL_STAGES)) - FIRST))
def test_what_a_stages_command_imports_is_in_the_file_of_its_code(name: str) -> None:
    kinds = ["dose", "diffusion"] if name in MODEL_STAGES else [None]
    known = set.intersection(*({*code_of(name, kind)} for kind in kinds))
    strangers = {
        module
        for module in modules_of_command(command_of(stages()[name]))
        if module not in known and not module.startswith(AROUND)
    }
    assert not strangers, f"stage {name}: {strangers} are no part of its code; name them in STAGES or MODEL_STAGES"


def test_the_hashes_of_code_that_git_keeps_are_of_this_code() -> None:
    stale = stale_code(Layout(REPOSITORY, "phantom"), load_settings(REPOSITORY / "params.yaml"))
    assert not stale, "the first run in a fresh clone would edit tracked files: `doseledger code`, and commit them"


def test_another_pool_reruns_nothing() -> None:
    assert not [name for name, stage in stages().items() if "scale" in str(stage.get("params", []))]
    settings = load_settings(REPOSITORY / "params.yaml")
    at = Layout(REPOSITORY, "phantom").model("dose_unet")
    elsewhere = settings.model_copy(update={"scale": settings.scale.asked("dask:tcp://host:8786")})
    assert model_files(at, elsewhere) == model_files(at, settings)


def test_editing_prediction_does_not_retrain() -> None:
    assert "doseledger.learn.predict.cases" in code_of("predict", "dose")
    assert not [name for name in code_of("train", "dose") if ".predict." in name or ".ledger." in name]


def test_editing_one_kind_of_model_does_not_retrain_the_other() -> None:
    dose, diffusion = (set(code_of("train", kind)) for kind in ("dose", "diffusion"))
    assert not [name for name in dose if "diffusion" in name or name.endswith(("denoiser", "draws"))]
    assert not diffusion & {f"doseledger.learn.{name}" for name in ("families.dose", "losses.dose", "losses.dvh")}


def test_editing_training_does_not_ingest_again_and_no_gate_reaches_what_it_judges() -> None:
    assert not [name for name in code_of("ingest") if ".learn." in name or ".gates." in name]
    assert not [name for name in code_of("check_data") if ".learn." in name or ".ingest." in name]


def test_no_path_of_the_pipeline_stands_in_the_package() -> None:
    for file in SOURCE.rglob("*.py"):
        if file.name == "layout.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                assert not node.value.startswith(("data/", "models/", "reports/metrics", "reports/verdicts")), (
                    f"{file}:{node.lineno}: {node.value!r} belongs into core/project/layout.py"
                )


def test_imports_run_downward_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
