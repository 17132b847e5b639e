"""Standing of a judged model: passed, provisional or failed, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from doseledger.core.text.sheet import format_number, plural
from doseledger.core.text.words import GAMMA, in_words, spell_metric

if TYPE_CHECKING:
    from doseledger.gates.limits import BadgeLimits

State = Literal["passed", "provisional", "failed"]
# Warnings about what a model learned, and about what nobody could judge: with one of them a badge is not green.
LEARNING = frozenset({"train_val_gap", "loss_vanishes", "diverges", "score_implausible", "trivial_model", "ablation"})
UNJUDGED = frozenset({"training_unseen", "gamma_unverified", "drift_few", "drift_few_training"})
# Blocks of limits that a model is judged by: they must have been measured on its own cohort.
JUDGED_BY = ("training", "metrics", "shortcuts", "drift")
BADGES: dict[State, str] = {
    "passed": "ALL GATES PASSED",
    "provisional": "PROVISIONAL",
    "failed": "NOT FIT FOR RELEASE",
}
# Colours of a badge.
BADGE_STATES: dict[State, Literal["good", "warn", "bad"]] = {"passed": "good", "provisional": "warn", "failed": "bad"}


@dataclass(frozen=True)
class Standing:
    """What a model's badge says, the sentence that comes first, and the reasons for the badge."""

    state: State
    sentence: str
    reasons: tuple[str, ...]

    @property
    def badge(self) -> str:
        """The words on the badge."""
        return BADGES[self.state]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "reasons": list(self.reasons)}


def read_standing(findings: Mapping[str, Any]) -> Standing | None:
    """Return the standing that the findings of a model's verdict hold; None where there is none."""
    details = findings.get("details")
    told = details.get("standing") if isinstance(details, dict) else None
    if not isinstance(told, dict) or told.get("state") not in list(BADGES) or not isinstance(told.get("reasons"), list):
        return None
    return Standing(told["state"], str(told.get("sentence", "")), tuple(map(str, told["reasons"])))


def standing_of_run(findings: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> Standing:
    """Return the standing of a model where the verdicts of other gates count too.

    Parameters
    ----------
    others
        Verdicts of the gates before it, on data and machine, as JSON values.
    """
    known = read_standing(findings) or Standing(
        "failed", tell_results({}), ("judged by an older version; judge again",)
    )
    failed = [_failure(other["gate"], other) for other in others if not other["ok"]]
    if not failed:
        return known
    return Standing("failed", known.sentence, (*failed, *(known.reasons if known.state == "failed" else ())))


def find_standing(
    parts: Mapping[str, Mapping[str, Any]], badge: BadgeLimits | None, borrowed: Mapping[str, str]
) -> Standing:
    """Return what becomes of a model by the verdicts on it.

    Parameters
    ----------
    parts
        Verdicts on its metrics, shortcuts and drift as JSON values.
    badge
        From how many test cases on a badge can be green; None where the limits can't be read.
    borrowed
        Cohort by block of limits, of the blocks that another cohort's file holds.
    """
    sentence = tell_results(parts["metrics"]["details"])
    failed = [name for name, part in parts.items() if not part["ok"]]
    if failed:
        return Standing("failed", sentence, tuple(_failure(name, parts[name]) for name in failed))
    reasons = list(_provisional(parts, badge, borrowed))
    return Standing("provisional" if reasons else "passed", sentence, tuple(reasons))


def tell_results(details: Mapping[str, Any]) -> str:
    """Return the results of a model as one sentence, by the details of the metrics gate.

    Examples
    --------
    >>> tell_results({"n_cases": 1, "told": {"mae_body_gy": 1.11}})
    'On 1 test case the prediction differs from the plan by 1.1 Gy in the body.'
    """
    numbers = details.get("told", {})
    needed = {item["metric"]: item["wanted"] for item in details.get("candidate", [])}
    if numbers.get("dice") is not None:
        return _tell_overlap(int(details["n_cases"]), numbers, needed)
    if numbers.get("mae_body_gy") is None:
        return "How far the prediction is from the reference is not known: its metrics could not be judged."
    found = (
        f"On {plural(int(details['n_cases']), 'test case')} the prediction differs from the plan by "
        f"{format_number(numbers['mae_body_gy'], 1)} Gy in the body"
    )
    gammas = [name for name, value in numbers.items() if value is not None and GAMMA.fullmatch(name)]
    # The one that a candidate is held to comes first, else the first by name.
    for name in sorted(gammas, key=lambda name: (name not in needed, name))[:1]:
        found += f"; {format_number(numbers[name], 1)} % of points pass gamma {_spell_gamma(name)}"
        if name in needed:
            found += f", a candidate needs {needed[name].split()[-1]} %"
    return f"{found}."


def _tell_overlap(n_cases: int, numbers: Mapping[str, Any], needed: Mapping[str, str]) -> str:
    found = f"On {plural(n_cases, 'test case')} the mean Dice is {format_number(numbers['dice'], 3)}"
    if "dice" in needed:
        found += f", a candidate needs {needed['dice'].split()[-1]}"
    if numbers.get("hd95_mm") is not None:
        found += f"; the 95 % Hausdorff distance is {format_number(numbers['hd95_mm'], 1)} mm"
    return f"{found}."


def _spell_gamma(column: str) -> str:
    found = GAMMA.fullmatch(column)
    if found is None:
        return column
    return f"{found['percent']} %/{found['mm']} mm{', local' if found['kind'] == 'local' else ''}"


def _failure(name: str, part: Mapping[str, Any]) -> str:
    errors = [finding["message"] for finding in part.get("findings", []) if finding["severity"] == "error"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"the {name} gate failed: {in_words(errors[0]) if errors else 'its findings say no more'}{more}"


def _provisional(
    parts: Mapping[str, Mapping[str, Any]], badge: BadgeLimits | None, borrowed: Mapping[str, str]
) -> Iterable[str]:
    n_cases = int(parts["metrics"]["details"]["n_cases"])
    if badge is None or n_cases < badge.least_test_cases:
        wanted = badge.least_test_cases if badge else "a number that thresholds.yaml names"
        yield (
            f"{plural(n_cases, 'test case')}, wanted {wanted}: a mean over so few is uncertain, and a rare failure "
            "need not show"
        )
    others: dict[str, list[str]] = {}
    for block in JUDGED_BY:
        if block in borrowed:
            others.setdefault(borrowed[block], []).append(block)
    for cohort, blocks in others.items():
        yield (
            f"limits of {', '.join(blocks)} are those of the cohort {cohort}, and were not measured on this one; "
            "measure them and write them into its thresholds.yaml"
        )
    limits = [
        limit for part in ("metrics", "shortcuts") for limit in parts[part]["details"]["limits"] if limit["provisional"]
    ]
    if limits:
        names = ", ".join(dict.fromkeys(spell_metric(limit["metric"]) for limit in limits))
        yield f"limits without a measured source: {names}"
    findings = [finding for part in parts.values() for finding in part["findings"]]
    for kinds, words in ((LEARNING, "about learning"), (UNJUDGED, "about what could not be judged")):
        # Without the source of the limit, which the table of limits holds.
        told = [in_words(finding["message"].partition(" (")[0]) for finding in findings if finding["gate"] in kinds]
        if told:
            yield f"{plural(len(told), 'warning')} {words}: {'; '.join(told)}"
