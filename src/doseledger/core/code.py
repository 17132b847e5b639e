"""Which of our modules a module reaches, and their digests: what a result hangs on besides data and settings."""

from __future__ import annotations

import ast
from pathlib import Path

from doseledger.core.files import sha256_of_file

SOURCE = Path(__file__).resolve().parents[2]


def reached_code(*entries: str) -> dict[str, str]:
    """Return the SHA256 of every module of doseledger that these modules reach, themselves included, by name.

    Notes
    -----
    Imports are read from the sources, those inside functions too, be it by a module's whole name or from its package;
    `__init__` modules hold no logic and are left out.
    """
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        source = SOURCE.joinpath(*module.split(".")).with_suffix(".py")
        if module in found or not source.is_file():
            continue
        found[module] = sha256_of_file(source)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [name for name in names if name.startswith("doseledger.")]
    return dict(sorted(found.items()))
