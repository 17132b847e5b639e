"""What a denoiser starts from: the base model's dose where there is one, as a dose is; else 0."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from doseledger.learn.networks.denoiser import base_of_case, base_of_patches

SETTINGS: Any = SimpleNamespace(patch_zyx=(4, 4, 4), overlap=0.5, windows_at_once=2)


class Ramp(nn.Module):
    """A dose that is the image's first channel."""

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        return image[:, :1]


def batch_of(image: Tensor) -> dict[str, Any]:
    valid = torch.ones(1, 1, 6, 6, 6, dtype=torch.bool)
    valid[..., 0] = False
    return {"image": image, "condition": torch.zeros(1, 2), "valid_dose": valid, "dose": torch.ones(1, 1, 6, 6, 6)}


def test_without_a_base_a_denoiser_starts_from_no_dose() -> None:
    batch = batch_of(torch.ones(1, 3, 6, 6, 6))
    for found in (base_of_case(None, batch, SETTINGS), base_of_patches(None, batch)):
        assert found.dtype == torch.float32
        assert found.shape == (1, 1, 6, 6, 6)
        assert not found.any()


def test_a_base_gives_its_dose_where_one_is_defined_and_none_below_zero() -> None:
    image = torch.linspace(-1.0, 1.0, 6).expand(1, 3, 6, 6, 6).clone()
    batch = batch_of(image)
    wanted = image[:, :1].clamp_min(0.0)
    wanted[..., 0] = 0.0
    for found in (base_of_case(Ramp(), batch, SETTINGS), base_of_patches(Ramp(), batch)):
        torch.testing.assert_close(found, wanted)
