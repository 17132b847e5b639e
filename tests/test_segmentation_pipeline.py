"""A tiny NIfTI cohort from files to report page, in 3D and on slices; each stage is called as the pipeline calls it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from doseledger.cli.app import app
from doseledger.core.files import read_json, read_yaml, write_json
from doseledger.core.project.layout import Layout
from doseledger.core.tables import SEGMENT_METRICS, SPLITS, read_table
from doseledger.evaluate.predictions import load_labels
from doseledger.ledger.registry.reproduce import predict_again
from doseledger.ledger.runs.record import RunRecord

# Two stories of ten commands: more than twenty seconds of CPU together.
pytestmark = pytest.mark.slow

COHORT, MODELS = "tiny", ("seg_unet3d", "seg_unet2d")
N_CASES, N_PATIENTS = 12, 6
OF_COHORT = ("ingest", "split", "physics", "check data", "drift")
OF_MODEL = ("preflight", "train", "predict", "evaluate", "shortcuts", "judge", "report")


@dataclass(frozen=True)
class Story:
    """The project after its last command, and what each command printed."""

    layout: Layout
    said: dict[str, str]


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (x, y, z) of two blocks, one behind the other, on a ground of its own; and their labels."""
    rng = np.random.default_rng(seed)
    ground = rng.normal(0.0, 80.0, (4, 5, 4)).repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    image, label = ground + rng.normal(200.0, 10.0, ground.shape), np.zeros(ground.shape, np.uint8)
    x, y, z = rng.integers(2, 6, 3)
    wide, high = rng.integers(5, 9, 2)
    # RAS: +y is to the front.
    for value, start in ((1, y + 6), (2, y)):
        block = (slice(x, x + wide), slice(start, start + 6), slice(z, z + high))
        image[block], label[block] = image[block] + 150.0 * value, value
    return image.astype(np.float32), label


def write_data_set(folder: Path) -> None:
    """Twelve images of six people, and one without a label."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(1, N_CASES + 1):
        for name, values in zip(("images", "labels"), picture(number), strict=True):
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / name / f"hippocampus_{number:03d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(picture(99)[0], affine), folder / "images/hippocampus_099.nii.gz")


def loosened(limits: dict[str, Any]) -> dict[str, Any]:
    """Limits that a model of one epoch keeps."""
    for limit in limits["metrics"]["default"]:
        limit["limit"] = 1000.0 if limit["operator"] == "<=" else 0.0
    for limit in limits["shortcuts"]["default"]:
        limit["limit"] = 1000.0
    for name in ("gap", "rise"):
        limits["training"][name] |= {"warning": 100.0, "error": 1000.0}
    limits["data"]["left_out"]["most_accepted_percent"] = 15.0
    return limits


def write_project(root: Path, repository: Path) -> Layout:
    for name in ("params.yaml", "dvc.yaml", "requirements.lock"):
        shutil.copyfile(repository / name, root / name)
    for name in ("models/recipes", "reports/templates", "validation/cohorts"):
        shutil.copytree(repository / name, root / name)
    layout = Layout(root, COHORT)
    own = layout.cohorts / COHORT
    shutil.copytree(layout.cohorts / "hippocampus", own)
    (own / "test_set.csv").write_text((own / "test_set.csv").read_text().splitlines()[0] + "\n")
    # YAML holds JSON.
    write_json(own / "thresholds.yaml", loosened(read_yaml(own / "thresholds.yaml")))
    suite = read_json(own / "suite.json")
    # The spacings; the rest is of hippocampi.
    write_json(own / "suite.json", suite | {"expectations": suite["expectations"][:3]})
    for name, size in zip(MODELS, ([16, 16, 16], [16, 2, 16]), strict=True):
        path = layout.recipes / f"{name}.yaml"
        block = read_yaml(path)[name]
        block["sampling"] |= {"patch_zyx": size, "batch_size": 2, "patches_per_case": 1}
        block["fit"] |= {"max_epochs": 1, "validate_every": 1}
        block["network"] |= {"filters": [4, 8, 8]} if "filters" in block["network"] else {"channels": [4, 8, 8, 8]}
        # Its text is put into params.yaml as it stands.
        with path.open("w", encoding="utf-8") as stream:
            YAML().dump({name: block}, stream)
    return layout


@pytest.fixture(scope="module")
def story(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("segmentation")
    layout = write_project(root, repository)
    write_data_set(root / "download")
    said = {}

    def run(*words: str) -> None:
        done = CliRunner().invoke(app, list(words))
        said[" ".join(words)] = done.output
        assert done.exit_code == 0, f"{words}: {done.output}\n{done.exception}"

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        layout = Layout(Path(), COHORT)
        run("raw", "pack", "download", "--cohort", COHORT)
        for name in MODELS:
            run("recipe", "use", name)
        set_up(layout.params)
        run("code")
        run("settings")
        for name in MODELS:
            run("settings", name)
        for name in OF_COHORT:
            run(*name.split())
        for model in MODELS:
            for name in OF_MODEL:
                run(name, model)
        run("compare", *MODELS)
        yield Story(layout, said)


def set_up(path: Path) -> None:
    """Settings of this cohort; the image without a label is accepted."""
    params = read_yaml(path)
    params |= {"cohort": COHORT, "models": list(MODELS), "bases": {}}
    params["scale"]["pool"] = "here"
    params["ingest"]["accept_failed"] = {"hippocampus_099": "an image without label, on purpose"}
    params["report"]["figure_dpi"] = 50
    params["splits"]["fractions"] = {"train": 0.5, "val": 0.17, "test": 0.33}
    write_json(path, params)


def test_cases_come_in_by_patient_and_what_is_no_pair_is_named(story: Story) -> None:
    splits = read_table(story.layout.splits, SPLITS)
    assert len(splits) == N_CASES
    assert splits.groupby("pseudonym")["split"].nunique().max() == 1
    assert splits["pseudonym"].nunique() == N_PATIENTS
    assert read_json(story.layout.data_verdict.token)["ok"] is True
    assert "hippocampus_099" in story.said["ingest"]


@pytest.mark.parametrize("model", MODELS)
def test_every_stage_leaves_what_the_next_one_asks_for(story: Story, model: str) -> None:
    at = story.layout.model(model)
    test = read_table(story.layout.splits, SPLITS).query("split == 'test'")["case_id"]
    assert sorted(path.stem for path in at.predictions.glob("*.npz")) == sorted(test)
    found = load_labels(at.predictions / f"{min(test)}.npz")
    assert (found.labels.shape, found.structure_names) == ((16, 20, 16), ("Anterior", "Posterior"))
    rows = read_table(at.metrics / "cases.csv", SEGMENT_METRICS)
    assert sorted(rows["case_id"]) == sorted(test)
    verdict = read_json(at.model_verdict.token)
    assert verdict["ok"] is True, read_json(at.model_verdict.findings)["findings"]
    # DVC tells of an empty folder whenever it sees one.
    assert all(any(folder.iterdir()) for folder in (at.gamma, at.predictions, at.figures))


@pytest.mark.parametrize("model", MODELS)
def test_the_page_shows_overlap_volumes_and_outlines_and_speaks_of_no_dose(story: Story, model: str) -> None:
    page = story.layout.model(model).html.read_text(encoding="utf-8")
    # Pictures hold any three letters.
    page = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    for needed in ("Dice", "Hausdorff", "Anterior", "Posterior", "Worst case", model):
        assert needed in page, needed
    for stranger in ("DVH", "gamma 3", "Gy in the body", "{{", "nan"):
        assert stranger not in page, stranger
    summary = json.loads((story.layout.model(model).metrics / "summary.json").read_text())
    assert set(summary) >= {"dice", "n_cases"}


def test_both_models_are_compared_with_a_paired_test(story: Story) -> None:
    said = story.said[" ".join(("compare", *MODELS))]
    assert "4 cases; change: seg_unet2d − seg_unet3d" in said
    assert re.search(r"^Dice +0\.\d+", said, re.M), said


def test_labels_are_predicted_again_to_the_bit_and_a_run_tells_how_they_were(story: Story) -> None:
    at = story.layout.model("seg_unet3d")
    case_id = min(path.stem for path in at.predictions.glob("*.npz"))
    (again,) = predict_again(at.checkpoint, story.layout.cases, at.predictions, [case_id], print)
    assert again.identical
    files: Any = SimpleNamespace(predictions=at.predictions)
    assert RunRecord(files).predict_settings["flips"] == ["x"]
