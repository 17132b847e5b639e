"""Origin and date of a case, if its inputs give them away.

A site, a scanner or the order of cases that shows in the inputs is a shortcut in waiting: as soon as it goes with the
outcome, a network will use it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doseledger.core.case import read_meta
from doseledger.core.code import code_digest
from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.pool.cluster import Scale
from doseledger.core.project.protocol import Protocol
from doseledger.core.tables import CASES, read_table
from doseledger.core.types import Tell
from doseledger.gates.drift.case_inputs import tabulate_inputs
from doseledger.gates.drift.probes import cross_validate, judge_score, score_as_json
from doseledger.gates.limits import ProbeLimits
from doseledger.gates.verdict import Finding, Verdict, make_verdict, without_explanations

# Names of the case itself, of its bytes, or of the program that converted it: no property of a scanner or a site.
NAMES = frozenset({"case_id", "pseudonym", "source_sha256", "protocol", "converter_version"})
# A label that fewer patients have can't be learned from them, whatever the probe says.
LEAST_PATIENTS = 5
ORDER = "order"


def judge_metadata(
    cases_dir: Path, protocol: Protocol, limits: ProbeLimits, rng: np.random.Generator, *, scale: Scale, tell: Tell
) -> Verdict:
    """Return which labels of a cohort's cases can be told from their inputs.

    Parameters
    ----------
    cases_dir
        Folder of cases with `cases.csv`.
    limits
        From which AUC on to warn and to fail.
    rng
        Deals the folds.

    Raises
    ------
    BadInput
        If there are no cases, or one can't be read.
    """
    cases = read_table(cases_dir / "cases.csv", CASES)
    table = tabulate_inputs(cases_dir, cases["case_id"], protocol, scale=scale, tell=tell)
    labels = read_labels(cases_dir, list(table.index))
    features = table.loc[:, table.notna().all() & (table.nunique() > 1)].to_numpy(dtype=np.float64)
    if not features.shape[1]:
        raise BadInput(f"{cases_dir}: all cases have the same inputs; there is nothing to tell anything from")
    # A patient with several cases stays on one side of a fold.
    patients = cases.set_index("case_id").loc[table.index, "pseudonym"].to_numpy()
    findings: list[Finding] = []
    told: dict[str, Any] = {}
    for name, values in labels.items():
        kept = _frequent(values, patients)
        counts = {str(label): int((values[kept] == label).sum()) for label in np.unique(values[kept])}
        findings += _judge_left_out(name, values, kept)
        if len(counts) < 2:
            told[name] = {"labels": counts, "auc": None}
            continue
        score = cross_validate(features[kept], values[kept], patients[kept], limits, rng)
        told[name] = {"labels": counts, **score_as_json(score)}
        findings += judge_score(f"the inputs ({name})", score, limits)
    digest = sha256_of_json(
        {
            "cases": sha256_of_file(cases_dir / "cases.csv"),
            "protocol": without_explanations(protocol.model_dump(mode="json")),
            "limits": without_explanations(limits.model_dump(mode="json")),
            "code": code_digest(__name__),
        }
    )
    details = {"labels": told, "n_cases": len(table), "limits": limits.model_dump(mode="json")}
    return make_verdict("metadata", digest, findings, details)


def read_labels(cases_dir: Path, case_ids: list[str]) -> dict[str, NDArray[Any]]:
    """Return by name what the cases' meta says of where they come from, (case,) as text, and their order in halves.

    Whatever plain value the meta holds counts, `scanner`, `plan` and grids included. Values that are one and the same,
    or different in each case, are no labels and are left out.
    """
    rows = pd.DataFrame([_plain(read_meta(cases_dir / f"{case_id}.npz")) for case_id in case_ids], index=case_ids)
    labels: dict[str, NDArray[Any]] = {}
    for name in sorted(rows.columns):
        values = rows[name].fillna("absent").astype(str).to_numpy(dtype=np.str_)
        if name not in NAMES and 1 < len(np.unique(values)) < len(values):
            labels[str(name)] = values
    # In order of name, which is the order of arrival where cases are numbered.
    rank = np.argsort(np.argsort(np.asarray(case_ids)))
    labels[ORDER] = np.where(rank < len(case_ids) / 2, "first half", "second half")
    return labels


def _plain(meta: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in meta.items():
        if isinstance(value, (str, bool, int)):
            found[name] = str(value)
        elif name == "native_image_grid":
            # The scanner's matrix and voxel size; where the patient lay is his own.
            found["native_spacing_mm"] = json.dumps(value.get("spacing_mm"))
            found["native_shape_yx"] = json.dumps((value.get("shape_zyx") or [])[1:])
        elif name in ("plan", "scanner") and isinstance(value, dict):
            found |= {f"{name}_{key}": str(item) for key, item in value.items() if isinstance(item, str)}
    return found


def _frequent(values: NDArray[Any], patients: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whose label enough independent patients have, (case,)."""
    independent = pd.Series(patients).groupby(values).nunique()
    return np.isin(values, independent.index[independent >= LEAST_PATIENTS].to_numpy(dtype=np.str_))


def _judge_left_out(name: str, values: NDArray[Any], kept: NDArray[np.bool_]) -> list[Finding]:
    """Return what a probe is not asked, where a label has too few patients: nobody may take that for a pass."""
    left = sorted(set(values[~kept].tolist()))
    if len(set(values[kept].tolist())) < 2:
        message = (
            f"the inputs ({name}): too few patients a label to be probed, wanted {LEAST_PATIENTS} with each of two"
        )
    elif left:
        message = (
            f"the inputs ({name}): too few patients of {', '.join(left)} to be probed, wanted {LEAST_PATIENTS} each; "
            "the other labels were"
        )
    else:
        return []
    return [Finding("probe_unasked", "", "warning", message, {"label": name, "left_out": left})]
