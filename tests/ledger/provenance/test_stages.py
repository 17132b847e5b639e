"""What stages depend on besides data: files of code and settings, and a stage that refuses when they are stale."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.pipeline import COHORT, MODELS, Resolved, resolve_pipeline

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import read_json, sha256_of_bytes, write_json, write_text
from doseledger.core.project.layout import Layout
from doseledger.core.settings import Settings, load_settings
from doseledger.ledger.provenance import stages as module
from doseledger.ledger.provenance.recipes import put_recipe
from doseledger.ledger.provenance.recorded import stage_names
from doseledger.ledger.provenance.stages import (
    base_files,
    code_files,
    code_of,
    cohort_files,
    model_files,
    require_stage,
    write_files,
)

# Stages whose command checks what it depends on, and whether they are a model's.
OF_COHORT = ("ingest", "split", "check_data", "drift", "report_data", "phantom")
OF_MODEL = ("preflight", "train", "predict", "evaluate", "shortcuts", "deliver", "judge", "report", "gate")


MEANED = ("dose_trees_beams", "dose_unet_beams")


@pytest.fixture(scope="module")
def resolved(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resolved]:
    return resolve_pipeline(repository, tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def layout(repository: Path, tmp_path: Path) -> Layout:
    """A project with three models, each of which starts from the one before it."""
    shutil.copyfile(repository / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(repository / "models/recipes", tmp_path / "models/recipes")
    shutil.copytree(repository / "validation/cohorts", tmp_path / "validation/cohorts")
    found = Layout(tmp_path, COHORT)
    put_recipe(found, "dose_diffusion")
    return found


def settings_of(layout: Layout) -> Settings:
    return load_settings(layout.params)


@pytest.fixture
def ready(layout: Layout) -> Layout:
    """The same, with every file that a stage depends on, and the base trained."""
    settings = settings_of(layout)
    for base in MODELS[:-1]:
        write_text(layout.model(base).checkpoint, "weights")
    write_files(code_files(layout, settings) | cohort_files(layout))
    for model in MODELS:
        at = layout.model(model)
        write_files(model_files(at, settings) | base_files(at, settings))
    return layout


def names(layout: Layout, files: Any) -> set[str]:
    return {path.relative_to(layout.root).as_posix() for path in files}


def test_the_commands_write_what_the_pipeline_says_that_they_write(
    ready: Layout, resolved: dict[str, Resolved]
) -> None:
    settings = settings_of(ready)
    assert names(ready, cohort_files(ready)) == resolved[f"settings@{COHORT}"].outs
    for model in MODELS:
        files = model_files(ready.model(model), settings)
        assert names(ready, files) == resolved[f"model_settings@{COHORT}-{model}"].outs
    based = base_files(ready.model("dose_diffusion"), settings)
    assert names(ready, based) == resolved["base@dose_diffusion"].outs
    wanted = {dep for stage in resolved.values() for dep in stage.deps if dep.startswith("reports/code/")}
    assert names(ready, code_files(ready, settings)) == wanted


@pytest.mark.parametrize("model", [None, *MODELS])
def test_a_stage_checks_the_very_files_that_the_pipeline_says_it_depends_on(
    ready: Layout, resolved: dict[str, Resolved], model: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def spy(path: Path) -> Any:
        read.append(path)
        return read_json(path)

    monkeypatch.setattr(module, "read_json", spy)
    settings = settings_of(ready)
    for stage in OF_COHORT if model is None else OF_MODEL:
        read.clear()
        require_stage(ready, settings, stage, model)
        of = f"{COHORT}-{model}" if model else COHORT
        deps = resolved[stage if stage == "phantom" else f"{stage}@{of}"].deps
        folders = {dep for dep in deps if dep.startswith("reports/settings/") and not dep.endswith(".json")}
        files = {dep for dep in deps if dep.startswith(("reports/code/", "reports/settings/"))} - folders
        found = names(ready, read)
        # Of the folder of what training starts from, every file that is there.
        files |= {name for folder in folders for name in names(ready, (ready.root / folder).iterdir())}
        assert found == files, stage


def test_the_stages_of_a_run_are_those_of_the_pipeline(resolved: dict[str, Resolved]) -> None:
    for model in MODELS:
        assert set(stage_names(COHORT, model)) <= set(resolved)
    assert stage_names(COHORT, "dose_unet")[-2:] == [f"report@{COHORT}-dose_unet", f"gate@{COHORT}-dose_unet"]


@pytest.mark.parametrize(
    ("stage", "model", "file"),
    [
        ("split", None, "reports/code/split.json"),
        ("ingest", None, "reports/settings/phantom/protocol.json"),
        ("check_data", None, "reports/settings/phantom/data.json"),
        ("drift", None, "reports/settings/phantom/drift.json"),
        ("report_data", None, "reports/settings/phantom/explained.json"),
        ("phantom", None, "reports/settings/phantom/goals.json"),
        ("train", "dose_unet", "reports/code/dose_unet/train.json"),
        ("train", "dose_unet", "reports/settings/phantom/dose_unet/train.json"),
        ("train", "dose_unet", "reports/settings/phantom/dose_unet/start/start.json"),
        ("train", "dose_diffusion", "reports/settings/phantom/dose_diffusion/start/base.json"),
        ("preflight", "dose_unet", "reports/settings/phantom/dose_unet/preflight.json"),
        ("predict", "dose_unet", "reports/settings/phantom/dose_unet/predict.json"),
        ("shortcuts", "dose_unet", "reports/settings/phantom/dose_unet/predict.json"),
        ("evaluate", "dose_unet", "reports/settings/phantom/goals.json"),
        ("judge", "dose_unet", "reports/settings/phantom/dose_unet/judge.json"),
        ("report", "dose_unet", "reports/code/report.json"),
        ("gate", "dose_unet", "reports/code/gate.json"),
    ],
)
def test_a_stage_refuses_an_absent_and_a_stale_file(ready: Layout, stage: str, model: str | None, file: str) -> None:
    settings, path = settings_of(ready), ready.root / file
    require_stage(ready, settings, stage, model)
    write_json(path, {"doseledger.other": "0" * 64})
    with pytest.raises(NotReady, match=rf"{path.name} is not what code and settings say now; run `dvc repro`"):
        require_stage(ready, settings, stage, model)
    path.unlink()
    with pytest.raises(NotReady, match=rf"no .*{path.name}; run `dvc repro`, whose first stages write what others"):
        require_stage(ready, settings, stage, model)


def test_what_a_stage_does_not_depend_on_may_be_stale(ready: Layout) -> None:
    settings = settings_of(ready)
    write_json(ready.settings / "goals.json", {})
    write_json(ready.code / "evaluate.json", {})
    write_json(ready.model("dose_diffusion").settings / "train.json", {})
    require_stage(ready, settings, "split")
    require_stage(ready, settings, "train", "dose_unet")
    with pytest.raises(NotReady, match=r"evaluate\.json is not what code and settings say now"):
        require_stage(ready, settings, "evaluate", "dose_unet")


def test_a_change_of_the_settings_makes_the_stages_of_that_model_stale(ready: Layout) -> None:
    text = ready.params.read_text()
    write_text(ready.params, text.replace("    max_epochs: 3\n", "    max_epochs: 7\n"))
    settings = settings_of(ready)
    with pytest.raises(NotReady, match=r"dose_unet/train\.json is not what"):
        require_stage(ready, settings, "train", "dose_unet")
    require_stage(ready, settings, "preflight", "dose_unet")
    require_stage(ready, settings, "predict", "dose_unet")
    require_stage(ready, settings, "train", "dose_diffusion")


Files = dict[Path, Any]


def everything(layout: Layout) -> Files:
    """All files of settings as they would be written now."""
    settings = settings_of(layout)
    found = dict(cohort_files(layout))
    for model in MODELS:
        found |= model_files(layout.model(model), settings)
    return found


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    write_text(path, text.replace(old, new, 1))


def changed_by(layout: Layout, change: Callable[[], None]) -> set[str]:
    """Which files of settings an edit changes, relative to the folder of settings."""
    before = everything(layout)
    change()
    after = everything(layout)
    assert after.keys() == before.keys()
    return {path.relative_to(layout.settings).as_posix() for path in after if after[path] != before[path]}


@pytest.mark.parametrize(
    "file",
    ["params.yaml", *(f"validation/cohorts/phantom/{name}.yaml" for name in ("protocol", "goals", "thresholds"))],
)
def test_an_edit_of_a_comment_changes_no_file(layout: Layout, file: str) -> None:
    path = layout.root / file

    def comment() -> None:
        write_text(path, f"# a word more\n{path.read_text()}\n# and another\n")

    assert changed_by(layout, comment) == set()


def test_an_edit_of_where_a_limit_comes_from_changes_only_what_is_shown(layout: Layout) -> None:
    thresholds = layout.cohorts / "phantom/thresholds.yaml"
    source = "source: physics says 1; the shipped recipe 0.95, a dose that"
    assert changed_by(layout, lambda: edited(thresholds, source, f"{source} surely")) == {"explained.json"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        (
            "validation/cohorts/phantom/protocol.yaml", "  - 3.0\n", "  - 3.5\n",
            {"protocol.json", "explained.json"},
        ),
        (
            "validation/cohorts/phantom/thresholds.yaml", "max_wrong_percent: 1.0", "max_wrong_percent: 2.0",
            {"data.json", "explained.json"},
        ),
        (
            "validation/cohorts/phantom/thresholds.yaml", "far_ratio: 1.5", "far_ratio: 2.5",
            {"drift.json", "explained.json"},
        ),
        (
            "validation/cohorts/phantom/thresholds.yaml", "limit: 4.5", "limit: 5.0",
            {"explained.json", *(f"{m}/{name}.json" for m in MODELS for name in ("judge", "preflight"))},
        ),
        (
            "validation/cohorts/phantom/thresholds.yaml", "max_loss_ratio: 0.9", "max_loss_ratio: 0.8",
            {"explained.json", *(f"{m}/preflight.json" for m in MODELS)},
        ),
        (
            "params.yaml", "\nlr: 0.002\n", "\nlr: 0.003\n",
            {f"{m}/{name}.json" for m in MODELS for name in ("preflight", "train")},
        ),
        ("params.yaml", "    max_epochs: 3\n", "    max_epochs: 7\n", {"dose_unet/train.json"}),
        (
            "params.yaml", "    target_weight: 1.0\n", "    target_weight: 5.0\n",
            {"dose_unet/preflight.json", "dose_unet/train.json"},
        ),
        ("params.yaml", "    overlap: 0.25\n", "    overlap: 0.5\n", {f"{m}/predict.json" for m in MODELS[1:]}),
        ("params.yaml", "    samples: 8\n", "    samples: 9\n", {"dose_diffusion/predict.json"}),
        (
            "params.yaml", "  init_from: none\n", "  init_from: dose_unet@v0.1.0\n",
            {f"{m}/start/start.json" for m in MODELS[1:]},
        ),
        ("params.yaml", "  checkpoint_steps: 200\n", "  checkpoint_steps: 5\n", set()),
        ("params.yaml", "  figure_dpi: 300\n", "  figure_dpi: 150\n", set()),
    ],
)  # fmt: skip
def test_an_edit_changes_the_files_of_what_it_concerns_and_no_other(
    layout: Layout, file: str, old: str, new: str, changed: set[str]
) -> None:
    assert changed_by(layout, lambda: edited(layout.root / file, old, new)) == changed


def test_a_cohort_that_is_like_another_has_that_ones_files(layout: Layout) -> None:
    prostate = Layout(layout.root, "prostate")
    own, theirs = cohort_files(prostate), cohort_files(layout)
    assert own[prostate.settings / "drift.json"] == theirs[layout.settings / "drift.json"]
    # Its own limits of models hold for it all the same.
    at, other = prostate.model("dose_unet"), layout.model("dose_unet")
    settings = settings_of(layout)
    judged = model_files(at, settings)[at.settings / "judge.json"]
    assert judged["metrics"] != model_files(other, settings)[other.settings / "judge.json"]["metrics"]


def test_files_of_code_are_of_the_models_that_are_trained(layout: Layout) -> None:
    settings = settings_of(layout)
    found = names(layout, code_files(layout, settings))
    assert {"reports/code/dose_unet/train.json", "reports/code/dose_diffusion/train.json"} <= found
    alone = settings.model_copy(update={"models": ["dose_unet"], "bases": {}})
    assert not [name for name in names(layout, code_files(layout, alone)) if "dose_diffusion" in name]


def test_a_model_reaches_the_code_of_its_own_kind_and_not_of_another() -> None:
    dose, diffusion = code_of("train", "dose"), code_of("train", "diffusion")
    assert "doseledger.learn.families.dose" in dose
    assert "doseledger.learn.families.diffusion" not in dose
    assert "doseledger.learn.families.diffusion" in diffusion
    assert "doseledger.learn.predict.draws" not in code_of("predict", "dose")
    assert "doseledger.learn.predict.draws" in code_of("predict", "diffusion")


def test_a_model_that_starts_from_nothing_has_no_base(layout: Layout) -> None:
    settings = settings_of(layout)
    assert base_files(layout.model("dose_trees"), settings) == {}
    at = layout.model("dose_trees")
    assert model_files(at, settings)[at.start / "start.json"] == {"starts_from": None}


def test_a_base_is_named_by_its_bytes(layout: Layout) -> None:
    settings, at = settings_of(layout), layout.model("dose_diffusion")
    assert model_files(at, settings)[at.start / "start.json"] == {"starts_from": "dose_unet"}
    with pytest.raises(NotReady, match="dose_diffusion starts from dose_unet, which is not trained"):
        base_files(at, settings)
    write_text(layout.model("dose_unet").checkpoint, "weights")
    wanted = {"model": "dose_unet", "sha256": sha256_of_bytes(b"weights")}
    assert base_files(at, settings) == {at.start / "base.json": wanted}


def test_a_base_that_was_trained_again_makes_what_starts_from_it_stale(ready: Layout) -> None:
    settings = settings_of(ready)
    write_text(ready.model("dose_unet").checkpoint, "other weights")
    for stage in ("preflight", "train"):
        with pytest.raises(NotReady, match=r"base\.json is not what code and settings say now"):
            require_stage(ready, settings, stage, "dose_diffusion")
        require_stage(ready, settings, stage, "dose_unet")
    # Its prediction rests on its own checkpoint alone.
    require_stage(ready, settings, "predict", "dose_diffusion")


@pytest.fixture
def meaned(ready: Layout) -> Layout:
    """The same, with a mean of trees and a network, whose files of code and settings are there."""
    for name in (*MEANED, "dose_mean"):
        put_recipe(ready, name)
        write_text(ready.model(name).checkpoint, "weights")
    settings, at = settings_of(ready), ready.model("dose_mean")
    write_files(code_files(ready, settings) | model_files(at, settings) | base_files(at, settings))
    return ready


@pytest.mark.parametrize("part", MEANED)
def test_a_part_that_was_trained_again_makes_its_mean_stale_and_an_absent_one_is_told(
    meaned: Layout, part: str
) -> None:
    settings = settings_of(meaned)
    require_stage(meaned, settings, "train", "dose_mean")
    write_text(meaned.model(part).checkpoint, "other weights")
    for stage in ("preflight", "train"):
        with pytest.raises(NotReady, match=rf"part_{part}\.json is not what code and settings say now"):
            require_stage(meaned, settings, stage, "dose_mean")
    require_stage(meaned, settings, "predict", "dose_mean")
    meaned.model(part).checkpoint.unlink()
    with pytest.raises(NotReady, match=f"dose_mean starts from {part}, which is not trained"):
        require_stage(meaned, settings, "train", "dose_mean")


def test_a_model_without_a_block_is_told(layout: Layout) -> None:
    with pytest.raises(BadInput, match=r"params\.yaml has no block 'nobody'; model blocks there: dose_diffusion"):
        require_stage(layout, settings_of(layout), "train", "nobody")


def test_a_part_is_told_before_the_others_are_trained(meaned: Layout) -> None:
    settings, at = settings_of(meaned), meaned.model("dose_mean")
    first, other = MEANED
    meaned.model(other).checkpoint.unlink()
    assert list(base_files(at, settings, first)) == [at.start / f"part_{first}.json"]
    assert base_files(at, settings, "dose_diffusion") == {}
    with pytest.raises(NotReady, match=f"dose_mean starts from {other}"):
        base_files(at, settings)
