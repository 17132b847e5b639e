"""Where cases come from: phantoms, packing, ingest, de-identification, splits."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    PARAMS,
    Json,
    Params,
    Splits,
    Workers,
    project_root,
    protocol_of,
    settings_of,
    show,
    tell,
    workers_of,
)
from doseledger.core.errors import BadInput

app = typer.Typer()
splits_app = typer.Typer(no_args_is_help=True, help="Lock or unlock a cohort's test set.")
app.add_typer(splits_app, name="splits")


@app.command()
@audited("phantom", inputs=("goals", "params"), outputs=("raw_list",))
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder of packed cases to write.")],
    raw_list: Annotated[Path, typer.Option(help="Table of the cases and their SHA256 to write.")],
    goals: Annotated[Path, typer.Option(help="Clinical goals that every plan must pass.")],
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Plan the synthetic cohort and write it as DICOM-RT.

    Example: doseledger phantom data/raw/phantom --raw-list data/raw/phantom.csv
    --goals validation/goals/prostate_sib.yaml
    """
    from doseledger.core.protocol import load_goals
    from doseledger.phantom.cohort import make_cohort, tabulate_goals

    wanted = load_goals(goals)
    made = make_cohort(out, raw_list, settings_of(params).phantom, wanted, tell=tell)
    table = tabulate_goals(made, wanted)
    show(table.to_dict("records"), as_json, table.to_string(index=False))


@app.command()
@audited("pack", outputs=("raw_list",), reads="all")
def pack(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.zip.")],
    raw_list: Annotated[Path, typer.Option(help="Table of the cases and their SHA256 to write.")],
    as_json: Json = False,
) -> None:
    """Pack raw cases as one deterministic, stored zip each, and list them.

    Example: doseledger pack raw/ data/raw/prostate --raw-list data/raw/prostate.csv
    """
    from doseledger.ingest.pack import pack as pack_cases

    count = pack_cases(raw, out, raw_list, tell)
    show({"packed": count}, as_json, f"{count} cases packed into {out}, listed in {raw_list}")


@app.command()
@audited("ingest", inputs=("raw_list", "protocol", "protocols", "params"), outputs=("out",), reads="all")
def ingest(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder that gets <case>.npz and three tables.")],
    protocol: Annotated[Path | None, typer.Option(help="The protocol's file.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Or the cohort, whose protocol the settings name.")] = None,
    protocols: Annotated[Path | None, typer.Option(help="Folder of protocols, with --cohort.")] = None,
    raw_list: Annotated[Path | None, typer.Option(help="Table of the cases that must be there.")] = None,
    index: Annotated[Path | None, typer.Option(help="Record of earlier conversions, below the project's root.")] = None,
    cache: Annotated[Path | None, typer.Option(help="DVC's store by MD5, below the project's root.")] = None,
    workers: Workers = None,
    shard: Annotated[str | None, typer.Option(help="Only every n-th case from the i-th on: i/n.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")] = None,
    link: Annotated[
        str, typer.Option(help="Where references between objects don't decide: references, or frame-of-reference.")
    ] = "references",
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Convert raw cases to NPZ on the protocol's grid; bad cases are listed with their reason, the rest goes on.

    Example: doseledger ingest raw/ cases/ --protocol validation/protocols/prostate_sib.yaml
    """
    from doseledger.core.protocol import load_protocol
    from doseledger.dicom.read import check_link
    from doseledger.ingest.cohort import IngestRun
    from doseledger.ingest.cohort import ingest as ingest_cohort
    from doseledger.ingest.outcome import describe_outcome, outcome_rows, refuse_nothing

    if protocol is not None:
        chosen = load_protocol(protocol)
        workers = workers or 0
    elif cohort is not None and protocols is not None:
        settings = settings_of(params)
        chosen = protocol_of(settings, cohort, protocols)
        workers = workers_of(settings, workers)
    else:
        raise BadInput("name the protocol's file with --protocol, or --cohort and --protocols")
    root = project_root()
    run = IngestRun(
        workers=workers,
        raw_list=raw_list,
        index=root / index if index else None,
        cache_dir=root / cache if cache else None,
        shard=shard,
        cluster=cluster,
        link=check_link(link),
    )
    count = ingest_cohort(raw, out, chosen, run, tell)
    text = f"{count.converted} converted, {count.reused} unchanged, {count.skipped} skipped, {count.failed} failed"
    cases = {} if shard else {"cases": outcome_rows(out)}
    show({**dataclasses.asdict(count), **cases}, as_json, text if shard else f"{describe_outcome(out)}\n{text}")
    if shard is None and "DVC_STAGE" not in os.environ:
        refuse_nothing(count.converted + count.reused)


@app.command()
@audited("deidentify", inputs=("raw", "protocol"), outputs=("out",), reads="all")
def deidentify(
    raw: Annotated[Path, typer.Argument(help="Folder with one folder or one zip a case.")],
    out: Annotated[Path, typer.Argument(help="Folder for the clean copies.")],
    protocol: Annotated[Path, typer.Option(help="The protocol, whose `phi` block says what may stay.")],
    salt: Annotated[Path, typer.Option(help="Secret of this cohort, made once; keep it, and keep it private.")],
) -> None:
    """Write copies without what could identify a patient: UIDs stay linked, dates are shifted.

    Run it again after cases were added or mended: unchanged ones stay. Who is who is in SALT.key.csv, beside the salt.

    Example: doseledger deidentify raw/ clean/ --protocol validation/protocols/prostate_sib.yaml
    --salt ~/prostate.salt
    """
    from doseledger.core.protocol import load_protocol
    from doseledger.ingest.deidentify import deidentify as deidentify_cases
    from doseledger.ingest.deidentify import read_salt
    from doseledger.ingest.patient_key import key_beside

    key = key_beside(salt, out)
    written = deidentify_cases(raw, out, load_protocol(protocol), read_salt(salt), tell, key)
    print(f"clean copies written to {out}: {len(written)}")


@app.command()
@audited("split", inputs=("cases_csv", "lock", "params"), outputs=("out",))
def split(
    cases_csv: Annotated[Path, typer.Argument(help="Table of cases.")],
    out: Annotated[Path, typer.Argument(help="Table of splits to write.")],
    lock: Annotated[Path, typer.Option(help="The locked test set; a header alone means unlocked.")],
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Deal patients to train, val and test.

    Example: doseledger split data/cases/phantom/cases.csv data/splits/phantom.csv
    --lock validation/test_sets/phantom.csv
    """
    from doseledger.ingest.splits import make_splits

    counts = make_splits(cases_csv, lock, out, settings_of(params).splits, tell)
    text = ", ".join(f"{part} {n['patients']} patients ({n['cases']} cases)" for part, n in counts.items())
    show(counts, as_json, f"{out}: {text}")


@splits_app.command("lock")
@audited("splits lock", inputs=("cases", "splits"), outputs=("lock",))
def lock_splits(
    lock: Annotated[Path, typer.Argument(help="The locked test set to write.")],
    cases: Annotated[Path, typer.Option(help="Table of cases.")],
    splits: Splits,
    reason: Annotated[str, typer.Option(help="Why it is locked now.")],
    by_name: Annotated[bool, typer.Option("--by-name", help="Without digests: synthetic patients only.")] = False,
) -> None:
    """Lock the test patients of the present splits: from now on they never move.

    Example: doseledger splits lock validation/test_sets/phantom.csv --cases data/cases/phantom/cases.csv
    --splits data/splits/phantom.csv --reason "first evaluation"
    """
    from datetime import date

    from doseledger.ingest.locked_test_set import lock as lock_test_set

    today = date.today().isoformat()
    table = lock_test_set(lock, cases, splits, locked_on=today, reason=reason, by_name=by_name)
    print(f"{len(table)} test cases locked in {lock}; commit it")


@splits_app.command("unlock")
@audited("splits unlock", outputs=("lock",))
def unlock_splits(
    lock: Annotated[Path, typer.Argument(help="The locked test set.")],
    why: Annotated[str, typer.Option(help="Why the lock may be given up.")],
    pseudonym: Annotated[list[str] | None, typer.Option(help="Only these patients.")] = None,
) -> None:
    """Unlock a test set, or some of its patients.

    Example: doseledger splits unlock validation/test_sets/phantom.csv --why "cohort replaced"
    """
    from datetime import date

    from doseledger.ingest.locked_test_set import unlock

    removed = unlock(lock, unlocked_on=date.today().isoformat(), why=why, pseudonyms=pseudonym)
    print(f"{len(removed)} rows unlocked, kept in {lock.with_suffix('.unlocked.csv')}; commit both files")


@app.command()
def inspect(
    case: Annotated[Path, typer.Argument(help="A case's NPZ.")],
    as_json: Json = False,
) -> None:
    """Show a case's grid, structures, dose, prescription and source.

    Example: doseledger inspect data/cases/phantom/case_0001.npz --json
    """
    from doseledger.core.case import Case
    from doseledger.core.files import to_json
    from doseledger.evaluate.files.case import describe_case

    description = describe_case(Case.load(case))
    show(description, as_json, to_json(description))
