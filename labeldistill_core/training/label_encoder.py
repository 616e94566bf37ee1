# SPDX-License-Identifier: Apache-2.0
"""Training of the label encoder as the inverse of the teacher's head.

Source: LabelDistill (Kim et al., ECCV 2024), section 3.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import ClassList
from labeldistill_core.data.samples import LidarSample
from labeldistill_core.distillation.config import LabelEncoderConfig, TeacherNorm
from labeldistill_core.distillation.distiller import Frozen
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.decode import decode
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.teacher import head_losses

Aim = Literal["inverse-head", "autoencoder"]
"""Frozen neck and head of the teacher; or ones that are trained with the encoder from random
weights, which the paper compares with (Table 6)."""


class LabelEncoderStage(Stage):
    """Detection loss of the boxes that the head reads from the encoder's features."""

    network: LabelEncoder

    def __init__(
        self,
        config: LabelEncoderConfig,
        recipe: Recipe,
        teacher: Teacher,
        aim: Aim = "inverse-head",
        norm: TeacherNorm = "running",
    ) -> None:
        """An encoder with random weights.

        Args:
            config: of the encoder.
            recipe: of the run.
            teacher: whose neck and head are used.
            aim: what is trained.
            norm: of the teacher's neck and head while training.

        Raises:
            ConfigError: the encoder's features are not those of the teacher.
        """
        head = teacher.config.head
        needed = (head.tasks, head.class_list.names, teacher.config.second_channels)
        same_cells = config.grid.same_cells(teacher.config.grid)
        names = ClassList(config.classes).names
        if not same_cells or (config.tasks, names, config.channels) != needed:
            raise ConfigError(
                "the label encoder's grid, classes or channels are not the teacher's: train both "
                "for one preset"
            )
        super().__init__(LabelEncoder(config), recipe, head.class_names)
        self.config = teacher.config
        self.decoder = Teacher(teacher.config) if aim == "autoencoder" else None
        if self.decoder is not None:
            # only neck and head are used
            del self.decoder.encoder, self.decoder.second
        # theta_g = argmin L_det(h(g(y)), y): neck and head h stay as they are, only the encoder g
        # learns.
        self._teacher, self._norm = Frozen(teacher, norm), norm

    def losses(self, sample: LidarSample) -> dict[str, Tensor]:
        """Heat map and box loss."""
        return head_losses(self._maps(sample), sample.boxes, self.config, self.recipe)

    def detections(self, sample: LidarSample) -> list[Boxes3D]:
        """What is left of each sample's boxes behind encoder and head."""
        return decode(self._maps(sample), self.config.grid, self.config.decode)

    def frozen(self, device: torch.device) -> Teacher:
        """The teacher, whose neck and head are used, on a device."""
        return self._teacher.on(device)

    def _maps(self, sample: LidarSample):  # type: ignore[no-untyped-def]
        teacher = self.frozen(self.device)
        head = self.decoder or teacher.train(self.training and self._norm == "batch")
        return head.detect(self.network(sample.boxes))
