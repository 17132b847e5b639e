"""Our cases for anybody's LightningModule: the documented example runs, and the batches are those of our training."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from doseledger.core.errors import BadInput, GateFailed, NotReady
from doseledger.core.files import read_yaml, write_json
from doseledger.core.project.layout import Layout
from doseledger.learn import CaseDataModule
from doseledger.learn.data.patches import patch_loader
from doseledger.learn.kinds import merge_block
from doseledger.learn.training.train import quiet_lightning

SMALL_BASE = {
    # The small cohort has no maps of beams.
    "inputs": {"physics": []},
    "sampling": {"patch_zyx": [16, 24, 32], "batch_size": 2, "patches_per_case": 2},
    "network": {
        "name": "film_unet", "stem_stride_zyx": [2, 2, 2], "channels": [4, 8], "convolutions": [1, 1], "embedding": 8,
    },
}  # fmt: skip


@pytest.fixture
def project(cohort: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project with five cases that passed the data gate, and small patches; the working folder is in it."""
    root = tmp_path / "project"
    root.mkdir()
    params = read_yaml(repository / "params.yaml")
    params["model_base"] = merge_block(params["model_base"], SMALL_BASE)
    with (root / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)
    shutil.copy(repository / "dvc.yaml", root)
    layout = Layout(root, "phantom")
    shutil.copytree(cohort.cases, layout.cases)
    layout.splits.parent.mkdir(parents=True)
    shutil.copy(cohort.splits, layout.splits)
    write_json(layout.data_verdict.token, {"ok": True, "digest": "d"})
    monkeypatch.chdir(root)
    return layout


def test_the_documented_example_trains_in_a_project(project: Layout, repository: Path) -> None:
    page = (repository / "docs/how-to/your-own-network.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.S)
    assert example is not None
    names: dict[str, Any] = {}
    with quiet_lightning(), warnings.catch_warnings():
        # What Lightning says of an example without validation, bars or loggers.
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*validation_step.*")
        code = example[1].replace("max_epochs=1,", "max_epochs=1, max_steps=1, accelerator='cpu',")
        exec(compile(code, "your-own-network.md", "exec"), names)
    assert names["data"].spec.n_channels > 3
    assert names["data"].trainer.global_step == 1


def test_batches_are_those_of_our_own_training(project: Layout, make_run: Callable[..., Any], cohort: Any) -> None:
    data = CaseDataModule("dose_unet")
    run = make_run(seed=data.seed)
    reader, cases = run.family.reader, cohort.open("train")
    spec = reader.spec_of([*cases, *cohort.open("val")], data.recipe.inputs)
    ours = list(patch_loader(reader.patches(cases, spec, data.recipe, data.seed), data.recipe))
    theirs = list(data.train_dataloader())
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert one["case_id"] == other["case_id"]
        for name in ("image", "dose", "condition", "valid_dose"):
            assert torch.equal(one[name], other[name]), name
    another = next(iter(CaseDataModule("dose_unet", seed=data.seed + 1).train_dataloader()))
    assert not torch.equal(another["image"], theirs[0]["image"])


def test_validation_and_test_give_whole_cases_of_their_part_alone(project: Layout) -> None:
    data = CaseDataModule("dose_unet")
    assert [batch["case_id"] for batch in data.val_dataloader()] == [["case_0004"]]
    assert [batch["case_id"] for batch in data.test_dataloader()] == [["case_0005"]]
    trained = {case_id for batch in data.train_dataloader() for case_id in batch["case_id"]}
    assert trained == {"case_0001", "case_0002", "case_0003"}


def test_nobody_trains_on_cases_that_no_gate_passed(project: Layout) -> None:
    write_json(project.data_verdict.token, {"ok": False, "digest": "d"})
    with pytest.raises(GateFailed, match="the data gate of phantom failed"):
        CaseDataModule("dose_unet").train_dataloader()
    project.data_verdict.token.unlink()
    with pytest.raises(NotReady, match="the data gate has not judged phantom yet; run `doseledger check data`"):
        CaseDataModule("dose_unet").val_dataloader()


def test_a_case_that_is_not_the_one_of_the_splits_is_refused(project: Layout) -> None:
    shutil.copy(project.cases / "case_0001.npz", project.cases / "case_0004.npz")
    with pytest.raises(NotReady, match="case_0004"):
        CaseDataModule("dose_unet").val_dataloader()


def test_a_model_without_patches_or_a_block_is_refused_by_name(project: Layout) -> None:
    with pytest.raises(BadInput, match="dose_trees: its kind is trees, which trains on no patches"):
        CaseDataModule("dose_trees")
    with pytest.raises(BadInput, match=r"params\.yaml has no block 'nobody'"):
        CaseDataModule("nobody")
