# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution out of sums over rows and a matrix product.

torchvision's operator has no kernel for several threads on the CPU, has no counterpart among the
operators of older ONNX runtimes, and starts its CUDA kernels on the default stream instead of the
current one, so that no CUDA graph records them. A bilinear sample is a weighted sum of four
pixels, which is what `embedding_bag` computes.

Shapes: I images, C channels in, O channels out, H W rows and columns.
Source: Dai et al., ICCV 2017, equations 2 to 4.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def deform_conv3x3(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """As `torchvision.ops.deform_conv2d` with a 3x3 kernel and padding 1.

    Sampling is done in float32, the product in the type of `weight`.

    Args:
        x: (I, C, H, W).
        offset: (I, 18, H, W), y and x of each tap in pixels.
        weight: (O, C / groups, 3, 3); the number of groups follows from its shape.

    Returns:
        (I, O, H, W) in the type of `weight`.
    """
    images, channels, height, width = x.shape
    out_channels, group_channels = weight.shape[:2]
    groups = channels // group_channels
    index, share = _corners(offset.float())
    rows = x.float().permute(0, 2, 3, 1).flatten(0, 2)  # (I*H*W, C)
    index, share = index.flatten(0, -2), share.flatten(0, -2)  # (I*H*W*9, 4)
    if torch.onnx.is_in_onnx_export():
        samples = (rows[index] * share[..., None]).sum(dim=1)
    else:
        samples = embedding_bag(index, rows, mode="sum", per_sample_weights=share)
    columns = samples.to(weight.dtype).view(-1, 9, groups, group_channels)
    columns = columns.permute(2, 0, 1, 3).flatten(2)  # (groups, I*H*W, 9 * C / groups)
    matrix = weight.view(groups, out_channels // groups, group_channels, 9)
    matrix = matrix.permute(0, 3, 2, 1).flatten(1, 2)  # (groups, 9 * C / groups, O / groups)
    out = torch.bmm(columns, matrix).permute(1, 0, 2)
    return out.reshape(images, height, width, out_channels).permute(0, 3, 1, 2)


def _corners(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels around each sample and their shares, both (I, H, W, 9, 4); none outside the image."""
    images, _, height, width = offset.shape
    device = offset.device
    y, x = offset.view(images, 9, 2, height, width).permute(2, 0, 3, 4, 1)  # each (I, H, W, 9)
    tap = torch.arange(9, device=device)
    y = y + (tap // 3 - 1) + torch.arange(height, device=device).view(-1, 1, 1)
    x = x + (tap % 3 - 1) + torch.arange(width, device=device).view(-1, 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    rows = torch.stack([top, top, top + 1, top + 1], dim=-1)
    columns = torch.stack([left, left + 1, left, left + 1], dim=-1)
    share = torch.stack(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], dim=-1
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixel = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()
    first = torch.arange(images, device=device).view(-1, 1, 1, 1, 1) * (height * width)
    return pixel + first, share * inside
