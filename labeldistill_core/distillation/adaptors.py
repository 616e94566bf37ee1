# SPDX-License-Identifier: Apache-2.0
"""Adaptors: the student's channels to the teacher's.

Shapes: B batch, C channels, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.3; the module alpha of the feature loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from labeldistill_core.network.resnet import BasicBlock

_SCALE = 0.1


class Adaptor(nn.Module):
    """One small network a level; used in training only.

    What it says begins near zero, and with it what it wants of the student: the feature losses then
    begin near the teacher's own squares, and not with the noise of random weights.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        """Random weights, for levels of these channels."""
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1, padding_mode="replicate"),
                nn.BatchNorm2d(o),
                nn.ReLU(inplace=True),
                BasicBlock(o, o),
            )
            for i, o in zip(in_channels, out_channels, strict=True)
        )
        for _, norm, _, block in self.levels:
            nn.init.constant_(norm.weight, _SCALE)
            nn.init.zeros_(block.bn2.weight)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, Y_i, X_i) of the student to maps of the teacher's channels."""
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]
