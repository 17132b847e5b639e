"""A beam fitted to measured depth doses, profiles and output factors.

In one square field the model gives K(d, x) = Σ_c,g A_cg · b_c(d) · G_g(x), with b_c the depth dose of a component and
G_g what a Gaussian gathers of the primary fluence; dose is K times the inverse square. Attenuation, build-ups and
widths are searched by least squares of depth doses and profiles together, amplitudes follow from them, linearly
(variable projection, Golub & Pereyra 1973); then the widest field's profiles tell the primary fluence by their shape
within the field, and all is done again. What depth doses have beyond that at 2 to 15 mm is the electrons' of head and
air.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls
from scipy.special import erf

from doseledger.core.errors import BadInput
from doseledger.core.files import to_yaml
from doseledger.core.schema import load_block
from doseledger.core.types import Floats
from doseledger.planning.commissioning.scans import Curve
from doseledger.planning.dose.kernels import CELL_MM, component_depth_dose, gaussian_depth_dose
from doseledger.planning.machine.linac import Beam, Electrons, Machine

REFERENCE_MM = 100.0
# Shallower, electrons of head and air bring dose. They are fitted from the first of these depths (nearer the surface a
# chamber reads what its own volume averages) to the second, by steps of their attenuation.
SHALLOWEST_MM = 10.0
ELECTRONS_MM, ELECTRONS_PER_MM = (2.0, 15.0), (0.1, 0.6, 0.01)
# Deeper, and in fields below this side (where the detector counts), points weigh less.
DEEPEST_MM, DEEP_WEIGHT = 200.0, 0.4
SMALL_MM, SMALL_WEIGHT = 15.0, 0.15
RIDGE = 2e-3
# A field just beyond those with an output factor takes the last one's.
SAME_SIDE = 0.02
ROUNDS = 3
# Within this share of the half side a profile tells the fluence.
FLAT_SHARE = 0.8
# A point of a profile weighs as much as so many of a depth dose.
PROFILE_WEIGHT = 0.5
# Widths of the narrowest Gaussian, in mm, where profiles tell it; by how many times the next is wider; and the widest.
NARROWEST_MM, APART, WIDEST_MM = (1.0, 20.0), (1.3, 20.0), 150.0
# Attenuation, and how far above it build-ups lie: below it the two would change places, beyond the second a build-up is
# over before the first depth.
ATTENUATION_PER_MM, ABOVE_PER_MM = (1e-4, 0.02), (5e-4, 1.0)
# What 200 mm have of the K of 100 mm: 0.57 (cobalt) to 0.80 (25 MV), IAEA TRS-398, with room on both sides.
DEEP_MM, DEEP_RATIO = 200.0, (0.5, 0.9)
TOLERANCES: dict[str, Any] = {"xtol": 1e-10, "ftol": 1e-10, "gtol": 1e-12, "max_nfev": 500}


@dataclass(frozen=True)
class Fit:
    """A fitted machine, and how well it gives the measurements again.

    Parameters
    ----------
    rows
        For each curve: kind, side, depth, number of points, and the greatest and the root mean square difference in
        percent of the curve's maximum (of the reference field's for output factors).
    """

    machine: Machine
    rows: list[dict[str, Any]]


def fit_machine(curves: list[Curve], like: Machine, *, name: str, gy_per_mu: float | None) -> Fit:
    """Return a machine whose beam is fitted to measurements; leaves, jaws and speeds are another one's.

    Parameters
    ----------
    curves
        Depth doses or TPR of at least three square fields, one of them of 100 mm, with an output factor for each;
        profiles if at hand: without them penumbra and fluence stay as they are.
    like
        Where the search begins, and what is not measured.
    gy_per_mu
        Dose per MU at the isocentre, 100 mm deep in the 100 mm field; None keeps that of `like`.

    Raises
    ------
    BadInput
        If measurements are missing, or no linac's photons are like them: a unit may be wrong.
    """
    outputs = _outputs(curves)
    depth_curves = [c for c in curves if c.kind in ("depth_dose", "tpr")]
    tables = [_as_k(curve, outputs, like.source_axis_mm) for curve in depth_curves]
    _refuse_few(tables)
    _refuse_no_linac(next(table for table in tables if table.side_mm == REFERENCE_MM))
    profiles = [curve for curve in curves if curve.kind == "profile"]
    points = _points([table.deep for table in tables], profiles, like.source_axis_mm)
    beam = _fit_points(points, like.beam.model_copy(update={"electrons": None}), widths_too=bool(profiles))
    for _ in range(ROUNDS if profiles else 0):
        beam = _fit_fluence(profiles, beam, like.source_axis_mm)
        beam = _fit_points(points, beam, widths_too=True)
    electrons = _fit_electrons(tables, beam) or like.beam.electrons
    changed: dict[str, Any] = {
        "electrons": electrons and electrons.model_dump(),
        "follows_density": True,
    }
    if gy_per_mu is not None:
        changed["reference_gy_per_mu"] = gy_per_mu
    rounded = load_block(Beam, {**beam.model_dump(), **changed}, "the fitted beam")
    machine = like.model_copy(update={"name": name, "beam": rounded})
    return Fit(machine, [_judge(curve, machine) for curve in curves if curve.kind != "output"])


def _outputs(curves: list[Curve]) -> tuple[float, Floats, Floats]:
    """Depth, sides and factors of the output factors; that of the reference field is 1."""
    found = [curve for curve in curves if curve.kind == "output"]
    if not found:
        raise BadInput(
            "no output factors: fields of different size can't be compared. Add a CSV with rows like "
            "output,50,950,50,,0.93 (side, surface, depth in mm, relative to the 100 mm field)"
        )
    depths = {curve.depth_mm for curve in found}
    if len(depths) > 1:
        raise BadInput(f"output factors at {len(depths)} depths ({sorted(depths)} mm); give those of one depth")
    factors = {curve.side_mm: float(curve.value[0]) for curve in found}
    scale = factors.setdefault(REFERENCE_MM, 1.0)
    sides = np.asarray(sorted(factors))
    return depths.pop(), sides, np.asarray([factors[side] / scale for side in sides])


@dataclass(frozen=True)
class _Table:
    """K of one field at depths, relative to the reference field and depth once scaled."""

    side_mm: float
    depth_mm: Floats
    k: Floats

    @property
    def deep(self) -> _Table:
        """The part to which electrons of head and air bring nothing."""
        keep = self.depth_mm >= SHALLOWEST_MM
        return _Table(self.side_mm, self.depth_mm[keep], self.k[keep])


def _as_k(curve: Curve, outputs: tuple[float, Floats, Floats], source_axis_mm: float) -> _Table:
    """A depth curve without its inverse square, at the output depth as high as the field's output factor."""
    depth, sides, factors = outputs
    if not (1 - SAME_SIDE) * sides[0] <= curve.side_mm <= (1 + SAME_SIDE) * sides[-1]:
        raise BadInput(
            f"{curve.source}: a {curve.kind} of {curve.side_mm:g} mm, output factors are of {sides[0]:g} to "
            f"{sides[-1]:g} mm; measure the field's output factor, or leave the curve out"
        )
    if not curve.at_mm[0] <= depth <= curve.at_mm[-1]:
        raise BadInput(f"{curve.source}: a {curve.kind} of {curve.side_mm:g} mm that does not reach {depth:g} mm")
    square = 1.0 if curve.kind == "tpr" else ((curve.ssd_mm + curve.at_mm) / source_axis_mm) ** 2
    k = curve.value * square
    k *= np.interp(curve.side_mm, sides, factors) / np.interp(depth, curve.at_mm, k)
    return _Table(curve.side_mm, curve.at_mm, k)


def _refuse_few(tables: list[_Table]) -> None:
    sides = sorted({table.side_mm for table in tables})
    if len(sides) < 3 or REFERENCE_MM not in sides:
        raise BadInput(
            f"depth doses of {', '.join(f'{side:g}' for side in sides) or 'no'} mm fields; wanted are three sides at "
            f"least, {REFERENCE_MM:g} mm among them"
        )


def _refuse_no_linac(reference: _Table) -> None:
    """Refuse a depth dose that falls as no linac's photons do, as one in cm."""
    reach = f"the depth dose of {REFERENCE_MM:g} mm"
    if not (reference.depth_mm[0] <= REFERENCE_MM and reference.depth_mm[-1] >= DEEP_MM):
        raise BadInput(
            f"{reach} goes from {reference.depth_mm[0]:g} to {reference.depth_mm[-1]:g} mm; wanted from "
            f"{REFERENCE_MM:g} to {DEEP_MM:g} mm at least. Is it in mm?"
        )
    near, deep = np.interp([REFERENCE_MM, DEEP_MM], reference.depth_mm, reference.k)
    if not DEEP_RATIO[0] <= deep / near <= DEEP_RATIO[1]:
        raise BadInput(
            f"{reach} keeps {100 * deep / near:.0f} % from {REFERENCE_MM:g} to {DEEP_MM:g} mm deep, inverse square "
            f"aside; a linac's photons keep {100 * DEEP_RATIO[0]:.0f} to {100 * DEEP_RATIO[1]:.0f} %. Is it in mm?"
        )


def gathered(beam: Beam, side_mm: float, x_mm: Floats) -> Floats:
    """Return what each Gaussian gathers in a square field at distances from the axis, (x, gaussian)."""
    edge = np.linspace(-0.5 * side_mm, 0.5 * side_mm, 2 * max(1, round(0.5 * side_mm / CELL_MM)) + 1)
    middle = 0.5 * (edge[1:] + edge[:-1])
    primary = beam.primary_fluence(np.hypot(middle[:, None], middle[None, :]))

    def share(at: Floats, sigma: float) -> Floats:
        reach = erf((edge[None, :] - at[:, None]) / (np.sqrt(2.0) * sigma))
        return np.asarray(0.5 * np.diff(reach, axis=1))

    return np.stack([share(x_mm, s) @ primary.T @ share(np.zeros(1), s)[0] for s in beam.sigma_mm], axis=1)


@dataclass(frozen=True)
class _Points:
    """K at points of fields, (point,) each, relative to the reference field and depth; x in the isocentre plane."""

    side_mm: Floats
    depth_mm: Floats
    x_mm: Floats
    k: Floats
    weight: Floats


def _points(tables: list[_Table], profiles: list[Curve], source_axis_mm: float) -> _Points:
    """All that is measured of K: along the axis, and off it where the field's own depth dose gives the scale."""
    parts = [(t.side_mm, t.depth_mm, np.zeros(len(t.k)), t.k, 1.0) for t in tables]
    held = {table.side_mm: table for table in tables}
    for curve in profiles:
        table = held.get(curve.side_mm)
        if table is None or not table.depth_mm.min() <= curve.depth_mm <= table.depth_mm.max():
            continue
        k = curve.value * np.interp(curve.depth_mm, table.depth_mm, table.k)
        x = curve.at_mm * source_axis_mm / (curve.ssd_mm + curve.depth_mm)
        parts.append((curve.side_mm, np.full(len(x), curve.depth_mm), x, k, PROFILE_WEIGHT))
    side, depth, x, k, share = (
        np.concatenate([np.broadcast_to(part[i], part[3].shape) for part in parts]) for i in range(5)
    )
    reference = held[REFERENCE_MM]
    k = k / np.interp(REFERENCE_MM, reference.depth_mm, reference.k)
    weight = share * np.where(depth <= DEEPEST_MM, 1.0, DEEP_WEIGHT) * np.where(side < SMALL_MM, SMALL_WEIGHT, 1.0)
    return _Points(side, depth, x, k, weight)


def _fit_points(points: _Points, beam: Beam, *, widths_too: bool) -> Beam:
    """The beam with attenuation, build-ups, widths and amplitudes fitted; the narrowest width only where asked."""
    n, n_fixed = len(beam.buildup_per_mm), 0 if widths_too else 1
    fields = [(side, np.flatnonzero(points.side_mm == side)) for side in np.unique(points.side_mm)]
    wanted = points.k * points.weight

    def beam_of(free: Floats) -> Beam:
        buildup = free[0] + np.exp(free[1 : 1 + n])
        # Each width is so many times the one before it.
        widths = np.exp(np.cumsum([*np.log(beam.sigma_mm[:n_fixed]), *free[1 + n :]]))
        values = {"attenuation_per_mm": float(free[0]), "buildup_per_mm": buildup.tolist(), "sigma_mm": widths.tolist()}
        return beam.model_copy(update=values)

    def solved(free: Floats) -> tuple[Beam, Floats]:
        trial = beam_of(free)
        by_field = np.empty((len(points.k), len(trial.sigma_mm)))
        for side, index in fields:
            by_field[index] = gathered(trial, side, points.x_mm[index])
        by_depth = component_depth_dose(trial, points.depth_mm)
        matrix = (by_depth[:, :, None] * by_field[:, None, :]).reshape(len(points.k), -1) * points.weight[:, None]
        # A ridge keeps the dozen amplitudes apart.
        square = matrix.T @ matrix + RIDGE**2 * np.eye(matrix.shape[1])
        amplitude = np.linalg.solve(square, matrix.T @ wanted)
        off = matrix @ amplitude - wanted
        too_wide = max(0.0, float(np.log(trial.sigma_mm[-1] / WIDEST_MM)))
        shaped = amplitude.reshape(by_depth.shape[1], -1).tolist()
        return trial.model_copy(update={"amplitude": shaped}), np.concatenate([off, RIDGE * amplitude, [too_wide]])

    above = np.maximum(np.asarray(beam.buildup_per_mm) - beam.attenuation_per_mm, ABOVE_PER_MM[0])
    times = np.diff(np.log(beam.sigma_mm), prepend=0.0)[n_fixed:]
    ends = [ATTENUATION_PER_MM, *[np.log(ABOVE_PER_MM)] * n, *[np.log(NARROWEST_MM)][n_fixed:]]
    low, high = np.transpose([*ends, *[np.log(APART)] * (len(beam.sigma_mm) - 1)])
    start = np.clip([beam.attenuation_per_mm, *np.log(above), *times], low, high)
    found = least_squares(lambda free: solved(free)[1], start, bounds=(low, high), x_scale="jac", **TOLERANCES).x
    return solved(found)[0]


def _fit_electrons(tables: list[_Table], beam: Beam) -> Electrons | None:
    """What depth doses have beyond the photons' near the surface; None where none reaches there."""
    reference = next(table.deep for table in tables if table.side_mm == REFERENCE_MM)
    scale = float(np.interp(REFERENCE_MM, reference.depth_mm, reference.k))
    rows, beyond, depths = [], [], []
    for table in tables:
        near = (table.depth_mm >= ELECTRONS_MM[0]) & (table.depth_mm <= ELECTRONS_MM[1])
        field = gathered(beam, table.side_mm, np.zeros(1))[0]
        photons = gaussian_depth_dose(beam, table.depth_mm[near]) @ field
        rows.append(np.broadcast_to(field, (len(photons), len(field))))
        beyond.append(table.k[near] / scale - photons)
        depths.append(table.depth_mm[near])
    gather, wanted, depth = np.concatenate(rows), np.concatenate(beyond), np.concatenate(depths)
    if not (depth < SHALLOWEST_MM).any():
        return None
    tries = []
    for attenuation in np.arange(*ELECTRONS_PER_MM):
        amplitude, off = nnls(gather * np.exp(-attenuation * depth)[:, None], wanted)
        tries.append((off, float(attenuation), amplitude.tolist()))
    _, attenuation, amplitude = min(tries)
    return Electrons(attenuation_per_mm=round(attenuation, 3), amplitude=amplitude)


def profile_of(beam: Beam, curve: Curve, source_axis_mm: float, x_mm: Floats) -> Floats:
    """Return the model's profile at distances from the axis in the curve's own plane, 1 on the axis, (x,)."""
    to_isocentre = source_axis_mm / (curve.ssd_mm + curve.depth_mm)
    by_depth = gaussian_depth_dose(beam, np.array([curve.depth_mm]))[0]
    found = gathered(beam, curve.side_mm, np.concatenate([[0.0], x_mm * to_isocentre])) @ by_depth
    return np.asarray(found[1:] / found[0])


def _fit_fluence(profiles: list[Curve], beam: Beam, source_axis_mm: float) -> Beam:
    """The beam with the primary fluence that the widest field's profiles ask for; beyond them it keeps its level."""
    widest = max(curve.side_mm for curve in profiles)
    knots, known = np.asarray(beam.fluence_distance_mm), np.asarray(beam.fluence_relative)
    ratios = []
    for curve in (curve for curve in profiles if curve.side_mm == widest):
        flat = curve.at_mm * source_axis_mm / (curve.ssd_mm + curve.depth_mm) <= FLAT_SHARE * 0.5 * widest
        at = curve.at_mm[flat] * source_axis_mm / (curve.ssd_mm + curve.depth_mm)
        ratio = curve.value[flat] / profile_of(beam, curve, source_axis_mm, curve.at_mm[flat])
        ratios.append(np.interp(knots, at, ratio))
    changed = known * np.mean(ratios, axis=0)
    return beam.model_copy(update={"fluence_relative": (changed / changed[0]).tolist()})


def machine_as_yaml(machine: Machine, sources: Mapping[str, str]) -> str:
    """Return a machine as YAML that `load_machine` reads back.

    Parameters
    ----------
    sources
        SHA256 of the measurements by file name, for the heading.
    """
    heading = "".join(f"#   {name} (SHA256 {sha256})\n" for name, sha256 in sources.items())
    value = machine.model_dump(mode="json")
    value["beam"] = {key: _rounded(number) for key, number in value["beam"].items() if number is not None}
    return f"# The beam was fitted by `doseledger machine fit` to\n{heading}{to_yaml(value)}"


def _rounded(value: Any) -> Any:
    """Numbers to eight digits, within lists and blocks too."""
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.8g}")


def _judge(curve: Curve, machine: Machine) -> dict[str, Any]:
    """How far the machine is off one curve, in percent of its maximum."""
    beam = machine.beam
    if curve.kind == "profile":
        found = profile_of(beam, curve, machine.source_axis_mm, curve.at_mm)
        off = 100.0 * (found - curve.value) / curve.value.max()
        depth: float | None = curve.depth_mm
    else:
        keep = curve.at_mm >= (ELECTRONS_MM[0] if beam.electrons else SHALLOWEST_MM)
        at = curve.at_mm[keep]
        found = gaussian_depth_dose(beam, at) @ gathered(beam, curve.side_mm, np.zeros(1))[0]
        if curve.kind == "depth_dose":
            found = found * (machine.source_axis_mm / (curve.ssd_mm + at)) ** 2
        measured = curve.value[keep]
        # Each curve is judged by its shape, at the scale that lies nearest.
        off = 100.0 * (found * float(found @ measured) / float(found @ found) - measured) / measured.max()
        depth = None
    return {
        "kind": curve.kind,
        "side_mm": curve.side_mm,
        "depth_mm": depth,
        "source": curve.source,
        "points": len(off),
        "worst_percent": round(float(np.abs(off).max()), 3),
        "rms_percent": round(float(np.sqrt(np.mean(np.square(off)))), 3),
    }
