# SPDX-License-Identifier: Apache-2.0
"""Image encoder: images to features at one stride.

Shapes: I images (batch times cameras), H W image rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labeldistill_core.config import ConvNeXtConfig, ImageConfig, ImageEncoderConfig
from labeldistill_core.network.pyramid import PyramidNeck
from labeldistill_core.network.resnet import ResNet

_BACKBONE_STRIDES = (4, 8, 16, 32)


class ConvNeXt(nn.Module):
    """torchvision's ConvNeXt as a feature pyramid at strides 4, 8, 16 and 32."""

    def __init__(self, config: ConvNeXtConfig) -> None:
        """Random weights; load torchvision's with `load_state_dict(strict=False)`."""
        super().__init__()
        # Here, since it takes two seconds more than torch itself, of each process that imports any
        # detector, and the other backbones need none of it.
        import torchvision

        self.features = getattr(torchvision.models, f"convnext_{config.variant}")().features
        # even entries downsample (the first is the stem), odd ones are the four stages
        self.channels = tuple(
            layer.out_channels for layer in (self.features[i][-1 if i else 0] for i in (0, 2, 4, 6))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(I, 3, H, W) to four maps."""
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index % 2:
                maps.append(x)
        return maps


class ImageEncoder(nn.Module):
    """Normalization, backbone and neck."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig, image: ImageConfig) -> None:
        """Build from the configuration."""
        super().__init__()
        self.swap = image.channel_order == "bgr"
        # Part of the network, so that nobody has to remember how its images were normalized.
        self.register_buffer("mean", torch.tensor(image.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.std).view(3, 1, 1), persistent=False)
        backbone = config.backbone
        self.backbone: ResNet | ConvNeXt
        if isinstance(backbone, ConvNeXtConfig):
            self.backbone = ConvNeXt(backbone)
        else:
            self.backbone = ResNet(backbone.depth, backbone.base_channels)
            if config.frozen_stem:
                self.backbone.freeze_stem()
        self.neck = PyramidNeck(
            self.backbone.channels,
            config.neck_channels,
            [stride / config.stride for stride in _BACKBONE_STRIDES],
        )
        self.channels = sum(config.neck_channels)

    def normalize(self, images: Tensor) -> Tensor:
        """Grey levels (..., 3, H, W) in red, green, blue to what the backbone expects."""
        # The published code feeds BGR with statistics of RGB; its weights were trained so.
        x = images.flip(-3) if self.swap else images
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (I, 3, H, W) grey levels 0 to 255 in red, green, blue; any dtype.

        Returns:
            (I, channels, H / stride, W / stride).
        """
        out: Tensor = self.neck(self.backbone(self.normalize(images)))
        return out
