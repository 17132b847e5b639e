"""A patient's series, structure sets, plans and doses, and their links."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pydicom

from doseledger.core.project.protocol import Protocol
from doseledger.dicom.files.headers import read_whole
from doseledger.dicom.plan.beams import treatment_beams
from doseledger.dicom.plan.read import Prescription, read_prescription, summarise_plan
from doseledger.dicom.read_structures import referenced_frames, referenced_image_uids, referenced_series_uids
from doseledger.dicom.source import lenient
from doseledger.dicom.values import items_of, whole, whole_of
from doseledger.ingest.names.hints import DOSE_TOLERANCE_GY
from doseledger.ingest.survey.dump import ODD, RT_MODALITIES, DumpPatient, Found, said

# Words of a scanner's model that tell an image of the treatment's day.
CBCT_MODELS = ("on-board", "obi", "xvi", "cbct", "halcyon", "ethos", "truebeam")
# Plans that no patient is treated by: RT Plan Intent, PS3.3 C.8.8.9.
NOT_TREATING = frozenset({"verification", "machine_qa", "research", "service"})


@dataclass(frozen=True)
class Series:
    """Images of one series."""

    uid: str
    modality: str
    items: list[Found]

    @property
    def frame(self) -> str:
        """Frame of reference of its first image; empty where none is given."""
        return said(self.items[0].header, "FrameOfReferenceUID")

    @property
    def image_uids(self) -> set[str]:
        """SOP Instance UIDs of its images."""
        return {item.uid for item in self.items}

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it; no text that a person typed."""
        first = self.items[0].header
        maker = " ".join(filter(None, (said(first, "Manufacturer"), said(first, "ManufacturerModelName"))))
        words = f"{maker} {said(first, 'ImageType')}".casefold()
        cone_beam = self.modality == "CT" and any(model in words for model in CBCT_MODELS)
        return {
            "modality": self.modality,
            "images": len(self.items),
            "rows": said(first, "Rows"),
            "columns": said(first, "Columns"),
            "pixel_mm": said(first, "PixelSpacing"),
            "scanner": maker,
            "looks_like": "cone beam" if cone_beam else "",
        }


@dataclass(frozen=True)
class RtObject:
    """One RTSTRUCT, RTPLAN or RTDOSE, without pixels."""

    found: Found
    dataset: pydicom.Dataset = field(repr=False)

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.found.uid

    def references(self, keyword: str) -> set[str]:
        """Return the UIDs of the objects that a sequence of references names."""
        return {said(item, "ReferencedSOPInstanceUID") for item in items_in(self.dataset, keyword)} - {""}

    @property
    def frame(self) -> str:
        """Its own frame of reference; empty where none is given."""
        return said(self.dataset, "FrameOfReferenceUID")


@dataclass(frozen=True)
class StructureSet(RtObject):
    """An RTSTRUCT, and the frames of reference, series and images that it is drawn on."""

    frames: set[str]
    series_uids: set[str]
    image_uids: set[str]

    def is_drawn_on(self, series: Series) -> bool:
        """Return whether it names a series or one of its images."""
        return series.uid in self.series_uids or bool(self.image_uids & series.image_uids)

    @property
    def order(self) -> tuple[bool, str]:
        """What comes later counts more: whether it is approved, and when it was made."""
        when = said(self.dataset, "StructureSetDate") + said(self.dataset, "StructureSetTime")
        return said(self.dataset, "ApprovalStatus") == "APPROVED", when

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it."""
        return {
            "label": said(self.dataset, "StructureSetLabel"),
            "date": said(self.dataset, "StructureSetDate"),
            "approval": said(self.dataset, "ApprovalStatus"),
            "rois": len(items_in(self.dataset, "StructureSetROISequence")),
        }


@dataclass(frozen=True)
class Plan(RtObject):
    """An RTPLAN; what can't be read of it is empty."""

    prescription: Prescription
    summary: dict[str, Any]
    beams: frozenset[int]

    @property
    def label(self) -> str:
        """RT Plan Label, else its name."""
        return said(self.dataset, "RTPlanLabel") or said(self.dataset, "RTPlanName")

    @property
    def approval(self) -> str:
        """Approval Status, in small letters; `no approval status` where none is given."""
        return said(self.dataset, "ApprovalStatus").lower() or "no approval status"

    @property
    def intent(self) -> str:
        """Plan Intent, in small letters."""
        return said(self.dataset, "PlanIntent").lower()

    @property
    def when(self) -> str:
        """Date and time, as DICOM writes them; they sort as they pass."""
        return said(self.dataset, "RTPlanDate") + said(self.dataset, "RTPlanTime")

    @property
    def fractions(self) -> int:
        """Fractions of all groups."""
        return sum(self.prescription.n_fractions.values())

    @property
    def doses_gy(self) -> list[float]:
        """Each dose that is prescribed to a target, the highest first."""
        return sorted({target.dose_gy for target in self.prescription.targets}, reverse=True)

    def fits(self, protocol: Protocol | None) -> bool:
        """Return whether fractions and doses are the protocol's, as far as the plan says."""
        if protocol is None:
            return True
        wanted = list(protocol.prescription_gy.values())
        fractions = protocol.n_fractions is None or self.fractions == protocol.n_fractions
        return fractions and all(
            any(abs(dose - gy) <= DOSE_TOLERANCE_GY for gy in wanted) for dose in self.doses_gy if wanted
        )

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it."""
        system = (said(self.dataset, "Manufacturer"), said(self.dataset, "ManufacturerModelName"))
        return {
            "label": self.label,
            "date": said(self.dataset, "RTPlanDate"),
            "approval": self.approval,
            "intent": self.intent,
            "fractions": self.fractions or None,
            "prescription_gy": self.doses_gy,
            "technique": self.summary.get("technique", ""),
            "beams": self.summary.get("n_beams"),
            "radiation": self.summary.get("radiation", []),
            "planning_system": " ".join(filter(None, system)),
        }


@dataclass(frozen=True)
class Dose(RtObject):
    """An RTDOSE without its pixels."""

    @property
    def sums(self) -> str:
        """Dose Summation Type."""
        return said(self.dataset, "DoseSummationType").upper()

    @property
    def plan_uids(self) -> set[str]:
        """Plans that it names."""
        return self.references("ReferencedRTPlanSequence")

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of the beams that it is of, or of the fraction groups where it names no beam."""
        beams, groups = [], []
        for plan in items_in(self.dataset, "ReferencedRTPlanSequence"):
            for group in items_in(plan, "ReferencedFractionGroupSequence"):
                groups.append(_number(group, "ReferencedFractionGroupNumber"))
                for beam in items_in(group, "ReferencedBeamSequence"):
                    beams.append(_number(beam, "ReferencedBeamNumber"))
        return tuple(number for number in (beams or groups) if number is not None)

    @property
    def what(self) -> str:
        """What it sums, in words: `plan`, `beam 2`, `fraction group 1`."""
        nouns = {"BEAM": "beam", "FRACTION": "fraction group", "CONTROL_POINT": "control points of beam"}
        if self.sums not in nouns:
            return self.sums.lower().replace("_", " ") or "not said"
        return f"{nouns[self.sums]} {', '.join(map(str, self.parts)) or '?'}"

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it."""
        frames = said(self.dataset, "NumberOfFrames")
        return {
            "sums": self.what,
            "units": said(self.dataset, "DoseUnits"),
            "type": said(self.dataset, "DoseType").lower(),
            "planes": int(frames) if frames.isdigit() else 1,
            "pixel_mm": said(self.dataset, "PixelSpacing"),
        }


def items_in(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Return the items of a sequence; none where it can't be read."""
    try:
        return items_of(dataset, keyword)
    except ODD:
        return []


def _number(dataset: pydicom.Dataset, keyword: str) -> int | None:
    try:
        return whole_of(dataset, keyword)
    except ODD:
        return None


@dataclass(frozen=True)
class PatientObjects:
    """All of a patient's objects; `broken` are RT objects that can't be read whole, `others` what is none of these."""

    series: list[Series]
    structure_sets: list[StructureSet]
    plans: list[Plan]
    doses: list[Dose]
    broken: list[Found]
    others: Counter[str]
    other_items: list[Found]


def read_objects(patient: DumpPatient, image_modalities: tuple[str, ...]) -> PatientObjects:
    """Return a patient's objects; RT objects are read whole, without pixels."""
    series: dict[str, Series] = {}
    objects = PatientObjects([], [], [], [], [], Counter(), [])
    for item in patient.items:
        if item.modality in RT_MODALITIES:
            _read_rt(item, objects)
        elif item.modality in image_modalities:
            uid = said(item.header, "SeriesInstanceUID")
            series.setdefault(uid, Series(uid, item.modality, [])).items.append(item)
        else:
            objects.others[item.modality or "unnamed"] += 1
            objects.other_items.append(item)
    objects.series.extend(series.values())
    return objects


def _read_rt(item: Found, objects: PatientObjects) -> None:
    with lenient():
        dataset = read_whole(item.file)
        if dataset is None:
            objects.broken.append(item)
        elif item.modality == "RTSTRUCT":
            _read_structures(item, dataset, objects)
        elif item.modality == "RTDOSE":
            objects.doses.append(Dose(item, dataset))
        else:
            objects.plans.append(_read_plan(item, dataset))


def _read_structures(item: Found, dataset: pydicom.Dataset, objects: PatientObjects) -> None:
    try:
        links = referenced_frames(dataset), referenced_series_uids(dataset), referenced_image_uids(dataset)
    except ODD:
        objects.broken.append(item)
        return
    objects.structure_sets.append(StructureSet(item, dataset, *links))


def _read_plan(item: Found, dataset: pydicom.Dataset) -> Plan:
    prescription, summary, beams = Prescription({}, []), {}, frozenset[int]()
    with suppress(*ODD):
        prescription = read_prescription(dataset, "")
    with suppress(*ODD):
        summary = summarise_plan(dataset)
        beams = frozenset(whole(beam, "BeamNumber") for beam in treatment_beams(dataset))
    return Plan(item, dataset, prescription, summary, beams)
