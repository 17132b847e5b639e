"""Raw cohorts of one folder or zip a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from doseledger.core.errors import BadInput


def name_each(paths: Iterable[Path], name_of: Callable[[Path], str | None]) -> dict[str, Path]:
    """Return paths by the names of their cases, hidden ones and those without a name left out.

    Raises
    ------
    BadInput
        If two paths have one name.
    """
    named: dict[str, Path] = {}
    # Copies from a Mac carry a hidden shadow of each file.
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        name = name_of(path)
        if name is None:
            continue
        if name in named:
            raise BadInput(f"{path.parent}: {name} is there as {named[name].name} and as {path.name}; keep one")
        named[name] = path
    return named


def find_sources(raw: Path) -> dict[str, Path]:
    """Return the folder or zip of each case below a raw folder, by case id, sorted.

    Raises
    ------
    BadInput
        If the folder is absent or holds no case, a name can't be a case id, or a case is there as folder and as zip.
    """
    if not raw.is_dir():
        raise BadInput(f"{raw}: no such folder of raw cases")
    sources = name_each(raw.iterdir(), _case_of)
    if not sources:
        raise BadInput(f"{raw}: no folder and no zip in it; one of either is a case")
    return sources


def _case_of(path: Path) -> str | None:
    """The case's name by that of its folder or zip; None for any other file."""
    if path.is_dir():
        return path.name
    return path.stem if path.suffix.lower() == ".zip" else None
