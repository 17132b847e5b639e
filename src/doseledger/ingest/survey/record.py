"""A survey as CSV and JSON; who the cases are stands apart, in files of mode 600."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import all_or_none, atomic_path, write_json, write_text
from doseledger.ingest.survey.cohort import Row, Survey
from doseledger.ingest.survey.patient import PatientSurvey

KEY_COLUMNS = ("case_id", "patient_id", "folder")
OBJECT_COLUMNS = (
    "case_id", "object", "chosen", "label", "date", "approval", "intent", "fractions", "prescription_gy", "technique",
    "beams", "radiation", "planning_system", "sums", "plan", "units", "type", "planes", "modality", "images", "rows",
    "columns", "pixel_mm", "scanner", "looks_like", "rois",
)  # fmt: skip
ROI_COLUMNS = (
    "roi", "patients", "empty", "types", "volume_cc", "side_by_name", "side_by_place", "sides_differ", "claimed_by",
    "proposed_for", "standard_name",
)  # fmt: skip
NOUNS = {"series": "series", "structure_sets": "structure set", "plans": "plan", "doses": "dose"}


def refuse_inside(out: Path, dump: Path) -> None:
    """Do nothing if a folder lies outside the dump.

    Raises
    ------
    BadInput
        If it is the dump or lies in it: nothing is ever written there.
    """
    if out.resolve() == dump.resolve() or dump.resolve() in out.resolve().parents:
        raise BadInput(f"{out}: lies in the dump, which is never changed; name another folder")


@all_or_none()
def write_survey(survey: Survey, out: Path) -> list[Path]:
    """Write a survey as tables and JSON; return what was written.

    Parameters
    ----------
    out
        Gets `survey.json`, `patients.csv`, `objects.csv`, `rois.csv` and `complaints.csv`, in which nobody is named but
        by what the clinic wrote into labels and ROI names; and, readable to their owner alone, `key.csv` (case,
        PatientID, folder) and `files.csv` (every file that is left over). Git leaves the whole folder alone.
    """
    write_text(out / ".gitignore", "*\n")
    write_json(out / "survey.json", survey.as_json())
    tables: dict[str, tuple[Sequence[str], Iterable[Mapping[str, Any]]]] = {
        "patients.csv": (PATIENT_COLUMNS, [patient_line(patient) for patient in survey.patients]),
        "objects.csv": (OBJECT_COLUMNS, [row for patient in survey.patients for row in _object_rows(patient)]),
        "rois.csv": (ROI_COLUMNS, survey.rois()),
        "complaints.csv": (
            ("case_id", "kind", "about", "text"),
            [
                {"case_id": p.case_id, "kind": item.kind, "about": item.about, "text": item.text}
                for p in survey.patients
                for item in p.complaints
            ],
        ),
    }
    for name, (columns, rows) in tables.items():
        write_text(out / name, as_csv(columns, rows))
    write_private(out / "key.csv", as_csv(KEY_COLUMNS, key_rows(survey)))
    write_private(out / "files.csv", as_csv(("case_id", "file", "why"), leftover_rows(survey)))
    return [out / name for name in ("survey.json", *tables, "key.csv", "files.csv")]


PATIENT_COLUMNS = (
    "case_id", "state", "plan", "date", "approval", "fractions", "prescription_gy", "technique", "planning_system",
    "dose", "images", "series", "plans", "doses", "rois", "complaints", "why",
)  # fmt: skip


def patient_line(patient: PatientSurvey) -> Row:
    """Return a patient as one row: the chosen plan, its dose and image, and how much else there is."""
    plan: Row = _chosen(patient, "plans")
    return {
        "case_id": patient.case_id,
        "state": patient.state,
        "plan": plan.get("label", ""),
        **{name: plan.get(name, "") for name in PATIENT_COLUMNS[3:9]},
        "dose": ", ".join(str(dose["sums"]) for dose in patient.objects["doses"] if dose["chosen"]),
        "images": _chosen(patient, "series").get("images", 0),
        **{name: len(patient.objects[name]) for name in ("series", "plans", "doses")},
        "rois": len(patient.rois),
        "complaints": "; ".join(dict.fromkeys(item.phrase for item in patient.complaints)),
        "why": patient.why,
    }


def _chosen(patient: PatientSurvey, kind: str) -> Row:
    return next((row for row in patient.objects[kind] if row["chosen"]), {})


def _object_rows(patient: PatientSurvey) -> list[Row]:
    return [
        {"case_id": patient.case_id, "object": NOUNS[kind], **row}
        for kind, rows in patient.objects.items()
        for row in rows
    ]


def key_rows(survey: Survey) -> list[Row]:
    """Return who each case is: private."""
    return [
        {"case_id": patient.case_id, "patient_id": patient.patient_id, "folder": patient.folder}
        for patient in survey.patients
    ]


def leftover_rows(survey: Survey) -> list[Row]:
    """Return every file that is in no case, and why: private, for names of files may name people."""
    rows = [
        {"case_id": patient.case_id, "file": file.name, "why": why}
        for patient in survey.patients
        for file, why in patient.leftovers
    ]
    others = dict.fromkeys(survey.strangers, "no DICOM, or cut short")
    others |= dict.fromkeys(survey.unfollowed, "a link to a folder or to nothing, or no file: not looked into")
    return [*rows, *({"case_id": "", "file": name, "why": why} for name, why in others.items())]


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    with atomic_path(path) as part:
        part.touch(mode=0o600)
        part.write_text(text, encoding="utf-8")


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV; lists and dicts become short texts."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: as_words(row.get(name, "")) for name in columns} for row in rows)
    return stream.getvalue()


def as_words(value: Any) -> str:
    """Return a JSON value as a short text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {as_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(as_words(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
