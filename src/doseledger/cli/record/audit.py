"""The audit log: look into it, and have it checked against every copy of its head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doseledger.cli.audited import this_machine
from doseledger.cli.shared import RECORD, Json, show
from doseledger.core.errors import GateFailed

if TYPE_CHECKING:
    from doseledger.ledger.audit.check import Anchor, AuditCheck

app = typer.Typer()
audit_app = typer.Typer(no_args_is_help=True, help="The log of what was run, by whom.")
app.add_typer(audit_app, name="audit", rich_help_panel=RECORD)


@audit_app.command("verify")
def verify_log(
    anchors: Annotated[
        list[Path] | None, typer.Argument(help="Manifests and pages from elsewhere that hold a head.")
    ] = None,
    elsewhere: Annotated[
        list[str] | None, typer.Option(help="Id of another clone's log: anchors of that one are left out.")
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(help="SHA256 of a head from outside: a printed page, a tag on a remote.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Another log than this project's.")] = None,
    as_json: Json = False,
) -> None:
    """Find every edit, cut or reordering of the log.

    Held against the tags, the kept heads, the files named and the heads given; exit 1 if any. Tags and files of this
    clone can be rewritten with the log: what they are worth is told.

    Example: doseledger audit verify --head 3f0c… released/manifest.json
    """
    from doseledger.ledger.audit.anchors import file_anchors, read_given, ref_anchors, tag_anchors
    from doseledger.ledger.audit.check import verify

    machine = this_machine()
    found = [*tag_anchors(machine.root), *ref_anchors(machine.root)]
    root = machine.root.resolve()
    for path in anchors or []:
        found += file_anchors(path, is_outside=not path.resolve().is_relative_to(root))
    here = [anchor for anchor in found if not anchor.log_id or anchor.log_id not in (elsewhere or [])]
    check = verify(log or machine.audit_log, here, [read_given(text) for text in head or []])
    show(_check_as_json(check, here), as_json, "\n".join(_describe(check, here)))
    if not check.ok:
        raise GateFailed(
            f"the audit log is not what was written ({len(check.findings)} findings); keep it as it is, and compare it "
            "with a backup. An anchor that another clone's log made is no finding: name that log with --elsewhere"
        )


@audit_app.command("show")
def show_log(
    command: Annotated[str | None, typer.Option(help="Only this command, `check data` for example.")] = None,
    who: Annotated[str | None, typer.Option(help="Only by this name or address, or a part of it.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this day on: YYYY-MM-DD.")] = None,
    until: Annotated[str | None, typer.Option(help="Only up to this day: YYYY-MM-DD.")] = None,
    status: Annotated[str | None, typer.Option(help="Only what ended so: done, failed or stopped.")] = None,
    about: Annotated[str | None, typer.Option(help="Only entries with this path, hash, case or model.")] = None,
    last: Annotated[int | None, typer.Option(help="Only so many, the latest.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Show who ran what, when, and how it ended.

    Example: doseledger audit show --command train --since 2026-01-01
    """
    from doseledger.ledger.audit.log import read_entries
    from doseledger.ledger.audit.view import Filter, describe_entry, matches

    wanted = Filter(command=command, who=who, since=since, until=until, status=status, about=about)
    entries = [entry for entry in read_entries(this_machine().audit_log) if matches(entry, wanted)]
    entries = entries[-last:] if last else entries
    show(entries, as_json, "\n".join(describe_entry(entry) for entry in entries) or "no such entry")


@audit_app.command("head")
def show_head(as_json: Json = False) -> None:
    """Show the log's head, to be kept elsewhere.

    Its length and the hash of its last entry.

    Example: doseledger audit head --json > head.json
    """
    from doseledger.ledger.audit.anchors import ANCHOR_KEY, anchor_line, anchor_values

    show({ANCHOR_KEY: anchor_values(this_machine().audit_log)}, as_json, anchor_line(this_machine().audit_log))


def _check_as_json(check: AuditCheck, anchors: list[Anchor]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(check),
        "ok": check.ok,
        "anchors": [asdict(anchor) for anchor in anchors],
        "unanchored_from": check.anchored + 1 if check.anchored < check.head.length else None,
    }


def _describe(check: AuditCheck, anchors: list[Anchor]) -> list[str]:
    lines = [f"{check.head.length} entries, {len(anchors)} anchors"]
    lines += [f"note: line {note.line}: {note.message}" for note in check.notes]
    lines += [f"error: {f'line {item.line}: ' if item.line else ''}{item.message}" for item in check.findings]
    lines.append(_worth(check))
    if check.anchored < check.head.length:
        lines.append(
            f"from entry {check.anchored + 1} on nothing is anchored yet: whoever can write the log could still write "
            "these anew; a version, a bundle or `doseledger audit head` kept elsewhere anchors them"
        )
    else:
        lines.append("every entry is anchored")
    return [*lines, "the log holds" if check.ok else "the log does not hold"]


def _worth(check: AuditCheck) -> str:
    """What the anchors are worth, as a sentence."""
    if not check.outside:
        return (
            "all anchors lie in this clone, where whoever can write the log can rewrite them too: they show an "
            "accident, not a forger. Give a head from outside with --head (a printed page; a tag as the remote has it: "
            "`git ls-remote --tags`, then `git cat-file` in a fresh clone)"
        )
    known = f"up to entry {check.outside} the log is what a head from outside saw"
    if check.outside == check.head.length:
        return known
    return f"{known}; of what came later only this clone vouches, where anchors can be rewritten with the log"
