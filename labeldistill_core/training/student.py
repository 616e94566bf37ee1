# SPDX-License-Identifier: Apache-2.0
"""Training of the student with the detection and the depth loss."""

from __future__ import annotations

import logging

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from labeldistill_core.config import StudentConfig
from labeldistill_core.data.depth_labels import depth_bins
from labeldistill_core.data.samples import StudentSample
from labeldistill_core.network.losses import depth_loss, detection_loss
from labeldistill_core.network.student import Student
from labeldistill_core.network.targets import build_targets
from labeldistill_core.training.recipe import Recipe

_LOG = logging.getLogger(__name__)


class StudentTraining(LightningModule):
    """Losses, optimizer and schedule of the student."""

    def __init__(self, config: StudentConfig, recipe: Recipe) -> None:
        """A student with random weights.

        Args:
            config: of the network.
            recipe: of the run.
        """
        super().__init__()
        self.config, self.recipe = config, recipe
        self.student = Student(config).to(memory_format=torch.channels_last)

    def training_step(self, sample: StudentSample, _: int) -> Tensor:
        """Sum of all losses of one batch."""
        losses = self.losses(sample)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
            raise FloatingPointError(f"the loss is not finite at step {self.global_step}: {parts}")
        size = len(sample.boxes)
        self.log_dict({f"train/{k}": v.detach() for k, v in losses.items()}, batch_size=size)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        return total

    def losses(self, sample: StudentSample) -> dict[str, Tensor]:
        """Each loss by name, a scalar."""
        output, current = self.student(sample.batch)
        targets = build_targets(sample.boxes, self.config.grid, self.config.head)
        tasks = detection_loss(output.maps, targets)
        labels = depth_bins(
            sample.depth.flatten(0, 1), self.config.image_encoder.stride, self.config.depth_bins
        )
        return {
            "heatmap": torch.stack([task.heatmap for task in tasks]).sum(),
            "box": torch.stack([task.box for task in tasks]).sum(),
            "depth": depth_loss(current.depth, labels),
        }

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and a cosine."""
        rate = self.recipe.scaled_rate(self.trainer.world_size)
        _LOG.info(
            "learning rate %.2e = %.2e * sqrt(%d * %d / %d)",
            rate, self.recipe.learning_rate, self.recipe.batch_size, self.trainer.world_size,
            self.recipe.reference_batch,
        )  # fmt: skip
        weights = [p for p in self.student.parameters() if p.ndim >= 2]
        rest = [p for p in self.student.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": self.recipe.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=rate,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.recipe.rate_factor(step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
