"""A structure's name taken apart: organ, side, target, dose.

Names are read for hints and for advice alone. What an ROI *is* to a protocol is decided by `roi_names`, exactly.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.schema import Block, load_block

Side = Literal["", "L", "R", "both"]
SYNONYMS = Path(__file__).with_name("synonyms.yaml")
TARGETS = ("PTV", "CTV", "GTV", "ITV")
# Where a clinical target lies: "PTV Prostate" is a PTV, "PTV-Rectum" a PTV less the rectum.
TARGET_SITES = frozenset({"Prostate", "ProstateBed", "SeminalVes", "LN_Pelvics"})
CGY_PER_GY = 100.0
# What a number in a target's name must be to be a dose of a course, in Gy.
LEAST_DOSE_GY, MOST_DOSE_GY = 20.0, 90.0

# What of a side is written on to a paired organ's name; plurals are both.
GLUED: tuple[tuple[str, Side], ...] = (
    ("lt", "L"), ("rt", "R"), ("li", "L"), ("re", "R"), ("l", "L"), ("r", "R"), ("g", "L"), ("d", "R"),
    ("left", "L"), ("right", "R"), ("links", "L"), ("rechts", "R"), ("gauche", "L"), ("droit", "R"), ("droite", "R"),
    ("izq", "L"), ("der", "R"), ("dcha", "R"), ("sin", "L"), ("dex", "R"), ("sx", "L"), ("dx", "R"),
    ("s", "both"), ("es", "both"), ("n", "both"), ("en", "both"),
)  # fmt: skip
# "PTV!Rectum" and "PTV-Rectum" are what is left of the one without the other.
LESS = re.compile(r"[!\-−]")
WORD = re.compile(r"[^\W_]+(?:[.,]\d+)?")
PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+(?:[.,]\d+)?|[^\W\d_A-Za-z]+")
IN_TARGET = re.compile(r"(.{0,4}?)(ptv|ctv|gtv|itv)(.*)", re.IGNORECASE)
VERTEBRA = re.compile(r"[LlRr]\d+")
MOST_WORDS = 6


class Organ(Block):
    """One standard name's synonyms by language, whether it has a side, and what is drawn in its place."""

    paired: bool = False
    en: list[str]
    de: list[str] = Field(default=[])
    fr: list[str] = Field(default=[])
    es: list[str] = Field(default=[])
    nl: list[str] = Field(default=[])
    near: list[str] = Field(default=[])


@dataclass(frozen=True)
class NameParts:
    """What a structure's name says.

    Parameters
    ----------
    organ
        Standard name (TG-263) without its side; empty where none is known.
    whole
        Whether the name is the organ's and nothing else (but for its side).
    side
        L, R or both; empty where it says none.
    target
        PTV, CTV, GTV or ITV; empty for anything else.
    doses_gy
        Total doses that a target's name holds, in Gy.
    is_help
        Whether it is made for planning: a ring, a wall, a target less an organ.
    core
        Its letters and digits without accents and side, folded.
    """

    organ: str
    whole: bool
    side: Side
    target: str
    doses_gy: tuple[float, ...]
    is_help: bool
    core: str


class Words(Block):
    """Words of a name that are no organ: sides, and what tells a planning help."""

    left: frozenset[str]
    right: frozenset[str]
    left_at_ends: frozenset[str]
    right_at_ends: frozenset[str]
    both: frozenset[str]
    planning: frozenset[str]
    planning_ends: tuple[str, ...]

    @field_validator("left", "right", "left_at_ends", "right_at_ends", "both", "planning")
    @classmethod
    def _fold(cls, words: frozenset[str]) -> frozenset[str]:
        # As the words of a name are: "esquerdo" loses the e that a German umlaut would have.
        return frozenset(plain(word).casefold() for word in words)


class Nomenclature(Block):
    """All of synonyms.yaml."""

    words: Words
    organs: dict[str, Organ]

    @model_validator(mode="after")
    def _is_consistent(self) -> Nomenclature:
        near = [f"{n}: {other}" for n, organ in self.organs.items() for other in organ.near if other not in self.organs]
        if near:
            raise ValueError(f"near names no organ of the file: {', '.join(near)}")
        return self


@cache
def load_nomenclature() -> Nomenclature:
    """Return what synonyms.yaml knows of names."""
    return load_block(Nomenclature, read_yaml(SYNONYMS), SYNONYMS.name)


def load_organs() -> dict[str, Organ]:
    """Return what is known of each standard name."""
    return load_nomenclature().organs


@cache
def _phrases() -> dict[str, str]:
    """Each synonym, its words joined, and the organ that it means."""
    found: dict[str, str] = {}
    for name, organ in load_organs().items():
        for phrase in (name, *organ.en, *organ.de, *organ.fr, *organ.es, *organ.nl):
            key = "".join(_words(phrase))
            if found.setdefault(key, name) != name:
                raise BadInput(f"{SYNONYMS.name}: {phrase!r} belongs to both {found[key]} and {name}")
    return found


def plain(text: str) -> str:
    """Return a text without accents; German `ae`, `oe`, `ue` and `ß` become `a`, `o`, `u` and `ss`.

    Examples
    --------
    >>> plain("Hüftkopf"), plain("Hueftkopf"), plain("Tête fémorale")
    ('Huftkopf', 'Huftkopf', 'Tete femorale')
    """
    text = text.replace("ß", "ss").replace("œ", "oe").replace("Œ", "Oe").replace("æ", "ae").replace("ø", "o")
    text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.sub(r"([aouAOU])[eE]", r"\1", text)


def _words(name: str) -> list[str]:
    """The words of a name, folded: parted at spaces, signs, digits and capitals; a target's prefix stands alone."""
    words: list[str] = []
    for word in WORD.findall(plain(name)):
        target = IN_TARGET.fullmatch(word)
        pieces = [target[1], target[2].lower(), target[3]] if target else [word]
        for piece in pieces:
            words += [found.casefold() for found in PIECE.findall(piece)]
    return words


@lru_cache(maxsize=65536)
def read_name(name: str) -> NameParts:
    """Return what a structure's name says.

    Examples
    --------
    >>> parts = read_name("Hüftkopf re")
    >>> parts.organ, parts.side
    ('Femur_Head', 'R')
    >>> read_name("PTV_5600").doses_gy, read_name("zPTV70_opt").is_help
    ((56.0,), True)
    """
    words = _words(name)
    side, rest = _part_side(words, name)
    target = next((word.upper() for word in rest if word.upper() in TARGETS), "")
    organ, start, end, several = _find_organ(rest)
    if not organ:
        organ, glued = _glued_side(rest)
        start, end = 0, len(rest) if organ else 0
        side = side or glued
    made = load_nomenclature().words
    # The organ's own words don't count: the chest wall is an organ.
    others = rest if not organ or several else [*rest[:start], *rest[end:]]
    is_help = bool(set(others) & made.planning) or name.lstrip().startswith("_")
    is_help = is_help or (not organ and any(word.endswith(made.planning_ends) for word in rest))
    if target:
        two = sum(word.upper() in TARGETS for word in rest) > 1 or (organ and organ not in TARGET_SITES)
        is_help = is_help or bool(LESS.search(name) and two)
    return NameParts(
        organ="" if several else organ,
        whole=bool(organ) and (start, end) == (0, len(rest)),
        side=side,
        target=target,
        doses_gy=_doses(rest) if target else (),
        is_help=is_help or (several and not target),
        core="".join(rest),
    )


def _part_side(words: list[str], name: str) -> tuple[Side, list[str]]:
    """The side that a name says, and its other words."""
    known = load_nomenclature().words
    found: set[str] = set()
    rest: list[str] = []
    glued = {match.lower() for match in WORD.findall(plain(name)) if VERTEBRA.fullmatch(match)}
    for at, word in enumerate(words):
        at_end = at in (0, len(words) - 1) and len(words) > 1
        # "L5" is a vertebra.
        if word in ("l", "r") and at + 1 < len(words) and word + words[at + 1] in glued:
            rest.append(word)
        elif word in known.left or (at_end and word in known.left_at_ends):
            found.add("L")
        elif word in known.right or (at_end and word in known.right_at_ends):
            found.add("R")
        elif word in known.both:
            found |= {"L", "R"}
        else:
            rest.append(word)
    sides: dict[frozenset[str], Side] = {frozenset("L"): "L", frozenset("R"): "R", frozenset("LR"): "both"}
    return sides.get(frozenset(found), ""), rest


def _find_organ(words: list[str]) -> tuple[str, int, int, bool]:
    """The organ whose synonym takes most letters of a name, where it stands, and whether another stands beside it."""
    spans = []
    for start in range(len(words)):
        for end in range(start + 1, min(len(words), start + MOST_WORDS) + 1):
            text = "".join(words[start:end])
            if text in _phrases():
                spans.append((len(text), -start, start, end, _phrases()[text]))
    if not spans:
        return "", 0, 0, False
    _, _, start, end, organ = max(spans)
    several = any((b <= start or a >= end) and other != organ for _, _, a, b, other in spans)
    return organ, start, end, several


def _glued_side(words: list[str]) -> tuple[str, Side]:
    """A paired organ whose side is written on to its name (`LPAROTID`, `femurlt`), or that is in the plural."""
    text = "".join(words)
    for mark, side in GLUED:
        stems = (text.removesuffix(mark), text.removeprefix(mark) if side != "both" else text)
        for stem in stems:
            organ = _phrases().get(stem, "") if stem != text else ""
            if organ and load_organs()[organ].paired:
                return organ, side
    return "", ""


def _doses(words: list[str]) -> tuple[float, ...]:
    """Numbers of a target's name that are a dose of a course, in Gy or cGy."""
    doses = []
    for word in words:
        if not word[0].isdigit():
            continue
        value = float(word.replace(",", "."))
        for dose in (value, value / CGY_PER_GY):
            if LEAST_DOSE_GY <= dose <= MOST_DOSE_GY:
                doses.append(dose)
    return tuple(dict.fromkeys(doses))


def standard_name(name: str, side: Side = "", dose_gy: float | None = None) -> str:
    """Return the name that AAPM TG-263 would give a structure; empty where it is not known.

    Parameters
    ----------
    side
        Where it lies, for a name that doesn't say.
    dose_gy
        Prescribed to a target, for a name that doesn't say.

    Examples
    --------
    >>> standard_name("Hüftkopf re"), standard_name("PTV 70"), standard_name("zPTV70_opt")
    ('Femur_Head_R', 'PTV_7000', '')
    """
    parts = read_name(name)
    if parts.is_help:
        return ""
    if parts.target:
        doses = parts.doses_gy or (() if dose_gy is None else (dose_gy,))
        return f"{parts.target}_{doses[0] * CGY_PER_GY:.0f}" if len(doses) == 1 else parts.target
    if not parts.organ:
        return ""
    where = parts.side or side
    if not load_organs()[parts.organ].paired:
        return parts.organ
    return f"{parts.organ}_{where}" if where in ("L", "R") else f"{parts.organ}s" if where == "both" else parts.organ
