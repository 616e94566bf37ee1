# SPDX-License-Identifier: Apache-2.0
"""The published way of a step: what the fast ways are measured against."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from benchmarks.detector.pooling import cell_of_point, naive_lift
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.network import depth_net
from labeldistill_core.network import student as student_network
from labeldistill_core.network.decode import decode
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.lift import PoolingTable
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.latency import replaced


class WholeForward:
    """The published way: every step runs all frames through all of the network.

    Float32, eager, contiguous; the lift builds depth x context of every point, deformable
    convolution is torchvision's operator. Images are prepared beforehand.
    """

    def __init__(self, student: Student, device: torch.device) -> None:
        """From a network with random weights."""
        self._student, self._device = student.eval().to(device), device
        config = student.config
        sets = [frame_set(-age_s, config) for age_s in (0.0, *config.history_s)]
        self._batch: CameraBatch = camera_batch(sets, config)

    @torch.inference_mode()
    def __call__(self) -> None:
        """One step."""
        config = self._student.config
        with (
            replaced(student_network, "pool", materialized_pool),
            replaced(depth_net, "deform_conv3x3", _torchvision_deform_conv),
        ):
            maps = self._student(self._batch.to(self._device))[0].maps
        decode(maps, config.grid, config.decode)


def materialized_pool(features: FrameFeatures, table: PoolingTable) -> Tensor:
    """In place of `lift.pool`: builds the lifted tensor."""
    return naive_lift(features.depth, features.context, table, cell_of_point(table))


def _torchvision_deform_conv(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = deform_conv2d(x, offset, weight, padding=1)
    return out
