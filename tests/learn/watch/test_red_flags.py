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
from doseledger.learn.watch.red_flags import final_red_flags, red_flags, was_measured_on_training

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


def row(epoch: int, loss: float, **scores: float) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": loss, **scores}


def dose_row(epoch: int, loss: float, known: float, error: float) -> dict[str, float]:
    return row(epoch, loss, train_mae_valid_dose_gy=known, val_mae_valid_dose_gy=error, val_mae_body_gy=9.0)


def dice_row(epoch: int, loss: float, known: float, error: float) -> dict[str, float]:
    return row(epoch, loss, train_dice_error=known, val_dice_error=error)


DICE: Any = SimpleNamespace(
    **{**vars(LIMITS), "least_mae_gy": None, "least_dice_error": SimpleNamespace(warning=0.06, error=0.02)}
)
BY_HEART = (
    "; the model learns its patients by heart. More patients, more variation of patches, weight decay or an "
    "earlier end "
    "help"
)
ASTRAY = ": training goes astray; lower lr or optimiser.clip_norm"
VANISHES = (
    ": plans for like anatomy differ by more; look for the plan's dose among the inputs, and for a loss that counts no "
    "voxel"
)


def told(rows: list[dict[str, float]], limits: Any = LIMITS) -> list[tuple[Any, ...]]:
    return [(flag.name, flag.severity, flag.message, flag.numbers) for flag in red_flags(rows, limits)]


def test_all_signs_of_a_dose_are_told_with_their_numbers() -> None:
    rows = [dose_row(1, 2.0, 0.4, 0.2), dose_row(2, 0.09, 0.4, 0.58)]
    assert told(rows) == [
        ("score_implausible", "warning",
        "validation MAE is 0.580 Gy in epoch 2, at or below 0.6 Gy: no prediction from "
         "anatomy comes so near; look for the plan's dose among the inputs, and for one patient in train and val",
         {"mae_gy": 0.58, "limit": 0.6}),
        ("train_val_gap", "warning", "validation errs by 0.58 Gy, training cases by 0.40 Gy in epoch 2: a gap of 45%, "
         f"more than 10%{BY_HEART}", {"gap": pytest.approx(0.45), "limit": 0.1}),
        ("loss_vanishes", "warning", "the training loss has fallen to 0.045 of the first epoch's, at or below 0.05"
         f"{VANISHES}", {"share": pytest.approx(0.045), "limit": 0.05}),
        ("diverges", "warning", f"the validation MAE is 2.9 times the least so far, more than 1.5{ASTRAY}",
         {"rise": pytest.approx(2.9), "limit": 1.5}),
    ]  # fmt: skip


def test_all_signs_of_a_segmentation_are_told_in_dice() -> None:
    rows = [dice_row(1, 2.0, 0.02, 0.005), dice_row(2, 0.02, 0.01, 0.019)]
    assert told(rows, DICE) == [
        ("score_implausible", "error",
        "validation Dice is 0.981 in epoch 2, at or above 0.98: two observers agree less; "
         "look for one patient in train and val", {"val_dice_error": 0.019, "limit": 0.02}),
        ("train_val_gap", "warning",
        "validation errs by 0.02 of Dice, training cases by 0.01 of Dice in epoch 2: a gap "
         f"of 90%, more than 10%{BY_HEART}", {"gap": pytest.approx(0.9), "limit": 0.1}),
        ("loss_vanishes", "error",
        f"the training loss has fallen to 0.01 of the first epoch's, at or below 0.01{VANISHES}",
         {"share": pytest.approx(0.01), "limit": 0.01}),
        ("diverges", "error", f"the validation error is 3.8 times the least so far, more than 3{ASTRAY}",
         {"rise": pytest.approx(3.8), "limit": 3.0}),
    ]  # fmt: skip
    # Without such a limit a score is never too good.
    assert [name for name, *_ in told([dose_row(1, 1.0, 0.1, 0.1)], DICE)] == []


def test_losses_alone_are_judged_where_nothing_is_validated_or_measured() -> None:
    assert told([]) == []
    rows = [row(1, 1.0), row(2, 0.5), row(3, 0.8)]
    assert told(rows) == [
        ("diverges", "warning", f"the training loss is 1.6 times the least so far, more than 1.5{ASTRAY}",
         {"rise": pytest.approx(1.6), "limit": 1.5}),
    ]  # fmt: skip
    # A loss that rises is told alone, though the score rises too; a score of an epoch before says nothing of this one.
    both = [dose_row(1, 1.0, 3.0, 3.0), dose_row(2, 1.7, 5.0, 5.0)]
    assert [message[:17] for name, _, message, _ in told(both) if name == "diverges"] == ["the training loss"]
    assert told([*both[:1], dose_row(2, 1.0, 6.0, 6.0), row(3, 1.0)]) == []
    # Nothing falls from nothing, and nothing rises from it.
    assert [name for name, *_ in told([row(1, 0.0), row(2, 1.0)])] == ["loss_vanishes"]
    assert told([row(1, 1.0, val_mae_valid_dose_gy=2.0)]) == []


def test_in_the_end_the_best_epoch_and_the_last_loss_are_told() -> None:
    rows = [dose_row(1, 1.0, 1.0, 2.0), dose_row(2, 0.5, 1.2, 1.5), dose_row(3, 0.9, 1.0, 3.5)]
    found = [(flag.name, flag.severity, flag.numbers) for flag in final_red_flags(rows, LIMITS)]
    assert found == [
        ("train_val_gap", "warning", {"gap": pytest.approx(0.25), "limit": 0.1}),
        ("diverges", "warning", {"rise": pytest.approx(1.8), "limit": 1.5}),
    ]  # fmt: skip
    assert final_red_flags([row(1, 1.0), row(2, 9.0)], LIMITS) == []
    assert final_red_flags([], LIMITS) == []
    assert was_measured_on_training(rows)
    assert was_measured_on_training([row(1, 1.0), dice_row(2, 1.0, 0.1, 0.1)])
    assert not was_measured_on_training([row(1, 1.0, val_dice_error=0.1)])
    assert not was_measured_on_training([row(1, 1.0, train_dice_error=0.1)])


def test_live_numbers_go_to_a_sink_and_flags_to_nobody_without_limits(tmp_path: Path) -> None:
    lines: list[str] = []
    taken: list[Any] = []
    live = Live(tmp_path, None, lines.append, taken.append)
    rows = [dose_row(1, 1.0, 0.1, 0.1), dose_row(2, 9.0, 0.1, 9.0)]
    live.epoch_ended(rows, {"epoch": 1}, 3)
    assert (lines, taken) == ([], [rows[1]])
    assert read_json(tmp_path / "live.json")["percent_done"] == 66.7
    assert read_json(tmp_path / "live.json")["red_flags"] == []
    graver = Live(tmp_path, LIMITS, lines.append)
    for history_ in (rows, rows[:1], rows):
        graver.epoch_ended(history_, {"epoch": 1}, 3)
    # Once as an error it is told no more, not even as a warning.
    assert [line.split(": ")[0] for line in lines] == [
        "red flag (error) train_val_gap", "red flag (error) diverges", "red flag (error) score_implausible",
    ]  # fmt: skip
