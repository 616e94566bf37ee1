# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: the last one, the best one, and how they reach the disk."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from labeldistill_core.errors import CheckpointError, NotFiniteError
from labeldistill_core.files import write_whole
from labeldistill_core.training.export import IDENTITY, read_run
from labeldistill_core.weights import not_finite

_LOG = logging.getLogger(__name__)


class Identity(Callback):
    """Writes into each checkpoint what made the run."""

    def __init__(self, identity: dict[str, Any]) -> None:
        """Keep what made the run, as JSON values."""
        self._identity = identity

    def on_save_checkpoint(self, _: Trainer, __: LightningModule, checkpoint: Any) -> None:
        """Add the identity to what lightning saves."""
        # Inside the file, so that a folder can be moved and a checkpoint exported alone.
        checkpoint[IDENTITY] = self._identity


class Keep(Callback):
    """Saves the run every so many steps, before it is scored and at the end of each epoch."""

    def __init__(self, file: Path, every: int, step: int) -> None:
        """Where, how many steps apart, and the step that the file is of."""
        self._file, self._every, self._scores = file, every, False
        self.saved = step
        """Step of the run in the file; 0 while there is none."""
        self.saving = False
        """Whether a checkpoint is being written."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save after a full number of steps."""
        # lightning loses count of epochs that are taken up between their last batch and their end
        if trainer.global_step % self._every == 0 and not trainer.is_last_batch:
            self.save(trainer)

    def on_validation_start(self, trainer: Trainer, _: LightningModule) -> None:
        """Save before the scoring, which may take long, and is not done again."""
        # As the run will be at the end of the epoch.
        epoch: Any = trainer.fit_loop.epoch_progress
        epoch.increment_processed()
        self._scores = True
        try:
            self.save(trainer)
        finally:
            epoch.total.processed -= 1
            epoch.current.processed -= 1

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Save what the steps since have changed, and the best score so far."""
        self.save(trainer, again=self._scores)
        self._scores = False

    def save(self, trainer: Trainer, again: bool = False) -> None:
        """Save what the steps since have changed; to be called behind a whole step.

        Args:
            trainer: of the run.
            again: save also where no step was made since.

        Raises:
            NotFiniteError: the weights are not; the file stays as it was.
        """
        if trainer.global_step == self.saved and not again:
            return
        # Looked at before the last good file is replaced: a run that diverged could not be taken
        # up.
        if bad := not_finite(trainer.lightning_module.state_dict()):
            raise NotFiniteError(
                f"stopped at step {trainer.global_step}, and {self._file} stays as it was: {bad}"
            )
        self.write(trainer, self._file)
        self.saved = trainer.global_step

    def write(self, trainer: Trainer, file: Path) -> None:
        """Write a checkpoint, and say so meanwhile."""
        self.saving = True
        try:
            trainer.save_checkpoint(file)
        finally:
            self.saving = False


class _Told(msgspec.Struct):
    """What the best checkpoint says of itself."""

    best: float
    scored: str | None = None
    """Runs of earlier versions do not tell it."""


class KeepBest(Callback):
    """Saves the run where it scores better than ever before, always in the same file.

    What is compared with is the score that this file tells, so that the file is never replaced by a
    worse one, whatever became of the run's last checkpoint.
    """

    def __init__(self, keep: Keep, file: Path, metric: str, scored: str) -> None:
        """Begin without a score.

        Args:
            keep: writes checkpoints.
            file: of the best one.
            metric: by which it is; more is better.
            scored: hash of what is scored, since scores of other samples compare with none.
        """
        self._keep, self._file, self._metric, self._scored = keep, file, metric, scored
        self._best = -math.inf

    def on_train_start(self, *_: Any) -> None:
        """Take up the score of the best checkpoint so far."""
        if not self._file.is_file():
            return
        try:
            callbacks = msgspec.convert(read_run(self._file).get("callbacks"), dict[str, Any])
            told = msgspec.convert(callbacks.get(self.state_key), _Told)
        except (CheckpointError, msgspec.ValidationError):
            told = _Told(math.nan)
        if not 0 <= told.best <= 1:
            _LOG.warning("%s is damaged: the next epoch that is scored replaces it", self._file)
        elif told.scored not in (None, self._scored):
            _LOG.warning("other samples are scored than before: the best checkpoint begins anew")
        else:
            self._best = told.best

    def on_validation_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Compare the score of all samples."""
        # The same in all processes, which must all enter the saving below: it waits for each of
        # them.
        score = float(trainer.callback_metrics[self._metric])
        if score > self._best:
            self._best = score
            self._keep.write(trainer, self._file)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best, "scored": self._scored}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place first, so that it appears whole or not at all.

    Lightning writes to the system's folder for temporary files and moves from there, which across
    file systems is a copy onto the last good checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint beside the old one, then put it in its place."""
        # Into memory first: what reaches the disk is complete, or the old file stays.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())
