"""Trees that a training stands on, and the doses that they tell of its cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.fanout import Tell
from doseledger.core.files import atomic_path, sha256_of_file
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.networks.boosted import BoostedDose
from doseledger.learn.recipes.trees import TrainedTrees
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from doseledger.learn.run import CasesByPart, Family


def told_cases(family: Family, cases: CasesByPart, folder: Path, tell: Tell) -> CasesByPart:
    """Return cases with what the family's trees tell of them; as they are where it stands on none.

    Parameters
    ----------
    folder
        Gets a file a case, mapped from then on; those of an interrupted training are taken.
    """
    told = family.told
    if told is None:
        return cases

    def kept(case: OpenCase) -> OpenCase:
        path = folder / f"{case.file.sha256}.npy"
        if not path.is_file():
            with atomic_path(path) as part, part.open("wb") as file:
                np.save(file, np.asarray(told(case).told))
        return replace(case, told=np.load(path, mmap_mode="r"))

    tell(f"the trees tell {sum(map(len, cases.values()))} cases")
    return {part: [kept(case) for case in opened] for part, opened in cases.items()}


def load_boosted(path: Path) -> tuple[Checkpoint, BoostedDose]:
    """Return a checkpoint of boosted trees, and its trees ready to tell cases.

    Raises
    ------
    NotReady, BadInput
        If there is no checkpoint, it can't be read, or is no trees'.
    """
    checkpoint = load_checkpoint(path, TrainedTrees)
    if not isinstance(checkpoint.recipe, TrainedTrees):
        raise BadInput(f"{path}: its kind is {checkpoint.recipe.kind}, wanted trees")
    return checkpoint, BoostedDose(
        checkpoint.model,
        sha256_of_file(path),
        checkpoint.recipe,
        checkpoint.spec,
        checkpoint.weights,
        checkpoint.extras["told_by"],
    )
