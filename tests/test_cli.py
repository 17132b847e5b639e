"""The command line as a person meets it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from doseledger.cli.app import GONE, RENAMED, _present_options, app
from doseledger.cli.shared import complete_cohorts, complete_models, complete_versions
from doseledger.core.case import Case
from doseledger.core.errors import NotReady

EXECUTABLE = Path(sys.executable).with_name("doseledger")


def commands(group: typer.main.TyperGroup, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        nested = isinstance(command, typer.main.TyperGroup)
        found += commands(command, (*prefix, name)) if nested else [(*prefix, name)]
    return found


ALL = commands(typer.main.get_command(app))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="doseledger")
    assert shown.exit_code == 0
    assert "Example: " in shown.output
    example = " ".join(shown.output.split("Example: ", 1)[1].split())
    assert f"{example} ".startswith(f"doseledger {' '.join(command)} ")


def test_every_command_and_group_stands_in_a_panel() -> None:
    groups = typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    assert [name for name, command in groups if not getattr(command, "rich_help_panel", None)] == []


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, contextlib\n"
        "from doseledger.cli.app import app\n"
        "with contextlib.suppress(SystemExit): app(['--help'])\n"
        "heavy = {'numpy', 'pandas', 'torch', 'pydicom', 'numba', 'monai', 'pandera', 'dvc'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_is_one_message_and_exit_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [EXECUTABLE, "inspect", str(tmp_path / "case_0001.npz")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "\nerror: case_0001: no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "names"),
    [("train ", ["dose_trees", "dose_unet"]), ("ingest --cohort ph", ["phantom"]), ("registry fetch nothing", [])],
)
def test_the_shell_completes_models_cohorts_and_versions(line: str, names: list[str], repository: Path) -> None:
    words = f"doseledger {line}"
    place = len(words.split()) - (not line.endswith(" "))
    asked = {"_DOSELEDGER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run(
        [EXECUTABLE], env={**os.environ, **asked}, cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == names


def test_outside_a_project_the_shell_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (complete_models(""), complete_cohorts(""), complete_versions("")) == ([], [], [])


def test_inspect_describes_a_case_in_json(make_case: Callable[..., Case], tmp_path: Path) -> None:
    case = make_case()
    case.save(tmp_path / "case_0001.npz")
    shown = CliRunner().invoke(app, ["case", "show", str(tmp_path / "case_0001.npz"), "--json"])
    described = json.loads(shown.output)
    rectum = described["structures"]["Rectum"]
    assert rectum["voxels"] == case.mask("Rectum").sum()
    assert rectum["volume_cc"] == pytest.approx(case.mask("Rectum").sum() * 0.216)
    assert described["prescription_gy"] == {"PTV70": 70.0, "PTV56": 56.0}
    assert described["source_sha256"] == case.meta["source_sha256"]


def test_gamma_of_a_case_with_itself_is_zero(make_case: Callable[..., Case], tmp_path: Path) -> None:
    path = tmp_path / "case_0001.npz"
    make_case().save(path)
    shown = CliRunner().invoke(app, ["dose", "gamma", str(path), str(path), "--json"])
    found = json.loads(shown.output)
    assert found["pass_rate_percent"] == 100.0
    assert found["highest_gamma"] == 0.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--percent", "1", "--mm", "1", "--local"], 93.60),
        (["--percent", "2", "--mm", "2", "--local"], 99.25),
        (["--percent", "3", "--mm", "3"], 99.95),
    ],
)
def test_gamma_of_measured_planes_is_the_published_one(shared_data: Path, options: list[str], expected: float) -> None:
    planes = [str(shared_data / "gamma" / f"H&N_VMAT_{which}_1mmPx.dcm") for which in ("Reference", "Evaluated")]
    shown = CliRunner().invoke(app, ["dose", "gamma", *planes, *options, "--cutoff", "20", "--verify", "20", "--json"])
    found = json.loads(shown.output)
    assert round(found["pass_rate_percent"], 2) == expected
    assert found["largest_difference_from_pymedphys"] < 1e-10


def test_a_plane_is_not_compared_with_a_volume(
    shared_data: Path, make_case: Callable[..., Case], tmp_path: Path
) -> None:
    make_case().save(tmp_path / "case_0001.npz")
    plane = shared_data / "gamma" / "H&N_VMAT_Reference_1mmPx.dcm"
    done = subprocess.run(
        [EXECUTABLE, "gamma", str(plane), str(tmp_path / "case_0001.npz")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "a plane can be compared with a parallel plane only" in done.stderr


def test_dvh_reads_the_clinics_own_files(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "dicompyler_breast_imrt"
    files = [str(folder / "rtss.dcm"), str(folder / "rtdose.dcm")]
    shown = CliRunner().invoke(app, ["dose", "dvh", *files, "--statistic", "mean", "--json"])
    heart = json.loads(shown.output)["structures"]["Heart"]["statistics"]["mean"]
    assert heart["unit"] == "Gy"
    # 4.619 % of 14 Gy in the planning system's own DVH (DVHMeanDose, in percent although DoseUnits says GY).
    stored = pytest.importorskip("pydicom").dcmread(folder / "rtdose.dcm").DVHSequence
    percents = {int(item.DVHReferencedROISequence[0].ReferencedROINumber): float(item.DVHMeanDose) for item in stored}
    names = {
        int(roi.ROINumber): str(roi.ROIName)
        for roi in pytest.importorskip("pydicom").dcmread(folder / "rtss.dcm").StructureSetROISequence
    }
    mean_gy = next(14.0 * percent / 100.0 for number, percent in percents.items() if names[number] == "Heart")
    assert heart["value"] == pytest.approx(mean_gy, rel=0.01, abs=0.02)


def test_make_run_ends_by_saying_where_the_report_is(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = (repository / "Makefile").read_text()
    assert "$(BIN)/doseledger where;" in recipe
    assert recipe.index("$(BIN)/doseledger why --plan") < recipe.index("$(BIN)/dvc repro;")
    # From any folder inside the project.
    monkeypatch.chdir(repository / "docs" / "how-to")
    shown = CliRunner().invoke(app, ["where"])
    assert shown.exit_code == 0
    assert "dose_unet: " in shown.output


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (["--workers", "0"], ["--scale", "here"]), (["--workers=3"], ["--scale", "local:3"]),
        (["--cluster", "tcp://a:8786"], ["--scale", "dask:tcp://a:8786"]), (["--scale", "here"], ["--scale", "here"]),
    ],
)  # fmt: skip
def test_a_former_option_still_works_and_says_what_it_is_now(words, now, capsys):
    assert _present_options(["ingest", "raw", *words, "--json"]) == ["ingest", "raw", *now, "--json"]
    told = capsys.readouterr().err
    assert told == ("" if words == now else f"`{' '.join(words).replace('=', ' ')}` is `{' '.join(now)}` now\n")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_former_name_is_told_and_leads_to_a_command(old: str, new: str) -> None:
    assert tuple(new.split()) in ALL
    done = subprocess.run([EXECUTABLE, *old.split(), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == f"`doseledger {old}` is called `doseledger {new}` now\n"


@pytest.mark.parametrize(("old", "now"), GONE.items())
def test_a_command_that_is_gone_says_what_to_type(old: str, now: str) -> None:
    assert tuple(now.split()[1:2]) in ALL
    done = subprocess.run([EXECUTABLE, *old.split(), "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: `doseledger {old}` is gone; now: {now}\n")


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_summaries_are_short(command: tuple[str, ...]) -> None:
    found: Any = typer.main.get_command(app)
    for word in command:
        found = found.commands[word]
    assert len(found.help.split("\n")[0]) <= 50, found.help


def test_outside_a_project_a_stage_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotReady, match=r"no dvc\.yaml with a params\.yaml here or in a folder above"):
        CliRunner().invoke(app, ["train", "dose_unet"], catch_exceptions=False)


def test_another_clones_own_code_is_run_in_its_folder(tmp_path: Path, repository: Path) -> None:
    shutil.copytree(repository / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "src/doseledger/cli/app.py").open("a") as stream:
        stream.write("\n\n# the other clone's\n")
    edited = (tmp_path / "src/doseledger/cli/app.py").read_text()
    edited = edited.replace("def main() -> NoReturn:", "def main() -> NoReturn:\n    print(__file__)", 1)
    (tmp_path / "src/doseledger/cli/app.py").write_text(edited)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [EXECUTABLE, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(tmp_path / "src/doseledger/cli/app.py")), done.stderr


def test_json_stands_alone_on_stdout(shared_data: Path, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "becker").symlink_to(shared_data / "dicom" / "proknow_becker_hn")
    protocol = repository / "tests/ingest/patient/protocols/becker_hn.yaml"
    done = subprocess.run(
        [EXECUTABLE, "ingest", tmp_path / "raw", tmp_path / "out", "--protocol", protocol, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert [(row["case"], row["state"]) for row in told.pop("cases")] == [("becker", "converted")]
    assert told == {"converted": 1, "reused": 0, "skipped": 0, "failed": 0}
    assert "[1/1] becker" in done.stderr


def _options_left_alone(path: Path) -> list[str]:
    """Parameters of commands that nothing in their body reads."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and any("app.command" in ast.unparse(one) for one in node.decorator_list):
            read = {name.id for line in node.body for name in ast.walk(line) if isinstance(name, ast.Name)}
            given = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
            found += [f"{path.name}: {node.name} {name}" for name in given if name not in read]
    return found


def test_each_option_of_a_command_is_passed_on(repository: Path) -> None:
    paths = sorted((repository / "src/doseledger/cli").rglob("*.py"))
    assert [line for path in paths for line in _options_left_alone(path)] == []


DEFAULTS = {
    "recipe suggest --name": "seg_suggested", "survey --pictures": True, "ingest --link": "references",
    "drill --cases": 3, "drill --seed": 20250801, "check stack --region": "both", "check stack --seed": 20250801,
    "check metadata --seed": 20250801, "predict --part": "test", "evaluate --part": "test",
    "dose gamma --percent": 3.0, "dose gamma --mm": 3.0, "dose gamma --cutoff": 10.0, "dose gamma --interp": 10,
    "dose gamma --max-gamma": 2.0, "dose gamma --engine": "auto", "dose recompute --limit-gy": 0.01,
    "compare --seed": 20250101, "pool --seed": 20250101, "deliver dose --bits": 16, "deliver dose --page": True,
    "report-compare --dvh": True, "runs check --recompute": "0", "runs archive --examples": 3,
    "runs list --form": "table", "runs compare --form": "table", "sweep --name": "sweep", "sweep --trials": 20,
    "sweep --seed": 1, "verify --root": Path("."),
}  # fmt: skip


def test_what_is_done_where_nobody_asks_for_another_thing() -> None:
    found = {}
    for words in ALL:
        command: Any = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        for option in command.params:
            name = f"{' '.join(words)} --{option.name.replace('_', '-')}"
            if option.default not in (None, False, "") and not getattr(command, "hidden", False):
                found[name] = option.default
    assert found == DEFAULTS
