# SPDX-License-Identifier: Apache-2.0
"""BEV encoder: stacked frames of grid cells to one feature map.

Shapes: B batch, S frames, C context channels, Y X grid cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from labeldistill_core.config import BevEncoderConfig
from labeldistill_core.network.pyramid import PyramidNeck
from labeldistill_core.network.resnet import ResNet


@dataclass(frozen=True, eq=False)
class BevFeatures:
    """The encoder's result and the two maps that distillation looks at."""

    features: Tensor
    """(B, sum of neck channels, Y, X)."""
    taps: tuple[Tensor, Tensor]
    """The stacked input (B, S*C, Y, X) and the first stage (B, base, Y/2, X/2)."""


class BevEncoder(nn.Module):
    """Three ResNet stages without pooling, and a neck back to the grid's resolution."""

    def __init__(self, config: BevEncoderConfig, in_channels: int) -> None:
        """Build from the configuration."""
        super().__init__()
        # No pooling behind the stem: the grid is small, and a pedestrian is one cell.
        self.trunk = ResNet(
            config.trunk_depth, config.base_channels, in_channels, stages=3, pool=False
        )
        self.neck = PyramidNeck(
            (in_channels, *self.trunk.channels), config.neck_channels, (1, 2, 4, 8)
        )
        self.channels = sum(config.neck_channels)

    def forward(self, bev: Tensor) -> BevFeatures:
        """Encode (B, S*C, Y, X)."""
        # The stacked cells skip the trunk too, so that the neck keeps the full resolution.
        stages = self.trunk(bev)
        return BevFeatures(self.neck([bev, *stages]), taps=(bev, stages[0]))
