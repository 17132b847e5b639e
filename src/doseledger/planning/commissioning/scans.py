"""Measured beam data of a linac, as CSV, .asc and .mcc hold them.

Positions are mm, sides those of the square field in the isocentre plane (at the surface, where that lies at 1 m),
values in any unit: a curve is judged by its shape, an output factor relative to the 100 mm field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from doseledger.core.damage import refuse_damage
from doseledger.core.errors import BadInput
from doseledger.core.types import Floats

Kind = Literal["depth_dose", "tpr", "profile", "output"]
COLUMNS = ("kind", "side_mm", "ssd_mm", "depth_mm", "x_mm", "value")
# A file of beam data holds some megabytes at most.
MOST_BYTES = 1 << 26
NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Curve:
    """What was measured in one square field.

    Parameters
    ----------
    kind
        `depth_dose` at a fixed surface, `tpr` (the detector stays at the isocentre, water rises), `profile`, or
        `output` (one point).
    side_mm
        Of the field in the isocentre plane.
    ssd_mm
        From the source to the surface; NaN for `tpr`.
    depth_mm
        Of a profile or an output factor; NaN for what runs along the depth.
    at_mm
        Depths, or distances from the axis, rising, (point,).
    value
        What was read there, (point,).
    """

    kind: Kind
    side_mm: float
    ssd_mm: float
    depth_mm: float
    at_mm: Floats
    value: Floats
    source: str


def read_scans(paths: list[Path]) -> tuple[list[Curve], list[str]]:
    """Return the curves of files, and a line for each that was left out: no square field, another radiation.

    Raises
    ------
    BadInput
        If a file can't be read, or holds no curve.
    """
    curves: list[Curve] = []
    left_out: list[str] = []
    for path in paths:
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise BadInput(f"{path.name}: beam data are read of {', '.join(READERS)}; export the scans as one of them")
        with refuse_damage(lambda reason, path=path: BadInput(f"{path}: {reason}")):  # type: ignore[misc]
            if path.stat().st_size > MOST_BYTES:
                raise BadInput(f"{path}: {path.stat().st_size} bytes are no table of beam data")
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        found = list(reader(text, path.name))
        if not found:
            raise BadInput(f"{path}: no scan in it; export depth doses and profiles of open square photon fields")
        left_out += [one for one in found if isinstance(one, str)]
        curves += [one for one in found if isinstance(one, Curve)]
    return curves, left_out


def _curve(kind: Kind, side: tuple[float, float], ssd: float, depth: float, points: Floats, source: str) -> Curve | str:
    """A curve of (point, [position, value]), or why it is left out."""
    where = f"{source}: {kind} of {side[0]:g} × {side[1]:g} mm"
    if abs(side[0] - side[1]) > 0.01 * max(side):
        return f"{where}: no square field"
    if len(points) < (1 if kind == "output" else 5) or not np.isfinite(points).all():
        return f"{where}: {len(points)} points, or one that is no number"
    points = points[np.argsort(points[:, 0], kind="stable")]
    at, first = np.unique(points[:, 0], return_index=True)
    value = points[first, 1]
    if value.max() <= 0:
        return f"{where}: no value above 0"
    if kind == "profile":
        if at[-1] < -0.25 * at[0]:
            at, value = -at[::-1], value[::-1]
        if at[0] <= -0.25 * at[-1] and max(value[0], value[-1]) >= 0.5 * value.max():
            return f"{where}: it ends before half its height, so that nobody knows its middle"
        at, value = _folded(at, value)
    return Curve(kind, float(np.mean(side)), ssd, depth, at, value, source)


def _folded(at: Floats, value: Floats) -> tuple[Floats, Floats]:
    """The mean of a profile's two sides about the middle of its half-height, 1 on the axis; half a one as it is."""
    if at[0] > -0.25 * at[-1]:
        keep = at >= 0
        return at[keep], value[keep] / np.interp(0.0, at, value)
    half = 0.5 * value.max()
    high = np.flatnonzero(value >= half)
    low, top = max(int(high[0]), 1), min(int(high[-1]), len(at) - 2)
    left = np.interp(half, value[low - 1 : low + 1], at[low - 1 : low + 1])
    right = np.interp(half, value[top : top + 2][::-1], at[top : top + 2][::-1])
    middle = 0.5 * (left + right)
    out = np.linspace(0.0, min(at[-1] - middle, middle - at[0]), max(5, len(at) // 2 + 1))
    both = 0.5 * (np.interp(middle + out, at, value) + np.interp(middle - out, at, value))
    return out, both / both[0]


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", ".")) for found in NUMBER.findall(text)]


def read_table(text: str, source: str) -> Iterator[Curve | str]:
    """Yield the curves of a CSV with the columns of `COLUMNS`: a row a point, what is not meant left empty.

    Raises
    ------
    BadInput
        Naming the line.
    """
    rows = csv.DictReader(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if tuple(name.strip() for name in rows.fieldnames or ()) != COLUMNS:
        raise BadInput(f"{source}: the first line must be {','.join(COLUMNS)}, it is {rows.fieldnames}")
    rows.fieldnames = COLUMNS
    points: dict[tuple[Kind, float, float | None, float | None], list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, start=2):
        kind = str(row["kind"]).strip()
        if kind not in get_args(Kind):
            raise BadInput(f"{source}: row {number} is a {kind!r}; wanted one of {', '.join(get_args(Kind))}")
        try:
            side, ssd, depth, x, value = (float(row[name] or "nan") for name in COLUMNS[1:])
        except (TypeError, ValueError) as error:
            raise BadInput(f"{source}: row {number}: {error}") from error
        along_depth = kind in ("depth_dose", "tpr")
        at = x if kind == "profile" else depth
        needed = [side, value, at, *([] if kind == "tpr" else [ssd]), *([] if along_depth else [depth])]
        if not np.isfinite(needed).all():
            raise BadInput(f"{source}: row {number} lacks a number that a {kind} needs")
        key = (cast("Kind", kind), side, None if kind == "tpr" else ssd, None if along_depth else depth)
        points.setdefault(key, []).append((at, value))
    for (kind_of, side, ssd_of, depth_of), values in points.items():
        ssd, depth = (np.nan if one is None else one for one in (ssd_of, depth_of))
        yield _curve(kind_of, (side, side), ssd, depth, np.asarray(values, dtype=np.float64), source)


def read_mcc(text: str, source: str) -> Iterator[Curve | str]:
    """Yield the curves of PTW's MEPHYSTO: `BEGIN_SCAN`, `KEY=value`, `BEGIN_DATA`, position and value a line."""
    for block in re.findall(r"BEGIN_SCAN\s+\d+(.*?)END_SCAN", text, flags=re.DOTALL):
        head, _, data = block.partition("BEGIN_DATA")
        said: dict[str, str] = dict(re.findall(r"^\s*(\w+)=(.*?)\s*$", head, flags=re.MULTILINE))
        if said.get("MODALITY", "X").upper() not in ("X", "XFFF"):
            yield f"{source}: a scan of modality {said['MODALITY']}, no photons"
            continue
        curve = said.get("SCAN_CURVETYPE", "")
        kind: Kind | None = {"PDD": "depth_dose"}.get(curve, "profile" if curve.endswith("PLANE_PROFILE") else None)  # type: ignore[assignment]
        values = [_numbers(line)[:2] for line in data.partition("END_DATA")[0].splitlines() if len(_numbers(line)) > 1]
        if kind is None or not values:
            yield f"{source}: a scan of type {curve or 'unknown'}, or without a point"
            continue
        side = (_said(said, "FIELD_INPLANE", source), _said(said, "FIELD_CROSSPLANE", source))
        depth = _said(said, "SCAN_DEPTH", source) if kind == "profile" else np.nan
        yield _curve(kind, side, _said(said, "SSD", source), depth, np.asarray(values), source)


def _said(said: dict[str, str], key: str, source: str) -> float:
    found = _numbers(said.get(key, ""))
    if not found:
        raise BadInput(f"{source}: a scan without {key}; export it with its header")
    return found[0]


def read_asc(text: str, source: str) -> Iterator[Curve | str]:
    """Yield the curves of an .asc: IBA's RFA300 (`=` before a point) or Eclipse's W2CAD (`<…>` about it)."""
    blocks = re.split(r"^:EOM.*$" if ":EOM" in text else r"^\$ENOM.*$", text, flags=re.MULTILINE)
    for block in blocks:
        points = [_numbers(line)[:4] for line in re.findall(r"^\s*[=<](.*)$", block, flags=re.MULTILINE)]
        rows = np.asarray([point for point in points if len(point) == 4], dtype=np.float64)
        if not len(rows):
            continue
        said: dict[str, str] = dict(re.findall(r"^%(\w+)\s+(.*?)\s*(?:#.*)?$", block, flags=re.MULTILINE))
        if not said.get("BMT", said.get("BMTY", "PHO")).upper().startswith("PHO"):
            yield f"{source}: a scan of {said.get('BMT', said.get('BMTY'))}, no photons"
            continue
        size = _numbers(said.get("FSZ", said.get("FLSZ", "")))
        if len(size) < 2:
            raise BadInput(f"{source}: a scan without field size; export it with its header")
        spread = np.ptp(rows[:, :3], axis=0)
        axis = int(spread.argmax())
        kind: Kind = "depth_dose" if axis == 2 else "profile"
        if (np.delete(spread, axis) > 0.5).any():
            yield f"{source}: a scan along no axis"
            continue
        # Depth counts downwards, whichever sign the phantom's axis has.
        rows[:, 2] *= np.sign(rows[np.abs(rows[:, 2]).argmax(), 2])
        depth = float(rows[0, 2]) if kind == "profile" else np.nan
        yield _curve(kind, (size[0], size[1]), _said(said, "SSD", source), depth, rows[:, [axis, 3]], source)


READERS: dict[str, Callable[[str, str], Iterator[Curve | str]]] = {
    ".csv": read_table,
    ".mcc": read_mcc,
    ".asc": read_asc,
}
