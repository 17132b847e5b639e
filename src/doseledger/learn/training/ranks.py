"""Training by several processes: rank, share of work, sums."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader, Sampler

from doseledger.core.errors import BadInput

Item = TypeVar("Item")
# Where a run goes on: the epoch, from 0, and how many of its batches are done.
Start = tuple[int, int]
BEGINNING: Start = (0, 0)


@dataclass(frozen=True)
class Team:
    """The processes that train together, and which of them this is.

    Parameters
    ----------
    rank
        This one's number, from 0; 0 alone writes and speaks.
    """

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0


def cluster_environment() -> ClusterEnvironment:
    """Return who starts the processes: torchrun, SLURM's srun, or Lightning itself.

    Raises
    ------
    BadInput
        If the SLURM job is described in a way that says too little.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    with warnings.catch_warnings():
        # Where srun is there, but has not started this process, Lightning warns; that is a way to train too.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        is_slurm = SLURMEnvironment.detect()
    if is_slurm:
        # Started again by us, not by Lightning: its handler would take the signal that asks for stacks.
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise BadInput(f"this SLURM job can't be told apart into processes: {error}") from error
    return LightningEnvironment()


def team_of(devices: int, nodes: int) -> Team:
    """Return the team that `devices` processes on each of `nodes` machines make, as the environment numbers them.

    Raises
    ------
    BadInput
        If torchrun or SLURM has started another number of processes.
    """
    size = devices * nodes
    if size == 1:
        # One process is one, whatever cluster it runs on; of several that were started, one may go on.
        rank = max(int(os.environ.get(name, "0")) for name in ("RANK", "SLURM_PROCID"))
        return Team(_known(rank, size), size)
    environment = cluster_environment()
    if isinstance(environment, LightningEnvironment):
        rank = environment.node_rank() * devices + environment.local_rank()
    else:
        rank = environment.global_rank()
        if environment.world_size() != size:
            raise BadInput(
                f"{environment.world_size()} processes were started, but train.devices {devices} on train.nodes "
                f"{nodes} make {size}: give srun as many tasks a node as train.devices, or torchrun --nproc-per-node"
            )
    return Team(_known(rank, size), size)


def _known(rank: int, size: int) -> int:
    if rank >= size:
        raise BadInput(
            f"this is process {rank} of a job whose settings ask for {size}: raise train.devices or train.nodes, or "
            "start one process"
        )
    return rank


def trainer_options(devices: int, nodes: int) -> dict[str, Any]:
    """Return how Lightning's Trainer is to run that team."""
    if devices * nodes == 1:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    # No network here has buffers that batches change; to broadcast them would tie ranks together in validation too,
    # where each has cases of its own.
    strategy = DDPStrategy(broadcast_buffers=False)
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy, "plugins": [cluster_environment()]}


class RankSampler(Sampler[Any]):
    """Every size-th key of another sampler, beginning with this rank's; each rank has as many.

    Parameters
    ----------
    resumed
        An epoch that was interrupted, and how many of this rank's keys it has behind it.
    """

    def __init__(self, sampler: Any, team: Team, resumed: tuple[int, int] = BEGINNING) -> None:
        self.sampler, self.team, self.resumed = sampler, team, resumed
        # At once: Lightning lets worker processes begin before it chooses the epoch.
        self.set_epoch(resumed[0])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler) // self.team.size

    def __iter__(self) -> Iterator[Any]:
        keys, (epoch, n_done) = list(self.sampler), self.resumed
        own = keys[self.team.rank : len(self) * self.team.size : self.team.size]
        yield from own[n_done if self.epoch == epoch else 0 :]


def share_patches(loader: DataLoader[Any], team: Team, start: Start = BEGINNING) -> DataLoader[Any]:
    """Return the loader of this rank's part of the patches; alone and from the beginning, the loader itself.

    Parameters
    ----------
    start
        Where a resumed run goes on: what lies before it is left out, once.

    Raises
    ------
    BadInput
        If an epoch's patches do not fill one batch on every rank.
    """
    if team.size == 1 and start == BEGINNING:
        return loader
    size = loader.batch_size or 1
    sampler = RankSampler(loader.sampler, team, (start[0], start[1] * size))
    if len(sampler) < size:
        raise BadInput(
            f"an epoch has {len(loader.sampler)} patches: too few for a batch of {size} on each of {team.size} "  # type: ignore[arg-type]
            "processes; raise sampling.patches_per_case, or train on fewer"
        )
    return DataLoader(
        loader.dataset,
        batch_size=size,
        sampler=sampler,
        drop_last=True,
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        pin_memory=loader.pin_memory,
    )


def share_cases(cases: Sequence[Item], team: Team) -> list[Item]:
    """Return this rank's part of the cases: equally many on each rank, so that one may come twice.

    Examples
    --------
    >>> share_cases("abc", Team(1, 2))
    ['b', 'a']
    """
    n_each = -(-len(cases) // team.size)
    return [cases[(team.rank + turn * team.size) % len(cases)] for turn in range(n_each)]


def gather(value: Any) -> list[Any]:
    """Return what each rank has handed in, in order of rank, on all of them; alone, the one value."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
