"""Checkpoints: weights, and the cases and settings behind them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from doseledger.core.damage import describe, refuse_damage
from doseledger.core.errors import BadInput, NotReady
from doseledger.core.files import atomic_path
from doseledger.core.schema import load_block
from doseledger.learn.data.inputs import InputSpec, beams_of, spacing_range
from doseledger.learn.recipes.dose import InputRecipe, TrainedPart, TrainedRecipe
from doseledger.learn.run import Ancestor
from doseledger.learn.training.archive import digest_of, read_archive

if TYPE_CHECKING:
    from doseledger.learn.run import CasesByPart, TrainingRun

FORMAT_VERSION = 6
# The last format without a digest.
UNSEALED = 4
DIGEST = "sha256"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Parameters
    ----------
    model
        Name of its block in params.yaml.
    recipe
        The part of that block that decided the weights.
    settings
        The rest that did: lr, seed, fold, repeat.
    structure_names, target_names
        Of the channels and conditions of its input.
    spacing_range_mm
        Least and largest voxel spacing (z, y, x) among the training cases.
    trained_on, selected_on
        SHA256 by case id: of the cases whose dose the weights have seen, and of those that chose the epoch.
    epoch, scores
        When the weights were taken, and the validation scores then.
    weights
        The network's state.
    beams
        The protocol's block that the physics maps among its inputs were made of; None without such inputs.
    extras
        What else the family's prediction needs, as plain values and tensors.
    ancestors
        The models that its training began with, the nearest first: their cases count as seen.
    """

    model: str
    recipe: TrainedPart
    settings: dict[str, Any]
    structure_names: tuple[str, ...]
    target_names: tuple[str, ...]
    spacing_range_mm: tuple[tuple[float, ...], tuple[float, ...]]
    trained_on: dict[str, str]
    selected_on: dict[str, str]
    epoch: int
    scores: dict[str, float]
    weights: dict[str, Tensor]
    beams: dict[str, Any] | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    ancestors: tuple[Ancestor, ...] = ()

    @property
    def all_trained_on(self) -> dict[str, str]:
        """SHA256 by case id of the cases that its weights have seen, its ancestors' too."""
        return _with_inherited(self.trained_on, [(line, line.trained_on) for line in self.ancestors])

    @property
    def all_selected_on(self) -> dict[str, str]:
        """The same of the cases that chose an epoch."""
        return _with_inherited(self.selected_on, [(line, line.selected_on) for line in self.ancestors])

    @property
    def spec(self) -> InputSpec:
        """The channels and conditions of a dose model's input.

        Raises
        ------
        BadInput
            If it predicts no dose.
        """
        if not isinstance(self.recipe.inputs, InputRecipe):
            raise BadInput(f"{self.model}: its kind is {self.recipe.kind}, which predicts no dose")
        return InputSpec(self.structure_names, self.target_names, self.recipe.inputs, "boosted" in self.extras)


def make_checkpoint(  # noqa: PLR0913
    run: TrainingRun,
    spec: Any,
    cases: CasesByPart,
    *,
    epoch: int,
    scores: dict[str, float],
    weights: dict[str, Tensor],
    extras: dict[str, Any],
) -> Checkpoint:
    """Return the checkpoint of a run's weights, with the cases and settings behind them.

    Parameters
    ----------
    spec
        What the model is given and says: names of structures and of targets.
    """
    return Checkpoint(
        model=run.model,
        recipe=run.recipe.trained_part(),
        settings={"lr": run.lr, "seed": run.seed, "fold": run.fold, "repeat": run.repeat},
        structure_names=spec.structure_names,
        target_names=spec.target_names,
        spacing_range_mm=spacing_range(cases["train"]),
        trained_on={case.case_id: case.file.sha256 for case in cases["train"]},
        selected_on={case.case_id: case.file.sha256 for case in cases["val"]},
        epoch=epoch,
        scores=scores,
        beams=beams_of(cases["train"]),
        weights=weights,
        extras=extras,
        ancestors=run.ancestors,
    )


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes."""
    content = {
        "format_version": FORMAT_VERSION,
        "model": checkpoint.model,
        "recipe": checkpoint.recipe.model_dump(mode="json"),
        "settings": checkpoint.settings,
        "structure_names": list(checkpoint.structure_names),
        "target_names": list(checkpoint.target_names),
        "spacing_range_mm": [list(bound) for bound in checkpoint.spacing_range_mm],
        "trained_on": dict(sorted(checkpoint.trained_on.items())),
        "selected_on": dict(sorted(checkpoint.selected_on.items())),
        "epoch": checkpoint.epoch,
        "scores": checkpoint.scores,
        "weights": {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()},
        "beams": checkpoint.beams,
        "extras": checkpoint.extras,
    }
    if checkpoint.ancestors:
        content["ancestors"] = [asdict(line) for line in checkpoint.ancestors]
    content[DIGEST] = digest_of(content, path)
    # Through memory: given a path, torch writes that file's name into the archive.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path, recipe_type: type[TrainedPart] = TrainedRecipe) -> Checkpoint:
    """Return a checkpoint of this program; no code in it is ever run.

    Parameters
    ----------
    recipe_type
        What its family's blocks are read with.

    Raises
    ------
    NotReady
        If it is absent.
    BadInput
        If it is cut short, another program's, or another family's.
    """
    content = read_content(path)
    with _as_bad_checkpoint(path):
        return Checkpoint(
            model=content["model"],
            recipe=load_block(recipe_type, content["recipe"], str(path)),
            settings=content["settings"],
            structure_names=tuple(content["structure_names"]),
            target_names=tuple(content["target_names"]),
            spacing_range_mm=(tuple(content["spacing_range_mm"][0]), tuple(content["spacing_range_mm"][1])),
            trained_on=content["trained_on"],
            selected_on=content["selected_on"],
            epoch=content["epoch"],
            scores=content["scores"],
            weights=content["weights"],
            beams=content["beams"],
            extras=content.get("extras", {}),
            ancestors=_ancestors(content),
        )


def fill(network: nn.Module, weights: dict[str, Tensor], where: object) -> None:
    """Give a network the weights of a checkpoint.

    Parameters
    ----------
    where
        What holds the weights, for the message.

    Raises
    ------
    BadInput
        If they are another network's: of a recipe, or a version of this program, whose layers differ.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(
            f"{where}: its weights don't fit the network of its recipe ({describe(error)}); predict with the version "
            "of doseledger that trained it, or train it again"
        ) from error


def read_seen(path: Path, cohort: str) -> dict[str, str]:
    """Return the SHA256 by case id of all that a model of any family, or an ancestor, was trained or selected on.

    Parameters
    ----------
    cohort
        Whose case ids are as they stand; an ancestor's of another cohort begin with the ancestor's name.

    Raises
    ------
    NotReady
        If there is no checkpoint.
    BadInput
        If it can't be read.
    """
    content = read_content(path)
    with _as_bad_checkpoint(path):
        inherited = [(line, {**line.selected_on, **line.trained_on}) for line in _ancestors(content)]
        return _with_inherited({**content["selected_on"], **content["trained_on"]}, inherited, cohort)


def _ancestors(content: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    return tuple(Ancestor(**line) for line in content.get("ancestors", []))


def _with_inherited(
    own: Mapping[str, str], inherited: Sequence[tuple[Ancestor, Mapping[str, str]]], cohort: str | None = None
) -> dict[str, str]:
    """SHA256 by case id; an ancestor's id that already stands for other bytes, or is another cohort's, names it.

    Two of one name, a model trained again, are told apart by their files.
    """
    seen = dict(own)
    for line, cases in inherited:
        for case_id, digest in cases.items():
            strange = cohort not in (None, line.cohort) or seen.get(case_id, digest) != digest
            name = f"{line.name}: {case_id}" if strange else case_id
            twice = seen.get(name, digest) != digest
            seen[f"{line.name} ({line.sha256[:12]}): {case_id}" if twice else name] = digest
    return seen


def model_of(path: Path) -> str:
    """Return the name of the model that a checkpoint is of.

    Raises
    ------
    NotReady, BadInput
        As `read_content`.
    """
    return str(read_content(path)["model"])


def read_content(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content as plain values and tensors.

    Raises
    ------
    NotReady
        If it is absent.
    BadInput
        If it is cut short, another program's, or not as it was written, by the digest that it holds of itself.

    Notes
    -----
    Torch reads a file of weights without comparing anything: one byte that was flipped on a disk is predicted with.
    """
    if not path.is_file():
        raise NotReady(f"{path}: no such checkpoint; run train first")
    with _as_bad_checkpoint(path):
        content = read_archive(path)
        version = content["format_version"] if isinstance(content, dict) else None
        if version == UNSEALED:
            raise BadInput(
                f"{path}: a checkpoint of format {UNSEALED}, which holds no digest of its weights, so that nobody can "
                "tell whether they are as they were written; train the model again"
            )
        if version != FORMAT_VERSION:
            raise BadInput(f"{path}: not a doseledger checkpoint of format {FORMAT_VERSION}; train the model again")
        said, found = content.pop(DIGEST), digest_of(content, path)
        if said != found:
            raise BadInput(
                f"{path}: changed since it was written: its content has the SHA256 {found[:12]}…, it says "
                f"{str(said)[:12]}…. Fetch it again (`dvc checkout --force`, `doseledger registry get`), or train the "
                "model again; `doseledger verify` finds what else is damaged"
            )
        if not isinstance(content["recipe"], dict) or not isinstance(content["model"], str):
            raise BadInput(f"{path}: names no model and recipe; train the model again")
        return content


@contextmanager
def _as_bad_checkpoint(path: Path) -> Iterator[None]:
    def refusal(reason: str) -> BadInput:
        return BadInput(
            f"{path}: can't be read as a checkpoint ({reason}); fetch it again (`dvc checkout --force`), or train the "
            "model again"
        )

    with refuse_damage(refusal):
        yield
