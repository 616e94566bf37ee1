# SPDX-License-Identifier: Apache-2.0
"""What a run writes down while it goes on."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

_LOG = logging.getLogger(__name__)
_LINE_EVERY_S = 30.0


def progress() -> ProgressBar:
    """How far a run is: a bar on a terminal, a line now and then in a file."""
    return Bar() if sys.stderr.isatty() else Lines()


class Lines(ProgressBar):
    """A line of the log every half minute and behind each epoch, for files and schedulers."""

    def __init__(self) -> None:
        """Begin in silence."""
        super().__init__()
        self._began = self._told = time.perf_counter()
        self._first, self._silent = 0, False

    def disable(self) -> None:
        """Lightning asks for it in all processes of a run but the first."""
        self._silent = True

    def enable(self) -> None:
        """Speak again."""
        self._silent = False

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """A run may be taken up at any step."""
        self._began = self._told = time.perf_counter()
        self._first = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Tell the step where the last line is old."""
        now = time.perf_counter()
        due = trainer.is_last_batch or now - self._told >= _LINE_EVERY_S
        if due and not self._silent:
            self._told = now
            self._tell(trainer, now)

    def on_validation_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Tell the scores."""
        scores = trainer.callback_metrics
        if not self._silent:
            _LOG.info("scored: mAP %.4f, NDS %.4f", scores["val/mAP"], scores["val/NDS"])

    def _tell(self, trainer: Trainer, now: float) -> None:
        step, steps = trainer.global_step, int(trainer.estimated_stepping_batches)
        left_s = (now - self._began) / max(1, step - self._first) * (steps - step)
        _LOG.info(
            "step %d of %d, epoch %d of %d, loss %.4g, about %s left",
            step, steps, trainer.current_epoch + 1, trainer.max_epochs,
            trainer.callback_metrics["train/loss"], _duration(left_s),
        )  # fmt: skip


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


class Bar(TQDMProgressBar):
    """Lightning's, with an end of its line before an error is told."""

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        """Without the number of a version, which these runs do not have."""
        return {name: v for name, v in super().get_metrics(*args).items() if name != "v_num"}

    def on_exception(self, *_: Any) -> None:
        """Close the bars that there are."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                # Left on the terminal: the next line would otherwise be written over the step at
                # which it happened.
                bar.leave = True
                bar.close()


class LogFirst(Callback):
    """Logs the first step, so that a run can be looked at from then on, and every tenth."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Say how often the trainer logs; it asks behind each step."""
        trainer.log_every_n_steps = 10 if trainer.global_step else 1  # type: ignore[attr-defined]


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
            # JSON knows no NaN, which an error has that no class is measured by.
            known = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
            file.write(json.dumps({"step": step, **known}) + "\n")
