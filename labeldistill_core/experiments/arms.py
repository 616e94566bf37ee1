# SPDX-License-Identifier: Apache-2.0
"""The ways of training a student that an ablation compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labeldistill_core.distillation.config import DistillationConfig

_SHARED = DistillationConfig(partition="none")


@dataclass(frozen=True)
class Arm:
    """One way of training the student."""

    distillation: DistillationConfig | None
    """None trains without teachers."""
    autoencoder: bool = False
    """Take the label encoder that was trained with a head of its own (paper, Table 6)."""

    @property
    def needs_labels(self) -> bool:
        """Whether a label encoder teaches."""
        return self.distillation is not None and self.distillation.label_weight > 0

    def given(
        self, teacher: Path | None, encoders: Mapping[bool, Path | None], init: Path | None
    ) -> dict[str, Path | None]:
        """The checkpoints that its students are trained with, by option of `train_student`.

        Args:
            teacher: the LiDAR detector.
            encoders: the label encoder; under True, the one with a head of its own.
            init: student to start from.
        """
        return {
            "teacher": teacher if self.distillation else None,
            "label_encoder": encoders[self.autoencoder] if self.needs_labels else None,
            "init": init,
        }


ARMS: dict[str, Arm] = {
    "none": Arm(None),
    "lidar": Arm(replace(_SHARED, label_weight=0.0)),
    "lidar+label": Arm(_SHARED),
    "lidar+label+partition": Arm(DistillationConfig()),
    "autoencoder": Arm(DistillationConfig(), autoencoder=True),
    "ratio-1:3:2": Arm(DistillationConfig(ratio=(1, 3, 2))),
    "ratio-3:1:2": Arm(DistillationConfig(ratio=(3, 1, 2))),
}
"""Arms (a) to (d) of the paper's Table 4, and those of its Tables 5 and 6; ratios are
LiDAR:label:camera."""
MAIN = ("none", "lidar", "lidar+label", "lidar+label+partition")
"""What is trained when nothing else is asked for."""
