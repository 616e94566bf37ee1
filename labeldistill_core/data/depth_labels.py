# SPDX-License-Identifier: Apache-2.0
"""Depth labels: LiDAR points in the images, and the depth bin of each feature cell.

Shapes: P points, N cameras, H W image rows and columns, h w feature rows and columns.
Source: BEVDepth (Li et al., AAAI 2023), section 3.2.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.config import DepthBins
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.frames import Transform

# The devkit's projection of points and the published labels leave the outermost pixels out.
_BORDER_PX = 1


def points_in_image(
    points: NDArray[np.floating[Any]],
    camera_from_lidar: Transform,
    calibration: CameraCalibration,
) -> NDArray[np.float32]:
    """LiDAR points that a camera sees.

    Args:
        points: (P, >= 3) in the LiDAR's frame, metres.
        camera_from_lidar: LiDAR at its time to the camera at its time.
        calibration: of the camera.

    Returns:
        (<= P, 3): u, v in pixels of the image as taken, and depth in metres.
    """
    uvd = calibration.project(camera_from_lidar.apply(points[:, :3]))
    u, v, depth = uvd.T
    inside = (
        (depth > 0)
        & (u > _BORDER_PX)
        & (u < calibration.width_px - _BORDER_PX)
        & (v > _BORDER_PX)
        & (v < calibration.height_px - _BORDER_PX)
    )
    seen: NDArray[np.float32] = uvd[inside].astype(np.float32)
    return seen


def depth_map(
    points: NDArray[np.float32],
    transform: ImageTransform,
    collisions: Literal["nearest", "last"] = "nearest",
) -> NDArray[np.float32]:
    """Depths of the transformed image's pixels.

    Args:
        points: (P, 3) u, v, depth in the image as taken.
        transform: what was done to the image.
        collisions: which of several points in a pixel counts; the published code takes the last.

    Returns:
        (H, W) metres; zero where there is no point.
    """
    left, top, right, bottom = transform.crop
    width, height = right - left, bottom - top
    matrix = transform.matrix
    pixels = points[:, :2] @ matrix[:2, :2].T + matrix[:2, 3]
    # Truncated as published; -0.9 becomes 0 and so counts as inside.
    column, row = pixels.astype(np.int16).T.astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.flatnonzero(inside)
    if collisions == "nearest":
        order = order[np.argsort(-points[order, 2], kind="stable")]  # the nearest is written last
    out = np.zeros((height, width), dtype=np.float32)
    out[row[order], column[order]] = points[order, 2]
    return out


def depth_bins(maps: Tensor, stride: int, bins: DepthBins) -> Tensor:
    """Bin of the nearest depth in each feature cell.

    Args:
        maps: (N, H, W) metres, zero where unknown.
        stride: image pixels per feature cell.
        bins: the depths.

    Returns:
        (N, h, w) int64; -1 where there is no label.
    """
    # Floor, so that bin k holds depths from start + k * step on: lift puts a bin's feature at that
    # left edge.
    index = _positions(maps, stride, bins).floor()
    valid = (index >= 0) & (index < bins.count)
    return torch.where(valid, index, -1).long()


def depth_remainders(maps: Tensor, stride: int, bins: DepthBins) -> Tensor:
    """How far the nearest depth lies behind the left edge of its bin, where the bin stands.

    Args:
        maps: (N, H, W) metres, zero where unknown.
        stride: image pixels per feature cell.
        bins: the depths.

    Returns:
        (N, h, w) in 0 to 1, as a share of a bin; 0 where there is no label.
    """
    position = _positions(maps, stride, bins)
    return torch.where(position.isfinite(), position - position.floor(), 0.0)


def _positions(maps: Tensor, stride: int, bins: DepthBins) -> Tensor:
    """(N, h, w) nearest depth in bins; infinite where there is none."""
    n, height, width = maps.shape
    # (N, H, W) to (N, h, stride, w, stride): one block of pixels for each feature cell.
    blocks = maps.view(n, height // stride, stride, width // stride, stride)
    # The nearest point of a cell hides the others, as it does in the image.
    blocks = torch.where(blocks > 0, blocks, torch.inf)
    return (blocks.amin(dim=(2, 4)) - bins.start_m) / bins.step_m
