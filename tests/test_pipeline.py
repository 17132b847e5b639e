"""dvc.yaml against the code: a stage lists the very files of code that its command reaches, no more and no fewer."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from doseledger.core.code import reached_code
from doseledger.core.files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
PACKAGE = "doseledger"


def imported_names(node: ast.AST) -> set[str]:
    names: set[str] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            names |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom) and item.module and not item.level:
            names |= {item.module} | {f"{item.module}.{alias.name}" for alias in item.names}
    return {name for name in names if name.startswith(f"{PACKAGE}.")}


@cache
def reached_from_module(name: str) -> frozenset[Path]:
    """Return the files that importing a module can reach."""
    files = (SOURCE / (found if "/" in found else f"{found.replace('.', '/')}.py") for found in reached_code(name))
    return frozenset(file for file in files if file.is_file())


@cache
def command_modules() -> dict[str, ast.Module]:
    """Return the trees of the modules that hold the commands."""
    return {file.stem: ast.parse(file.read_text()) for file in sorted((SOURCE / PACKAGE / "cli").glob("*.py"))}


def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in command_modules()[module].body if isinstance(node, ast.FunctionDef)}


def command_functions() -> dict[str, tuple[str, ast.FunctionDef]]:
    """Return the module and function of each command, `splits lock` included."""
    found = {}
    for module in command_modules():
        for function in functions_of(module).values():
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(".command"):
                    group = ast.unparse(decorator.func).split(".")[0]
                    name = decorator.args[0].value if decorator.args else function.name.replace("_", "-")
                    found[name if group == "app" else f"{group.removesuffix('_app')} {name}"] = (module, function)
    return found


def reached_by_command(command: str) -> set[str]:
    """Return the files of code that a command reaches: imports in its body and in the helpers of the commands."""
    module, function = command_functions()[command]
    helpers = functions_of("shared") | functions_of(module)
    files: set[Path] = set()
    todo: list[ast.AST] = [function]
    seen: set[str] = set()
    while todo:
        node = todo.pop()
        for name in imported_names(node):
            files |= reached_from_module(name)
        called = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} & helpers.keys() - seen
        seen |= called
        todo += [helpers[name] for name in called]
    # The commands themselves hold no logic, and what they import at their top (errors) changes no number.
    return {str(file.relative_to(REPOSITORY)) for file in files}


def stages() -> dict[str, dict]:
    found = {}
    for path in (REPOSITORY / "dvc.yaml", REPOSITORY / "data/raw/dvc.yaml"):
        for name, stage in read_yaml(path)["stages"].items():
            found[name] = stage.get("do", stage)
    return found


def command_of(stage: dict) -> str:
    words = stage["cmd"].split()
    assert words[0] == "doseledger", f"a stage is one command of ours, found {stage['cmd']}"
    commands = command_functions()
    two = " ".join(words[1:3])
    return two if two in commands else words[1]


@pytest.mark.parametrize("name", sorted(stages()))
def test_a_stage_depends_on_exactly_the_code_it_reaches(name: str) -> None:
    stage = stages()[name]
    listed = {dep for dep in stage.get("deps", []) if dep.startswith("src/")}
    reached = reached_by_command(command_of(stage))
    missing = "".join(f"\n        - {path}" for path in sorted(reached - listed))
    needless = "".join(f"\n        - {path}" for path in sorted(listed - reached))
    assert not missing, f"stage {name}: add to its deps:{missing}"
    assert not needless, f"stage {name}: remove from its deps:{needless}"


# Of a model's block, what changes no weight: how patches are brought, and how it predicts.
NOT_TRAINED = frozenset({"loader", "predict"})


@pytest.mark.parametrize(("kind", "stage"), [("dose", "train"), ("diffusion", "train_diffusion")])
def test_training_depends_on_every_key_of_a_models_block_that_decides_its_weights(kind: str, stage: str) -> None:
    blocks = {
        name: block
        for name, block in read_yaml(REPOSITORY / "params.yaml").items()
        if isinstance(block, dict) and block.get("kind") == kind
    }
    assert blocks
    listed = {param for param in stages()[stage]["params"] if isinstance(param, str)}
    for name, block in blocks.items():
        missing = sorted(key for key in block.keys() - NOT_TRAINED if f"${{item}}.{key}" not in listed)
        assert not missing, f"stage {stage}: {name}.{missing[0]} is no param of it: an edit there would not retrain"


def test_editing_prediction_does_not_retrain() -> None:
    assert "src/doseledger/learn/predict/cases.py" not in reached_by_command("train")


def test_editing_one_kind_of_model_does_not_retrain_the_other() -> None:
    def own(command: str) -> set[str]:
        return {Path(path).stem for path in reached_by_command(command) if "/learn/" in path}

    assert not {name for name in own("train") if "diffusion" in name} | (own("train") & {"denoiser", "sample"})
    assert not own("train-diffusion") & {"tasks", "losses", "dvh_terms", "sample"}


def test_editing_training_does_not_ingest_again() -> None:
    assert not {path for path in reached_by_command("ingest") if "/learn/" in path or "/gates/" in path}


def test_no_path_of_the_pipeline_stands_in_the_package() -> None:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                assert not node.value.startswith(("data/", "models/", "reports/metrics", "reports/verdicts")), (
                    f"{file}:{node.lineno}: {node.value!r} belongs into dvc.yaml"
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
