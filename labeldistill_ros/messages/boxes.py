# SPDX-License-Identifier: Apache-2.0
"""Boxes in messages, whether `rclpy` or the library `rosbags` made their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.errors import DataError

TABLE_DTYPE = np.dtype(
    [(name, "<f4") for name in (*BOX_FIELDS, "score")] + [("label", "<u4")]  # 44 bytes
)
"""One row of `~/detections_table`."""


def table_rows(boxes: Boxes3D) -> np.ndarray[Any, np.dtype[Any]]:
    """One row a box, as `TABLE_DTYPE` has it."""
    rows = np.empty(len(boxes), TABLE_DTYPE)
    values = boxes.values.numpy()
    for column, name in enumerate(BOX_FIELDS):
        rows[name] = values[:, column]
    rows["score"], rows["label"] = boxes.scores.numpy(), boxes.labels.numpy()
    return rows


def boxes_from_detections(message: Any, class_names: Sequence[str]) -> Boxes3D:
    """Boxes of a `Detection3DArray`; the velocities are NaN, the message has none.

    Raises:
        DataError: a class name is unknown or a detection has no result.
    """
    rows, labels, scores = [], [], []
    for detection in message.detections:
        if not detection.results:
            raise DataError("a detection has no result, so its class is unknown")
        best = max(detection.results, key=lambda result: result.hypothesis.score).hypothesis
        if best.class_id not in class_names:
            raise DataError(f"class {best.class_id!r} is none of {', '.join(class_names)}")
        center, size = detection.bbox.center.position, detection.bbox.size
        q = detection.bbox.center.orientation
        yaw = np.arctan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
        box = (center.x, center.y, center.z, size.x, size.y, size.z, yaw)
        rows.append([*box, np.nan, np.nan])
        labels.append(class_names.index(best.class_id))
        scores.append(best.score)
    return Boxes3D(
        message.header.frame_id,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float64),
    )


def boxes_from_table(message: Any) -> Boxes3D:
    """Boxes of a table of detections.

    Raises:
        DataError: the cloud has other fields.
    """
    names = tuple(f.name for f in message.fields)
    if names != TABLE_DTYPE.names or message.point_step != TABLE_DTYPE.itemsize:
        raise DataError(f"not a table of detections: its fields are {', '.join(names)}")
    rows = np.frombuffer(bytes(message.data), TABLE_DTYPE, count=message.width)
    values = np.stack([rows[name] for name in BOX_FIELDS], axis=1)
    return Boxes3D(
        message.header.frame_id,
        torch.from_numpy(values.copy()),
        torch.from_numpy(rows["label"].astype(np.int64)),
        torch.from_numpy(rows["score"].copy()),
    )
