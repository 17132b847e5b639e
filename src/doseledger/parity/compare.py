"""Comparison of two data sets, array by array: raw, normalised, grouped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.types import Array, Tell
from doseledger.parity.arrays import array_heads, read_member
from doseledger.parity.check import find_npz
from doseledger.parity.contract import ArrayRules, Contract, Groups
from doseledger.parity.differences import compare_values, nearest_phase
from doseledger.parity.similarity import compare_stacks
from doseledger.parity.statistics import Index, Statistics, describe, grouped, normalised, parts_of, pooled

SIDES = ("a", "b")
TEXT = "SU"
ALL_FILES = "(all files)"
# Beyond so many labels neighbouring ones are put together, so that a table stays one.
MOST_GROUPS = 64


@dataclass(frozen=True)
class ParityResult:
    """What was found.

    Parameters
    ----------
    contract, scenario
        Under what, and the user's own identifier.
    names
        What the two data sets are called.
    n_files, n_compared
        Files that there are under the contract in either, and how many of those were looked at.
    statistics
        A row for each side, file, array, part, stage (raw, normalised, grouped) and group.
    pairs
        A row for each file, array and part that both have in one shape.
    """

    contract: str
    scenario: str
    names: tuple[str, str]
    n_files: int
    n_compared: int
    statistics: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "contract": self.contract, "scenario": self.scenario, "a": self.names[0], "b": self.names[1],
            "n_files": self.n_files, "n_compared": self.n_compared, "unpaired": self.unpaired, "pairs": self.pairs,
            "statistics": self.statistics,
        }  # fmt: skip


def compare_sets(
    folders: tuple[Path, Path], contract: Contract, *, limit: int | None, scenario: str, tell: Tell
) -> ParityResult:
    """Return how two data sets under one contract compare.

    Parameters
    ----------
    folders
        The reference and the other, each with NPZ files that the contract's pattern matches.
    contract
        Which arrays there are, which of them are images, how they are normalised and grouped.
    limit
        Look at the first so many files only; None for all.

    Raises
    ------
    BadInput
        If a folder has no such file, or one can't be read.
    """
    found: list[set[str]] = []
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder; parity compares two folders of NPZ files")
        names = {name for name in find_npz(folder) if re.fullmatch(contract.files.pattern, name)}
        if not names:
            raise BadInput(f"{folder}: no file matches {contract.files.pattern}, the pattern of {contract.name}")
        found.append(names)
    everything = sorted(found[0] | found[1])
    files = everything[:limit]
    result = ParityResult(contract.name, scenario, (folders[0].name, folders[1].name), len(everything), len(files))
    comparison = _Comparison(contract, result)
    for number, name in enumerate(files, start=1):
        a, b = (_File(folder / name) if name in there else None for folder, there in zip(folders, found, strict=True))
        comparison.add(name, a, b)
        tell(f"[{number}/{len(files)}] {name}")
    comparison.close()
    return result


class _File:
    """One file of one side; an array is read when it is first asked for, and the last three are kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.heads = path, array_heads(path)
        # The array that is compared, and labels or masks and names of its groups.
        self.array = lru_cache(maxsize=3)(partial(read_member, path))


class _What(NamedTuple):
    """Which numbers a row is about."""

    side: str
    file: str
    array: str
    part: str

    def row(self, stage: str, group: str, statistics: Statistics) -> dict[str, Any]:
        return {**self._asdict(), "stage": stage, "group": group, **statistics.as_dict()}


class _Comparison:
    """The rows of a result as they grow, file by file."""

    def __init__(self, contract: Contract, result: ParityResult) -> None:
        self._contract, self._result = contract, result
        self._raw: dict[tuple[str, str, str], list[Statistics]] = {}

    def add(self, name: str, a: _File | None, b: _File | None) -> None:
        unpaired = self._result.unpaired
        if a is None or b is None:
            unpaired.append(f"{name}: only in {'b' if a is None else 'a'}")
        for array, rules in self._contract.arrays.items():
            one, two = (None if side is None or array not in side.heads else side.array(array) for side in (a, b))
            if a is not None and b is not None and (one is None) != (two is None):
                unpaired.append(f"{name}: {array} is only in {'b' if one is None else 'a'}")
            described = [
                {}
                if values is None or side is None
                else self._describe(_What(letter, name, array, ""), values, rules, side)
                for letter, values, side in zip(SIDES, (one, two), (a, b), strict=True)
            ]
            if one is not None and two is not None:
                self._compare(name, array, (one, two), (described[0], described[1]))

    def _describe(self, what: _What, values: Array, rules: ArrayRules, file: _File) -> dict[str, Statistics]:
        """Statistics of each part of an array as it is; rows of all its stages are added."""
        found: dict[str, Statistics] = {}
        if values.dtype.kind in TEXT:
            return found
        rows = self._result.statistics
        for part, real in parts_of(values).items():
            of_part = what._replace(part=part)
            found[part] = raw = describe(real)
            self._raw.setdefault((what.side, what.array, part), []).append(raw)
            rows.append(of_part.row("raw", "", raw))
            if rules.normalise is not None and part != "phase":
                scale = rules.normalise
                rows.append(of_part.row("normalised", "", normalised(raw, scale.by, scale.divisor)))
            if rules.groups is not None:
                groups = grouped(real, _groups(real, rules, rules.groups, file))
                rows += [of_part.row("grouped", group, statistics) for group, statistics in groups.items()]
        return found

    def _compare(
        self,
        name: str,
        array: str,
        values: tuple[Array, Array],
        described: tuple[dict[str, Statistics], ...],
    ) -> None:
        one, two = values
        head = {"file": name, "array": array}
        if one.dtype.kind in TEXT and two.dtype.kind in TEXT:
            self._result.pairs.append({**head, "part": "text", "equal": bool(np.array_equal(one, two))})
            return
        if one.shape != two.shape or list(described[0]) != list(described[1]):
            self._result.unpaired.append(
                f"{name}: {array} is {one.dtype} {one.shape} in a, {two.dtype} {two.shape} in b"
            )
            return
        image, others = self._contract.arrays[array].image, parts_of(two)
        for part, reference in parts_of(one).items():
            other = nearest_phase(reference, others[part]) if part == "phase" else others[part]
            row = {**head, "part": part}
            row |= asdict(compare_values(reference, other, (described[0][part], described[1][part])))
            if image is not None:
                row |= asdict(compare_stacks(reference, other, len(image)))
            self._result.pairs.append(row)

    def close(self) -> None:
        """Add what all files of a side hold together."""
        for (side, array, part), statistics in self._raw.items():
            what = _What(side, ALL_FILES, array, part)
            self._result.statistics.append(what.row("raw", "", pooled(statistics)))


def _groups(values: Array, rules: ArrayRules, groups: Groups, file: _File) -> Iterator[tuple[str, Index]]:
    """Names and indices of an array's groups; none where the array that they come from is absent."""
    needed = groups.labels or groups.masks
    if needed is not None and needed not in file.heads:
        return
    names = file.array(groups.names) if groups.names is not None and groups.names in file.heads else None
    if groups.labels is not None:
        labels = file.array(groups.labels)
        if labels.shape != (len(values),):
            raise BadInput(
                f"{file.path}: {groups.labels} is {labels.shape}, wanted one label for each of {len(values)} rows; "
                "check it"
            )
        yield from _by_label(labels)
    elif groups.masks is not None:
        masks = file.array(groups.masks).astype(bool)
        if masks.shape[1:] != values.shape:
            raise BadInput(f"{file.path}: {groups.masks} is {masks.shape}, which does not fit {values.shape}; check it")
        for index, mask in enumerate(masks):
            if mask.any():
                yield str(names[index]) if names is not None else str(index), mask
    elif groups.axis is not None:
        axis = rules.axes.index(groups.axis)
        for index in range(values.shape[axis]):
            yield str(names[index]) if names is not None else str(index), (*[slice(None)] * axis, index)


def _by_label(labels: Array) -> Iterator[tuple[str, Index]]:
    known = np.unique(labels)
    for some in np.array_split(known, min(len(known), MOST_GROUPS)):
        name = str(some[0]) if len(some) == 1 else f"{some[0]} to {some[-1]}"
        yield name, np.isin(labels, some)
