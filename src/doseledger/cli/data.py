"""Commands for cases: phantoms, packing, ingest, splits, the locked test set."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.shared import DATA, Cohort, Json, ScaleAt, project, show, stage, tell
from doseledger.core.errors import BadInput
from doseledger.core.project.layout import SYNTHETIC_COHORT

if TYPE_CHECKING:
    from doseledger.ingest.cohort import IngestCount

app = typer.Typer()
raw_app = typer.Typer(no_args_is_help=True, help="Raw DICOM: packed, de-identified.")
case_app = typer.Typer(no_args_is_help=True, help="One case.")
test_set_app = typer.Typer(no_args_is_help=True, help="The locked test set.")
app.add_typer(raw_app, name="raw", rich_help_panel=DATA)
app.add_typer(case_app, name="case", rich_help_panel=DATA)
app.add_typer(test_set_app, name="test-set", rich_help_panel=DATA)


@app.command(rich_help_panel=DATA)
@audited("phantom", inputs=("goals", "params"), outputs=("raw_list",), cohort=SYNTHETIC_COHORT)
def phantom(scale: ScaleAt = None, as_json: Json = False) -> None:
    """Plan the synthetic cohort, written as DICOM-RT.

    Example: doseledger phantom
    """
    from doseledger.core.project.protocol import load_goals
    from doseledger.phantom.cohort import make_cohort, tabulate_goals

    at = stage("phantom", SYNTHETIC_COHORT)
    wanted, layout = load_goals(at.layout.goals), at.layout
    made = make_cohort(
        layout.raw, layout.raw_list, at.settings.phantom, wanted, scale=at.settings.scale.asked(scale), tell=tell
    )
    table = tabulate_goals(made, wanted)
    show(table.to_dict("records"), as_json, table.to_string(index=False))


@raw_app.command("pack")
@audited("raw pack", outputs=("out|raw_list",), reads="all")
def pack(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    cohort: Cohort = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the zips; else the cohort's.")] = None,
    as_json: Json = False,
) -> None:
    """Pack raw cases as one stored zip each.

    Example: doseledger raw pack raw/ --cohort prostate
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.ingest.pack import pack as pack_cases

    layout = project(cohort).layout if out is None or cohort else None
    target = out or (layout.raw if layout else Path())
    raw_list = layout.raw_list if layout and out is None else target.with_suffix(".csv")
    kind = load_protocol(layout.protocol).source if layout else "dicom"
    count = pack_cases(raw, target, raw_list, tell, kind)
    show({"packed": count}, as_json, f"{count} cases packed into {target}, listed in {raw_list}")


@app.command(rich_help_panel=DATA)
@audited("ingest", inputs=("raw_list", "protocol", "params"), outputs=("out|cases",), reads="all")
def ingest(
    raw: Annotated[Path | None, typer.Argument(help="Raw cases; else the cohort's.")] = None,
    out: Annotated[Path | None, typer.Argument(help="Folder that gets <case>.npz and tables.")] = None,
    protocol: Annotated[Path | None, typer.Option(help="The protocol's file.")] = None,
    cohort: Cohort = None,
    scale: ScaleAt = None,
    shard: Annotated[str | None, typer.Option(help="Every n-th case from the i-th on: i/n.")] = None,
    link: Annotated[str, typer.Option(help="Join objects by `references` or `frame-of-reference`.")] = "references",
    as_json: Json = False,
) -> None:
    """Convert raw cases to NPZ on the protocol's grid.

    Bad cases are listed with their reason, the rest goes on.

    Example: doseledger ingest raw/ cases/ --protocol validation/cohorts/prostate/protocol.yaml
    """
    from doseledger.core.pool.cluster import HERE
    from doseledger.core.project.protocol import load_protocol
    from doseledger.dicom.read import check_link
    from doseledger.ingest.cohort import IngestRun
    from doseledger.ingest.cohort import ingest as ingest_cohort

    if raw is not None:
        if out is None:
            raise BadInput("ingest RAW OUT: name the folder of cases to write too")
        chosen = load_protocol(protocol or project(cohort).layout.protocol)
        run = IngestRun(HERE.asked(scale), shard=shard, link=check_link(link))
    else:
        from doseledger.ledger.provenance.dvc_project import cache_folder

        if protocol is not None:
            raise BadInput("--protocol goes with RAW and OUT: the cohort has its own")
        at, machine = stage("ingest", cohort), this_machine()
        layout = at.layout
        raw, out, chosen = layout.raw, layout.cases, load_protocol(layout.protocol)
        run = IngestRun(
            at.settings.scale.asked(scale),
            raw_list=layout.raw_list,
            index=machine.ingest_indices / f"{layout.cohort}.json",
            cache_dir=cache_folder(machine.root),
            shard=shard,
            link=check_link(link),
        )
    count = ingest_cohort(raw, out, chosen, run, tell)
    _show_ingested(count, None if shard else out, as_json)


def _show_ingested(count: IngestCount, out: Path | None, as_json: bool) -> None:
    """Print what became of each case; `out` is None for a share of the cases, which has no tables yet."""
    from doseledger.ingest.outcome import describe_outcome, outcome_rows, refuse_nothing

    text = f"{count.converted} converted, {count.reused} unchanged, {count.skipped} skipped, {count.failed} failed"
    if out is None:
        show(dataclasses.asdict(count), as_json, text)
        return
    show({**dataclasses.asdict(count), "cases": outcome_rows(out)}, as_json, f"{describe_outcome(out)}\n{text}")
    if "DVC_STAGE" not in os.environ:
        refuse_nothing(count.converted + count.reused)


@raw_app.command("deidentify")
@audited("raw deidentify", inputs=("raw", "protocol"), outputs=("out",), reads="all")
def deidentify(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder for the clean copies.")],
    salt: Annotated[Path, typer.Option(help="Secret of this cohort, made once; keep it private.")],
    protocol: Annotated[
        Path | None, typer.Option(help="Its `phi` block says what may stay; else the cohort's.")
    ] = None,
    cohort: Cohort = None,
) -> None:
    """Write copies without what identifies a patient.

    UIDs stay linked, dates are shifted. Run it again after cases were added or mended: unchanged
    ones stay. Who is who is in SALT.key.csv, beside the salt.

    Example: doseledger raw deidentify raw/ clean/ --salt ~/prostate.salt --cohort prostate
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.ingest.privacy.deidentify import deidentify as deidentify_cases
    from doseledger.ingest.privacy.deidentify import read_salt
    from doseledger.ingest.privacy.key import key_beside

    rules = load_protocol(protocol or project(cohort).layout.protocol)
    key = key_beside(salt, out)
    written = deidentify_cases(raw, out, rules, read_salt(salt, out), tell, key)
    print(f"clean copies written to {out}: {len(written)}")


@app.command(rich_help_panel=DATA)
@audited("split", inputs=("cases_csv", "test_set", "params"), outputs=("splits",))
def split(cohort: Cohort = None, as_json: Json = False) -> None:
    """Assign patients to train, val and test.

    Example: doseledger split
    """
    from doseledger.ingest.splits import make_splits

    at = stage("split", cohort)
    layout = at.layout
    counts = make_splits(layout.cases_csv, layout.test_set, layout.splits, at.settings.splits, tell)
    text = ", ".join(f"{part} {n['patients']} patients ({n['cases']} cases)" for part, n in counts.items())
    show(counts, as_json, f"{layout.splits}: {text}")


@test_set_app.command("lock")
@audited("test-set lock", inputs=("cases_csv", "splits"), outputs=("test_set",))
def lock_splits(
    reason: Annotated[str, typer.Option(help="Why it is locked now.")],
    cohort: Cohort = None,
    by_name: Annotated[bool, typer.Option("--by-name", help="Without digests: synthetic patients only.")] = False,
) -> None:
    """Lock the test patients: they never move again.

    Example: doseledger test-set lock --reason "first evaluation"
    """
    from datetime import date

    from doseledger.ingest.locked_test_set import lock as lock_test_set

    layout, today = project(cohort).layout, date.today().isoformat()
    table = lock_test_set(
        layout.test_set, layout.cases_csv, layout.splits, locked_on=today, reason=reason, by_name=by_name
    )
    print(f"{len(table)} test cases locked in {layout.test_set}; commit it")


@test_set_app.command("unlock")
@audited("test-set unlock", outputs=("test_set",))
def unlock_splits(
    why: Annotated[str, typer.Option(help="Why the lock may be given up.")],
    pseudonym: Annotated[list[str] | None, typer.Option(help="Only these patients.")] = None,
    cohort: Cohort = None,
) -> None:
    """Unlock a test set, or some of its patients.

    Example: doseledger test-set unlock --why "cohort replaced"
    """
    from datetime import date

    from doseledger.ingest.locked_test_set import unlock

    lock, today = project(cohort).layout.test_set, date.today().isoformat()
    removed = unlock(lock, unlocked_on=today, why=why, pseudonyms=pseudonym)
    print(f"{len(removed)} rows unlocked, kept in {lock.with_suffix('.unlocked.csv')}; commit both files")


@app.command("physics", rich_help_panel=DATA)
@audited("physics", inputs=("cases_csv", "protocol"), outputs=("physics",), reads="all")
def physics_of_cases(cohort: Cohort = None, scale: ScaleAt = None, as_json: Json = False) -> None:
    """Make the cases' maps of the protocol's beams.

    Example: doseledger physics
    """
    from doseledger.core.project.protocol import load_protocol
    from doseledger.ingest.physics import make_cohort_physics

    at = stage("physics", cohort)
    layout, beams = at.layout, load_protocol(at.layout.protocol).beams
    table = make_cohort_physics(layout.cases, beams, layout.physics, scale=at.settings.scale.asked(scale), tell=tell)
    made = int((table["sha256"] != "").sum())
    text = (
        f"maps of {made} of {len(table)} cases in {layout.physics}" if beams else "the protocol has no beams: no maps"
    )
    show(table.to_dict("records"), as_json, text)


@case_app.command("show")
def show_case(case: Annotated[Path, typer.Argument(help="A case's NPZ.")], as_json: Json = False) -> None:
    """Show a case's grid, structures, dose and source.

    Example: doseledger case show data/cases/phantom/case_0001.npz --json
    """
    from doseledger.core.case import Case
    from doseledger.evaluate.files.case import case_as_text, describe_case

    description = describe_case(Case.load(case))
    show(description, as_json, case_as_text(description))
