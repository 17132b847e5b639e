"""A raw export laid out one folder a case, leftovers listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doseledger.core.errors import BadInput
from doseledger.core.files import atomic_path
from doseledger.core.project.protocol import Protocol
from doseledger.ingest.survey.choice import RULE
from doseledger.ingest.survey.cohort import Row, survey_dump
from doseledger.ingest.survey.dump import check_dump
from doseledger.ingest.survey.patient import PatientSurvey
from doseledger.ingest.survey.record import (
    KEY_COLUMNS,
    as_csv,
    key_rows,
    leftover_rows,
    refuse_inside,
    write_private,
)

# What leaves a case without an object, or with one that nothing chose: a person must decide first.
UNDECIDED = frozenset({
    "missing", "tied_plans", "versions", "several_structure_sets", "several_series", "several_doses", "foreign_doses",
    "broken",
})  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What became of a dump.

    Parameters
    ----------
    laid_out
        Names of the cases that have a folder now.
    undecided
        Why, by the name of each case that has none.
    choices
        How the plan was chosen, by case, where there were several.
    n_left
        Files that are in no case.
    """

    laid_out: list[str]
    undecided: dict[str, str]
    choices: dict[str, str]
    n_left: int


def check_layout(dump: Path, out: Path) -> None:
    """Do nothing if a dump can be laid out in a folder.

    Raises
    ------
    BadInput
        If there is no dump, or the folder lies in it or holds something already.
    """
    check_dump(dump)
    refuse_inside(out, dump)
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out}: holds something already; name a new folder")


def sort_dump(dump: Path, out: Path, protocol: Protocol | None, tell: Callable[[str], None]) -> Layout:
    """Return what became of a raw export, after copying each case's files to a folder of its own.

    Parameters
    ----------
    dump
        Files at any depth, of any number of patients; it is not changed.
    out
        A new folder: gets `<case>/<MODALITY>_<number>.dcm`, and, readable to their owner alone, `key.csv` (case,
        PatientID, folder), `choices.csv` (how each plan was chosen) and `leftovers.csv` (every other file, and why).
    protocol
        Which objects make a case, and whose prescription the treated plan has.

    Raises
    ------
    BadInput
        As `check_layout`, or if the dump holds no DICOM.
    """
    check_layout(dump, out)
    survey = survey_dump(dump, protocol, pictures=False, tell=tell)
    undecided = {patient.case_id: _why_not(patient) for patient in survey.patients}
    undecided = {case_id: why for case_id, why in undecided.items() if why}
    left = leftover_rows(survey)
    for patient in survey.patients:
        if patient.case_id in undecided:
            rows = ({"case_id": patient.case_id, "file": file.name} for _, file in patient.files)
            left += [{**row, "why": f"no case: {undecided[patient.case_id]}"} for row in rows]
        else:
            _copy(patient, out / patient.case_id)
            tell(f"{patient.case_id}: {len(patient.files)} files")
    write_private(out / "key.csv", as_csv(KEY_COLUMNS, key_rows(survey)))
    choices: list[Row] = [{"case_id": p.case_id, "why": p.why, "rule": RULE} for p in survey.patients if p.why]
    write_private(out / "choices.csv", as_csv(("case_id", "why", "rule"), choices))
    write_private(out / "leftovers.csv", as_csv(("case_id", "file", "why"), left))
    return Layout(
        laid_out=[patient.case_id for patient in survey.patients if patient.case_id not in undecided],
        undecided=undecided,
        choices={str(row["case_id"]): str(row["why"]) for row in choices},
        n_left=len(left),
    )


def _why_not(patient: PatientSurvey) -> str:
    found = [item for item in patient.complaints if item.kind in UNDECIDED]
    return "; ".join(f"{item.phrase}{f' ({item.text})' if item.text else ''}" for item in found)


def _copy(patient: PatientSurvey, folder: Path) -> None:
    """Copy a case's files under names that name nobody; a link would let an edit reach the export."""
    folder.mkdir(parents=True)
    numbers: Counter[str] = Counter()
    for modality, file in patient.files:
        numbers[modality] += 1
        with atomic_path(folder / f"{modality}_{numbers[modality]:04d}.dcm") as part:
            part.write_bytes(file.read())
