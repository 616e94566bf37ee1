# SPDX-License-Identifier: Apache-2.0
"""What all training stages share: the step, the optimizer, validation with the official metrics."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, distributed, nn

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import NotFiniteError
from labeldistill_core.evaluation.metrics import SHORT, evaluate
from labeldistill_core.evaluation.result_boxes import boxes_of_results, result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.frames import Transform
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.sampling import seed_of
from labeldistill_core.training.trackers import log_picture
from labeldistill_core.visualization.animation import side_by_side
from labeldistill_core.visualization.view import key_frame

_LOG = logging.getLogger(__name__)

_SHOWN_SCORE = 0.3
_PICTURE_WIDTH_PX = 1760


class TrainingBatch(Protocol):
    """A batch, as every stage takes it."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Token of each sample, as in the tables."""

    @property
    def boxes(self) -> tuple[Boxes3D, ...]:
        """Ground truth of each sample in the model's frame."""

    @property
    def map_from_ego(self) -> tuple[Transform, ...]:
        """Pose of each sample's model frame in the map, without augmentation."""


class Stage(LightningModule, ABC):
    """One network and how it is trained; a stage says what its losses and detections are."""

    def __init__(self, network: nn.Module, recipe: Recipe, class_names: tuple[str, ...]) -> None:
        """Take over a network.

        Args:
            network: what is trained, averaged and exported.
            recipe: of the run.
            class_names: by label.
        """
        super().__init__()
        self.network, self.recipe, self.class_names = network, recipe, class_names
        self.tables: NuScenesTables | None = None
        """Ground truth of the validation samples."""
        self._found: dict[str, BoxArrays] = {}

    @abstractmethod
    def losses(self, sample: Any) -> dict[str, Tensor]:
        """Each loss by name, a scalar."""

    @abstractmethod
    def detections(self, sample: Any) -> list[Boxes3D]:
        """Boxes that the network finds, in the model's frame, one a sample."""

    def parameter_rates(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        """Name, parameter, and the factor on the learning rate of everything that is trained."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter, 1.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout depend on the step alone, so that a resumed run draws the same."""
        torch.manual_seed(seed_of(self.recipe.seed, self.trainer.global_step, batch_idx))

    def training_step(self, sample: TrainingBatch, _: int) -> Tensor:
        """Sum of all losses of one batch."""
        losses = self.losses(sample)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
            raise NotFiniteError(
                f"the loss is not finite at step {self.global_step}: {parts}; "
                f"samples {', '.join(sample.tokens)}. Look at these samples, or lower "
                "--learning-rate and train in another folder"
            )
        # Given, since lightning would guess it from the first tensor that it finds.
        size = len(sample.tokens)
        self.log_dict({f"train/{k}": v.detach() for k, v in losses.items()}, batch_size=size)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        # Of those that learn fastest; some parts of a student learn slower by a factor.
        rate = max(group["lr"] for group in self.trainer.optimizers[0].param_groups)
        self.log("train/learning_rate", rate, batch_size=size)
        return total

    def validation_step(self, sample: TrainingBatch, _: int) -> None:
        """Keep the boxes of one batch."""
        found = self.detections(sample)
        for token, pose, boxes in zip(sample.tokens, sample.map_from_ego, found, strict=True):
            boxes = boxes.to("cpu").transformed(pose)
            self._found[token] = result_columns(boxes, self.class_names)

    def on_validation_epoch_end(self) -> None:
        """Score all boxes with the official metrics."""
        parts = [self._found]
        if distributed.is_available() and distributed.is_initialized():
            parts = [{} for _ in range(distributed.get_world_size())]
            # Boxes are gathered before scoring: precision and recall are not additive.
            distributed.all_gather_object(parts, self._found)
        # By token: where samples do not divide evenly, two processes may score the same one.
        found = {token: boxes for part in parts for token, boxes in part.items()}
        self._found = {}
        assert self.tables is not None, "validation needs the tables"
        truths = [self.tables.ground_truth(token) for token in found]
        metrics = evaluate(truths, ResultColumns(found))
        self.log("val/mAP", metrics.mean_ap, prog_bar=True)
        self.log("val/NDS", metrics.nds, prog_bar=True)
        self.log_dict({f"val/{SHORT[name]}": value for name, value in metrics.tp_errors.items()})
        if self.trainer.is_global_zero:
            # the same sample each time, so that pictures of several epochs can be compared
            self._show(min(found), ResultColumns(found))

    def _show(self, token: str, found: ResultColumns) -> None:
        """Log a picture of one sample, where its images are there."""
        assert self.tables is not None
        if self.tables.has_images(token):
            boxes = boxes_of_results(found[token])
            frame = key_frame(self.tables, token, boxes[boxes.scores >= _SHOWN_SCORE])
            picture = side_by_side(frame, _PICTURE_WIDTH_PX)
            log_picture(self.trainer.loggers, "val/detections", picture, self.global_step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with the recipe's rates and schedule."""
        recipe = self.recipe
        rate = recipe.scaled_rate(self.trainer.world_size)
        _LOG.info("learning rate %s", recipe.rule(self.trainer.world_size))
        # One group for each pair of rate and decay; AdamW fuses the steps of a group.
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for _, parameter, factor in self.parameter_rates():
            # not norms, biases, and ConvNeXt's scales of shape (C, 1, 1)
            decayed = parameter.squeeze().ndim >= 2 or recipe.decay_everything
            decay = recipe.weight_decay if decayed else 0.0
            groups.setdefault((rate * factor, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()], lr=rate
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: recipe.rate_factor(step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
