# SPDX-License-Identifier: Apache-2.0
"""Points to voxels, and the mean of the points in each.

Shapes: P points of a sample, V voxels of all samples, F numbers of a point.
Source: VoxelNet (Zhou and Tuzel, CVPR 2018), section 2.1, with the limits of CenterPoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labeldistill_core.lidar.config import TeacherConfig


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of a batch, each sample's in the order in which points first fell into them."""

    mean: Tensor
    """(V, F) of the points that a voxel kept."""
    indices: Tensor
    """(V, 4) int64: sample, z, y, x."""
    count: Tensor
    """(V,) int64 points that it kept."""


def voxelize(points: Sequence[Tensor], config: TeacherConfig, limit: int) -> Voxels:
    """Hard voxelization: a voxel keeps its first points, a sample its first voxels.

    Args:
        points: (P, F) of each sample; x, y, z come first, metres.
        config: extent and edges.
        limit: voxels of a sample.
    """
    parts = [voxelize_cloud(cloud, config, limit) for cloud in points]
    indices = [
        torch.cat([torch.full_like(part.indices[:, :1], sample), part.indices], dim=1)
        for sample, part in enumerate(parts)
    ]
    return Voxels(
        torch.cat([part.mean for part in parts]),
        torch.cat(indices),
        torch.cat([part.count for part in parts]),
    )


def voxelize_cloud(cloud: Tensor, config: TeacherConfig, limit: int) -> Voxels:
    """One sample; its indices (V, 3) are z, y, x."""
    ids, inside = _voxel_ids(cloud, config)
    cloud, ids = cloud[inside], ids[inside]
    order = torch.arange(len(ids), device=ids.device)
    # Sorted by id, but the limit counts voxels by first appearance, as published voxelization does.
    unique, inverse = torch.unique(ids, return_inverse=True)
    first = torch.full_like(unique, len(ids)).scatter_reduce_(0, inverse, order, "amin")
    by_appearance = first.argsort()
    rank = torch.empty_like(by_appearance).scatter_(0, by_appearance, order[: len(unique)])
    voxel = rank[inverse]
    # place of a point among those of its voxel
    sorted_voxel, by_voxel = voxel.sort(stable=True)
    start = torch.searchsorted(sorted_voxel, sorted_voxel)
    place = torch.empty_like(order).scatter_(0, by_voxel, order - start)
    keep = (place < config.max_points) & (voxel < limit)
    voxel, cloud = voxel[keep], cloud[keep]
    amount = min(limit, len(unique))
    count = torch.bincount(voxel, minlength=amount)
    total = cloud.new_zeros(amount, cloud.shape[1]).index_add_(0, voxel, cloud)
    _, rows, columns = _shape(config)
    kept = unique[by_appearance[:amount]]
    indices = torch.stack([kept // (rows * columns), kept // columns % rows, kept % columns], 1)
    return Voxels(total / count[:, None].clamp(min=1), indices, count)


def _voxel_ids(cloud: Tensor, config: TeacherConfig) -> tuple[Tensor, Tensor]:
    grid = config.grid
    low = cloud.new_tensor([grid.x_m[0], grid.y_m[0], grid.z_m[0]])
    cell = ((cloud[:, :3] - low) / cloud.new_tensor(config.voxel_m)).floor().long()
    height, rows, columns = _shape(config)
    limit = torch.tensor([columns, rows, height], device=cloud.device)
    inside = ((cell >= 0) & (cell < limit)).all(1) & cloud.isfinite().all(1)
    x, y, z = cell.unbind(1)
    return (z * rows + y) * columns + x, inside


def _shape(config: TeacherConfig) -> tuple[int, int, int]:
    height, rows, columns = config.sparse_shape
    # `sparse_shape` has one layer more than points can fall in.
    return height - 1, rows, columns
