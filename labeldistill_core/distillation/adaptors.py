# SPDX-License-Identifier: Apache-2.0
"""Adaptors: the student's channels to the teacher's.

Shapes: B batch, C channels, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.3; the module alpha of the feature loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from labeldistill_core.network.resnet import BasicBlock

# Small and not zero, or the convolution before it would get no gradient.
_SCALE = 0.1


class Adaptor(nn.Module):
    """One small network a level; used in training only."""

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int], *, quiet: bool = True
    ) -> None:
        """Random weights, for levels of these channels.

        Args:
            in_channels: of the student, a level.
            out_channels: of the teacher, a level.
            quiet: begin with outputs near zero, see `DistillationConfig.adaptors`.
        """
        super().__init__()
        self.levels = nn.ModuleList(
            _level(i, o, quiet) for i, o in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, Y_i, X_i) of the student to maps of the teacher's channels."""
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


def _level(in_channels: int, out_channels: int, quiet: bool) -> nn.Sequential:
    # Replicated as published: a border of zeros would look like empty ground.
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")
    norm, block = nn.BatchNorm2d(out_channels), BasicBlock(out_channels, out_channels)
    if quiet:
        nn.init.constant_(norm.weight, _SCALE)
        # The block begins as the identity (Goyal et al., 2017, section 5.1).
        nn.init.zeros_(block.bn2.weight)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True), block)
