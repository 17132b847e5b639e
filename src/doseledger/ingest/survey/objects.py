"""A patient's image series, structure sets, plans and doses, and what they say of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pydicom

from doseledger.core.errors import BadCase
from doseledger.core.protocol import Protocol
from doseledger.dicom.headers import read_whole
from doseledger.dicom.read_plan import Prescription, read_prescription, summarise_plan, treatment_beams
from doseledger.dicom.read_structures import referenced_frames, referenced_image_uids, referenced_series_uids
from doseledger.dicom.source import MALFORMED, lenient
from doseledger.ingest.names.hints import DOSE_TOLERANCE_GY
from doseledger.ingest.survey.dump import RT_MODALITIES, DumpPatient, Found, text_of

# Words of a scanner's model that tell an image of the treatment's day.
CBCT_MODELS = ("on-board", "obi", "xvi", "cbct", "halcyon", "ethos", "truebeam")
# Plans that no patient is treated by: RT Plan Intent, PS3.3 C.8.8.9.
NOT_TREATING = frozenset({"verification", "machine_qa", "research", "service"})
UNKNOWN: Any = None


@dataclass(frozen=True)
class Series:
    """Images of one series."""

    uid: str
    modality: str
    items: list[Found]

    @property
    def frame(self) -> str:
        """Frame of reference of its first image; empty where none is given."""
        return text_of(self.items[0].header, "FrameOfReferenceUID")

    @property
    def image_uids(self) -> set[str]:
        """SOP Instance UIDs of its images."""
        return {item.uid for item in self.items}

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it; no text that a person typed."""
        first = self.items[0].header
        maker = " ".join(filter(None, (text_of(first, "Manufacturer"), text_of(first, "ManufacturerModelName"))))
        said = f"{maker} {text_of(first, 'ImageType')}".casefold()
        cone_beam = self.modality == "CT" and any(word in said for word in CBCT_MODELS)
        return {
            "modality": self.modality,
            "images": len(self.items),
            "rows": text_of(first, "Rows"),
            "columns": text_of(first, "Columns"),
            "pixel_mm": text_of(first, "PixelSpacing").strip("[]"),
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
        items = self.dataset.get(keyword) or []
        return {text_of(item, "ReferencedSOPInstanceUID") for item in items} - {""}

    @property
    def frame(self) -> str:
        """Its own frame of reference; empty where none is given."""
        return text_of(self.dataset, "FrameOfReferenceUID")


@dataclass(frozen=True)
class StructureSet(RtObject):
    """An RTSTRUCT, and the images that it is drawn on."""

    @property
    def frames(self) -> set[str]:
        """Frames of reference that it names."""
        return referenced_frames(self.dataset)

    def is_drawn_on(self, series: Series) -> bool:
        """Return whether it names a series or one of its images."""
        named = referenced_series_uids(self.dataset)
        return series.uid in named or bool(referenced_image_uids(self.dataset) & series.image_uids)

    @property
    def order(self) -> tuple[bool, str]:
        """What comes later counts more: whether it is approved, and when it was made."""
        when = text_of(self.dataset, "StructureSetDate") + text_of(self.dataset, "StructureSetTime")
        return text_of(self.dataset, "ApprovalStatus") == "APPROVED", when

    def describe(self) -> dict[str, Any]:
        """Return what a survey says of it."""
        return {
            "label": text_of(self.dataset, "StructureSetLabel"),
            "date": text_of(self.dataset, "StructureSetDate"),
            "approval": text_of(self.dataset, "ApprovalStatus"),
            "rois": len(self.dataset.get("StructureSetROISequence") or []),
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
        return text_of(self.dataset, "RTPlanLabel") or text_of(self.dataset, "RTPlanName")

    @property
    def approval(self) -> str:
        """Approval Status, in small letters; `no approval status` where none is given."""
        return text_of(self.dataset, "ApprovalStatus").lower() or "no approval status"

    @property
    def intent(self) -> str:
        """Plan Intent, in small letters."""
        return text_of(self.dataset, "PlanIntent").lower()

    @property
    def when(self) -> str:
        """Date and time, as DICOM writes them; they sort as they pass."""
        return text_of(self.dataset, "RTPlanDate") + text_of(self.dataset, "RTPlanTime")

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
        system = (text_of(self.dataset, "Manufacturer"), text_of(self.dataset, "ManufacturerModelName"))
        return {
            "label": self.label,
            "date": text_of(self.dataset, "RTPlanDate"),
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
        return text_of(self.dataset, "DoseSummationType").upper()

    @property
    def plan_uids(self) -> set[str]:
        """Plans that it names."""
        return self.references("ReferencedRTPlanSequence")

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of the beams that it is of, or of the fraction groups where it names no beam."""
        beams, groups = [], []
        for plan in self.dataset.get("ReferencedRTPlanSequence") or []:
            for group in plan.get("ReferencedFractionGroupSequence") or []:
                groups.append(_number(group, "ReferencedFractionGroupNumber"))
                for beam in group.get("ReferencedBeamSequence") or []:
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
        offsets = self.dataset.get("GridFrameOffsetVector") or []
        return {
            "sums": self.what,
            "units": text_of(self.dataset, "DoseUnits"),
            "type": text_of(self.dataset, "DoseType").lower(),
            "planes": len(offsets) if isinstance(offsets, Sequence) else 1,
            "pixel_mm": text_of(self.dataset, "PixelSpacing").strip("[]"),
        }


def _number(dataset: pydicom.Dataset, keyword: str) -> int | None:
    try:
        return int(dataset[keyword].value)
    except MALFORMED:
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
            uid = text_of(item.header, "SeriesInstanceUID")
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
            objects.structure_sets.append(StructureSet(item, dataset))
        elif item.modality == "RTDOSE":
            objects.doses.append(Dose(item, dataset))
        else:
            objects.plans.append(_read_plan(item, dataset))


def _read_plan(item: Found, dataset: pydicom.Dataset) -> Plan:
    prescription, summary, beams = Prescription({}, []), {}, frozenset[int]()
    try:
        prescription = read_prescription(dataset, "")
    except (BadCase, *MALFORMED):
        pass
    try:
        summary = summarise_plan(dataset)
        beams = frozenset(int(beam.BeamNumber) for beam in treatment_beams(dataset))
    except MALFORMED:
        pass
    return Plan(item, dataset, prescription, summary, beams)
