"""Where files lie: the layout and dvc.yaml agree, and the project is found from anywhere inside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.pipeline import COHORT, MODELS, Resolved, resolve_pipeline

from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import write_text
from doseledger.core.project.layout import Layout, VerdictPaths, find_root, main_root

# The project's own files, which no stage reads or writes as such.
NO_STAGE = {"root", "pipeline", "lock", "packages", "recipes", "exit_criteria"}
# Files of these folders have no path of their own in the layout.
FOLDERS = ("code", "settings", "templates", "cohorts")
ROOT = Path("/project")


@pytest.fixture(scope="module")
def stages(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resolved]:
    return resolve_pipeline(repository, tmp_path_factory.mktemp("pipeline"))


def paths_of(place: object) -> Iterator[tuple[str, Path]]:
    """Every path that a layout gives, by its attribute."""
    for name, value in vars(place).items():
        if isinstance(value, VerdictPaths):
            yield f"{name}.token", value.token
            yield f"{name}.findings", value.findings
        elif isinstance(value, Path):
            yield name, value


def known_paths() -> dict[str, Path]:
    layout = Layout(ROOT, COHORT)
    found = {name: path for name, path in paths_of(layout) if name not in NO_STAGE}
    for model in MODELS:
        found |= {f"{model}: {name}": path for name, path in paths_of(layout.model(model))}
    return found


def is_ours(path: Path) -> bool:
    """Whether a path of dvc.yaml is one of the layout's, or a file that lies in one of its folders."""
    layout, known = Layout(ROOT, COHORT), set(known_paths().values())
    folders = {getattr(layout, name) for name in FOLDERS}
    folders |= {layout.model(model).metrics for model in MODELS}
    folders |= {layout.model(model).settings for model in MODELS}
    files = {layout.model(model).run / "history.csv" for model in MODELS}
    # The report depends on a model's verdicts as a whole.
    files |= {layout.model(model).model_verdict.token.parent for model in MODELS}
    return path in known | files | {ROOT / "src/doseledger"} or not folders.isdisjoint(path.parents)


def test_every_path_of_the_pipeline_is_one_that_the_layout_gives(stages: dict[str, Resolved]) -> None:
    strangers = {
        name: odd
        for name, stage in stages.items()
        if (odd := sorted(path for path in stage.deps | stage.outs if not is_ours(ROOT / path)))
    }
    assert strangers == {}


def test_every_path_of_the_layout_is_one_of_the_pipeline(stages: dict[str, Resolved]) -> None:
    named = {ROOT / path for stage in stages.values() for path in stage.deps | stage.outs}
    named |= {folder for path in named for folder in path.parents}
    assert [name for name, path in known_paths().items() if path not in named] == []


def test_every_stage_is_there_for_the_cohort_and_for_each_model(stages: dict[str, Resolved]) -> None:
    of_cohort = {name.partition("@")[0] for name in stages if name.endswith(f"@{COHORT}")}
    assert of_cohort == {"settings", "ingest", "split", "physics", "check_data", "drift", "report_data"}
    for model in MODELS:
        of_model = {name.partition("@")[0] for name in stages if name.endswith(f"@{COHORT}-{model}")}
        assert of_model == {
            "model_settings", "preflight", "train", "predict", "evaluate", "shortcuts", "deliver", "judge", "report",
            "gate",
        }  # fmt: skip
    others = {name for name in stages if "@" not in name}
    assert others == {"code", "phantom"}


def test_what_starts_from_a_model_waits_for_its_checkpoint(stages: dict[str, Resolved]) -> None:
    layout = Layout(Path(), COHORT)
    base, other = layout.model("dose_unet"), layout.model("dose_diffusion")
    assert stages["base@dose_diffusion"].deps == {base.checkpoint.as_posix()}
    assert stages["base@dose_diffusion"].outs == {(other.start / "base.json").as_posix()}
    for stage in ("preflight", "train"):
        assert other.start.as_posix() in stages[f"{stage}@{COHORT}-dose_diffusion"].deps
    # As shipped, a network stands on trees, and trees on nothing.
    assert stages["base@dose_unet"].deps == {layout.model("dose_trees").checkpoint.as_posix()}
    assert "base@dose_trees" not in stages


def test_a_mean_waits_for_the_checkpoint_of_each_of_its_parts(repository: Path, tmp_path: Path) -> None:
    parts = ("dose_trees", "dose_unet")
    more = {"models": [*MODELS, "dose_mean"], "part_of": dict.fromkeys(parts, "dose_mean")}
    stages = resolve_pipeline(repository, tmp_path, dose_mean={"kind": "mean"}, **more)
    layout = Layout(Path(), COHORT)
    at = layout.model("dose_mean")
    for part in parts:
        assert stages[f"part@{part}"].deps == {layout.model(part).checkpoint.as_posix()}
        assert stages[f"part@{part}"].outs == {(at.start / f"part_{part}.json").as_posix()}
    for stage in ("preflight", "train"):
        assert at.start.as_posix() in stages[f"{stage}@{COHORT}-dose_mean"].deps


def test_doses_on_predicted_contours_wait_for_both_models(stages: dict[str, Resolved]) -> None:
    layout = Layout(Path(), COHORT)
    dose, drawer = layout.model("dose_unet"), layout.model("dose_diffusion")
    stage = stages["contours@dose_unet"]
    assert stage.outs == {dose.contours.as_posix()}
    assert {dose.predictions.as_posix(), drawer.predictions.as_posix(), dose.checkpoint.as_posix()} <= stage.deps


def test_what_a_stage_writes_no_other_writes(stages: dict[str, Resolved]) -> None:
    outs = [path for stage in stages.values() for path in stage.outs]
    assert len(outs) == len(set(outs))


def make_project(root: Path) -> Path:
    write_text(root / "dvc.yaml", "stages: {}\n")
    write_text(root / "params.yaml", "seed: 1\n")
    return root


def test_the_project_is_found_from_any_folder_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_project(tmp_path / "project")
    inner = root / "data/raw"
    # A pipeline of its own without settings is no project.
    write_text(inner / "dvc.yaml", "stages: {}\n")
    monkeypatch.chdir(root)
    assert find_root() == Path()
    monkeypatch.chdir(inner)
    assert find_root() == Path("../..")
    assert Layout(find_root(), "phantom").cases.resolve() == root / "data/cases/phantom"


def test_the_nearest_project_is_the_one_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path)
    inner = make_project(tmp_path / ".dvc/tmp/exps/standalone/tmpabc")
    monkeypatch.chdir(inner)
    assert find_root().resolve() == inner


def test_outside_a_project_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "dvc.yaml", "stages: {}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotReady, match=r"no dvc\.yaml with a params\.yaml here or in a folder above"):
        find_root()


def test_the_main_repository_is_that_of_dvc_then_of_git_and_a_stages_own_word_counts_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "project/data/raw"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert main_root() == tmp_path / "main"
    monkeypatch.delenv("DVC_ROOT")
    (tmp_path / "project/.git").mkdir()
    assert main_root() == tmp_path / "project"
    # DVC's folder counts before Git's, wherever the two are.
    (tmp_path / ".dvc").mkdir()
    assert main_root() == tmp_path
    (tmp_path / "project/data/.dvc").mkdir()
    assert main_root() == tmp_path / "project/data"


@pytest.mark.parametrize("cohort", [COHORT, "prostate"])
def test_settings_depend_on_the_files_of_their_own_cohort_and_of_the_synthetic_one_alone(
    repository: Path, tmp_path: Path, cohort: str
) -> None:
    # Else an edit to one clinic's protocol would make another cohort, or the demo, stale.
    pipeline = resolve_pipeline(repository, tmp_path, cohort)
    wanted = {f"validation/cohorts/{name}" for name in (cohort, "phantom")}
    for name in (f"settings@{cohort}", *(f"model_settings@{cohort}-{model}" for model in MODELS)):
        assert {path for path in pipeline[name].deps if path.startswith("validation")} == wanted
    others = {path for stage in pipeline.values() for path in stage.deps if path.startswith("validation")}
    assert others == wanted | {f"validation/cohorts/{cohort}/test_set.csv"}


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    """Two cohorts: a whole one, and one like it with goals of its own."""
    folder = tmp_path / "validation/cohorts"
    for name in ("protocol.yaml", "goals.yaml", "suite.json"):
        write_text(folder / "phantom" / name, "{}\n")
    write_text(folder / "clinic/cohort.yaml", "like: phantom\n")
    write_text(folder / "clinic/goals.yaml", "{}\n")
    return folder


def test_files_that_a_cohort_has_not_are_those_of_the_one_that_it_is_like(cohorts: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "clinic")
    assert layout.folders == [cohorts / name for name in ("clinic", "phantom")]
    assert layout.goals == cohorts / "clinic/goals.yaml"
    assert layout.protocol == cohorts / "phantom/protocol.yaml"
    assert layout.suite == cohorts / "phantom/suite.json"
    assert Layout(tmp_path, "phantom").folders == [cohorts / "phantom"]


def test_a_locked_test_set_is_always_the_cohorts_own(cohorts: Path, tmp_path: Path) -> None:
    write_text(cohorts / "phantom/test_set.csv", "pseudonym\n")
    assert Layout(tmp_path, "clinic").test_set == cohorts / "clinic/test_set.csv"


def test_a_file_that_no_cohort_has_is_told(cohorts: Path, tmp_path: Path) -> None:
    (cohorts / "phantom/suite.json").unlink()
    with pytest.raises(BadInput, match=r"clinic and .*phantom: no suite\.json, which every cohort needs"):
        Layout(tmp_path, "clinic").suite  # noqa: B018


@pytest.mark.parametrize("name", ["phantm", "Phantom", "PHANTOMS"])
def test_a_cohort_that_is_not_there_is_told_with_the_nearest(cohorts: Path, tmp_path: Path, name: str) -> None:
    told = rf"cohort '{name}' has no folder in .*; there are clinic, phantom\. Did you mean phantom\?"
    with pytest.raises(BadInput, match=told):
        Layout(tmp_path, name).goals  # noqa: B018
    with pytest.raises(BadInput, match="there are none"):
        Layout(tmp_path / "elsewhere", "phantom").folders  # noqa: B018


@pytest.mark.parametrize("like", ["clinic_2024", "nobody", "clinic"])
def test_a_cohort_can_be_like_the_synthetic_one_alone(cohorts: Path, tmp_path: Path, like: str) -> None:
    # DVC can't follow a chain: an edit further along it would go unnoticed.
    write_text(cohorts / "clinic_2024/protocol.yaml", "{}\n")
    write_text(cohorts / "clinic/cohort.yaml", f"like: {like}\n")
    told = rf"clinic/cohort\.yaml: found `like: {like}`, wanted `like: phantom` .* cohort init NEW --from COHORT"
    with pytest.raises(BadInput, match=told):
        Layout(tmp_path, "clinic").folders  # noqa: B018


def test_the_synthetic_cohort_is_like_none(cohorts: Path, tmp_path: Path) -> None:
    write_text(cohorts / "phantom/cohort.yaml", "like: phantom\n")
    with pytest.raises(BadInput, match=r"phantom/cohort\.yaml: found `like: phantom`"):
        Layout(tmp_path, "phantom").folders  # noqa: B018


@pytest.mark.parametrize("content", ["like: phantom\nextra: 1\n", "phantom\n", "{}\n"])
def test_a_cohort_file_that_says_anything_else_is_refused(cohorts: Path, tmp_path: Path, content: str) -> None:
    write_text(cohorts / "clinic/cohort.yaml", content)
    with pytest.raises(BadInput, match=r"clinic/cohort\.yaml: wanted `like: phantom` and nothing else"):
        Layout(tmp_path, "clinic").folders  # noqa: B018


def test_the_cohorts_that_ship_have_all_their_files(repository: Path) -> None:
    names = sorted(path.name for path in (repository / "validation/cohorts").iterdir() if path.is_dir())
    assert "phantom" in names
    for name in names:
        layout = Layout(repository, name)
        assert layout.test_set.is_file()
        assert all(path.is_file() for path in (layout.protocol, layout.goals, layout.suite))
