# SPDX-License-Identifier: Apache-2.0
"""ResNet with free width and stem; serves the image encoder and the bird's-eye-view trunk.

Parameter names are torchvision's, so its pretrained weights load at width 64.

Shapes: B batch, C channels, H W rows and columns.
Source: He et al., CVPR 2016; the stride of a bottleneck sits on its 3x3 convolution.
"""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Self


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias that keeps the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        """`width` channels out; the shortcut projects when the shape changes."""
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, width, 3, stride)
        self.conv2, self.bn2 = conv_norm(width, width, 3)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, width, H / stride, W / stride)."""
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; four times as many channels out."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        """`4 * width` channels out; the shortcut projects when the shape changes."""
        super().__init__()
        self.conv1, self.bn1 = conv_norm(in_channels, width, 1)
        # The stride sits in the 3x3 convolution, as in torchvision (ResNet v1.5), not in the first
        # 1x1.
        self.conv2, self.bn2 = conv_norm(width, width, 3, stride)
        self.conv3, self.bn3 = conv_norm(width, 4 * width, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))


_TOPOLOGIES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """Feature pyramid of a ResNet.

    The stem halves the resolution, the pooling (if any) halves it again, and each stage after the
    first halves it once more.
    """

    def __init__(
        self,
        depth: int,
        base_channels: int = 64,
        in_channels: int = 3,
        stages: int = 4,
        pool: bool = True,
    ) -> None:
        """Build `stages` stages; `pool=False` leaves out the pooling behind the stem."""
        super().__init__()
        block, counts = _TOPOLOGIES[depth]
        # Names of layers are torchvision's, whose ImageNet weights load as they are.
        self.conv1, self.bn1 = conv_norm(in_channels, base_channels, 7, 2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        self._frozen_stem = False
        self.channels: tuple[int, ...] = ()
        """Channels of each stage's output."""
        width, channels = base_channels, base_channels
        for stage in range(stages):
            first = block(channels, width, 1 if stage == 0 else 2)
            channels = width * block.expansion
            rest = [block(channels, width) for _ in range(counts[stage] - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            self.channels += (channels,)
            width *= 2
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze_stem(self) -> None:
        """Keep the first convolution and its norm as they are."""
        self._frozen_stem = True
        self.conv1.requires_grad_(False)
        # A batch of a few images has poor statistics; those of ImageNet are kept.
        self.bn1.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for a frozen stem."""
        super().train(mode)
        if self._frozen_stem:
            self.bn1.eval()
        return self

    def stem(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, base, H/2, W/2)."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        return out

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to one map a stage."""
        x = self.maxpool(self.stem(x))
        maps = []
        for stage in range(len(self.channels)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return maps
