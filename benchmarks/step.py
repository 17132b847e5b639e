"""What a training step of each model costs, and what it costs a plain monai pipeline with the same network.

    python benchmarks/step.py [--model NAME]... [--steps N] [--peer]

Each model of params.yaml takes N steps in a process of its own, on a synthetic case, as in training: patches from the
memory-mapped NPZ, its own loss, optimiser and precision. CPU time of the process with one thread, as anything else on
the machine can only add to the wall clock; on a GPU, wall time of steps that were waited for. Peak memory is the
process's, and the GPU's where there is one.

With --peer the first model named is compared with monai: a Dataset that loads whole NPZ files, crops by label, flips
and collates, the same network, an L1 loss.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import make_case

from doseledger.core.files import sha256_of_file
from doseledger.core.settings import load_settings
from doseledger.learn.inputs import CaseFile, OpenCase, open_case, spec_of
from doseledger.learn.networks import build_network
from doseledger.learn.optimiser import build_optimiser
from doseledger.learn.patches import PatchDataset, patch_loader
from doseledger.learn.recipe import Recipe, load_recipe
from doseledger.learn.tasks import DoseTask

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
CHANNELS_OF_PEER = ("ct_hu", "body", "sdf_mm")
Batch = dict[str, Any]


def recipe_of(name: str) -> Recipe:
    """A model's block, read in this process."""
    recipe = load_recipe(load_settings(PARAMS).model(name), name)
    return recipe.model_copy(update={"loader": recipe.loader.model_copy(update={"workers": 0})})


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


def measure_ours(name: str, n_steps: int, folder: Path) -> None:
    """Print one line of the table."""
    torch.set_num_threads(1)
    recipe, case = recipe_of(name), open_synthetic(folder)
    recipe = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"patches_per_case": 64})})
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


def measure_peer(name: str, n_steps: int, folder: Path) -> None:
    """Print what the same network costs in a plain monai pipeline."""
    from monai.data import DataLoader, Dataset
    from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd

    torch.set_num_threads(1)
    recipe, case = recipe_of(name), open_synthetic(folder)
    spec = spec_of([case], recipe.inputs)

    def load(path: Path) -> Batch:
        with np.load(path) as npz:
            parts = [np.asarray(npz[key], np.float32).reshape(-1, *case.shape_zyx) for key in CHANNELS_OF_PEER]
            dose, label = npz["dose_gy"][None] / recipe.inputs.dose_scale_gy, npz["masks"][:1]
        # As many channels as ours has: the prescription's map is the target's mask.
        return {"image": np.concatenate([*parts, label.astype(np.float32)]), "dose": dose, "label": label}

    keys = ["image", "dose", "label"]
    crop = RandCropByPosNegLabeld(keys, "label", recipe.sampling.patch_zyx, pos=1, neg=1, num_samples=1)
    dataset = Dataset([case.file.path] * 64, Compose([load, crop, RandFlipd(keys, prob=0.5, spatial_axis=2)]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_network(spec.n_channels, spec.n_conditions, recipe.network).to(device)
    condition = torch.zeros(recipe.sampling.batch_size, spec.n_conditions, device=device)

    def loss_of(batch: Batch) -> torch.Tensor:
        return torch.nn.functional.l1_loss(network(batch["image"], condition)[:, :1], batch["dose"])

    batches = endlessly(DataLoader(dataset, batch_size=recipe.sampling.batch_size, num_workers=0))
    seconds = seconds_a_step(stepper(network, recipe, loss_of), batches, n_steps)
    print(f"{name:18s} in a plain monai pipeline {seconds:24.2f} s a step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a block of params.yaml; repeat for several")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help="the first model in a plain monai pipeline too")
    arguments = parser.parse_args()
    models = arguments.model or ["dose_unet"]
    jobs = [(measure_ours, name) for name in models] + [(measure_peer, models[0])] * arguments.peer
    context = multiprocessing.get_context("spawn")
    for work, name in jobs:
        with tempfile.TemporaryDirectory() as folder:
            child = context.Process(target=work, args=(name, arguments.steps, Path(folder)))
            child.start()
            child.join()


if __name__ == "__main__":
    main()
