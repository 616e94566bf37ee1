# SPDX-License-Identifier: Apache-2.0
"""The student: image encoder, depth net, lift, BEV encoder and head, put together.

Shapes: B batch, S frames (the current one first), N cameras, H W image rows and columns,
C context channels, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3; BEVDepth (Li et al., AAAI 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from labeldistill_core.config import StudentConfig
from labeldistill_core.network.bev_encoder import BevEncoder
from labeldistill_core.network.center_head import CenterHead, TaskMaps
from labeldistill_core.network.depth_net import DepthNet, FrameFeatures, camera_vector
from labeldistill_core.network.image_encoder import ImageEncoder
from labeldistill_core.network.lift import (
    PoolingTable,
    bin_depths,
    feature_pixels,
    pool,
    ray_matrices,
    ray_points,
)


@dataclass(frozen=True, eq=False)
class CameraBatch:
    """Images of all frames and where the cameras were."""

    images: Tensor
    """(B, S, N, 3, H, W) grey levels in red, green, blue."""
    intrinsics: Tensor
    """(B, S, N, 3, 3) K, pixels of the images as taken."""
    image_from_sensor: Tensor
    """(B, S, N, 4, 4) pixels as taken to pixels of `images`."""
    ego_from_camera: Tensor
    """(B, S, N, 4, 4) camera of each frame to the ego frame of the current one."""
    augmentation: Tensor
    """(B, 4, 4) augmentation of the bird's-eye view; identity at inference."""
    use: Tensor
    """(B, S, N) bool, cameras of each frame that take part in pooling."""

    def to(self, device: torch.device | str) -> CameraBatch:
        """On another device."""
        return CameraBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        leading = self.images.shape[:3]
        for name, size in (("intrinsics", 3), ("image_from_sensor", 4), ("ego_from_camera", 4)):
            shape = tuple(getattr(self, name).shape)
            if shape != (*leading, size, size):
                raise ValueError(f"{name} is {shape}, images say {(*leading, size, size)}")


@dataclass(frozen=True, eq=False)
class StudentOutput:
    """What the network says of the current frame."""

    maps: tuple[TaskMaps, ...]
    """Heat maps and box codes, one entry for each task."""
    taps: tuple[Tensor, Tensor]
    """Maps for distillation: (B, S*C, Y, X) and (B, base, Y/2, X/2)."""


class Student(nn.Module):
    """Camera-only detector in the bird's-eye view."""

    pixels: Tensor
    depths: Tensor

    def __init__(self, config: StudentConfig) -> None:
        """Random weights; `checkpoints.load_student` reads trained ones."""
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder, config.image)
        self.depth_net = DepthNet(
            config.depth_net, self.image_encoder.channels, config.depth_bins.count
        )
        self.bev_encoder = BevEncoder(
            config.bev_encoder, config.frames * config.depth_net.context_channels
        )
        self.head = CenterHead(config.head, self.bev_encoder.channels)
        size = (config.image.height, config.image.width)
        pixels = feature_pixels(size, config.feature_size)
        # Computed from the configuration, so checkpoints neither hold nor need them.
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("depths", bin_depths(config.depth_bins), persistent=False)

    def encode(self, images: Tensor, camera: Tensor) -> FrameFeatures:
        """Image network on one frame.

        Args:
            images: (B, N, 3, H, W) grey levels.
            camera: (B*N, 27), see `camera_vector`.
        """
        features: FrameFeatures = self.depth_net(self.image_encoder(images.flatten(0, 1)), camera)
        return features

    def ray_points(
        self,
        intrinsics: Tensor,
        image_from_sensor: Tensor,
        ego_from_camera: Tensor,
        augmentation: Tensor,
    ) -> Tensor:
        """(B, N, D, H, W, 3) points of one frame's rays; see `lift.ray_matrices`."""
        rays = ray_matrices(intrinsics, image_from_sensor, ego_from_camera, augmentation)
        return ray_points(self.pixels, self.depths, rays)

    def pooling_table(
        self,
        intrinsics: Tensor,
        image_from_sensor: Tensor,
        ego_from_camera: Tensor,
        augmentation: Tensor,
        use: Tensor | None = None,
    ) -> PoolingTable:
        """Where one frame's rays fall; arguments as in `ray_points` and `PoolingTable.build`."""
        points = self.ray_points(intrinsics, image_from_sensor, ego_from_camera, augmentation)
        return PoolingTable.build(points, self.config.grid, use)

    def detect(self, bev: Tensor) -> StudentOutput:
        """Stacked cells (B, S*C, Y, X), the current frame first, to maps."""
        encoded = self.bev_encoder(bev)
        return StudentOutput(maps=self.head(encoded.features), taps=encoded.taps)

    def forward(self, batch: CameraBatch) -> tuple[StudentOutput, FrameFeatures]:
        """All frames at once, as in training; gradients flow through the current frame only.

        Returns:
            The output, and the current frame's depth and context.
        """
        # The depth net sees the key frame's calibration for all frames, as in the published code;
        # this is also what makes a past frame's features reusable.
        camera = camera_vector(
            batch.intrinsics[:, 0],
            batch.image_from_sensor[:, 0],
            batch.ego_from_camera[:, 0],
            batch.augmentation,
        )
        cells, current = [], None
        for frame in range(batch.images.shape[1]):
            # Past frames without gradients, as SOLOFusion and the published code train: memory of
            # one frame, not of five.
            with torch.set_grad_enabled(torch.is_grad_enabled() and frame == 0):
                features = self.encode(batch.images[:, frame], camera)
                table = self.pooling_table(
                    batch.intrinsics[:, frame],
                    batch.image_from_sensor[:, frame],
                    batch.ego_from_camera[:, frame],
                    batch.augmentation,
                    batch.use[:, frame],
                )
                cells.append(pool(features, table))
            current = features if current is None else current
        assert current is not None
        return self.detect(torch.cat(cells, dim=1)), current
