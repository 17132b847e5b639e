"""The digest of what preflight judged of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from doseledger.core.code import reached_code
from doseledger.core.files import sha256_of_json
from doseledger.gates.digests import sha256_of
from doseledger.gates.limits import PreflightLimits
from doseledger.gates.verdict import without_explanations

if TYPE_CHECKING:
    from doseledger.learn.run import TrainingRun

# Named and not imported: a verdict is asked for before the trainer is loaded.
TRAINER = "doseledger.learn.training.train"


def run_digest(run: TrainingRun, splits_csv: Path, limits: PreflightLimits) -> str:
    """Return the digest of what preflight judges for a run; training makes it again and compares.

    Parameters
    ----------
    run
        The model and all that decides its weights; with it goes the code that trains it.
    splits_csv
        The table of splits, and with it each case's SHA256.
    limits
        The preflight block of thresholds.yaml.

    Notes
    -----
    How long a model is trained, how its patches are brought and how it predicts is not judged, so it is left out: a
    change there neither runs preflight again nor makes its verdict stale. It stands here and not beside the judge, so
    that training, which makes it again, doesn't hang on how a machine is judged.
    """
    model = {
        "model": run.model,
        "recipe": run.recipe.model_dump(mode="json", exclude={"fit", "loader", "predict"}),
        "lr": run.lr,
        "seed": run.seed,
        "fold": run.fold,
        "repeat": run.repeat,
        "code": reached_code(TRAINER, run.family.module),
    }
    judged_by = without_explanations(limits.model_dump(mode="json"))
    return sha256_of_json({"model": model, "splits": sha256_of(splits_csv), "limits": judged_by})
