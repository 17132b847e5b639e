"""Values of DICOM attributes: numbers, texts, items, or a refusal by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from doseledger.core.damage import DAMAGED
from doseledger.core.errors import BadInput

# What pydicom raises where a file breaks the standard, at once or when a value is first asked for.
MALFORMED = (*DAMAGED, BytesLengthException, InvalidDicomError)
# Insignificant at the ends of a text (PS3.5 6.2): spaces, and the NUL that pads a UID.
PADDING = " \0"
# A number as somebody wrote it; any other text may name a patient and is never repeated.
NUMBER_LIKE = re.compile(r"[-+0-9.,eE]{1,32}")

Part = TypeVar("Part")


def value_of(dataset: pydicom.Dataset, keyword: str) -> Any:
    """Return an attribute's value; None where it is absent or empty.

    Raises
    ------
    BadInput
        If its bytes can't be read as a value of its type.
    """
    try:
        value = dataset.get(keyword)
    except MALFORMED as error:
        raise BadInput(f"{keyword} can't be read ({type(error).__name__}); export it again") from error
    if isinstance(value, str):
        return value if value.strip(PADDING) else None
    empty = isinstance(value, (bytes, MultiValue, list)) and not isinstance(value, Sequence) and len(value) == 0
    return None if empty else value


def text_of(dataset: pydicom.Dataset, keyword: str) -> str:
    """Return an attribute's text without its padding; empty where there is none, `\\` between several values."""
    value = value_of(dataset, keyword)
    if value is None:
        return ""
    return "\\".join(str(part).strip(PADDING) for part in listed(value))


def number_of(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """Return an attribute's finite number; None where it is absent or empty.

    Raises
    ------
    BadInput
        If it is no finite number, or several.
    """
    value = value_of(dataset, keyword)
    if value is None:
        return None
    found = finite(value)
    if found is None:
        raise BadInput(f"{keyword} is {what_is(value)}, wanted a number; export it again")
    return found


def number(dataset: pydicom.Dataset, keyword: str) -> float:
    """Return an attribute's finite number.

    Raises
    ------
    BadInput
        If it is absent, empty, or no finite number.
    """
    return _needed(number_of(dataset, keyword), dataset, keyword, "a number")


def whole_of(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """Return an attribute's whole number; None where it is absent or empty.

    Raises
    ------
    BadInput
        If it is no whole number, or several.
    """
    value = value_of(dataset, keyword)
    if value is None:
        return None
    found = finite(value)
    if found is None or found != math.floor(found):
        raise BadInput(f"{keyword} is {what_is(value)}, wanted a whole number; export it again")
    return int(found)


def whole(dataset: pydicom.Dataset, keyword: str) -> int:
    """Return an attribute's whole number.

    Raises
    ------
    BadInput
        If it is absent, empty, or no whole number.
    """
    return _needed(whole_of(dataset, keyword), dataset, keyword, "a whole number")


def items_of(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Return the items of a sequence; none where it is absent or empty.

    Raises
    ------
    BadInput
        If it is no sequence.
    """
    value = value_of(dataset, keyword)
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise BadInput(f"{keyword} is no sequence of items; export it again")
    return list(value)


def read_items(dataset: pydicom.Dataset, keyword: str, read: Callable[[pydicom.Dataset], Part]) -> list[Part]:
    """Return what `read` makes of each item of a sequence; a refusal says which item it is about.

    Raises
    ------
    BadInput
        Naming item and sequence, as `read` raises it.
    """
    found = []
    for position, item in enumerate(items_of(dataset, keyword), 1):
        try:
            found.append(read(item))
        except BadInput as error:
            raise BadInput(f"item {position} of {keyword}: {error}") from error
    return found


def listed(value: Any) -> list[Any]:
    """Return the values of an attribute, however many there are; none of one that is absent."""
    if value is None:
        return []
    return list(value) if isinstance(value, (MultiValue, list)) else [value]


def finite(value: Any) -> float | None:
    """Return a value as a finite float; None where it is none, or several."""
    if isinstance(value, (MultiValue, list)):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def what_is(value: Any) -> str:
    """Return in words what stands where a number should; a text that is no number's is not repeated."""
    if isinstance(value, (MultiValue, list)):
        commas = [part for part in value if "decimal comma" in what_is(part)]
        return what_is(commas[0]) if commas else f"{len(value)} values"
    text = str(value).strip(PADDING)
    if not NUMBER_LIKE.fullmatch(text):
        return "no number"
    if "," in text:
        return f"{text!r}, with a decimal comma where DICOM has a point"
    return repr(text)


def _needed(value: Part | None, dataset: pydicom.Dataset, keyword: str, wanted: str) -> Part:
    if value is None:
        how = "empty" if keyword in dataset else "missing"
        raise BadInput(f"{keyword} is {how}, wanted {wanted}; export it again")
    return value
