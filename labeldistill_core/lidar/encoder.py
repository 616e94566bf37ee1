# SPDX-License-Identifier: Apache-2.0
"""Voxels to a bird's-eye view: the sparse encoder, and SECOND behind it.

Shapes: B batch, V voxels, C channels, Z layers, Y X grid cells.
Source: SECOND (Yan et al., Sensors 2018), section 3; CenterPoint (Yin et al., CVPR 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.sparse import Backend, SparseConv3d, SparseTensor, Triple
from labeldistill_core.lidar.voxels import Voxels

_POINT_NUMBERS = 5
# Those of mmdetection3d's CenterPoint, whose weights can be converted; torch's differ.
_EPS, _MOMENTUM = 1e-3, 0.01


class SparseEncoder(nn.Module):
    """Sparse residual stages, each at half the resolution of the one before."""

    def __init__(self, config: TeacherConfig, backend: Backend = "auto") -> None:
        """Build from the configuration."""
        super().__init__()
        self.shape = config.sparse_shape
        channels, last = config.encoder_channels, config.encoder_channels[-1]
        self.input = _SparseConvNorm(_POINT_NUMBERS, channels[0], backend, submanifold=True)
        self.stages = nn.ModuleList()
        # The last stage halves nothing: behind it comes the convolution along z alone.
        paddings = (*config.height_padding, None)
        for index, (width, height) in enumerate(zip(channels, paddings, strict=True)):
            stage: list[nn.Module] = [_SparseBasicBlock(width, backend) for _ in range(2)]
            if height is not None:
                stage.append(
                    _SparseConvNorm(
                        width,
                        channels[index + 1],
                        backend,
                        stride=(2, 2, 2),
                        padding=(height, 1, 1),
                    )
                )
            self.stages.append(nn.Sequential(*stage))
        self.output = _SparseConvNorm(
            last, config.out_channels, backend, (3, 1, 1), stride=(2, 1, 1), padding=(0, 0, 0)
        )
        self.channels = config.out_channels * config.heights

    def forward(self, voxels: Voxels, batch: int) -> Tensor:
        """(B, C * Z, Y, X); the channel index is c * Z + z."""
        x = self.input(SparseTensor(voxels.mean, voxels.indices, self.shape, batch))
        for stage in self.stages:
            x = stage(x)
        # (B, C, Z, Y, X): what heights are left become channels, as in CenterPoint.
        dense: Tensor = self.output(x).dense()
        return dense.flatten(1, 2).contiguous(memory_format=torch.channels_last)


class _SparseConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        backend: Backend,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (1, 1, 1),
        submanifold: bool = False,
    ) -> None:
        super().__init__()
        self.conv = SparseConv3d(
            in_channels, out_channels, kernel, stride, padding, submanifold, backend
        )
        self.norm = nn.BatchNorm1d(out_channels, _EPS, _MOMENTUM)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self.conv(x)
        return x.with_features(torch.relu(_normed(self.norm, x.features)))


class _SparseBasicBlock(nn.Module):
    """Two convolutions that keep the active voxels, and a shortcut."""

    def __init__(self, channels: int, backend: Backend) -> None:
        super().__init__()
        self.conv1 = SparseConv3d(channels, channels, submanifold=True, backend=backend)
        self.bn1 = nn.BatchNorm1d(channels, _EPS, _MOMENTUM)
        self.conv2 = SparseConv3d(channels, channels, submanifold=True, backend=backend)
        self.bn2 = nn.BatchNorm1d(channels, _EPS, _MOMENTUM)

    def forward(self, x: SparseTensor) -> SparseTensor:
        # Both keep the active voxels, so one rulebook serves all blocks of a stage.
        y = self.conv1(x)
        y = self.conv2(y.with_features(torch.relu(_normed(self.bn1, y.features))))
        return x.with_features(torch.relu(_normed(self.bn2, y.features) + x.features))


def _normed(norm: nn.BatchNorm1d, features: Tensor) -> Tensor:
    # batch statistics of less than two voxels do not exist
    if norm.training and len(features) < 2:
        return nn.functional.batch_norm(
            features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    out: Tensor = norm(features)
    return out


class Second(nn.Module):
    """Two stages of plain convolutions, at the grid's resolution and at half of it."""

    def __init__(self, config: TeacherConfig, in_channels: int) -> None:
        """Build from the configuration."""
        super().__init__()
        self.stages = nn.ModuleList()
        for channels, layers, stride in zip(
            config.second_channels, config.second_layers, (1, 2), strict=True
        ):
            stage: list[nn.Module] = []
            for layer in range(layers + 1):
                stage += [
                    nn.Conv2d(
                        # Only the first convolution of a stage changes the resolution.
                        in_channels,
                        channels,
                        3,
                        1 if layer else stride,
                        padding=1,
                        bias=False,
                    ),
                    nn.BatchNorm2d(channels, _EPS, _MOMENTUM),
                    nn.ReLU(inplace=True),
                ]
                in_channels = channels
            self.stages.append(nn.Sequential(*stage))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, Y, X) to (B, C0, Y, X) and (B, C1, Y/2, X/2)."""
        first = self.stages[0](x)
        return first, self.stages[1](first)
