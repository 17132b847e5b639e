"""Skin and organs against the image, main target and skin against the dose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.grid import IntTriple, Triple, box_around
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Protocol
from doseledger.gates.limits import ImageLimits, SignLimit
from doseledger.gates.verdict import Finding, Severity

Window = tuple[float, float]
# An outline is looked at within this of it, on both sides, and moved along each axis: voxel by voxel up to the reach,
# and as far as an image may be off whose origin is another one's.
WIDTH_MM, REACH_MM = 6.0, 12.0
FAR_MM = (25.0, 50.0)
# Values beyond are cut: air and metal would drown the difference between muscle and fat, bone and air that of the skin.
ORGAN_HU, SKIN_HU = (-200.0, 300.0), (-1000.0, 0.0)
# So of the dose, as shares of the prescription: hot spots, and the low dose of single fields.
DOSE_SHARES = (0.7, 1.0)
# How many voxels of a band are looked at, how many it takes to say anything, and the share that must stay in the image.
MOST_VOXELS, LEAST_VOXELS, LEAST_SEEN = 20_000, 10, 0.5
# Outlines that explain less than this anywhere within reach say nothing of their place.
LEAST_BEST = 0.05
# A dose that covers the target in place as well as there is the target's own, however wide the fields are. 0.998 and
# less in synthetic patients where it is mirrored or one voxel off.
COVERED_SHARE = 0.999
# At the skin a dose falls to nothing or to little: its share of the prescription there. Pelvis and plan may be alike to
# the left and right, the skin is not.
SKIN_DOSE_SHARES = (0.0, 0.05)


@dataclass(frozen=True)
class Placement:
    """How well outlines fit the image.

    Parameters
    ----------
    fit
        Share of the variance of HU, or dose, near the outlines that inside and outside explain, mean
        over outlines, 0 to 1; NaN where there is nothing to tell apart.
    best
        The same of the best other place: moved along an axis, or mirrored.
    where
        That place, in words.
    covered
        Of a dose: the mean within the target's outline, hot spots cut, per that of the best other place; NaN of an
        image.
    """

    fit: float
    best: float
    where: str
    covered: float = math.nan

    @property
    def share(self) -> float:
        """Fit in place per best fit elsewhere: above 1 where no other place is as good; NaN where no place fits."""
        return self.fit / self.best if self.best >= LEAST_BEST else math.nan


@dataclass(frozen=True)
class _Band:
    """Voxels (3, n) of a volume: `n_inner` just inside an outline, then those just outside.

    Parameters
    ----------
    ends
        Least and greatest index on each axis.
    """

    zyx: NDArray[np.intp]
    n_inner: int
    shape: IntTriple
    ends: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, zyx: NDArray[np.intp], n_inner: int, shape: IntTriple) -> _Band:
        return cls(zyx, n_inner, shape, tuple((int(k.min()), int(k.max())) for k in zyx) if zyx.size else ())

    @cached_property
    def flat(self) -> NDArray[np.intp]:
        """The voxels' places in the flat volume: one index is taken faster than three."""
        return np.ravel_multi_index(tuple(self.zyx), self.shape)

    def mirrored(self) -> _Band:
        """Return the voxels that lie here once the volume is mirrored left to right."""
        z, y, x = self.zyx
        return _Band.of(np.stack([z, y, self.shape[2] - 1 - x]), self.n_inner, self.shape)

    def values(self, volume: NDArray[Any], step: IntTriple, window: Window) -> tuple[NDArray[np.float64], int]:
        """Return what a volume holds at the moved voxels, cut to a window, and how many are of the inside.

        Voxels that a step moves out of the volume are left out.
        """
        flat, n_inner = self.flat, self.n_inner
        for by, n, axis, (least, most) in zip(step, self.shape, self.zyx, self.ends, strict=False):
            if least + by < 0 or most + by >= n:
                # A step is along one axis.
                inside = (axis + by >= 0) & (axis + by < n)
                flat, n_inner = flat[inside], int(np.count_nonzero(inside[: self.n_inner]))
        away = (step[0] * self.shape[1] + step[1]) * self.shape[2] + step[2]
        found = volume.reshape(-1)[flat + away].astype(np.float64)
        return np.clip(found, *window, out=found), n_inner


def measure_placement(case: Case, protocol: Protocol) -> dict[str, Placement]:
    """Return how well the skin (the body's outline) and the organs fit the image, as `skin` and `organ`.

    As `dose`, where there are both, how well the target of the highest prescription fits the dose; as `dose_skin`, how
    well the skin does, per the best of the mirrored dose moved by up to 25 mm to either side.

    Notes
    -----
    The share explained is η², the between-group part of the sum of squares, of a band of 6 mm on either side. Targets
    are left out: they have no edge in the image. Shifts go along one axis at a time; mirroring is left to right.
    """
    organs = [name for name in case.present_names if protocol.structure(name).kind == "organ"]
    skin = _find_band(case.body, None, case.grid.spacing_mm)
    bands = [_find_band(case.mask(name), case.body, case.grid.spacing_mm) for name in organs if case.mask(name).any()]
    steps = _steps(case.grid.spacing_mm)
    found = {
        "skin": _place(case.ct_hu, [skin], SKIN_HU, steps, case.grid.spacing_mm),
        "organ": _place(case.ct_hu, bands, ORGAN_HU, steps, case.grid.spacing_mm),
    }
    targets = {name: gy for name, gy in case.prescription_gy.items() if name in case.present_names}
    main = max(targets, key=lambda name: targets[name], default="")
    if case.dose_gy is not None and main and case.mask(main).any():
        target = _find_band(case.mask(main), case.body, case.grid.spacing_mm)
        window_gy = DOSE_SHARES[0] * targets[main], DOSE_SHARES[1] * targets[main]
        found["dose"] = _place(case.dose_gy, [target], window_gy, steps, case.grid.spacing_mm, is_dose=True)
        low_gy = SKIN_DOSE_SHARES[0] * targets[main], SKIN_DOSE_SHARES[1] * targets[main]
        found["dose_skin"] = _place_mirrored(case.dose_gy, skin, low_gy, case.grid.spacing_mm)
    return found


def judge_placement(case: Case, found: dict[str, Placement], limits: ImageLimits) -> list[Finding]:
    """Return whether skin or organs do not fit the image, or fit it better elsewhere.

    Parameters
    ----------
    found
        What `measure_placement` says of it.
    """
    findings = []
    advice = "is this image another patient's, moved or mirrored? Look at image and contours on one slice, ingest again"
    wanted = (
        ("skin", limits.least_skin_fit, limits.least_skin_share),
        ("organ", limits.least_organ_fit, limits.least_organ_share),
    )
    for what, least, least_share in wanted:
        place = found[what]
        if what == "organ" and math.isnan(place.fit) and not _has_organ(case):
            message = f"{case.case_id}: no organ is there, so nothing but the skin holds the contours to the image"
            findings.append(Finding("image_unasked", case.case_id, "warning", message))
            continue
        numbers = {"fit": place.fit, "best": place.best}
        is_elsewhere = place.best >= LEAST_BEST and not keeps(place.share, least=least_share)
        if is_elsewhere and math.isfinite(place.fit):
            message = (
                f"{case.case_id}: the {what} contours fit the image better {place.where} ({100 * place.best:.0f} % of "
                f"the HU near them explained) than in place ({100 * place.fit:.0f} %): {advice}"
            )
            findings.append(Finding("image_place", case.case_id, "error", message, numbers))
        elif not keeps(place.fit, least=least):
            message = (
                f"{case.case_id}: the {what} contours explain {100 * place.fit:.0f} % of the HU near them, wanted "
                f"{100 * least:.0f} % at least: {advice}"
            )
            findings.append(Finding("image_fit", case.case_id, "error", message, numbers))
    return findings


def judge_dose_place(case: Case, place: Placement, limit: SignLimit) -> list[Finding]:
    """Return whether the dose fits the main target better elsewhere: it is of another frame, or another patient's.

    Parameters
    ----------
    place
        The `dose` of `measure_placement`.
    """
    if keeps(place.share, least=limit.warning) or place.best < LEAST_BEST:
        return []
    if keeps(place.covered, least=COVERED_SHARE):
        return []
    severity: Severity = "warning" if keeps(place.share, least=limit.error) else "error"
    message = (
        f"{case.case_id}: the main target fits the dose better {place.where} ({100 * place.best:.0f} % of the dose "
        f"near its outline explained) than in place ({100 * place.fit:.0f} %): is it moved, mirrored or another "
        "plan's? Look at both on one slice, export RTDOSE and RTSTRUCT of one plan again"
    )
    numbers = {"fit": place.fit, "best": place.best}
    return [Finding("dose_place", case.case_id, severity, message, numbers)]


def judge_dose_mirrored(case: Case, place: Placement, least_share: float) -> list[Finding]:
    """Return whether the skin fits the dose better where it is mirrored left to right.

    Parameters
    ----------
    place
        The `dose_skin` of `measure_placement`.
    least_share
        Least fit in place per fit of the mirrored dose.
    """
    if not place.best >= LEAST_BEST or keeps(place.share, least=least_share):
        return []
    message = (
        f"{case.case_id}: the skin fits the dose better {place.where} ({100 * place.best:.0f} % of the dose near it "
        f"explained) than in place ({100 * place.fit:.0f} %): look at both on one slice, export the RTDOSE again"
    )
    return [Finding("dose_place", case.case_id, "error", message, {"fit": place.fit, "best": place.best})]


def _has_organ(case: Case) -> bool:
    return any(name not in case.prescription_gy for name in case.present_names)


def _find_band(mask: NDArray[np.bool_], within: NDArray[np.bool_] | None, spacing_mm: Triple) -> _Band:
    margin = tuple(math.ceil(WIDTH_MM / step) + 1 for step in spacing_mm)
    box = box_around(mask, (margin[0], margin[1], margin[2]))
    part = np.ascontiguousarray(mask[box])
    # Two labels: each voxel's distance to the other one. The image's edge is no surface.
    near = edt.edt(part.view(np.uint8) + np.uint8(1), anisotropy=spacing_mm, black_border=False) <= WIDTH_MM
    outside = near & ~part
    if within is not None:
        outside &= within[box]
    sides = [_thinned(near & part), _thinned(outside)]
    start = [axis.start for axis in box]
    zyx = np.ascontiguousarray((np.concatenate(sides) + start).T)
    return _Band.of(zyx, len(sides[0]), mask.shape)


def _thinned(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Every n-th voxel of a mask: the same ones on every run, and no random numbers."""
    voxels = np.argwhere(mask)
    return voxels[:: max(1, math.ceil(len(voxels) / MOST_VOXELS))]


def _steps(spacing_mm: Triple) -> list[IntTriple]:
    found = []
    for axis, step in enumerate(spacing_mm):
        far = {round(way / step) for way in FAR_MM}
        for count in sorted({*range(1, int(REACH_MM / step) + 1), *far} - {0}):
            for sign in (-1, 1):
                moved = [0, 0, 0]
                moved[axis] = sign * count
                found.append((moved[0], moved[1], moved[2]))
    return found


def _place(
    values: NDArray[Any],
    bands: list[_Band],
    window: Window,
    steps: list[IntTriple],
    spacing_mm: Triple,
    *,
    is_dose: bool = False,
) -> Placement:
    places = [(step, bands, _in_words(step, spacing_mm)) for step in steps]
    places.append(((0, 0, 0), [band.mirrored() for band in bands], "mirrored left to right"))
    fits = [_fit(values, at, step, window) for step, at, _ in places]
    best = max(range(len(fits)), key=lambda k: -1.0 if math.isnan(fits[k]) else fits[k])
    step, at, where = places[best]
    covered = math.nan
    if is_dose and math.isfinite(fits[best]):
        covered = _inside(values, bands, (0, 0, 0), window) / _inside(values, at, step, window)
    return Placement(_fit(values, bands, (0, 0, 0), window), fits[best], where, covered)


def _place_mirrored(values: NDArray[Any], skin: _Band, window: Window, spacing_mm: Triple) -> Placement:
    # What was mirrored about the middle of another box is off to one side here.
    reach, there = int(FAR_MM[0] / spacing_mm[2]), [skin.mirrored()]
    fits = [_fit(values, there, (0, 0, by), window) for by in range(-reach, reach + 1)]
    best = max((fit for fit in fits if math.isfinite(fit)), default=math.nan)
    return Placement(_fit(values, [skin], (0, 0, 0), window), best, "mirrored left to right")


def _inside(values: NDArray[Any], bands: list[_Band], step: IntTriple, window: Window) -> float:
    """Mean just within the outlines of what a window holds."""
    return float(
        np.mean([found[:n_inner].mean() for found, n_inner in (b.values(values, step, window) for b in bands)])
    )


def _in_words(step: IntTriple, spacing_mm: Triple) -> str:
    axis = next(k for k in range(3) if step[k])
    return f"moved by {step[axis] * spacing_mm[axis]:+.1f} mm along {'zyx'[axis]}"


def _fit(values: NDArray[Any], bands: list[_Band], step: IntTriple, window: Window) -> float:
    known = []
    for band in bands:
        found, n_inner = band.values(values, step, window)
        n_outer = len(found) - n_inner
        wanted = (LEAST_SEEN * n for n in (band.n_inner, len(band.flat) - band.n_inner))
        if all(n >= max(LEAST_VOXELS, least) for n, least in zip((n_inner, n_outer), wanted, strict=True)):
            known.append(_explained(found, n_inner))
    return float(np.mean(known)) if known else math.nan


def _explained(values: NDArray[np.float64], n_inner: int) -> float:
    """Share of the values' variance that lies between the first `n_inner` and the others."""
    mean, sides = values.mean(), (values[:n_inner], values[n_inner:])
    between = sum(len(side) * float(side.mean() - mean) ** 2 for side in sides)
    total = float(np.square(values - mean).sum())
    return between / total if total > 0 else 0.0
