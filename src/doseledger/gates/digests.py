"""The digest of what the data gate judged, made from small files."""

from __future__ import annotations

from pathlib import Path

from doseledger.core.code import code_digest
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_protocol
from doseledger.gates.limits import load_thresholds
from doseledger.gates.suites import read_suite
from doseledger.gates.verdict import without_explanations

# Whose code makes an old verdict stale: named and not imported, so that training, which makes the digest anew, does not
# load every judge.
DATA_JUDGE = "doseledger.gates.data.cohort"


def data_digest(layout: Layout) -> str:
    """Return the digest of what the data gate judges, from small files alone.

    Raises
    ------
    BadInput
        If one of the files is absent or malformed.

    Notes
    -----
    It covers the table of cases (and with it each case's SHA256), the splits, the suite, the protocol, the cohort's
    limits and the gate's code; words that explain a limit are left out. The lists of skipped and accepted cases and
    the lock are judged too, but are not part of it: they don't change what is trained on, and a patient locked after
    training must not make every model stale.
    """
    return sha256_of_json(
        {
            "cases": sha256_of(layout.cases_csv),
            "splits": sha256_of(layout.splits),
            "suite": without_explanations(read_suite(layout.suite)),
            "protocol": without_explanations(load_protocol(layout.protocol).model_dump(mode="json")),
            "limits": without_explanations(load_thresholds(layout).data.model_dump(mode="json")),
            "code": code_digest(DATA_JUDGE),
        }
    )


def sha256_of(path: Path) -> str:
    """Return the SHA256 of a file that a stage wrote; one that is absent is refused."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; run the stage that writes it")
    return sha256_of_file(path)
