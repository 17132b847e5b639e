"""Files of a run before its first step: settings, cases, environment."""

from __future__ import annotations

import io
import platform
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from doseledger.core.files import all_or_none, sha256_of_file, sha256_of_json, write_json, write_text
from doseledger.learn.data.inputs import OpenCase
from doseledger.learn.run import CasesByPart, TrainingRun


def device_name() -> str:
    """Return what training runs on: the GPU's name, or the CPU and its threads."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU ({torch.get_num_threads()} threads)"


def resolved_settings(run: TrainingRun) -> dict[str, Any]:
    """Return all settings that decide the run's weights, as plain values."""
    return {"model": run.model, **_rates_and_seeds(run), "recipe": run.recipe.trained_part().model_dump(mode="json")}


@all_or_none()
def write_run_files(run: TrainingRun, out: Path, splits: Path, spec: Any, cases: CasesByPart) -> None:
    """Write config_resolved.yaml, dataset_summary.json and run.json to the run's folder."""
    from ruamel.yaml import YAML

    buffer = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(resolved_settings(run), buffer)
    write_text(out / "config_resolved.yaml", buffer.getvalue())
    summary = {
        "structure_names": list(spec.structure_names),
        "target_names": list(spec.target_names),
        "channels": spec.n_channels,
        "conditions": spec.n_conditions,
        **{part: [_describe_case(case) for case in members] for part, members in cases.items()},
    }
    write_json(out / "dataset_summary.json", summary)
    record = {
        "model": run.model,
        **_rates_and_seeds(run),
        "recipe_sha256": sha256_of_json(run.recipe.trained_part().model_dump(mode="json")),
        "splits_sha256": sha256_of_file(splits),
        "cases_sha256": sha256_of_json({c.case_id: c.file.sha256 for part in cases.values() for c in part}),
        "data_gate": run.token,
        **run.family.parts,
        **({"ancestors": [line.told for line in run.ancestors]} if run.ancestors else {}),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pl.__version__,
            "cuda": torch.version.cuda,
        },
        "device": device_name(),
        "processes": {"devices": run.devices, "nodes": run.nodes},
        "provenance": run.provenance,
    }
    write_json(out / "run.json", record)


def _rates_and_seeds(run: TrainingRun) -> dict[str, Any]:
    return {"lr": run.lr, "seed": run.seed, "fold": run.fold, "repeat": run.repeat}


def _describe_case(case: OpenCase) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "sha256": case.file.sha256,
        "shape_zyx": list(case.shape_zyx),
        "spacing_mm": list(case.spacing_mm),
        "present": [name for name, there in zip(case.structure_names, case.present, strict=True) if there],
        "prescription_gy": case.prescription_gy,
        "n_fractions": case.n_fractions,
    }
