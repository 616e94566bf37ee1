# SPDX-License-Identifier: Apache-2.0
"""Feature partitioning: which channels of the student each teacher shapes.

Shapes: B batch, S frames, C context channels, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.errors import ConfigError


@dataclass(frozen=True)
class Partition:
    """Channels of one level: label first, then LiDAR, then the camera's own."""

    channels: int
    """How many channels the level has."""
    frames: int
    """That share them evenly; 1 where the level is not stacked from frames."""
    edges: tuple[int, int, int]
    """Within a frame: where the label part ends, the LiDAR part begins and ends."""

    @classmethod
    def of(cls, config: DistillationConfig, channels: int, frames: int) -> Partition:
        """Partition of a level.

        Args:
            config: says how.
            channels: of the level.
            frames: stacked in it.

        Raises:
            ConfigError: a teacher that the student has would get no channel.
        """
        if config.partition == "none":
            return cls(channels, 1, (channels, 0, channels))
        frames = frames if config.partition == "per_frame" else 1
        each = channels // frames
        lidar, label, camera = config.ratio
        share = lidar + label + camera
        # Label first, then LiDAR, as in published checkpoints, whose adaptors would not fit
        # otherwise. What the division leaves over goes to the camera.
        first, second = each * label // share, each * lidar // share
        for teacher, size, weight in (
            ("label", first, config.label_weight),
            ("LiDAR", second, config.lidar_weight),
        ):
            if weight and not size:
                raise ConfigError(
                    f"distillation.ratio {config.ratio} leaves the {teacher} features none of "
                    f"{each} channels: give them a larger share, or the weight 0"
                )
        return cls(channels, frames, (first, first, first + second))

    def size(self, teacher: Literal["label", "lidar"]) -> int:
        """Channels of one teacher."""
        low, high = self._bounds(teacher)
        return (high - low) * self.frames

    def part(self, features: Tensor, teacher: Literal["label", "lidar"]) -> Tensor:
        """(B, C, Y, X) to the channels of one teacher, frame by frame."""
        low, high = self._bounds(teacher)
        frames: Tensor = features.unflatten(1, (self.frames, -1))
        return frames[:, :, low:high].flatten(1, 2)

    def _bounds(self, teacher: Literal["label", "lidar"]) -> tuple[int, int]:
        return (0, self.edges[0]) if teacher == "label" else self.edges[1:]
