"""Commands for bundles, contracts, parity and bit rot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited, this_machine
from doseledger.cli.check import Findings, enforce_shown
from doseledger.cli.shared import JUDGE, RECORD, Json, project, show, tell
from doseledger.core.errors import BadInput, GateFailed

app = typer.Typer()
bundle_app = typer.Typer(no_args_is_help=True, help="Sealed archives of data, run and report.")
app.add_typer(bundle_app, name="bundle", rich_help_panel=RECORD)

MEGABYTE = 1_000_000
Templates = Annotated[Path | None, typer.Option(help="Another folder of templates.")]
Digest = Annotated[str, typer.Option("--sha256", help="SHA256 of the index, as the sender gave it by another way.")]


@bundle_app.command("pack")
@audited("bundle pack", inputs=("contract",), outputs=("out",), reads="what --data, --run, --report and --file name")
def pack_bundle(
    out: Annotated[Path, typer.Argument(help="NAME.tar to write; nothing of that name may be there.")],
    data: Annotated[list[Path] | None, typer.Option(help="Folder of NPZ files under the contract; repeat it.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="Folder that `train` wrote, or any result; repeat it.")] = None,
    report: Annotated[list[Path] | None, typer.Option(help="Page, PDF or folder of them; repeat it.")] = None,
    contract: Annotated[Path | None, typer.Option(help="The YAML that the data are held to.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A file that is never opened (.h5, .dill); repeat it.")
    ] = None,
    params: Annotated[
        list[Path] | None, typer.Option(help="JSON of parameters, one for each --file in order; - for none.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Stage that made it, one for each --file in order; - for none.")
    ] = None,
    evidence: Annotated[list[Path] | None, typer.Option(help="Log of a test run; repeat it.")] = None,
    part_size_mb: Annotated[int | None, typer.Option(help="Split into parts of so many MB.", min=1)] = None,
    scenario: Annotated[str, typer.Option(help="An identifier of your own, kept in manifest and index.")] = "",
    dicom_protocol: Annotated[
        Path | None, typer.Option(help="Let raw DICOM in that passes the PHI scan by this protocol.")
    ] = None,
    templates: Templates = None,
    as_json: Json = False,
) -> None:
    """Pack data, run and report into one archive.

    With manifest, table of files and README, split when large.

    Example: doseledger bundle pack release/phantom.tar --data data/cases/phantom --run models/phantom/dose_unet
    --report reports/html/phantom/dose_unet --contract validation/contracts/case.yaml --part-size-mb 1000
    """
    from doseledger.core.files import sha256_of_file
    from doseledger.core.project.protocol import load_protocol
    from doseledger.ledger.audit.anchors import anchor_values
    from doseledger.ledger.audit.recording import note_fact
    from doseledger.ledger.bundle.pack import index_path, pack
    from doseledger.ledger.bundle.record import Order, check_scenario
    from doseledger.ledger.bundle.sources import Wanted, pair_files
    from doseledger.ledger.provenance.dvc_project import cache_folder

    root, log = Path.cwd(), this_machine().audit_log
    order = Order(
        wanted=Wanted(
            data=tuple(data or ()),
            runs=tuple(run or ()),
            reports=tuple(report or ()),
            files=pair_files(file or [], params or [], stage or []),
            evidence=tuple(evidence or ()),
        ),
        root=root,
        contract=contract,
        templates=templates or project().layout.templates,
        scenario=check_scenario(scenario),
        audit=anchor_values(log) if log.is_file() else None,
        dicom_protocol=load_protocol(dicom_protocol) if dicom_protocol else None,
        part_bytes=part_size_mb * MEGABYTE if part_size_mb else None,
    )
    index = pack(out, order, cache_folder(root), tell)
    digest = sha256_of_file(index_path(out))
    note_fact("bundle", {"name": out.name, "index_sha256": digest})
    text = (
        f"{out}: {index['size'] / MEGABYTE:.1f} MB in {len(index['parts'])} part(s)\n"
        f"SHA256 of {index_path(out).name}: {digest}\n"
        "Give the receiver this digest by another way than the bundle"
    )
    show({**index, "index_sha256": digest}, as_json, text)


@bundle_app.command("verify")
def verify_a_bundle(
    bundle: Annotated[Path, typer.Argument(help="NAME.tar, a part, the index, or a folder it was unpacked to.")],
    sha256: Digest = "",
    as_json: Json = False,
) -> None:
    """Re-read every file of a bundle, still packed.

    Names every changed, missing or added one; exit 1 if there is one.

    Example: doseledger bundle verify release/phantom.tar --sha256 3f0c…
    """
    from doseledger.ledger.bundle.verify import enforce_whole, verify_bundle

    check = verify_bundle(bundle, sha256, tell)
    state = f"whole: {check.n_files} files, {check.n_bytes / MEGABYTE:.1f} MB"
    show(check.as_dict(), as_json, f"{bundle}: {state if not check.findings else 'not what was packed'}")
    enforce_whole(check)


@bundle_app.command("rehydrate")
@audited("bundle rehydrate", inputs=("bundle",), outputs=("destination",), reads="the bundle's data")
def rehydrate_bundle(
    bundle: Annotated[Path, typer.Argument(help="NAME.tar, a part of it, or its index.")],
    destination: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    sha256: Digest = "",
    as_json: Json = False,
) -> None:
    """Unpack a bundle and measure all of it again.

    Example: doseledger bundle rehydrate release/phantom.tar /somewhere/phantom --sha256 3f0c…
    """
    from doseledger.ledger.bundle.rehydrate import rehydrate

    check = rehydrate(bundle, destination, sha256, tell)
    text = f"{destination}: {check.n_files} files, {check.n_bytes / MEGABYTE:.1f} MB, each as it was packed"
    show(check.as_dict(), as_json, text)


@bundle_app.command("check")
def check_contract(
    data: Annotated[Path, typer.Argument(help="Folder of NPZ files.")],
    contract: Annotated[Path, typer.Option(help="The YAML that they are held to.")],
    as_json: Json = False,
) -> None:
    """Judge a data set by a contract; exit 1 if broken.

    Arrays, types, axes, ranges, NaN in any sample.

    Example: doseledger bundle check data/cases/phantom --contract validation/contracts/case.yaml
    """
    from doseledger.parity.check import check_data_set
    from doseledger.parity.contract import load_contract

    rules = load_contract(contract)
    check = check_data_set(data, rules)
    lines = check.lines
    found = {"ok": not lines, "contract": rules.name, "n_files": len(check.files), "findings": lines}
    text = f"{data}: {len(check.files)} file(s), {len(lines)} finding(s) under the contract {rules.name}"
    show(found, as_json, "\n".join([*lines, text]))
    if lines:
        raise GateFailed(f"{data}: breaks the contract {rules.name} in {len(lines)} place(s)")


@app.command(rich_help_panel=RECORD)
def verify(
    root: Annotated[Path, typer.Argument(help="The project.")] = Path(),
    whole_cache: Annotated[
        bool, typer.Option("--whole-cache", help="Every object of the cache, of other experiments too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-read every file that DVC recorded.

    In cache and workspace; exit 1 if any rotted.

    Example: doseledger verify . --whole-cache
    """
    from doseledger.ledger.bundle.bitrot import verify_objects, verify_recorded
    from doseledger.ledger.provenance.dvc_project import cache_folder

    cache = cache_folder(root)
    if cache is None:
        raise BadInput(f"{root}: no DVC project; name the project's root")
    report = verify_recorded(root, cache, tell)
    findings, read = list(report.findings), f"{report.n_read} copies of {report.n_files} recorded files"
    content = {"ok": not findings, **report.as_dict()}
    if whole_cache:
        objects = verify_objects(cache)
        findings += objects.findings
        read += f" and {objects.n_read} objects of the cache"
        content |= {"ok": not findings, "objects": objects.as_dict()}
    absent = f"; {len(report.absent)} are not here (`dvc pull`)" if report.absent else ""
    show(content, as_json, "\n".join([*findings, f"read {read}{absent}; {len(findings)} rotted or changed"]))
    if findings:
        raise GateFailed(f"{len(findings)} file(s) are not what DVC recorded; see above")


@app.command(rich_help_panel=JUDGE)
@audited("parity", inputs=("a", "b", "contract"), outputs=("out", "findings"), reads="both data sets")
def parity(
    a: Annotated[Path, typer.Argument(help="The reference: a folder of NPZ files.")],
    b: Annotated[Path, typer.Argument(help="The other.")],
    contract: Annotated[Path, typer.Option(help="The YAML that says what their arrays are.")],
    out: Annotated[Path, typer.Option(help="Folder for parity.md, parity.json, statistics.csv and pairs.csv.")],
    limit: Annotated[int | None, typer.Option(help="Look at the first so many files only.", min=1)] = None,
    scenario: Annotated[str, typer.Option(help="An identifier of your own, kept in page and JSON.")] = "",
    gate: Annotated[bool, typer.Option("--gate", help="Exit 1 beyond the contract's limits.")] = False,
    findings: Findings = None,
    templates: Templates = None,
    as_json: Json = False,
) -> None:
    """Compare two data sets, file by file.

    Statistics of every array, and how alike images are.

    Example: doseledger parity data/predictions/phantom/dose_unet data/predictions/phantom/dose_unet_large
    --contract validation/contracts/prediction.yaml --out parity/ --gate
    """
    from doseledger.gates.parity import judge_parity
    from doseledger.ledger.bundle.record import check_scenario
    from doseledger.parity.compare import compare_sets
    from doseledger.parity.contract import load_contract
    from doseledger.report.parity_page import write_parity

    if findings is not None and not gate:
        raise BadInput("--findings holds the gate's verdict: give --gate as well")
    if gate and limit is not None:
        raise BadInput("--gate judges all files: leave --limit out, or leave --gate out for a look at some")
    rules = load_contract(contract)
    result = compare_sets((a, b), rules, limit=limit, scenario=check_scenario(scenario), tell=tell)
    verdict = judge_parity(result.pairs, result.unpaired, rules) if gate else None
    write_parity(out, result, verdict, templates or project().layout.templates)
    if verdict is not None:
        enforce_shown(verdict, findings, as_json)
        return
    equal = sum(bool(row["equal"]) for row in result.pairs)
    text = f"{result.n_compared} file(s): {equal} of {len(result.pairs)} arrays equal; see {out / 'parity.md'}"
    counts = {"n_compared": result.n_compared, "n_pairs": len(result.pairs), "n_equal": equal}
    show({**counts, "unpaired": result.unpaired}, as_json, "\n".join([*result.unpaired, text]))
