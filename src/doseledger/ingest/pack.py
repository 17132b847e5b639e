"""Raw folders as deterministic zips, and the list of cases that Git keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import atomic_path, write_stored_zip
from doseledger.core.tables import RAW, read_table, write_table
from doseledger.core.text.lists import first_of
from doseledger.ingest.nifti.files import DATASET_FILE
from doseledger.ingest.sources import SOURCES, RawSource


def pack_case(source: Path, target: Path, kind: str = "dicom") -> None:
    """Write one case as a zip without compression: sorted names, fixed dates, so equal files give equal bytes.

    Parameters
    ----------
    kind
        What the files are, as `Protocol.source` has it.

    Notes
    -----
    One zip a case and not hundreds of loose files: DVC then tracks a thousand cases in a second. Reading slices out of
    a stored zip costs what reading them from a folder does.
    """
    write_stored_zip(target, SOURCES[kind].members(source))


def list_sources(sources: Mapping[str, Path], of: RawSource) -> pd.DataFrame:
    """Return the table of cases and their digests, in the form of data/raw/<cohort>.csv.

    Raises
    ------
    BadInput
        Naming each case that can't be read.
    """
    digests, unfit = of.digests(sources)
    unread = [str(unfit[case_id]) for case_id, digest in digests.items() if not digest]
    if unread:
        raise BadInput(f"{len(unread)} of {len(digests)} cases can't be packed: {'; '.join(unread)}")
    return pd.DataFrame({"case_id": list(digests), "sha256": list(digests.values())}, dtype=str)


def pack(raw: Path, out: Path, raw_list: Path, tell: Callable[[str], None], kind: str = "dicom") -> int:
    """Return how many cases were packed: every case of `raw` as `<case>.zip` in `out`, and listed.

    Parameters
    ----------
    out
        Where the zips go; may be `raw` itself only when that holds zips.
    raw_list
        The list of cases with their digests, rewritten whole: every zip that `out` then holds is in it.
    kind
        What the files are, as `Protocol.source` has it.

    Raises
    ------
    BadInput
        If `raw` holds no case, or one can't be read.
    NotReady
        If cases that are listed are in neither folder: those of a colleague, not fetched yet. Packing `out` into
        itself lists what is there.
    """
    of = SOURCES[kind]
    sources = of.find(raw)
    if raw.resolve() != out.resolve():
        _refuse_loss({*sources, *(path.stem for path in out.glob("*.zip"))}, out, raw_list)
    for index, (case_id, source) in enumerate(sources.items(), start=1):
        pack_case(source, out / f"{case_id}.zip", kind)
        tell(f"[{index}/{len(sources)}] {case_id}")
    if kind == "nifti" and (raw / DATASET_FILE).is_file() and raw.resolve() != out.resolve():
        with atomic_path(out / DATASET_FILE) as part:
            part.write_bytes((raw / DATASET_FILE).read_bytes())
    write_table(raw_list, list_sources(of.find(out), of), RAW)
    return len(sources)


def _refuse_loss(there: set[str], out: Path, raw_list: Path) -> None:
    """Refuse to write a list without cases that it has: the next commit would drop them for everybody."""
    lost = [name for name in read_table(raw_list, RAW)["case_id"] if name not in there] if raw_list.exists() else []
    if lost:
        raise NotReady(
            f"{raw_list} lists {len(lost)} cases that are not in {out} ({first_of(lost, 3)}): they would be dropped. "
            f"Fetch them first (`dvc pull {out}.dvc`); if they are meant to go, `doseledger raw pack {out}` lists what "
            "is there"
        )
