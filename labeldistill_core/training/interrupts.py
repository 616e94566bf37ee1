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

    Before the first step, while it is scored, at a second signal, and where the step takes long, it
    ends at once, with the last checkpoint as it is.
    """

    def __init__(self, keep: Keep) -> None:
        """Save with `keep`."""
        self._keep, self._step = keep, keep.saved
        self._at_once = True
        self._signal: int | None = None
        self._ended = threading.Event()
        self._signals = StopRequest(self._receive)

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the signals back, and tell of one that came behind the last step."""
        self._ended.set()
        self._signals.__exit__()
        if self._signal is not None and kind is None:
            raise self._error(self._signal)

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """Take the signals over again, since lightning has one of them by now."""
        self._step, self._at_once = trainer.global_step, False
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

    def on_validation_start(self, trainer: Trainer, _: LightningModule) -> None:
        """End before the scoring, or at once while it goes on: the steps are saved by now."""
        if trainer.world_size > 1:
            return  # the others would wait for this one's boxes
        self._step, self._at_once = trainer.global_step, True
        if self._signal is not None:
            raise self._error(self._signal)

    def on_validation_end(self, _: Trainer, __: LightningModule) -> None:
        """Wait for the end of a step again."""
        self._at_once = False

    def _receive(self, number: int) -> None:
        # The second signal, or one while there is nothing to save.
        if self._signal is not None or self._at_once:
            raise self._error(number)
        self._signal = number
        threading.Thread(target=self._insist, args=(number,), daemon=True).start()

    def _insist(self, number: int) -> None:
        """Send the second signal by itself when the step takes long."""
        while not self._ended.wait(GRACE_S):
            # Where the run is being saved the step is behind us, and a slow disk takes what it
            # takes.
            if not self._keep.saving:
                thread = threading.main_thread().ident
                assert thread is not None
                signal.pthread_kill(thread, number)
                return

    def _asked(self, trainer: Trainer) -> bool:
        """Whether a signal came to any process of the run."""
        came = self._signal is not None
        if trainer.world_size == 1:
            return came
        # Schedulers may signal one process only; all must leave at the same step, or the others
        # wait in the next one.
        return trainer.strategy.reduce_boolean_decision(came, all=False)

    def _end(self, trainer: Trainer) -> None:
        self._ended.set()
        self._keep.save(trainer)
        number = self._signal or signal.SIGTERM
        if not trainer.is_global_zero:
            raise SystemExit(128 + number)  # once is enough, and the first process tells it
        raise self._error(number)

    def _error(self, number: int) -> StoppedError:
        saved = self._keep.saved
        if saved == self._step:
            return StoppedError(f"stopped at step {saved}, repeat the command to go on", number)
        kept = f"step {saved} is saved" if saved else "nothing is saved yet"
        return StoppedError(
            f"stopped at step {self._step}; {kept}, and the repeated command goes on from there",
            number,
        )
