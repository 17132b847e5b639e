"""Commands that compare: two models, pooled runs, goals of other fractions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import this_machine
from doseledger.cli.record.runs import metrics_of
from doseledger.cli.shared import JUDGE, Cohort, Json, Protocol, drawn, project, show
from doseledger.core.errors import BadInput, GateFailed

app = typer.Typer()
goals_app = typer.Typer(no_args_is_help=True, help="Files of clinical goals.")
app.add_typer(goals_app, name="goals", rich_help_panel=JUDGE)
# The bootstrap is drawn with this unless another is asked for: the same tables always give the same interval.
DRAW_SEED = 20250101
RUN = "A model, an archived run, or a folder of tables."


@app.command(rich_help_panel=JUDGE)
def compare(
    first: Annotated[str, typer.Argument(help=RUN)],
    second: Annotated[str, typer.Argument(help="Another, on the same test cases.")],
    cohort: Cohort = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown table to write.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = DRAW_SEED,
    as_json: Json = False,
) -> None:
    """Compare two models case by case, with intervals.

    Example: doseledger compare dose_unet dose_unet_large --json
    """
    import numpy as np

    from doseledger.core.files import write_text
    from doseledger.evaluate.compare import compare_models, describe_comparison

    tables = [metrics_of(name, cohort) for name in (first, second)]
    found = compare_models(tables[0], tables[1], np.random.default_rng(seed))
    if markdown is not None:
        write_text(markdown, "\n".join(describe_comparison(found, (first, second))) + "\n")
    show(found, as_json, "\n".join(describe_comparison(found, (first, second), drawn)))


@app.command(rich_help_panel=JUDGE)
def pool(
    runs: Annotated[list[str], typer.Argument(help="DVC experiments, tags, branches; or folders of tables.")],
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Folder of each run's predictions, where runs are folders of tables.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of experiments; the only one of the settings if absent.")] = None,
    cohort: Cohort = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown table to write.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = DRAW_SEED,
    as_json: Json = False,
) -> None:
    """Pool seeds on one test set, or folds.

    A case that any of the models has seen is refused.

    Example: doseledger pool fold-0 fold-1 fold-2
    """
    from tempfile import TemporaryDirectory

    import numpy as np

    from doseledger.core.files import write_text
    from doseledger.evaluate.pooling import EvaluatedRun, describe_pool, pool_runs
    from doseledger.ledger.runs.recorded_run import recorded_run

    folders = [Path(name) for name in runs if (Path(name) / "cases.csv").is_file()]
    if folders and (len(runs) != len(folders) or len(folders) != len(predictions or [])):
        raise BadInput(
            f"{len(runs)} runs, {len(folders)} of them folders of tables, and {len(predictions or [])} folders of "
            "predictions; give folders alone, and --predictions once a run"
        )
    with TemporaryDirectory() as fetched:
        if folders:
            evaluated = [EvaluatedRun(*pair) for pair in zip(folders, predictions or [], strict=True)]
        else:
            at = project(cohort)
            if model is None and len(at.settings.models) > 1:
                raise BadInput(f"name one --model of {', '.join(at.settings.models)}")
            paths, root = at.layout.model(model or at.settings.models[0]), this_machine().root
            evaluated = [recorded_run(root, paths, name, Path(fetched) / str(n)) for n, name in enumerate(runs)]
        found = pool_runs(evaluated, np.random.default_rng(seed))
    if markdown is not None:
        write_text(markdown, "\n".join(describe_pool(found)) + "\n")
    show(found, as_json, "\n".join(describe_pool(found, drawn)))


@goals_app.command("lint")
def lint_goals(
    files: Annotated[list[Path], typer.Argument(help="Files of clinical goals.")],
    protocol: Protocol = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with files of clinical goals.

    Example: doseledger goals lint validation/cohorts/prostate/goals.yaml
    """
    from doseledger.evaluate.files.goals import lint_goal_file

    found = {str(path): lint_goal_file(path, protocol or path.with_name("protocol.yaml")) for path in files}
    lines = [f"{path}: {fault}" for path, faults in found.items() for fault in faults]
    sound = [f"{path}: sound" for path, faults in found.items() if not faults]
    show(found, as_json, "\n".join([*lines, *sound]))
    if lines:
        raise GateFailed(f"{len(lines)} fault(s) in {len(files) - len(sound)} of {len(files)} files of goals")


@goals_app.command("convert")
def convert_goals(
    file: Annotated[Path, typer.Argument(help="File of clinical goals.")],
    out: Annotated[Path, typer.Argument(help="File to write; its stem is the new set's name.")],
    fractions: Annotated[int, typer.Option(help="For how many fractions the goals are wanted.", min=1)],
    alpha_beta: Annotated[list[str], typer.Option(help="Structure and its α/β in Gy: Rectum=3. Once a structure.")],
    keep: Annotated[list[str] | None, typer.Option(help="Structure whose goals stay as they are.")] = None,
    from_fractions: Annotated[
        int | None, typer.Option(help="For which they were published; without it their doses are EQD2.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert goals to another number of fractions.

    By the linear-quadratic model (EQD2).

    Example: doseledger goals convert quantec.yaml quantec_28.yaml --fractions 28 --alpha-beta Rectum=3
    --alpha-beta Bladder=5 --keep PTV70
    """
    from doseledger.dosimetry.fractionation import parse_alpha_beta
    from doseledger.evaluate.files.goals import convert_goal_file, goals_as_yaml

    ratios = parse_alpha_beta(alpha_beta)
    kept = frozenset(keep or [])
    goals = convert_goal_file(file, out, fractions, ratios, keep=kept, from_fractions=from_fractions)
    show(goals.model_dump(mode="json"), as_json, goals_as_yaml(goals).rstrip("\n"))
