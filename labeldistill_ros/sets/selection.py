# SPDX-License-Identifier: Apache-2.0
"""Which of the detector's boxes are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detections


@dataclass(frozen=True)
class Selection:
    """What a box needs to be shown."""

    score_threshold: float
    """Lowest score, where the class has none of its own."""
    max_boxes: int
    """At most this many boxes are shown, the best."""
    max_range_m: float = 0.0
    """Largest distance of a box's centre from the vehicle, in the plane; 0 for any."""
    class_thresholds: tuple[float, ...] = ()
    """Lowest score by label, NaN where the common one holds; empty where it holds for all."""

    def apply(self, found: Detections, output_from_fixed: Transform) -> tuple[Boxes3D, int]:
        """The boxes to show, best first, in the output frame.

        Args:
            found: what the detector says of a set.
            output_from_fixed: from the fixed frame of the set's poses to the output frame.

        Returns:
            The boxes, and how many others cannot be shown at all; see `presentable`.
        """
        boxes = presentable(found.boxes)
        unusable = len(found.boxes) - len(boxes)
        if self.max_range_m:  # before the boxes leave the vehicle's frame
            boxes = boxes[boxes.centers[:, :2].norm(dim=1) <= self.max_range_m]
        moved = replace(found, boxes=boxes).in_frame(output_from_fixed)
        best = best_boxes(moved, self.score_threshold, self.max_boxes, self.class_thresholds)
        return best, unusable


def presentable(boxes: Boxes3D) -> Boxes3D:
    """The boxes whose centre, size, heading and score can be published: finite, size above zero.

    A velocity may be NaN.
    """
    finite = torch.isfinite(boxes.values[:, :7]).all(dim=1) & torch.isfinite(boxes.scores)
    return boxes[finite & (boxes.sizes > 0).all(dim=1)]


def best_boxes(
    boxes: Boxes3D, score_threshold: float, max_boxes: int, class_thresholds: Sequence[float] = ()
) -> Boxes3D:
    """The best boxes, best first.

    Args:
        boxes: of any score.
        score_threshold: lowest score.
        max_boxes: how many at most.
        class_thresholds: lowest score by label, NaN where the common one holds.
    """
    # One threshold a box, so that classes of their own and the others take the same path.
    lowest = torch.full_like(boxes.scores, score_threshold)
    if class_thresholds:
        own = torch.tensor(class_thresholds, dtype=boxes.scores.dtype)[boxes.labels]
        lowest = torch.where(own.isnan(), lowest, own)
    boxes = boxes[boxes.scores >= lowest]
    # Stable, so that equal scores keep the network's order and the same boxes are shown each time.
    return boxes[boxes.scores.argsort(descending=True, stable=True)[:max_boxes]]
