# SPDX-License-Identifier: Apache-2.0
"""The moving average of a network's weights, which is what is evaluated and exported."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and norms' statistics, on the network's device.

    It never reaches back over more than about a tenth of the steps so far. An average that still
    holds first steps is worse than it looks: its statistics do not belong to its weights.
    """

    def __init__(self, decay: float) -> None:
        """`decay` once there are steps enough for it."""
        super().__init__(multi_avg_fn=self._mix)
        self._decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average; lightning's own stays where the network is built."""
        # Weights of a student and their average fit on one device; copies across would cost each
        # step.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def _mix(self, average: Any, current: Any, updates: Any) -> None:
        """Let all tensors of one type move towards the current ones."""
        steps = self._latest_update_step
        # Short runs would end before an average of a thousand steps has forgotten its random start.
        decay = min(self._decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(average, current, updates)
