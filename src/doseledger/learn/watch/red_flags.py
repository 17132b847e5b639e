"""Red flags of a training: too good to be true, or astray.

As it trains, the latest epoch is judged; in the end, the epoch whose weights were kept. Nothing is stopped by a flag:
people are told at once, and the metrics gate decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from doseledger.core.limit import keeps
from doseledger.learn.run import SEGMENT_SCORES, monitored_in, trained_name

Row = Mapping[str, float]


class Level(Protocol):
    """From where on a sign is worth a warning, and from where on it is an error."""

    @property
    def warning(self) -> float:
        """The one."""

    @property
    def error(self) -> float:
        """The other."""


class RedFlagLimits(Protocol):
    """Limits of the signs, in thresholds.yaml."""

    @property
    def loss_share(self) -> Level:
        """The training loss as a share of the first epoch's: at or below it."""

    @property
    def gap(self) -> Level:
        """(validation - training) / training, both the same error of whole cases: above it."""

    @property
    def least_mae_gy(self) -> Level | None:
        """Validation MAE in Gy: at or below it."""

    @property
    def least_dice_error(self) -> Level | None:
        """One less validation Dice: at or below it."""

    @property
    def rise(self) -> Level:
        """The latest loss or validation error as a multiple of the least so far: above it."""


@dataclass(frozen=True)
class RedFlag:
    """One sign: its name, how grave, in words, and its numbers."""

    name: str
    severity: Literal["warning", "error"]
    message: str
    numbers: dict[str, float]


def red_flags(history: Sequence[Row], limits: RedFlagLimits) -> list[RedFlag]:
    """Return the signs in the latest epoch of a history.

    Parameters
    ----------
    history
        One row an epoch, from the first on; a score is absent where there was no validation.
    """
    return [*_of_scores(history[-1], limits), *_of_course(history, limits)] if history else []


def final_red_flags(history: Sequence[Row], limits: RedFlagLimits) -> list[RedFlag]:
    """Return the signs in a whole history: scores of the epoch with the best validation, losses of the last one."""
    name = monitored_in({key for row in history for key in row})
    validated = [row for row in history if name in row]
    if name is None or not validated:
        return []
    best = min(validated, key=lambda row: row[name])
    return [*_of_scores(best, limits), *_of_course(history, limits)]


def was_measured_on_training(history: Sequence[Row]) -> bool:
    """Return whether any epoch says how well training cases themselves are predicted."""
    names = {key for row in history for key in row}
    name = monitored_in(names)
    return name is not None and trained_name(name) in names


def _of_scores(row: Row, limits: RedFlagLimits) -> Iterator[RedFlag]:
    name = monitored_in(row)
    if name is None:
        return
    epoch, error = int(row["epoch"]), row[name]
    is_dose = name != SEGMENT_SCORES[0]
    least = limits.least_mae_gy if is_dose else limits.least_dice_error
    severity = _severity(least, error, above=False) if least is not None else None
    if severity:
        limit = getattr(least, severity)
        words = (
            f"validation MAE is {error:.3f} Gy in epoch {epoch}, at or below {limit:g} Gy: no prediction from anatomy "
            "comes so near; look for the plan's dose among the inputs, and for one patient in train and val"
            if is_dose
            else f"validation Dice is {1 - error:.3f} in epoch {epoch}, at or above {1 - limit:g}: two observers agree "
            "less; look for one patient in train and val"
        )
        yield RedFlag("score_implausible", severity, words, {"mae_gy" if is_dose else name: error, "limit": limit})
    if trained_name(name) not in row:
        return
    known = row[trained_name(name)]
    gap = (error - known) / known if known > 0 else float("inf")
    severity = _severity(limits.gap, gap, above=True)
    if severity:
        limit = getattr(limits.gap, severity)
        unit = " Gy" if is_dose else " of Dice"
        words = (
            f"validation errs by {error:.2f}{unit}, training cases by {known:.2f}{unit} in epoch {epoch}: a gap of "
            f"{gap:.0%}, more than {limit:.0%}; the model learns its patients by heart. More patients, more variation "
            "of patches, weight decay or an earlier end help"
        )
        yield RedFlag("train_val_gap", severity, words, {"gap": gap, "limit": limit})


def _of_course(history: Sequence[Row], limits: RedFlagLimits) -> Iterator[RedFlag]:
    first, last = history[0]["train_loss"], history[-1]["train_loss"]
    share = last / first if first > 0 else 0.0
    severity = _severity(limits.loss_share, share, above=False)
    if severity:
        limit = getattr(limits.loss_share, severity)
        words = (
            f"the training loss has fallen to {share:.2g} of the first epoch's, at or below {limit:g}: plans for like "
            "anatomy differ by more; look for the plan's dose among the inputs, and for a loss that counts no voxel"
        )
        yield RedFlag("loss_vanishes", severity, words, {"share": share, "limit": limit})
    monitored = monitored_in({key for row in history for key in row}) or "train_loss"
    score = "the validation error" if monitored == SEGMENT_SCORES[0] else "the validation MAE"
    for column, name in (("train_loss", "the training loss"), (monitored, score)):
        values = [row[column] for row in history if column in row]
        if not values or column not in history[-1]:
            continue
        rise = 1.0 if min(values) <= 0 else values[-1] / min(values)
        severity = _severity(limits.rise, rise, above=True)
        if severity:
            limit = getattr(limits.rise, severity)
            words = (
                f"{name} is {rise:.2g} times the least so far, more than {limit:g}: training goes astray; lower lr or "
                "optimiser.clip_norm"
            )
            yield RedFlag("diverges", severity, words, {"rise": rise, "limit": limit})
            return


def _severity(level: Level, value: float, *, above: bool) -> Literal["warning", "error"] | None:
    """Return how grave a number is that lies above a level, or else at or below it; what is no number is an error."""

    def crossed(limit: float) -> bool:
        return not keeps(value, most=limit) if above else not value > limit

    return "error" if crossed(level.error) else "warning" if crossed(level.warning) else None
