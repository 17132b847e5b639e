"""Semantic and deliverability check of an RTPLAN on disk.

It looks at the data set itself and not at a `Plan` made of it, because a reader stops at the first thing that it can't
hold; here every fault is named, one sentence each (docs/reference/rtplan-checks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from doseledger.core.limit import breaks, keeps
from doseledger.core.plan import MOST_BEAM_MU
from doseledger.dicom.plan.beams import control_points, couch_moves, plan_kind, treatment_beams
from doseledger.dicom.plan.brachy import brachy_faults
from doseledger.dicom.values import finite, listed, number_of, value_of, what_is, whole_of

LEAF_DEVICES = ("MLCX", "MLCY")
# Files carry positions to 0.01 mm, and weights to nine digits or so.
SLACK_MM = 0.011
SLACK_RATE = 1e-3
SLACK_WEIGHT = 1e-6
# From a surface tube of 10 kV to the strongest betatron; leaves and jaws of any machine stay within a field of 1 m.
ENERGY_MV = (0.01, 50.0)
FARTHEST_MM = 500.0
# Value representations that hold numbers.
NUMBERS = ("DS", "IS", "FL", "FD")


@dataclass(frozen=True)
class MachineLimits:
    """What a machine can do, as plain numbers.

    Parameters
    ----------
    n_leaf_pairs
        Leaf pairs of its collimator.
    min_gap_mm
        Least distance of opposite tips.
    leaf_speed_mm_s, gantry_speed_deg_s
        Greatest speeds.
    dose_rate_mu_min
        Least and greatest dose rate while the gantry turns.
    min_gantry_speed_deg_s
        Least speed of a turning gantry.
    """

    n_leaf_pairs: int
    min_gap_mm: float
    leaf_speed_mm_s: float
    gantry_speed_deg_s: float
    dose_rate_mu_min: tuple[float, float]
    min_gantry_speed_deg_s: float


@dataclass(frozen=True)
class _Beam:
    """A beam with every control point filled from the one before, as far as it can be read."""

    name: str
    weight: NDArray[np.float64]
    gantry_deg: NDArray[np.float64]
    turn: list[str]
    devices: list[dict[str, NDArray[np.float64]]]
    boundary_mm: NDArray[np.float64] | None
    leaf_device: str | None


def check_rtplan(dataset: Dataset, limits: MachineLimits | None = None) -> list[str]:
    """Return what is wrong with an RTPLAN, a sentence each; empty if nothing is.

    Parameters
    ----------
    dataset
        The RTPLAN.
    limits
        The machine that it shall run on; None checks what holds for any machine.

    Notes
    -----
    Setup fields and portal images treat nobody and may lack metersets and positions: only their references are looked
    at. Beams are called by number: their names are free text, and a sentence may end in a report. Each kind of plan is
    asked its own questions: ions for their spots, brachytherapy for channels and dwell times, and where the table moves
    during the beam (helical delivery) the isocentre moves with it.
    """
    unreadable = list(_unreadable(dataset, "The plan"))
    if unreadable:
        return unreadable
    found = list(_references(dataset))
    if plan_kind(dataset) == "brachy":
        return [*found, *brachy_faults(dataset)]
    metersets = _metersets(dataset)
    beams = treatment_beams(dataset)
    if not beams:
        found.append("The plan has no beam that treats (BeamSequence).")
    for beam in beams:
        name = f"Beam {beam.get('BeamNumber')}"
        points = control_points(beam)
        found += _counts(beam, points, name)
        if not points:
            continue
        found += _isocentre(beam, points, name)
        # Ions have MeV a nucleon, and are asked for it with their spots.
        found += _spots(points, name) if plan_kind(dataset) == "ion" else _energies(points, name)
        read = _read(beam, points, name)
        if isinstance(read, str):
            found.append(read)
            continue
        found += _weights(beam, read)
        found += _leaves(read, limits)
        mu = metersets.get(int(beam.BeamNumber)) if beam.get("BeamNumber") is not None else None
        if limits is not None and mu is not None:
            found += _speeds(read, mu, limits)
    return found


def _metersets(dataset: Dataset) -> dict[int, float]:
    return {
        int(item.ReferencedBeamNumber): float(item.BeamMeterset)
        for group in dataset.get("FractionGroupSequence") or []
        for item in group.get("ReferencedBeamSequence") or []
        if item.get("ReferencedBeamNumber") is not None and item.get("BeamMeterset") is not None
    }


def _numbers(items: Any, keyword: str) -> list[int]:
    return [int(item.get(keyword)) for item in items or [] if item.get(keyword) is not None]


def _unreadable(item: Dataset, where: str) -> Iterator[str]:
    """Values anywhere in the plan that are no number: every later comparison with one would be blind."""
    for element in item:
        if element.VR == "SQ":
            for number, inner in enumerate(element.value):
                yield from _unreadable(inner, _place(element.keyword, inner, number, where))
        elif element.VR in NUMBERS and not element.is_empty:
            odd = next((_what_is(value) for value in listed(element.value) if finite(value) is None), "")
            if odd:
                yield f"{where}: {element.keyword or element.tag} holds {odd}, wanted a number."


def _what_is(value: Any) -> str:
    """A value that is no finite number, in words; NaN and infinity by their names."""
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return what_is(value)


def _place(keyword: str, item: Dataset, number: int, where: str) -> str:
    if keyword == "BeamSequence":
        return f"Beam {item.get('BeamNumber')}"
    if keyword == "ControlPointSequence":
        return f"{where}, control point {number}"
    return f"{where}, {keyword.removesuffix('Sequence')} {number + 1}"


def _references(dataset: Dataset) -> Iterator[str]:
    """Fraction groups, and numbers that point at nothing."""
    groups = dataset.get("FractionGroupSequence") or []
    beams = dataset.get("BeamSequence") or dataset.get("IonBeamSequence") or []
    numbers = _numbers(beams, "BeamNumber")
    for number in sorted({n for n in numbers if numbers.count(n) > 1}):
        yield f"Beam number {number} is given {numbers.count(number)} times, wanted once."
    if not groups:
        yield "The plan has no fraction group (FractionGroupSequence): nothing says how often and with how many MU."
    treating = _numbers(treatment_beams(dataset), "BeamNumber")
    referred = set()
    for group in groups:
        name = f"Fraction group {group.get('FractionGroupNumber')}"
        inside = _numbers(group.get("ReferencedBeamSequence"), "ReferencedBeamNumber")
        referred |= set(inside)
        for number in inside:
            if number not in numbers:
                yield f"{name} refers to beam {number}, which is not in the plan (beams {sorted(numbers)})."
        if int(group.get("NumberOfBeams") or 0) != len(inside):
            yield f"{name}: NumberOfBeams is {group.get('NumberOfBeams')}, it refers to {len(inside)} beams."
        if int(group.get("NumberOfFractionsPlanned") or 0) < 1:
            yield f"{name}: NumberOfFractionsPlanned is {group.get('NumberOfFractionsPlanned')}, wanted at least 1."
        for item in group.get("ReferencedBeamSequence") or []:
            number, mu = item.get("ReferencedBeamNumber"), float(item.get("BeamMeterset") or 0.0)
            if number is None or int(number) not in treating:
                continue
            if mu <= 0.0:
                yield f"{name}: beam {number} has no BeamMeterset; wanted its MU."
            elif not keeps(mu, most=MOST_BEAM_MU):
                yield f"{name}: beam {number} has a BeamMeterset of {mu:g} MU, wanted at most {MOST_BEAM_MU:g}."
    if groups:
        for number in sorted(set(treating) - referred):
            yield f"Beam {number} treats, but no fraction group refers to it."
    setups = _numbers(dataset.get("PatientSetupSequence"), "PatientSetupNumber")
    for beam in beams:
        setup = beam.get("ReferencedPatientSetupNumber")
        if setup is not None and int(setup) not in setups:
            yield f"Beam {beam.get('BeamNumber')} refers to patient setup {setup}, which is not in the plan."
    if dataset.get("RTPlanGeometry") == "PATIENT" and not dataset.get("ReferencedStructureSetSequence"):
        yield "The plan is for a patient (RTPlanGeometry), but refers to no structure set."


def _counts(beam: Dataset, points: Any, name: str) -> Iterator[str]:
    said = beam.get("NumberOfControlPoints")
    if said is None or int(said) != len(points):
        yield f"{name}: NumberOfControlPoints is {said}, it has {len(points)} control points."
    if len(points) < 2:
        yield f"{name} has {len(points)} control points, wanted at least 2."
    indices = [point.get("ControlPointIndex") for point in points]
    if indices != list(range(len(points))):
        at = next(k for k, index in enumerate(indices) if index != k)
        yield f"{name}, control point {at}: ControlPointIndex is {indices[at]}, wanted {at}."


def _isocentre(beam: Dataset, points: Any, name: str) -> Iterator[str]:
    given = [(k, point.IsocenterPosition) for k, point in enumerate(points) if point.get("IsocenterPosition")]
    if not given or given[0][0] != 0:
        yield f"{name} has no isocentre: IsocenterPosition is absent from its first control point."
        return
    values = [np.asarray([float(v) for v in listed(value)]) for _, value in given]
    if any(value.shape != (3,) or not np.all(np.isfinite(value)) for value in values):
        yield f"{name}: the isocentre must be x, y and z in mm, found {[value.tolist() for value in values[:1]]}."
    elif couch_moves(beam):
        return
    elif breaks(np.abs(np.stack(values) - values[0]), most=SLACK_MM).any():
        yield f"{name}: the isocentre moves during the beam."


def _spots(points: Any, name: str) -> Iterator[str]:
    """Scanned ion beams: as many positions and weights as spots."""
    for k, point in enumerate(points):
        spots = whole_of(point, "NumberOfScanSpotPositions")
        if spots is None:
            continue
        for keyword, wanted in (("ScanSpotPositionMap", 2 * spots), ("ScanSpotMetersetWeights", spots)):
            value = value_of(point, keyword)
            there = len(np.atleast_1d(value)) if value is not None else 0
            if there != wanted:
                yield f"{name}, control point {k}: {keyword} has {there} values, wanted {wanted} for {spots} spots."
        energy = number_of(point, "NominalBeamEnergy")
        if k == 0 and (energy is None or not energy > 0):
            yield f"{name}: the first control point has NominalBeamEnergy {energy}, wanted MeV a nucleon."


def _energies(points: Any, name: str) -> Iterator[str]:
    for k, point in enumerate(points):
        energy = point.get("NominalBeamEnergy")
        if energy is not None and not keeps(float(energy), least=ENERGY_MV[0], most=ENERGY_MV[1]):
            low, high = ENERGY_MV
            yield f"{name}, control point {k}: NominalBeamEnergy is {float(energy):g}, wanted {low:g} to {high:g} MV."


def _read(beam: Dataset, points: Any, name: str) -> _Beam | str:
    """Return a beam filled in, or what stands in the way of checking it further."""
    state: dict[str, Any] = {}
    devices: dict[str, NDArray[np.float64]] = {}
    weight, gantry, turn, filled = [], [], [], []
    for k, point in enumerate(points):
        for keyword in ("CumulativeMetersetWeight", "GantryAngle", "GantryRotationDirection"):
            if point.get(keyword) is not None:
                state[keyword] = point.get(keyword)
        if point.get("CumulativeMetersetWeight") is None:
            return f"{name}, control point {k}: no CumulativeMetersetWeight."
        if "GantryAngle" not in state:
            return f"{name}: the first control point has no GantryAngle."
        for item in point.get("BeamLimitingDevicePositionSequence") or []:
            positions = np.asarray([float(v) for v in listed(item.get("LeafJawPositions"))])
            devices = {**devices, str(item.get("RTBeamLimitingDeviceType")): positions}
        weight.append(float(state["CumulativeMetersetWeight"]))
        gantry.append(float(state["GantryAngle"]))
        turn.append(str(state.get("GantryRotationDirection") or "NONE"))
        filled.append(devices)
    leaf_device = next((name for name in LEAF_DEVICES if name in filled[0]), None)
    boundary = None
    for item in beam.get("BeamLimitingDeviceSequence") or []:
        if item.get("RTBeamLimitingDeviceType") == leaf_device and item.get("LeafPositionBoundaries"):
            boundary = np.asarray([float(v) for v in listed(item.LeafPositionBoundaries)])
    return _Beam(name, np.asarray(weight), np.asarray(gantry), turn, filled, boundary, leaf_device)


def _weights(beam: Dataset, read: _Beam) -> Iterator[str]:
    if not keeps(abs(read.weight[0]), most=SLACK_WEIGHT):
        yield f"{read.name}, control point 0: the cumulative meterset begins at {read.weight[0]:g}, wanted 0."
    if not read.weight.any():
        yield f"{read.name}: the cumulative meterset is 0 at each control point, wanted a rise."
    for k in np.flatnonzero(breaks(np.diff(read.weight), least=0.0)):
        before, after = read.weight[k], read.weight[k + 1]
        yield f"{read.name}, control point {k + 1}: the cumulative meterset falls from {before:.6g} to {after:.6g}."
    final = beam.get("FinalCumulativeMetersetWeight")
    slack = SLACK_WEIGHT * max(1.0, abs(float(final or 0.0)))
    if final is None or not keeps(abs(float(final) - read.weight[-1]), most=slack):
        yield (
            f"{read.name}: FinalCumulativeMetersetWeight is {final}, the last control point has {read.weight[-1]:.6g}."
        )


def _leaves(read: _Beam, limits: MachineLimits | None) -> Iterator[str]:
    """Number of leaves, gaps, and apertures against the jaws, at each control point."""
    if read.leaf_device is None:
        return
    pairs = None if read.boundary_mm is None else len(read.boundary_mm) - 1
    if read.boundary_mm is None:
        yield f"{read.name}: {read.leaf_device} has no LeafPositionBoundaries."
    elif limits is not None and pairs != limits.n_leaf_pairs:
        yield f"{read.name} has {pairs} leaf pairs, the machine has {limits.n_leaf_pairs}."
    least = 0.0 if limits is None else limits.min_gap_mm
    for k, devices in enumerate(read.devices):
        tips = devices[read.leaf_device]
        where = f"{read.name}, control point {k}"
        if pairs is not None and len(tips) != 2 * pairs:
            yield f"{where}: {len(tips)} leaf positions, wanted {2 * pairs} for {pairs} pairs."
            return
        for device, positions in devices.items():
            if breaks(positions, least=-FARTHEST_MM, most=FARTHEST_MM).any():
                yield f"{where}: {device} at {np.abs(positions).max():g} mm, wanted at most {FARTHEST_MM:g} mm."
        if len(tips) % 2:
            yield f"{where}: {len(tips)} leaf positions, wanted two of each pair."
            return
        low, high = tips.reshape(2, -1)
        pair = int(np.argmin(high - low))
        gap = float(high[pair] - low[pair])
        if not keeps(gap, least=least - SLACK_MM):
            word = "crosses" if gap < 0 else "is closer than the least gap"
            yield f"{where}: leaf pair {pair + 1} {word}: gap {gap:.2f} mm, least {least:g} mm."
        # Some systems park closed pairs behind a jaw, or let a jaw cut an aperture: a fault of our machine, not of all.
        if limits is not None:
            yield from _outside_jaws(read, devices, low, high, where)


def _outside_jaws(
    read: _Beam,
    devices: dict[str, NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    where: str,
) -> Iterator[str]:
    """A pair that the other jaws show must not open beyond the jaws along its travel."""
    along, across = ("X", "Y") if read.leaf_device == "MLCX" else ("Y", "X")
    jaws = next((devices[kind] for kind in (f"ASYM{along}", along) if kind in devices), None)
    if jaws is None or len(jaws) != 2 or read.boundary_mm is None:
        return
    shown = np.ones(len(low), dtype=np.bool_)
    sides = next((devices[kind] for kind in (f"ASYM{across}", across) if kind in devices), None)
    if sides is not None and len(sides) == 2:
        shown = (read.boundary_mm[1:] > sides[0]) & (read.boundary_mm[:-1] < sides[1])
    outside = breaks(low, least=jaws[0] - SLACK_MM) | breaks(high, most=jaws[1] + SLACK_MM)
    for pair in np.flatnonzero(outside & shown)[:1]:
        yield (
            f"{where}: the aperture of leaf pair {pair + 1}, {low[pair]:.2f} to {high[pair]:.2f} mm, "
            f"reaches outside the jaws at {jaws[0]:g} and {jaws[1]:g} mm."
        )


def _speeds(read: _Beam, meterset_mu: float, limits: MachineLimits) -> Iterator[str]:
    """Leaves, gantry and dose rate of each segment at the greatest speed that gantry and meterset allow."""
    steps = np.diff(read.gantry_deg)
    sense = np.asarray([{"CW": 1.0, "CC": -1.0}.get(turn, 0.0) for turn in read.turn[:-1]])
    turn = np.where(sense > 0, np.mod(steps, 360.0), np.where(sense < 0, np.mod(-steps, 360.0), 0.0))
    for k in np.flatnonzero((sense == 0) & breaks(np.abs(steps), most=SLACK_MM)):
        yield f"{read.name}, control point {k}: the gantry moves, but GantryRotationDirection is {read.turn[k]}."
    if read.weight[-1] <= 0:
        return
    mu = np.maximum(np.diff(read.weight), 0.0) / read.weight[-1] * meterset_mu
    slowest, fastest = limits.dose_rate_mu_min
    time = np.maximum(turn / limits.gantry_speed_deg_s, 60.0 * mu / fastest)
    # A gantry at rest waits for its leaves: only a turning one binds them.
    for k in np.flatnonzero((turn > 0) & (time > 0)):
        where = f"{read.name}, control point {k + 1}"
        if not keeps(turn[k] / time[k], least=limits.min_gantry_speed_deg_s * (1 - SLACK_RATE)):
            yield (
                f"{where}: {mu[k]:.2f} MU over {turn[k]:.2f}° need the gantry at {turn[k] / time[k]:.3f}°/s, "
                f"least {limits.min_gantry_speed_deg_s:g}°/s."
            )
        if not keeps(60.0 * mu[k] / time[k], least=slowest * (1 - SLACK_RATE)):
            yield f"{where}: the dose rate is {60.0 * mu[k] / time[k]:.2f} MU/min, least {slowest:g} MU/min."
        way = _way(read, int(k))
        if way.size and not keeps(way.max(), most=limits.leaf_speed_mm_s * time[k] + 2 * SLACK_MM):
            leaf = int(np.argmax(way))
            half = len(way) // 2
            yield (
                f"{where}: leaf {leaf % half + 1} of bank {1 + leaf // half} moves {way.max():.2f} mm in "
                f"{time[k]:.3f} s, {way.max() / time[k]:.1f} mm/s, at most {limits.leaf_speed_mm_s:g} mm/s."
            )


def _way(read: _Beam, k: int) -> NDArray[np.float64]:
    """How far each leaf moves in a segment in mm; empty where it can't be told."""
    if read.leaf_device is None:
        return np.empty(0)
    before, after = read.devices[k][read.leaf_device], read.devices[k + 1][read.leaf_device]
    return np.abs(after - before) if len(before) == len(after) else np.empty(0)
