"""Check of a data set against its contract, sample by sample."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.core.text.lists import first_of
from doseledger.core.types import Array, Mask
from doseledger.parity.arrays import ArrayHead, array_heads, iterate_blocks, read_member
from doseledger.parity.contract import LETTERS, ArrayRules, Contract, MissingRules

NPZ = ".npz"
# numpy's letters of what can be told true from false: no text, and no complex number.
TRUTH_KINDS = "biuf"
# How many samples a finding names.
MOST_SHOWN = 5


@dataclass(frozen=True)
class FileCheck:
    """What became of one file: the heads of its arrays, and findings by array ("" for the file itself)."""

    path: str
    heads: dict[str, ArrayHead]
    findings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Every finding as one line that names file and array."""
        return [
            f"{self.path}: {f'{name}: ' if name else ''}{text}"
            for name, texts in self.findings.items()
            for text in texts
        ]


@dataclass(frozen=True)
class SetCheck:
    """What became of a data set: one check a file, and what concerns the set as a whole."""

    files: dict[str, FileCheck]
    findings: list[str]

    @property
    def lines(self) -> list[str]:
        """Every finding as one line; none where the contract is kept."""
        return [*self.findings, *(line for check in self.files.values() for line in check.lines)]


def find_npz(folder: Path) -> list[str]:
    """Return the paths of all NPZ files below a folder, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{NPZ}") if path.is_file())


def check_data_set(folder: Path, contract: Contract) -> SetCheck:
    """Return what of a data set breaks its contract.

    Parameters
    ----------
    folder
        Every NPZ below it belongs to the data set; files of other kinds are none of the contract's business.

    Raises
    ------
    BadInput
        If there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the NPZ files of the data set")
    names = find_npz(folder)
    rules = contract.files
    ours = [name for name in names if re.fullmatch(rules.pattern, name)]
    findings = [
        f"{name}: not a file of the contract {contract.name} (pattern {rules.pattern}); rename it or move it elsewhere"
        for name in names
        if name not in ours
    ]
    findings += [
        f"{name}: the contract {contract.name} asks for this file" for name in rules.required if name not in ours
    ]
    if len(ours) < rules.at_least:
        findings.append(f"{len(ours)} files match {rules.pattern}, wanted at least {rules.at_least}")
    files = {name: check_file(folder, name, contract) for name in ours}
    return SetCheck(files, findings + _differing_sizes(files.values(), contract))


def _differing_sizes(files: Iterable[FileCheck], contract: Contract) -> list[str]:
    """Axes that must have one size in all files, and have several."""
    found: list[str] = []
    for axis in contract.same_in_all_files:
        by_size: dict[int, str] = {}
        for check in files:
            for name, rules in contract.arrays.items():
                head = check.heads.get(name)
                if head is not None and axis in rules.axes and len(head.shape) == len(rules.axes):
                    by_size.setdefault(head.shape[rules.axes.index(axis)], f"{check.path} ({name})")
        if len(by_size) > 1:
            sizes = ", ".join(f"{size} in {where}" for size, where in sorted(by_size.items()))
            found.append(f"axis {axis} must have one size in all files, found {sizes}")
    return found


def check_file(folder: Path, name: str, contract: Contract) -> FileCheck:
    """Return what of one file breaks the contract; a file that can't be read is a finding too."""
    path = folder / name
    try:
        heads = array_heads(path)
    except BadInput as error:
        return FileCheck(name, {}, {"": [str(error).replace(str(path), name)]})
    findings: dict[str, list[str]] = {}
    missing = [key for key, rules in contract.arrays.items() if rules.required and key not in heads]
    if missing:
        there = ", ".join(heads) or "none"
        findings[""] = [
            f"no array {', '.join(missing)}, which the contract {contract.name} requires; there are {there}"
        ]
    sizes: dict[str, tuple[int, str]] = {axis: (size, "the contract") for axis, size in contract.sizes.items()}
    for key, head in heads.items():
        known = contract.arrays.get(key)
        if known is None:
            found = [f"the contract {contract.name} knows no such array"] if contract.other_arrays == "refuse" else []
        else:
            found = check_form(head, known, sizes)
            if not found:
                found = _check_values(path, head, known, heads)
        if found:
            findings[key] = found
    return FileCheck(name, heads, findings)


def check_form(head: ArrayHead, rules: ArrayRules, sizes: dict[str, tuple[int, str]]) -> list[str]:
    """Return what is wrong with an array's type and shape; `sizes` of axes known so far are added to.

    Parameters
    ----------
    sizes
        By axis its size, and which array it was learnt from.
    """
    found: list[str] = []
    if rules.dtypes is not None and head.dtype not in [np.dtype(name) for name in rules.dtypes]:
        found.append(f"is {head.dtype}, wanted {' or '.join(rules.dtypes)}")
    if rules.kinds is not None and head.dtype.kind not in "".join(LETTERS[kind] for kind in rules.kinds):
        found.append(f"is {head.dtype}, wanted {' or '.join(rules.kinds)} values")
    if len(head.shape) != len(rules.axes):
        wanted = f"({', '.join(rules.axes)})" if rules.axes else "a single value"
        return [*found, f"has the shape {head.shape}, wanted {wanted}"]
    for axis, size in zip(rules.axes, head.shape, strict=True):
        known, where = sizes.setdefault(axis, (size, head.name))
        if known != size:
            found.append(f"has {size} along {axis}, but {where} has {known}")
    return found


def _check_values(path: Path, head: ArrayHead, rules: ArrayRules, heads: Mapping[str, ArrayHead]) -> list[str]:
    if head.dtype.kind in "SU":
        return []
    flags_head = heads.get(rules.missing.flags) if rules.missing is not None else None
    if rules.missing is not None and flags_head is not None:
        wanted = head.shape[: len(rules.missing.flag_axes)]
        # The check of a file goes on in the file's order, so these may not have been looked at yet, or be at fault.
        if flags_head.shape != wanted or flags_head.dtype.kind not in TRUTH_KINDS:
            there = f"of {flags_head.dtype} and shape {flags_head.shape}"
            return [f"has the flags {flags_head.name} {there}, which do not fit; wanted booleans of shape {wanted}"]
    try:
        tally = _Tally(rules, read_member(path, flags_head.name) if flags_head is not None else None)
        for start, block in iterate_blocks(path, head.name):
            tally.add(start, block)
    except BadInput as error:
        return [str(error).replace(f"{path}: ", "")]
    return tally.findings()


@dataclass
class _Tally:
    """Counts over the blocks of one array."""

    rules: ArrayRules
    flags: Array | None
    rows: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    low: float = np.inf
    high: float = -np.inf

    def add(self, start: int, block: Array) -> None:
        values = np.atleast_1d(block)
        if values.size == 0:
            return
        inexact = values.dtype.kind in "fc"
        finite = np.isfinite(values) if inexact else None
        if finite is not None and finite.all():
            finite = None
        if self.rules.missing is not None:
            finite = self._set_missing_aside(start, values, finite, self.rules.missing)
        elif finite is not None:
            for what, bad in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
                self._note(what, start, bad)
        magnitude = np.abs(values) if values.dtype.kind == "c" else values
        if finite is not None:
            magnitude = magnitude[finite]
        if magnitude.size:
            self.low = min(self.low, float(magnitude.min()))
            self.high = max(self.high, float(magnitude.max()))

    def _note(self, what: str, start: int, bad: Mask) -> None:
        rows = np.flatnonzero(bad.reshape(bad.shape[0], -1).any(axis=1))
        if rows.size:
            self.counts[what] = self.counts.get(what, 0) + int(bad.sum())
            self.rows.setdefault(what, []).extend((rows + start).tolist())

    def _set_missing_aside(self, start: int, values: Array, finite: Mask | None, rules: MissingRules) -> Mask:
        """Judge each slice (a band of a sample, say): measured and finite, or marked as missing and NaN throughout."""
        n = len(rules.flag_axes)
        flat = values.reshape(*values.shape[:n], -1)
        good = np.ones(flat.shape, bool) if finite is None else finite.reshape(flat.shape)
        nan: Mask = np.isnan(flat) if values.dtype.kind in "fc" else np.zeros(flat.shape, bool)
        empty = np.logical_and.reduce(nan, axis=-1)
        there = ~empty if self.flags is None else self.flags[start : start + len(values)].astype(bool)
        whole = there & ~good.all(axis=-1)
        for what, bad in (("NaN", np.isnan(flat)), ("infinite", np.isinf(flat))):
            self._note(what, start, bad & whole[..., None])
        self._note("unmarked", start, ~there & ~empty)
        if rules.min_present:
            present = there.reshape(len(values), -1).sum(axis=1)
            self._note("too few", start, present < rules.min_present)
        return np.broadcast_to(there[..., None], flat.shape).reshape(values.shape) & good.reshape(values.shape)

    def findings(self) -> list[str]:
        found: list[str] = []
        rules, sample = self.rules, self.rules.axes[0] if self.rules.axes else "value"
        flags = rules.missing.flags if rules.missing is not None else ""
        texts = {
            "NaN": "{n} values are NaN in {rows}",
            "infinite": "{n} values are infinite in {rows}",
            "unmarked": f"{{n}} slices hold values although {flags} says that they are missing, in {{rows}}",
            "too few": f"fewer than {rules.missing.min_present if rules.missing else 0} slices are there in {{rows}}",
        }
        for what, text in texts.items():
            rows = self.rows.get(what)
            if rows:
                found.append(text.format(n=self.counts[what], rows=f"{sample} {first_of(rows, MOST_SHOWN)}"))
        if not np.isfinite(self.low) and (rules.min, rules.max) != (None, None):
            return [*found, "holds no finite value, so its range can't be judged"]
        if rules.min is not None and not keeps(self.low, least=rules.min):
            found.append(f"the least value is {self.low:g}, wanted at least {rules.min:g}")
        if rules.max is not None and not keeps(self.high, most=rules.max):
            found.append(f"the largest value is {self.high:g}, wanted at most {rules.max:g}")
        return found
