"""Commands of the gates: data, drill, drift, probes of stacks and metadata, goals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import (
    GATES,
    Cohort,
    Json,
    ScaleAt,
    project,
    show,
    show_verdict,
    stage,
    tell,
    write_verdict_of,
)
from doseledger.core.errors import BadInput

if TYPE_CHECKING:
    from doseledger.gates.verdict import Verdict

app = typer.Typer()
check_app = typer.Typer(no_args_is_help=True, help="Judge data; exit 1 if unfit.")
app.add_typer(check_app, name="check", rich_help_panel=GATES)

Findings = Annotated[Path | None, typer.Option(help="Findings to write as JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of the probe's folds.")]
# The same stack or cohort always gives the same verdict, and the same drill.
PROBE_SEED = 20250801


def enforce_shown(verdict: Verdict, findings: Path | None, as_json: bool) -> None:
    """Show a verdict that no stage depends on, and fail with it."""
    from doseledger.core.files import write_json
    from doseledger.gates.verdict import enforce, verdict_as_json

    if findings is not None:
        write_json(findings, verdict_as_json(verdict))
    show_verdict(verdict, as_json)
    enforce(verdict, findings)


@check_app.command("data")
@audited(
    "check data",
    inputs=("cases_csv", "splits", "protocol", "suite", "thresholds|cohorts", "test_set", "params"),
    outputs=("data_verdict", "data_page"),
    reads="all",
)
def check_data(cohort: Cohort = None, scale: ScaleAt = None, as_json: Json = False) -> None:
    """Judge a cohort before anything trains on it.

    Example: doseledger check data
    """
    from doseledger.gates.data.cohort import judge_cohort
    from doseledger.gates.verdict import enforce
    from doseledger.report.gate_pages import write_page

    at = stage("check_data", cohort)
    layout, accepted = at.layout, at.settings.ingest.accept_failed
    verdict = judge_cohort(layout, accepted, scale=at.settings.scale.asked(scale), tell=tell)
    write_page(verdict, layout.templates / "data_findings.html.j2", layout.data_page)
    write_verdict_of(verdict, layout.data_verdict, as_json)
    enforce(verdict, layout.data_verdict.findings)


@app.command(rich_help_panel=GATES)
@audited(
    "drift",
    inputs=("cases_csv", "splits", "protocol", "thresholds|cohorts", "params"),
    outputs=("drift_verdict", "drift_page"),
    reads="train and test",
)
def drift(cohort: Cohort = None, scale: ScaleAt = None, as_json: Json = False) -> None:
    """Judge whether test cases are like the training's.

    The verdict goes into each model's; `check drift` judges new cases.

    Example: doseledger drift
    """
    from doseledger.gates.drift.judge import judge_drift
    from doseledger.report.gate_pages import write_page

    at = stage("drift", cohort)
    layout, settings = at.layout, at.settings
    at_scale = settings.scale.asked(scale)
    verdict = judge_drift(layout, fold=settings.fold, repeat=settings.repeat, scale=at_scale, tell=tell)
    write_page(verdict, layout.templates / "drift.html.j2", layout.drift_page)
    write_verdict_of(verdict, layout.drift_verdict, as_json)


@app.command(rich_help_panel=GATES)
@audited(
    "drill",
    inputs=("cases_csv", "splits", "protocol", "suite", "thresholds|cohorts", "params"),
    outputs=("drill",),
    reads="a sample of all",
)
def drill(
    cohort: Cohort = None,
    cases: Annotated[int, typer.Option(help="How many sound cases are copied.", min=1)] = 3,
    fault: Annotated[
        list[str] | None, typer.Option(help="Only this fault; repeatable. Then nothing is written.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = PROBE_SEED,
    scale: ScaleAt = None,
    as_json: Json = False,
) -> None:
    """Measure from which size on the gates see faults.

    Faults of rising size are put into copies of the cohort's own cases; the data report shows it.

    Example: doseledger drill
    """
    from doseledger.core.files import write_json
    from doseledger.core.text.sheet import as_markdown
    from doseledger.gates.drill.cohort import drill as drill_cohort
    from doseledger.report.tables.drill_tables import drill_table

    at = project(cohort)
    at_scale = at.settings.scale.asked(scale)
    found = drill_cohort(at.layout, cases, fault or (), seed, scale=at_scale, tell=tell)
    if not fault:
        write_json(at.layout.drill, found)
        tell(f"wrote {at.layout.drill}; `dvc repro report_data` shows it")
    table = drill_table(found)
    show(found, as_json, f"{as_markdown(table)}\n{table.note}")


@check_app.command("staged")
def check_staged(as_json: Json = False) -> None:
    """Refuse staged patients, models and pages.

    By where a file lies, and by what it is. A hook of Git calls it: docs/how-to/install.md.

    Example: doseledger check staged
    """
    from dataclasses import asdict

    from doseledger.core.errors import GateFailed
    from doseledger.ledger.provenance.staged import staged_data

    found = staged_data(project().layout.root)
    lines = [f"{file.path}: {file.why}" for file in found]
    show(
        [asdict(file) for file in found],
        as_json,
        "\n".join(lines) or "nothing staged is a patient's, a model or a page",
    )
    if found:
        raise GateFailed(
            f"{len(found)} staged file(s) may hold patients, models or pages, and a commit keeps them for ever: `git "
            "restore --staged FILE`, and give data to DVC. One that a person has looked at: `git commit --no-verify`"
        )


@check_app.command("code")
def check_code(as_json: Json = False) -> None:
    """Say whether reports/code is of this code.

    Where it is not, the next `dvc repro` writes it anew. A hook of Git calls it.

    Example: doseledger check code
    """
    from doseledger.core.errors import GateFailed
    from doseledger.ledger.provenance.stages import stale_code

    at = project()
    stale = [str(path) for path in stale_code(at.layout, at.settings)]
    show(stale, as_json, "\n".join(stale) or "reports/code is of this code")
    if stale:
        raise GateFailed(f"{len(stale)} file(s) of reports/code are of other code; `dvc repro code`, and stage them")


@check_app.command("drift")
@audited(
    "check drift",
    inputs=("new", "splits", "protocol", "thresholds|cohorts", "params"),
    outputs=("findings", "html", "markdown"),
    reads="the new cases and train",
)
def check_drift(
    new: Annotated[Path, typer.Argument(help="Folder of new cases.")],
    cohort: Cohort = None,
    findings: Findings = None,
    html: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The same as Markdown.")] = None,
    scale: ScaleAt = None,
    as_json: Json = False,
) -> None:
    """Judge whether new cases are like those trained on.

    Example: doseledger check drift new_cases/ --html drift.html
    """
    from doseledger.core.files import write_text
    from doseledger.gates.drift.judge import judge_drift
    from doseledger.report.gate_pages import describe_drift, write_page

    at = project(cohort)
    settings, at_scale = at.settings, at.settings.scale.asked(scale)
    verdict = judge_drift(at.layout, new=new, fold=settings.fold, repeat=settings.repeat, scale=at_scale, tell=tell)
    if html is not None:
        write_page(verdict, at.layout.templates / "drift.html.j2", html)
    if markdown is not None:
        write_text(markdown, "\n".join(describe_drift(verdict)) + "\n")
    enforce_shown(verdict, findings, as_json)


@check_app.command("stack")
@audited("check stack", inputs=("stack", "thresholds|cohorts"), outputs=("findings",), reads="the stack")
def check_stack(
    stack: Annotated[Path, typer.Argument(help="NPZ: images (n, [z,] y, x), labels (n,), groups.")],
    region: Annotated[str, typer.Option(help="core, border or both.")] = "both",
    cohort: Cohort = None,
    findings: Findings = None,
    seed: Seed = PROBE_SEED,
    as_json: Json = False,
) -> None:
    """Judge whether labels show in core or border alone.

    Example: doseledger check stack images.npz --region border --json
    """
    import numpy as np

    from doseledger.gates.drift.stacks import REGIONS, judge_stack
    from doseledger.gates.limits import load_thresholds

    regions = tuple(name for name in REGIONS if region in (name, "both"))
    if not regions:
        raise BadInput(f"region {region!r}: wanted {', '.join(REGIONS)} or both")
    limits = load_thresholds(project(cohort).layout).probes
    verdict = judge_stack(stack, regions, limits, np.random.default_rng(seed))
    enforce_shown(verdict, findings, as_json)


@check_app.command("metadata")
@audited(
    "check metadata",
    inputs=("cases_csv", "protocol", "thresholds|cohorts", "params"),
    outputs=("findings",),
    reads="all",
)
def check_metadata(
    cohort: Cohort = None,
    findings: Findings = None,
    scale: ScaleAt = None,
    seed: Seed = PROBE_SEED,
    as_json: Json = False,
) -> None:
    """Judge if site, scanner or order show in inputs.

    Example: doseledger check metadata
    """
    import numpy as np

    from doseledger.core.project.protocol import load_protocol
    from doseledger.gates.drift.metadata import judge_metadata
    from doseledger.gates.limits import load_thresholds

    at = project(cohort)
    layout, rng = at.layout, np.random.default_rng(seed)
    protocol, limits = load_protocol(layout.protocol), load_thresholds(layout).probes
    at_scale = at.settings.scale.asked(scale)
    verdict = judge_metadata(layout.cases, protocol, limits, rng, scale=at_scale, tell=tell)
    enforce_shown(verdict, findings, as_json)
