# SPDX-License-Identifier: Apache-2.0
"""The step in torch, stage by stage."""

from __future__ import annotations

import torch
from torch import Tensor

from labeldistill_core.network.decode import suppressed
from labeldistill_core.network.depth_net import FrameFeatures, camera_vector
from labeldistill_core.network.lift import pool
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.runtime.engine import EngineInfo, StepInput, StepOutput, timed
from labeldistill_core.runtime.pooling_tables import PoolingTables


class EagerEngine:
    """Runs each stage as its own operations; see `engine.Engine`."""

    graph = "not asked for"

    def __init__(self, network: Student, info: EngineInfo) -> None:
        """Run a network.

        Args:
            network: what `fuse` made of a student, on the device of `info`.
            info: how the network computes.
        """
        self.config, self.info, self.network = network.config, info, network
        self.tables = PoolingTables(network.config, info.device)
        self._dtype = getattr(torch, info.precision)

    def step(self, inputs: StepInput, timings_ms: dict[str, float]) -> StepOutput:
        """See `engine.Engine`."""
        with timed(timings_ms, "image_network"):
            features = self._encode(inputs.batch.to(self.info.device))
        with timed(timings_ms, "lift"):
            cells = self._lift(inputs, features)
        # Geometry and pooling are float32 always; see `EngineInfo.precision`.
        with timed(timings_ms, "bev_network"), self._autocast():
            maps = self.network.detect(cells).maps
        with timed(timings_ms, "decode"):
            found = suppressed(maps, self.config.grid, self.config.decode)
        return StepOutput(found, features)

    def _encode(self, batch: CameraBatch) -> FrameFeatures:
        camera = camera_vector(
            batch.intrinsics[:, 0],
            batch.image_from_sensor[:, 0],
            batch.ego_from_camera[:, 0],
            batch.augmentation,
        )
        with self._autocast():
            return self.network.encode(batch.images[:, 0], camera)

    def _lift(self, inputs: StepInput, features: FrameFeatures) -> Tensor:
        """Cells (1, S*C, Y, X); the current frame takes the place of past ones that are missing."""
        # Outside autocast: a sum over hundreds of points stays float32.
        current = pool(features, self.tables.current(inputs))
        cells = [
            pool(frame.features, self.tables.past(inputs, frame)) if frame else current
            for frame in inputs.past
        ]
        # two modules look at the cells: converted here, they are converted once
        return torch.cat([frame.to(self._dtype) for frame in (current, *cells)], dim=1)

    def _autocast(self) -> torch.autocast:
        enabled = self._dtype != torch.float32
        return torch.autocast(self.info.device.type, self._dtype, enabled=enabled)
