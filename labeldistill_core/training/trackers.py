# SPDX-License-Identifier: Apache-2.0
"""Tools that people follow runs with: TensorBoard, Weights & Biases, MLflow, Comet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.loggers import (
    CometLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from labeldistill_core.errors import ConfigError

Tracker = Literal["tensorboard", "wandb", "mlflow", "comet", "none"]
_PROJECT = "labeldistill"
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "comet": "comet_ml"}


def make_logger(tracker: Tracker, out: Path) -> Logger:
    """The logger of a run, whose name is that of its folder.

    Args:
        tracker: the tool. Servers and keys are found as each tool documents it, such as by
            `WANDB_MODE` or `MLFLOW_TRACKING_URI`.
        out: folder of the run; local files of the tool go into `OUT/log`.

    Raises:
        ConfigError: the tool is not installed.
    """
    folder, name = out / "log", out.resolve().name
    try:
        match tracker:
            case "tensorboard":
                # without a metric named hp_metric, which nobody measures
                return TensorBoardLogger(out, "", "log", default_hp_metric=False)
            case "wandb":
                folder.mkdir(parents=True, exist_ok=True)
                return WandbLogger(name, project=_PROJECT, save_dir=folder)
            case "mlflow":
                return MLFlowLogger(_PROJECT, name, save_dir=str(folder / "mlruns"))
            case "comet":
                return CometLogger(project=_PROJECT, name=name, offline_directory=str(folder))
            case "none":
                return DummyLogger()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--logger {tracker}: it is not installed; pip install {_PACKAGES[tracker]}"
        ) from error


def log_picture(loggers: Sequence[Logger], name: str, picture: Image.Image, step: int) -> None:
    """Show a picture in each tool that takes pictures.

    Args:
        loggers: of the run.
        name: under which the pictures of several steps are found together.
        picture: RGB.
        step: of the optimizer.
    """
    for logger in loggers:
        match logger:
            case TensorBoardLogger():
                logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
            case WandbLogger():
                logger.log_image(name, [picture], step)
            case MLFlowLogger():
                key = name.replace("/", "_")
                logger.experiment.log_image(logger.run_id, picture, key=key, step=step)
            case CometLogger():
                logger.experiment.log_image(picture, name, step=step)
