# SPDX-License-Identifier: Apache-2.0
"""How a stage is trained: optimizer, schedule, averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from labeldistill_core.data.samples import AugmentationConfig
from labeldistill_core.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run."""

    epochs: int = 24
    """Passes over the data."""
    batch_size: int = 8
    """Samples a step and process."""
    learning_rate: float = 4e-4
    """Highest rate of AdamW, for `reference_batch` samples a step over all processes."""
    reference_batch: int = 16
    """The rate is scaled with the square root of the global batch over this one."""
    weight_decay: float = 1e-2
    """Of AdamW, on weights of two and more dimensions."""
    warmup_share: float = 0.05
    """Of all steps, with a rate that rises linearly; then it falls as a cosine."""
    gradient_clip: float = 5.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.999
    """Of the moving average of the weights, which is what gets evaluated and exported."""
    seed: int = 0
    """Of initial weights, order and augmentation."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Of images and the bird's-eye view."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"recipe.{name} is {getattr(self, name)}: it must be positive")

    def scaled_rate(self, processes: int) -> float:
        """Learning rate for a number of processes."""
        return self.learning_rate * math.sqrt(self.batch_size * processes / self.reference_batch)

    def rate_factor(self, step: int, steps: int) -> float:
        """Share of the highest rate at a step of a run."""
        warmup = max(1, round(steps * self.warmup_share))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


RECIPES: dict[str, Recipe] = {
    "demo": Recipe(
        epochs=16,
        batch_size=8,
        learning_rate=2e-3,
        reference_batch=8,
        ema_decay=0.995,
        # a short run on a small world learns faster from images as they will be seen
        augmentation=AugmentationConfig(resize=(0.95, 1.1), image_rotation_deg=(0.0, 0.0)),
    ),
}
"""Recipe of each preset; others use the defaults."""
