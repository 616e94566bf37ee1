# SPDX-License-Identifier: Apache-2.0
"""What a run writes down while it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class Progress(TQDMProgressBar):
    """Lightning's, with an end of its line before an error is told."""

    def on_exception(self, *_: Any) -> None:
        """Close the bars that there are."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                # Left on the terminal: the next line would otherwise be written over the step at
                # which it happened.
                bar.leave = True
                bar.close()


class Pace(Callback):
    """Logs a process's samples a second, and the share of time that it waited for data."""

    def __init__(self, batch_size: int, every: int = 10) -> None:
        """Samples a batch, and steps of the optimizer between two entries."""
        self._batch_size, self._every, self._logged = batch_size, every, 0
        self._ended = self._started = 0.0
        self._batches, self._waited, self._total = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """A run may be taken up at any step."""
        self._logged = trainer.global_step

    def on_train_epoch_start(self, *_: Any) -> None:
        """Leave out what lies between epochs."""
        # Scoring and saving are no waiting for data.
        self._ended = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Note how long the process waited for this batch."""
        self._started = time.perf_counter()
        self._waited += self._started - self._ended if self._ended else 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Count the batch, and log the pace every so many steps."""
        now, steps = time.perf_counter(), trainer.global_step - self._logged
        self._total += now - (self._ended or self._started)
        self._ended = now
        self._batches += 1
        if steps and trainer.global_step % self._every == 0:
            module.log("pace/wait_share", self._waited / self._total)
            module.log("pace/step_s", self._total / steps, prog_bar=True)
            module.log("pace/samples_s", self._batches * self._batch_size / self._total)
            self._batches, self._waited, self._total = 0, 0.0, 0.0
            self._logged = trainer.global_step


class JsonLines(Logger):
    """One JSON object a line: the step and its scalars."""

    def __init__(self, path: Path) -> None:
        """Append to the file at `path`, which is made with its first line."""
        super().__init__()
        self._path = path

    @property
    def name(self) -> str:
        """Name of this kind of log, which lightning asks for."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Empty: there is one log in a folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the checkpoints hold the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line with the step and its scalars."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for each line, so that what a killed run logged is on the disk.
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
