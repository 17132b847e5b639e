"""Raw cohorts of one folder or zip a case."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.errors import BadInput


def find_sources(raw: Path) -> dict[str, Path]:
    """Return the folder or zip of each case below a raw folder, by case id, sorted.

    Raises
    ------
    BadInput
        If the folder is absent or holds no case, a name can't be a case id, or a case is there as folder and as zip.
    """
    if not raw.is_dir():
        raise BadInput(f"{raw}: no such folder of raw cases")
    sources: dict[str, Path] = {}
    for path in sorted(raw.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.suffix.lower() == ".zip"):
            continue
        case_id = path.name if path.is_dir() else path.stem
        if case_id in sources:
            raise BadInput(f"{raw}: {case_id} is there as {sources[case_id].name} and as {path.name}; keep one")
        sources[case_id] = path
    if not sources:
        raise BadInput(f"{raw}: no folder and no zip in it; one of either is a case")
    return sources
