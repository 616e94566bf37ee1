# SPDX-License-Identifier: Apache-2.0
"""Boxes as `vision_msgs/Detection3DArray`, and back.

Boxes carry the name of their frame into `header.frame_id`; nothing here moves them. The message
has no field for a velocity, which is what the table in `tables` is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.geometry import yaw_of
from labeldistill_ros.messages.stamps import header


class DetectionsMessage:
    """A `Detection3DArray` that is filled again and again.

    To make the dozen objects of a detection takes several times as long as to send them, so those
    of the message before are kept. A publisher has serialized a message when `publish` returns.
    """

    def __init__(self, class_names: Sequence[str], family: MessageFamily = ROS) -> None:
        """Begin with an empty pool of detections.

        Args:
            class_names: by label; they become `class_id`.
            family: of the message's classes.
        """
        self._class_names, self._family = class_names, family
        self._pool: list[Any] = []

    def fill(self, boxes: Boxes3D, stamp_ns: int, ids: Sequence[str] | None = None) -> Any:
        """Boxes as a message, every header the same; see `sets.selection.presentable`.

        Args:
            boxes: in the frame whose name goes into the headers.
            stamp_ns: time of the headers.
            ids: identity of each box, where it is known.

        Returns:
            The message; its detections hold until the next call.
        """
        # One header object for array and elements, so that they cannot differ; consumers read
        # either.
        head = header(stamp_ns, boxes.frame, self._family)
        self._pool += [_detection(self._family) for _ in range(len(boxes) - len(self._pool))]
        found = self._pool[: len(boxes)]
        names = [self._class_names[label] for label in boxes.labels.tolist()]
        rows = boxes.values[:, :7].tolist()
        for detection, row, name, score, identity in zip(
            found, rows, names, boxes.scores.tolist(), ids or [""] * len(boxes), strict=True
        ):
            detection.header, detection.id = head, identity
            position, size = detection.bbox.center.position, detection.bbox.size
            position.x, position.y, position.z, size.x, size.y, size.z, yaw = row
            # x and y stay zero: a box stands upright, so its heading is a turn about z alone.
            turn = detection.bbox.center.orientation
            turn.w, turn.z = math.cos(yaw / 2), math.sin(yaw / 2)
            hypothesis = detection.results[0].hypothesis
            hypothesis.class_id, hypothesis.score = name, score
        return self._family.make("vision_msgs/msg/Detection3DArray", header=head, detections=found)


def _detection(family: MessageFamily) -> Any:
    """One whose only result has the pose of its box, which is one object."""
    pose = family.make("geometry_msgs/msg/Pose")
    result = family.make("vision_msgs/msg/ObjectHypothesisWithPose")
    result.pose.pose = pose
    box = family.make("vision_msgs/msg/BoundingBox3D", center=pose)
    return family.make("vision_msgs/msg/Detection3D", results=[result], bbox=box)


def detections_message(
    boxes: Boxes3D,
    class_names: Sequence[str],
    stamp_ns: int,
    ids: Sequence[str] | None = None,
    family: MessageFamily = ROS,
) -> Any:
    """Boxes as a `Detection3DArray` of its own; see `DetectionsMessage.fill`."""
    return DetectionsMessage(class_names, family).fill(boxes, stamp_ns, ids)


def boxes_from_detections(message: Any, class_names: Sequence[str]) -> Boxes3D:
    """Boxes of a `Detection3DArray`; the velocities are NaN, the message has none.

    Args:
        message: of any family.
        class_names: by label.

    Raises:
        DataError: a class name is unknown or a detection has no result.
    """
    rows, labels, scores = [], [], []
    for detection in message.detections:
        if not detection.results:
            raise DataError("a detection has no result, so its class is unknown")
        # `vision_msgs` allows several hypotheses for a box; the detector writes one, other nodes
        # may not.
        best = max(detection.results, key=lambda result: result.hypothesis.score).hypothesis
        if best.class_id not in class_names:
            raise DataError(f"class {shown(best.class_id)} is none of {', '.join(class_names)}")
        center, size = detection.bbox.center.position, detection.bbox.size
        yaw = yaw_of(detection.bbox.center.orientation)
        box = (center.x, center.y, center.z, size.x, size.y, size.z, yaw)
        rows.append([*box, math.nan, math.nan])
        labels.append(class_names.index(best.class_id))
        scores.append(best.score)
    return Boxes3D(
        message.header.frame_id,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float64),
    )


def label_info(
    class_names: Sequence[str], threshold: float, stamp_ns: int, family: MessageFamily = ROS
) -> Any:
    """`vision_msgs/LabelInfo`: the names behind the numbers of `~/detections_table`."""
    classes = [
        family.make("vision_msgs/msg/VisionClass", class_id=i, class_name=name)
        for i, name in enumerate(class_names)
    ]
    head = header(stamp_ns, "", family)
    return family.make(
        "vision_msgs/msg/LabelInfo", header=head, class_map=classes, threshold=threshold
    )
