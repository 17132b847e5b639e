"""Further records of a training by name: TensorBoard, MLflow, Weights & Biases.

All stay on this machine, beside the resume states. They are told each epoch's row and the resolved settings: numbers
and names of settings and structures, no case and no patient. MLflow and W&B keep the best checkpoint besides, which has
the IDs and digests of its training cases.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from doseledger.core.errors import NotReady

LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
Row = Mapping[str, float]
Sink = Callable[[Row], None]

# What the libraries read: they send nothing and ask nobody.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "wandb": {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB__DISABLE_STATS": "true",
        "WANDB__DISABLE_META": "true",
    },
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
}


@dataclass(frozen=True)
class Record:
    """What a further record is of.

    Parameters
    ----------
    folder
        Where it is kept: outside the run, as it holds clock and host.
    best
        The run's best checkpoint, kept too once training has ended well.
    """

    folder: Path
    best: Path
    model: str
    fingerprint: str
    settings: Mapping[str, Any]


def require_logger(name: LoggerName) -> None:
    """Refuse a record whose library is absent.

    Raises
    ------
    NotReady
        Naming the package.
    """
    if name == "csv":
        return
    os.environ.update(ENVIRONMENT.get(name, {}))
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise NotReady(
            f"train.logger is {name}, but {name} is absent: pip install {name}, or set train.logger to csv"
        ) from error


@contextmanager
def open_logger(name: LoggerName, record: Record) -> Iterator[Sink | None]:
    """Yield what takes each epoch's row, `step` being its epoch; None for csv, which history.csv is.

    Raises
    ------
    NotReady
        If the library is absent.
    """
    if name == "csv":
        yield None
        return
    require_logger(name)
    record.folder.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        with _open_wandb(record) as sink:
            yield sink
        return
    logger = _lightning_logger(name, record)
    logger.log_hyperparams(dict(record.settings))
    try:
        yield lambda row: logger.log_metrics(dict(row), step=int(row["epoch"]))
    except BaseException:
        logger.finalize("failed")
        raise
    if name == "mlflow":
        logger.experiment.log_artifact(logger.run_id, str(record.best))
    logger.finalize("success")


def _lightning_logger(name: LoggerName, record: Record) -> Any:
    from pytorch_lightning import loggers

    if name == "tensorboard":
        return loggers.TensorBoardLogger(str(record.folder), name=record.model, version=record.fingerprint)
    return loggers.MLFlowLogger(
        experiment_name="doseledger",
        run_name=f"{record.model} {record.fingerprint[:12]}",
        tracking_uri=f"sqlite:///{record.folder / 'mlflow.db'}",
        artifact_location=(record.folder / "artifacts").as_uri(),
    )


@contextmanager
def _open_wandb(record: Record) -> Iterator[Sink]:
    """An offline record, which a resumed run goes on with; `wandb sync` would send it, and we never call that."""
    # Copies of artifacts and settings would lie in the user's home.
    os.environ.update({f"WANDB_{name}_DIR": str(record.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")})
    wandb = importlib.import_module("wandb")
    run = wandb.init(
        mode="offline",
        dir=str(record.folder),
        project="doseledger",
        name=record.model,
        id=record.fingerprint,
        config=dict(record.settings),
        settings=wandb.Settings(console="off"),
    )
    try:
        yield lambda row: run.log(dict(row), step=int(row["epoch"]))
        run.log_artifact(str(record.best), name=record.model, type="model", aliases=["best"])
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
