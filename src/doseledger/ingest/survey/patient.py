"""The survey of one patient: objects, plan, ROIs, faults."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from doseledger.core.errors import BadCase, BadInput, SkippedCase
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Phi, Protocol
from doseledger.dicom.files.headers import DumpFile
from doseledger.dicom.read_image import read_image_grid
from doseledger.dicom.read_structures import Roi, read_rois
from doseledger.dicom.source import lenient
from doseledger.dicom.values import MALFORMED
from doseledger.ingest.body import find_body_roi
from doseledger.ingest.names.clues import Clues
from doseledger.ingest.names.hints import Clue, Hint, find_hints
from doseledger.ingest.patient.absent import Absence, refuse_absent
from doseledger.ingest.patient.roi_names import NameMatch, claim_names
from doseledger.ingest.survey.choice import Choice, choose
from doseledger.ingest.survey.complaints import MENDED_BY_DEIDENTIFY, NOTES, Complaint, Evidence, find_complaints
from doseledger.ingest.survey.dump import Attribute, DumpPatient, Found, find_identifying
from doseledger.ingest.survey.mid_slice import MidSlice, take_mid_slice
from doseledger.ingest.survey.objects import PatientObjects, read_objects
from doseledger.ingest.survey.rois import RoiFacts, measure_rois

IMAGE_MODALITIES = ("CT", "MR", "PT")
# What a folder of a case may be called: core.tables.CASE_ID.
CASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class PatientSurvey:
    """What is known of one patient.

    Parameters
    ----------
    case_id
        What the case is called: the PatientID where it is a pseudonym, else a number.
    patient_id, folder
        Private: what the patient's files say, and where they lie in the dump.
    objects
        Rows of `series`, `structure_sets`, `plans` and `doses`, each with `chosen`, and `others` by modality.
    choice
        What the case is made of. It holds headers: it is not kept in a record.
    copies
        Further files of objects that are there.
    mid_slice
        Picture through the target; None where there is none.
    """

    case_id: str
    patient_id: str
    folder: str
    objects: dict[str, list[dict[str, Any]]]
    others: Mapping[str, int]
    files: list[tuple[str, DumpFile]]
    leftovers: list[tuple[DumpFile, str]]
    why: str
    rois: list[dict[str, Any]]
    claims: Mapping[str, str]
    hints: Mapping[str, Hint]
    complaints: list[Complaint]
    mid_slice: MidSlice | None

    @property
    def state(self) -> str:
        """What ingest would make of it: converts, converts once de-identified, skipped, fails."""
        kinds = {complaint.kind for complaint in self.complaints} - NOTES
        if not kinds:
            return "converts"
        if kinds <= MENDED_BY_DEIDENTIFY:
            return "converts once de-identified"
        return "skipped" if kinds - MENDED_BY_DEIDENTIFY == {"skipped"} else "fails"


def survey_patient(
    patient: DumpPatient, case_id: str, protocol: Protocol | None, phi: Phi, *, pictures: bool
) -> PatientSurvey:
    """Return what is known of one patient; images are read without pixels, but for one slice.

    Parameters
    ----------
    case_id
        What the case is called, from `name_cases`.
    protocol
        What a case must have; None looks at files, links and geometry alone.
    phi
        What counts as identifying.
    """
    modality = protocol.modality if protocol is not None else "CT"
    with lenient():
        objects = read_objects(patient, IMAGE_MODALITIES)
        choice = choose(objects, protocol, modality)
        grid, grid_fault = _read_grid(choice)
        drawn, rois_fault = _read_rois(choice)
        rois = measure_rois(drawn, protocol, grid.spacing_mm[0] if grid is not None else None)
        match, clues, fault, skipped = _match(drawn, rois, choice, protocol)
        hints = _hints(match, clues, rois, protocol)
        identifying, unreadable = _identifying(patient, choice, phi)
        evidence = Evidence(
            choice=choice,
            identifying=identifying,
            unreadable=unreadable,
            broken=[item.modality for item in [*_needed(objects, choice), *_cut_images(choice)]],
            versions=[item.modality for item in patient.versions],
            grid=grid,
            grid_fault=grid_fault,
            drawn=drawn,
            rois=rois,
            match=match,
            match_fault=fault or rois_fault,
            skipped=skipped,
            hints=hints,
        )
        complaints = find_complaints(evidence, protocol)
        mid_slice = None
        if pictures and choice.series is not None and grid is not None:
            mid_slice = take_mid_slice(choice.series, grid, rois, _target(match, rois, protocol))
    claims = dict(match.chosen) if match is not None else {}
    return PatientSurvey(
        case_id=case_id,
        patient_id=patient.patient_id,
        folder=_common_folder(patient),
        objects=_rows(objects, choice),
        others=dict(sorted(objects.others.items())),
        files=choice.files,
        leftovers=[
            *choice.leftovers,
            *((file, "another copy of an object") for file in patient.copies),
            *((item.file, "another version of an object") for item in patient.versions),
        ],
        why=choice.why,
        rois=[_roi_row(roi, {**claims, **_outline(drawn, protocol)}, hints) for roi in rois],
        claims=claims,
        hints=hints,
        complaints=complaints,
        mid_slice=mid_slice,
    )


def name_cases(patients: list[DumpPatient], phi: Phi) -> list[str]:
    """Return what each patient's case is called: the PatientID where it is a pseudonym, else a number that none has."""
    ids = [patient.patient_id for patient in patients]
    kept = {name for name in ids if re.fullmatch(phi.pseudonym, name) and CASE_NAME.fullmatch(name)}
    names: list[str] = []
    number = 0
    for patient_id in ids:
        if patient_id in kept:
            names.append(patient_id)
            continue
        number += 1
        while f"case_{number:04d}" in kept:
            number += 1
        names.append(f"case_{number:04d}")
    return names


def _common_folder(patient: DumpPatient) -> str:
    parts = [PurePosixPath(item.file.name).parent.parts for item in patient.items]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared)


def _needed(objects: PatientObjects, choice: Choice) -> list[Found]:
    """Broken RT objects that the case may need: a plan might be the treated one, and what it names it needs."""
    named = choice.plan.references("ReferencedStructureSetSequence") if choice.plan is not None else set()
    there = {"RTSTRUCT": choice.structures is not None, "RTDOSE": bool(choice.doses)}
    return [item for item in objects.broken if not there.get(item.modality, False) or item.uid in named]


def _cut_images(choice: Choice) -> list[Found]:
    return [item for item in choice.series.items if item.lacks_pixels] if choice.series is not None else []


def _read_grid(choice: Choice) -> tuple[Grid | None, str]:
    if choice.series is None:
        return None, ""
    try:
        return read_image_grid([item.header for item in choice.series.items], ""), ""
    except BadCase as error:
        return None, error.reason
    except BadInput as error:
        return None, str(error)
    except MALFORMED as error:
        return None, f"malformed image ({type(error).__name__}); export the series again"


def _read_rois(choice: Choice) -> tuple[list[Roi], BadCase | None]:
    if choice.structures is None:
        return [], None
    try:
        return read_rois(choice.structures.dataset, ""), None
    except BadCase as error:
        return [], error
    except MALFORMED as error:
        return [], BadCase("", f"malformed RTSTRUCT ({type(error).__name__}); export it again")


def _match(
    drawn: list[Roi], rois: list[RoiFacts], choice: Choice, protocol: Protocol | None
) -> tuple[NameMatch | None, Clues, BadCase | None, bool]:
    """Which ROI is which structure, what is known of the others, why ingest would refuse, and whether as skipped."""
    targets = choice.plan.prescription.targets if choice.plan is not None else []
    doses: dict[int, list[float]] = {}
    for target in targets:
        if target.roi_number is not None:
            doses.setdefault(target.roi_number, []).append(target.dose_gy)
    known = {roi.name: Clue(roi.name, roi.kind, roi.side, tuple(doses.get(roi.number, ()))) for roi in rois}
    clues = Clues(known, targets)
    if protocol is None or not drawn:
        return None, clues, None, False
    there = [roi.name for roi in drawn if roi.items]
    hollow = [roi.name for roi in drawn if roi.name not in there]
    try:
        match = claim_names([*there, *hollow], hollow, protocol, "")
    except BadCase as error:
        return None, clues, error, False
    free = [name for name in match.unmatched if name not in hollow]
    try:
        refuse_absent(Absence(match.absent, free, hollow, match.chosen, clues), protocol, "")
    except SkippedCase as error:
        return match, clues, error, True
    except BadCase as error:
        return match, clues, error, False
    return match, clues, None, False


def _hints(match: NameMatch | None, clues: Clues, rois: list[RoiFacts], protocol: Protocol | None) -> dict[str, Hint]:
    if match is None or protocol is None:
        return {}
    drawn = {roi.name for roi in rois if roi.drawn}
    return find_hints(match.absent, [clues.of(name) for name in match.unmatched if name in drawn], protocol)


def _identifying(patient: DumpPatient, choice: Choice, phi: Phi) -> tuple[Counter[Attribute], list[str]]:
    """Attributes that may identify the patient by how many files of the case hold them, and values that can't be read.

    Without a case, those of all files.
    """
    whole = {item.found.file.name: item.dataset for item in (choice.structures, choice.plan, *choice.doses) if item}
    kept = {file.name for _, file in choice.files} or {item.file.name for item in patient.items}
    found: Counter[Attribute] = Counter()
    unreadable = []
    for item in patient.items:
        if item.file.name not in kept:
            continue
        identifying, fault = item.identifying, item.unreadable
        if item.file.name in whole:
            identifying, fault = find_identifying(whole[item.file.name], phi)
        found.update(identifying)
        unreadable += [fault] if fault else []
    return found, unreadable


def _target(match: NameMatch | None, rois: list[RoiFacts], protocol: Protocol | None) -> str:
    """The ROI that a picture goes through: the target of the highest dose, else the first PTV."""
    if match is not None and protocol is not None:
        by_dose = sorted(protocol.target_names, key=lambda name: -protocol.prescription_gy.get(name, 0.0))
        found = [match.chosen[name] for name in by_dose if name in match.chosen]
        if found:
            return found[0]
    clues = (Clue(roi.name, roi.kind) for roi in rois if roi.polygons)
    return next((clue.name for clue in clues if clue.target and not clue.parts.is_help), "")


def _rows(objects: PatientObjects, choice: Choice) -> dict[str, list[dict[str, Any]]]:
    kept = {id(item) for item in (choice.series, choice.structures, choice.plan, *choice.doses) if item is not None}
    labels = {plan.uid: plan.label for plan in objects.plans}
    doses = [
        {**item.describe(), "plan": ", ".join(sorted(labels.get(uid, "not in the dump") for uid in item.plan_uids))}
        for item in objects.doses
    ]
    groups: dict[str, tuple[list[Any], list[dict[str, Any]]]] = {
        "series": (objects.series, [item.describe() for item in objects.series]),
        "structure_sets": (objects.structure_sets, [item.describe() for item in objects.structure_sets]),
        "plans": (objects.plans, [item.describe() for item in objects.plans]),
        "doses": (objects.doses, doses),
    }
    return {
        name: [{**row, "chosen": id(item) in kept} for item, row in zip(items, rows, strict=True)]
        for name, (items, rows) in groups.items()
    }


def _outline(drawn: list[Roi], protocol: Protocol | None) -> dict[str, str]:
    outline = find_body_roi(drawn, protocol) if protocol is not None else None
    return {} if outline is None else {"the outline": outline.name}


def _roi_row(roi: RoiFacts, claims: Mapping[str, str], hints: Mapping[str, Hint]) -> dict[str, Any]:
    claimed = next((name for name, chosen in claims.items() if chosen == roi.name and roi.drawn), "")
    proposed = next((name for name, hint in hints.items() if hint.roi == roi.name), "")
    return {
        "roi": roi.name,
        "type": roi.kind,
        "drawn": roi.drawn,
        "volume_cc": None if roi.volume_cc is None else round(roi.volume_cc, 2),
        "side": roi.side,
        "claimed_by": claimed,
        "proposed_for": proposed,
        "why": hints[proposed].why if proposed else "",
    }
