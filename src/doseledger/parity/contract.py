"""Contracts of NPZ data sets: the YAML of validation/contracts.

A contract is about form and range, file by file: which arrays there are, their types, along which named axes they
agree, and within which limits their values lie. It knows nothing of dose; ours is one contract among others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.limit import meets
from doseledger.core.schema import Block, Reason, Regex, load_block

Kind = Literal["boolean", "integer", "unsigned", "real", "complex", "text"]
# numpy's letters for each kind; an unsigned integer is an integer too.
LETTERS: dict[Kind, str] = {
    "boolean": "b", "integer": "iu", "unsigned": "u", "real": "f", "complex": "c", "text": "US",
}  # fmt: skip
Name = Annotated[str, Field(min_length=1)]
Measure = Literal[
    "largest_difference", "mean_difference", "rms_difference", "mean_shift_percent", "std_shift_percent",
    "percentile_shift", "psnr_db", "ssim", "ms_ssim",
]  # fmt: skip


class FileRules(Block):
    """Which files a data set is made of; any other NPZ is a finding.

    Parameters
    ----------
    pattern
        Regular expression that a whole path below the folder matches.
    at_least
        How many files there must be.
    required
        Files that must be there.
    """

    pattern: Regex
    at_least: Annotated[int, Field(ge=1)] = 1
    required: list[str] = Field(default_factory=list)


class MissingRules(Block):
    """How slices that were not measured are marked: NaN throughout, and named by a boolean array where there is one.

    `flags` has the leading axes of the array; `min_present` is how many slices along the last of them a row must have.
    """

    flags: Name
    flag_axes: Annotated[list[str], Field(min_length=1)]
    min_present: Annotated[int, Field(ge=0)] = 0


class Normalise(Block):
    """How an array is brought to a scale that other data sets share; of complex values the magnitude counts."""

    by: Literal["largest", "rms", "standard", "constant"]
    divisor: Annotated[float, Field(gt=0)] | None = None


class Groups(Block):
    """By what the values of an array fall into groups; one of the three.

    `axis`: each index along it is a group. `labels`: an array of one label per index of the first axis. `masks`: an
    array of masks, with one axis before those of this array; a group is where a mask is set.
    `names`: an array of texts, one a group.
    """

    axis: str | None = None
    labels: str | None = None
    masks: str | None = None
    names: str | None = None


class ArrayRules(Block):
    """One array: its meaning, types, named axes and range. Of complex values the range is that of the magnitude.

    Parameters
    ----------
    describes
        Its meaning, for the README of a bundle.
    kinds, dtypes
        One of both: kinds of numbers, or exact types such as `int16`.
    axes
        Names in order; axes of one name have one size in a file. None for a single value.
    min, max
        Of the finite values.
    image
        The last two or three axes, if they are an image: parity then takes SSIM, MS-SSIM and PSNR.
    """

    describes: Reason
    required: bool = True
    kinds: Annotated[list[Kind], Field(min_length=1)] | None = None
    dtypes: Annotated[list[str], Field(min_length=1)] | None = None
    axes: list[str] = Field(default_factory=list)
    min: float | None = None
    max: float | None = None
    missing: MissingRules | None = None
    image: Annotated[list[str], Field(min_length=2, max_length=3)] | None = None
    normalise: Normalise | None = None
    groups: Groups | None = None

    @field_validator("dtypes")
    @classmethod
    def _are_dtypes(cls, value: list[str] | None) -> list[str] | None:
        import numpy as np

        for name in value or []:
            try:
                np.dtype(name)
            except TypeError as error:
                raise ValueError(f"{name!r} is no type of numpy") from error
        return value


class ParityLimit(Block):
    """How far two data sets may differ in one array, in every file; `part` is asked of complex arrays alone."""

    array: Name
    part: Literal["magnitude", "phase"] = "magnitude"
    measure: Measure
    operator: Literal["<=", ">="]
    limit: float
    source: Reason

    def is_met(self, value: float) -> bool:
        """Return whether a measure keeps the limit; NaN and infinity keep none, but for the PSNR of equal images."""
        if self.measure == "psnr_db" and value == math.inf:
            return self.operator == ">="
        return meets(value, self.operator, self.limit)


class Contract(Block):
    """A data set of NPZ files (docs/reference/contracts.md).

    Parameters
    ----------
    name
        As the file is called.
    title, source
        Of the data set, and of the rules.
    sizes
        Fixed sizes of named axes.
    same_in_all_files
        Axes that have one size throughout the data set.
    other_arrays
        Of arrays that no rule names.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: Reason
    source: Reason
    files: FileRules
    arrays: Annotated[dict[str, ArrayRules], Field(min_length=1)]
    sizes: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    same_in_all_files: list[str] = Field(default_factory=list)
    other_arrays: Literal["refuse", "allow"] = "refuse"
    parity: list[ParityLimit] = Field(default_factory=list)


def load_contract(path: Path, name: str = "") -> Contract:
    """Return a contract.

    Parameters
    ----------
    name
        What the contract must be called; the file's own name if empty.

    Raises
    ------
    BadInput
        Naming each key that is malformed, what was found and what was wanted.
    """
    contract = load_block(Contract, read_yaml(path), str(path))
    faults = list(_faults(contract))
    if contract.name != (name or path.stem):
        faults.append(f"name: found {contract.name!r}, wanted {name or path.stem!r}, as the file is called")
    if faults:
        raise BadInput(f"{path}: " + "; ".join(faults))
    return contract


def _faults(contract: Contract) -> Iterator[str]:
    """What does not fit together, each with its key; done here since pydantic would repeat the whole block."""
    axes = {axis for rules in contract.arrays.values() for axis in rules.axes}
    for key, named in (("sizes", list(contract.sizes)), ("same_in_all_files", contract.same_in_all_files)):
        if strangers := sorted(set(named) - axes):
            yield f"{key}: no array has an axis {', '.join(strangers)}; axes are {', '.join(sorted(axes))}"
    for name, rules in contract.arrays.items():
        for key, fault in (*_array_faults(rules), *_reference_faults(rules, contract.arrays)):
            yield f"arrays.{name}.{key}: {fault}"
    for index, limit in enumerate(contract.parity):
        if limit.array not in contract.arrays:
            yield f"parity.{index}.array: no array {limit.array!r}; arrays are {', '.join(contract.arrays)}"


def _array_faults(rules: ArrayRules) -> Iterator[tuple[str, str]]:
    if (rules.kinds is None) == (rules.dtypes is None):
        yield "kinds", "wanted one of `kinds` (integer, real, …) and `dtypes` (int16, float32, …)"
    if rules.min is not None and rules.max is not None and rules.min > rules.max:
        yield "min", f"found {rules.min:g}, which is above max {rules.max:g}"
    if len(set(rules.axes)) != len(rules.axes):
        yield "axes", f"found {rules.axes}, which names one axis twice"
    if rules.image is not None and rules.axes[-len(rules.image) :] != rules.image:
        yield "image", f"found {rules.image}, wanted the last of the axes {rules.axes}"
    if rules.missing is not None and rules.axes[: len(rules.missing.flag_axes)] != rules.missing.flag_axes:
        yield "missing.flag_axes", f"found {rules.missing.flag_axes}, wanted the first of the axes {rules.axes}"
    normalise = rules.normalise
    if normalise is not None and (normalise.by == "constant") != (normalise.divisor is not None):
        yield "normalise.divisor", "belongs to `by: constant`, and is needed there"


def _reference_faults(rules: ArrayRules, arrays: dict[str, ArrayRules]) -> Iterator[tuple[str, str]]:
    """What an array says of others that are not there, or have other axes."""
    wanted: list[tuple[str, str | None, list[str] | None]] = []
    if rules.missing is not None:
        wanted.append(("missing.flags", rules.missing.flags, rules.missing.flag_axes))
    groups = rules.groups
    if groups is not None:
        if sum(item is not None for item in (groups.axis, groups.labels, groups.masks)) != 1:
            yield "groups", "wanted exactly one of axis, labels and masks"
        if groups.axis is not None and groups.axis not in rules.axes:
            yield "groups.axis", f"found {groups.axis!r}, wanted one of its axes {rules.axes}"
        first = arrays[groups.masks].axes[:1] if groups.masks in arrays else []
        wanted.append(("groups.labels", groups.labels, rules.axes[:1]))
        wanted.append(("groups.masks", groups.masks, [*first, *rules.axes]))
        wanted.append(("groups.names", groups.names, None))
    for key, other, axes in wanted:
        if other is not None and other not in arrays:
            yield key, f"no array {other!r}; arrays are {', '.join(arrays)}"
        elif other is not None and axes is not None and arrays[other].axes != axes:
            yield key, f"{other} has the axes {arrays[other].axes}, wanted {axes}"
