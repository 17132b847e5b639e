"""A raw export looked at as it is, and laid out one folder a case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import recorded_as
from doseledger.cli.shared import DATA, Cohort, Json, ScaleAt, project, show, tell
from doseledger.core.errors import NotReady

if TYPE_CHECKING:
    from doseledger.core.pool.cluster import Scale
    from doseledger.core.project.protocol import Protocol
    from doseledger.ledger.audit.recording import Footprint

app = typer.Typer()
Dump = Annotated[Path, typer.Argument(help="A raw export as it is; nothing in it is changed.")]
ProtocolFile = Annotated[Path | None, typer.Option(help="Another protocol than the cohort's.")]


@app.command("survey", rich_help_panel=DATA)
def survey(
    dump: Dump,
    out: Annotated[Path | None, typer.Option(help="Folder to write; else DUMP_survey beside it.")] = None,
    protocol: ProtocolFile = None,
    cohort: Cohort = None,
    pictures: Annotated[bool, typer.Option(help="A slice of each patient in the page.")] = True,
    scale: ScaleAt = None,
    as_json: Json = False,
) -> None:
    """List what a raw export holds, all faults at once.

    Writes CSV, JSON and a page; the export itself is not changed.

    Example: doseledger survey /export/dump --cohort prostate
    """
    from doseledger.ingest.survey.cohort import describe_survey, survey_dump
    from doseledger.ingest.survey.dump import check_dump
    from doseledger.ingest.survey.record import refuse_inside, write_survey
    from doseledger.report.survey import write_survey_page

    target = out if out is not None else dump.resolve().with_name(f"{dump.resolve().name}_survey")
    # Before anything is recorded: what a message says of paths is no business of the log.
    check_dump(dump)
    refuse_inside(target, dump)
    chosen = _protocol(protocol, cohort)
    with recorded_as(_footprint("survey", chosen)):
        found = survey_dump(dump, chosen, pictures=pictures, scale=_scale(scale), tell=tell)
        write_survey(found, target)
        if (templates := _templates()) is not None:
            write_survey_page(found, templates, target / "survey.html")
        else:
            tell("no page: its templates lie in a project, and there is none here or above")
    show(found.as_json(), as_json, f"{describe_survey(found)}\nwritten to {target}; key.csv says who the cases are")


@app.command("sort", rich_help_panel=DATA)
def sort(
    dump: Dump,
    out: Annotated[Path, typer.Argument(help="A new folder: gets one folder a case.")],
    protocol: ProtocolFile = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Copy a raw export to one folder a case.

    A case is the treated plan and what belongs to it; what is left over is listed.

    Example: doseledger sort /export/dump /export/cases --cohort prostate
    """
    from doseledger.ingest.survey.choice import RULE
    from doseledger.ingest.survey.layout import check_layout, sort_dump

    check_layout(dump, out)
    chosen = _protocol(protocol, cohort)
    with recorded_as(_footprint("sort", chosen)):
        made = sort_dump(dump, out, chosen, tell)
    lines = [f"{name}: {why}" for name, why in made.choices.items()]
    lines = [RULE, *lines] if lines else []
    lines += [f"{name}: no folder; it {why}" for name, why in made.undecided.items()]
    lines.append(
        f"{len(made.laid_out)} cases laid out in {out}, {len(made.undecided)} not; {made.n_left} files left over, in "
        "leftovers.csv with their reasons; key.csv says who the cases are"
    )
    value = {
        "rule": RULE, "laid_out": made.laid_out, "undecided": made.undecided, "choices": made.choices,
        "files_left_over": made.n_left,
    }  # fmt: skip
    show(value, as_json, "\n".join(lines))


def _protocol(protocol: Path | None, cohort: str | None) -> Protocol | None:
    """The protocol that is named, else the one of the cohort that is worked on; None outside a project."""
    from doseledger.core.project.protocol import load_protocol

    if protocol is not None:
        return load_protocol(protocol)
    try:
        at = project(cohort)
    except NotReady:
        if cohort is not None:
            raise
        tell("no protocol: none was named, and there is no project here or above; structures are not looked for")
        return None
    found = load_protocol(at.layout.protocol)
    tell(f"held against the protocol {found.name}")
    return found


def _scale(words: str | None) -> Scale:
    """Return where patients are looked at: as asked for, by the settings of the project at work; here outside one."""
    from doseledger.core.pool.cluster import HERE

    try:
        return project().settings.scale.asked(words)
    except NotReady:
        return HERE.asked(words)


def _templates() -> Path | None:
    """The folder of templates of the project at work; None outside one."""
    try:
        return project().layout.templates
    except NotReady:
        return None


def _footprint(command: str, protocol: Protocol | None) -> Footprint:
    """What the audit log keeps: that somebody looked, and by which protocol; paths of an export may name patients."""
    from doseledger.ledger.audit.recording import Footprint

    return Footprint(
        command, {"protocol": protocol.name if protocol is not None else "none"}, {}, {}, "all of an export"
    )
