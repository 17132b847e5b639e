"""Treatment protocol and clinical goals: the YAML of validation/cohorts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.schema import Block, Reason, Regex, load_block

DicomObject = Literal["ct", "rtstruct", "rtdose", "rtplan"]
Positive = Annotated[float, Field(gt=0)]


def folded(name: str) -> str:
    """Return a structure name as it is compared: case, spaces, `_` and `-` do not count.

    Examples
    --------
    >>> folded("PTV_70") == folded("ptv 70")
    True
    >>> folded("zPTV70_opt") == folded("PTV70")
    False
    """
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _empty_if_none(value: Any) -> Any:
    return [] if value is None else value


# A key whose last name was deleted by hand holds none.
Names = Annotated[list[str], BeforeValidator(_empty_if_none)]


class Structure(Block):
    """A structure that the protocol knows: its name here, and the names that clinics give it, the best first.

    Notes
    -----
    `label` is its value in label volumes (NIfTI). `proposed` are names that a survey found and nobody has confirmed.
    They match nothing, and no digest knows them: a name counts once a person has moved it to `aliases`.
    """

    name: str
    kind: Literal["target", "organ"]
    required: bool = True
    label: Annotated[int, Field(ge=1, le=65535)] | None = None
    aliases: Names = Field(default=[])
    proposed: Names = Field(default=[], exclude=True)

    @property
    def folded_names(self) -> list[str]:
        """The name and its aliases in order of preference, folded, each once."""
        return list(dict.fromkeys(folded(name) for name in (self.name, *self.aliases)))


class Crop(Block):
    """Cases are cropped to the body's box plus a margin."""

    margin_mm: Annotated[float, Field(ge=0)]


class SkipWhen(Block):
    """A case that this covers is outside the protocol: skipped and listed, not a failure."""

    any_absent: list[str]
    reason: Reason


class PhiAllowance(Block):
    """A DICOM keyword that may carry a value, and why."""

    keyword: str
    reason: Reason


class Phi(Block):
    """What counts as pseudonymous: a pattern for names and ids, and attributes allowed with a reason."""

    pseudonym: Regex
    allow: list[PhiAllowance] = Field(default=[])


PhysicsMap = Literal["conformal", "gathered", "plan"]


class GenericPlan(Block):
    """What the map `plan` asks of a dose: coverage, fall-off, organs held below a dose, smooth fluence.

    Notes
    -----
    Outside the targets dose may fall from the prescription to `floor_share` of it, to 1/e of the step in `falloff_mm`.
    `organ_max_gy` holds organs below a dose; every organ's mean dose counts with `organ_mean_weight`. `smoothness`
    weighs the steps between neighbouring bixels; `evaluations` is how often the dose is computed at most.
    """

    falloff_mm: Positive
    floor_share: Annotated[float, Field(ge=0, lt=1)]
    ring_weight: Annotated[float, Field(ge=0)]
    organ_max_gy: dict[str, Positive]
    organ_mean_weight: Annotated[float, Field(ge=0)]
    smoothness: Annotated[float, Field(ge=0)]
    evaluations: Annotated[int, Field(ge=1)]


class Beams(Block):
    """The fields that patients of a protocol are treated with, as they are known before planning.

    Notes
    -----
    `gantry_deg` are the angles (an arc is as many fields as its dose can't be told apart from). A field's bixels are
    squares of `bixel_mm` in the isocentre plane, within `margin_mm` of the targets' projection; the isocentre is the
    targets' middle. `kernel_weights` scale the four Gaussians of the pencil beam, the narrowest first: 0 for those that
    the planning system leaves out. `maps` are made of them for every case, see planning/fields/maps.py.
    """

    gantry_deg: Annotated[list[float], Field(min_length=1)]
    bixel_mm: Annotated[float, Field(gt=0, multiple_of=2.5)]
    margin_mm: Annotated[float, Field(ge=0)]
    kernel_weights: tuple[float, float, float, float]
    maps: Annotated[list[PhysicsMap], Field(min_length=1)]
    plan: GenericPlan | None = None

    @model_validator(mode="after")
    def _plan_is_described(self) -> Beams:
        if "plan" in self.maps and self.plan is None:
            raise ValueError("maps names plan, so a block `plan` must say what is asked of it")
        if len(set(self.maps)) != len(self.maps):
            raise ValueError(f"maps names one twice: {self.maps}")
        if not any(weight > 0 for weight in self.kernel_weights):
            raise ValueError(f"kernel_weights {list(self.kernel_weights)}: one must be above 0, else there is no dose")
        return self


class PatientRule(Block):
    r"""Whose a NIfTI case is, by its name, where several are of one patient: those stay together in splits.

    Notes
    -----
    What the pattern's one group matches names the patient; with `cases` above 1 it is a number from 1 on, and so many
    in a row are of one patient.

    Examples
    --------
    >>> PatientRule(pattern=r"(patient\d+)_frame\d+", cases=1).patient_of("patient007_frame01")
    'patient007'
    >>> PatientRule(pattern=r"brain_(\d+)", cases=2).patient_of("brain_004")
    'patient_2'
    """

    pattern: Regex
    cases: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _has_one_group(self) -> PatientRule:
        if re.compile(self.pattern).groups != 1:
            raise ValueError(f"patient.pattern {self.pattern!r} needs one group in brackets: what names the patient")
        return self

    def patient_of(self, case_id: str) -> str | None:
        """Return the patient's pseudonym; None where the pattern does not match the case's name."""
        match = re.fullmatch(self.pattern, case_id)
        if match is None or (self.cases > 1 and not match[1].isdecimal()):
            return None
        return match[1] if self.cases == 1 else f"patient_{-(-int(match[1]) // self.cases)}"


class Protocol(Block):
    """One protocol: where its cases come from, which objects and structures they have, and the grid they go onto.

    Notes
    -----
    `spacing_mm` is (z, y, x), or `native` for the image's own grid. `crop` is `none` for openkbp and native.
    `body_names` are the ROI names that may stand for the outline (RTROIInterpretedType EXTERNAL counts too).
    `objects` names what of DICOM a case needs; a NIfTI cohort has none, and no dose. Its images may be tilted against
    the patient's axes by `most_tilt_deg`, and are then kept along their own.
    """

    name: str
    title: str
    source: Literal["dicom", "openkbp", "nifti"]
    modality: Literal["CT", "MR"]
    objects: list[DicomObject] = Field(default=[])
    n_fractions: int | None = None
    prescription_gy: dict[str, Positive] = Field(default={})
    spacing_mm: Literal["native"] | tuple[Positive, Positive, Positive]
    crop: Literal["none"] | Crop
    sdf_clip_mm: Positive
    body_names: list[str] = Field(default=[])
    most_tilt_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    patient: PatientRule | None = None
    structures: list[Structure]
    skip_when: SkipWhen | None = None
    phi: Phi | None = None
    beams: Beams | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Protocol:
        names = [structure.name for structure in self.structures]
        owner: dict[str, str] = {}
        for structure in self.structures:
            for name in structure.folded_names:
                if name in owner:
                    raise ValueError(f"alias {name!r} belongs to both {owner[name]} and {structure.name}")
                owner[name] = structure.name
        strangers = [name for name in self.prescription_gy if name not in names]
        strangers += [name for name in (self.skip_when.any_absent if self.skip_when else []) if name not in names]
        if strangers:
            raise ValueError(f"{', '.join(strangers)} named, but not among the structures {', '.join(names)}")
        if "rtdose" in self.objects and not self.prescription_gy:
            raise ValueError("a protocol with rtdose needs prescription_gy")
        if self.beams is not None and (self.modality != "CT" or not self.prescription_gy):
            raise ValueError("beams need a CT and a prescription")
        known = self.beams.plan.organ_max_gy if self.beams and self.beams.plan else {}
        unknown = [name for name in known if name not in names]
        if unknown:
            raise ValueError(f"beams.plan.organ_max_gy names {', '.join(unknown)}, not among the structures")
        if self.source == "dicom" and (self.phi is None or not self.objects):
            raise ValueError("a protocol of DICOM needs a phi block, and objects")
        if self.source == "nifti":
            self._reads_labels()
        if self.crop != "none" and self.spacing_mm == "native":
            raise ValueError("crop must be none where spacing_mm is native")
        return self

    def _reads_labels(self) -> None:
        labels = [structure.label for structure in self.structures]
        if None in labels or len(set(labels)) != len(labels):
            raise ValueError(f"a protocol of NIfTI needs a label of its own for each structure, found {labels}")
        if self.objects or self.prescription_gy or self.phi or self.body_names:
            raise ValueError(
                "a protocol of NIfTI has no objects, prescription_gy, phi or body_names: it reads no DICOM"
            )

    @property
    def structure_names(self) -> tuple[str, ...]:
        """Names of all structures, in order."""
        return tuple(structure.name for structure in self.structures)

    @property
    def proposed(self) -> dict[str, list[str]]:
        """Names by structure that a survey proposes and nobody has confirmed."""
        return {structure.name: structure.proposed for structure in self.structures if structure.proposed}

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(structure.name for structure in self.structures if structure.kind == "target")

    @property
    def has_dose(self) -> bool:
        """Whether cases carry a dose."""
        return "rtdose" in self.objects

    def structure(self, name: str) -> Structure:
        """Return the structure of a name.

        Raises
        ------
        BadInput
            If there is none.
        """
        for structure in self.structures:
            if structure.name == name:
                return structure
        raise BadInput(f"protocol {self.name} has no structure {name}; it has {', '.join(self.structure_names)}")


class Goal(Block):
    """One clinical goal: a DVH statistic of a structure against a limit.

    Notes
    -----
    `statistic` is the clinic's grammar (`D95%`, `V70Gy`, `D2cc`, `mean`), in `unit`; "1" is the unit of a ratio (HI).
    `minus` and `minus_margin_mm` judge the structure without others grown by a margin. A goal that is not `gating` is
    reported only.
    """

    structure: str
    statistic: str
    operator: Literal["<=", ">="]
    limit: float
    acceptable: float | None = None
    unit: Literal["Gy", "%", "cc", "1"]
    gating: bool = True
    minus: list[str] = Field(default=[])
    minus_margin_mm: Annotated[float, Field(ge=0)] = 0.0
    source: Reason

    @property
    def name(self) -> str:
        """How the goal is called in tables, e.g. `Rectum V65Gy ≤ 15 %`."""
        sign = {"<=": "≤", ">=": "≥"}[self.operator]
        without = f" minus ({' + '.join(self.minus)} + {self.minus_margin_mm:g} mm)" if self.minus else ""
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.structure}{without} {self.statistic} {sign} {self.limit:g}{unit}"


class GoalSet(Block):
    """The clinical goals of a protocol."""

    name: str
    protocol: str
    title: str
    goals: list[Goal]


def load_protocol(path: Path) -> Protocol:
    """Return the protocol that a file of validation/cohorts/ holds.

    Raises
    ------
    BadInput
        Naming the key, what was found and what was wanted.
    """
    return load_block(Protocol, read_yaml(path), str(path))


def load_goals(path: Path) -> GoalSet:
    """Return the clinical goals that a file of validation/cohorts/ holds.

    Raises
    ------
    BadInput
        Naming the key, what was found and what was wanted.
    """
    return load_block(GoalSet, read_yaml(path), str(path))
