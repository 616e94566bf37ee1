# SPDX-License-Identifier: Apache-2.0
"""Voxels and sparse convolutions against dense ones, on real clouds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.timing import alternate
from labeldistill_core.lidar.sparse import SparseConv3d, SparseTensor
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.lidar.voxels import voxelize


@torch.no_grad()
def measure_sparse(teacher: Teacher, points: Sequence[Tensor], repeats: int) -> dict[str, Any]:
    """Milliseconds of voxelization, the encoder's sparse convolutions and the same as `conv3d`.

    Each convolution gets what it gets within the encoder, once as active voxels and once as the
    whole volume; rulebooks are built anew each time.

    Args:
        teacher: whose encoder is measured.
        points: (P, 5) of each sample, on the teacher's device.
        repeats: of each.
    """
    device = points[0].device
    limit = teacher.config.max_voxels[1]
    calls: list[tuple[SparseConv3d, SparseTensor]] = []

    def note(conv: nn.Module, inputs: tuple[SparseTensor]) -> None:
        assert isinstance(conv, SparseConv3d)
        calls.append((conv, inputs[0]))

    convs = [m for m in teacher.encoder.modules() if isinstance(m, SparseConv3d)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convs]
    voxels = voxelize(points, teacher.config, limit)
    teacher.encoder(voxels, len(points))
    for hook in hooks:
        hook.remove()
    # Dense volumes are made beforehand: the comparison is of convolutions, not of the conversion.
    volumes = [x.dense().contiguous() for _, x in calls]

    def sparse() -> list[SparseTensor]:
        for _, x in calls:
            # In training each sample has voxels of its own, so a rulebook is never used again.
            x.rulebooks.clear()
        return [conv(x) for conv, x in calls]

    def dense() -> list[Tensor]:
        pairs = zip(calls, volumes, strict=True)
        return [_as_dense(conv, volume) for (conv, _), volume in pairs]

    worst = 0.0
    for one, other in zip(sparse(), dense(), strict=True):
        there = other.permute(0, 2, 3, 4, 1)[one.indices.unbind(1)]
        worst = max(worst, float((one.features - there).abs().max()))
    voxel_ms, sparse_ms, dense_ms = alternate(
        [lambda: voxelize(points, teacher.config, limit), sparse, dense], repeats, device
    )
    cells = sum(volume[:, 0].numel() for volume in volumes)
    active = sum(len(x.features) for _, x in calls)
    return {
        "samples": len(points),
        "points": sum(map(len, points)),
        "voxels": len(voxels.mean),
        "active_share": active / cells,
        "voxelize_ms": voxel_ms,
        "sparse_ms": sparse_ms,
        "dense_ms": dense_ms,
        "dense_over_sparse": dense_ms / sparse_ms,
        "largest_difference": worst,
    }


def _as_dense(conv: SparseConv3d, volume: Tensor) -> Tensor:
    weight = conv.weight.permute(4, 3, 0, 1, 2)
    return functional.conv3d(volume, weight, None, conv.stride, conv.padding)
