"""The trial before training: a sound model's loss falls on one batch, a broken one's does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doseledger.core.case import Case
from doseledger.core.files import sha256_of_file
from doseledger.core.tables import SPLITS, read_table, write_table
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.probe import probe_steps


def test_twenty_steps_on_one_batch_lower_the_loss(make_run: Callable[..., TrainingRun], cohort: Any) -> None:
    result = probe_steps(make_run(), cohort.cases, cohort.splits, n_steps=20)
    assert result.finite
    assert len(result.losses) == 21
    assert result.last_loss < 0.7 * result.first_loss
    assert result.image_shape == (2, 14, 16, 24, 32)
    assert result.output_shape == (2, 1, 16, 24, 32)
    assert set(result.case_ids) <= {"case_0001", "case_0002"}
    assert result.n_weights > 1000


def test_a_network_is_tried_without_its_prior(make_run: Callable[..., TrainingRun], cohort: Any) -> None:
    without, on_prior = (
        probe_steps(make_run({"prior": prior}), cohort.cases, cohort.splits, n_steps=2)
        for prior in ("none", "mean_dose")
    )
    assert on_prior == without


def test_a_rate_of_nearly_nothing_is_seen_to_learn_nothing(make_run: Callable[..., TrainingRun], cohort: Any) -> None:
    result = probe_steps(make_run(lr=1e-9), cohort.cases, cohort.splits, n_steps=3)
    assert result.last_loss == pytest.approx(result.first_loss, rel=1e-3)


def test_a_dose_that_is_not_a_number_is_seen(make_run: Callable[..., TrainingRun], cohort: Any) -> None:
    table = read_table(cohort.splits, SPLITS)
    for case_id in ("case_0001", "case_0002"):
        path = cohort.cases / f"{case_id}.npz"
        case = Case.load(path)
        assert case.dose_gy is not None
        replace(case, dose_gy=case.dose_gy * np.float32(np.nan)).save(path)
        table.loc[table["case_id"] == case_id, "sha256"] = sha256_of_file(path)
    write_table(cohort.splits, table, SPLITS)
    assert not probe_steps(make_run(), cohort.cases, cohort.splits, n_steps=2).finite


def test_the_network_that_is_tried_knows_targets_of_cases_outside_its_batch(
    make_run: Callable[..., TrainingRun], cohort: Any
) -> None:
    wanted = probe_steps(make_run(), cohort.cases, cohort.splits, n_steps=1).n_weights
    table = read_table(cohort.splits, SPLITS)
    for case_id in table.loc[table["split"] == "train", "case_id"]:
        path = cohort.cases / f"{case_id}.npz"
        case = Case.load(path)
        replace(case, prescription_gy={"PTV70": case.prescription_gy["PTV70"]}).save(path)
        table.loc[table["case_id"] == case_id, "sha256"] = sha256_of_file(path)
    write_table(cohort.splits, table, SPLITS)
    assert probe_steps(make_run(), cohort.cases, cohort.splits, n_steps=1).n_weights == wanted
