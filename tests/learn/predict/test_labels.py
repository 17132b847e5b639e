"""Shares of the classes over flips: each flip is undone, and what has a side changes places with its partner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from doseledger.learn.predict import labels
from doseledger.learn.predict.labels import class_shares


class Sides(nn.Module):
    """Class 1 where the image is bright in the half that it takes for the left, class 2 in the other half."""

    def forward(self, image: Tensor) -> Tensor:
        half = image.shape[-1] // 2
        bright = 20.0 * image[:, 0]
        left = torch.zeros_like(bright)
        left[..., :half] = 1.0
        return torch.stack([10.0 - bright, bright * left - 10.0, bright * (1 - left) - 10.0], dim=1)


@pytest.mark.parametrize("flips", [[], ["x"], ["z"], ["x", "y"], ["x", "y", "z"]])
def test_a_network_that_knows_left_from_right_says_the_same_over_all_flips(
    flips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def slide(network: nn.Module, image: Tensor, patch: Any, **how: Any) -> Tensor:
        asked.append(1)
        assert (patch, how) == ([2, 4, 6], {"overlap": 0.25, "windows_at_once": 3})
        return network(image)  # type: ignore[no-any-return]

    monkeypatch.setattr(labels, "slide", slide)
    recipe: Any = SimpleNamespace(sampling=SimpleNamespace(patch_zyx=[2, 4, 6]))
    settings: Any = SimpleNamespace(flips=flips, overlap=0.25, windows_at_once=3)
    image = torch.zeros(1, 1, 2, 4, 6)
    image[0, 0, 0, 1, 1] = image[0, 0, 1, 2, 4] = 1.0
    found = class_shares(Sides(), image, recipe, settings, [0, 2, 1])
    assert found.shape == (3, 2, 4, 6)
    assert found.sum(dim=0) == pytest.approx(torch.ones(2, 4, 6))
    assert torch.nonzero(found.argmax(dim=0) == 1).tolist() == [[0, 1, 1]]
    assert torch.nonzero(found.argmax(dim=0) == 2).tolist() == [[1, 2, 4]]
    assert len(asked) == 2 ** len(flips)
