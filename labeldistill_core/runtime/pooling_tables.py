# SPDX-License-Identifier: Apache-2.0
"""Pooling tables of the current and of past frames, for engines that build one a frame.

Shapes: N cameras.
"""

from __future__ import annotations

import torch

from labeldistill_core.cameras import CameraPose
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import motion
from labeldistill_core.network.lift import (
    PoolingTable,
    bin_depths,
    feature_pixels,
    ray_matrices,
    ray_points,
)
from labeldistill_core.runtime.engine import StepInput
from labeldistill_core.runtime.history import PastFrame


class PoolingTables:
    """Where the rays of each frame fall today.

    A past frame's table changes with the vehicle's motion, so it is built for every step. The
    current frame's depends on the mounting alone and is kept until a calibration changes.
    """

    def __init__(self, config: StudentConfig, device: torch.device) -> None:
        """Nothing is built yet.

        Args:
            config: the network's.
            device: of the tables.
        """
        self._grid, self._device = config.grid, device
        size = (config.image.height, config.image.width)
        self._pixels = feature_pixels(size, config.feature_size).to(device)
        self._depths = bin_depths(config.depth_bins).to(device)
        self._mounted: tuple[tuple[CameraPose | None, ...], PoolingTable] | None = None

    def current(self, inputs: StepInput) -> PoolingTable:
        """That of the current frame; the same while the cameras stay in their mounts."""
        if self._mounted:
            poses, table = self._mounted
            if all(_same_mounting(old, new) for old, new in zip(poses, inputs.poses, strict=True)):
                return table
        batch = inputs.batch
        table = self.build(
            inputs.poses, inputs.poses, batch.intrinsics[:, 0], batch.image_from_sensor[:, 0]
        )
        self._mounted = inputs.poses, table
        return table

    def past(self, inputs: StepInput, frame: PastFrame) -> PoolingTable:
        """That of a past frame, seen from where the vehicle stands now."""
        return self.build(inputs.poses, frame.poses, frame.intrinsics, frame.image_from_sensor)

    def build(
        self,
        now: tuple[CameraPose | None, ...],
        then: tuple[CameraPose | None, ...],
        intrinsics: torch.Tensor,
        image_from_sensor: torch.Tensor,
    ) -> PoolingTable:
        """A table from scratch.

        Args:
            now: poses of the current set.
            then: poses of the frame whose rays these are.
            intrinsics: (1, N, 3, 3) of that frame, see `CameraBatch`.
            image_from_sensor: (1, N, 4, 4) of that frame, see `CameraBatch`.
        """
        geometry = (intrinsics, image_from_sensor, *motion(now, then))
        intrinsics, image_from_sensor, ego_from_camera, use = (x.to(self._device) for x in geometry)
        # No augmentation at inference.
        unturned = torch.eye(4, device=self._device)[None]
        rays = ray_matrices(intrinsics, image_from_sensor, ego_from_camera, unturned)
        return PoolingTable.build(ray_points(self._pixels, self._depths, rays), self._grid, use)


def _same_mounting(a: CameraPose | None, b: CameraPose | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.calibration.equals(b.calibration)
