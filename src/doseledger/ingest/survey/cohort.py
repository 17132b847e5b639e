"""The survey of a raw export: patients, ROI names, faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.project.protocol import Phi, Protocol
from doseledger.core.text.lists import first_of
from doseledger.core.types import Tell
from doseledger.ingest.names.nomenclature import Side, read_name, standard_name
from doseledger.ingest.survey.choice import RULE
from doseledger.ingest.survey.complaints import KINDS
from doseledger.ingest.survey.dump import Dump, read_dump
from doseledger.ingest.survey.patient import PatientSurvey, name_cases, survey_patient

# Without a protocol nobody says what a pseudonym looks like: no name is one.
NO_PSEUDONYM = Phi(pseudonym="(?!)")
# How many findings of a complaint a terminal shows.
MOST_FOUND = 6
Row = dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """What a dump holds.

    Parameters
    ----------
    protocol
        What it was held against; None where only files, links and geometry were looked at.
    patients
        In the order of their first file.
    n_files, n_strangers, n_broken, n_copies
        Files in all, of them no DICOM, DICOM cut short, and further files of one object.
    strangers
        Private: names of the files that are no DICOM or cut short.
    unfollowed
        Private: names of links to folders or to nothing, which nobody looked into.
    """

    protocol: Protocol | None
    patients: list[PatientSurvey]
    n_files: int
    n_strangers: int
    n_broken: int
    n_copies: int
    strangers: list[str]
    unfollowed: list[str]

    @property
    def states(self) -> dict[str, int]:
        """How many patients would convert, and how many not."""
        counts = Counter(patient.state for patient in self.patients)
        return {state: counts[state] for state in ("converts", "converts once de-identified", "skipped", "fails")}

    def complaints(self) -> list[Row]:
        """Return each complaint with how many patients it is of, who they are, and what was found."""
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        first = {}
        for patient in self.patients:
            for item in patient.complaints:
                groups.setdefault((item.kind, item.about), []).append((patient.case_id, item.text))
                first[item.kind, item.about] = item
        order = list(KINDS)
        rows = []
        for key in sorted(groups, key=lambda key: order.index(key[0])):
            cases = list(dict.fromkeys(case for case, _ in groups[key]))
            # Attributes are one list over all patients; anything else is told as it was found.
            texts = [text for _, text in groups[key]]
            parts = [part for text in texts for part in text.split(", ")] if key[0] == "identifying" else texts
            found = [{"text": text, "count": n} for text, n in Counter(parts).most_common() if text]
            sentence = first[key].sentence(len(cases), len(self.patients))
            rows.append({"sentence": sentence, "kind": key[0], "about": key[1], "cases": cases, "found": found})
        return rows

    def rois(self) -> list[Row]:
        """Return each ROI name of the treated structure sets, how often it is there, and what it is or may be."""
        by_name: dict[str, list[Row]] = {}
        for patient in self.patients:
            for row in patient.rois:
                by_name.setdefault(str(row["roi"]), []).append(row)
        return [_roi_summary(name, rows) for name, rows in sorted(by_name.items(), key=lambda item: -len(item[1]))]

    def structures(self) -> list[Row]:
        """Return each structure of the protocol: in how many it was found, by which ROI, and which may be it."""
        if self.protocol is None:
            return []
        rows = []
        for structure in self.protocol.structures:
            name = structure.name
            claimed = Counter(patient.claims[name] for patient in self.patients if name in patient.claims)
            hints = [patient.hints[name] for patient in self.patients if name in patient.hints]
            why = {hint.roi: hint.why for hint in hints}
            proposed = Counter(hint.roi for hint in hints)
            dose_gy = self.protocol.prescription_gy.get(name)
            rows.append(
                {
                    "structure": name,
                    "required": structure.required,
                    "found": claimed.total(),
                    "patients": len(self.patients),
                    "claimed": [{"roi": roi, "patients": n} for roi, n in claimed.most_common()],
                    "proposed": [
                        {"roi": roi, "patients": n, "why": why[roi] or "spelt alike"}
                        for roi, n in proposed.most_common()
                    ],
                    "standard_name": standard_name(name, dose_gy=dose_gy),
                }
            )
        return rows

    def proposed_aliases(self) -> dict[str, list[str]]:
        """Return by structure the ROI names that may be it, the most frequent first; for a person to confirm."""
        return {
            row["structure"]: [item["roi"] for item in row["proposed"]] for row in self.structures() if row["proposed"]
        }

    def as_json(self) -> Row:
        """Return all of it as JSON values; no PatientID and no file name is among them."""
        return {
            "protocol": self.protocol.name if self.protocol is not None else None,
            "files": {
                "all": self.n_files, "not_dicom": self.n_strangers, "cut_short": self.n_broken, "copies": self.n_copies,
            },
            "states": self.states,
            "rule": RULE,
            "complaints": self.complaints(),
            "proposed_aliases": self.proposed_aliases(),
            "structures": self.structures(),
            "rois": self.rois(),
            "patients": [patient_row(patient) for patient in self.patients],
        }  # fmt: skip


def patient_row(patient: PatientSurvey) -> Row:
    """Return a patient as JSON values; nothing private is among them."""
    return {
        "case_id": patient.case_id,
        "state": patient.state,
        "why": patient.why,
        **patient.objects,
        "others": dict(patient.others),
        "rois": patient.rois,
        "claims": dict(patient.claims),
        "complaints": [{"kind": item.kind, "about": item.about, "text": item.text} for item in patient.complaints],
        "left_over": dict(sorted(Counter(why for _, why in patient.leftovers).items())),
    }


def _roi_summary(name: str, rows: Sequence[Row]) -> Row:
    volumes = [row["volume_cc"] for row in rows if row["volume_cc"] is not None]
    sides: Counter[Side] = Counter(row["side"] for row in rows if row["side"])
    said = read_name(name).side
    lies = sides.most_common(1)[0][0] if sides else ""
    spread = None
    if volumes:
        spread = {"least": min(volumes), "median": round(median(volumes), 2), "most": max(volumes)}
    return {
        "roi": name,
        "patients": len(rows),
        "empty": sum(not row["drawn"] for row in rows),
        "types": _by_count(rows, "type"),
        "volume_cc": spread,
        "side_by_name": said,
        "side_by_place": dict(sides.most_common()),
        "sides_differ": sum(n for side, n in sides.items() if said in ("L", "R") and side not in (said, "both")),
        "claimed_by": _by_count(rows, "claimed_by"),
        "proposed_for": _by_count(rows, "proposed_for"),
        "standard_name": standard_name(name, lies if lies in ("L", "R") else ""),
    }


def _by_count(rows: Sequence[Row], key: str) -> list[str]:
    """Values of a key, those that are empty left out, the most frequent first."""
    return [value for value, _ in Counter(str(row[key]) for row in rows if row[key]).most_common()]


def survey_dump(folder: Path, protocol: Protocol | None, *, pictures: bool, scale: Scale = HERE, tell: Tell) -> Survey:
    """Return what a raw export holds; nothing in it is changed.

    Parameters
    ----------
    folder
        Files at any depth, of any number of patients, with whatever else lies there.
    protocol
        What a case must have, and what counts as identifying; None looks at files, links and geometry alone.
    pictures
        Whether a slice of each patient is read.
    scale
        Where patients are looked at; files are opened in this process.
    tell
        Called with how far it is; nobody is named.

    Raises
    ------
    BadInput
        If there is no such folder, or no DICOM in it.
    """
    phi = protocol.phi if protocol is not None and protocol.phi is not None else NO_PSEUDONYM
    dump: Dump = read_dump(folder, phi, tell)
    names = name_cases(dump.patients, phi)
    look = partial(survey_patient, pictures=pictures)
    arguments = {name: (patient, name, protocol, phi) for name, patient in zip(names, dump.patients, strict=True)}
    seen = over_cases(look, arguments, scale, tell=tell, note=lambda patient: patient.state).complete()
    patients = [seen[name] for name in names]
    return Survey(
        protocol=protocol,
        patients=patients,
        n_files=dump.n_files,
        n_strangers=len(dump.strangers),
        n_broken=len(dump.broken),
        n_copies=sum(len(patient.copies) for patient in dump.patients),
        strangers=[file.name for file in (*dump.strangers, *dump.broken)],
        unfollowed=dump.unfollowed,
    )


def describe_survey(survey: Survey) -> str:
    """Return the lines that a terminal shows: what is there, and what ingest would refuse."""
    states = ", ".join(f"{state}: {n}" for state, n in survey.states.items() if n)
    lines = [f"{len(survey.patients)} patients in {survey.n_files} files; {states}"]
    if survey.unfollowed:
        lines.append(f"  {len(survey.unfollowed)} links to folders or to nothing: not looked into, see files.csv")
    for row in survey.complaints():
        found = first_of([f"{item['text']} ({item['count']})" for item in row["found"]], MOST_FOUND, "; ")
        lines.append(f"  {row['sentence']}" + (f": {found}" if found else ""))
    aliases = survey.proposed_aliases()
    if aliases:
        lines.append("ROIs that may be a structure, for a person to confirm:")
        lines += [f"  {name}: {', '.join(rois)}" for name, rois in aliases.items()]
    return "\n".join(lines)
