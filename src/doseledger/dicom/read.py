"""Assembly of a case's series, structure set, dose and plan by their links."""

from __future__ import annotations

from dataclasses import dataclass, field

import pydicom

from doseledger.core.errors import BadCase
from doseledger.core.protocol import DicomObject
from doseledger.dicom.read_structures import referenced_frames, referenced_image_uids, referenced_series_uids
from doseledger.dicom.source import SourceFile

OBJECT_MODALITY: dict[DicomObject, str] = {"rtstruct": "RTSTRUCT", "rtdose": "RTDOSE", "rtplan": "RTPLAN"}


@dataclass(frozen=True)
class CaseObjects:
    """The data sets that one case is made of.

    Parameters
    ----------
    slices
        One image series.
    rtstruct, rtdose, rtplan
        None where the protocol does not ask for it.
    n_absent_images
        Images that the structure set names and that are not there.
    warnings
        What is odd about the links, but no reason to refuse.
    """

    slices: list[pydicom.Dataset]
    rtstruct: pydicom.Dataset | None
    rtdose: pydicom.Dataset | None
    rtplan: pydicom.Dataset | None
    n_absent_images: int
    warnings: list[str] = field(default_factory=list)

    @property
    def absent_note(self) -> str:
        """How many referenced images are missing, as a clause for a refusal; empty where none is."""
        if self.rtstruct is None or not self.n_absent_images:
            return ""
        named = len(referenced_image_uids(self.rtstruct))
        return f"{self.n_absent_images} of the {named} images that the RTSTRUCT names are absent"


def gather_objects(files: list[SourceFile], objects: list[DicomObject], modality: str, case_id: str) -> CaseObjects:
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

    Raises
    ------
    BadCase
        If an object is missing, or more than one would do; patients are mixed; a frame of reference differs.

    Notes
    -----
    Among several structure sets, plans or doses the one that the others refer to is taken (DICOM PS3.3 C.8.8.2,
    C.8.8.9); where that does not decide, the case is refused.
    """
    by_modality: dict[str, list[pydicom.Dataset]] = {}
    for file in files:
        by_modality.setdefault(str(file.dataset.get("Modality") or ""), []).append(file.dataset)
    wanted: list[DicomObject] = [name for name in OBJECT_MODALITY if name in objects]
    missing = [name for name in wanted if OBJECT_MODALITY[name] not in by_modality]
    if modality not in by_modality or missing:
        lacking = [*([modality] if modality not in by_modality else []), *(OBJECT_MODALITY[name] for name in missing)]
        found = ", ".join(f"{len(items)} {name or 'unnamed'}" for name, items in sorted(by_modality.items()))
        raise BadCase(case_id, f"no {' and no '.join(lacking)} among the files ({found}); export the patient whole")

    doses = by_modality["RTDOSE"] if "rtdose" in wanted else []
    rtdose = _only(_plan_doses(doses), "RTDOSE of a whole plan", case_id) if doses else None
    plans = by_modality["RTPLAN"] if "rtplan" in wanted else []
    rtplan = _only(_referred(plans, [rtdose], "ReferencedRTPlanSequence"), "RTPLAN", case_id) if plans else None
    sets = by_modality["RTSTRUCT"] if "rtstruct" in wanted else []
    referring = [rtplan, rtdose]
    rtstruct = (
        _only(_referred(sets, referring, "ReferencedStructureSetSequence"), "RTSTRUCT", case_id) if sets else None
    )
    slices = _series(by_modality[modality], rtstruct, case_id)
    chosen = [item for item in (rtstruct, rtdose, rtplan) if item is not None]
    _check_patient([slices[0], *chosen], case_id)
    warnings = _check_frames(slices, rtstruct, rtdose, rtplan, case_id)
    warnings += _dangling(rtdose, rtplan, "ReferencedRTPlanSequence", "RTDOSE", "RTPLAN")
    warnings += _dangling(rtplan, rtstruct, "ReferencedStructureSetSequence", "RTPLAN", "RTSTRUCT")
    warnings += _dangling(rtdose, rtstruct, "ReferencedStructureSetSequence", "RTDOSE", "RTSTRUCT")
    there = {str(item.get("SOPInstanceUID")) for item in slices}
    named = referenced_image_uids(rtstruct) if rtstruct is not None else set()
    absent = len(named - there)
    if absent:
        warnings.append(f"{absent} of the {len(named)} images that the RTSTRUCT names are absent")
    return CaseObjects(slices, rtstruct, rtdose, rtplan, absent, warnings)


def _only(items: list[pydicom.Dataset], what: str, case_id: str) -> pydicom.Dataset:
    if len(items) != 1:
        raise BadCase(case_id, f"{len(items)} files could be the {what}, wanted one; leave only the treated one")
    return items[0]


def _plan_doses(doses: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """The doses of a whole plan, or all of them where there is none, for `read_dose` to say what is wrong."""
    if len(doses) == 1:
        return doses
    return [dose for dose in doses if dose.get("DoseSummationType") == "PLAN"]


def _references(dataset: pydicom.Dataset | None, keyword: str) -> set[str]:
    items = [] if dataset is None else dataset.get(keyword) or []
    return {str(item.get("ReferencedSOPInstanceUID") or "") for item in items} - {""}


def _referred(
    candidates: list[pydicom.Dataset], referring: list[pydicom.Dataset | None], keyword: str
) -> list[pydicom.Dataset]:
    """Of several candidates those that the first referring object with any reference points to."""
    if len(candidates) == 1:
        return candidates
    for item in referring:
        uids = _references(item, keyword)
        hits = [candidate for candidate in candidates if str(candidate.get("SOPInstanceUID")) in uids]
        if hits:
            return hits
    return candidates


def _series(slices: list[pydicom.Dataset], rtstruct: pydicom.Dataset | None, case_id: str) -> list[pydicom.Dataset]:
    """The slices of the one image series, the structure set's where there are several."""
    series: dict[str, list[pydicom.Dataset]] = {}
    for item in slices:
        series.setdefault(str(item.get("SeriesInstanceUID") or ""), []).append(item)
    if len(series) > 1 and rtstruct is not None:
        named_series, named_images = referenced_series_uids(rtstruct), referenced_image_uids(rtstruct)
        hits = {
            uid: items
            for uid, items in series.items()
            if uid in named_series or any(str(item.get("SOPInstanceUID")) in named_images for item in items)
        }
        series = hits or series
    if len(series) != 1:
        raise BadCase(case_id, f"{len(series)} image series could be the planning scan, wanted one; leave only that")
    return next(iter(series.values()))


def _check_patient(items: list[pydicom.Dataset], case_id: str) -> None:
    # The values themselves stay unsaid: they may identify a patient.
    if len({str(item.get("PatientID") or "") for item in items}) > 1:
        raise BadCase(case_id, "the files have different PatientIDs; are two patients mixed? Export them apart")


def _check_frames(
    slices: list[pydicom.Dataset],
    rtstruct: pydicom.Dataset | None,
    rtdose: pydicom.Dataset | None,
    rtplan: pydicom.Dataset | None,
    case_id: str,
) -> list[str]:
    """Refuse objects in another frame of reference than the image's; warn where one names none."""
    frames = {str(item.get("FrameOfReferenceUID") or "") for item in slices}
    if len(frames) > 1:
        raise BadCase(case_id, "the image slices have different frames of reference; export one series")
    frame = frames.pop()
    warnings = [] if frame else ["the image names no frame of reference"]
    found = {
        "RTSTRUCT": referenced_frames(rtstruct) if rtstruct is not None else None,
        "RTDOSE": {str(rtdose.get("FrameOfReferenceUID") or "")} - {""} if rtdose is not None else None,
        "RTPLAN": {str(rtplan.get("FrameOfReferenceUID") or "")} - {""} if rtplan is not None else None,
    }
    for name, uids in found.items():
        if uids is None or not frame:
            continue
        # A plan need not name a frame (type 3 by way of its structure set); the other two must.
        if not uids and name != "RTPLAN":
            warnings.append(f"the {name} names no frame of reference")
        # A structure set may hold ROIs of further scans; those are refused when they are asked for.
        if uids and frame not in uids:
            raise BadCase(
                case_id,
                f"the {name} is in another frame of reference than the image; export those that belong together",
            )
    return warnings


def _dangling(
    source: pydicom.Dataset | None, target: pydicom.Dataset | None, keyword: str, source_name: str, target_name: str
) -> list[str]:
    uids = _references(source, keyword)
    if target is None or not uids or str(target.get("SOPInstanceUID")) in uids:
        return []
    return [f"the {source_name} refers to another {target_name} than the one that is here"]
