"""Commands of the registry: register, promote, sign off, show, fetch, retire."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.shared import RECORD, Cohort, Json, Model, complete_versions, project, show, tell

if TYPE_CHECKING:
    from doseledger.ledger.registry.tag import Version
    from doseledger.ledger.registry.versions import RegistryFiles

app = typer.Typer()
registry_app = typer.Typer(no_args_is_help=True, help="Model versions and their stages, as Git tags.")
app.add_typer(registry_app, name="registry", rich_help_panel=RECORD)

Name = Annotated[
    str, typer.Argument(help="MODEL@VERSION, dose_unet@v0.1.0 for example.", autocompletion=complete_versions)
]


@registry_app.command("register")
@audited("registry register", inputs=("exit_criteria", "thresholds|cohorts"))
def register_version(
    model: Model,
    version: Annotated[str, typer.Option(help="v0.1.0: never used before for this model.")],
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Register a finished, committed run as a version.

    An annotated tag on HEAD; refused with all that is missing.

    Example: doseledger registry register dose_unet --version v0.1.0
    """
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.registry.release import open_release
    from doseledger.ledger.registry.versions import register

    files = _files(cohort)
    made = register(files, open_release(files.layout, model), version, tell)
    note_fact("registered", _fact(made))
    hint = f"publish it: `dvc push` and `git push origin {made.name}`"
    first = f"{_results(made)}{made.name} registered on commit {made.commit[:12]}; {hint}"
    show(made.as_dict(), as_json, first)


@registry_app.command("promote")
@audited("registry promote", inputs=("exit_criteria", "thresholds|cohorts"))
def promote_version(
    name: Name,
    stage: Annotated[str, typer.Option(help="A phase of the exit criteria: research, candidate or frozen.")],
    baseline: Annotated[str | None, typer.Option(help="MODEL@VERSION that it must beat, where that is asked.")] = None,
) -> None:
    """Give a version a stage that it has earned.

    Refused with every criterion that is not met.

    Example: doseledger registry promote dose_unet@v0.1.0 --stage research
    """
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.registry.versions import promote

    made = promote(_files(), name, stage, baseline)
    note_fact("promoted", {**_fact(made), "stage": stage, "baseline": baseline})
    print(f"{name} is {stage}; publish it: `git push origin '{made.promotions[-1].tag}'`")


@registry_app.command("sign-off")
@audited("registry sign-off")
def sign_off_version(
    name: Name,
    statement: Annotated[str, typer.Option(help="What was looked at and found.")],
) -> None:
    """Sign a version off in the audit log.

    Example: doseledger registry sign-off dose_unet@v0.1.0 --statement "report read, worst case looked at"
    """
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.registry.versions import sign_off

    note_fact("signed_off", sign_off(_files(), name, statement))
    print(f"{name} signed off, in {this_machine().audit_log}")


@registry_app.command("show")
def show_versions(
    name: Annotated[str | None, typer.Argument(help="MODEL@VERSION for all of one; all versions if absent.")] = None,
    baseline: Annotated[str | None, typer.Option(help="MODEL@VERSION that it would be compared with.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is registered, or one version's card.

    With what each stage would still ask of it.

    Example: doseledger registry show dose_unet@v0.1.0
    """
    from doseledger.ledger.registry.fetch import write_card
    from doseledger.ledger.registry.tag import find_version, read_versions

    files = _files()
    if name is None:
        versions = read_versions(files.root)
        lines = [_describe(version) for version in versions]
        show([version.as_dict() for version in versions], as_json, "\n".join(lines) or "nothing is registered yet")
        return
    version = find_version(files.root, name)
    stages = _stages(files, version, baseline)
    lines = [write_card(version), "## Stages", ""]
    for stage, missing in stages.items():
        state = "held" if stage in version.stages else "every criterion is met" if not missing else "criteria not met:"
        lines += [f"- {stage}: {state}", *(f"  - {item}" for item in missing if stage not in version.stages)]
    show({**version.as_dict(), "missing": stages}, as_json, "\n".join(lines))


@registry_app.command("retire")
@audited("registry retire")
def retire_version(
    name: Name,
    why: Annotated[str, typer.Option(help="The reason, for whoever uses it.")],
) -> None:
    """Retire a version; it stays on record.

    Example: doseledger registry retire dose_unet@v0.1.0 --why "femurs swapped in the training data"
    """
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.registry.versions import retire

    made = retire(_files(), name, why)
    note_fact("retired", {**_fact(made), "why": why})
    print(f"{name} is retired; publish it: `git push origin '{name}!'`")


@registry_app.command("get")
@audited("registry get", inputs=("check",), outputs=("out",), reads="check")
def get_version(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder that gets best.ckpt, MODEL_CARD.md and version.json.")],
    check: Annotated[Path | None, typer.Option(help="Cases to predict, and compare with what was recorded.")] = None,
) -> None:
    """Fetch a version, every byte checked by its hash.

    With --check also that it predicts the same.

    Example: doseledger registry get dose_unet@v0.1.0 --out model/ --check cases/
    """
    from doseledger.ledger.registry.criteria import load_criteria
    from doseledger.ledger.registry.fetch import check_version, fetch_version
    from doseledger.ledger.registry.tag import find_version

    layout = _files().layout
    root = layout.root
    version = find_version(root, name)
    fetched = fetch_version(root, version, out, tell)
    if check is not None:
        made = check_version(root, version, fetched, check, load_criteria(layout.exit_criteria).reproduction, tell)
        exact = sum(comparison.identical for comparison in made)
        print(f"{len(made)} cases predicted again: {exact} to the bit, all within the limit")
    print(f"{name}: {fetched.checkpoint}, SHA256 as registered")


def kept_version(name: str) -> tuple[Path, str]:
    """Return the checkpoint of a registered version, kept on this machine, and its cohort."""
    from doseledger.ledger.registry.fetch import keep_version
    from doseledger.ledger.registry.tag import find_version

    # Of the main repository: an experiment's own folder has no tags.
    machine = this_machine()
    version = find_version(machine.root, name)
    return keep_version(machine.root, version, machine.parents), str(version.record["cohort"])


def _files(cohort: str | None = None) -> RegistryFiles:
    from doseledger.ledger.registry.versions import RegistryFiles

    return RegistryFiles(project(cohort).layout, this_machine().audit_log)


def _fact(version: Version) -> dict[str, str]:
    checkpoint = str(version.record["checkpoint"]["sha256"])
    return {"name": version.name, "commit": version.commit, "checkpoint_sha256": checkpoint}


def _results(version: Version) -> str:
    """A version's results as a sentence and its badge, a line each; nothing where its tag holds none."""
    from doseledger.gates.model.standing import read_standing

    told = read_standing({"details": version.record})
    return f"{told.sentence}\n{told.badge}\n" if told else ""


def _describe(version: Version) -> str:
    from doseledger.gates.model.standing import read_standing

    told = read_standing({"details": version.record})
    badge = f"  {told.badge}: {told.sentence}" if told else ""
    state = f"retired: {version.retired}" if version.retired is not None else ", ".join(version.stages) or "no stage"
    return f"{version.name}  {version.commit[:12]}  {version.at[:10]}  {version.by}  {state}{badge}"


def _stages(files: RegistryFiles, version: Version, baseline: str | None) -> dict[str, list[str]]:
    """What each stage asks that a version lacks."""
    from doseledger.ledger.registry.criteria import load_criteria
    from doseledger.ledger.registry.versions import judge_stage

    return {
        stage: [
            f"[{result.criterion.check}] {result.missing}"
            for result in judge_stage(files, version, stage, baseline)
            if result.missing
        ]
        for stage in load_criteria(files.layout.exit_criteria).phases
    }
