"""The files of a trained and evaluated model, small and by hand, for the tests of its judges."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from doseledger.core.files import read_yaml, sha256_of_bytes, sha256_of_file, write_json, write_text
from doseledger.core.project.layout import Layout, ModelLayout
from doseledger.core.settings import load_settings
from doseledger.core.tables import SPLITS, write_table
from doseledger.learn.kinds import recipe_of
from doseledger.learn.training.checkpoint import Checkpoint, save_checkpoint

LIMITS = [
    {"metric": "mae_body_gy", "operator": "<=", "limit": 3.0, "source": "the clinic"},
    {"metric": "gamma_3_3_global_percent", "operator": ">=", "limit": 95.0, "source": "AAPM TG-218"},
]
PARTS = {"case_0001": "train", "case_0002": "train", "case_0003": "val", "case_0004": "test", "case_0005": "test"}


def digest_of(case_id: str) -> str:
    return sha256_of_bytes(case_id.encode())


def write_evaluated(repository: Path, layout: Layout) -> ModelLayout:
    """Write a model that keeps its limits: splits, checkpoint, history, metrics and limits."""
    at = layout.model("dose_unet")
    rows = [
        {"repeat": 0, "fold": 0, "case_id": c, "pseudonym": c, "group": "A", "split": part, "sha256": digest_of(c)}
        for c, part in PARTS.items()
    ]
    write_table(layout.splits, pd.DataFrame(rows), SPLITS)
    seen = {part: {c: digest_of(c) for c in PARTS if PARTS[c] == part} for part in ("train", "val")}
    save_checkpoint(at.checkpoint, checkpoint_of(repository, seen["train"], seen["val"]))
    write_history(at, [(0.2, 7.0, 7.2), (0.1, 3.0, 3.1), (0.09, 2.5, 2.7)])
    write_metrics(at, {"case_0004": (2.0, 96.0), "case_0005": (3.0, 98.0)})
    thresholds = layout.cohorts / "phantom/thresholds.yaml"
    # JSON is YAML too.
    write_json(thresholds, {**read_yaml(thresholds), "metrics": {"dose_unet": LIMITS}})
    return at


def checkpoint_of(repository: Path, trained: dict[str, str], selected: dict[str, str]) -> Checkpoint:
    recipe = recipe_of(load_settings(repository / "params.yaml"), "dose_unet")
    return Checkpoint(
        model="dose_unet",
        recipe=recipe.trained_part(),
        settings={},
        structure_names=("PTV70",),
        target_names=("PTV70",),
        spacing_range_mm=((3.0, 2.5, 2.5), (3.0, 2.5, 2.5)),
        trained_on=trained,
        selected_on=selected,
        epoch=1,
        scores={},
        weights={"one": torch.zeros(1)},
    )


def write_metrics(at: ModelLayout, values: dict[str, tuple[float, float]]) -> None:
    rows = [
        {
            "case_id": case_id,
            "case_sha256": digest_of(case_id),
            "checkpoint_sha256": sha256_of_file(at.checkpoint),
            "mae_body_gy": mae,
            "gamma_3_3_global_percent": gamma,
            "gamma_criteria": "3 %/3 mm global, cutoff 10 %",
            "gamma_points_verified": 50,
            "gamma_largest_difference": 1e-13,
            "goals_evaluable": 10,
            "plan_goals_met": 10,
            "plan_acceptable": True,
            "prediction_goals_met": 9,
            "prediction_acceptable": True,
        }
        for case_id, (mae, gamma) in values.items()
    ]
    table = pd.DataFrame(rows)
    write_text(at.metrics / "cases.csv", table.to_csv(index=False))
    means = {name: float(table[name].mean()) for name in ("mae_body_gy", "gamma_3_3_global_percent")}
    write_json(at.metrics / "details.json", {"n_cases": len(table), **means})


def write_history(at: ModelLayout, epochs: list[tuple[float, float | None, float]]) -> None:
    """Loss, MAE on training cases (None: not measured) and in validation of each epoch."""
    lines = ["epoch,train_loss,train_mae_valid_dose_gy,val_mae_valid_dose_gy,seconds"]
    for number, (loss, train, val) in enumerate(epochs, start=1):
        lines.append(f"{number},{loss},{'' if train is None else train},{val},{12.5 * number}")
    write_text(at.run / "history.csv", "\n".join(lines) + "\n")
