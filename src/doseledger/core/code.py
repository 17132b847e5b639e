"""The code that a result hangs on: modules that an entry reaches, and hashes.

One walk serves DVC, the training fingerprint, the gates' digests and the tests.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from doseledger.core.files import sha256_of_file, sha256_of_json

SOURCE = Path(__file__).resolve().parents[2]
PACKAGE = "doseledger"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class _Module:
    digest: str
    imports: tuple[str, ...]
    data: tuple[Path, ...]


def reached_code(*entries: str) -> dict[str, str]:
    """Return the SHA256 of every module that these modules reach, themselves included, by name.

    Parameters
    ----------
    entries
        Names of modules, `doseledger.core.case` for example; one that is not ours reaches nothing.

    Notes
    -----
    Imports are read from the sources, those inside functions too; those for type checkers alone don't count. Comments
    and docstrings are left out of the hash. YAML of the package that a module names is as good as code and stands by
    its path. A package counts where a name is imported from its `__init__`.
    """
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        if name in found or (file := _file_of(name)) is None:
            continue
        stat = file.stat()
        module = _read(file, stat.st_mtime_ns, stat.st_size)
        found[name] = module.digest
        found |= {path.relative_to(SOURCE).as_posix(): sha256_of_file(path) for path in module.data}
        waiting += module.imports
    return dict(sorted(found.items()))


def code_digest(*entries: str) -> str:
    """Return one digest of all the code that these modules reach."""
    return sha256_of_json(reached_code(*entries))


def _file_of(name: str) -> Path | None:
    if name.partition(".")[0] != PACKAGE:
        return None
    path = SOURCE.joinpath(*name.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found else None


@cache
def _read(file: Path, _mtime: int, _size: int) -> _Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    digest = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
    return _Module(digest, tuple(_imports(tree)), tuple(_named_data(file, tree)))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if _file_of(module) else node.module


def _named_data(file: Path, tree: ast.AST) -> Iterator[Path]:
    # Few folders have any; a walk of the whole tree is what costs.
    if not (there := sorted(file.parent.rglob("*.yaml"))):
        return
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    yield from (path for path in there if path.name in named)
