"""Sliding windows: all of a case is predicted, by windows as large as a patch, and what none covers is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from doseledger.core.errors import BadInput
from doseledger.learn.networks.windows import predict_whole


class FirstChannel(nn.Module):
    """Returns the first channel plus the condition, and notes the windows that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return image[:, :1] + condition[:, :1, None, None, None]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_a_network_that_returns_its_input_gives_the_whole_case_back(overlap: float) -> None:
    image = torch.randn(1, 2, 9, 10, 13, generator=torch.Generator().manual_seed(1))
    network, batch = FirstChannel(), {"image": image, "condition": torch.tensor([[3.0]])}
    dose = predict_whole(network, batch, (4, 5, 6), overlap=overlap, windows_at_once=2)
    torch.testing.assert_close(dose, image[:, :1] + 3.0)
    assert {shape[2:] for shape in network.seen} == {(4, 5, 6)}
    assert max(shape[0] for shape in network.seen) == 2


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_network_that_passes_a_channel_on_gives_it_back_and_leaves_it_as_it_was(at_once: int) -> None:
    image = torch.randn(1, 2, 9, 10, 13, generator=torch.Generator().manual_seed(1))
    batch, before = {"image": image, "condition": torch.zeros(1, 1)}, image.clone()
    network = lambda windows, _: windows[:, 1:]  # noqa: E731
    dose = predict_whole(network, batch, (4, 5, 6), overlap=0.5, windows_at_once=at_once)
    torch.testing.assert_close(dose, before[:, 1:])
    assert torch.equal(image, before)


@pytest.mark.parametrize(("weight", "is_covered"), [(0.99901, True), (0.99899, False), (float("nan"), False)])
def test_a_voxel_that_no_window_covers_is_refused(
    weight: float, is_covered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import monai.inferers.utils

    def leaves_two_out(image: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        covered = torch.ones_like(image[:, :1])
        covered[0, 0, 1, 2, 3] = covered[0, 0, 0, 0, 0] = weight
        return torch.zeros_like(covered), covered

    monkeypatch.setattr(monai.inferers.utils, "sliding_window_inference", leaves_two_out)
    batch = {"image": torch.zeros(1, 1, 4, 4, 4), "condition": torch.zeros(1, 1)}
    if is_covered:
        assert not predict_whole(FirstChannel(), batch, (4, 4, 4), overlap=0.5, windows_at_once=1).any()
        return
    with pytest.raises(BadInput, match=r"2 voxels were covered by no window of \(4, 4, 4\) with overlap 0.5"):
        predict_whole(FirstChannel(), batch, (4, 4, 4), overlap=0.5, windows_at_once=1)
