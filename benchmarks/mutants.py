"""Kill rate of the tests: a seeded sample of small faults in the code, each run against the tests of its package.

`make mutate`, or `python benchmarks/mutants.py --count 40 --seed 7`. A fault is one operator, number, condition,
keyword or statement that is another; faults in messages, annotations and decorators are left out. Of a fault that
survives, say whether it matters: block sizes and digits of a display change nothing that a test should hold.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/doseledger")
MOST_A_MODULE = 2
# A fault that makes a loop endless is killed by the clock.
SECONDS = 900
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
        if name == "tell":
            return
        if name in NAMES:
            other = ast.unparse(node.func)
            self._add(node.func, other[: len(other) - len(name)] + NAMES[name])
        for keyword in node.keywords if len(node.keywords) + len(node.args) > 1 else ():
            rest = ast.Call(node.func, node.args, [other for other in node.keywords if other is not keyword])
            if keyword.arg not in (None, "dtype", "strict", "encoding", "title", "help"):
                self._add(node, ast.unparse(rest))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._add(node.test, "True")
        self._add(node.test, "False")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
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
    rng.shuffle(found)
    taken: dict[Path, int] = {}
    drawn: list[Mutant] = []
    for one in found:
        if taken.setdefault(one.path, 0) < MOST_A_MODULE:
            taken[one.path] += 1
            drawn.append(one)
    return drawn[:count]


def tests_of(path: Path, tests: Path) -> Iterator[list[str]]:
    """Yield a module's tests by how near they are: its own and the limits, those that name it, its package."""
    inside = path.relative_to(SOURCE)
    folder = tests / inside.parent
    own = [folder / name for name in (f"test_{inside.stem}.py", "test_limits.py") if (folder / name).is_file()]
    while not folder.is_dir():
        folder = folder.parent
    top = tests / inside.parts[0] if len(inside.parts) > 1 else tests / "core"
    named = ".".join(("doseledger", *inside.with_suffix("").parts))
    near = [file for file in top.rglob("test_*.py") if named in file.read_text() and file not in own]
    near.sort(key=lambda file: (file.stat().st_size, file))
    if inside.parts[0] == "cli":
        near += sorted(tests.glob("test_*cli*.py"))
    rest = [file for file in sorted(folder.rglob("test_*.py")) if file not in (*own, *near)]
    for files in (own, near, rest):
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


def passes(copy: Path, files: list[str], numba_cache: Path) -> bool:
    """Return whether these tests pass in the copy."""
    paths = {"PYTHONPATH": str(copy / "src"), "NUMBA_CACHE_DIR": str(numba_cache), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    try:
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, **paths}, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if os.environ.get("MUTANTS_SHOW"):
        print(done.stdout.decode()[-3000:])
    return done.returncode == 0


def survives(one: Mutant, copy: Path, caches: Path, sound: dict[tuple[str, ...], bool]) -> bool:
    """Return whether the tests of its package pass in spite of a fault."""
    path = copy / one.path
    content, before = path.read_bytes(), path.stat()
    is_compiled = b"numba" in content
    for files in tests_of(one.path, copy / "tests"):
        if not sound.get(tuple(files), True):
            continue
        path.write_bytes(content[: one.start] + one.text.encode() + content[one.end :])
        # What other kernels took into themselves of this one is compiled again.
        with tempfile.TemporaryDirectory() as fresh:
            is_alive = passes(copy, files, Path(fresh) if is_compiled else caches / "sound")
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        # Tests that pass with a fault don't see it, whether they pass without or not.
        if is_alive:
            continue
        if tuple(files) not in sound:
            sound[tuple(files)] = passes(copy, files, caches / "sound")
        if sound[tuple(files)]:
            return False
        print(f"  fails without a fault, left out: {files[0]} and {len(files) - 1} more", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a module's path")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    chosen = parser.parse_args()
    drawn = draw(chosen.count, random.Random(chosen.seed), chosen.only)
    if chosen.list:
        print(*drawn, sep="\n")
        return
    alive = []
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        copy = Path(folder) / "checkout"
        copy_checkout(copy)
        sound: dict[tuple[str, ...], bool] = {}
        for number, one in enumerate(drawn, 1):
            started = time.monotonic()
            if survives(one, copy, Path(folder) / "numba", sound):
                alive.append(one)
            word = "SURVIVED" if one in alive else "killed"
            print(f"{number}/{len(drawn)} {word} {time.monotonic() - started:.0f} s {one}", flush=True)
    killed = len(drawn) - len(alive)
    print(f"killed {killed} of {len(drawn)}: {100 * killed / max(1, len(drawn)):.0f} %, seed {chosen.seed}")
    print(*(f"  {one}" for one in alive), sep="\n")


if __name__ == "__main__":
    main()
