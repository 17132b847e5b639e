"""The project: what its stages depend on, and ready-made models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doseledger.cli.audited import audited
from doseledger.cli.shared import START, Cohort, Json, project, show, tell

app = typer.Typer()
recipe_app = typer.Typer(no_args_is_help=True, help="Ready-made models.")
app.add_typer(recipe_app, name="recipe", rich_help_panel=START)


@app.command("init", rich_help_panel=START)
def init(folder: Annotated[Path, typer.Argument(help="A new folder.")], as_json: Json = False) -> None:
    """Lay out a new project: pipeline, settings, limits.

    For a package that was installed with pip; a clone is a project itself.

    Example: doseledger init my-project
    """
    from doseledger.ledger.provenance.new_project import make_project

    written = make_project(folder)
    text = (
        f"{len(written)} files in {folder}; next: cd {folder}, choose `cohort` in params.yaml, commit, `dvc repro`. "
        "After an update of the package: `dvc repro --force code`"
    )
    show([path.as_posix() for path in written], as_json, text)


@app.command(rich_help_panel=START)
def code(as_json: Json = False) -> None:
    """Write hashes of the code that stages reach.

    Example: doseledger code
    """
    from doseledger.ledger.provenance.stages import code_files, write_files

    at = project()
    # This stage is the first: a misspelt cohort is told here, with the nearest, before DVC misses its files.
    _ = at.layout.folders
    files = code_files(at.layout, at.settings)
    # Of a model that is no longer trained nothing shall stay.
    for path in set(at.layout.code.rglob("*.json")) - set(files):
        path.unlink()
    write_files(files)
    found = {str(path): len(modules) for path, modules in files.items()}
    show(found, as_json, f"{len(files)} files in {at.layout.code}")


@app.command(rich_help_panel=START)
def settings(
    model: Annotated[str | None, typer.Argument(help="A model; else the cohort's own.")] = None,
    cohort: Cohort = None,
    as_json: Json = False,
) -> None:
    """Write the settings of a cohort or model, resolved.

    Example: doseledger settings dose_unet
    """
    from doseledger.ledger.provenance.stages import cohort_files, model_files, starts_of, write_files

    at = project(cohort)
    if model is None:
        files = cohort_files(at.layout)
    else:
        paths = at.layout.model(model)
        files = model_files(paths, at.settings)
        # Of what it no longer starts from nothing shall stay.
        for path in set(paths.start.glob("*.json")) - {*files, *starts_of(paths, at.settings)}:
            path.unlink()
    write_files(files)
    show([str(path) for path in files], as_json, "\n".join(str(path) for path in files))


@app.command(rich_help_panel=START)
def why(
    cohort: Cohort = None,
    plan: Annotated[bool, typer.Option("--plan", help="A line a stage, with time and disk; no reasons.")] = False,
    as_json: Json = False,
) -> None:
    """Say which stages would run, and why.

    Which line of code or setting changed, what it reaches, and what each stage cost last time.

    Example: doseledger why
    """
    from dataclasses import asdict

    from doseledger.cli.audited import this_machine
    from doseledger.ledger.runs.why import describe_plan, describe_reruns, find_reruns

    at = project(cohort)
    found = find_reruns(at.layout, at.settings, this_machine())
    lines = describe_plan(found, at.layout.root) if plan else describe_reruns(found)
    show([asdict(one) for one in found], as_json, "\n".join(lines))


@app.command(rich_help_panel=START)
def base(
    model: Annotated[str, typer.Argument(help="A name of `bases`, or a mean, in the settings.")],
    part: Annotated[str | None, typer.Option(help="Only this part of a mean.")] = None,
    cohort: Cohort = None,
) -> None:
    """Write which checkpoint a model starts from.

    Example: doseledger base dose_diffusion
    """
    from doseledger.core.errors import BadInput
    from doseledger.ledger.provenance.stages import base_files, write_files

    at = project(cohort)
    files = base_files(at.layout.model(model), at.settings, part)
    if not files:
        found = f"{part} is no part of {model}" if part else f"{model} starts from nothing"
        raise BadInput(f"{found}; `bases` and `part_of` in {at.layout.params} name what starts from a model")
    write_files(files)
    print("\n".join(str(path) for path in files))


@recipe_app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List ready-made models.

    Example: doseledger recipe list
    """
    from doseledger.ledger.provenance.recipes import describe_recipes

    found = describe_recipes(project().layout)
    show(found, as_json, "\n".join(f"{name}: {text}" for name, text in found.items()))


@recipe_app.command("suggest")
@audited("recipe suggest", inputs=("cases_csv", "splits", "params"), outputs=("out",), reads="train")
def suggest_recipe(
    name: Annotated[str, typer.Argument(help="How the model shall be called.")] = "seg_suggested",
    memory_gb: Annotated[float | None, typer.Option(help="Of the GPU; else this machine's GPU, or its CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="File that gets it; models/recipes/NAME.yaml for `use`.")] = None,
    cohort: Cohort = None,
) -> None:
    """Suggest a segmentation model for a cohort.

    Patch, batch and depth follow from the training cases' shapes and voxels and from memory; comments say why.

    Example: doseledger recipe suggest seg_ours --memory-gb 24 --out models/recipes/seg_ours.yaml
    """
    from doseledger.core.errors import BadInput
    from doseledger.core.files import write_text
    from doseledger.learn.recipes.budget import find_budget
    from doseledger.ledger.provenance.recipes import suggest_recipe as suggested

    layout = project(cohort).layout
    text = suggested(layout, name, find_budget(memory_gb))
    if out is None:
        print(text, end="")
        return
    if out.exists():
        raise BadInput(f"{out} is there already; take it away, or choose another name")
    write_text(out, text)
    print(f"{out} written; `doseledger recipe use {name}` puts it into {layout.params}")


@recipe_app.command("use")
@audited("recipe use", inputs=("recipes",), outputs=("params",))
def use_recipe(
    name: Annotated[str, typer.Argument(help="A name of `recipe list`.")],
) -> None:
    """Put a ready-made model into params.yaml.

    Its block is added, and its name to `models`; what it starts from to `bases` or `part_of`.

    Example: doseledger recipe use dose_diffusion
    """
    from doseledger.ledger.provenance.recipes import put_recipe

    layout = project().layout
    for line in put_recipe(layout, name):
        tell(line)
    print(f"{layout.params} trains {name} now")
