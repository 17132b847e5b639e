"""The DVH term of each kind of statistic, by hand; a structure of few voxels has none."""

from __future__ import annotations

import pytest
import torch

from doseledger.learn.losses.dvh import DvhTerm, moment_term, read_statistics


def line(*values: float) -> torch.Tensor:
    """A patch (1, 1, 1, 1, x) of these doses, in parts of 70 Gy."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None, None]


MINE, THEIRS = line(*[0.9] * 10, *[0.6] * 10, *[0.1] * 10), line(*[0.9] * 10, *[0.3] * 10, *[0.1] * 10)


@pytest.mark.parametrize(("name", "wanted"), [
    ("V35Gy", 10 / 30), ("V49Gy", 0.0), ("V14Gy", 0.0), ("D50%", 0.3), ("D10%", 0.0), ("D99%", 0.0), ("mean", 0.1),
])  # fmt: skip
def test_each_statistic_is_the_difference_of_the_two_doses(name: str, wanted: float) -> None:
    term = DvhTerm([read_statistics([name])], 70.0, (2.0, 1.0))
    assert float(term(MINE, THEIRS, torch.ones(1, 1, 1, 1, 30, dtype=torch.bool))) == pytest.approx(wanted, abs=1e-6)


def test_the_term_is_the_mean_over_statistics_and_structures() -> None:
    term = DvhTerm([read_statistics(["V35Gy", "mean"]), [], read_statistics(["mean"])], 70.0, (2.0, 1.0))
    masks = torch.ones(1, 3, 1, 1, 30, dtype=torch.bool)
    masks[0, 2, :, :, 20:] = False
    assert float(term(MINE, THEIRS, masks)) == pytest.approx((1 / 3 + 0.1 + 0.15) / 3, abs=1e-6)


@pytest.mark.parametrize(("voxels", "counts"), [(19, False), (20, True)])
def test_a_structure_counts_from_twenty_voxels_on(voxels: int, counts: bool) -> None:
    inside = torch.zeros(1, 1, 1, 1, 30, dtype=torch.bool)
    inside[..., :voxels] = True
    for found in (
        DvhTerm([read_statistics(["mean"])], 70.0, (2.0, 1.0))(MINE, THEIRS, inside),
        moment_term(MINE, THEIRS, inside, [2.0]),
    ):
        assert bool(found > 0.0) is counts
