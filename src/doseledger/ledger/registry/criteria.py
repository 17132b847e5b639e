"""Exit criteria of a stage of the registry, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.core.limit import keeps, meets
from doseledger.core.schema import Block, Reason, load_block
from doseledger.gates.limits import MetricLimit
from doseledger.ledger.registry.tag import Version

# A stage's name stands in its tag, and is read from there by version_tag.STAGE_TAG.
Stage = Annotated[str, Field(pattern=r"^[a-z]+$")]


class Criterion(Block):
    """One thing that a version must show.

    `limit`, `metric` and `names` are what its check needs: no more, no fewer.
    """

    check: str
    limit: float | None = None
    metric: str | None = None
    names: Annotated[list[str], Field(min_length=1)] | None = None
    source: Reason


class Reproduction(Block):
    """How far a prediction made again may be from the recorded one, in Gy, on another machine or number of threads."""

    max_difference_gy: Annotated[float, Field(gt=0)]
    source: Reason


class ExitCriteria(Block):
    """All of exit_criteria.yaml: stages in the order in which a version can be given them."""

    reproduction: Reproduction
    phases: dict[Stage, Annotated[list[Criterion], Field(min_length=1)]]


@dataclass(frozen=True)
class Evidence:
    """What a version's criteria are checked on.

    Parameters
    ----------
    version
        The version, with what its tag recorded.
    baseline
        The version that it is compared with; None where none was named.
    target
        What a candidate must reach, of thresholds.yaml.
    reproduction
        How far a prediction made again may be from the recorded one.
    signatures
        Entries of the audit log that sign this version off.
    log_findings
        What is wrong with the audit log, in words.
    """

    version: Version
    baseline: Version | None
    target: list[MetricLimit]
    reproduction: Reproduction
    signatures: list[dict[str, Any]]
    log_findings: list[str]


@dataclass(frozen=True)
class CriterionResult:
    """A criterion, and what is missing; empty where it is met."""

    criterion: Criterion
    missing: str


Check = Callable[[Evidence, Criterion], str]


def load_criteria(path: Path) -> ExitCriteria:
    """Return exit_criteria.yaml.

    Raises
    ------
    BadInput
        If it is malformed, a criterion names a check that no code makes, or gives it more or less than it needs.
    """
    criteria = load_block(ExitCriteria, read_yaml(path), str(path))
    for phase, listed in criteria.phases.items():
        for criterion in listed:
            _refuse_unknown(criterion, f"{path}: phases.{phase}")
    return criteria


def _refuse_unknown(criterion: Criterion, where: str) -> None:
    if criterion.check not in CHECKS:
        raise BadInput(f"{where}: no check {criterion.check!r}; there are {', '.join(sorted(CHECKS))}")
    given = {name for name in ("limit", "metric", "names") if getattr(criterion, name) is not None}
    needed = CHECKS[criterion.check][1]
    if given != needed:
        raise BadInput(
            f"{where}: {criterion.check} was given {', '.join(sorted(given)) or 'nothing'}, "
            f"wanted {', '.join(sorted(needed)) or 'nothing'} besides its source"
        )


def judge_phase(criteria: ExitCriteria, phase: str, evidence: Evidence) -> list[CriterionResult]:
    """Return each criterion of a phase with what is missing to meet it.

    Raises
    ------
    BadInput
        If there is no such phase.
    """
    if phase not in criteria.phases:
        raise BadInput(f"no stage {phase!r} in the exit criteria; there are {', '.join(criteria.phases)}")
    return [
        CriterionResult(criterion, CHECKS[criterion.check][0](evidence, criterion))
        for criterion in criteria.phases[phase]
    ]


def _gates_passed(evidence: Evidence, criterion: Criterion) -> str:
    """The version's tag records a passing verdict of each."""
    verdicts = evidence.version.record["verdicts"]
    bad = [name for name in criterion.names or [] if not verdicts.get(name, {}).get("ok")]
    return (
        f"the gates {', '.join(bad)} did not pass, or did not judge it; mend the run and register it anew"
        if bad
        else ""
    )


def _clinical_target(evidence: Evidence, criterion: Criterion) -> str:
    """Every limit of `candidate` in the cohort's thresholds.yaml is met."""
    del criterion
    summary = evidence.version.record["metrics"]["summary"]
    missed = []
    for limit in evidence.target:
        value = summary.get(limit.metric)
        if value is None or not meets(value, limit.operator, limit.limit):
            found = "not measured" if value is None else f"{value:.4g}"
            missed.append(f"{limit.metric} is {found}, wanted {limit.operator} {limit.limit:g} ({limit.source})")
    return f"{'; '.join(missed)}: train a better model, and register that" if missed else ""


def _test_cases(evidence: Evidence, criterion: Criterion) -> str:
    """It was tested on at least so many cases."""
    n, wanted = evidence.version.record["test_set"]["cases"], int(criterion.limit or 0)
    return (
        f"tested on {n} cases, wanted at least {wanted}; lock a larger test set and evaluate on it"
        if n < wanted
        else ""
    )


def _test_set_locked(evidence: Evidence, criterion: Criterion) -> str:
    """Every test case was locked by digest; models of synthetic patients never are."""
    del criterion
    test_set = evidence.version.record["test_set"]
    if test_set["locked_by_digest"] == test_set["cases"]:
        return ""
    return (
        f"{test_set['locked_by_digest']} of its {test_set['cases']} test cases were locked by digest; "
        "`doseledger test-set lock` without --by-name, evaluate and register anew"
    )


def _reproduced(evidence: Evidence, criterion: Criterion) -> str:
    """The case predicted again at registration differed by no more than `reproduction`."""
    del criterion
    made, allowed = evidence.version.record["reproduced"], evidence.reproduction.max_difference_gy
    if keeps(made["max_difference_gy"], most=allowed):
        return ""
    return (
        f"{made['case']} predicted again differed by {made['max_difference_gy']:.3g} Gy, wanted at most {allowed:g}; "
        "predict on the machine that registers, and register anew"
    )


def _better_than_baseline(evidence: Evidence, criterion: Criterion) -> str:
    """It is lower than that of `--baseline MODEL@VERSION`, tested on the very same cases, by the limit."""
    metric, wanted = str(criterion.metric), float(criterion.limit or 0.0)
    if evidence.baseline is None:
        return "no baseline to compare with; name a registered version with --baseline MODEL@VERSION"
    mine, theirs = evidence.version.record, evidence.baseline.record
    if evidence.baseline.name == evidence.version.name:
        return "it was named as its own baseline; name another version with --baseline"
    if mine["cohort"] != theirs["cohort"] or mine["test_set"]["digest"] != theirs["test_set"]["digest"]:
        return f"{evidence.baseline.name} was tested on other cases; evaluate both on one test set, or name another"
    values = [record["metrics"]["summary"].get(metric) for record in (theirs, mine)]
    if None in values:
        return f"{metric} was not measured for both it and {evidence.baseline.name}; evaluate the other again"
    if keeps(values[0] - values[1], least=wanted):
        return ""
    return (
        f"{metric} is {values[1]:.4g}, {evidence.baseline.name} has {values[0]:.4g}: wanted lower by at least "
        f"{wanted:g}; a model that does not beat the simpler one is not worth its cost"
    )


def _holds_stage(evidence: Evidence, criterion: Criterion) -> str:
    """It was given these stages before."""
    lacking = [name for name in criterion.names or [] if name not in evidence.version.stages]
    return f"it was never given the stage {', '.join(lacking)}; promote it to that first" if lacking else ""


def _signed_off(evidence: Evidence, criterion: Criterion) -> str:
    """So many persons other than the registrar ran `registry sign-off`, in this clone's audit log."""
    registrar = evidence.version.by
    signers = {str(entry["who"].get("email") or "").casefold() for entry in evidence.signatures} - {""}
    # A tagger is `name <address>`; the brackets keep a@example.org apart from ada@example.org.
    people = {email for email in signers if f"<{email}>" not in registrar.casefold()}
    wanted = int(criterion.limit or 1)
    if len(people) >= wanted:
        return ""
    return (
        f"signed off by {len(people)} person(s) other than {registrar}, wanted {wanted}; they read the report and run "
        f"`doseledger registry sign-off {evidence.version.name} --statement …`"
    )


def _audit_log_holds(evidence: Evidence, criterion: Criterion) -> str:
    """The chain of the audit log, and its anchors in tags and under the Git ref, hold."""
    del criterion
    if not evidence.log_findings:
        return ""
    return f"the audit log does not hold ({evidence.log_findings[0]}); `doseledger audit verify` says more"


# Each check, and what its criterion must give it.
CHECKS: dict[str, tuple[Check, frozenset[str]]] = {
    "gates_passed": (_gates_passed, frozenset({"names"})),
    "clinical_target": (_clinical_target, frozenset()),
    "test_cases": (_test_cases, frozenset({"limit"})),
    "test_set_locked": (_test_set_locked, frozenset()),
    "reproduced": (_reproduced, frozenset()),
    "better_than_baseline": (_better_than_baseline, frozenset({"metric", "limit"})),
    "holds_stage": (_holds_stage, frozenset({"names"})),
    "signed_off": (_signed_off, frozenset({"limit"})),
    "audit_log_holds": (_audit_log_holds, frozenset()),
}
