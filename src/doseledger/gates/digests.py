"""What exactly a gate judged, as one digest made from small files: training makes it again and compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.code import code_digest
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.protocol import load_protocol
from doseledger.gates.limits import data_limits
from doseledger.gates.suites import read_suite
from doseledger.gates.verdict import without_explanations

# Whose code makes an old verdict stale: named and not imported, so that training, which makes the digest anew, does not
# load every judge.
DATA_JUDGE = "doseledger.gates.data.cohort"
METRICS_JUDGE = "doseledger.gates.model.metrics"


@dataclass(frozen=True)
class CohortFiles:
    """What the data gate looks at.

    Parameters
    ----------
    cases_dir
        Folder of `<case>.npz`, `cases.csv` and `skipped.csv`.
    splits_csv, test_set_csv
        The table of splits, and the locked test set.
    protocol, suite, thresholds
        The cohort's protocol (YAML), its suite of expectations (JSON), and thresholds.yaml.
    cohort
        Whose limits in thresholds.yaml hold.
    """

    cases_dir: Path
    splits_csv: Path
    test_set_csv: Path
    protocol: Path
    suite: Path
    thresholds: Path
    cohort: str

    @property
    def cases_csv(self) -> Path:
        """The table of cases."""
        return self.cases_dir / "cases.csv"

    @property
    def skipped_csv(self) -> Path:
        """The table of raw cases that became none."""
        return self.cases_dir / "skipped.csv"


def data_digest(files: CohortFiles) -> str:
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
            "cases": sha256_of(files.cases_csv),
            "splits": sha256_of(files.splits_csv),
            "suite": without_explanations(read_suite(files.suite)),
            "protocol": without_explanations(load_protocol(files.protocol).model_dump(mode="json")),
            "limits": without_explanations(data_limits(files.thresholds, files.cohort).model_dump(mode="json")),
            "code": code_digest(DATA_JUDGE),
        }
    )


def metrics_digest(
    tables: tuple[Path, ...],
    history: list[dict[str, float]],
    limits: list[dict[str, Any]],
    seen: dict[str, str],
) -> str:
    """Return the digest of what the metrics gate judges.

    Parameters
    ----------
    tables
        The summary, the metrics of each case, and the splits.
    history
        The training's history, without its clock.
    limits
        Every limit that is applied, as JSON values.
    seen
        SHA256 by case of what the model was trained or selected on.
    """
    return sha256_of_json(
        {
            "tables": [sha256_of(table) for table in tables],
            "history": history,
            "limits": without_explanations(limits),
            "seen": seen,
            "code": code_digest(METRICS_JUDGE),
        }
    )


def sha256_of(path: Path) -> str:
    """Return the SHA256 of a file that a stage wrote; one that is absent is refused."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; run the stage that writes it")
    return sha256_of_file(path)
