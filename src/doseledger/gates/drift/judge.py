"""The drift gate: new cases against those that were trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.code import code_digest
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.limit import keeps
from doseledger.core.pool.cluster import Scale
from doseledger.core.project.layout import Layout
from doseledger.core.project.protocol import load_protocol
from doseledger.core.tables import SPLITS, read_table, rows_of_fold
from doseledger.core.types import Tell
from doseledger.dosimetry.intervals import holm
from doseledger.gates.drift.case_inputs import SHARE, tabulate_inputs
from doseledger.gates.drift.statistics import (
    LEAST_REFERENCE,
    LEAST_VALUES,
    ks_p_value,
    learn_reference,
    measure_distances,
    psi,
    psi_by_chance,
    psi_of_values,
)
from doseledger.gates.limits import DriftLimits, load_thresholds
from doseledger.gates.verdict import Finding, Severity, Verdict, make_verdict, without_explanations

# How large the image's PSI is by chance is found by drawing as many training cases as there are new ones, so often.
DRAWS = 500
DRAW_SEED = 20250701
# A range of HU that no voxel has counts as this share: 1 voxel in 10,000.
LEAST_SHARE = 1e-4
# What is chosen and not grown: another value of it is another protocol, whatever the rest looks like.
CHOSEN = re.compile(r"spacing_[zyx]_mm|.+_prescription_gy|n_fractions")
# Of these no split by chance can be the reason: a cohort has one protocol.
PRESCRIBED = re.compile(r".+_prescription_gy|n_fractions")
DIGITS = 4


def judge_drift(
    layout: Layout, *, new: Path | None = None, fold: int, repeat: int, scale: Scale, tell: Tell
) -> Verdict:
    """Return whether new cases are of the kind that was trained on.

    Parameters
    ----------
    layout
        The cohort that was trained on: its cases, who of them was trained on, protocol and limits.
    new
        Folder of new cases; None looks at the cohort's own test cases.

    Raises
    ------
    BadInput
        If a table, a case or the limits can't be read, or new cases are held against fewer than five training
        cases.
    BadCase
        If a training case is not the one that was trained on.
    """
    limits = load_thresholds(layout).drift
    reference, measured, digests, known = _tables(layout, new, fold=fold, repeat=repeat, scale=scale, tell=tell)
    features = compare_features(reference, measured, limits)
    image = compare_images(reference, measured, limits, np.random.default_rng(DRAW_SEED))
    if new is None and len(reference) < LEAST_REFERENCE:
        cases: list[dict[str, Any]] = []
        message = (
            f"{len(reference)} training cases tell nothing of how cases vary, wanted {LEAST_REFERENCE}; whether the "
            "test cases are like them was not judged"
        )
        findings = [Finding("drift_few_training", "", "warning", message)]
    else:
        cases = measure_distances(learn_reference(reference), measured)
        findings = [*judge_cases(cases, limits), *_judge_features(features, limits), *_judge_image(image)]
        if new is None and len(measured) < LEAST_VALUES:
            findings = [_told(finding) for finding in findings]
    for case_id in known:
        message = f"{case_id}: a training case, so it was left out; a batch of what is known drifts nowhere"
        findings.append(Finding("drift_known", case_id, "warning", message))
    if len(measured) < LEAST_VALUES:
        what = "each was judged by itself" if new is not None else "what was found of them is told, and fails nothing"
        message = f"{len(measured)} new cases are too few for their features to be compared; {what}"
        findings.append(Finding("drift_few", "", "warning", message))
    details = {
        "cohort": layout.cohort,
        "n_reference": len(reference),
        "n_new": len(measured),
        "cases": cases,
        "features": features,
        "image": image,
        "limits": limits.model_dump(mode="json"),
    }
    trained = [str(name) for name in reference.index]
    digest = _digest(layout, limits, trained, digests)
    return make_verdict("drift", digest, findings, _rounded(details))


def compare_features(reference: pd.DataFrame, new: pd.DataFrame, limits: DriftLimits) -> list[dict[str, Any]]:
    """Return each feature's KS test and PSI between the training cohort and the new cases, by feature.

    Returns
    -------
    list of dict
        `feature`, medians as `reference` and `new`, `ks_p` and `ks_p_adjusted` (Holm), `psi` and the `psi_limit` that
        holds for so few cases. NaN where a side has fewer than five values.
    """
    rows: list[dict[str, Any]] = []
    for name in reference.columns:
        known, found = (table[name].dropna().to_numpy(dtype=np.float64) for table in (reference, new))
        value, n_bins = psi_of_values(known, found)
        by_chance = (
            psi_by_chance(len(known), len(found), n_bins, limits.alpha / len(reference.columns)) if n_bins > 1 else 0.0
        )
        rows.append(
            {
                "feature": str(name),
                "reference": float(np.median(known)) if len(known) else math.nan,
                "new": float(np.median(found)) if len(found) else math.nan,
                "ks_p": ks_p_value(known, found),
                "psi": value,
                "psi_limit": max(limits.psi, by_chance),
            }
        )
    adjusted = holm([row["ks_p"] for row in rows])
    return [row | {"ks_p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]


def compare_images(
    reference: pd.DataFrame, new: pd.DataFrame, limits: DriftLimits, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the PSI of the bodies' HU histogram, each case counting alike, and what chance and the limit allow.

    Parameters
    ----------
    reference, new
        A row per case with its `hu_share_…`.
    limits
        Of the PSI, and the rate of false alarms.
    rng
        Draws batches of training cases.
    """
    columns = [name for name in reference.columns if SHARE.match(str(name))]
    known, found = (table[columns].to_numpy(dtype=np.float64) for table in (reference, new))
    draws = [
        psi(_mean_shares(known), _mean_shares(known[rng.integers(0, len(known), size=len(found))]))
        for _ in range(DRAWS)
    ]
    return {
        "psi": psi(_mean_shares(known), _mean_shares(found)),
        "limit": max(limits.hu_psi, float(np.quantile(draws, 1.0 - limits.alpha))),
        "unit": "HU" if columns and str(columns[0]).startswith("hu_") else "values",
        "ranges": [SHARE.sub("", str(name)) for name in columns],
        "reference_share": [float(share) for share in _mean_shares(known)],
        "new_share": [float(share) for share in _mean_shares(found)],
    }


def _mean_shares(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.maximum(shares.mean(axis=0), LEAST_SHARE)
    result: NDArray[np.float64] = mean / mean.sum()
    return result


def judge_cases(cases: list[dict[str, Any]], limits: DriftLimits) -> list[Finding]:
    """Return what is wrong with each new case by itself; `cases` are of `measure_distances`."""
    findings = []
    for case in cases:
        case_id, ratio = case["case_id"], case["ratio"]
        off = ", ".join(f"{name} by {by:+.1f} spreads" for name, by in case["features"].items())
        numbers = {"distance": case["distance"], "ratio": ratio}
        for name, value in case["changed"].items():
            message = f"{case_id}: {name} is {value:g}; all training cases had one and the same other value"
            severity: Severity = "error" if CHOSEN.fullmatch(name) else "warning"
            findings.append(Finding("drift_changed", case_id, severity, message, {"feature": name, "value": value}))
        for name in case["missing"]:
            message = f"{case_id}: there is no {name}, which every training case has; ingest it again"
            findings.append(Finding("drift_missing", case_id, "error", message, {"feature": name}))
        if not keeps(ratio, most=limits.far_ratio):
            message = (
                f"{case_id}: {ratio:.2f} times as far from the training cases as the farthest of them ({off}); don't "
                "trust a prediction of it"
            )
            findings.append(Finding("drift_far", case_id, "error", message, numbers))
        elif not keeps(ratio, most=1.0):
            message = (
                f"{case_id}: farther from the training cases ({ratio:.2f} times) than any of them ({off}); look at it"
            )
            findings.append(Finding("drift_far", case_id, "warning", message, numbers))
    return findings


def _told(finding: Finding) -> Finding:
    """A finding on so few test cases that chance may have dealt them: somebody is the farthest of any cohort."""
    is_prescribed = PRESCRIBED.fullmatch(str(finding.numbers.get("feature")))
    return finding if is_prescribed else replace(finding, severity="warning")


def _judge_features(features: list[dict[str, Any]], limits: DriftLimits) -> list[Finding]:
    findings = []
    for row in features:
        moved = f"median {row['reference']:.4g} in training, {row['new']:.4g} now"
        # NaN stands where a side has too few cases to be compared: a warning of its own says so.
        if not math.isnan(row["ks_p_adjusted"]) and not keeps(row["ks_p_adjusted"], least=limits.alpha):
            message = (
                f"{row['feature']} is distributed otherwise than in training ({moved}; KS, p "
                f"{row['ks_p_adjusted']:.2g} after Holm, wanted {limits.alpha:g} at least)"
            )
            findings.append(Finding("drift_feature", "", "error", message, {"feature": row["feature"]}))
        if not math.isnan(row["psi"]) and not keeps(row["psi"], most=row["psi_limit"]):
            message = f"{row['feature']} has shifted ({moved}; PSI {row['psi']:.2f}, at most {row['psi_limit']:.2f})"
            findings.append(Finding("drift_psi", "", "warning", message, {"feature": row["feature"]}))
    return findings


def _judge_image(image: Mapping[str, Any]) -> list[Finding]:
    if keeps(image["psi"], most=image["limit"]):
        return []
    message = (
        f"the images' {image['unit']} are distributed otherwise than in training: PSI {image['psi']:.2f}, wanted at "
        f"most {image['limit']:.2f}; look at the scanner, its calibration and the contrast agent"
    )
    return [Finding("drift_image", "", "error", message, {"psi": image["psi"], "limit": image["limit"]})]


def _tables(
    layout: Layout, new: Path | None, *, fold: int, repeat: int, scale: Scale, tell: Tell
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str], list[str]]:
    """Return the features of the training cases and of the new ones, the new ones' SHA256, and who was trained on."""
    protocol = load_protocol(layout.protocol)
    mine = rows_of_fold(read_table(layout.splits, SPLITS), fold, repeat)
    train = mine[mine["split"] == "train"]
    trained = dict(zip(train["case_id"], train["sha256"], strict=True))
    for case_id, sha256 in trained.items():
        path = layout.cases / f"{case_id}.npz"
        if not path.is_file() or sha256_of_file(path) != sha256:
            raise BadCase(case_id, f"{path.name} is absent or not the one in the splits; run ingest and split again")
    if new is None:
        folder, wanted = layout.cases, sorted(mine.loc[mine["split"] == "test", "case_id"])
    else:
        folder, wanted = new, sorted(path.stem for path in new.glob("*.npz"))
    if not wanted:
        raise BadInput(f"{folder}: no {'test' if new is None else 'new'} case to look at")
    found = {str(name): _digest_of(folder / f"{name}.npz") for name in wanted}
    seen = set(trained.values())
    digests = {name: digest for name, digest in found.items() if digest not in seen}
    reference = tabulate_inputs(layout.cases, trained, protocol, scale=scale, tell=tell)
    measured = tabulate_inputs(folder, list(digests), protocol, scale=scale, tell=tell)
    return reference, measured, digests, [name for name in found if name not in digests]


def _digest_of(path: Path) -> str:
    if not path.is_file():
        raise BadCase(path.stem, f"no {path.name} among the new cases; ingest it")
    return sha256_of_file(path)


def _digest(layout: Layout, limits: DriftLimits, trained: list[str], new: dict[str, str]) -> str:
    return sha256_of_json(
        {
            "splits": sha256_of_file(layout.splits),
            # The table of splits holds every fold: of which one the training cases are stands here.
            "trained": sorted(trained),
            "new": new,
            "protocol": without_explanations(load_protocol(layout.protocol).model_dump(mode="json")),
            "limits": without_explanations(limits.model_dump(mode="json")),
            "code": code_digest(__name__),
        }
    )


def _rounded(value: Any) -> Any:
    """Return JSON values with each number at four digits: the last ones are the machine's."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
