# SPDX-License-Identifier: Apache-2.0
"""Boxes as those of a nuScenes detection result, which the official evaluation reads; and back.

Source: nuScenes detection task, "Results format".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultBox

MAX_BOXES = 500
"""The evaluation takes no more for one sample."""

# Where the code of many detectors draws the line; nuScenes names none.
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


def attribute_of(class_name: str, vx: float, vy: float) -> str:
    """The attribute that a speed (metres per second) makes likely; empty where there is none.

    Classes that nuScenes does not have have no attributes.

    Not moving when the velocity is unknown.
    """
    return _ATTRIBUTES.get(class_name, ("", ""))[0 if math.hypot(vx, vy) > _MOVING_M_S else 1]


def result_columns(
    boxes: Boxes3D, class_names: Sequence[str] = CLASSES, attributes: Sequence[str] | None = None
) -> BoxArrays:
    """The boxes of one sample as result boxes, the best 500.

    Args:
        boxes: in the frame "map". An unknown velocity is written as zero, since the format has no
            other number for it.
        class_names: by label.
        attributes: of the boxes; guessed from the velocity when None.

    Raises:
        ValueError: the boxes are in another frame.
    """
    if boxes.frame != FIXED_FRAME:
        raise ValueError(f"result boxes must be in {FIXED_FRAME!r}, not {boxes.frame!r}")
    # A file with more boxes for a sample is refused as a whole by the evaluation. The sort is
    # stable, so that equal scores keep their order.
    kept = torch.argsort(-boxes.scores, stable=True)[:MAX_BOXES].sort().values
    values = columns_in_order(boxes[kept])
    # In place, in the columns of `values` themselves.
    velocity = np.nan_to_num(values[:, 10:12], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    labels = boxes.labels[kept].numpy()
    classes = [class_names[label] for label in labels.tolist()]
    if attributes:
        named = [attributes[i] for i in kept.tolist()]
    else:
        named = [attribute_of(c, *v) for c, v in zip(classes, velocity.tolist(), strict=True)]
    codes: dict[str, int] = {}
    attribute = [codes.setdefault(name, len(codes)) for name in named]
    return BoxArrays(
        values,
        labels,
        np.array(attribute, np.int64),
        tuple(codes),
        tuple(class_names),
    )


def columns_in_order(boxes: Boxes3D) -> NDArray[np.float64]:
    """(N, 13) the boxes in the order of `BoxArrays.values`."""
    rows = boxes.values.numpy().astype(np.float64)
    length, width, height, yaw = rows[:, 3:7].T
    zero = np.zeros_like(yaw)
    rotation = (np.cos(yaw / 2), zero, zero, np.sin(yaw / 2))
    scores = boxes.scores.numpy().astype(np.float64)
    return np.column_stack([rows[:, 0:3], width, length, height, *rotation, rows[:, 7:9], scores])


def result_boxes(
    sample_token: str,
    boxes: Boxes3D,
    class_names: Sequence[str] = CLASSES,
    attributes: Sequence[str] | None = None,
) -> list[ResultBox]:
    """The boxes of one sample as the results format has them; see `result_columns`."""
    return result_columns(boxes, class_names, attributes).rows(sample_token)


def boxes_of_results(results: Sequence[ResultBox], class_names: Sequence[str] = CLASSES) -> Boxes3D:
    """Boxes of one sample of a result file, in the frame "map".

    Args:
        results: of the sample.
        class_names: what their labels count through.
    """
    rows = []
    for box in results:
        width, length, height = box["size"]
        w, x, y, z = box["rotation"]
        # Files of others have quaternions of any length, which the metrics take too.
        yaw = math.atan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
        rows.append([*box["translation"], length, width, height, yaw, *box["velocity"]])
    return Boxes3D(
        FIXED_FRAME,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
        torch.tensor(
            [class_names.index(box["detection_name"]) for box in results], dtype=torch.int64
        ),
        torch.tensor([box["detection_score"] for box in results], dtype=torch.float64),
    )
