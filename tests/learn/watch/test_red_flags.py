"""Red flags of a history: what is a sign, how grave, and when it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doseledger.core.files import read_json
from doseledger.learn.run import TrainingRun
from doseledger.learn.training.train import Places, train
from doseledger.learn.watch.live import Live, live_metrics
from doseledger.learn.watch.red_flags import final_red_flags, red_flags

LIMITS: Any = SimpleNamespace(
    loss_share=SimpleNamespace(warning=0.05, error=0.01),
    gap=SimpleNamespace(warning=0.1, error=1.0),
    least_mae_gy=SimpleNamespace(warning=0.6, error=0.3),
    rise=SimpleNamespace(warning=1.5, error=3.0),
)


def history(*epochs: tuple[float, float | None, float | None]) -> list[dict[str, float]]:
    """Rows of (loss, MAE on training cases, MAE in validation)."""
    names = ("train_loss", "train_mae_valid_dose_gy", "val_mae_valid_dose_gy")
    return [
        {"epoch": n, **{name: value for name, value in zip(names, epoch, strict=True) if value is not None}}
        for n, epoch in enumerate(epochs, start=1)
    ]


def found(rows: list[dict[str, float]]) -> dict[str, str]:
    return {flag.name: flag.severity for flag in red_flags(rows, LIMITS)}


def test_a_healthy_history_has_none() -> None:
    rows = history((1.0, 3.0, 3.2), (0.5, None, None), (0.4, 2.4, 2.5))
    assert found(rows) == {}
    assert final_red_flags(rows, LIMITS) == []


@pytest.mark.parametrize(
    ("rows", "flags"),
    [
        (history((1.0, None, None), (0.04, None, None)), {"loss_vanishes": "warning"}),
        (history((1.0, None, None), (0.01, None, None)), {"loss_vanishes": "error"}),
        (history((1.0, 2.0, 2.3)), {"train_val_gap": "warning"}),
        (history((1.0, 1.0, 2.1)), {"train_val_gap": "error"}),
        (history((1.0, 0.0, 2.1)), {"train_val_gap": "error"}),
        (history((1.0, 0.5, 0.5)), {"score_implausible": "warning"}),
        (history((1.0, 0.3, 0.3)), {"score_implausible": "error"}),
        (history((1.0, 2.0, 2.0), (1.6, 2.0, 2.0)), {"diverges": "warning"}),
        (history((1.0, 2.0, 2.0), (0.9, 6.1, 6.1)), {"diverges": "error"}),
        (history((1.0, 2.0, math.nan)), dict.fromkeys(["score_implausible", "train_val_gap", "diverges"], "error")),
        (history((1.0, math.nan, 2.1)), {"train_val_gap": "error"}),
        (history((1.0, 2.0, 2.1), (math.nan, 2.0, 2.1)), {"loss_vanishes": "error", "diverges": "error"}),
    ],
)
def test_a_sign_is_as_grave_as_its_limits_say(rows: list[dict[str, float]], flags: dict[str, str]) -> None:
    assert found(rows) == flags


def test_a_model_that_errs_less_in_validation_than_in_training_is_no_sign() -> None:
    assert found(history((1.0, 3.0, 1.0))) == {}


def test_in_the_end_the_epoch_whose_weights_were_kept_is_judged() -> None:
    overfitted_later = history((1.0, 2.9, 3.0), (0.9, 1.9, 2.0), (0.8, 1.0, 2.4))
    assert found(overfitted_later) == {"train_val_gap": "error"}
    assert final_red_flags(overfitted_later, LIMITS) == []


def test_a_flag_is_told_once_and_again_when_it_becomes_an_error(tmp_path: Path) -> None:
    lines: list[str] = []
    live = Live(tmp_path, LIMITS, lines.append)
    rows = history((1.0, 2.0, 2.5), (1.0, 2.0, 2.5), (0.9, 1.0, 2.5), (0.9, 2.0, 2.5))
    for end in range(1, 5):
        live.epoch_ended(rows[:end], {"epoch": 1}, 4)
    assert [line.split(": ")[0] for line in lines] == [
        "red flag (warning) train_val_gap",
        "red flag (error) train_val_gap",
    ]
    assert "a gap of 25%, more than 10%" in lines[0]
    assert read_json(tmp_path / "live.json")["red_flags"] == ["train_val_gap"]


def test_live_numbers_are_the_latest_of_each_and_how_far_it_has_come() -> None:
    rows = history((1.0, 2.0, 2.5), (0.5, None, None))
    rows[1]["seconds"] = 3.0
    assert live_metrics(rows, {"epoch": 1, "val_mae_valid_dose_gy": 2.5}, 8) == {
        "epoch": 2,
        "max_epochs": 8,
        "percent_done": 25.0,
        "latest": {"train_loss": 0.5, "train_mae_valid_dose_gy": 2.0, "val_mae_valid_dose_gy": 2.5},
        "best": {"epoch": 1, "val_mae_valid_dose_gy": 2.5},
    }


def test_a_training_tells_its_flags_in_its_log_and_measures_training_cases(
    make_run: Callable[..., TrainingRun], places: Places
) -> None:
    strict = SimpleNamespace(**{**vars(LIMITS), "least_mae_gy": SimpleNamespace(warning=99.0, error=0.0)})
    lines: list[str] = []
    train(make_run({"fit.max_epochs": 2}), places, fresh=False, tell=lines.append, red_flags=strict)
    (told,) = [line for line in lines if line.startswith("red flag (warning) score_implausible")]
    assert "Gy in epoch 1, at or below 99 Gy" in told
    assert told in (places.out / "train.log").read_text().splitlines()
    live = read_json(places.out / "live.json")
    assert (live["epoch"], live["percent_done"]) == (2, 100.0)
    assert "score_implausible" in live["red_flags"]
    assert 0 < live["latest"]["train_mae_valid_dose_gy"] < 100
