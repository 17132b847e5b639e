"""The model that a training begins with: its weights, and the cases behind them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from doseledger.core.errors import BadInput
from doseledger.core.text.lists import first_of
from doseledger.learn.run import Ancestor, Parent, TrainingRun
from doseledger.learn.training.checkpoint import Checkpoint

# So many cases are named in a refusal.
SHOWN = 3


def parent_of(checkpoint: Checkpoint, name: str, cohort: str, sha256: str) -> Parent:
    """Return a trained model as what another one begins with.

    Parameters
    ----------
    name, cohort
        MODEL or MODEL@VERSION, and the cohort that it was trained on.
    """
    itself = Ancestor(name, cohort, sha256, checkpoint.epoch, checkpoint.trained_on, checkpoint.selected_on)
    kind = str(checkpoint.recipe.kind)
    return Parent(kind, checkpoint.weights, checkpoint.extras, (itself, *checkpoint.ancestors))


def require_fit(run: TrainingRun, wanted: Mapping[str, Tensor]) -> None:
    """Do nothing if a run's parent has the weights of its network.

    Parameters
    ----------
    wanted
        The fresh network's weights.

    Raises
    ------
    BadInput
        If it is of another kind, or its weights differ: naming the first that does.
    """
    parent = run.parent
    if parent is None:
        return
    if parent.kind != run.recipe.kind:
        raise BadInput(
            f"{run.model}: init_from {parent.name} is of kind {parent.kind}, this model of kind {run.recipe.kind}"
        )
    names = [*wanted, *(name for name in parent.weights if name not in wanted)]
    for name in names:
        mine, theirs = (_shape(weights.get(name)) for weights in (wanted, parent.weights))
        if mine != theirs:
            raise BadInput(
                f"{run.model}: init_from {parent.name} has another network: {name} is {theirs} there and {mine} here; "
                "give both blocks the same network, inputs and prior, on cases with the same structures"
            )


def _shape(weight: Tensor | None) -> str:
    return "absent" if weight is None else f"of shape {list(weight.shape)}"


def refuse_seen_split(run: TrainingRun, splits: pd.DataFrame) -> None:
    """Refuse splits in which a validation or test case was trained on, or a test case selected on, by an ancestor.

    Parameters
    ----------
    splits
        The table of splits; cases are told by SHA256, those of the same cohort by name too.

    Raises
    ------
    BadInput
        Naming the cases: their scores would flatter the model.
    """
    fold = splits[(splits["fold"] == run.fold) & (splits["repeat"] == run.repeat)]
    for ancestor in run.ancestors:
        for part, known, how in (
            ("test", ancestor.trained_on, "was trained on"),
            ("test", ancestor.selected_on, "was selected on"),
            ("val", ancestor.trained_on, "was trained on"),
        ):
            rows, digests = fold[fold["split"] == part], set(known.values())
            names = set(known) if ancestor.cohort == run.cohort else set()
            seen = rows.loc[rows["sha256"].isin(digests) | rows["case_id"].isin(names), "case_id"].tolist()
            if seen:
                some = first_of(seen, SHOWN)
                raise BadInput(
                    f"{run.model}: {ancestor.name}, which it begins with, {how} {some}, now among the {part} cases: "
                    "their scores would say nothing; begin with a model of the same fold and splits"
                )
