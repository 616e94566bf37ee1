# SPDX-License-Identifier: Apache-2.0
"""The LiDAR teacher as a whole.

Shapes: B batch, P points, C channels, Y X grid cells.
Source: CenterPoint (Yin et al., CVPR 2021), voxel variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from labeldistill_core.checkpoints import build_network, read_checkpoint
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.encoder import Second, SparseEncoder
from labeldistill_core.lidar.sparse import Backend
from labeldistill_core.lidar.voxels import voxelize
from labeldistill_core.network.center_head import CenterHead, TaskMaps
from labeldistill_core.network.pyramid import PyramidNeck

Taps = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class TeacherOutput:
    """What the teacher says of a batch."""

    maps: tuple[TaskMaps, ...]
    """Heat maps and box codes, one entry for each task."""
    taps: Taps
    """Features for distillation: (B, C0, Y, X) and (B, C1, Y/2, X/2)."""


class Teacher(nn.Module):
    """CenterPoint: points to boxes, and the features that the student learns from."""

    def __init__(self, config: TeacherConfig, backend: Backend = "auto") -> None:
        """Random weights.

        Args:
            config: of the network.
            backend: of the sparse convolutions.
        """
        super().__init__()
        self.config = config
        self.encoder = SparseEncoder(config, backend)
        self.second = Second(config, self.encoder.channels)
        self.neck = PyramidNeck(config.second_channels, config.neck_channels, (1, 2))
        self.head = CenterHead(config.head, sum(config.neck_channels))
        # Sparse features are rows of channels already.
        for dense in (self.second, self.neck, self.head):
            dense.to(memory_format=torch.channels_last)

    def forward(self, points: Sequence[Tensor]) -> TeacherOutput:
        """Points of each sample to maps.

        Args:
            points: (P, 5) x, y, z in metres in the ego frame, intensity, age in seconds.
        """
        # As published: training takes fewer, to save memory.
        limit = self.config.max_voxels[0 if self.training else 1]
        voxels = voxelize(points, self.config, limit)
        taps = self.second(self.encoder(voxels, len(points)))
        return TeacherOutput(self.detect(taps), taps)

    def detect(self, taps: Sequence[Tensor]) -> tuple[TaskMaps, ...]:
        """Features, the teacher's own or others that imitate them, through neck and head."""
        maps: tuple[TaskMaps, ...] = self.head(self.neck(taps))
        return maps


def load_teacher(path: Path) -> Teacher:
    """Read a teacher's checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or of another network.
    """
    return build_network(read_checkpoint(path, "teacher"), TeacherConfig, Teacher)
