# SPDX-License-Identifier: Apache-2.0
"""Boxes as those of a nuScenes detection result, which the official evaluation reads; and back.

Source: nuScenes detection task, "Results format".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.classes import CLASSES

MAX_BOXES = 500
"""The evaluation takes no more for one sample."""

# Where mmdetection3d and the code of many detectors draw the line; nuScenes names none.
_MOVING_M_S = 0.2
_ATTRIBUTES = {  # moving, not moving
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "barrier": ("", ""),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "traffic_cone": ("", ""),
}

ResultBox = dict[str, Any]


def attribute_of(class_name: str, vx: float, vy: float) -> str:
    """The attribute that a speed (metres per second) makes likely; empty where there is none.

    Not moving when the velocity is unknown.
    """
    return _ATTRIBUTES[class_name][0 if math.hypot(vx, vy) > _MOVING_M_S else 1]


def result_boxes(
    sample_token: str,
    boxes: Boxes3D,
    class_names: Sequence[str] = CLASSES,
    attributes: Sequence[str] | None = None,
) -> list[ResultBox]:
    """The boxes of one sample, the best 500.

    Args:
        sample_token: of the sample.
        boxes: in the frame "map". An unknown velocity is written as zero, since the format has no
            other number for it.
        class_names: by label.
        attributes: of the boxes; guessed from the velocity when None.

    Raises:
        ValueError: the boxes are in another frame.
    """
    if boxes.frame != FIXED_FRAME:
        raise ValueError(f"result boxes must be in {FIXED_FRAME!r}, not {boxes.frame!r}")
    rows, labels, scores = boxes.values.tolist(), boxes.labels.tolist(), boxes.scores.tolist()
    # the sort is stable, so that equal scores keep their order
    # A file with more boxes for a sample is refused as a whole by the evaluation.
    best = sorted(range(len(rows)), key=lambda i: -scores[i])[:MAX_BOXES]
    out = []
    for i in sorted(best):
        x, y, z, length, width, height, yaw, *velocity = rows[i]
        vx, vy = (v if math.isfinite(v) else 0.0 for v in velocity)
        name = class_names[labels[i]]
        out.append(
            {
                "sample_token": sample_token,
                "translation": [x, y, z],
                "size": [width, length, height],
                "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
                "velocity": [vx, vy],
                "detection_name": name,
                "detection_score": scores[i],
                "attribute_name": attributes[i] if attributes else attribute_of(name, vx, vy),
            }
        )
    return out


def boxes_of_results(results: Sequence[ResultBox]) -> Boxes3D:
    """Boxes of one sample of a result file, in the frame "map"."""
    rows = []
    for box in results:
        width, length, height = box["size"]
        w, x, y, z = box["rotation"]
        # The heading of any rotation, also of files whose boxes are not quite upright.
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        rows.append([*box["translation"], length, width, height, yaw, *box["velocity"]])
    return Boxes3D(
        FIXED_FRAME,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
        torch.tensor([CLASSES.index(box["detection_name"]) for box in results], dtype=torch.int64),
        torch.tensor([box["detection_score"] for box in results], dtype=torch.float64),
    )
