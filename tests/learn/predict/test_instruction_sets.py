"""The same weights on another kind of processor: in a process of its own, torch is told to use older instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doseledger.evaluate.predictions import load_prediction
from doseledger.learn.predict.cases import open_predictor
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.dose import PredictRecipe
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.ledger.registry.criteria import load_criteria

# What torch, oneDNN and MKL choose their code by; each reads its own.
OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
PLAIN = PredictRecipe(overlap=0.25, windows_at_once=2, mirror_average=False, project=False, spacing_tolerance=0.25)
AGAIN = """
import sys
from pathlib import Path
import torch
from doseledger.learn.predict.cases import open_predictor
from doseledger.learn.predict.predictor import SplitPart, predict_part
from doseledger.learn.recipes.dose import PredictRecipe
checkpoint, cases, splits, out = map(Path, sys.argv[1:5])
torch.set_num_threads(1)
recipe = PredictRecipe.model_validate_json(sys.argv[5])
part = SplitPart(cases, splits, "test", 0, 0)
predict_part(open_predictor(checkpoint, recipe), part, out, tell=lambda line: None)
print(torch.backends.cpu.get_cpu_capability())
"""


def test_older_instructions_predict_within_the_limit_for_another_machine(
    make_run: Callable[..., TrainingRun], places: Places, cohort: Any, repository: Path, tmp_path: Path
) -> None:
    train(make_run({"fit.max_epochs": 1}), places, fresh=False, tell=lambda line: None)
    best = places.out / "checkpoints/best.ckpt"
    torch.set_num_threads(1)
    part = SplitPart(cohort.cases, cohort.splits, "test", 0, 0)
    predict_part(open_predictor(best, PLAIN), part, tmp_path / "here", tell=lambda line: None)
    command = [sys.executable, "-c", AGAIN, best, cohort.cases, cohort.splits, tmp_path / "there"]
    done = subprocess.run(
        [*map(str, command), PLAIN.model_dump_json()], env={**os.environ, **OLDER}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "DEFAULT"
    here, there = (load_prediction(tmp_path / name / "case_0005.npz").dose_gy for name in ("here", "there"))
    limit = load_criteria(repository / "validation/exit_criteria.yaml").reproduction.max_difference_gy
    assert here.max() > 1
    assert float(np.abs(here - there).max()) < limit
