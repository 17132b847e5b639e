"""Linear probes: a label predicted from features, by cross-validation.

If a probe can tell the label, so can a network, and it will. Near chance is good news.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from doseledger.core.errors import BadInput
from doseledger.core.limit import keeps
from doseledger.gates.limits import ProbeLimits
from doseledger.gates.verdict import Finding

Floats = NDArray[np.float64]
FOLDS = 5
# The folds are dealt anew so many times, as one deal of few images may be lucky.
DEALS = 3
PERMUTATIONS = 99
# A weak penalty on standardised features would fit noise of few images; a strong one still sees a plain shortcut.
INVERSE_PENALTY = 0.1
# By chance an AUC stays below a limit in 19 of 20 draws: one-sided 5 % of the normal distribution.
CHANCE_Z = 1.645
DIGITS = 4


@dataclass(frozen=True)
class ProbeScore:
    """How well a label can be told.

    Parameters
    ----------
    auc
        Cross-validated; 0.5 is chance. With several labels the mean of each one against the rest.
    p_value
        Share of so many dealings of the labels at random that do as well.
    n, n_independent
        Images, and groups of them that are independent of each other.
    n_needed
        How many independent ones it takes for an AUC below the limit to say anything.
    """

    auc: float
    p_value: float
    n: int
    n_independent: int
    n_needed: int


def judge_score(what: str, score: ProbeScore, limits: ProbeLimits) -> list[Finding]:
    """Return what a probe's score means; `what` was looked at, e.g. "the border"."""
    numbers = score_as_json(score)
    said = f"the label can be told from {what} alone: AUC {score.auc:.2f} on {score.n} (p {score.p_value:.2f})"
    findings = []
    if not keeps(score.auc, most=limits.red_auc):
        message = f"{said}, red above {limits.red_auc:g}; a network will use it, so mend the data"
        findings.append(Finding("probe", "", "error", message, numbers))
    elif not keeps(score.auc, most=limits.warn_auc):
        message = f"{said}, wanted at most {limits.warn_auc:g}; look at what differs there before anything is trained"
        findings.append(Finding("probe", "", "warning", message, numbers))
    if score.n_independent < score.n_needed:
        message = (
            f"{what}: {score.n_independent} independent images or cases say little; by chance alone an AUC may leave "
            f"{limits.warn_auc:g} behind, from {score.n_needed} on it seldom does"
        )
        findings.append(Finding("probe_small", "", "warning", message, numbers))
    return findings


def score_as_json(score: ProbeScore) -> dict[str, Any]:
    """Return a score as JSON values, rounded beyond what its folds can tell."""
    return {
        "auc": float(f"{score.auc:.{DIGITS}g}"),
        "p_value": float(f"{score.p_value:.{DIGITS}g}"),
        "n": score.n,
        "n_independent": score.n_independent,
        "n_needed": score.n_needed,
    }


def cross_validate(
    features: Floats, labels: NDArray[Any], groups: NDArray[Any] | None, limits: ProbeLimits, rng: np.random.Generator
) -> ProbeScore:
    """Return how well labels can be told from features by logistic regression, cross-validated.

    Parameters
    ----------
    features
        (n, feature), finite.
    labels
        (n,), two or more different ones.
    groups
        (n,) who belongs together: never on both sides of a fold. None where each stands alone.
    limits
        Of which the number needed is told.
    rng
        Deals the folds, and the labels for the p value.

    Raises
    ------
    BadInput
        If there are not two labels with at least two independent images each.

    Notes
    -----
    AUC from the pooled probabilities of all folds, mean of several deals. The p value deals labels at random, whole
    groups together where a group has one label (Ojala and Garriga, J Mach Learn Res 11:1833, 2010).
    """
    known, coded = np.unique(labels, return_inverse=True)
    members = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    least = min((len(np.unique(members[coded == label])) for label in range(len(known))), default=0)
    if len(known) < 2 or least < 2:
        raise BadInput(
            f"{len(known)} label(s), the rarest with {least} independent one(s); a probe needs two labels with two each"
        )
    folds = min(FOLDS, least)
    auc = float(np.mean([_auc(features, coded, members, folds, rng) for _ in range(DEALS)]))
    if math.isnan(auc):
        raise BadInput(
            "the groups can't be dealt so that every fold trains on every label; give more, or smaller, groups"
        )
    dealt = [_auc(features, _dealt(coded, members, rng), members, folds, rng) for _ in range(PERMUTATIONS)]
    # One deal has more spread than the mean of three, so this errs towards caution.
    as_good = sum(math.isnan(other) or other >= auc for other in dealt)
    n_independent = len(np.unique(members))
    return ProbeScore(
        auc=auc,
        p_value=(1 + as_good) / (1 + PERMUTATIONS),
        n=len(labels),
        n_independent=n_independent,
        n_needed=images_needed(limits.warn_auc, least / n_independent),
    )


def images_needed(auc: float, share: float) -> int:
    """Return how many images it takes for chance alone to stay below an AUC in 19 of 20 draws.

    Parameters
    ----------
    auc
        The limit, above 0.5.
    share
        Share of the rarer label.

    Notes
    -----
    The variance of the AUC of two like distributions is (n₁ + n₂ + 1) / (12 n₁ n₂): Mann and Whitney, Ann Math Stat
    18:50 (1947).

    Examples
    --------
    >>> images_needed(0.65, 0.5), images_needed(0.65, 0.1)
    (42, 113)
    """
    n = 4
    while CHANCE_Z * math.sqrt((n + 1) / (12.0 * share * (1.0 - share))) / n > auc - 0.5:
        n += 1
    return n


def _auc(
    features: Floats, coded: NDArray[np.intp], members: NDArray[Any], folds: int, rng: np.random.Generator
) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    n_labels = int(coded.max()) + 1
    told = np.full((len(coded), n_labels), math.nan)
    for train, test in dealer.split(features, coded, members):
        if len(np.unique(coded[train])) < n_labels:
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=500))
        with warnings.catch_warnings():
            # A probe that has not converged to the last digit is as good a probe.
            warnings.simplefilter("ignore")
            told[test] = probe.fit(features[train], coded[train]).predict_proba(features[test])
    asked = ~np.isnan(told[:, 0])
    if len(np.unique(coded[asked])) < n_labels:
        return math.nan
    if n_labels == 2:
        return float(roc_auc_score(coded[asked], told[asked, 1]))
    return float(roc_auc_score(coded[asked], told[asked], multi_class="ovr"))


def _dealt(coded: NDArray[np.intp], members: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return labels dealt at random; where each group has one label, whole groups are dealt."""
    first = np.zeros(int(members.max()) + 1, dtype=np.intp)
    first[members] = coded
    if np.array_equal(first[members], coded):
        return cast("NDArray[np.intp]", rng.permutation(first)[members])
    return rng.permutation(coded)
