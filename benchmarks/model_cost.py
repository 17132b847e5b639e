"""What a training step of each model costs: weights, seconds, memory.

    python benchmarks/model_cost.py [--model NAME]... [--steps N]

Each named model (dose_unet and dose_cascade where none is named; one that trains as a dose network) takes N steps in a
process of its own, on a synthetic case, as in training: patches from the memory-mapped NPZ, its own loss, optimiser and
precision. CPU time of the process with one thread, as anything else on the machine can only add to the wall clock; on a
GPU, wall time of steps that were waited for. Peak memory is the process's, and the GPU's where there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from loader import make_case
from shipped import shipped_dose_recipe

from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import PatchDataset, patch_loader
from doseledger.learn.families.dose import DoseTask
from doseledger.learn.recipes.dose import Recipe
from doseledger.learn.training.optimiser import build_optimiser

Batch = dict[str, Any]


def seconds_a_step(step: Callable[[Batch], None], batches: Iterator[Batch], n_steps: int) -> float:
    """Mean seconds of a step with the reading of its batch, after one that is not counted."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    step(next(batches))
    start = clock()
    for _ in range(n_steps):
        step(next(batches))
    if gpu:
        torch.cuda.synchronize()
    return (clock() - start) / n_steps


def endlessly(loader: Any) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    while True:
        yield from loader


def stepper(network: torch.nn.Module, recipe: Recipe, loss_of: Callable[[Batch], torch.Tensor]) -> Callable[..., None]:
    """One step of training."""
    device = next(network.parameters()).device
    optimiser = build_optimiser(network, recipe.optimiser, 1e-4)

    def step(batch: Batch) -> None:
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.fit.precision == "bf16-mixed"):
            loss = loss_of(moved)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()

    return step


def open_synthetic(folder: Path) -> OpenCase:
    """The loader benchmark's case of a clinic's size."""
    path = make_case(folder)
    return open_case(CaseFile(path.stem, path, sha256_of_file(path)))


def measure(name: str, n_steps: int, folder: Path) -> None:
    """Print one line of the table."""
    torch.set_num_threads(1)
    # Patches are read in this process, and enough of them.
    changes = {"loader": {"workers": 0, "persistent": False}, "sampling": {"patches_per_case": 64}}
    recipe, case = shipped_dose_recipe(name, changes), open_synthetic(folder)
    spec = spec_of([case], recipe.inputs)
    task = DoseTask(recipe.trained_part(), spec, 1e-4).to("cuda" if torch.cuda.is_available() else "cpu").train()
    batches = endlessly(patch_loader(PatchDataset([case], spec, recipe, 1), recipe))
    step = stepper(task.network, recipe, lambda batch: task.batch_loss(batch, 0)[0])
    seconds = seconds_a_step(step, batches, n_steps)
    n_weights = sum(weight.numel() for weight in task.network.parameters()) / 1e6
    memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    if torch.cuda.is_available():
        memory += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    patch = "×".join(str(n) for n in recipe.sampling.patch_zyx)
    print(
        f"{name:18s} {n_weights:6.2f} M  {recipe.sampling.batch_size} × {patch:12s} {seconds:8.2f} s a step  {memory}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a block of params.yaml or models/recipes; repeat for several")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name in arguments.model or ["dose_unet", "dose_cascade"]:
        with tempfile.TemporaryDirectory() as folder:
            child = context.Process(target=measure, args=(name, arguments.steps, Path(folder)))
            child.start()
            child.join()
            if child.exitcode:
                sys.exit(f"{name}: not measured, its process ended with {child.exitcode}")


if __name__ == "__main__":
    main()
