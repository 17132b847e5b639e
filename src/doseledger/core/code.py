"""Which of our modules a module reaches, and their digests: what a result hangs on besides data and settings."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from doseledger.core.files import sha256_of_file


def reached_code(*entries: str) -> dict[str, str]:
    """Return the SHA256 of every module of doseledger that these modules reach, themselves included, by name.

    Notes
    -----
    Imports are read from the sources, those inside functions too; `__init__` modules hold no logic and are left out.
    """
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        spec = importlib.util.find_spec(module) if module not in found else None
        if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
            continue
        source = Path(spec.origin)
        found[module] = sha256_of_file(source)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            waiting += [name for name in names if name.startswith("doseledger.")]
    return dict(sorted(found.items()))
