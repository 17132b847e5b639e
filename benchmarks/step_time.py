"""A training step of ours, patches and all, against a plain monai pipeline with the same network: CPU seconds, ratio.

    python benchmarks/step_time.py [--cases FOLDER] [--model dose_unet] [--steps N]
    python benchmarks/step_time.py --cases FOLDER --patch case --precision bf16-mixed

FOLDER holds cases as ingest writes them; without it one synthetic case of a clinic's size is made. Both sides have the
same network, patch, batch, optimiser and clipping, on the same voxels, with no loader processes, and one thread where
they run on a CPU. The plain pipeline is what monai's tutorials write: CacheDataset, which holds every case in memory as
float32, RandCropByPosNegLabeld, RandFlipd, RandShiftIntensityd, a masked L1 loss and a loop. Ours is what
`doseledger train` runs: memory-mapped patches, the recipe's own loss, Lightning's Trainer, without the end of an epoch.
They take turns, so that whatever else the machine does falls on both; the first step of each turn is not counted. The
network stands by itself, without physics maps. Whole cases (`--patch case`) are ours alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as pl
import torch
from loader import make_case
from shipped import shipped_dose_recipe

from doseledger.core.files import sha256_of_file
from doseledger.learn.data.inputs import CaseFile, InputSpec, OpenCase, open_case, spec_of
from doseledger.learn.data.patches import PatchDataset, patch_loader, read_sample, seen_box
from doseledger.learn.families.dose import DoseTask
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.recipes.dose import Recipe, patch_text
from doseledger.learn.training.optimiser import build_optimiser
from doseledger.learn.training.train import quiet_lightning

TURNS = 3
LR = 1e-3


class Clock(pl.Callback):
    """CPU and wall seconds of each step but the first, from the end of the one before: the batch's making included."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """One more step has ended."""
        self.marks.append((time.process_time(), time.perf_counter()))

    def on_train_batch_end(self, *args: Any) -> None:
        self.mark()

    def steps(self) -> list[tuple[float, float]]:
        """CPU and wall seconds of the steps."""
        return [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.marks, self.marks[1:], strict=False)]


def our_steps(
    cases: list[OpenCase], spec: InputSpec, recipe: Recipe, n_steps: int, turn: int
) -> list[tuple[float, float]]:
    """Seconds of the steps of a training of ours."""
    task = DoseTask(recipe.trained_part(), spec, LR)
    loader = patch_loader(PatchDataset(cases, spec, recipe, seed=turn), recipe)
    clock = Clock()
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="auto", devices=1, precision=recipe.fit.precision, max_steps=n_steps + 1, callbacks=[clock],
            gradient_clip_val=recipe.optimiser.clip_norm, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(task, loader)
    return clock.steps()


def cached(cases: list[OpenCase], spec: InputSpec, recipe: Recipe) -> Any:
    """The cases in memory, with the transforms that a patch goes through."""
    from monai.data import CacheDataset
    from monai.transforms import (
        Compose,
        DeleteItemsd,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandShiftIntensityd,
        ToTensord,
    )

    items = []
    for case in cases:
        sample = read_sample(case, spec, seen_box(case, recipe))
        targets = [spec.structure_names.index(name) for name in spec.target_names]
        items.append(
            {
                "image": sample["image"],
                "dose": sample["dose"],
                "valid_dose": sample["valid_dose"].astype(np.float32),
                "target": sample["masks"][targets].any(axis=0, keepdims=True).astype(np.float32),
                "condition": sample["condition"],
            }
        )
    arrays = ("image", "dose", "valid_dose", "target")
    steps = [
        RandCropByPosNegLabeld(keys=arrays, label_key="target", spatial_size=recipe.sampling.patch_zyx, pos=1, neg=1),
        DeleteItemsd(keys="target"),
        RandFlipd(keys=arrays[:3], prob=recipe.sampling.mirror_share, spatial_axis=2),
        RandShiftIntensityd(keys="image", offsets=0.01, prob=1.0, channel_wise=True),
        ToTensord(keys=(*arrays[:3], "condition")),
    ]
    return CacheDataset(items, Compose(steps), progress=False)


def plain_batches(dataset: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Batches without end, as monai's DataLoader makes them: each case gives one patch at a time."""
    from monai.data import DataLoader

    while True:
        yield from DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=len(dataset) >= batch_size)


def plain_steps(dataset: Any, spec: InputSpec, recipe: Recipe, n_steps: int) -> list[tuple[float, float]]:
    """Seconds of the steps of a plain training loop."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = dose_network(recipe, spec).to(device)
    optimiser = build_optimiser(network, recipe.optimiser, LR)
    clock = Clock()
    bf16 = recipe.fit.precision == "bf16-mixed"
    for _, batch in zip(range(n_steps + 1), plain_batches(dataset, recipe.sampling.batch_size), strict=False):
        image, condition, dose, mask = (batch[key].to(device) for key in ("image", "condition", "dose", "valid_dose"))
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            predicted = network(image, condition)
        loss = ((predicted.float() - dose).abs() * mask).sum() / mask.sum().clamp_min(1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()
        clock.mark()
    return clock.steps()


def compare(cases: list[OpenCase], recipe: Recipe, n_steps: int) -> None:
    """Print the table."""
    spec = spec_of(cases, recipe.inputs)
    before = psutil.Process().memory_info().rss
    whole = recipe.sampling.patch_zyx == "case"
    dataset = None if whole else cached(cases, spec, recipe)
    held_gb = (psutil.Process().memory_info().rss - before) / 1e9
    ours: list[tuple[float, float]] = []
    plain: list[tuple[float, float]] = []
    for turn in range(TURNS):
        ours += our_steps(cases, spec, recipe, n_steps, turn)
        plain += [] if whole else plain_steps(dataset, spec, recipe, n_steps)
    sampling = recipe.sampling
    patches = f"patches of {patch_text(sampling.patch_zyx)}, {sampling.batch_size} at a time"
    print(f"{recipe.network.name}, {patches}, {recipe.fit.precision}; {len(cases)} cases")
    print(f"{'':28s}{'CPU s a step':>14s}{'wall s a step':>15s}   (medians of {len(ours)} steps each)")
    rows = {"ours": ours, **({} if whole else {"plain monai loop": plain})}
    medians = {name: np.median(np.array(steps), axis=0) for name, steps in rows.items()}
    for name, (cpu_s, wall_s) in medians.items():
        print(f"{name:28s}{cpu_s:14.3f}{wall_s:15.3f}")
    if whole:
        return
    ratio = medians["ours"] / medians["plain monai loop"]
    print(f"{'ours / plain':28s}{ratio[0]:14.2f}{ratio[1]:15.2f}")
    print(
        f"the plain pipeline holds {held_gb:.2f} GB of cases in memory ({held_gb / len(cases):.2f} GB each), ours none"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="folder of cases as ingest writes them")
    parser.add_argument("--model", default="dose_unet", help="a block of params.yaml or models/recipes")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--patch", nargs="+", help="three numbers, or case; the model's own")
    parser.add_argument("--batch", type=int, help="patches at a time; the model's own")
    parser.add_argument("--precision", help="32-true or bf16-mixed; the model's own")
    arguments = parser.parse_args()
    sampling: dict[str, Any] = {"patches_per_case": 2 * (arguments.steps + 1)}
    if arguments.patch:
        sampling["patch_zyx"] = "case" if arguments.patch == ["case"] else [int(size) for size in arguments.patch]
    if arguments.batch:
        sampling["batch_size"] = arguments.batch
    changes = {
        "loader": {"workers": 0, "persistent": False},
        "sampling": sampling,
        "inputs": {"physics": []},
        "prior": "none",
        "fit": {"precision": arguments.precision} if arguments.precision else {},
    }
    recipe = shipped_dose_recipe(arguments.model, changes)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*no `val_dataloader`.*")
    with tempfile.TemporaryDirectory() as name:
        paths = sorted(arguments.cases.glob("*.npz"))[:4] if arguments.cases else [make_case(Path(name))]
        compare([open_case(CaseFile(path.stem, path, sha256_of_file(path))) for path in paths], recipe, arguments.steps)


if __name__ == "__main__":
    main()
