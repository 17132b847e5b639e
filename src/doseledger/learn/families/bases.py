"""Models that others start from: of a diffusion, a network on trees, a mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from doseledger.core.errors import BadInput
from doseledger.core.files import sha256_of_file
from doseledger.core.text.lists import first_of
from doseledger.learn.data.inputs import InputSpec, beams_of
from doseledger.learn.networks.boosted import BoostedDose, ToldDose, boosted_of
from doseledger.learn.networks.with_prior import dose_network
from doseledger.learn.recipes.dose import CommonTrained, patch_text
from doseledger.learn.recipes.trees import TrainedTrees
from doseledger.learn.run import CasesByPart, TrainingRun
from doseledger.learn.training.checkpoint import Checkpoint, fill, load_checkpoint, read_content
from doseledger.learn.training.told import boosted_in


@dataclass(frozen=True)
class Base:
    """The dose model whose residual is diffused, a network or trees.

    Parameters
    ----------
    checkpoint, sha256
        Its own, and that file's.
    boosted
        The trees that it is or stands on; None where there are none.
    network
        None of trees: what they have told is a channel.
    """

    checkpoint: Checkpoint
    sha256: str
    boosted: BoostedDose | None
    network: nn.Module | None

    @property
    def kept(self) -> dict[str, Any] | None:
        """What the diffusion's own checkpoint keeps of its network, so that one file predicts; trees stand beside."""
        if self.network is None:
            return None
        recipe = self.checkpoint.recipe.model_dump(mode="json")
        weights = {name: tensor.detach().cpu() for name, tensor in self.checkpoint.weights.items()}
        return {"model": self.checkpoint.model, "sha256": self.sha256, "recipe": recipe, "weights": weights}

    def on(self, spec: InputSpec) -> nn.Module:
        """Return what gives its dose to a diffusion of these channels."""
        return ToldDose(spec) if self.network is None else self.network


def load_base(path: Path) -> Base:
    """Return a trained dose network, or trees, to stand on.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read, or is neither's.
    """
    if read_content(path)["recipe"].get("kind") == "trees":
        grown = load_checkpoint(path, TrainedTrees)
        boosted = boosted_in(grown, path)
        return Base(grown, boosted.sha256, boosted, None)
    checkpoint = load_checkpoint(path)
    network = dose_network(checkpoint.recipe, checkpoint.spec)
    fill(network, checkpoint.weights, path)
    below = boosted_of(checkpoint.extras, checkpoint.model)
    return Base(checkpoint, sha256_of_file(path), below, network.requires_grad_(False).eval())


def check_base(run: TrainingRun, spec: InputSpec, cases: CasesByPart, base: Base) -> None:
    """Refuse a base model that sees other inputs, or was trained on other cases.

    Raises
    ------
    BadInput
        Naming what differs. On cases that the base was trained on its residual is smaller than on others, so one that
        knows validation or test cases, or not all training cases, would teach a wrong spread.
    """
    if base.network is None and base.boosted is not None:
        check_trees(run, spec, cases, base.boosted)
        check_told(run, cases, base.boosted)
        return
    name, recipe = base.checkpoint.model, base.checkpoint.recipe
    if base.checkpoint.spec != spec:
        raise BadInput(f"{run.model}: base {name} sees other channels or conditions; give both blocks the same inputs")
    wanted = run.network_recipe.sampling.patch_zyx
    if not isinstance(recipe, CommonTrained):
        raise BadInput(f"{run.model}: base {name} is of kind {recipe.kind}, wanted a network's")
    if recipe.sampling.patch_zyx != wanted:
        raise BadInput(
            f"{run.model}: base {name} was trained on patches of {patch_text(recipe.sampling.patch_zyx)}, "
            f"sampling.patch_zyx is {patch_text(wanted)}; give both the same"
        )
    _refuse_other_cases(run, f"base {name} was trained on", base.checkpoint.trained_on, cases, "train")


def _refuse_other_cases(run: TrainingRun, told: str, known: dict[str, str], cases: CasesByPart, part: str) -> None:
    """Refuse a model that knows other cases of a part of the splits than those that are there now."""
    strangers = [case.case_id for case in cases[part] if known.get(case.case_id) != case.file.sha256]
    # Preflight opens a few training cases only, and no others.
    surplus = sorted(set(known) - {case.case_id for case in cases[part]}) if "val" in cases else []
    if strangers or surplus:
        raise BadInput(
            f"{run.model}: {told} other cases: without {first_of(strangers, 3) or 'none'}, with "
            f"{first_of(surplus, 3) or 'none'} besides; train it on this fold and these cases first"
        )


def check_part(run: TrainingRun, spec: InputSpec, cases: CasesByPart, part: Checkpoint) -> None:
    """Refuse a part of a mean that sees what its cases don't have, or was trained on other cases.

    Raises
    ------
    BadInput
        Naming what differs. The mean has seen what its parts have: all of them the training cases of this fold.
    """
    name = f"{run.model}: its part {part.model}"
    if part.structure_names != spec.structure_names or not set(spec.target_names) <= set(part.target_names):
        raise BadInput(f"{name} knows other structures or targets; train it again")
    if unseen := set(part.recipe.physics) - set(run.recipe.physics):
        raise BadInput(f"{name} sees the maps {', '.join(sorted(unseen))}; name them in inputs.physics of the mean too")
    if part.beams is not None and part.beams != beams_of(cases["train"]):
        raise BadInput(f"{name} was trained with maps of other beams; train it again")
    _refuse_other_cases(run, f"its part {part.model} was trained on", part.trained_on, cases, "train")
    if "val" in cases:
        _refuse_other_cases(run, f"its part {part.model} was selected on", part.selected_on, cases, "val")


def check_trees(run: TrainingRun, spec: InputSpec, cases: CasesByPart, trees: BoostedDose) -> None:
    """Refuse trees that see what the network's cases do not have.

    Raises
    ------
    BadInput
        Naming what differs.
    """
    if trees.spec.structure_names != spec.structure_names or set(trees.spec.target_names) != set(spec.target_names):
        raise BadInput(f"{run.model}: base {trees.model} knows other structures or targets; train it again")
    if unseen := set(trees.recipe.physics) - set(run.recipe.physics):
        raise BadInput(
            f"{run.model}: base {trees.model} sees the maps {', '.join(sorted(unseen))}, inputs.physics of "
            f"{run.model} does not name them; give both blocks the same"
        )
    if trees.beams is not None and trees.beams != beams_of(cases["train"]):
        raise BadInput(f"{run.model}: base {trees.model} was grown with maps of other beams; train it again")


def check_told(run: TrainingRun, cases: CasesByPart, trees: BoostedDose) -> None:
    """Refuse trees that were grown on other cases than are trained on now.

    Raises
    ------
    BadInput
        Naming some of them. A case that trees have seen and that does not train now would look too easy.
    """
    strangers = [case.case_id for case in cases["train"] if case.file.sha256 not in trees.told_by]
    # Preflight opens a few training cases only, and no others.
    surplus = set(trees.told_by) - {case.file.sha256 for case in cases["train"]} if "val" in cases else set()
    if strangers or surplus:
        raise BadInput(
            f"{run.model}: base {trees.model} was trained on other cases: without {first_of(strangers, 3) or 'none'}"
            f", with {len(surplus)} besides; train the base on this fold and these cases first"
        )


def refuse_untold(run: TrainingRun, cases: CasesByPart, trees: BoostedDose) -> None:
    """Refuse another model's trees that have seen cases of which neither this training nor an ancestor says so.

    Raises
    ------
    BadInput
        Naming both models: a test case that such trees have seen would count as new.
    """
    known = {case.file.sha256 for case in cases["train"]}.union(*(line.trained_on.values() for line in run.ancestors))
    # Preflight opens a few training cases only, and no others.
    if "val" in cases and (untold := set(trees.told_by) - known):
        begun = f"begins with {run.parent.name}" if run.parent else "begins with none"
        raise BadInput(
            f"{run.model}: {trees.model}, the trees of its base, have seen {len(untold)} cases that it doesn't know "
            f"of, as it {begun}; let `bases` name the model that init_from names"
        )
