"""A project of many small cases: time and memory of what goes over all of them.

    python benchmarks/scale.py FOLDER [--cases 1000] [--only STEP ...]

FOLDER keeps the project and `figures.json`: a step that is noted there is not taken again, so that a run which was
stopped goes on, unless --only names it. CPU seconds and the highest memory of one process are those of the command and
all that it started.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from doseledger.core.files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
# Slices as many as a pelvis has; few pixels.
SLICES, ROWS, COLUMNS, SPACING_MM = 100, 40, 48, (3.0, 4.0, 4.0)
COHORT = "many"
GATE, REPORT = f"check_data@{COHORT}", f"report_data@{COHORT}"


class Project:
    """A project in a folder of its own, and the figures of what was done in it."""

    def __init__(self, folder: Path, n_cases: int) -> None:
        self.root, self.n_cases = folder / "project", n_cases
        self.remote, self.clone, self.notes = folder / "remote", folder / "clone", folder / "figures.json"
        self.figures: dict[str, Any] = json.loads(self.notes.read_text()) if self.notes.is_file() else {}
        programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = os.environ | {
            "PATH": os.pathsep.join(programs), "PYTHONPATH": str(REPOSITORY / "src"), "ITERATIVE_DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "False", "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@example.org",
            "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@example.org",
        }  # fmt: skip
        self.environment.pop("DVC_ROOT", None)

    def run(self, *command: str, where: Path | None = None, ok: bool = True) -> tuple[float, float, str]:
        """Return CPU seconds, the highest memory in MB and what was printed."""
        log = self.root.parent / "last.log"
        with log.open("w") as stream:
            child = subprocess.Popen(
                command, cwd=where or self.root, env=self.environment, stdout=stream, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        text = log.read_text(errors="replace")
        if ok and child.returncode:
            sys.exit(f"{' '.join(command)}\n{text[-3000:]}")
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text

    def measure(self, name: str, *command: str, where: Path | None = None, ok: bool = True) -> str:
        """Note the figures of one command, and return what it printed."""
        began = time.perf_counter()
        cpu_s, memory_mb, text = self.run(*command, where=where, ok=ok)
        wall_s = time.perf_counter() - began
        self.figures[name] = {"cpu_s": round(cpu_s, 2), "wall_s": round(wall_s, 1), "memory_mb": round(memory_mb)}
        self.notes.write_text(json.dumps({"cases": self.n_cases, **self.figures}, indent=2) + "\n")
        print(f"{name}: {cpu_s:.2f} s of CPU, {wall_s:.1f} s, {memory_mb:.0f} MB", flush=True)
        return text


def load_factory() -> ModuleType:
    """Return tests/dicom/factory.py, which writes DICOM of known geometry."""
    spec = importlib.util.spec_from_file_location("factory", REPOSITORY / "tests/dicom/factory.py")
    if spec is None or spec.loader is None:
        sys.exit("run it from a checkout: tests/dicom/factory.py makes the patients")
    module = importlib.util.module_from_spec(spec)
    sys.modules["factory"] = module
    spec.loader.exec_module(module)
    return module


def write_case(path: Path, factory: ModuleType, number: int) -> None:
    """Write a patient of its own as a stored zip: targets, organ, body and noise differ from one to the next."""
    rng = np.random.default_rng(number)
    origin = tuple(-step * (n - 1) / 2 for step, n in zip(SPACING_MM, (SLICES, ROWS, COLUMNS), strict=True))
    z, y, x = np.meshgrid(
        *(o + s * np.arange(n) for o, s, n in zip(origin, SPACING_MM, (SLICES, ROWS, COLUMNS), strict=True)),
        indexing="ij",
    )
    half_x, half_y = rng.uniform(55, 70), rng.uniform(45, 58)
    inside = (abs(x) < half_x) & (abs(y) < half_y)
    ct_hu = np.where(inside, rng.normal(30.0, 10.0, x.shape), -1000.0)
    ct_hu[inside & (abs(x) > half_x - 12)] += 400.0
    for _ in range(8):
        middle, radius = rng.uniform((-140, -40, -50), (140, 40, 50)), rng.uniform(12, 30)
        ct_hu[inside & ((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < radius**2)] -= 100.0
    at_x, at_y, at_z = rng.uniform((-20, -12, -60), (20, 8, 60))
    z_mm = origin[0] + SPACING_MM[0] * np.arange(SLICES)

    def drawn(radius: float, dy: float, half_z: float) -> list[Any]:
        circle = factory.circle(at_x, at_y + dy, radius, 60)
        return factory.stacked(circle, z_mm[abs(z_mm - at_z) < half_z])

    high, low = rng.uniform(11, 14), rng.uniform(19, 24)
    for radius, dy, half_z, hu in ((low, -6.0, low, 90.0), (high, -6.0, high, 150.0), (9.0, 28.0, 30.0, -150.0)):
        ct_hu[((x - at_x) ** 2 + (y - at_y - dy) ** 2 < radius**2) & (abs(z - at_z) < half_z)] = hu
    rois = {
        "BODY": factory.stacked(factory.rectangle(-half_x, half_x, -half_y, half_y), z_mm),
        "PTV_70": drawn(high, -6.0, high),
        "PTV56": drawn(low, -6.0, low),
        "Rect": drawn(9.0, 28.0, 30.0),
    }

    def dose_gy(z_mm: np.ndarray, y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
        # The dose grid starts at the CT's corner.
        z, y, x = (given + start - given.flat[0] for given, start in zip((z_mm, y_mm, x_mm), origin, strict=True))
        away = np.sqrt((x - at_x) ** 2 + (y - at_y + 6.0) ** 2 + (z - at_z) ** 2)
        return np.interp(away, [0, high + 8, low + 8, 120, 200, 400], [71, 70.5, 57, 25, 1, 0])

    ct = factory.make_ct(ct_hu, SPACING_MM, origin)
    rtstruct = factory.make_rtstruct(rois, ct, {"BODY": "EXTERNAL", "PTV_70": "PTV", "PTV56": "PTV"})
    rtdose = factory.make_rtdose(dose_gy, (SLICES, ROWS, COLUMNS), SPACING_MM, origin)
    rtplan = factory.make_rtplan(28, [(70.0, 2), (56.0, 3)])
    rtdose.ReferencedRTPlanSequence = [factory._reference(rtplan)]
    rtplan.ReferencedStructureSetSequence = [factory._reference(rtstruct)]
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for index, item in enumerate([*ct, rtstruct, rtdose, rtplan]):
            item.PatientID = item.PatientName = f"anon_{number:05d}"
            stream = BytesIO()
            item.save_as(stream, enforce_file_format=True)
            archive.writestr(
                zipfile.ZipInfo(f"{item.Modality}_{index:03d}.dcm", (1980, 1, 1, 0, 0, 0)), stream.getvalue()
            )
    part.replace(path)


def lay_out(project: Project, factory: ModuleType) -> None:
    """Copy the repository's files, add a cohort like the phantom but of other structures, and write its raw cases."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (REPOSITORY / name).is_file():
            (project.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, project.root / name)
    folder = project.root / "validation/cohorts" / COHORT
    folder.mkdir(parents=True, exist_ok=True)
    protocol = factory.PROTOCOL | {"name": COHORT, "spacing_mm": list(SPACING_MM)}
    (folder / "protocol.yaml").write_text(json.dumps(protocol, indent=1) + "\n")
    goals = {"name": COHORT, "protocol": COHORT, "title": "none", "goals": []}
    (folder / "goals.yaml").write_text(json.dumps(goals) + "\n")
    bounds = {"column": "ct_min_hu", "min_value": -1100, "max_value": -500}
    meta = {"gate": "hu_range", "notes": "Air is -1000 HU.", "advice": "Check RescaleSlope."}
    asked = {"type": "expect_column_values_to_be_between", "kwargs": bounds, "severity": "critical", "meta": meta}
    suite = {"name": COHORT, "notes": "Little is asked of made-up cases.", "expectations": [asked]}
    (folder / "suite.json").write_text(json.dumps(suite) + "\n")
    (folder / "cohort.yaml").write_text("like: phantom\n")
    limits = read_yaml(REPOSITORY / "validation/cohorts/phantom/thresholds.yaml")["data"]
    # Made of circles, they are more alike than patients.
    limits["image"] |= {"least_organ_fit": 0.05, "least_organ_share": 0.5}
    limits["near_copy"] |= {"ct_correlation": 0.9999, "dose_correlation": 0.99999}
    limits["outliers"] |= {"warning_ratio": 1000.0, "error_ratio": 1000.0}
    limits["parity"] |= {"target_d95_gy": 5.0, "organ_mean_gy": 5.0, "volume_percent": 50.0}
    (folder / "thresholds.yaml").write_text(json.dumps({"data": limits}, indent=1) + "\n")
    locked = (REPOSITORY / "validation/cohorts/phantom/test_set.csv").read_text().splitlines()
    (folder / "test_set.csv").write_text(locked[0] + "\n")
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("cohort: phantom", f"cohort: {COHORT}"))
    raw = project.root / "data/raw" / COHORT
    raw.mkdir(parents=True, exist_ok=True)
    for number in range(1, project.n_cases + 1):
        path = raw / f"case_{number:04d}.zip"
        if not path.exists():
            write_case(path, factory, number)
    if not (project.root / ".git").exists():
        project.run("git", "init", "--quiet", "--initial-branch=main")
        project.run("git", "add", "--all")
        project.run("git", "commit", "--quiet", "-m", "code")
    project.run("dvc", "remote", "add", "--force", "-d", "store", str(project.remote))


def list_raw(project: Project) -> None:
    """Write data/raw/many.csv, as `raw pack` does of folders."""
    code = f"""
from pathlib import Path
import pandas as pd
from doseledger.core.tables import RAW, write_table
from doseledger.ingest.sources import SOURCES
of = SOURCES["dicom"]
digests, _ = of.digests(of.find(Path("data/raw/{COHORT}")))
rows = pd.DataFrame(list(digests.items()), columns=["case_id", "sha256"])
write_table(Path("data/raw/{COHORT}.csv"), rows, RAW)
"""
    project.measure("list of raw cases", sys.executable, "-c", code)


def convert_changed(project: Project, change: str, *, raw: bool = True) -> None:
    """Convert what a change asks for, up to the data gate; where raw cases changed, list and add them first."""
    if raw:
        list_raw(project)
        project.measure(f"{change}: dvc add", "dvc", "add", f"data/raw/{COHORT}")
    step = f"{change}: repro to the gate"
    lines = project.measure(step, "dvc", "repro", GATE).splitlines()
    # The line of an ingest that counts its cases.
    project.figures[step]["note"] = next((line for line in lines if " converted, " in line), "no ingest ran")


def add_one(project: Project, factory: ModuleType) -> None:
    """Add a case, to the cohort and to DVC, and convert what that asks for."""
    write_case(project.root / f"data/raw/{COHORT}/case_{project.n_cases + 1:04d}.zip", factory, project.n_cases + 1)
    convert_changed(project, "one case more")


def rename_one(project: Project, factory: ModuleType) -> None:
    """Give one case another name."""
    raw = project.root / f"data/raw/{COHORT}"
    (raw / "case_0002.zip").rename(raw / "case_9002.zip")
    convert_changed(project, "one case renamed")


def add_alias(project: Project, factory: ModuleType) -> None:
    """Add an alias of a structure that no case uses."""
    path = project.root / f"validation/cohorts/{COHORT}/protocol.yaml"
    path.write_text(path.read_text().replace('"Rectum_P"', '"Rectum_P", "Enddarm"'))
    convert_changed(project, "an alias more", raw=False)


def start_training(project: Project, factory: ModuleType) -> None:
    """Open the files of a training twice: hashes are taken once."""
    code = (
        "from pathlib import Path; from doseledger.core.tables import SPLITS, read_table;"
        "from doseledger.learn.data.inputs import case_files, open_case;"
        f"table = read_table(Path('data/splits/{COHORT}.csv'), SPLITS);"
        f"files = case_files(Path('data/cases/{COHORT}'), table, 'train', fold=0, repeat=0, physics=None);"
        "[open_case(file) for file in files]; print(len(files))"
    )
    for name in ("cases of a training opened, the first time", "cases of a training opened again"):
        project.measure(name, sys.executable, "-c", code)


def push_and_pull(project: Project, factory: ModuleType) -> None:
    """Push to a folder, clone, pull, and look whether anything would run."""
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--allow-empty", "-m", "results")
    project.measure("dvc push, all", "dvc", "push", "--quiet", REPORT, "--with-deps")
    project.measure("dvc push, nothing new", "dvc", "push", "--quiet", REPORT, "--with-deps")
    shutil.rmtree(project.clone, ignore_errors=True)
    project.run("git", "clone", "--quiet", str(project.root), str(project.clone))
    project.measure("dvc pull into a clone", "dvc", "pull", "--quiet", "--with-deps", REPORT, where=project.clone)
    text = project.measure("repro in the clone", "dvc", "repro", REPORT, where=project.clone)
    if "Running stage" in text:
        sys.exit(f"a clone that pulled everything runs something:\n{text}")


STEPS: dict[str, Any] = {
    "make": lay_out,
    "list": lambda project, factory: list_raw(project),
    "add": lambda project, factory: project.measure("dvc add of the raw cases", "dvc", "add", f"data/raw/{COHORT}"),
    "code": lambda project, factory: project.measure("code and settings", "dvc", "repro", f"settings@{COHORT}", "code"),
    "ingest": lambda project, factory: project.measure("ingest", "dvc", "repro", f"ingest@{COHORT}"),
    "split": lambda project, factory: project.measure("split", "dvc", "repro", f"split@{COHORT}"),
    "gate": lambda project, factory: project.measure("data gate", "dvc", "repro", GATE),
    "drift": lambda project, factory: project.measure("drift", "dvc", "repro", f"drift@{COHORT}"),
    "report": lambda project, factory: project.measure("report of the data", "dvc", "repro", REPORT),
    "noop": lambda project, factory: project.measure("dvc repro, nothing to do", "dvc", "repro", REPORT),
    "status": lambda project, factory: project.measure("dvc status", "dvc", "status", REPORT, "--with-deps"),
    "training": start_training,
    "remote": push_and_pull,
    "one": add_one,
    "rename": rename_one,
    "alias": add_alias,
}


def main() -> None:
    """Take the steps that are not noted yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=list(STEPS), default=[])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    project, factory = Project(arguments.folder.resolve(), arguments.cases), load_factory()
    taken = project.figures.setdefault("steps", [])
    for name, step in STEPS.items():
        if (arguments.only and name not in arguments.only) or (not arguments.only and name in taken):
            continue
        step(project, factory)
        taken[:] = [*(one for one in taken if one != name), name]
        project.notes.write_text(json.dumps({"cases": project.n_cases, **project.figures}, indent=2) + "\n")
    print("| step | CPU s | wall s | memory MB | |\n|---|---|---|---|---|")
    for name, row in project.figures.items():
        if isinstance(row, dict):
            print(f"| {name} | {row['cpu_s']} | {row['wall_s']} | {row['memory_mb']} | {row.get('note', '')} |")


if __name__ == "__main__":
    main()
