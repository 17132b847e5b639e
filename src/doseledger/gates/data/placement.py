"""Skin and organs against the image, main target and skin against the dose."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    """Voxels (n, 3) just inside and just outside an outline."""

    inner: NDArray[np.intp]
    outer: NDArray[np.intp]


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
    # The image's edge is no surface.
    near = [edt.edt(side, anisotropy=spacing_mm, black_border=False) <= WIDTH_MM for side in (part, ~part)]
    outside = near[1] & ~part
    if within is not None:
        outside &= within[box]
    start = [axis.start for axis in box]
    return _Band(_thinned(near[0] & part) + start, _thinned(outside) + start)


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
    window: tuple[float, float],
    steps: list[IntTriple],
    spacing_mm: Triple,
    *,
    is_dose: bool = False,
) -> Placement:
    places = [(step, values, _in_words(step, spacing_mm)) for step in steps]
    places.append(((0, 0, 0), values[..., ::-1], "mirrored left to right"))
    fits = [_fit(volume, bands, step, window) for step, volume, _ in places]
    best = max(range(len(fits)), key=lambda k: -1.0 if math.isnan(fits[k]) else fits[k])
    step, volume, where = places[best]
    covered = math.nan
    if is_dose and math.isfinite(fits[best]):
        here, there = _inside(values, bands, (0, 0, 0), window), _inside(volume, bands, step, window)
        covered = here / there
    return Placement(_fit(values, bands, (0, 0, 0), window), fits[best], where, covered)


def _place_mirrored(values: NDArray[Any], skin: _Band, window: tuple[float, float], spacing_mm: Triple) -> Placement:
    # What was mirrored about the middle of another box is off to one side here.
    reach = int(FAR_MM[0] / spacing_mm[2])
    fits = [_fit(values[..., ::-1], [skin], (0, 0, by), window) for by in range(-reach, reach + 1)]
    best = max((fit for fit in fits if math.isfinite(fit)), default=math.nan)
    return Placement(_fit(values, [skin], (0, 0, 0), window), best, "mirrored left to right")


def _inside(values: NDArray[Any], bands: list[_Band], step: IntTriple, window: tuple[float, float]) -> float:
    """Mean just within the outlines of what a window holds."""
    return float(np.mean([np.clip(_values(values, band.inner + step), *window).mean() for band in bands]))


def _in_words(step: IntTriple, spacing_mm: Triple) -> str:
    axis = next(k for k in range(3) if step[k])
    return f"moved by {step[axis] * spacing_mm[axis]:+.1f} mm along {'zyx'[axis]}"


def _fit(values: NDArray[Any], bands: list[_Band], step: IntTriple, window: tuple[float, float]) -> float:
    known = []
    for band in bands:
        sides = [np.clip(_values(values, voxels + step), *window) for voxels in (band.inner, band.outer)]
        least = [max(LEAST_VOXELS, LEAST_SEEN * len(voxels)) for voxels in (band.inner, band.outer)]
        if any(len(side) < n for side, n in zip(sides, least, strict=True)):
            continue
        both = np.concatenate(sides)
        total = float(((both - both.mean()) ** 2).sum())
        between = sum(len(side) * float(side.mean() - both.mean()) ** 2 for side in sides)
        known.append(between / total if total > 0 else 0.0)
    return float(np.mean(known)) if known else math.nan


def _values(values: NDArray[Any], voxels: NDArray[np.intp]) -> NDArray[np.float64]:
    # Axis by axis: a reduction over rows of three takes four times as long.
    z, y, x = np.ascontiguousarray(voxels.T)
    n_z, n_y, n_x = values.shape
    inside = (z >= 0) & (z < n_z) & (y >= 0) & (y < n_y) & (x >= 0) & (x < n_x)
    return values[z[inside], y[inside], x[inside]].astype(np.float64)
