# SPDX-License-Identifier: Apache-2.0
"""Depth net: image features and camera to a depth distribution and context features.

Shapes: I images, C feature channels, D depth bins, H W feature rows and columns.
Source: BEVDepth (Li et al., AAAI 2023), sections 3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from labeldistill_core.config import DepthNetConfig
from labeldistill_core.network.deform import deform_conv3x3
from labeldistill_core.network.resnet import BasicBlock

CAMERA_VECTOR_SIZE = 27


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """What the image network knows of one set of images; independent of where the vehicle goes."""

    depth: Tensor
    """(I, D, H, W) float32, a distribution over D."""
    context: Tensor
    """(I, C, H, W) what is seen in each feature cell, wherever it lies along its ray."""


def camera_vector(
    intrinsics: Tensor, image_from_sensor: Tensor, ego_from_camera: Tensor, augmentation: Tensor
) -> Tensor:
    """What the depth net is told about each camera.

    Args:
        intrinsics: (B, N, 3, 3) K in pixels of the image as taken.
        image_from_sensor: (B, N, 4, 4) pixels as taken to pixels of the network's image.
        ego_from_camera: (B, N, 4, 4) mounting pose.
        augmentation: (B, 4, 4) augmentation of the bird's-eye view.

    Returns:
        (B*N, 27): focal lengths and principal point, image transform, view augmentation, pose.
    """
    k, image, bev = intrinsics, image_from_sensor, augmentation[:, None].expand_as(ego_from_camera)
    entries = [
        *(k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]),
        # The third column belongs to depth, which the transform of an image leaves alone.
        *(image[..., row, column] for row in (0, 1) for column in (0, 1, 3)),
        *(bev[..., 0, 0], bev[..., 0, 1], bev[..., 1, 0], bev[..., 1, 1], bev[..., 2, 2]),
    ]
    pose = ego_from_camera[..., :3, :].flatten(-2)
    return torch.cat([torch.stack(entries, dim=-1), pose], dim=-1).flatten(0, 1)


class CameraGate(nn.Module):
    """Scales each channel by what the camera's parameters say."""

    def __init__(self, channels: int) -> None:
        """`channels` in and out."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(CAMERA_VECTOR_SIZE, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels),
        )
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        """Features x (I, C, H, W) and camera vectors (I, 27) to (I, C, H, W)."""
        # Squeeze-and-excitation (Hu et al., CVPR 2018) whose squeeze is the camera, not the image.
        # A camera unlike those of training is far from their mean, beyond what float16 can hold
        # after one layer.
        with torch.autocast(x.device.type, enabled=False):
            squeezed: Tensor = self.mlp(camera.to(self.expand.weight.dtype))
            gate: Tensor = self.expand(self.reduce(squeezed[..., None, None]).relu()).sigmoid()
        return x * gate.to(x.dtype)


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017)."""

    def __init__(self, channels: int, dropout: float) -> None:
        """Four dilations and the global mean."""
        super().__init__()
        self.branches = nn.ModuleList(
            _conv_norm_relu(channels, channels, kernel, dilation)
            # Dilations up to 18 reach across most of a 16x44 map: depth needs the context of the
            # whole object.
            for kernel, dilation in ((1, 1), (3, 6), (3, 12), (3, 18))
        )
        self.pool = _conv_norm_relu(channels, channels)
        self.merge = _conv_norm_relu(5 * channels, channels)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(I, C, H, W) to the same shape."""
        # the mean is one value a channel, so interpolating it to the map's size is broadcasting
        # it, and that may as well happen behind the convolution that merges all five
        local = torch.cat([branch(x) for branch in self.branches], dim=1)
        pooled = self.pool(x.mean(dim=(2, 3), keepdim=True))
        conv: nn.Conv2d = self.merge[0]  # type: ignore[assignment]
        local_weight, pooled_weight = conv.weight.split([local.shape[1], x.shape[1]], dim=1)
        merged = conv2d(local, local_weight, conv.bias) + conv2d(pooled, pooled_weight)
        out: Tensor = self.dropout(self.merge[1:](merged))
        return out


class DeformConv(nn.Module):
    """3x3 deformable convolution (Dai et al., ICCV 2017) that starts as a plain one."""

    def __init__(self, channels: int, groups: int) -> None:
        """`channels` in and out."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.offset = nn.Conv2d(channels, 18, 3, padding=1)
        # Offsets of zero make it a plain convolution at the start.
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]  # the layer has a bias

    def forward(self, x: Tensor) -> Tensor:
        """(I, C, H, W) to the same shape."""
        # Offsets are positions in pixels: bfloat16 keeps eight bits of them, too few for
        # interpolation.
        with torch.autocast(x.device.type, enabled=False):
            offset = self.offset(x.to(self.offset.weight.dtype))
            return deform_conv3x3(x, offset, self.weight.to(x.dtype))


class DepthNet(nn.Module):
    """Two branches behind one convolution, each gated by the camera's parameters."""

    def __init__(self, config: DepthNetConfig, in_channels: int, depth_bins: int) -> None:
        """Build from the configuration."""
        super().__init__()
        mid = config.mid_channels
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, mid, 3, padding=1), nn.BatchNorm2d(mid), nn.ReLU(inplace=True)
        )
        # Focal lengths are in the thousands and rotations below one; without it the first would
        # drown the others.
        self.camera_norm = nn.BatchNorm1d(CAMERA_VECTOR_SIZE)
        self.context_gate = CameraGate(mid)
        self.context_out = nn.Conv2d(mid, config.context_channels, 1)
        self.depth_gate = CameraGate(mid)
        self.blocks = nn.Sequential(*(BasicBlock(mid, mid) for _ in range(3)))
        self.pyramid = PyramidPooling(mid, config.dropout)
        self.deform = (
            DeformConv(mid, config.deform_groups) if config.deform_groups else nn.Identity()
        )
        self.depth_out = nn.Conv2d(mid, depth_bins, 1)

    def precise(self) -> Iterator[nn.Module]:
        """Layers that compute in float32 under autocast, too, so that their weights stay such."""
        yield from self.context_gate.modules()
        yield from self.depth_gate.modules()
        if isinstance(self.deform, DeformConv):
            yield self.deform.offset

    def forward(self, x: Tensor, camera: Tensor) -> FrameFeatures:
        """Features (I, C, H, W) and camera vectors (I, 27) to depth and context."""
        # Context branches off before the depth blocks: it says what is seen, depth where (BEVDepth,
        # section 3.2).
        x = self.reduce(x)
        camera = self.camera_norm(camera)
        context = self.context_out(self.context_gate(x, camera))
        depth = self.pyramid(self.blocks(self.depth_gate(x, camera)))
        logits = self.depth_out(self.deform(depth))
        # The exponentials are summed in float32; in bfloat16 a sum over 112 bins would not be one.
        return FrameFeatures(depth=logits.float().softmax(dim=1), context=context)


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
