"""Memory that does not suffice for a training, and the settings that need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from doseledger.core.errors import BadInput
from doseledger.learn.recipes.dose import CommonRecipe, patch_text
from doseledger.learn.training.run_files import device_name

# The CPU's allocator raises a RuntimeError like any other.
OF_MEMORY = ("out of memory", "can't allocate memory")


@contextmanager
def explained_memory_errors(recipe: CommonRecipe) -> Iterator[None]:
    """Say what to lower when the memory of GPU or machine does not suffice.

    Raises
    ------
    BadInput
        In place of torch's out-of-memory error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if isinstance(error, RuntimeError) and not any(words in text for words in OF_MEMORY):
            raise
        sampling = recipe.sampling
        raise BadInput(
            f"out of memory on {device_name()} with patches of {patch_text(sampling.patch_zyx)}, "
            f"{sampling.batch_size} at a time: {what_to_lower(recipe)} ({error})"
        ) from error


def what_to_lower(recipe: CommonRecipe) -> str:
    """Return which settings need less memory, the one that costs least first.

    The smaller patch is about a sixth shorter along each axis, in whole voxels of the network's coarsest level.
    """
    sampling, fit = recipe.sampling, recipe.fit
    ways = ["the network's width"]
    if sampling.patch_zyx != "case":
        patch, strides = list(sampling.patch_zyx), recipe.network.total_stride_zyx
        smaller = [max(1, 5 * n // 6 // stride) * stride for n, stride in zip(patch, strides, strict=True)]
        if smaller != patch:
            ways.insert(0, f"sampling.patch_zyx to {smaller}")
    if sampling.batch_size > 1:
        fewer = sampling.batch_size // 2
        ways.insert(0, f"sampling.batch_size to {fewer} (and raise fit.accumulate from {fit.accumulate} as much)")
    rest = "" if fit.precision == "bf16-mixed" else "; or set fit.precision to bf16-mixed"
    return f"lower {', then '.join(ways)}{rest}"
