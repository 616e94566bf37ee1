# SPDX-License-Identifier: Apache-2.0
"""How a stage is trained: optimizer, schedule, averaging, augmentation."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.errors import ConfigError

LARGEST_SEED = 2**32 - 1
"""What numpy's generator takes."""
_LARGEST_COUNT = 2**31 - 1
_COUNTS = ("epochs", "batch_size", "accumulate", "reference_batch")
_POSITIVE = ("learning_rate",)
_NOT_NEGATIVE = ("image_rate", "weight_decay", "velocity_weight", "gradient_clip")
_SHARES = ("milestones", "warmup_share", "ema_decay")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; the defaults are the paper's for the student."""

    epochs: int = 24
    """How often the training passes over the data."""
    batch_size: int = 4
    """Samples a step and process."""
    accumulate: int = 1
    """Batches whose gradients are summed up for one step of the optimizer."""
    learning_rate: float = 4e-4
    """Highest rate of AdamW, for `reference_batch` samples a step over all processes."""
    reference_batch: int = 16
    """The rate is scaled with the square root of the global batch over this one."""
    image_rate: float = 0.5
    """Factor on the learning rate of the student's image encoder and depth net."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    decay_everything: bool = False
    """Whether biases and norms decay too, as the published code has it."""
    schedule: Literal["steps", "cosine"] = "steps"
    """`steps` divides the rate by ten at each milestone; `cosine` lets it fall to zero."""
    milestones: tuple[float, ...] = (19 / 24, 23 / 24)
    """Where schedule `steps` divides the rate, as shares of the run."""
    warmup_share: float = 0.02
    """Share of all steps in which the rate rises linearly from zero."""
    velocity_weight: float = 1.0
    """Weight of the velocities in the box loss."""
    gradient_clip: float = 5.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and exported."""
    class_balanced: bool = False
    """Draw samples so that all classes are equally frequent (CBGS)."""
    seed: int = 0
    """Seed of initial weights, order of samples and augmentation."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Random changes of images and of the bird's-eye view."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for names, fits, range_ in (
            # Written so that NaN, of which no comparison holds, fits nothing.
            (
                _COUNTS,
                lambda value: 1 <= value <= _LARGEST_COUNT,
                f"must be 1 to {_LARGEST_COUNT}",
            ),
            (_POSITIVE, lambda value: 0 < value < math.inf, "must be positive"),
            (_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "must be 0 or more"),
            (_SHARES, lambda value: 0 <= value <= 1, "must be between 0 and 1"),
        ):
            for name in names:
                value = getattr(self, name)
                if not all(map(fits, value if isinstance(value, tuple) else (value,))):
                    raise ConfigError(f"recipe.{name} is {value}: it {range_}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"recipe.seed is {self.seed}: it must be 0 to {LARGEST_SEED}")
        if list(self.milestones) != sorted(self.milestones):
            raise ConfigError(f"recipe.milestones are {self.milestones}: they must ascend")

    def code_weights(self, device: torch.device) -> Tensor | None:
        """Weights (10,) of the box code's numbers in the box loss; None when all are one."""
        if self.velocity_weight == 1.0:
            return None
        weights = torch.ones(10, device=device)
        # The last two of the code's ten numbers.
        weights[8:] = self.velocity_weight
        return weights

    def scaled_rate(self, processes: int) -> float:
        """Learning rate for a number of processes."""
        batch = self.batch_size * self.accumulate * processes
        # The square root, as is usual with Adam (Malladi et al., NeurIPS 2022); the published code
        # scales nothing.
        return self.learning_rate * math.sqrt(batch / self.reference_batch)

    def rule(self, processes: int) -> str:
        """The rate, and how it comes about."""
        return (
            f"{self.scaled_rate(processes):.2e} = {self.learning_rate:.2e} * sqrt("
            f"{self.batch_size} samples * {self.accumulate} batches * {processes} processes / "
            f"{self.reference_batch})"
        )

    def rate_factor(self, step: int, steps: int) -> float:
        """Share of the highest rate at a step of a run."""
        # Adam's first estimates of the variance come from few gradients.
        warmup = max(1, round(steps * self.warmup_share))
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "steps":
            return float(10.0 ** -bisect.bisect_right(self.milestones, step / steps))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
