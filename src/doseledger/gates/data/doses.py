"""The dose of a case: in Gy, as prescribed, unmoved by resampling."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import Case
from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.core.project.protocol import Protocol
from doseledger.gates.data.validity import judge_valid_dose
from doseledger.gates.limits import DataLimits, DoseUnitLimits, ParityLimits
from doseledger.gates.verdict import Finding

# DS values of a plan carry at least this precision; a prescription that differs by more is another one.
SAME_DOSE_GY = 0.05


def judge_dose(case: Case, protocol: Protocol, limits: DataLimits) -> list[Finding]:
    """Return what is wrong with the dose, the prescription and the fractions of a case.

    Parameters
    ----------
    protocol
        Whether there must be a dose, and what is prescribed.
    limits
        Of the unit and of parity with the native dose grid.

    Notes
    -----
    Whether a dose looks like a healthy plan (maximum, coverage, hot spots) stands in the suite of expectations.
    """
    if not protocol.has_dose:
        return []
    dose = case.dose_gy
    if dose is None:
        message = f"{case.case_id}: there is no dose, and protocol {protocol.name} asks for one; export the RTDOSE"
        return [Finding("missing_dose", case.case_id, "error", message)]
    findings = _judge_prescription(case, protocol)
    bad = int(dose.size - np.isfinite(dose).sum())
    if bad:
        first = [int(i) for i in np.unravel_index(int(np.argmin(np.isfinite(dose))), dose.shape)]
        message = (
            f"{case.case_id}: the dose has {bad} NaN or infinite voxel(s), the first at (z, y, x) = {first}; wanted "
            "none. Export the dose again"
        )
        return [*findings, Finding("nan", case.case_id, "error", message, {"voxels": bad, "first": first})]
    if limits.dose_unit is not None:
        unit = _judge_unit(case, protocol, dose, limits.dose_unit)
        if unit:
            return findings + unit
    if limits.valid_dose is None:
        raise BadInput(f"thresholds: data.valid_dose is null, and protocol {protocol.name} has a dose; set its limits")
    if case.body.any():
        valid = judge_valid_dose(case, dose, protocol, limits.valid_dose)
        if not case.valid_dose.any():
            # Nothing could be compared: one error says it all.
            return findings + valid
        findings += valid
    # On the image's own grid too the dose was resampled. Where nothing was (OpenKBP), the limits say so: parity null.
    if limits.parity is not None:
        findings += _judge_parity(case, protocol, dose, limits.parity)
    return findings


def _judge_prescription(case: Case, protocol: Protocol) -> list[Finding]:
    findings = []
    for name in protocol.prescription_gy:
        wanted, found = protocol.prescription_gy[name], case.prescription_gy.get(name)
        present = name in case.present_names
        if found is None and present:
            what = f"{name} is there, but has no prescribed dose"
        elif found is not None and not keeps(abs(found - wanted), most=SAME_DOSE_GY):
            what = f"{name} is prescribed {found:g} Gy"
        else:
            continue
        message = (
            f"{case.case_id}: {what}; protocol {protocol.name} wants {wanted:g} Gy. Check the RTPLAN: is this plan of "
            "another protocol, or a boost alone?"
        )
        numbers = {"structure": name, "found_gy": found, "wanted_gy": wanted}
        findings.append(Finding("prescription", case.case_id, "error", message, numbers))
    strangers = sorted(set(case.prescription_gy) - set(protocol.prescription_gy))
    if strangers:
        message = f"{case.case_id}: dose is prescribed to {', '.join(strangers)}, which {protocol.name} does not know"
        findings.append(Finding("prescription", case.case_id, "error", message, {"structures": strangers}))
    if protocol.n_fractions is not None and case.n_fractions != protocol.n_fractions:
        message = (
            f"{case.case_id}: {case.n_fractions} fractions are planned, protocol {protocol.name} wants "
            f"{protocol.n_fractions}; check the RTPLAN's fraction groups"
        )
        numbers = {"found": case.n_fractions, "wanted": protocol.n_fractions}
        findings.append(Finding("n_fractions", case.case_id, "error", message, numbers))
    return findings


def _judge_unit(case: Case, protocol: Protocol, dose: NDArray[np.float32], limits: DoseUnitLimits) -> list[Finding]:
    highest = max(protocol.prescription_gy.values())
    least, most = float(dose.min()), float(dose.max())
    numbers = {"min_gy": least, "max_gy": most, "prescription_gy": highest}
    if not keeps(least, least=-limits.negative_gy):
        message = f"{case.case_id}: the dose falls to {least:.2f} Gy; wanted none below 0. Check DoseGridScaling"
        return [Finding("dose_negative", case.case_id, "error", message, numbers)]
    low, high = limits.low_factor * highest, limits.high_factor * highest
    if keeps(most, least=low, most=high):
        return []
    if most > high:
        hint = "it looks like cGy: divide by 100" if most > 50.0 * highest else "check DoseUnits and DoseGridScaling"
    else:
        fractions = protocol.n_fractions or case.n_fractions or 1
        per_fraction = abs(most * fractions / highest - 1.0) < 0.3 and fractions > 1
        hint = "it looks like the dose of one fraction" if per_fraction else "it looks normalised, or of one beam only"
    message = f"{case.case_id}: the maximum dose is {most:.4g} where {highest:g} Gy are prescribed; {hint}"
    return [Finding("dose_unit", case.case_id, "error", message, numbers)]


def _judge_parity(case: Case, protocol: Protocol, dose: NDArray[np.float32], limits: ParityLimits) -> list[Finding]:
    native = case.meta.get("parity")
    findings: list[Finding] = []
    compared = 0
    for name in case.present_names:
        # Beyond the native dose grid there was no dose to resample: what a case holds there is no part of parity.
        mask, before = case.mask(name) & case.valid_dose, native.get(name) if isinstance(native, dict) else None
        if not mask.any() and isinstance(before, dict) and before.get("points") == 0:
            continue
        compared += 1
        if not mask.any():
            message = (
                f"{case.case_id}: no dose is defined (valid_dose) in any voxel of {name}, and ingest noted that there "
                "was one, so nobody can tell what resampling did to it; ingest it again"
            )
            findings.append(Finding("parity_unknown", case.case_id, "error", message, {"structure": name}))
            continue
        is_target = protocol.structure(name).kind == "target"
        statistic, limit = ("D95%", limits.target_d95_gy) if is_target else ("mean", limits.organ_mean_gy)
        if not isinstance(before, dict) or not _is_number(before.get(statistic)):
            message = (
                f"{case.case_id}: no {statistic} of {name} on the native dose grid in the case's meta, so nobody can "
                "tell what resampling did to it; ingest it again"
            )
            findings.append(Finding("parity_unknown", case.case_id, "error", message, {"structure": name}))
            continue
        inside = dose[mask]
        # D95% is the least dose of the hottest 95 %: the 5th percentile (ICRU 83).
        now = float(np.percentile(inside, 5.0)) if is_target else float(inside.mean(dtype=np.float64))
        was = float(before[statistic])
        if not keeps(abs(now - was), most=limit):
            message = (
                f"{case.case_id}: resampling moved {statistic} of {name} from {was:.2f} to {now:.2f} Gy, by more than "
                f"{limit:g} Gy; check the case's spacing and the registration of dose and contours"
            )
            numbers = {"structure": name, "statistic": statistic, "native_gy": was, "case_gy": now, "limit_gy": limit}
            findings.append(Finding("parity", case.case_id, "error", message, numbers))
        findings += _judge_volume(case, name, before.get("volume_cc"), limits)
    if not compared:
        message = f"{case.case_id}: not one structure could be compared with the native dose grid; ingest it again"
        findings.append(Finding("parity_unknown", case.case_id, "error", message))
    return findings


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _judge_volume(case: Case, name: str, was_cc: object, limits: ParityLimits) -> list[Finding]:
    now_cc = float(case.mask(name).sum()) * case.grid.voxel_volume_cc
    if not isinstance(was_cc, (int, float)) or not math.isfinite(was_cc):
        message = f"{case.case_id}: no volume of {name} on the native grid in the case's meta; ingest it again"
        return [Finding("parity_unknown", case.case_id, "error", message, {"structure": name})]
    if max(was_cc, now_cc) < limits.min_volume_cc:
        return []
    moved = 100.0 * abs(now_cc - was_cc) / max(was_cc, 1e-9)
    if keeps(moved, most=limits.volume_percent):
        return []
    message = (
        f"{case.case_id}: {name} has {now_cc:.1f} cc on the case's grid and {was_cc:.1f} cc on the native one, "
        f"{moved:.0f} % apart, wanted at most {limits.volume_percent:g} %; check contours and spacing"
    )
    numbers = {"structure": name, "native_cc": was_cc, "case_cc": now_cc, "limit_percent": limits.volume_percent}
    return [Finding("parity", case.case_id, "error", message, numbers)]
