"""A clinic's own cohort: its files made, and what they lack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import recorded_as
from doseledger.cli.shared import DATA, Json, complete_cohorts, project, show, tell

if TYPE_CHECKING:
    from doseledger.core.project.layout import Layout
    from doseledger.ingest.survey.proposals import Proposals

app = typer.Typer()
cohort_app = typer.Typer(no_args_is_help=True, help="A clinic's own cohort.")
app.add_typer(cohort_app, name="cohort", rich_help_panel=DATA)

Name = Annotated[str, typer.Argument(help="Its name: a folder of validation/cohorts.", autocompletion=complete_cohorts)]
FROM_HELP = "The cohort whose protocol, goals, suite and limits it begins with."


@cohort_app.command("init")
def init(
    name: Annotated[str, typer.Argument(help="Its name: letters, digits, `_` and `-`.")],
    like: Annotated[str, typer.Option("--from", help=FROM_HELP, autocompletion=complete_cohorts)],
    raw: Annotated[
        Path | None, typer.Option(help="A raw export, or its survey's folder, for names to propose.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the files that a new cohort needs.

    They are copies: an edit to them is none to the other cohort. ROI names of a raw export that may
    be a structure are proposed in the new protocol, for you to confirm.

    Example: doseledger cohort init clinic --from prostate --raw /export/dump
    """
    from doseledger.core.project.layout import Layout
    from doseledger.core.text.sheet import plural
    from doseledger.ingest.new_cohort import make_cohort, refuse_taken
    from doseledger.ledger.audit.recording import Footprint

    layout = Layout(project().layout.root, name)
    refuse_taken(layout, like)
    # Paths of an export may name patients: the log keeps none.
    outputs = {"protocol": layout.cohorts / name / "protocol.yaml"}
    with recorded_as(
        Footprint("cohort init", {"name": name, "from": like}, {}, outputs, "all of an export" if raw else "")
    ):
        proposals, doubts = _findings(raw, Layout(layout.root, like))
        made = make_cohort(layout, like, proposals, doubts)
    lines = [f"written: {path}" for path in made.written] + [f"kept as it was: {path}" for path in made.kept]
    if made.n_proposed:
        lines.append(f"{plural(made.n_proposed, 'name')} proposed in {outputs['protocol']}: confirm or delete each")
    if doubts:
        lines.append(f"{plural(len(doubts), 'finding')} of the survey against the protocol stand in it: settle each")
    lines.append(f"next: doseledger cohort check {name}")
    value = {
        "written": [str(path) for path in made.written], "kept": [str(path) for path in made.kept],
        "proposed": made.n_proposed, "doubts": doubts,
    }  # fmt: skip
    show(value, as_json, "\n".join(lines))


def _findings(raw: Path | None, like: Layout) -> tuple[Proposals, list[str]]:
    """The names that a survey proposes, and what it doubts of the protocol: one that was made, or one made now."""
    from doseledger.core.files import read_json
    from doseledger.core.project.protocol import load_protocol
    from doseledger.ingest.survey.cohort import survey_dump
    from doseledger.ingest.survey.proposals import read_doubts, read_proposals

    if raw is None:
        return {}, []
    protocol = load_protocol(like.protocol)
    made = raw / "survey.json"
    found = read_json(made) if made.is_file() else survey_dump(raw, protocol, pictures=False, tell=tell).as_json()
    return read_proposals(found, protocol), read_doubts(found, protocol)


@cohort_app.command("check")
def check(name: Name, as_json: Json = False) -> None:
    """Name all that a cohort lacks; exit 1 if any.

    Example: doseledger cohort check clinic
    """
    from doseledger.core.errors import NotReady
    from doseledger.core.text.sheet import plural
    from doseledger.ledger.provenance.cohort_files import describe_lacks, find_lacks, find_notes

    at = project(name)
    lacks, notes = find_lacks(at.layout, at.settings), find_notes(at.layout, at.settings)
    value = {"cohort": name, "ready": not lacks, "lacks": [asdict(lack) for lack in lacks], "notes": notes}
    show(value, as_json, describe_lacks(at.layout, lacks, notes))
    if lacks:
        raise NotReady(f"{name} lacks {plural(len(lacks), 'thing')}, listed above")
