"""A raw export looked at as it is, and laid out one folder a case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audit_log, audit_root
from doseledger.cli.shared import PARAMS, Json, Params, protocol_of, settings_of, show, tell
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.core.protocol import Protocol
    from doseledger.ledger.audit.recording import Footprint

app = typer.Typer()
Dump = Annotated[Path, typer.Argument(help="A raw export as it is; nothing in it is changed.")]
ProtocolFile = Annotated[Path | None, typer.Option(help="The protocol's file. Default: that of the settings' cohort.")]
OfCohort = Annotated[str | None, typer.Option(help="Or a key of `cohorts` in the settings.")]
Protocols = Annotated[Path, typer.Option(help="Folder of protocols, below the project's root.")]
PROTOCOLS, TEMPLATES = Path("validation/protocols"), Path("reports/templates")


@app.command("survey")
def survey(
    dump: Dump,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: DUMP_survey, beside the dump.")] = None,
    protocol: ProtocolFile = None,
    cohort: OfCohort = None,
    pictures: Annotated[bool, typer.Option(help="A slice of each patient in the page.")] = True,
    protocols: Protocols = PROTOCOLS,
    templates: Annotated[Path, typer.Option(help="Folder of templates, below the project's root.")] = TEMPLATES,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Say what a raw export holds, and all that ingest would refuse; writes CSV, JSON and a page, changes nothing.

    Example: doseledger survey /export/dump --protocol validation/protocols/prostate_sib.yaml
    """
    from doseledger.ingest.survey.cohort import describe_survey, survey_dump
    from doseledger.ingest.survey.dump import check_dump
    from doseledger.ingest.survey.record import refuse_inside, write_survey
    from doseledger.ledger.audit.recording import record_command
    from doseledger.report.survey import write_survey_page

    target = out if out is not None else dump.resolve().with_name(f"{dump.resolve().name}_survey")
    # Before anything is recorded: what a message says of paths is no business of the log.
    check_dump(dump)
    refuse_inside(target, dump)
    chosen = _protocol(protocol, cohort, protocols, params)
    with record_command(audit_log(), Path.cwd(), _footprint("survey", chosen)):
        found = survey_dump(dump, chosen, pictures=pictures, tell=tell)
        write_survey(found, target)
        folder = audit_root() / templates
        if folder.is_dir():
            write_survey_page(found, folder, target / "survey.html")
        else:
            tell(f"no page: there are no templates in {templates}")
    show(found.as_json(), as_json, f"{describe_survey(found)}\nwritten to {target}; key.csv says who the cases are")


@app.command("sort")
def sort(
    dump: Dump,
    out: Annotated[Path, typer.Argument(help="A new folder: gets one folder a case.")],
    protocol: ProtocolFile = None,
    cohort: OfCohort = None,
    protocols: Protocols = PROTOCOLS,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Copy a raw export to one folder a case: the treated plan and what belongs to it; the rest is listed.

    Example: doseledger sort /export/dump /export/cases --protocol validation/protocols/prostate_sib.yaml
    """
    from doseledger.ingest.survey.choice import RULE
    from doseledger.ingest.survey.layout import check_layout, sort_dump
    from doseledger.ledger.audit.recording import record_command

    check_layout(dump, out)
    chosen = _protocol(protocol, cohort, protocols, params)
    with record_command(audit_log(), Path.cwd(), _footprint("sort", chosen)):
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


def _protocol(protocol: Path | None, cohort: str | None, protocols: Path, params: Path) -> Protocol | None:
    """The protocol that is named, else the one of the cohort that is worked on; None outside a project."""
    from doseledger.core.protocol import load_protocol

    if protocol is not None:
        return load_protocol(protocol)
    root = audit_root()
    if not (root / params).is_file():
        if cohort is not None:
            raise BadInput(f"{params}: no such settings, which would say what the protocol of {cohort} is")
        tell(f"no protocol: there is no {params} here, and none was named; structures are not looked for")
        return None
    settings = settings_of(root / params)
    found = protocol_of(settings, cohort or settings.cohort, root / protocols)
    tell(f"held against the protocol {found.name}")
    return found


def _footprint(command: str, protocol: Protocol | None) -> Footprint:
    """What the audit log keeps: that somebody looked, and by which protocol; paths of an export may name patients."""
    from doseledger.ledger.audit.recording import Footprint

    return Footprint(
        command, {"protocol": protocol.name if protocol is not None else "none"}, {}, {}, "all of an export"
    )
