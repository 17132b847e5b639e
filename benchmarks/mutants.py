"""Kill rate of the tests: a seeded sample of small faults in the code, each run against the tests of its package.

`make mutate`, or `python benchmarks/mutants.py --count 40 --seed 7 --record sample.txt --most 10`: ten at a time, the
record says which are judged. A fault is one operator, number, condition, keyword or statement that is another. Left
out: messages, annotations, decorators, sentences, logging, looks of figures, and those of EQUIVALENT. A fault is
killed if a test fails that passes when the module has one more statement without effect, or if the tests take more
than three times as long as without the fault and SECONDS at least. Of a fault that survives, say whether it matters.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/doseledger")
MOST_A_MODULE = 2
MOST_OTHERS = 6
# A fault that makes a loop endless is killed by the clock.
SECONDS = 900
LOGS = {"logger", "log", "logging", "LOGGER", "LOG", "_log"}
LOOKS = {"linewidth", "lw", "alpha", "color", "colors", "figsize", "fontsize", "dpi", "zorder", "marker", "s", "pad"}
# Neither their absence nor their value is a fault.
LEFT_OUT = {"dtype", "strict", "encoding", "title", "help", *LOOKS}
# Found to change nothing that a caller can see, each with its reason.
EQUIVALENT: dict[str, str] = {
    "planning/dose/operator.py: 4 -> (4 * 3)": "BATCH, segments whose maps are held at once: the same sums",
    "planning/dose/loops.py: 512 -> (512 * 3)": "BLOCK, points that are looked at together: each has its own sum",
    "learn/networks/trees.py: 512 -> (512 * 3)": "TOGETHER, voxels that go through a tree: each has its own sum",
}
# Imported once, before a process is forked for each run; none of them starts a thread by its import.
LIBRARIES = (
    "pytest", "hypothesis", "numpy", "pandas", "pandera.pandas", "scipy.ndimage", "scipy.spatial",
    "scipy.optimize", "scipy.stats", "scipy.interpolate", "scipy.special", "sklearn.linear_model",
    "sklearn.ensemble", "torch", "torch.utils.data", "pytorch_lightning", "monai.networks.nets",
    "monai.inferers", "monai.losses", "numba", "pydicom", "pydicom.pixels", "ruamel.yaml", "pydantic", "typer",
    "typer.testing", "matplotlib.figure", "matplotlib.backends.backend_agg", "nibabel", "edt", "jinja2",
)  # fmt: skip
SWAPS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="), ast.LtE: ("<", ">"), ast.Gt: (">=", "<="), ast.GtE: (">", "<"), ast.Eq: ("!=",),
    ast.NotEq: ("==",), ast.In: ("not in",), ast.NotIn: ("in",), ast.Is: ("is not",), ast.IsNot: ("is",),
    ast.Add: ("-",), ast.Sub: ("+",), ast.Mult: ("/",), ast.Div: ("*",), ast.FloorDiv: ("*",), ast.Mod: ("+",),
    ast.Pow: ("*",), ast.BitOr: ("&",), ast.BitAnd: ("|",), ast.BitXor: ("|",), ast.And: ("or",), ast.Or: ("and",),
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "abs": "", "minimum": "maximum",
    "maximum": "minimum", "floor": "ceil", "ceil": "floor", "argmin": "argmax", "argmax": "argmin", "sum": "max",
    "nanmin": "nanmax", "nanmax": "nanmin", "nanmean": "nanmax", "mean": "max", "median": "max", "isfinite": "isnan",
    "startswith": "endswith", "append": "count",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A fault: bytes `start` to `end` of a module are `text` instead."""

    path: Path
    line: int
    start: int
    end: int
    text: str
    was: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line}: {' '.join(self.was.split())} -> {self.text}"

    @property
    def name(self) -> str:
        """The fault without its line, which edits elsewhere move."""
        return re.sub(r":\d+:", ":", str(self), count=1)


class Sites(ast.NodeVisitor):
    """Gather the faults that fit into a module."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content, self.found = path, content, list[Mutant]()
        self.starts = [0]
        for line in content.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def _add(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        was = self.content[start:end].decode()
        if was != text:
            self.found.append(Mutant(self.path, node.lineno, start, end, text, was))

    def _swap(self, node: ast.expr, operands: list[ast.expr], operator: ast.AST, other: str) -> None:
        """The same operands with another operator between; brackets keep their order of evaluation."""
        left, right = (f"({ast.unparse(operand)})" for operand in operands)
        self._add(node, f"({left} {other} {right})")

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            for other in SWAPS[type(node.ops[0])]:
                self._swap(node, [node.left, node.comparators[0]], node.ops[0], other)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        is_text = any(isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
                      for n in ast.walk(node))  # fmt: skip
        if type(node.op) in SWAPS and not is_text:
            self._swap(node, [node.left, node.right], node.op, SWAPS[type(node.op)][0])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = SWAPS[type(node.op)][0]
        self._add(node, "(" + f" {other} ".join(f"({ast.unparse(value)})" for value in node.values) + ")")
        for value in node.values:
            rest = [other for other in node.values if other is not value]
            word = " and " if isinstance(node.op, ast.And) else " or "
            self._add(node, "(" + word.join(f"({ast.unparse(one)})" for one in rest) + ")")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._add(node, f"({ast.unparse(node.operand)})")
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, str(not node.value))
        elif isinstance(node.value, (int, float)):
            self._add(node, {0: "1", 1: "2"}.get(node.value, f"({ast.unparse(node)} * 3)"))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name == "tell" or (isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in LOGS):
            return
        if name in NAMES:
            other = ast.unparse(node.func)
            self._add(node.func, other[: len(other) - len(name)] + NAMES[name])
        for keyword in node.keywords if len(node.keywords) + len(node.args) > 1 else ():
            rest = ast.Call(node.func, node.args, [other for other in node.keywords if other is not keyword])
            if keyword.arg is not None and keyword.arg not in LEFT_OUT:
                self._add(node, ast.unparse(rest))
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.keyword) and child.arg in LEFT_OUT):
                self.visit(child)

    def visit_If(self, node: ast.If) -> None:
        self._add(node.test, "True")
        self._add(node.test, "False")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        if isinstance(node.body, ast.JoinedStr) or isinstance(node.orelse, ast.JoinedStr):
            return
        self._add(node, f"({ast.unparse(node.orelse)} if {ast.unparse(node.test)} else {ast.unparse(node.body)})")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._add(test, "True")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._add(node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        target, value = ast.unparse(node.target), ast.unparse(node.value)
        for other in SWAPS.get(type(node.op), ()):
            self._add(node, f"{target} {other}= {value}")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "pass")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave out messages."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave out text."""


def mutants_of(path: Path) -> list[Mutant]:
    """Return the faults that fit into a module of the package."""
    content = (ROOT / path).read_bytes()
    sites = Sites(path, content)
    sites.visit(ast.parse(content))
    return sites.found


def draw(count: int, rng: random.Random, only: str) -> list[Mutant]:
    """Return a sample over all modules, at most two a module."""
    paths = sorted(path.relative_to(ROOT) for path in (ROOT / SOURCE).rglob("*.py"))
    found = [one for path in paths if only in path.as_posix() for one in mutants_of(path)]
    found = [one for one in found if one.name not in EQUIVALENT]
    rng.shuffle(found)
    taken: dict[Path, int] = {}
    drawn: list[Mutant] = []
    for one in found:
        if taken.setdefault(one.path, 0) < MOST_A_MODULE:
            taken[one.path] += 1
            drawn.append(one)
    return drawn[:count]


def tests_of(path: Path, tests: Path) -> Iterator[list[str]]:
    """Yield a module's tests by how near they are: its own and the limits, those that name it, its package, others."""
    inside = path.relative_to(SOURCE)
    folder = tests / inside.parent
    own = [folder / name for name in (f"test_{inside.stem}.py", "test_limits.py") if (folder / name).is_file()]
    while not folder.is_dir():
        folder = folder.parent
    top = tests / inside.parts[0] if len(inside.parts) > 1 else tests / "core"
    named = ".".join(("doseledger", *inside.with_suffix("").parts)).removesuffix(".__init__")
    near = [file for file in top.rglob("test_*.py") if named in file.read_text() and file not in own]
    near.sort(key=lambda file: (file.stat().st_size, file))
    if inside.parts[0] == "cli":
        near += sorted(tests.glob("test_*cli*.py"))
    rest = [file for file in sorted(folder.rglob("test_*.py")) if file not in (*own, *near)]
    rest += [file for file in sorted(top.rglob("test_*.py")) if file not in (*own, *near, *rest)]
    others = [file for file in tests.glob("*/**/test_*.py") if top not in file.parents and named in file.read_text()]
    others.sort(key=lambda file: (file.stat().st_size, file))
    for files in (own, near, rest, others[:MOST_OTHERS]):
        if files:
            yield [file.relative_to(tests.parent).as_posix() for file in files]


def copy_checkout(target: Path) -> None:
    """Copy what Git tracks, and link the real data beside it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # Tests of the pipeline ask Git for a commit.
    who = ("-c", "user.name=mutants", "-c", "user.email=mutants@localhost")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "copy")):
        subprocess.run(["git", *words], cwd=target, check=True)
    if (ROOT.parent / "shared").is_dir():
        (target.parent / "shared").symlink_to(ROOT.parent / "shared")


class Judge:
    """A copy of the checkout, and processes forked from this one in which its tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder, folder / "checkout"
        copy_checkout(self.copy)
        self.unsound: set[str] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for library in LIBRARIES:
                with contextlib.suppress(ImportError):
                    importlib.import_module(library)
        sys.path[:] = [str(self.copy / "src"), *(path for path in sys.path if not (Path(path) / "doseledger").is_dir())]
        sys.path.remove(str(Path(__file__).parent))

    def run(self, tests: list[str], cache: Path) -> tuple[bool | None, str, float]:
        """Run tests until one fails; return whether all pass (None: not done in time), which failed, and seconds."""
        started, note, log = time.monotonic(), self.folder / "failed.txt", self.folder / "last.txt"
        note.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            self._child([*tests, *(f"--deselect={name}" for name in sorted(self.unsound))], cache, note, log)
        done = 0
        while not done and time.monotonic() - started < SECONDS:
            time.sleep(0.05)
            done, status = os.waitpid(pid, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        seconds = time.monotonic() - started
        if not done:
            os.waitpid(pid, 0)
            return None, "", seconds
        # Without what a test is given, which may have the fault's own number in its name.
        failed = note.read_text().partition("[")[0] if note.is_file() else ""
        # 5: nothing left to run.
        return os.waitstatus_to_exitcode(status) in (0, 5), failed, seconds

    def _child(self, words: list[str], cache: Path, note: Path, log: Path) -> None:
        os.setpgid(0, 0)
        os.chdir(self.copy)
        paths = {"PYTHONPATH": str(self.copy / "src"), "NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ.update(paths)
        sys.dont_write_bytecode = True
        sys.modules["numba"].config.CACHE_DIR = str(cache)  # type: ignore[attr-defined]
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        warnings.resetwarnings()
        import pytest

        class Watch:
            def pytest_runtest_logreport(self, report: Any) -> None:
                if report.failed and not note.is_file():
                    note.write_text(report.nodeid)

        still = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={self.folder}/t"]
        still += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        os._exit(int(pytest.main([*still, *words], plugins=[Watch()])))

    def judge(self, one: Mutant) -> tuple[str, str]:
        """Return "killed", "SURVIVED" or "unjudged" of a fault, and which test failed."""
        path = self.copy / one.path
        content, before = path.read_bytes(), path.stat()
        is_compiled = b"numba" in content
        mutated = content[: one.start] + one.text.encode() + content[one.end :]
        # Neither does a test count that fails after any edit.
        harmless = content + b"\n_NOTHING = None\n"

        def run(code: bytes, tests: list[str]) -> tuple[bool | None, str, float]:
            path.write_bytes(code)
            # What other kernels took into themselves of this one is compiled again.
            with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
                return self.run(tests, Path(fresh) if is_compiled else self.folder / "numba")

        verdict, why = "SURVIVED", ""
        try:
            for files in tests_of(one.path, self.copy / "tests"):
                while True:
                    passed, failed, seconds = run(mutated, files)
                    if passed:
                        break
                    sound, _, sound_seconds = run(harmless, [failed] if failed else files)
                    if passed is None and not (sound and seconds > 3 * sound_seconds):
                        verdict, why = "unjudged", f"not done in {SECONDS} s"
                        break
                    if sound:
                        return "killed", failed or ("the clock" if passed is None else "no test can be run")
                    if not failed or failed in self.unsound:
                        verdict, why = "unjudged", f"{files[0]} fails without a fault"
                        break
                    self.unsound.add(failed)
        finally:
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            shutil.rmtree(self.folder / "t", ignore_errors=True)
        return verdict, why


def interval(killed: int, judged: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % for a share, in percent."""
    z, share = 1.96, killed / judged
    middle = share + z * z / (2 * judged)
    half = z * (share * (1 - share) / judged + z * z / (4 * judged * judged)) ** 0.5
    return tuple(100 * (middle + sign * half) / (1 + z * z / judged) for sign in (-1, 1))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a module's path")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    parser.add_argument("--record", type=Path, help="file of verdicts, which are not judged again")
    parser.add_argument("--most", type=int, default=1000, help="stop after so many")
    chosen = parser.parse_args()
    drawn = draw(chosen.count, random.Random(chosen.seed), chosen.only)
    if chosen.list:
        print(*drawn, sep="\n")
        return
    told: dict[str, str] = {}
    if chosen.record and chosen.record.is_file():
        for line in chosen.record.read_text().splitlines():
            verdict, _, name = line.split("\t")
            told[name] = verdict
    waiting = [one for one in drawn if one.name not in told][: chosen.most]
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        judge = Judge(Path(folder)) if waiting else None
        for number, one in enumerate(waiting, 1):
            started = time.monotonic()
            told[one.name], why = judge.judge(one) if judge else ("", "")
            seconds = time.monotonic() - started
            print(f"{number}/{len(waiting)} {told[one.name]} {seconds:.0f} s {one} ({why})", flush=True)
            if chosen.record:
                with chosen.record.open("a") as record:
                    record.write(f"{told[one.name]}\t{why}\t{one.name}\n")
    told = {one.name: told[one.name] for one in drawn if one.name in told}
    killed, judged = (sum(word in words for word in told.values()) for words in (("killed",), ("killed", "SURVIVED")))
    if judged:
        low, high = interval(killed, judged)
        rate = f"{100 * killed / judged:.0f} % ({low:.0f} to {high:.0f})"
        print(f"killed {killed} of {judged}: {rate}, seed {chosen.seed}")
    print(*(f"  {told[one.name]} {one}" for one in drawn if told.get(one.name, "killed") != "killed"), sep="\n")


if __name__ == "__main__":
    main()
