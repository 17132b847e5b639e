"""A prediction on disk: dose, grid, and the case and model behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doseledger.core.damage import UNREADABLE, describe
from doseledger.core.errors import BadCase
from doseledger.core.grid import Grid
from doseledger.core.npz import open_npz
from doseledger.core.types import Array


@dataclass(frozen=True)
class Prediction:
    """A predicted dose.

    Parameters
    ----------
    case_id, case_sha256
        The case that it was made for, and the SHA256 of that case's file.
    dose_gy
        float32 (z, y, x).
    trained_on, selected_on
        SHA256 of each case that the weights were fitted to, and that chose among them (validation).
    settings
        How it was predicted; empty where its maker does not say.
    model
        The model's name; empty where its maker does not say.
    """

    case_id: str
    case_sha256: str
    checkpoint_sha256: str
    dose_gy: NDArray[np.float32]
    grid: Grid
    trained_on: frozenset[str]
    selected_on: frozenset[str]
    settings: dict[str, Any]
    model: str = ""

    @property
    def values(self) -> Array:
        """What was predicted (z, y, x)."""
        return self.dose_gy


@dataclass(frozen=True)
class LabelPrediction:
    """A segmentation on disk.

    Parameters
    ----------
    case_id, case_sha256, checkpoint_sha256, grid, trained_on, selected_on, settings
        As of a `Prediction`.
    labels
        uint8 (z, y, x), 0 background.
    structure_names
        The first has label 1.
    """

    case_id: str
    case_sha256: str
    checkpoint_sha256: str
    labels: NDArray[np.uint8]
    structure_names: tuple[str, ...]
    grid: Grid
    trained_on: frozenset[str]
    selected_on: frozenset[str]
    settings: dict[str, Any]

    @property
    def values(self) -> Array:
        """What was predicted (z, y, x)."""
        return self.labels


@contextmanager
def _as_bad_case(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadCase(path.stem, f"no prediction {path.name}; run predict") from error
    except KeyError as error:
        raise BadCase(path.stem, f"the prediction {path.name} has no key {error}; run predict again") from error
    except UNREADABLE as error:
        what = f"the prediction {path.name} can't be read ({describe(error)})"
        raise BadCase(path.stem, f"{what}; predict again, or ask `doseledger verify` if it rotted") from error


def _origin(npz: Mapping[str, Any], meta: Mapping[str, Any], shape_zyx: tuple[int, ...]) -> dict[str, Any]:
    """What every kind of prediction tells: of which case and model it is, and where its voxels are."""
    return {
        **{key: str(meta[key]) for key in ("case_id", "case_sha256", "checkpoint_sha256")},
        "grid": Grid(shape_zyx, tuple(npz["spacing_mm"]), tuple(npz["origin_mm"])),  # type: ignore[arg-type]
        **{key: frozenset(meta[key]) for key in ("trained_on", "selected_on")},
        "settings": dict(meta.get("settings", {})),
    }


def load_prediction(path: Path) -> Prediction:
    """Return a prediction as `predict` writes it.

    Raises
    ------
    BadCase
        If there is none, or it breaks the contract.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        dose_gy, meta = npz["dose_gy"], json.loads(str(npz["meta"]))
        prediction = Prediction(dose_gy=dose_gy, model=str(meta.get("model", "")), **_origin(npz, meta, dose_gy.shape))
    if dose_gy.dtype != np.float32:
        raise BadCase(path.stem, f"the prediction's dose is {dose_gy.dtype}, wanted float32; run predict again")
    if prediction.case_id != path.stem:
        raise BadCase(path.stem, f"the prediction says it is of {prediction.case_id}; run predict again")
    return prediction


def load_labels(path: Path) -> LabelPrediction:
    """Return a segmentation as `predict` writes it.

    Raises
    ------
    BadCase
        If there is none, or it breaks the contract.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        labels, meta = npz["labels"], json.loads(str(npz["meta"]))
        prediction = LabelPrediction(
            labels=labels,
            structure_names=tuple(str(name) for name in npz["structure_names"]),
            **_origin(npz, meta, labels.shape),
        )
    if labels.dtype != np.uint8 or int(labels.max(initial=0)) > len(prediction.structure_names):
        raise BadCase(path.stem, f"{path.name} holds labels of no structure, or not as uint8; run predict again")
    if prediction.case_id != path.stem:
        raise BadCase(path.stem, f"the prediction says it is of {prediction.case_id}; run predict again")
    return prediction


def load_any(path: Path) -> Prediction | LabelPrediction:
    """Return a prediction of any kind of model.

    Raises
    ------
    BadCase
        If there is none, or it breaks the contract.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        says_labels = "labels" in npz
    return load_labels(path) if says_labels else load_prediction(path)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings that a prediction of any kind was made with.

    Raises
    ------
    BadCase
        If there is no prediction, or it breaks the contract.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        return dict(json.loads(str(npz["meta"])).get("settings", {}))


def read_undeliverable(path: Path) -> float | None:
    """Return how far a projected dose lies from what its model told, in Gy; None of a dose that was not projected.

    Raises
    ------
    BadCase
        If there is no prediction, or it can't be read.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        apart_gy = npz.get("undeliverable_gy")
        return None if apart_gy is None else float(apart_gy)


def read_seen(path: Path) -> frozenset[str]:
    """Return the SHA256 of every case that a prediction's model was trained or selected on, without reading its dose.

    Raises
    ------
    BadCase
        If there is no prediction, or it breaks the contract.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        meta = json.loads(str(npz["meta"]))
        return frozenset(meta["trained_on"]) | frozenset(meta["selected_on"])


def load_samples(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the doses that a diffusion drew of a case in Gy, (sample, voxel), and of which voxels, bool (z, y, x).

    Raises
    ------
    BadCase
        If there is no prediction, or it holds no samples.
    """
    with _as_bad_case(path), open_npz(path) as npz:
        if "samples" not in npz:
            raise BadCase(path.stem, f"{path.name} holds no drawn doses; only a diffusion's prediction has a spread")
        sampled = npz["sampled"] > 0
        samples_gy = npz["samples"] * np.float32(npz["sample_step_gy"])
    if samples_gy.shape[1:] != (int(sampled.sum()),):
        raise BadCase(path.stem, f"{path.name} holds {samples_gy.shape} doses for {int(sampled.sum())} voxels")
    return samples_gy, sampled
