"""A short trial before training: real loaders, one batch, a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from doseledger.core.tables import SPLITS, read_table
from doseledger.learn.data.inputs import InputSpec, case_files, open_case, with_targets_of
from doseledger.learn.data.patches import patch_loader
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.memory import explained_memory_errors
from doseledger.learn.training.optimiser import build_optimiser
from doseledger.learn.training.train import make_task


@dataclass(frozen=True)
class ProbeResult:
    """What came of the trial.

    Parameters
    ----------
    losses
        The fixed batch's loss before each step and after the last one.
    finite
        Whether every loss and the network's first output were finite.
    image_shape, output_shape
        Shape of what the network saw, and of what it gave.
    """

    losses: list[float]
    finite: bool
    case_ids: list[str]
    image_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    n_weights: int

    @property
    def n_steps(self) -> int:
        """Steps that were taken: of a mean of models as many as it has parts."""
        return len(self.losses) - 1

    @property
    def first_loss(self) -> float:
        """Loss before the first step."""
        return self.losses[0]

    @property
    def last_loss(self) -> float:
        """Loss after the last step."""
        return self.losses[-1]


def probe_steps(
    run: TrainingRun, cases: Path, splits: Path, *, n_steps: int, physics: Path | None = None
) -> ProbeResult:
    """Return what `n_steps` on the first batch of the first epoch do to its loss, on the CPU in float32.

    Only the cases that the batch can hold are opened; of the others the prescriptions are read. The rate is the
    recipe's own, without warm-up or schedule, so that a loss that does not fall says something of data, network and
    rate. A network is tried without its prior, on which one that learns nothing would do well too; a
    diffusion without its base, whose residual few steps can't learn.

    Raises
    ------
    NotReady
        If a case is absent or its bytes are not those in the splits.
    BadInput
        If settings and cases do not fit, or memory does not suffice.
    """
    table = read_table(splits, SPLITS)
    physics = physics if run.recipe.physics else None
    files = case_files(cases, table, "train", fold=run.fold, repeat=run.repeat, physics=physics)
    if run.family.probe is not None:
        tried: ProbeResult = run.family.probe(run, [open_case(files[0])], n_steps)
        return tried
    recipe, reader = run.network_recipe, run.family.reader
    opened = [open_case(file) for file in files[: recipe.sampling.batch_size]]
    if run.family.told is not None:
        opened = [run.family.told(case) for case in opened]
    spec = reader.spec_of(opened, recipe.inputs)
    if isinstance(spec, InputSpec):
        # The network that will be trained: a target may be prescribed in other cases alone.
        chosen_on = case_files(cases, table, "val", fold=run.fold, repeat=run.repeat)
        spec = with_targets_of(spec, [*files, *chosen_on])
    with explained_memory_errors(recipe):
        if run.parent is not None or run.family.parts:
            # Refused here where parent or base don't fit. What a parent has learned has little to gain in a few steps.
            make_task(run, spec, {"train": opened})
        run = replace(run, parent=None, recipe=run.recipe.bare())
        task = make_task(run, spec, {"train": opened})
        batch = next(iter(patch_loader(reader.patches(opened, spec, recipe, run.seed), recipe)))
        optimiser = build_optimiser(task.network, recipe.optimiser, task.lr)
        losses: list[float] = []
        loss, output = task.batch_loss(batch, 0)
        finite = bool(torch.isfinite(output).all())
        output_shape = tuple(output.shape)
        for _ in range(n_steps):
            losses.append(loss.item())
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(task.network.parameters(), recipe.optimiser.clip_norm)
            optimiser.step()
            loss, _ = task.batch_loss(batch, 0)
        losses.append(loss.item())
    return ProbeResult(
        losses=losses,
        finite=finite and all(math.isfinite(loss) for loss in losses),
        case_ids=list(batch["case_id"]),
        image_shape=tuple(batch["image"].shape),
        output_shape=output_shape,
        n_weights=sum(weight.numel() for weight in task.network.parameters()),
    )
