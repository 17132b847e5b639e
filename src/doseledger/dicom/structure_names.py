"""Names, codes, types and colours of structures, by TG-263 and SNOMED CT."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from doseledger.core.project.protocol import folded

InterpretedType = Literal["EXTERNAL", "PTV", "CTV", "GTV", "ORGAN"]
Colour = tuple[int, int, int]
# TG-263 keeps names so short that every planning system takes them.
MOST_CHARACTERS = 16
SIDES = {"L": ("left", "lt", "l"), "R": ("right", "rt", "r")}
# A target's kind at its start; the internal volume has no type of its own and stands for the clinical one.
TARGET = re.compile(r"(?P<kind>IGTV|ICTV|GTV|CTV|ITV|PTV)[pnv]?(?![a-z])", re.IGNORECASE)
STANDARD_TARGET = re.compile(r"(?:IGTV|ICTV|GTV|CTV|ITV|PTV)[pnv]?[0-9]?!?(?:[_^-][A-Za-z0-9._^+-]+)?")
# What is left of a target's name that says nothing but its dose: PTV70, PTV 70Gy, PTV_70.
BARE_DOSE = re.compile(r"(?P<kind>PTV|CTV|GTV)[ _]?(?P<gy>\d+(?:\.\d+)?)(?:gy)?", re.IGNORECASE)
OUTLINES = ("external", "body", "outline")
GOLDEN_TURN = 0.618


class Code(NamedTuple):
    """A coded concept: value, scheme (SCT for SNOMED CT, DCM for DICOM) and meaning."""

    value: str
    scheme: str
    meaning: str


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
TARGETS = Code("130041", "DCM", "RT Target")
OUTLINE = Code("130047", "DCM", "External Body Model")
# A part of the body that nobody has coded here.
SOME_PART = Code("123037004", "SCT", "Body structure")
SIDE_CODES = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}
# DICOM PS3.16 CID 9534.
TARGET_CODES = {
    "PTV": Code("228793007", "SCT", "PTV"),
    "CTV": Code("228792002", "SCT", "CTV"),
    "GTV": Code("228791009", "SCT", "GTV"),
    "ITV": Code("130056", "DCM", "ITV"),
}
TARGET_COLOURS: dict[str, Colour] = {"PTV": (255, 0, 0), "CTV": (255, 90, 160), "GTV": (170, 0, 60)}


@dataclass(frozen=True)
class Described:
    """What DICOM says of a structure.

    Parameters
    ----------
    name
        By TG-263 where it is known, else as it came.
    category, kind
        What sort of thing it is, and which (PS3.16 CID 9580, 9514 and 9534).
    side
        Left or right; None where it has no side.
    colour
        Red, green, blue from 0 to 255.
    """

    name: str
    interpreted_type: InterpretedType
    category: Code
    kind: Code
    side: Code | None
    colour: Colour
    is_standard: bool


class _Organ(NamedTuple):
    name: str
    is_paired: bool
    kind: Code
    colour: Colour


@cache
def _organs() -> dict[str, _Organ]:
    """The organs of tg263.csv by folded name and synonym, those of pairs without a side."""
    found = {}
    with (files("doseledger.dicom") / "tg263.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            kind = Code(row["code"], "SCT", row["meaning"]) if row["code"] else SOME_PART
            red, green, blue = map(int, row["colour"].split())
            organ = _Organ(row["name"], row["paired"] == "yes", kind, (red, green, blue))
            for name in (row["name"], *filter(None, row["synonyms"].split("|"))):
                found[folded(name)] = organ
    return found


def describe(name: str, prescription_gy: float | None = None) -> Described:
    """Return what DICOM says of a structure of that name.

    Parameters
    ----------
    name
        As a case or a clinic has it.
    prescription_gy
        The dose that is prescribed to it; None for what is no target of the plan.

    Notes
    -----
    Names: Mayo et al., IJROBP 100:1057, 2018 (AAPM TG-263). A target's dose is written in cGy after an underscore, and
    only where it is the prescribed one: a number in a name may be anything.

    Examples
    --------
    >>> describe("LeftParotid").name, describe("Rectum").kind.value, describe("PTV70", 70.0).name
    ('Parotid_L', '34402009', 'PTV_7000')
    """
    if folded(name) in OUTLINES:
        body = Code("38266002", "SCT", "Entire body")
        return Described("External", "EXTERNAL", OUTLINE, body, None, (0, 200, 0), True)
    target = TARGET.match(name)
    if target is not None or prescription_gy is not None:
        return _describe_target(name, target["kind"].upper() if target else "PTV", prescription_gy)
    organ, side = _organ_and_side(folded(name))
    if organ is None:
        return Described(name, "ORGAN", ANATOMY, SOME_PART, None, _colour_of(name), False)
    # One of a pair without its side is no name of TG-263: which one it is can't be guessed.
    standard = f"{organ.name}_{side}" if side else organ.name
    is_standard = not organ.is_paired or bool(side)
    code = SIDE_CODES.get(side)
    return Described(standard if is_standard else name, "ORGAN", ANATOMY, organ.kind, code, organ.colour, is_standard)


def _describe_target(name: str, prefix: str, prescription_gy: float | None) -> Described:
    kind: Literal["PTV", "CTV", "GTV"] = "CTV" if prefix in ("ITV", "ICTV", "CTV") else "PTV"
    kind = "GTV" if prefix in ("GTV", "IGTV") else kind
    bare = BARE_DOSE.fullmatch(name)
    if bare is not None and prescription_gy is not None and float(bare["gy"]) == prescription_gy:
        name = f"{bare['kind'].upper()}_{round(100.0 * prescription_gy)}"
    is_standard = len(name) <= MOST_CHARACTERS and STANDARD_TARGET.fullmatch(name) is not None
    code = TARGET_CODES["ITV" if prefix == "ITV" else kind]
    return Described(name, kind, TARGETS, code, None, TARGET_COLOURS[kind], is_standard)


def _organ_and_side(name: str) -> tuple[_Organ | None, str]:
    """The organ of a folded name, and L or R for one of a pair."""
    organs = _organs()
    if name in organs:
        return organs[name], ""
    for side, words in SIDES.items():
        for word in words:
            for rest in (name.removeprefix(word), name.removesuffix(word)):
                organ = organs.get(rest)
                if organ is not None and organ.is_paired and rest != name:
                    return organ, side
    return None, ""


def _colour_of(name: str) -> Colour:
    """A colour that depends on the name alone, so that one structure looks alike in every patient."""
    hue = 6.0 * ((sum(ord(letter) * (k + 1) for k, letter in enumerate(name)) * GOLDEN_TURN) % 1.0)
    parts = (abs(hue - 3.0) - 1.0, 2.0 - abs(hue - 2.0), 2.0 - abs(hue - 4.0))
    red, green, blue = (round(60 + 180 * min(max(part, 0.0), 1.0)) for part in parts)
    return red, green, blue
