"""Settings and hashes that DVC recorded of a model's stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from doseledger.core.errors import BadInput
from doseledger.core.project.layout import PARAMS_FILE
from doseledger.learn.kinds import full_block
from doseledger.ledger.provenance.dvc_files import read_lock

# The stages of every model's run, by cohort, and those of its own, by cohort and model.
COMMON_STAGES = ("ingest", "split", "check_data", "drift")
MODEL_STAGES = ("preflight", "train", "predict", "evaluate", "shortcuts", "judge", "report", "gate")
# Settings of a run that are not in its model's own block.
COMMON_SETTINGS = ("seed", "lr", "fold", "repeat")
# Stages whose params beside the model's own settings decide a run's numbers.
DECIDING_STAGES = ("split", "evaluate")


def stage_names(cohort: str, model: str) -> list[str]:
    """Return the names of the stages that a model's run goes through, in the order of the pipeline."""
    common = [f"{stage}@{cohort}" for stage in COMMON_STAGES]
    return common + [f"{stage}@{cohort}-{model}" for stage in MODEL_STAGES]


def stages_of_model(lock_file: Path, cohort: str, model: str) -> dict[str, Any]:
    """Return dvc.lock's entries of the stages that a model's run went through; empty where there is no such file.

    Raises
    ------
    BadInput
        If the file is no dvc.lock.
    """
    known = read_lock(lock_file)
    return {name: known[name] for name in stage_names(cohort, model) if name in known}


def dvc_hashes(lock_file: Path, stages: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, str]]]:
    """Return {stage: {"deps": {path: md5}, "outs": {path: md5}}} of dvc.lock; empty where there is no such file.

    Parameters
    ----------
    stages
        Stages to return (`train@dose_unet`), those that the lock doesn't know left out; None for all.

    Raises
    ------
    BadInput
        If the file is no dvc.lock.
    """
    known = read_lock(lock_file)
    wanted = known if stages is None else [name for name in stages if name in known]
    return {
        name: {
            # An entry's `hash` is the name of the algorithm; what has no MD5 was not hashed.
            kind: {str(item["path"]): str(item.get("md5") or "") for item in known[name].get(kind) or []}
            for kind in ("deps", "outs")
        }
        for name in wanted
    }


def settings_of_run(config: Mapping[str, Any], predict: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decided a run, flat: `lr`, `network.channels`, `predict.overlap`, `splits.seed`.

    Parameters
    ----------
    config
        What training wrote of its settings (config_resolved.yaml); empty before a model's first training.
    """
    found: dict[str, Any] = {name: config[name] for name in COMMON_SETTINGS if name in config}
    recipe = config.get("recipe")
    found |= recipe if isinstance(recipe, dict) else {}
    if isinstance(predict, Mapping) and predict:
        found["predict"] = dict(predict)
    for name, stage in stages.items():
        if name.partition("@")[0] in DECIDING_STAGES:
            found |= (stage.get("params") or {}).get(PARAMS_FILE) or {}
    return dict(sorted(flatten(found)))


def declared_settings(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the settings of a model as a params.yaml declares them, flat; empty where it has no such model."""
    block, base = params.get(model), params.get("model_base") or {}
    if not isinstance(block, Mapping) or not isinstance(base, Mapping):
        return {}
    common = {name: params[name] for name in COMMON_SETTINGS if name in params}
    try:
        return common | dict(flatten(full_block(block, base, model)))
    except BadInput:
        return common | dict(flatten(block))


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
