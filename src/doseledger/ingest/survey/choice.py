"""The treated plan of a patient and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from doseledger.core.project.protocol import DicomObject, Protocol
from doseledger.dicom.files.headers import DumpFile
from doseledger.ingest.survey.objects import NOT_TREATING, Dose, PatientObjects, Plan, Series, StructureSet

# Said wherever a plan was chosen: who reads the result must know by what.
RULE = (
    "Of several plans: one that treats before a verification, one with a dose before one without, one whose fractions "
    "and doses are the protocol's, approved before unapproved before rejected, the latest, and one whose dose is of "
    "the whole plan before sums of beams. Structure set and images are those that the plan refers to."
)
APPROVALS = {"approved": 2, "no approval status": 1, "unapproved": 1, "rejected": 0}
# What each step of the rule says of a plan that it leaves behind.
STEPS = (
    "{0.intent} plan",
    "no dose",
    "other fractions or doses than the protocol",
    "{0.approval}",
    "older",
    "dose in parts",
)
ALL_OBJECTS: tuple[DicomObject, ...] = ("ct", "rtstruct", "rtdose", "rtplan")


@dataclass(frozen=True)
class Choice:
    """What one case is made of.

    Parameters
    ----------
    series, structures, plan, doses
        None or empty where there is none, or nothing decides.
    why
        How the plan was chosen, in words; empty where there was nothing to choose.
    complaints
        What can't be decided or is missing: a key of `complaints.KINDS` and what was found.
    leftovers
        Files that are not part of the case, and why.
    """

    series: Series | None
    structures: StructureSet | None
    plan: Plan | None
    doses: list[Dose]
    why: str
    complaints: list[tuple[str, str]] = field(default_factory=list)
    leftovers: list[tuple[DumpFile, str]] = field(default_factory=list)

    @property
    def files(self) -> list[tuple[str, DumpFile]]:
        """Modality and file of everything in the case."""
        items = list(self.series.items) if self.series is not None else []
        items += [item.found for item in (self.structures, self.plan, *self.doses) if item is not None]
        return [(item.modality, item.file) for item in items]


def choose(objects: PatientObjects, protocol: Protocol | None, modality: str) -> Choice:
    """Return which of a patient's objects make the case, by `RULE`.

    Parameters
    ----------
    protocol
        Which objects it asks for, and whose prescription the treated plan has; None asks for all four.
    """
    asked = tuple(protocol.objects) if protocol is not None else ALL_OBJECTS
    complaints: list[tuple[str, str]] = []
    plan, why = _choose_plan(objects, protocol, complaints)
    doses = _doses_of(objects, plan, complaints) if "rtdose" in asked else []
    structures = _structures_of(objects, plan, doses, complaints)
    series = _series_of(objects, structures, modality, complaints)
    there = {"ct": series, "rtstruct": structures, "rtdose": doses, "rtplan": plan}
    candidates = {
        "ct": [item for item in objects.series if item.modality == modality],
        "rtstruct": objects.structure_sets,
        "rtdose": objects.doses,
        "rtplan": objects.plans,
    }
    names = {"ct": modality, "rtstruct": "RTSTRUCT", "rtdose": "RTDOSE", "rtplan": "RTPLAN"}
    n_courses = _count_courses(objects, modality)
    if n_courses > 1:
        text = f"{n_courses} sets of images, structures and plan, each in a frame of its own: is it one patient?"
        complaints.append(("several_courses", text))
    lacking = [names[name] for name in asked if not there[name] and not candidates[name]]
    complaints = [("missing", name) for name in lacking] + complaints
    choice = Choice(series, structures, plan, doses, why, complaints)
    choice.leftovers.extend(_leftovers(objects, choice, modality))
    return choice


def _count_courses(objects: PatientObjects, modality: str) -> int:
    """How many frames of reference have images, a structure set and a plan."""
    images = {series.frame for series in objects.series if series.modality == modality}
    named = {uid for plan in objects.plans for uid in plan.references("ReferencedStructureSetSequence")}
    frames = (item.frames & images for item in objects.structure_sets if item.uid in named)
    return len(set().union(*frames))


def _rank(plan: Plan, objects: PatientObjects, protocol: Protocol | None) -> tuple[bool, bool, bool, int, str, bool]:
    doses = [dose for dose in objects.doses if plan.uid in dose.plan_uids]
    return (
        plan.intent not in NOT_TREATING,
        bool(doses),
        plan.fits(protocol),
        APPROVALS.get(plan.approval, 1),
        plan.when,
        any(dose.sums == "PLAN" for dose in doses),
    )


def _choose_plan(
    objects: PatientObjects, protocol: Protocol | None, complaints: list[tuple[str, str]]
) -> tuple[Plan | None, str]:
    if not objects.plans:
        return None, ""
    ranked = sorted(objects.plans, key=lambda plan: (_rank(plan, objects, protocol), plan.uid), reverse=True)
    best = ranked[0]
    first = _rank(best, objects, protocol)
    tied = [plan for plan in ranked if _rank(plan, objects, protocol) == first]
    if len(tied) > 1:
        labels = ", ".join(sorted(f'"{plan.label}"' for plan in tied))
        complaints.append(("tied_plans", f"{labels}: nothing that the rule looks at tells them apart"))
        return None, ""
    if len(ranked) == 1:
        return best, ""
    told = []
    for plan in ranked[1:]:
        other = _rank(plan, objects, protocol)
        step = next(i for i in range(len(first)) if first[i] != other[i])
        told.append(f'"{plan.label}" ({STEPS[step].format(plan).strip()})')
    return best, f'"{best.label}" before {", ".join(told)}'


def _doses_of(objects: PatientObjects, plan: Plan | None, complaints: list[tuple[str, str]]) -> list[Dose]:
    """The doses of a plan: the one of the whole plan, else those of its parts if all are there."""
    if plan is None and objects.plans:
        return []
    own = [dose for dose in objects.doses if plan is not None and plan.uid in dose.plan_uids]
    if not own and not objects.plans:
        own = list(objects.doses)
    elif not own and len(objects.plans) == 1:
        own = [dose for dose in objects.doses if not dose.plan_uids]
    whole = [dose for dose in own if dose.sums == "PLAN"]
    if whole:
        planes = all(dose.describe()["planes"] == 1 for dose in whole)
        if len(whole) > 1 and not planes:
            complaints.append(("several_doses", f"{len(whole)} doses of one whole plan"))
        return whole
    if not own:
        if objects.doses:
            complaints.append(("foreign_doses", f"{len(objects.doses)} doses, all of other plans than the chosen one"))
        return []
    return _parts_of(own, plan, complaints)


def _parts_of(own: list[Dose], plan: Plan | None, complaints: list[tuple[str, str]]) -> list[Dose]:
    """The doses of a plan's fraction groups or of its beams, the first of the two that are all there."""
    wanted = {} if plan is None else {"FRACTION": sorted(plan.prescription.n_fractions), "BEAM": sorted(plan.beams)}
    found = {kind: [dose for dose in own if dose.sums == kind] for kind in wanted}
    numbers = {kind: _numbers(doses) for kind, doses in found.items()}
    for kind, doses in found.items():
        # The dose of the only fraction group need not name it.
        is_only = kind == "FRACTION" and len(doses) == len(wanted[kind]) == 1 and not numbers[kind]
        if doses and (is_only or numbers[kind] == wanted[kind]):
            return doses
    kind = next((kind for kind, doses in found.items() if doses), "")
    if not kind:
        kinds = ", ".join(sorted({dose.what for dose in own}))
        complaints.append(("parted_doses", f"doses that sum: {kinds}"))
        return own
    what = {"FRACTION": "fraction groups", "BEAM": "beams"}[kind]
    complaints.append(("parted_doses", f"doses of {what} {_list(numbers[kind])}, the plan has {_list(wanted[kind])}"))
    return found[kind]


def _numbers(doses: list[Dose]) -> list[int]:
    """Beams or fraction groups that some doses are of; one in single planes counts once."""
    numbers = [number for dose in doses for number in dose.parts]
    planar = all(dose.describe()["planes"] == 1 for dose in doses)
    return sorted(set(numbers) if planar else numbers)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _structures_of(
    objects: PatientObjects, plan: Plan | None, doses: list[Dose], complaints: list[tuple[str, str]]
) -> StructureSet | None:
    sets = objects.structure_sets
    for referring in (plan, *doses):
        if referring is None:
            continue
        named = referring.references("ReferencedStructureSetSequence")
        hits = [item for item in sets if item.uid in named]
        if hits:
            return hits[0]
    if len(sets) <= 1 or (plan is None and not objects.plans):
        return max(sets, key=lambda item: (item.order, item.uid)) if sets else None
    complaints.append(("several_structure_sets", f"{len(sets)} structure sets, and the plan refers to none of them"))
    return None


def _series_of(
    objects: PatientObjects, structures: StructureSet | None, modality: str, complaints: list[tuple[str, str]]
) -> Series | None:
    images = [item for item in objects.series if item.modality == modality]
    if structures is None:
        return images[0] if len(images) == 1 else None
    hits = [item for item in images if structures.is_drawn_on(item)]
    # Without a named image the frame of reference is left.
    hits = hits or [item for item in images if item.frame and item.frame in structures.frames]
    hits = hits or (images if len(images) == 1 else [])
    if len(hits) == 1:
        return hits[0]
    if images:
        complaints.append(("several_series", f"{len(images)} series, {len(hits)} of them named by the structure set"))
    return None


def _leftovers(objects: PatientObjects, choice: Choice, modality: str) -> list[tuple[DumpFile, str]]:
    """Every file that is not in the case, and why."""
    kept = {id(item) for item in (choice.series, choice.structures, choice.plan, *choice.doses) if item is not None}
    left: list[tuple[DumpFile, str]] = []
    for series in objects.series:
        if id(series) not in kept:
            why = f"{series.modality} images that the structure set is not drawn on"
            why = f"{why} (cone beam)" if series.describe()["looks_like"] else why
            if choice.series is None and series.modality == modality:
                why = "images, and nothing says that they are the planning scan"
            left += [(item.file, why) for item in series.items]
    reasons = (
        (objects.structure_sets, "structure set that the plan does not refer to"),
        (objects.plans, "another plan than the chosen one" if choice.plan else "plan, and nothing says that it treats"),
        (objects.doses, "dose of another plan, or in parts beside the whole"),
    )
    for items, why in reasons:
        left += [(item.found.file, why) for item in items if id(item) not in kept]
    left += [(item.file, f"{item.modality} that can't be read whole") for item in objects.broken]
    return left + [
        (item.file, f"{item.modality or 'unnamed'} object, no part of a case") for item in objects.other_items
    ]
