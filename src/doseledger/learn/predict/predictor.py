"""A trained model of any kind, and the NPZ of a prediction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.case import write_npz
from doseledger.core.errors import BadCase
from doseledger.core.files import atomic_path
from doseledger.core.pool.cluster import HERE, Scale
from doseledger.core.pool.fanout import over_cases
from doseledger.core.tables import SPLITS, read_table
from doseledger.core.types import IntTriple, Tell
from doseledger.learn.data.inputs import CaseFile, OpenCase, Window, case_files, cut_box, defined_voxels, open_case
from doseledger.learn.training.checkpoint import Checkpoint

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictor:
    """A model with the settings of its prediction.

    Parameters
    ----------
    settings
        How it predicts, as JSON values.
    predict
        Arrays of a case, on its grid: `dose_gy`, float32 (z, y, x), and what else the kind says of it; of a
        segmentation `labels`, uint8 (z, y, x), `structure_names`, whose first has label 1, and how each was `cleaned`.
    prior
        The dose that the network adds to, float32 (z, y, x) in Gy; None where it adds to nothing.
    draws
        Whether its doses are drawn, and have a spread.
    window_zyx
        Size of the windows that its dose hangs on; None where it hangs on the whole case.
    says_labels
        Whether it is a segmentation.
    """

    checkpoint: Checkpoint
    sha256: str
    settings: dict[str, Any]
    predict: Callable[[OpenCase], Arrays]
    prior: Callable[[OpenCase], NDArray[np.float32]] | None = None
    draws: bool = False
    window_zyx: IntTriple | None = None
    says_labels: bool = False

    def save(self, path: Path, case: OpenCase, arrays: Arrays) -> None:
        """Write the arrays of a case, where its grid is, and the digests of all that made them."""
        meta = {
            "case_id": case.case_id,
            "case_sha256": case.file.sha256,
            "checkpoint_sha256": self.sha256,
            "model": self.checkpoint.model,
            "epoch": self.checkpoint.epoch,
            "trained_on": sorted(set(self.checkpoint.all_trained_on.values())),
            "selected_on": sorted(set(self.checkpoint.all_selected_on.values())),
            "settings": self.settings,
        }
        placed: Arrays = {
            **arrays,
            "spacing_mm": np.asarray(case.spacing_mm, dtype=np.float64),
            "origin_mm": np.asarray(case.origin_mm, dtype=np.float64),
            "meta": np.asarray(json.dumps(meta, sort_keys=True)),
        }
        with atomic_path(path) as part:
            write_npz(part, placed)


@dataclass(frozen=True)
class SplitPart:
    """Which cases: the folder they lie in, `train`, `val` or `test`, of which fold and repeat; their maps' folder."""

    cases: Path
    splits: Path
    which: str
    fold: int
    repeat: int
    physics: Path | None = None


@dataclass(frozen=True)
class Opener:
    """How any process opens a model: what can be sent to one, as a `Predictor` can't.

    Parameters
    ----------
    open
        Opens a checkpoint, with the settings of its prediction; a function of a module.
    then
        What is made of the predictor; a function of a module.
    """

    open: Callable[[Path, Any], Predictor]
    checkpoint: Path
    recipe: Any
    then: Callable[[Predictor], Predictor] | None = None

    def __call__(self) -> Predictor:
        """Return the predictor; a process that opened it last has it at hand."""
        if _opened[:1] != [self]:
            predictor = self.open(self.checkpoint, self.recipe)
            _opened[:] = [self, self.then(predictor) if self.then else predictor]
        return _opened[1]


_opened: list[Any] = []


def predict_part(model: Predictor | Opener, part: SplitPart, out: Path, *, scale: Scale = HERE, tell: Tell) -> None:
    """Predict every case of one part of the splits and write `<case_id>.npz` for each.

    Parameters
    ----------
    model
        An opener, where other processes are to predict.

    Raises
    ------
    NotReady
        If a case is absent, or its bytes are not those in the splits.
    BadCase
        If a case does not fit what the model was trained on; the others have been predicted then.
    """
    table = read_table(part.splits, SPLITS)
    physics = part.physics if predictor_of(model).checkpoint.beams else None
    files = case_files(part.cases, table, part.which, fold=part.fold, repeat=part.repeat, physics=physics)
    work = partial(_predict_file, model)
    wanted = {file.case_id: (file, out / f"{file.case_id}.npz") for file in files}
    outcome = over_cases(work, wanted, scale, tell=tell, note=str)
    for error in outcome.failed.values():
        raise error


def predictor_of(model: Predictor | Opener) -> Predictor:
    """Return a model as it is, or opened."""
    return model() if isinstance(model, Opener) else model


def _predict_file(model: Predictor | Opener, file: CaseFile, target: Path) -> str:
    """Predict one case, and return what is to be said of it."""
    predictor, began = predictor_of(model), time.perf_counter()
    case = open_case(file)
    arrays = predictor.predict(case)
    predictor.save(target, case, arrays)
    return f"{_describe(arrays)}, {time.perf_counter() - began:.1f} s"


def _describe(arrays: Arrays) -> str:
    """What was predicted, and how far a projected dose lies from what the model told."""
    if "dose_gy" in arrays:
        highest, apart = float(arrays["dose_gy"].max()), arrays.get("undeliverable_gy")
        projected = "" if apart is None else f", {float(apart):.2f} Gy from what was told"
        return f"highest dose {highest:.1f} Gy{projected}"
    return f"{int((arrays['labels'] > 0).sum())} voxels of {len(arrays['structure_names'])} structures"


def dose_on_case(case: OpenCase, dose: NDArray[np.float32], box: Window, scale_gy: float) -> NDArray[np.float32]:
    """Return doses of a box in Gy on the case's own grid; never negative, 0 beyond and where no dose is defined.

    Parameters
    ----------
    dose
        (…, z, y, x) of the box that a network sees, in units of `scale_gy`.

    Raises
    ------
    BadCase
        If a dose is not finite.
    """
    # The case, seen from the box, which may be larger or smaller.
    z, y, x = (-start for start in box[0])
    dose_gy = cut_box(dose, ((z, y, x), case.shape_zyx), 0.0) * np.float32(scale_gy)
    if not np.isfinite(dose_gy).all():
        raise BadCase(
            case.case_id,
            "the prediction is not finite; the case's inputs or the checkpoint are broken",
        )
    return np.where(defined_voxels(case), np.maximum(dose_gy, 0.0), np.float32(0.0)).astype(np.float32)


def check_spacing(case: OpenCase, checkpoint: Checkpoint, tolerance: float) -> None:
    """Refuse a case whose voxels lie further than a share outside those of training.

    Raises
    ------
    BadCase
        Naming both spacings.
    """
    least, most = checkpoint.spacing_range_mm
    fits = (
        low * (1 - tolerance) <= spacing <= high * (1 + tolerance)
        for spacing, low, high in zip(case.spacing_mm, least, most, strict=True)
    )
    if not all(fits):
        raise BadCase(
            case.case_id,
            f"voxels of {case.spacing_mm} mm (z, y, x), more than {tolerance:.0%} outside the "
            f"{least} to {most} of training; ingest the case with the model's protocol",
        )
