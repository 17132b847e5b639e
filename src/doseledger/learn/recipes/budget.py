"""Memory that training may take on a machine."""

from __future__ import annotations

from dataclasses import dataclass

from doseledger.core.errors import BadInput

# Of a GPU's memory, the share that activations may take.
ACTIVATIONS = 0.62


@dataclass(frozen=True)
class Budget:
    """What a machine allows.

    Parameters
    ----------
    activation_gb
        Most that the activations of one step may take.
    first_filters, most_filters
        Width of the finest level, and of the widest.
    bytes_a_number
        2 in mixed precision, else 4.
    why
        Where these come from, in words.
    """

    activation_gb: float
    first_filters: int
    most_filters: int
    bytes_a_number: int
    why: str


def of_gpu(memory_gb: float) -> Budget:
    """Return the budget of a GPU in mixed precision: what is left of its memory beside gradients and work space.

    With this share a card of 8 GB is given the patches that Isensee et al. 2021 publish for one, to the voxel for
    hippocampus, prostate, liver and heart of the Decathlon.

    Raises
    ------
    BadInput
        If there is no memory to speak of.
    """
    if not memory_gb >= 1.0:
        raise BadInput(f"--memory-gb {memory_gb:g}: wanted a GPU's memory in GB, 1 at least")
    return Budget(ACTIVATIONS * memory_gb, 32, 320, 2, f"a GPU of {memory_gb:g} GB")


def of_cpu() -> Budget:
    """Return the budget of two CPU cores, whose time is shorter than their memory: about 2 s a step."""
    return Budget(0.2, 16, 128, 4, "a CPU, where a step of 0.2 GB of activations takes two cores about 2 s")


def find_budget(memory_gb: float | None) -> Budget:
    """Return the budget of a GPU of that memory; of this machine where nobody says.

    Raises
    ------
    BadInput
        If there is no memory to speak of.
    """
    import torch

    if memory_gb is None and not torch.cuda.is_available():
        return of_cpu()
    return of_gpu(torch.cuda.get_device_properties(0).total_memory / 1e9 if memory_gb is None else memory_gb)
