# SPDX-License-Identifier: Apache-2.0
"""Lift: depth and context of the images, summed into bird's-eye-view cells.

The lifted tensor depth x context is never built: `embedding_bag` sums depth-weighted context rows
over an index that is sorted by cell and depends on calibration and ego motion only.

Shapes: B batch, N cameras, D depth bins, H W feature rows and columns, C context channels,
Y X grid cells, P points in the grid, R = B*N*H*W feature cells.
Source: LSS (Philion and Fidler, ECCV 2020), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from labeldistill_core.config import BevGrid, DepthBins
from labeldistill_core.network.depth_net import FrameFeatures


def feature_pixels(image_size: tuple[int, int], feature_size: tuple[int, int]) -> Tensor:
    """Where the rays of the feature cells pass through the network's image.

    Args:
        image_size: height and width of the network's image, pixels.
        feature_size: rows and columns of the features.

    Returns:
        (H, W, 2): u, v in pixels, spread evenly from the first to the last pixel.
    """
    # Few, and on the CPU also where a network's outline is made: on the meta device torch would
    # import its compiler for them, which takes two seconds.
    v = torch.linspace(0, image_size[0] - 1, feature_size[0], device="cpu")
    u = torch.linspace(0, image_size[1] - 1, feature_size[1], device="cpu")
    v, u = torch.meshgrid(v, u, indexing="ij")
    return torch.stack([u, v], dim=-1)


def bin_depths(bins: DepthBins) -> Tensor:
    """(D,) metres: a bin stands at its left edge."""
    return bins.start_m + bins.step_m * torch.arange(bins.count, device="cpu")  # see above


def ray_matrices(
    intrinsics: Tensor, image_from_sensor: Tensor, ego_from_camera: Tensor, augmentation: Tensor
) -> Tensor:
    """What makes points of the ego frame out of pixels and depths.

    Args:
        intrinsics: (B, N, 3, 3) K in pixels of the image as taken.
        image_from_sensor: (B, N, 4, 4) pixels as taken to pixels of the network's image.
        ego_from_camera: (B, N, 4, 4) camera at its time to today's ego frame.
        augmentation: (B, 4, 4) applied to the ego frame.

    Returns:
        (B, N, 3, 4): homogeneous pixels to directions of depth one, and the camera's position.
    """
    # Resize, crop, flip and turn act on pixels alone, so the 4x4 shrinks to a 3x3 on homogeneous
    # pixels.
    undo = torch.linalg.inv(image_from_sensor)
    sensor_from_image = torch.eye(3, device=undo.device).repeat(*undo.shape[:2], 1, 1)
    sensor_from_image[..., :2, :2] = undo[..., :2, :2]
    sensor_from_image[..., :2, 2] = undo[..., :2, 3]
    ego = augmentation[:, None] @ ego_from_camera
    directions = ego[..., :3, :3] @ torch.linalg.inv(intrinsics) @ sensor_from_image
    return torch.cat([directions, ego[..., :3, 3:]], dim=-1)


def ray_points(pixels: Tensor, depths: Tensor, rays: Tensor) -> Tensor:
    """Where the points of all rays lie in the ego frame.

    Args:
        pixels: (H, W, 2), see `feature_pixels`.
        depths: (D,), see `bin_depths`.
        rays: (B, N, 3, 4), see `ray_matrices`.

    Returns:
        (B, N, D, H, W, 3) metres, float32.
    """
    # the image transform leaves depth alone, so a point is a direction times its depth: matrices
    # meet H*W directions and not D*H*W points
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    directions = torch.einsum("bnij,hwj->bnhwi", rays[..., :3], homogeneous)
    # In memory all x lie together, all y and all z: what follows looks at each axis by itself.
    directions, origins = (x.movedim(-1, 0).contiguous() for x in (directions, rays[..., 3]))
    points = directions[:, :, :, None] * depths.view(-1, 1, 1) + origins[..., None, None, None]
    return points.movedim(0, -1)


def grid_cells(points: Tensor, grid: BevGrid) -> Tensor:
    """(..., 3) points in the ego frame to (..., 3) whole numbers: column, row and 0 for height.

    Numbers outside the grid stand for points outside.
    """
    low = _constants(points, grid.x_m[0], grid.y_m[0], grid.z_m[0])
    size = _constants(points, grid.cell_m, grid.cell_m, grid.z_m[1] - grid.z_m[0])
    # the lower edge is computed as centre minus half a cell, so that a point on an edge rounds
    # the way the published code rounds it
    scaled = (points - ((low + size / 2) - size / 2)).div_(size)
    return scaled.trunc_() if grid.index_rounding == "truncate" else scaled.floor_()


def _constants(like: Tensor, *values: float) -> Tensor:
    """As `like.new_tensor`, which a CUDA graph cannot record: it copies from the host."""
    return torch.stack([like.new_full((), value) for value in values])


@dataclass(frozen=True, eq=False)
class PoolingTable:
    """Which feature cell and depth bin fall in which grid cell, sorted by grid cell."""

    feature_index: Tensor
    """(P,) row of the context, 0 to R - 1."""
    depth_index: Tensor
    """(P,) index into the flattened depth (R*D)."""
    offsets: Tensor
    """(B*Y*X + 1,) where each grid cell's points begin."""
    depth_shape: tuple[int, int, int, int]
    """(B*N, D, H, W) of the depth that it was built for."""
    grid_shape: tuple[int, int, int]
    """(B, Y, X) of the cells that features are summed into."""
    share: Tensor | None = None
    """(P,) float32, zero for points that only fill the table; ones when None."""

    @classmethod
    def build(
        cls, points: Tensor, grid: BevGrid, use: Tensor | None = None, *, fixed: bool = False
    ) -> PoolingTable:
        """Sort the points of all rays into grid cells.

        Args:
            points: (B, N, D, H, W, 3) in the ego frame, metres; see `ray_points`.
            grid: the cells.
            use: (B, N) bool, cameras that take part; all when None.
            fixed: keep the points outside the grid, without effect, so that P is R*D always and
                the host need not wait for a GPU to know it.

        Returns:
            A table on the device of `points`.
        """
        batch, cameras, bins, height, width, _ = points.shape
        cells = grid_cells(points, grid)
        inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        # Each axis by itself: `all` over a dimension of three takes longer than everything else.
        for axis, limit in zip(cells.unbind(-1), (grid.columns, grid.rows, 1), strict=True):
            inside &= (axis >= 0) & (axis < limit)
        if use is not None:
            inside &= use.view(batch, cameras, 1, 1, 1)
        sample = torch.arange(batch, device=points.device).view(-1, 1, 1, 1, 1)
        # One number a cell over the whole batch: a single sort serves all samples.
        cell = (sample * grid.rows + cells[..., 1]) * grid.columns + cells[..., 0]
        amount, share = batch * grid.rows * grid.columns, None
        if fixed:
            # spread evenly, since one block of a GPU sums a cell
            everywhere = torch.arange(cell.numel(), device=points.device) % amount
            order = torch.where(inside.flatten(), cell.flatten().int(), everywhere.int())
            order, depth_index = order.sort(stable=True)
            # A search for the edges has a fixed shape, which counting with bincount on a GPU has
            # not.
            edges = torch.arange(amount + 1, device=points.device, dtype=torch.int32)
            offsets = torch.searchsorted(order, edges)
            share = inside.flatten()[depth_index].float()
        else:
            depth_index = inside.flatten().nonzero()[:, 0]
            # In as few bits as hold a cell: 32 sort in half the time of 64, 16 in a third.
            bits = torch.int16 if amount < 1 << 15 else torch.int32
            order = cell.flatten().index_select(0, depth_index).to(bits)
            count = torch.bincount(order, minlength=amount)
            offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
            depth_index = depth_index.index_select(0, order.argsort(stable=True))
        # All bins of a pixel share one row of the context, so the lifted tensor D x C x H x W is
        # never made.
        image, pixel = depth_index // (bins * height * width), depth_index % (height * width)
        return cls(
            feature_index=image * (height * width) + pixel,
            depth_index=depth_index,
            offsets=offsets,
            depth_shape=(batch * cameras, bins, height, width),
            grid_shape=(batch, grid.rows, grid.columns),
            share=share,
        )


def pool(features: FrameFeatures, table: PoolingTable) -> Tensor:
    """Sum depth-weighted context over every grid cell.

    Args:
        features: depth (B*N, D, H, W) and context (B*N, C, H, W).
        table: built from today's calibration and ego motion.

    Returns:
        (B, C, Y, X) float32; zero where no ray passes.

    Raises:
        ValueError: the table was built for another number or size of images.
    """
    if tuple(features.depth.shape) != table.depth_shape:
        raise ValueError(
            f"depth is {tuple(features.depth.shape)}, the table was built for {table.depth_shape}"
        )
    # float32 whatever the network computes in: hundreds of points may add up in a near cell.
    rows = features.context.float().permute(0, 2, 3, 1).flatten(0, 2)  # (R, C)
    # `index_select` and not an index, whose gradient on a CPU takes four times as long.
    weights = features.depth.float().flatten().index_select(0, table.depth_index)  # (P,)
    if table.share is not None:
        weights = weights * table.share
    sorted_by_us = rows.requires_grad and rows.device.type == "cpu"
    given = rows.detach() if sorted_by_us else rows
    cells = _sums(table.feature_index, given, table.offsets, weights)
    if sorted_by_us:
        cells = _WithGradientOfRows.apply(cells, rows, weights.detach(), table)
    batch, height, width = table.grid_shape
    return cells.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _sums(index: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows (R, C), one for each interval of the offsets."""
    return embedding_bag(
        index, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


class _WithGradientOfRows(torch.autograd.Function):
    """Sums over cells, through which a gradient reaches the rows that were summed.

    A row's gradient is the weighted sum over its points of their cells' gradients: the same
    operation with rows and cells changed about. `embedding_bag` itself sorts the points anew and
    adds them up one by one, which takes twice the time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, rows: Tensor, weights: Tensor, table: PoolingTable) -> Any:
        """(B*Y*X, C) as it is; `rows` are (R, C)."""
        ctx.save_for_backward(weights)
        ctx.table = table
        return cells.view_as(cells)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Of the cells as it is, and of the rows."""
        (gradient,), (weights,) = gradients, ctx.saved_tensors
        table: PoolingTable = ctx.table
        images, bins, height, width = table.depth_shape
        points = (images, bins, height * width)
        # By depth cell, -1 and 0 where there is no point; turned, the bins of a row are neighbours.
        cell = torch.full(points, -1, dtype=torch.int32)
        cells = torch.arange(len(table.offsets) - 1, dtype=torch.int32)
        cell.view(-1).scatter_(0, table.depth_index, cells.repeat_interleave(table.offsets.diff()))
        weight = weights.new_zeros(points)
        weight.view(-1).scatter_(0, table.depth_index, weights)
        cell, weight = cell.mT.reshape(-1), weight.mT.reshape(-1)
        there = (cell >= 0).nonzero()[:, 0]
        count = torch.bincount(there // bins, minlength=len(cell) // bins)
        offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
        cell, weight = (x.index_select(0, there) for x in (cell.long(), weight))
        rows = _sums(cell, gradient.contiguous(), offsets, weight)
        return gradient, rows, None, None
