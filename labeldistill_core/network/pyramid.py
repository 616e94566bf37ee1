# SPDX-License-Identifier: Apache-2.0
"""Neck that brings maps of several strides to one stride and stacks them.

Shapes: B batch, C channels, H W rows and columns.
Source: SECOND (Yan et al., Sensors 2018), region proposal network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PyramidNeck(nn.Module):
    """Each map is resampled by a strided or transposed convolution, normalized and stacked."""

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        scales: Sequence[float],
    ) -> None:
        """`scales[i]` multiplies the resolution of map i: 0.25, 0.5, 1, 2, 4 or 8."""
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                _resample(i, o, scale),
                # SECOND's constants, which the published weights were trained with.
                nn.BatchNorm2d(o, eps=1e-3, momentum=0.01),
                nn.ReLU(inplace=True),
            )
            for i, o, scale in zip(in_channels, out_channels, scales, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to (B, sum of out_channels, H, W)."""
        return torch.cat([level(x) for level, x in zip(self.levels, maps, strict=True)], dim=1)


def _resample(in_channels: int, out_channels: int, scale: float) -> nn.Module:
    if scale < 1:
        # Kernel equals stride: no overlap, so the neck neither blurs nor leaves a checkerboard.
        step = round(1 / scale)
        return nn.Conv2d(in_channels, out_channels, step, step, bias=False)
    step = round(scale)
    return nn.ConvTranspose2d(in_channels, out_channels, step, step, bias=False)
