# SPDX-License-Identifier: Apache-2.0
"""Training of the LiDAR teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.data.samples import LidarSample
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.decode import decode
from labeldistill_core.network.losses import detection_loss
from labeldistill_core.network.targets import build_targets
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.stage import Stage


class TeacherStage(Stage):
    """Detection loss of the teacher."""

    network: Teacher

    def __init__(self, config: TeacherConfig, recipe: Recipe) -> None:
        """A teacher with random weights."""
        super().__init__(Teacher(config), recipe, config.head.class_names)
        self.config = config

    def losses(self, sample: LidarSample) -> dict[str, Tensor]:
        """Heat map and box loss."""
        output = self.network(sample.points)
        return head_losses(output.maps, sample.boxes, self.config, self.recipe)

    def detections(self, sample: LidarSample) -> list[Boxes3D]:
        """Boxes of each sample."""
        output = self.network(sample.points)
        return decode(output.maps, self.config.grid, self.config.decode)


def head_losses(
    maps: tuple[TaskMaps, ...], boxes: tuple[Boxes3D, ...], config: TeacherConfig, recipe: Recipe
) -> dict[str, Tensor]:
    """Detection loss of the teacher's head, in its two parts."""
    device = maps[0].heatmap.device
    # Built on the CPU, where the boxes are; see `StudentStage.losses`.
    targets = [task.to(device) for task in build_targets(boxes, config.grid, config.head)]
    tasks = detection_loss(maps, targets, recipe.code_weights(device))
    return {
        "heatmap": torch.stack([task.heatmap for task in tasks]).sum(),
        "box": torch.stack([task.box for task in tasks]).sum(),
    }
