# SPDX-License-Identifier: Apache-2.0
"""Augmentation of the bird's-eye view: rotation, scale and mirroring of the ego frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.frames import Array


@dataclass(frozen=True)
class BevAugmentation:
    """Applied to camera geometry, points and boxes alike; scale and rotation before mirroring.

    Source: BEVDepth's `bda` augmentation.
    """

    rotation_deg: float = 0.0
    """Turn about z, from +x towards +y."""
    scale: float = 1.0
    """Factor on all three axes."""
    flip_x: bool = False
    """Whether x becomes -x."""
    flip_y: bool = False
    """Whether y becomes -y."""

    @property
    def matrix(self) -> Array:
        """(4, 4), linear."""
        angle = math.radians(self.rotation_deg)
        turn = np.eye(4)
        turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        turn[:3, :3] *= self.scale
        mirror = np.diag([-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0, 1.0])
        return np.asarray(mirror @ turn)

    def apply(self, boxes: Boxes3D) -> Boxes3D:
        """The boxes as they stand in the augmented frame; the frame keeps its name."""
        values = boxes.values.clone()
        linear = torch.as_tensor(self.matrix[:3, :3], dtype=values.dtype, device=values.device)
        values[:, 0:3] = values[:, 0:3] @ linear.T
        # Sizes know no direction; centres were scaled by the matrix.
        values[:, 3:6] *= self.scale
        yaw = values[:, 6] + math.radians(self.rotation_deg)
        # In the order of `matrix`: mirrored along x, then along y.
        yaw = math.pi - yaw if self.flip_x else yaw
        values[:, 6] = -yaw if self.flip_y else yaw
        # Scaled like the centres, since the time between two of them stays what it is.
        values[:, 7:9] = values[:, 7:9] @ linear[:2, :2].T
        return replace(boxes, values=values)
