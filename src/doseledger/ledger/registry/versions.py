"""The registry: versions, stages by written criteria, complete refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import sha256_of_file, sha256_of_json
from doseledger.core.project.layout import Layout
from doseledger.gates.limits import MetricLimit, load_thresholds
from doseledger.ledger.audit.anchors import anchor_line, anchor_values, ref_anchors, tag_anchors
from doseledger.ledger.audit.check import verify
from doseledger.ledger.audit.log import read_entries, read_log_id
from doseledger.ledger.provenance.git import head_commit, identity
from doseledger.ledger.registry.criteria import (
    CriterionResult,
    Evidence,
    ExitCriteria,
    Reproduction,
    judge_phase,
    load_criteria,
)
from doseledger.ledger.registry.release import Release, first_test_case, missing_for_version, version_record
from doseledger.ledger.registry.reproduce import predict_again, this_machine
from doseledger.ledger.registry.tag import FORMAT_VERSION, NAME, Version, compose_message, find_version, read_versions
from doseledger.ledger.runs.listing.tables import HEADLINE

Tell = Callable[[str], None]


@dataclass(frozen=True)
class RegistryFiles:
    """What the registry works with besides Git: where the project's files lie, and the audit log."""

    layout: Layout
    log: Path

    @property
    def root(self) -> Path:
        """The project."""
        return self.layout.root


def register(files: RegistryFiles, release: Release, version: str, tell: Tell) -> Version:
    """Register a model's finished run as a version on HEAD, and return it.

    Parameters
    ----------
    version
        `v0.1.0`: semantic, and never used before for this model.

    Raises
    ------
    NotReady
        Listing everything that is missing: clean tree, committed dvc.lock, passing verdicts, report, equal code.
    BadInput
        If the name is no version's name.
    """
    name = f"{release.model}@{version}"
    if NAME.fullmatch(name) is None:
        raise BadInput(f"{name!r} is no version's name; wanted MODEL@vMAJOR.MINOR.PATCH, dose_unet@v0.1.0 for example")
    reproduction = load_criteria(files.layout.exit_criteria).reproduction
    missing = [*missing_for_version(release), *_log_findings(files)]
    missing += _taken(files.root, name)
    if not missing:
        tell(f"{name}: predicting one test case again")
        reproduced, missing = _reproduce(release, reproduction, tell)
    _refuse(f"{name} can't be registered", missing)
    record = {
        "format_version": FORMAT_VERSION,
        "version": version,
        **version_record(release, reproduced),
        "audit": anchor_values(files.log),
    }
    summary = record["metrics"]["summary"]
    # A tag's first line tells what tables of runs show first, where it was measured.
    numbers = ", ".join(f"{metric} {summary[metric]:.4g}" for metric in HEADLINE if metric in summary)
    lines = [
        f"checkpoint {record['checkpoint']['sha256']}",
        f"trained with commit {record['run']['commit']}",
        anchor_line(files.log),
    ]
    message = compose_message(f"{release.model} {version} on {release.cohort}: {numbers}", lines, record)
    _gto("register", files.root, name=release.model, ref="HEAD", version=version, message=message)
    return find_version(files.root, name)


def promote(files: RegistryFiles, name: str, stage: str, baseline: str | None) -> Version:
    """Give a version a stage whose criteria it meets, and return it.

    Parameters
    ----------
    name
        `MODEL@VERSION`.
    stage
        A phase of the exit criteria.
    baseline
        The version that it is compared with, where a criterion asks for one.

    Raises
    ------
    NotReady
        Listing every criterion that is not met, or if the version is retired or holds the stage already, or Git does
        not know who promotes.
    BadInput
        If there is no such stage.
    """
    version = find_version(files.root, name)
    if version.retired is not None:
        raise NotReady(f"{name} is retired ({version.retired}); register and promote another version")
    if stage in version.stages:
        raise NotReady(f"{name} holds the stage {stage} already; `doseledger registry show {name}` tells since when")
    results = judge_stage(files, version, stage, baseline)
    _refuse(
        f"{name} can't be given the stage {stage}", [f"[{r.criterion.check}] {r.missing}" for r in results if r.missing]
    )
    record = {
        "format_version": FORMAT_VERSION,
        "model": version.model,
        "version": version.version,
        "stage": stage,
        "checkpoint": version.record["checkpoint"],
        "baseline": baseline,
        "criteria": [result.criterion.model_dump(mode="json", exclude_none=True) for result in results],
        "criteria_sha256": sha256_of_file(files.layout.exit_criteria),
        "target_sha256": sha256_of_json([limit.model_dump(mode="json") for limit in _target(files, version)]),
        "audit": anchor_values(files.log),
    }
    lines = [f"{len(results)} criteria met", anchor_line(files.log)]
    message = compose_message(f"{name} is {stage}", lines, record)
    _gto(
        "assign", files.root, name=version.model, stage=stage, version=version.version, message=message,
        skip_registration=True,
    )  # fmt: skip
    return find_version(files.root, name)


def judge_stage(files: RegistryFiles, version: Version, stage: str, baseline: str | None) -> list[CriterionResult]:
    """Return each criterion of a stage with what a version lacks to meet it.

    Raises
    ------
    BadInput
        If there is no such stage.
    NotReady
        If the baseline is not registered.
    """
    criteria: ExitCriteria = load_criteria(files.layout.exit_criteria)
    evidence = Evidence(
        version=version,
        baseline=find_version(files.root, baseline) if baseline else None,
        target=_target(files, version),
        reproduction=criteria.reproduction,
        signatures=signatures(files.log, version),
        log_findings=_log_findings(files),
    )
    return judge_phase(criteria, stage, evidence)


def _target(files: RegistryFiles, version: Version) -> list[MetricLimit]:
    """What a candidate must reach on the cohort that a version was trained on."""
    layout = Layout(files.root, str(version.record["cohort"]))
    return load_thresholds(layout).candidate


def retire(files: RegistryFiles, name: str, why: str) -> Version:
    """Retire a version: it stays on record with its reason, and is neither promoted nor fetched any more.

    Raises
    ------
    BadInput
        If there is no reason.
    NotReady
        If it is not registered, or retired already, or Git does not know who retires it.
    """
    version = find_version(files.root, name)
    if not why.strip():
        raise BadInput(f"{name}: say why it is retired; whoever uses it has to know")
    if version.retired is not None:
        raise NotReady(f"{name} is retired already: {version.retired}")
    record = {"format_version": FORMAT_VERSION, "model": version.model, "version": version.version, "why": why.strip()}
    message = compose_message(why.strip(), [anchor_line(files.log)], {**record, "audit": anchor_values(files.log)})
    _gto("deregister", files.root, name=version.model, version=version.version, message=message)
    return find_version(files.root, name)


def sign_off(files: RegistryFiles, name: str, statement: str) -> dict[str, Any]:
    """Return the fact of a person's signing a version off, for the audit log.

    Raises
    ------
    BadInput
        If there is no statement.
    NotReady
        If the version is not registered, or Git does not know who signs.
    """
    version = find_version(files.root, name)
    if not statement.strip():
        raise BadInput(f"{name}: say what was looked at and found; a signature without a statement is none")
    if None in identity(files.root).values():
        raise NotReady("Git does not know who signs; set `git config user.name` and `git config user.email`")
    return {"name": name, "checkpoint_sha256": version.record["checkpoint"]["sha256"], "statement": statement.strip()}


def signatures(log: Path, version: Version) -> list[dict[str, Any]]:
    """Return the entries of the audit log by which people signed exactly this version's checkpoint off."""
    if not log.is_file():
        return []
    wanted = (version.name, version.record["checkpoint"]["sha256"])
    return [
        entry
        for entry in read_entries(log)
        if (fact := entry.get("signed_off"))
        and entry.get("status") == "done"
        and (fact["name"], fact["checkpoint_sha256"]) == wanted
    ]


def _reproduce(release: Release, reproduction: Reproduction, tell: Tell) -> tuple[dict[str, Any], list[str]]:
    """Predict one test case again: the record of it, and what is wrong with it."""
    case_id = first_test_case(release)
    at = release.at
    (made,) = predict_again(at.checkpoint, at.layout.cases, at.predictions, [case_id], tell)
    record = {
        "case": case_id,
        "identical": made.identical,
        "max_difference_gy": made.max_difference_gy,
        "machine": this_machine(),
    }
    if made.max_difference_gy <= reproduction.max_difference_gy:
        return record, []
    return record, [
        f"{case_id} predicted again differs by {made.max_difference_gy:.3g} Gy from its recorded prediction, wanted at "
        f"most {reproduction.max_difference_gy:g}; predict on this machine (`dvc repro -s -f "
        f"predict@{release.cohort}-{release.model}`), evaluate, commit, and register then"
    ]


def _taken(root: Path, name: str) -> list[str]:
    """Whether the version, or this commit's place for one, is taken."""
    versions, model, head = read_versions(root), name.partition("@")[0], head_commit(root)
    if any(version.name == name for version in versions):
        return [f"{name} is registered already, and a version never changes; take the next number"]
    here = [version.name for version in versions if version.model == model and version.commit == head]
    if here:
        return [f"this commit is {', '.join(here)} already: one commit holds one run; commit the other run first"]
    return []


def _log_findings(files: RegistryFiles) -> list[str]:
    """What is wrong with the audit log by its own anchors; those of other clones' logs say nothing of this one."""
    own, found = read_log_id(files.log), [*tag_anchors(files.root), *ref_anchors(files.root)]
    anchors = [anchor for anchor in found if anchor.log_id in ("", own)]
    return [f"the audit log does not hold: {finding.message}" for finding in verify(files.log, anchors).findings]


def _refuse(what: str, missing: Sequence[str]) -> None:
    if missing:
        listed = "\n".join(f"  - {item}" for item in missing)
        raise NotReady(f"{what}, {len(missing)} thing(s) are missing:\n{listed}")


def _gto(verb: str, root: Path, **arguments: Any) -> None:
    """Make a tag through gto, in the name of whoever Git says works here."""
    import gto.api
    from gto.exceptions import GTOException

    who = identity(root)
    if None in who.values():
        raise NotReady("Git does not know who works here; set `git config user.name` and `git config user.email`")
    try:
        getattr(gto.api, verb)(str(root), author=who["name"], author_email=who["email"], **arguments)
    except GTOException as error:
        raise NotReady(f"gto refused to {verb}: {error}; `gto show` and `git tag` tell what is there") from error
