"""Grammar of DVH statistics (`D95%`, `D2cc`, `V70Gy`, `mean`, `HI`) and units."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from doseledger.core.errors import BadInput

Kind = Literal["dose_at_percent", "dose_at_cc", "volume_at_gy", "volume_at_percent", "plain", "index"]
Unit = Literal["Gy", "%", "cc", "1"]

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DOSE_AT = re.compile(rf"D{_NUMBER}(%|cc)")
_VOLUME_AT = re.compile(rf"V{_NUMBER}(Gy|%)(?:\[(%|cc)\])?")
_PLAIN: dict[str, Unit] = {"mean": "Gy", "min": "Gy", "max": "Gy", "volume": "cc"}
# HI is a ratio of doses of the structure itself; CI and R50 look at the dose outside it as well.
_INDICES = ("HI", "CI", "R50")
_GRAMMAR = "D95%, D2cc, V70Gy, V95%, V70Gy[cc], mean, min, max, volume, HI, CI or R50"


@dataclass(frozen=True)
class Statistic:
    """One DVH statistic.

    Parameters
    ----------
    kind
        `dose_at_percent` and `dose_at_cc`: the least dose of the hottest `level` percent or cm³. `volume_at_gy` and
        `volume_at_percent`: the volume that has at least `level` Gy, or percent of the prescription. `plain`: mean,
        min, max, volume. `index`: HI, CI, R50.
    name
        As the clinic writes it, without a unit in brackets.
    level
        The number in the name; NaN where there is none.
    unit
        Unit of the value; "1" for a ratio.
    """

    kind: Kind
    name: str
    level: float
    unit: Unit

    @property
    def needs_prescription(self) -> bool:
        """Whether the value depends on a prescribed dose."""
        if self.kind == "volume_at_percent" or self.name in ("CI", "R50"):
            return True
        return self.unit == "%" and self.kind not in ("volume_at_gy", "index")

    @property
    def needs_whole_dose(self) -> bool:
        """Whether the dose outside the structure counts too."""
        return self.name in ("CI", "R50")

    def in_unit(self, unit: str) -> Statistic:
        """Return the same statistic in another unit: doses in Gy or % of the prescription, volumes in % or cc.

        Raises
        ------
        BadInput
            If the statistic has no value in that unit.
        """
        if self.kind == "index":
            possible: tuple[Unit, ...] = ("1",)
        elif self.kind in ("volume_at_gy", "volume_at_percent"):
            possible = ("%", "cc")
        else:
            possible = ("cc",) if self.name == "volume" else ("Gy", "%")
        for wanted in possible:
            if wanted == unit:
                return replace(self, unit=wanted)
        raise BadInput(f"{self.name} can't be had in {unit!r}; it is in {' or '.join(possible)}")


@dataclass(frozen=True)
class Measure:
    """The value of a statistic with its unit; NaN only together with the reason why there is none."""

    value: float
    unit: Unit
    reason: str = ""


def parse_statistic(text: str) -> Statistic:
    """Return the statistic that a name of the clinic's grammar stands for.

    Raises
    ------
    BadInput
        If the name is not of the grammar: nothing is guessed.

    Examples
    --------
    >>> parse_statistic("D95%").unit, parse_statistic("V70Gy").unit, parse_statistic("V70Gy[cc]").unit
    ('Gy', '%', 'cc')
    """
    name = text.partition("[")[0]
    if match := _DOSE_AT.fullmatch(text):
        level = float(match[1])
        if match[2] == "%":
            if level > 100:
                raise BadInput(f"statistic {text!r}: a structure has no more than 100 % of its volume")
            return Statistic("dose_at_percent", name, level, "Gy")
        if level == 0:
            raise BadInput(f"statistic {text!r}: a volume of 0 cc has no dose; write max")
        return Statistic("dose_at_cc", name, level, "Gy")
    if match := _VOLUME_AT.fullmatch(text):
        kind: Kind = "volume_at_gy" if match[2] == "Gy" else "volume_at_percent"
        return Statistic(kind, name, float(match[1]), "cc" if match[3] == "cc" else "%")
    if text in _PLAIN:
        return Statistic("plain", text, math.nan, _PLAIN[text])
    if text in _INDICES:
        return Statistic("index", text, math.nan, "1")
    hint = ""
    if re.fullmatch(rf"[DV]{_NUMBER}", text):
        hint = f"; it lacks a unit: {text}% or {text}{'cc' if text[0] == 'D' else 'Gy'}"
    raise BadInput(f"statistic {text!r} is not known{hint}; wanted one like {_GRAMMAR}")
