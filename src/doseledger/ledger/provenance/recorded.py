"""What DVC recorded of a model's stages: the settings that made a run, whatever params.yaml says by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.files import read_yaml
from doseledger.ledger.provenance.stamp import PARAMS_FILE

# The stages of every model's run; its own are named with it.
COMMON_STAGES = ("ingest", "split", "check_data")
# Beginnings of the names of the stages that decide a run's numbers; its report and verdicts follow from them.
DECIDING_STAGES = ("split", "train", "predict", "evaluate")
# Settings of a run that are not in its model's own block.
COMMON_SETTINGS = ("seed", "lr", "fold", "repeat")
# Settings of a run where DVC has recorded none yet, beside the model's own block.
DECIDING_SETTINGS = (*COMMON_SETTINGS, "splits", "evaluate")


def stages_of_model(lock_file: Path, model: str) -> dict[str, Any]:
    """Return dvc.lock's entries of the stages that a model's run went through; empty where there is no such file.

    Raises
    ------
    BadInput
        If the file is no dvc.lock.
    """
    return _of_model(_read_stages(lock_file), model)


def dvc_hashes(lock_file: Path, stages: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, str]]]:
    """Return {stage: {"deps": {path: md5}, "outs": {path: md5}}} of dvc.lock; empty where there is no such file.

    Parameters
    ----------
    lock_file
        A dvc.lock.
    stages
        Stages to return (`train@dose_unet`), those that the lock doesn't know left out; None for all.

    Raises
    ------
    BadInput
        If the file is no dvc.lock.
    """
    known = _read_stages(lock_file)
    wanted = known if stages is None else [name for name in stages if name in known]
    return {
        name: {
            # An entry's `hash` is the name of the algorithm; what has no MD5 was not hashed.
            kind: {str(item["path"]): str(item.get("md5") or "") for item in known[name].get(kind) or []}
            for kind in ("deps", "outs")
        }
        for name in wanted
    }


def _read_stages(lock_file: Path) -> dict[str, Any]:
    """The entries of a dvc.lock by stage; empty where there is no such file."""
    if not lock_file.is_file():
        return {}
    lock = read_yaml(lock_file)
    if not isinstance(lock, dict) or not isinstance(lock.get("stages", {}), dict):
        raise BadInput(f"{lock_file}: not a dvc.lock (no mapping of stages); run `dvc repro` again")
    return lock.get("stages") or {}


def _of_model(stages: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {name: stage for name, stage in stages.items() if name in COMMON_STAGES or name.endswith(f"@{model}")}


def recorded_settings(lock_file: Path, params_file: Path, model: str) -> dict[str, Any]:
    """Return the settings that decided a model's run, flat: `lr`, `network.channels`, `splits.seed`.

    They are those that DVC recorded with the stages; before a model's first training, those of params.yaml.
    """
    return settings_of_stages(stages_of_model(lock_file, model), read_yaml(params_file), model)


def settings_of_stages(stages: Mapping[str, Any], params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the settings that decided a model's run, flat.

    Parameters
    ----------
    stages
        Entries of dvc.lock by stage.
    params
        Content of params.yaml, for a model that was not trained yet.
    model
        Its name; the settings of its own block are named without it.
    """
    found: dict[str, Any] = {}
    mine = _of_model(stages, model)
    for name, stage in mine.items():
        if name.startswith(DECIDING_STAGES):
            found |= (stage.get("params") or {}).get(PARAMS_FILE) or {}
    if not any(name.startswith("train") for name in mine):
        found |= {name: params[name] for name in (*DECIDING_SETTINGS, model) if name in params}
    flat = dict(flatten(found))
    return {name.removeprefix(f"{model}."): value for name, value in sorted(flat.items())}


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of nested mappings; lists stay whole.

    Examples
    --------
    >>> dict(flatten({"fit": {"max_epochs": 3}, "lr": 0.1}))
    {'fit.max_epochs': 3, 'lr': 0.1}
    """
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
