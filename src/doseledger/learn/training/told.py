"""Trees that a training stands on, and the doses that they tell of its cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.files import atomic_path, sha256_of_file
from doseledger.core.types import Tell
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.networks.boosted import BoostedDose, boosted_of
from doseledger.learn.recipes.trees import TrainedTrees
from doseledger.learn.training.checkpoint import Checkpoint, load_checkpoint, read_content

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


def load_boosted(path: Path) -> BoostedDose:
    """Return the trees of a checkpoint, or those that its network stands on.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is neither of trees nor of a network on them.
    """
    content = read_content(path)
    kept = boosted_of(content.get("extras", {}), path)
    if kept is not None:
        return kept
    if (kind := content["recipe"].get("kind")) != "trees":
        raise BadInput(f"{path}: its kind is {kind}, wanted trees, or a network with prior: boosted")
    return boosted_in(load_checkpoint(path, TrainedTrees), path)


def boosted_in(checkpoint: Checkpoint, path: Path) -> BoostedDose:
    """Return the trees of a loaded checkpoint, ready to tell cases.

    Raises
    ------
    BadInput
        If it is another kind's.
    """
    recipe, spec, told_by = checkpoint.recipe, checkpoint.spec, checkpoint.extras.get("told_by", {})
    if not isinstance(recipe, TrainedTrees):
        raise BadInput(f"{path}: its kind is {recipe.kind}, wanted trees")
    sha256 = sha256_of_file(path)
    return BoostedDose(checkpoint.model, sha256, recipe, spec, checkpoint.weights, told_by, checkpoint.beams)
