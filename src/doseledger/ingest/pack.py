"""Raw folders as deterministic zips, and the list of cases that Git keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from doseledger.core.errors import BadInput
from doseledger.core.files import write_stored_zip
from doseledger.core.tables import RAW, write_table
from doseledger.dicom.source import read_members, source_digest


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


def list_sources(sources: dict[str, Path]) -> pd.DataFrame:
    """Return the table of cases and their digests, in the form of data/raw/<cohort>.csv."""
    return pd.DataFrame(
        {"case_id": list(sources), "sha256": [source_digest(path) for path in sources.values()]}, dtype=str
    )


def pack_case(source: Path, target: Path) -> None:
    """Write one case as a zip without compression: sorted names, fixed dates, so equal files give equal bytes.

    Notes
    -----
    One zip a case and not hundreds of loose files: DVC then tracks a thousand cases in a second. Reading slices out of
    a stored zip costs what reading them from a folder does.
    """
    write_stored_zip(target, dict(read_members(source)))


def pack(raw: Path, out: Path, raw_list: Path, tell: Callable[[str], None]) -> int:
    """Return how many cases were packed: every folder or zip of `raw` as `<case>.zip` in `out`, and listed.

    Parameters
    ----------
    raw
        Folder with one folder or zip a case.
    out
        Where the zips go; may be `raw` itself only when that holds zips.
    raw_list
        The list of cases with their digests, rewritten whole: every zip that `out` then holds is in it.
    tell
        Called with one line a case.

    Raises
    ------
    BadInput
        If `raw` holds no case.
    """
    sources = find_sources(raw)
    for index, (case_id, source) in enumerate(sources.items(), start=1):
        pack_case(source, out / f"{case_id}.zip")
        tell(f"[{index}/{len(sources)}] {case_id}")
    write_table(raw_list, list_sources(find_sources(out)), RAW)
    return len(sources)
