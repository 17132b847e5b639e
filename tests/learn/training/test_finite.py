"""A score over no voxel is no score: neither best.ckpt nor a patch is ever chosen by it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from doseledger.core.case import Case
from doseledger.core.errors import BadCase, BadInput
from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, open_case, spec_of
from doseledger.learn.data.patches import find_centres
from doseledger.learn.families.diffusion import DiffusionTask
from doseledger.learn.families.dose import DoseTask
from doseledger.learn.training.finite import refuse_no_voxel, refuse_wrong_gradients


def batch(**masks: torch.Tensor) -> dict[str, Any]:
    whole = torch.ones((1, 1, 2, 2, 2), dtype=torch.bool)
    return {"case_id": ["case_0004"], "valid_dose": whole, "body": whole, **masks}


@pytest.mark.parametrize("name", ["valid_dose", "body"])
@pytest.mark.parametrize("task", [DoseTask, DiffusionTask])
def test_a_validation_case_without_a_voxel_to_score_is_refused_and_named(task: Any, name: str) -> None:
    empty = batch(**{name: torch.zeros((1, 1, 2, 2, 2), dtype=torch.bool)})
    with pytest.raises(BadCase, match=f"case_0004: {name} has no voxel"):
        task.validation_step(SimpleNamespace(), empty, 0)
    refuse_no_voxel(batch())


@pytest.mark.parametrize(
    ("depth", "stride", "wrong"),
    [(16, 8, True), (8, 8, True), (2, 1, True), (24, 8, False), (48, 8, False), (1, 1, False)],
)
def test_a_level_two_slices_deep_is_refused_in_16_bit_on_a_cpu(depth: int, stride: int, wrong: bool) -> None:
    recipe: Any = SimpleNamespace(
        sampling=SimpleNamespace(patch_zyx=(depth, 32, 32)),
        network=SimpleNamespace(total_stride_zyx=(stride, 8, 8)),
        fit=SimpleNamespace(precision="bf16-mixed"),
    )
    refuse_wrong_gradients(recipe, "cuda")
    with pytest.raises(BadInput, match="two slices deep") if wrong else nullcontext():
        refuse_wrong_gradients(recipe, "cpu")


def test_a_training_case_without_a_valid_voxel_is_refused_and_named(cohort: Any, make_recipe: Any) -> None:
    path = cohort.cases / "case_0001.npz"
    case = Case.load(path)
    replace(case, valid_dose=np.zeros_like(case.valid_dose)).save(path)
    opened = open_case(CaseFile("case_0001", path, sha256_of_file(path)))
    with pytest.raises(BadCase, match="case_0001: valid_dose has no voxel, so no patch of it"):
        find_centres(opened, spec_of([opened], make_recipe().inputs))
