# SPDX-License-Identifier: Apache-2.0
"""Ends a run at Ctrl-C or SIGTERM with what is whole saved."""

from __future__ import annotations

import signal
import threading
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import Self

from labeldistill_core.errors import StoppedError
from labeldistill_core.signals import StopRequest
from labeldistill_core.training.checkpointing import Keep

GRACE_S = 10.0
"""For the step that is going on; a scheduler such as Slurm kills 30 s after its signal."""


class Stop(Callback):
    """Saves and ends the run behind the step in which a signal comes.

    Before the first step, at a second signal, and where the step takes long, it ends at once, with
    the last checkpoint as it is.
    """

    def __init__(self, keep: Keep, step: int) -> None:
        """Save with `keep`; the run is at a step."""
        self._keep, self._step = keep, step
        self._trains = False
        self._signal: int | None = None
        self._timer: threading.Timer | None = None
        self._signals = StopRequest(self._receive)

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        if self._timer:
            self._timer.cancel()
        self._signals.__exit__()

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """Take the signals over again, since lightning has one of them by now."""
        self._step, self._trains = trainer.global_step, True
        self._signals.listen()

    def on_train_batch_end(
        self, trainer: Trainer, _: LightningModule, __: Any, ___: Any, batch_idx: int
    ) -> None:
        """End behind a whole step; the last one of an epoch ends with the epoch."""
        self._step = trainer.global_step
        # Gradients of half a step are in no checkpoint.
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._asked(trainer) and whole and not trainer.is_last_batch:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        """End behind the epoch."""
        self._step = trainer.global_step
        if self._asked(trainer):
            self._end(trainer)

    def _receive(self, number: int) -> None:
        # The second signal, or one while nothing can be saved yet.
        if self._signal is not None or not self._trains:
            raise self._error(number)
        self._signal = number
        # the second signal comes by itself
        thread = threading.main_thread().ident
        assert thread is not None
        self._timer = threading.Timer(GRACE_S, signal.pthread_kill, (thread, number))
        self._timer.daemon = True
        self._timer.start()

    def _asked(self, trainer: Trainer) -> bool:
        """Whether a signal came to any process of the run."""
        came = self._signal is not None
        if trainer.world_size == 1:
            return came
        # Schedulers may signal one process only; all must leave at the same step, or the others
        # wait in the next one.
        return trainer.strategy.reduce_boolean_decision(came, all=False)

    def _end(self, trainer: Trainer) -> None:
        self._keep.save(trainer)
        number = self._signal or signal.SIGTERM
        if not trainer.is_global_zero:
            raise SystemExit(128 + number)  # once is enough, and the first process tells it
        raise self._error(number)

    def _error(self, number: int) -> StoppedError:
        return StoppedError(f"stopped at step {self._step}, repeat the command to go on", number)
