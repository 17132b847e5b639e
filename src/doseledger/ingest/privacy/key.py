"""The key of a de-identified cohort: raw case, patient, pseudonym."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from doseledger.core.errors import BadInput
from doseledger.core.files import atomic_path
from doseledger.core.tables import read_table


@dataclass(frozen=True)
class KeyRow:
    """One raw case and its clean copy.

    Parameters
    ----------
    case_id, patient_id
        Name of the raw case, and the patient's own identifier.
    raw_sha256, clean_sha256
        Digests of the files of both, from `source_digest`.
    rules_sha256
        Digest of what decides how a copy is cleaned.
    """

    case_id: str
    patient_id: str
    pseudonym: str
    clean: str
    raw_sha256: str
    clean_sha256: str
    rules_sha256: str


KEY = pa.DataFrameSchema(
    {field.name: pa.Column(str) for field in fields(KeyRow)},
    name="patient key",
    unique=["case_id"],
    strict=True,
    coerce=True,
)


def key_beside(salt: Path, out: Path) -> Path:
    """Return where the key of a cohort lies: beside its salt.

    Raises
    ------
    BadInput
        If that is within the clean folder, which leaves the clinic.
    """
    if salt.resolve().is_relative_to(out.resolve()):
        raise BadInput(
            f"{salt}: the salt and the key beside it tell who is who, and must not lie in the clean folder {out}; name "
            "a place that stays with you"
        )
    return salt.with_name(f"{salt.name}.key.csv")


def read_key(path: Path | None) -> dict[str, KeyRow]:
    """Return the rows of a key by raw case; none where there is no key yet.

    Raises
    ------
    BadInput
        If the file is no key.
    """
    if path is None or not path.exists():
        return {}
    columns = list(KEY.columns)
    rows = (KeyRow(*cells) for cells in read_table(path, KEY)[columns].itertuples(index=False, name=None))
    return {row.case_id: row for row in rows}


def write_key(path: Path | None, rows: dict[str, KeyRow]) -> None:
    """Write a key atomically, for its owner alone to read; nothing where no key is kept."""
    if path is None:
        return
    table = pd.DataFrame([asdict(rows[case_id]) for case_id in sorted(rows)], columns=list(KEY.columns), dtype=str)
    with atomic_path(path) as part:
        part.touch(mode=0o600)
        part.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
