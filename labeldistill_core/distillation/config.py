# SPDX-License-Identifier: Apache-2.0
"""Configuration of the label encoder and of distillation.

Where the published code differs from its paper, a field has two values; `published.behaviour` sets
the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from labeldistill_core.classes import NUSCENES, ObjectClass
from labeldistill_core.config import BevGrid
from labeldistill_core.config_checks import require_positive
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import TeacherConfig

TeacherNorm = Literal["running", "batch"]
"""See `DistillationConfig.teacher_norm`."""


@dataclass(frozen=True)
class LabelEncoderConfig:
    """Boxes to features that look like the LiDAR detector's."""

    grid: BevGrid
    """Cells that boxes are drawn on."""
    tasks: tuple[tuple[str, ...], ...]
    """Classes of the head that is to be inverted."""
    channels: tuple[int, int] = (128, 256)
    """Of the two maps, those of the teacher's."""
    hidden_channels: int = 256
    """Width of the MLPs and the residual block."""
    raster: Literal["footprint", "published"] = "footprint"
    """Cells that a box fills: those whose centre lies in its footprint, and the one that holds its
    centre; or the published polygon of half the length and width, with truncated corners, which
    misses the centre of some thin boxes and clamps boxes beyond the far ends of the grid to its
    border."""
    box_input: Literal["cell", "raw"] = "cell"
    """What the box MLP sees: the offset of the box's centre from the cell, log size, sine and
    cosine of yaw, velocity; or, as published, nine raw numbers in metres and radians."""
    norm: Literal["channel", "map"] = "channel"
    """Layer norm over the channels of each cell, or, as published, over the whole map with a
    weight in each cell, which ties the encoder to one grid."""
    background: Literal["empty", "encoded"] = "empty"
    """Cells without a box are zero, or, as published, what the MLPs make of zeros."""
    classes: tuple[ObjectClass, ...] = NUSCENES.members
    """Classes of the ground truth, in the order of its labels; see `HeadConfig.classes`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive("label_encoder.channels", *self.channels)
        require_positive("label_encoder.hidden_channels", self.hidden_channels)

    @classmethod
    def of(cls, teacher: TeacherConfig, hidden_channels: int = 256) -> LabelEncoderConfig:
        """The label encoder that fits a teacher.

        Args:
            teacher: whose head is to be inverted.
            hidden_channels: width of the MLPs and the residual block.
        """
        return cls(
            teacher.grid,
            teacher.head.tasks,
            teacher.second_channels,
            hidden_channels,
            classes=teacher.head.classes,
        )


@dataclass(frozen=True)
class DistillationConfig:
    """Which teachers the student has, on which channels, with which weights."""

    lidar_weight: float = 15.0
    """Of the loss between LiDAR features and the student's; 0 leaves it out."""
    label_weight: float = 15.0
    """Of the loss between label features and the student's; 0 leaves it out."""
    response_weight: float = 1.0
    """Of the loss between the LiDAR detector's maps and the student's; 0 leaves it out."""
    partition: Literal["none", "per_frame", "contiguous"] = "per_frame"
    """Channels of each teacher: all of them; a share of each frame's channels, as the paper
    describes; or, as published, a share of the time-stacked channels, which gives one teacher the
    present and another the past."""
    ratio: tuple[int, int, int] = (2, 2, 2)
    """Shares of LiDAR, label and camera channels (paper, Table 5)."""
    response: Literal["soft", "published"] = "soft"
    """Quality focal loss towards the teacher's score, and box codes only where the teacher is
    nearer to the truth; or the published focal loss, which has no positive term, and all codes."""
    scale: Literal["teacher", "cell"] = "teacher"
    """What the feature losses are divided by: the squares of the teacher's own features in the same
    cells, so that weights mean the same for every teacher and width; or, as published with weights
    of 0.3, the number of cells, so that a loss grows with the channels and size of the features."""
    coarse_mask: Literal["max", "bilinear"] = "max"
    """Where objects are in the coarser features: in cells that hold one in a finer cell, or, as
    published, by interpolation, which on small heat maps weighs an object by where it happens to
    stand."""
    adaptors: Literal["quiet", "published"] = "quiet"
    """How they begin: with outputs near zero, so that the feature losses begin at the teacher's own
    squares and ask little of the student until the adaptors have learnt something; or, as
    published, with those of random weights."""
    teacher_norm: TeacherNorm = "running"
    """Statistics with which the teachers' norms work: those they were trained to, or, as published,
    those of the batch at hand, because the teachers are left in training mode."""
    objects: Literal["all", "process"] = "all"
    """Objects whose number the feature losses are divided by: those of all processes, or, as
    published, those of each process by itself, so that the weight depends on how a batch is split.
    """

    def __post_init__(self) -> None:
        """Check ranges."""
        weights = (self.lidar_weight, self.label_weight, self.response_weight)
        if not all(0 <= weight < math.inf for weight in weights):
            raise ConfigError(f"distillation weights {weights} must be numbers, 0 or more")
        if min(self.ratio[:2]) < 1 or self.ratio[2] < 0:
            raise ConfigError(
                f"distillation.ratio {self.ratio}: LiDAR and label need a share of at least 1"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether the LiDAR detector has to run."""
        return self.lidar_weight > 0 or self.response_weight > 0
