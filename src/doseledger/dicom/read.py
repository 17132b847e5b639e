"""Assembly of a case's series, structure set, dose and plan by their links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import pydicom

from doseledger.core.errors import BadCase, BadInput
from doseledger.core.project.protocol import DicomObject
from doseledger.core.text.lists import first_of
from doseledger.dicom.dose_parts import choose_parts
from doseledger.dicom.frames import has_place
from doseledger.dicom.read_structures import referenced_frames, referenced_image_uids, referenced_series_uids
from doseledger.dicom.source import SourceFile, in_file, label_of
from doseledger.dicom.values import items_of, text_of

OBJECT_MODALITY: dict[DicomObject, str] = {"rtstruct": "RTSTRUCT", "rtdose": "RTDOSE", "rtplan": "RTPLAN"}
# How objects are told to belong together: by the UIDs that they name, or, where those don't decide and whoever runs it
# says so, by their frame of reference.
Link = Literal["references", "frame-of-reference"]
APPROVED = "APPROVED"
# How many files a refusal names.
MOST_NAMED = 3
Datasets = list[pydicom.Dataset]


def check_link(text: str) -> Link:
    """Return a way to tell that objects belong together.

    Raises
    ------
    BadInput
        If there is no such way.
    """
    for link in get_args(Link):
        if text == link:
            return link
    raise BadInput(f"--link {text!r}: wanted one of {', '.join(get_args(Link))}")


@dataclass(frozen=True)
class CaseObjects:
    """The data sets that one case is made of.

    Parameters
    ----------
    rtstruct, rtplan
        None where the protocol does not ask for it.
    dose_parts
        The files that the plan's dose is made of, for `dose_parts.read_parts`; none where no dose is asked for.
    dose_plan
        The plan that the dose is of, also where the protocol asks for no plan; None if it is not there.
    n_absent_images
        Images that the structure set names and that are not there.
    warnings
        What is odd about the links, but no reason to refuse.
    """

    slices: Datasets
    rtstruct: pydicom.Dataset | None
    rtplan: pydicom.Dataset | None
    dose_parts: Datasets
    dose_plan: pydicom.Dataset | None
    n_absent_images: int
    warnings: list[str] = field(default_factory=list)

    @property
    def rtdose(self) -> pydicom.Dataset | None:
        """The dose's file, the first where there are several; None where no dose is asked for."""
        return self.dose_parts[0] if self.dose_parts else None

    @property
    def absent_note(self) -> str:
        """How many referenced images are missing, as a clause for a refusal; empty where none is."""
        if self.rtstruct is None or not self.n_absent_images:
            return ""
        named = len(referenced_image_uids(self.rtstruct))
        return f"{self.n_absent_images} of the {named} images that the RTSTRUCT names are absent"


@dataclass
class _Choice:
    """How one of several candidates is chosen, and what was said of the others."""

    case_id: str
    link: Link
    faults: dict[int, str]
    frames: set[str]
    notes: list[str] = field(default_factory=list)

    def only(self, items: Datasets, what: str, referring: Datasets = (), keyword: str = "") -> pydicom.Dataset:  # type: ignore[assignment]
        """The one that others refer to, that can be read, that is approved, or (if asked) in the image's frame."""
        found = _referred(items, referring, keyword)
        sound = [item for item in found if id(item) not in self.faults]
        found = sound or found
        if len(found) > 1:
            approved = [item for item in found if text_of(item, "ApprovalStatus") == APPROVED]
            if len(approved) == 1:
                self.notes.append(f"of {len(found)} {what} the approved one was taken{_names(approved, ' (', ')')}")
                found = approved
        if len(found) > 1 and self.link == "frame-of-reference":
            found = self._in_frame(found, what)
        if len(found) != 1:
            listed = _names(found, ": ", labelled=True)
            raise BadCase(
                self.case_id, f"{len(found)} files could be the {what}, wanted one{listed}; leave only the treated one"
            )
        return found[0]

    def _in_frame(self, items: Datasets, what: str) -> Datasets:
        here = [item for item in items if _frames(item) & self.frames]
        if len(here) == 1:
            self.notes.append(f"the {what} was found by its frame of reference (--link frame-of-reference)")
            return here
        return items

    def refuse_faulty(self, items: Datasets) -> None:
        """Refuse a chosen file that can't be read to its end."""
        for item in items:
            if id(item) in self.faults:
                raise BadCase(self.case_id, f"{label_of(item) or 'a file'} {self.faults[id(item)]}")


def gather_objects(
    files: list[SourceFile], objects: list[DicomObject], modality: str, case_id: str, link: Link = "references"
) -> CaseObjects:
    """Return the objects that a protocol asks for, after checking that they are of one patient and one frame.

    Parameters
    ----------
    files
        Every data set of the case.
    objects
        What the protocol asks for; anything else in the case is left alone.
    modality
        Of the image, CT or MR.
    case_id
        Who the errors name.
    link
        `frame-of-reference` takes, where references don't decide, the only candidate in the others' frame.

    Raises
    ------
    BadCase
        If an object is missing or can't be read to its end, or more than one would do; patients are mixed; a frame of
        reference differs.

    Notes
    -----
    Among several structure sets, plans or doses the one that the others refer to is taken (DICOM PS3.3 C.8.8.2,
    C.8.8.9), then the only approved one; where that does not decide, the case is refused.
    """
    try:
        return _gathered(files, objects, modality, case_id, link)
    except BadInput as error:
        raise BadCase(case_id, str(error)) from error


def _gathered(
    files: list[SourceFile], objects: list[DicomObject], modality: str, case_id: str, link: Link
) -> CaseObjects:
    by_modality: dict[str, Datasets] = {}
    for file in files:
        by_modality.setdefault(_modality(file.dataset), []).append(file.dataset)
    wanted: list[DicomObject] = [name for name in OBJECT_MODALITY if name in objects]
    missing = [name for name in wanted if OBJECT_MODALITY[name] not in by_modality]
    if modality not in by_modality or missing:
        lacking = [*([modality] if modality not in by_modality else []), *(OBJECT_MODALITY[name] for name in missing)]
        found = ", ".join(f"{len(items)} {name or 'unnamed'}" for name, items in sorted(by_modality.items()))
        raise BadCase(case_id, f"no {' and no '.join(lacking)} among the files ({found}); export the patient whole")

    images = by_modality[modality]
    choice = _Choice(
        case_id, link, {id(f.dataset): f.fault for f in files if f.fault}, set().union(*map(_frames, images))
    )
    plans = by_modality.get("RTPLAN", [])
    parts = _dose_parts(by_modality["RTDOSE"], plans, choice) if "rtdose" in wanted else []
    rtplan = choice.only(plans, "RTPLAN", parts, "ReferencedRTPlanSequence") if "rtplan" in wanted else None
    sets = by_modality["RTSTRUCT"] if "rtstruct" in wanted else []
    referring = [item for item in (rtplan, *parts) if item is not None]
    rtstruct = choice.only(sets, "RTSTRUCT", referring, "ReferencedStructureSetSequence") if sets else None
    slices = _series(images, rtstruct, choice)
    choice.refuse_faulty([*slices, *parts, *(item for item in (rtstruct, rtplan) if item is not None)])
    return _checked(slices, rtstruct, rtplan, parts, plans, choice)


def _checked(
    slices: Datasets,
    rtstruct: pydicom.Dataset | None,
    rtplan: pydicom.Dataset | None,
    parts: Datasets,
    plans: Datasets,
    choice: _Choice,
) -> CaseObjects:
    chosen = [item for item in (rtstruct, *parts, rtplan) if item is not None]
    case_id = choice.case_id
    _check_patient([slices[0], *chosen], case_id)
    warnings = [*choice.notes, *_check_frames(slices, rtstruct, parts, rtplan, case_id)]
    rtdose = parts[0] if parts else None
    warnings += _dangling(rtdose, rtplan, "ReferencedRTPlanSequence", "RTDOSE", "RTPLAN")
    warnings += _dangling(rtplan, rtstruct, "ReferencedStructureSetSequence", "RTPLAN", "RTSTRUCT")
    warnings += _dangling(rtdose, rtstruct, "ReferencedStructureSetSequence", "RTDOSE", "RTSTRUCT")
    there = {text_of(item, "SOPInstanceUID") for item in slices}
    named = referenced_image_uids(rtstruct) if rtstruct is not None else set()
    absent = len(named - there)
    if absent:
        warnings.append(f"{absent} of the {len(named)} images that the RTSTRUCT names are absent")
    dose_plan = rtplan
    if rtplan is None and parts:
        referred = _referred(plans, parts, "ReferencedRTPlanSequence")
        dose_plan = referred[0] if len(referred) == 1 else None
    used = {id(item) for item in (*slices, *chosen)}
    broken = [number for number in choice.faults if number not in used]
    if broken:
        warnings.append(f"{len(broken)} files that are not needed can't be read to their end")
    return CaseObjects(slices, rtstruct, rtplan, parts, dose_plan, absent, warnings)


def _modality(dataset: pydicom.Dataset) -> str:
    try:
        return text_of(dataset, "Modality")
    except BadInput:
        return ""


def _dose_parts(doses: Datasets, plans: Datasets, choice: _Choice) -> Datasets:
    """The files that a plan's dose is made of; one of a plan that is not there, or not the approved one, gives way."""
    approved = [plan for plan in plans if text_of(plan, "ApprovalStatus") == APPROVED]
    candidates = approved if len(approved) == 1 else plans
    sound = [dose for dose in doses if id(dose) not in choice.faults] or doses
    try:
        return choose_parts(sound, candidates, choice.case_id)
    except BadCase:
        if choice.link != "frame-of-reference":
            raise
        here = [dose for dose in sound if _frames(dose) & choice.frames]
        if not 0 < len(here) < len(sound):
            raise
        choice.notes.append("the RTDOSE was found by its frame of reference (--link frame-of-reference)")
        return choose_parts(here, candidates, choice.case_id)


def _frames(dataset: pydicom.Dataset) -> set[str]:
    """Frames of reference that an object names."""
    if _modality(dataset) == "RTSTRUCT":
        return referenced_frames(dataset)
    return {text_of(dataset, "FrameOfReferenceUID")} - {""}


def _references(dataset: pydicom.Dataset | None, keyword: str) -> set[str]:
    items = [] if dataset is None else items_of(dataset, keyword)
    return {text_of(item, "ReferencedSOPInstanceUID") for item in items} - {""}


def _referred(candidates: Datasets, referring: Datasets, keyword: str) -> Datasets:
    """Of several candidates those that the first referring object with any reference points to."""
    if len(candidates) == 1:
        return candidates
    for item in referring:
        uids = _references(item, keyword)
        hits = [candidate for candidate in candidates if text_of(candidate, "SOPInstanceUID") in uids]
        if hits:
            return hits
    return candidates


def _series(slices: Datasets, rtstruct: pydicom.Dataset | None, choice: _Choice) -> Datasets:
    """The slices of the one image series, the structure set's where there are several."""
    series: dict[str, Datasets] = {}
    for item in slices:
        with in_file(item, choice.case_id):
            series.setdefault(text_of(item, "SeriesInstanceUID"), []).append(item)
    if len(series) > 1:
        # Screen captures and dose reports have the scan's modality too, but lie nowhere.
        series = _kept(series, lambda items: any(map(has_place, items)))
    if len(series) > 1 and rtstruct is not None:
        named_series, named_images = referenced_series_uids(rtstruct), referenced_image_uids(rtstruct)
        by_uid = {uid: items for uid, items in series.items() if uid in named_series}
        by_image = _kept(series, lambda items: any(text_of(item, "SOPInstanceUID") in named_images for item in items))
        series = {**by_uid, **by_image} if by_uid or len(by_image) < len(series) else series
        if len(series) > 1 and choice.link == "frame-of-reference":
            frames = referenced_frames(rtstruct)
            found = _kept(series, lambda items: any(_frames(item) & frames for item in items))
            if len(found) < len(series):
                choice.notes.append("the image series was found by its frame of reference (--link frame-of-reference)")
            series = found
    if len(series) != 1:
        listed = "; ".join(f"{len(items)} files{_names(items[:1], ' with ')}" for items in series.values())
        silent = series.get("", [])
        without = f"; {len(silent)} images have no SeriesInstanceUID{_some(silent)}" if silent else ""
        raise BadCase(
            choice.case_id,
            f"{len(series)} image series could be the planning scan ({listed}{without}), wanted one; leave only that",
        )
    return next(iter(series.values()))


def _kept(series: dict[str, Datasets], keeps: Callable[[Datasets], bool]) -> dict[str, Datasets]:
    """The series that something holds for; all where it holds for none."""
    return {uid: items for uid, items in series.items() if keeps(items)} or series


def _check_patient(items: Datasets, case_id: str) -> None:
    # The values themselves stay unsaid: they may identify a patient. Padding is no part of them.
    if len({text_of(item, "PatientID") for item in items}) > 1:
        raise BadCase(case_id, "the files have different PatientIDs; are two patients mixed? Export them apart")


def _check_frames(
    slices: Datasets,
    rtstruct: pydicom.Dataset | None,
    parts: Datasets,
    rtplan: pydicom.Dataset | None,
    case_id: str,
) -> list[str]:
    """Refuse objects in another frame of reference than the image's; warn where one names none."""
    frames = {text_of(item, "FrameOfReferenceUID") for item in slices}
    if len(frames) > 1:
        silent = [item for item in slices if not text_of(item, "FrameOfReferenceUID")]
        without = f": {len(silent)} have no FrameOfReferenceUID{_some(silent)}" if silent else ""
        raise BadCase(case_id, f"the image slices have different frames of reference{without}; export one series")
    frame = frames.pop()
    warnings = [] if frame else ["the image names no frame of reference"]
    objects = [("RTSTRUCT", rtstruct), *(("RTDOSE", part) for part in parts), ("RTPLAN", rtplan)]
    for name, item in objects:
        if item is None or not frame:
            continue
        uids = _frames(item)
        # A plan need not name a frame (type 3 by way of its structure set); the other two must.
        if not uids and name != "RTPLAN":
            warnings.append(f"the {name} names no frame of reference")
        # A structure set may hold ROIs of further scans; those are refused when they are asked for.
        if uids and frame not in uids:
            raise BadCase(
                case_id,
                f"the {name} is in another frame of reference than the image; export those that belong together",
            )
    return list(dict.fromkeys(warnings))


def _dangling(
    source: pydicom.Dataset | None, target: pydicom.Dataset | None, keyword: str, source_name: str, target_name: str
) -> list[str]:
    uids = _references(source, keyword)
    if target is None or not uids or text_of(target, "SOPInstanceUID") in uids:
        return []
    return [f"the {source_name} refers to another {target_name} than the one that is here"]


def _some(datasets: Datasets) -> str:
    names = [name for item in datasets if (name := label_of(item))]
    return f", {first_of(names, MOST_NAMED)}" if names else ""


def _names(datasets: Datasets, before: str, after: str = "", *, labelled: bool = False) -> str:
    """Names of files in words, with the labels that a planning system shows where `labelled`."""
    names = [(label_of(item), _label_in_system(item) if labelled else "") for item in datasets]
    shown = [" ".join(filter(None, (name, f'"{label}"' if label else ""))) for name, label in names]
    shown = [text for text in shown if text]
    return f"{before}{', '.join(shown)}{after}" if shown else ""


def _label_in_system(dataset: pydicom.Dataset) -> str:
    """The label of a plan or a structure set, as its planning system shows it."""
    return text_of(dataset, "RTPlanLabel") or text_of(dataset, "StructureSetLabel")
