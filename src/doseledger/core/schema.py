"""Typed blocks read from YAML: frozen, unknown keys refused, all faults named."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from doseledger.core.damage import MOST_SHOWN, shorten
from doseledger.core.errors import BadInput
from doseledger.core.text.lists import first_of

# A reason or a source that is empty, or blank, gives none.
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Regex = Annotated[str, AfterValidator(_compiles)]


class Block(BaseModel):
    """Base of everything read from YAML: frozen; an unknown key is an error, not a silent typo, and so is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


AnyBlock = TypeVar("AnyBlock", bound=BaseModel)


# So many faults are spelled out.
MOST_FAULTS = 50
# Of a wrong value what lies deeper, or comes after so many items, is not even written.
SHOWN = Repr()
SHOWN.maxlevel, SHOWN.maxdict, SHOWN.maxlist, SHOWN.maxtuple, SHOWN.maxset = 4, 10, 20, 20, 20
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = MOST_SHOWN


def load_block(model: type[AnyBlock], value: Any, where: str) -> AnyBlock:
    """Return a validated block, or say in one message everything that is wrong with it.

    Raises
    ------
    BadInput
        Naming file, key, what was found and what was wanted.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        found = first_of([_describe(item) for item in faults], MOST_FAULTS, "; ")
        raise BadInput(f"{where}: {found}") from error
    except RecursionError as error:
        raise BadInput(f"{where}: nested too deep; write it flatter") from error


def _describe(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "(top)"
    if item["type"] == "missing":
        # What is there instead is the whole block: pages of it would bury the one name that is asked for.
        return f"{place}: the key is missing; write it down"
    return f"{place}: {item['msg']}, found {shorten(SHOWN.repr(item.get('input')))}"
