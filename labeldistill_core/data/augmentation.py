# SPDX-License-Identifier: Apache-2.0
"""Ranges from which training draws how it changes images and the bird's-eye view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labeldistill_core.cameras import CameraView
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import evaluation_transform
from labeldistill_core.data.bev_augmentation import BevAugmentation
from labeldistill_core.data.crop import top_px
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.errors import ConfigError


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges that are drawn from, uniformly."""

    # The published range for 256 x 704, over the 0.44 by which evaluation resizes to that size: as
    # a factor it means the same for every image size.
    resize: tuple[float, float] = (0.386 / 0.44, 0.55 / 0.44)
    """Range of the factor on the resize that evaluation uses."""
    image_rotation_deg: tuple[float, float] = (-5.4, 5.4)
    """Range of the turn of an image about its centre."""
    image_flip: bool = True
    """Whether half of the images are mirrored."""
    bev_rotation_deg: tuple[float, float] = (-22.5, 22.5)
    """Range of the turn of the world about the vehicle."""
    bev_scale: tuple[float, float] = (0.95, 1.05)
    """Range of the factor on the size of the world."""
    bev_flip: bool = True
    """Whether the world is mirrored along each axis in half of the samples."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, least in (
            ("resize", 0.0), ("bev_scale", 0.0), ("image_rotation_deg", -math.inf),
            ("bev_rotation_deg", -math.inf),
        ):  # fmt: skip
            low, high = getattr(self, name)
            if not least < low <= high < math.inf:
                kind = "finite" if least < 0 else "positive"
                raise ConfigError(
                    f"augmentation.{name} is {low} to {high}: both must be {kind}, the lesser first"
                )

    @property
    def keeps_world(self) -> bool:
        """Whether points and boxes stay as they are."""
        still = self.bev_rotation_deg == (0.0, 0.0) and self.bev_scale == (1.0, 1.0)
        return still and not self.bev_flip

    def image(
        self, view: CameraView, config: StudentConfig, rng: np.random.Generator
    ) -> ImageTransform:
        """A random transform for one camera, the same for all of a sample's frames."""
        plain = evaluation_transform(view, config)
        resize = plain.resize * rng.uniform(*self.resize)
        width = int(view.calibration.width_px * resize)
        height = int(view.calibration.height_px * resize)
        # Columns anywhere, rows as in evaluation: the sky and the bonnet stay where the network
        # meets them later.
        left = int(rng.uniform(0, max(0, width - config.image.width)))
        top = top_px(view.calibration, config.image, resize, height)
        return ImageTransform(
            resize,
            (width, height),
            (left, top, left + config.image.width, top + config.image.height),
            flip=self.image_flip and bool(rng.random() < 0.5),
            rotate_deg=float(rng.uniform(*self.image_rotation_deg)),
        )

    def bev(self, rng: np.random.Generator) -> BevAugmentation:
        """A random change of the ego frame."""
        return BevAugmentation(
            float(rng.uniform(*self.bev_rotation_deg)),
            float(rng.uniform(*self.bev_scale)),
            self.bev_flip and bool(rng.random() < 0.5),
            self.bev_flip and bool(rng.random() < 0.5),
        )
