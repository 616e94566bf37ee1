# SPDX-License-Identifier: Apache-2.0
"""Ground-truth boxes on the cells of the bird's-eye view.

Shapes: B batch, M boxes of all samples, K cells of the largest box along an axis, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.2; the mapping q from labels to the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.config import BevGrid


def owners(boxes: Sequence[Boxes3D], order: Tensor, grid: BevGrid, published: bool) -> Tensor:
    """Which box fills each cell.

    Args:
        boxes: of each sample, in the ego frame.
        order: (M,) where boxes of all samples overlap, the one of the highest number wins.
        grid: the cells.
        published: fill as the published code does, see `LabelEncoderConfig.raster`.

    Returns:
        (B, Y, X) int64 index among the boxes of all samples, -1 where there is none.
    """
    values = torch.cat([sample.values for sample in boxes]).float()
    counts = torch.tensor([len(sample.values) for sample in boxes])
    sample = torch.arange(len(boxes)).repeat_interleave(counts).to(values.device)
    shape = (len(boxes), grid.rows, grid.columns)
    rank = torch.full((len(boxes) * grid.rows * grid.columns,), -1, device=values.device)
    if len(values):
        cells, filled = (_polygon_cells if published else _footprint_cells)(values, grid)
        x, y = cells.unbind(-1)
        if published:
            # its polygons begin at zero; what lies beyond the other end falls on the border
            filled = filled & (x >= 0) & (y >= 0)
            x, y = x.clamp(max=grid.columns - 1), y.clamp(max=grid.rows - 1)
        filled = (
            filled
            & (values[:, 3:5] > 0).all(-1)[:, None, None]
            & (x >= 0)
            & (x < grid.columns)
            & (y >= 0)
            & (y < grid.rows)
        )
        index = (sample[:, None, None] * grid.rows + y) * grid.columns + x
        place = order[:, None, None].expand_as(index)
        # A maximum does not depend on the order in which a GPU writes.
        rank.scatter_reduce_(0, index[filled], place[filled], "amax")
    box_of_rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
    none = torch.full((1,), -1, device=values.device)
    return torch.cat([box_of_rank, none])[rank].view(shape)  # rank -1 is the last entry


def _corners(values: Tensor, grid: BevGrid, scale: float) -> tuple[Tensor, Tensor]:
    """Centre (M, 2) and corners (M, 4, 2) in cells, of footprints scaled about their centre."""
    low = values.new_tensor([grid.x_m[0], grid.y_m[0]])
    center = (values[:, :2] - low) / grid.cell_m
    half = values[:, 3:5] / grid.cell_m * (scale / 2)
    signs = values.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    local = half[:, None] * signs
    sin, cos = values[:, 6:7].sin(), values[:, 6:7].cos()
    turned = torch.stack(
        [local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos], -1
    )
    return center, center[:, None] + turned


def _window(low: Tensor, high: Tensor, grid: BevGrid) -> Tensor:
    """(M, K, K, 2) cells (x, y) from `low` (M, 2) to at least `high`."""
    # One window for all boxes, as wide as the largest needs: a loop over boxes would start a kernel
    # for each. A box that is wider than the grid would take memory for cells that are not there.
    size = max(grid.rows, grid.columns)
    low, high = low.clamp(min=-size), high.clamp(max=2 * size)
    extent = (high - low).amax().clamp(min=0)
    steps = torch.arange(int(extent) + 1, device=low.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return low[:, None, None].long() + torch.stack([x, y], -1)


def _footprint_cells(values: Tensor, grid: BevGrid) -> tuple[Tensor, Tensor]:
    center, corners = _corners(values, grid, 1.0)
    cells = _window(corners.amin(1).floor(), corners.amax(1).floor(), grid)
    offset = cells + 0.5 - center[:, None, None]
    sin, cos = values[:, 6, None, None].sin(), values[:, 6, None, None].cos()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    half = values[:, None, None, 3:5] / grid.cell_m / 2
    inside = (along.abs() <= half[..., 0]) & (across.abs() <= half[..., 1])
    return cells, inside | (cells == center.floor()[:, None, None].long()).all(-1)


def _polygon_cells(values: Tensor, grid: BevGrid) -> tuple[Tensor, Tensor]:
    """Grid points in or on a polygon with whole-numbered corners."""
    # Half the length and width, corners cut to whole cells: both as published.
    corners = _corners(values, grid, 0.5)[1].trunc()
    cells = _window(corners.amin(1), corners.amax(1), grid)
    point = cells[:, :, :, None].to(corners)  # (M, K, K, 1, 2)
    start = corners[:, None, None] - point
    end = corners.roll(-1, 1)[:, None, None] - point
    # O'Rourke, Computational Geometry in C, section 7.4: crossings of the rays to both sides
    cross = start[..., 0] * end[..., 1] - start[..., 1] * end[..., 0]
    side = cross * (end[..., 1] - start[..., 1])  # > 0: the edge passes right of the point
    right = ((start[..., 1] > 0) != (end[..., 1] > 0)) & (side > 0)
    left = ((start[..., 1] < 0) != (end[..., 1] < 0)) & (side < 0)
    right_odd, left_odd = right.sum(-1) % 2 == 1, left.sum(-1) % 2 == 1
    corner = (start == 0).all(-1).any(-1)
    return cells, corner | right_odd | left_odd
