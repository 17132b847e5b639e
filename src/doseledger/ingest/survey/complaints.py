"""Everything that ingest would refuse a patient for, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.grid import Grid
from doseledger.core.project.protocol import Protocol, Structure, folded
from doseledger.dicom.frames import is_localizer, planes_of
from doseledger.dicom.pixels import check_header
from doseledger.dicom.read_dose import frames_note, read_dose_grid, read_scaling
from doseledger.dicom.read_image import read_scale
from doseledger.dicom.read_structures import Roi
from doseledger.dicom.source import lenient
from doseledger.dicom.values import MALFORMED
from doseledger.ingest.names.hints import Hint
from doseledger.ingest.patient.prescription import check_prescription
from doseledger.ingest.patient.roi_names import NameMatch
from doseledger.ingest.survey.choice import Choice
from doseledger.ingest.survey.dump import Attribute, said
from doseledger.ingest.survey.rois import RoiFacts

# Contours may lie half a slice beyond the image; a target may reach so far beyond the dose's outer voxels.
HALF = 0.5
# Attributes of an image that its values hang on.
OF_VALUES = (
    "Modality", "ImageType", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
# What is said of one patient, and of several, by kind; in the order in which a page lists them.
KINDS: dict[str, tuple[str, str]] = {
    "identifying": ("holds identifying attributes", "hold identifying attributes"),
    "unreadable": ("holds a value that can't be read", "hold values that can't be read"),
    "broken": ("has files that are cut short or malformed", "have files that are cut short or malformed"),
    "versions": ("has one object in versions that differ", "have one object in versions that differ"),
    "missing": ("lacks {}", "lack {}"),
    "tied_plans": ("has plans that nothing tells apart", "have plans that nothing tells apart"),
    "several_structure_sets": ("has several structure sets", "have several structure sets"),
    "several_series": ("has several image series", "have several image series"),
    "several_doses": ("has several doses of one plan", "have several doses of one plan"),
    "foreign_doses": ("has doses of other plans alone", "have doses of other plans alone"),
    "parted_doses": ("has a dose in parts that are not the whole plan", "have doses in parts that are not the plan"),
    "several_courses": ("holds several courses under one PatientID", "hold several courses under one PatientID"),
    "frame": ("has objects in another frame of reference", "have objects in another frame of reference"),
    "image": ("has an image that is no even stack", "have an image that is no even stack"),
    "values": ("has images whose values can't be used", "have images whose values can't be used"),
    "names": ("has ROIs that can't be told apart", "have ROIs that can't be told apart"),
    "skipped": ("is outside the protocol (skipped)", "are outside the protocol (skipped)"),
    "absent": ("has no ROI for {}", "have no ROI for {}"),
    "prescription": ("has another prescription", "have another prescription"),
    "contours": ("has contours that can't be used", "have contours that can't be used"),
    "dose": ("has a dose that can't be used", "have a dose that can't be used"),
    "dose_grid": ("has a target beyond the dose grid", "have a target beyond the dose grid"),
}
# What de-identification mends, and what is worth a look and refused by nothing; every other kind needs a person.
MENDED_BY_DEIDENTIFY = frozenset({"identifying"})
NOTES = frozenset({"several_courses"})


@dataclass(frozen=True)
class Complaint:
    """One thing that ingest would refuse a patient for.

    Parameters
    ----------
    kind
        A key of `KINDS`.
    about
        The structure or object that it is about; empty where the kind says it all.
    """

    kind: str
    about: str
    text: str

    @property
    def phrase(self) -> str:
        """The complaint about one patient, without the patient: `holds identifying attributes`."""
        return KINDS[self.kind][0].format(self.about)

    def sentence(self, count: int, total: int) -> str:
        """Return the complaint as a sentence about so many patients: `12 of 12 hold identifying attributes`."""
        return f"{count} of {total} {KINDS[self.kind][count != 1].format(self.about)}"


@dataclass(frozen=True)
class Evidence:
    """What is known of a patient when complaints are looked for; None where it can't be had."""

    choice: Choice
    identifying: Mapping[Attribute, int]
    unreadable: Sequence[str]
    broken: Sequence[str]
    versions: Sequence[str]
    grid: Grid | None
    grid_fault: str
    drawn: Sequence[Roi]
    rois: Sequence[RoiFacts]
    match: NameMatch | None
    match_fault: BadCase | None
    skipped: bool
    hints: Mapping[str, Hint]


def find_complaints(evidence: Evidence, protocol: Protocol | None) -> list[Complaint]:
    """Return everything that ingest would refuse a patient for, in the order of `KINDS`.

    Parameters
    ----------
    protocol
        Without one only files, links and geometry are looked at.
    """
    found: list[Complaint] = []
    for look in (_files, _links, _image, _names, _prescription, _contours, _dose):
        with lenient():
            found += _guarded(look, evidence, protocol)
    order = list(KINDS)
    return sorted(found, key=lambda complaint: order.index(complaint.kind))


Look = Callable[[Evidence, Protocol | None], Iterator[Complaint]]


def _guarded(look: Look, evidence: Evidence, protocol: Protocol | None) -> list[Complaint]:
    try:
        return list(look(evidence, protocol))
    except (BadCase, BadInput) as error:
        return [Complaint("unreadable", "", getattr(error, "reason", str(error)))]
    except MALFORMED as error:
        # Only the kind of error: its text may hold a value.
        return [Complaint("unreadable", "", f"malformed DICOM ({type(error).__name__}); export the patient again")]


def _files(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    if evidence.identifying:
        # Of equal numbers the lower tag first: attributes come from sets, whose order differs from process to process.
        names = Counter({keyword or tag: n for (tag, keyword), n in sorted(evidence.identifying.items())})
        yield Complaint("identifying", "", ", ".join(name for name, _ in names.most_common()))
    for error in sorted(set(evidence.unreadable)):
        yield Complaint("unreadable", "", f"{error} in {list(evidence.unreadable).count(error)} files")
    for modality in sorted(set(evidence.versions)):
        yield Complaint("versions", "", f"{modality} of one UID with different content; leave only the right one")
    for modality, n in sorted(Counter(evidence.broken).items()):
        yield Complaint("broken", "", f"{n} {modality}; copy or export them again")


def _links(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    choice = evidence.choice
    for kind, text in choice.complaints:
        yield Complaint(kind, text if kind == "missing" else "", "" if kind == "missing" else text)
    if choice.series is None or not choice.series.frame:
        return
    frame = choice.series.frame
    frames = {said(item.header, "FrameOfReferenceUID") for item in choice.series.items}
    if len(frames) > 1:
        yield Complaint("frame", "", "image slices of several frames of reference; export one series")
    named = [("RTSTRUCT", choice.structures.frames if choice.structures else set())]
    named += [(item.found.modality, {item.frame} - {""}) for item in (choice.plan, *choice.doses) if item is not None]
    for name, uids in dict(named).items():
        if uids and frame not in uids:
            yield Complaint("frame", "", f"{name} in another than the image; export those that belong together")


def _image(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    if evidence.grid_fault:
        yield Complaint("image", "", evidence.grid_fault)
    if evidence.choice.series is None:
        return
    headers = [item.header for item in evidence.choice.series.items]
    known: dict[tuple[str, ...], str] = {}
    faults: Counter[str] = Counter()
    for header in headers:
        # The images of a series are written alike: each way of writing is looked at once.
        written = tuple(str(getattr(header.get_item(keyword), "value", None)) for keyword in OF_VALUES)
        if written not in known or "PerFrameFunctionalGroupsSequence" in header:
            known[written] = _fault_of_values(header)
        faults[known[written]] += 1
    for fault, n in faults.items():
        if fault:
            yield Complaint("values", "", f"{fault} ({n} of {len(headers)} files)")


def _fault_of_values(header: pydicom.Dataset) -> str:
    """What keeps an image's pixels from being values, as far as its header says; empty where nothing does."""
    try:
        if not is_localizer(header):
            check_header(header)
            for plane in planes_of(header):
                read_scale(plane.place)
    except BadInput as error:
        return str(error)
    return ""


def _names(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    if protocol is None:
        return
    if evidence.match is None:
        if evidence.match_fault is not None:
            yield Complaint("names", "", evidence.match_fault.reason)
        return
    if evidence.skipped and evidence.match_fault is not None:
        yield Complaint("skipped", "", evidence.match_fault.reason)
        return
    covered = protocol.skip_when.any_absent if protocol.skip_when else []
    for structure in evidence.match.absent:
        if structure.required or structure.name in covered:
            yield Complaint("absent", structure.name, _absent_text(structure, evidence))


def _absent_text(structure: Structure, evidence: Evidence) -> str:
    hollow = [roi.name for roi in evidence.rois if not roi.drawn and folded(roi.name) in structure.folded_names]
    if hollow:
        return f'"{hollow[0]}" has no contours'
    hint = evidence.hints.get(structure.name)
    if hint is None:
        return "no unclaimed ROI is like it"
    return f'may be "{hint.roi}"' + (f" ({hint.why})" if hint.why else "")


def _prescription(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    plan = evidence.choice.plan
    if protocol is None or plan is None or evidence.match is None or "rtplan" not in protocol.objects:
        return
    try:
        check_prescription(plan.dataset, list(evidence.drawn), evidence.match, protocol, "")
    except (BadCase, BadInput) as error:
        yield Complaint("prescription", "", getattr(error, "reason", str(error)))


def _contours(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    chosen = evidence.match.chosen if evidence.match is not None else {}
    by_name = {roi.name: roi for roi in evidence.rois if roi.polygons or roi.fault}
    for structure, name in chosen.items():
        roi = by_name.get(name)
        if roi is None or (protocol is not None and not protocol.structure(structure).required):
            continue
        if roi.fault:
            yield Complaint("contours", "", roi.fault)
        elif evidence.grid is not None:
            low, high = (ends[0] for ends in evidence.grid.extent_mm)
            half = HALF * evidence.grid.spacing_mm[0] + 0.01
            beyond = sum(not low - half <= z <= high + half for z, _ in roi.polygons)
            if beyond:
                text = f"{beyond} contours of {structure} lie beyond the image; export the whole series"
                yield Complaint("contours", "", text)


def _dose(evidence: Evidence, protocol: Protocol | None) -> Iterator[Complaint]:
    wanted = {"DoseUnits": "GY", "DoseType": "PHYSICAL"}
    for dose in evidence.choice.doses:
        for keyword, value in wanted.items():
            found = said(dose.dataset, keyword)
            if found != value:
                yield Complaint("dose", "", f"{keyword} is {found or 'empty'}, wanted {value}; export the dose in Gy")
        is_lone = len(evidence.choice.doses) == 1
        try:
            read_scaling(dose.dataset, "")
            check_header(dose.dataset)
            if is_lone and (note := frames_note(dose.dataset)):
                raise BadInput(f"{note}; export it again")
            grid = read_dose_grid(dose.dataset, "")
        except (BadCase, BadInput) as error:
            if is_lone or dose.describe()["planes"] != 1 or "GridFrameOffset" not in str(error):
                yield Complaint("dose", "", getattr(error, "reason", str(error)))
            continue
        if is_lone:
            yield from _beyond(evidence, grid, protocol)


def _beyond(evidence: Evidence, grid: Grid, protocol: Protocol | None) -> Iterator[Complaint]:
    """Targets whose contours reach beyond the outer voxels of the dose."""
    if protocol is None or evidence.match is None:
        return
    low, high = (np.asarray(ends)[::-1] for ends in grid.extent_mm)
    half = HALF * np.asarray(grid.spacing_mm)[::-1]
    by_name = {roi.name: roi for roi in evidence.rois if roi.polygons}
    for target in protocol.target_names:
        roi = by_name.get(evidence.match.chosen.get(target, ""))
        if roi is not None and (np.any(roi.low_mm < low - half) or np.any(roi.high_mm > high + half)):
            yield Complaint("dose_grid", "", f"{target}; compute the dose on a grid that holds it")
