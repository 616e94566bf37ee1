# SPDX-License-Identifier: Apache-2.0
"""Boxes as `autoware_perception_msgs/DetectedObjects`, where that package is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from labeldistill_core.boxes import Boxes3D
from labeldistill_ros.messages import header, quaternion_of_yaw

try:
    from autoware_perception_msgs import msg as _messages

    DetectedObjects: Any = _messages.DetectedObjects
    """The message type; None where the package is not installed."""
except ImportError:
    _messages = None
    DetectedObjects = None

LABELS = {
    "car": 1,
    "truck": 2,
    "construction_vehicle": 2,
    "bus": 3,
    "trailer": 4,
    "motorcycle": 5,
    "bicycle": 6,
    "pedestrian": 7,
}
"""Constants of `ObjectClassification` by class name; the other classes are 0, unknown."""
_HEADING_KNOWN = 2
_BOUNDING_BOX = 0


def objects_message(
    boxes: Boxes3D, class_names: Sequence[str], stamp_ns: int, messages: Any = _messages
) -> Any:
    """The message; a twist is in the axes of its object, as Autoware has it.

    Args:
        boxes: in the frame whose name goes into the header.
        class_names: by label.
        stamp_ns: time of the header.
        messages: module of the message types.
    """
    array = messages.DetectedObjects(header=header(stamp_ns, boxes.frame))
    rows, labels, scores = boxes.values.tolist(), boxes.labels.tolist(), boxes.scores.tolist()
    for row, label, score in zip(rows, labels, scores, strict=True):
        x, y, z, length, width, height, yaw, vx, vy = row
        entry = messages.DetectedObject(existence_probability=score)
        # Autoware has no barrier and no traffic cone: they stay obstacles of an unknown kind.
        kind = LABELS.get(class_names[label], 0)
        entry.classification.append(messages.ObjectClassification(label=kind, probability=score))
        motion = entry.kinematics
        pose = motion.pose_with_covariance.pose
        pose.position.x, pose.position.y, pose.position.z = x, y, z
        pose.orientation = quaternion_of_yaw(yaw)
        motion.orientation_availability = _HEADING_KNOWN
        # A velocity that the model does not know is NaN, which planners must not get as a number.
        motion.has_twist = math.isfinite(vx) and math.isfinite(vy)
        if motion.has_twist:
            speed = motion.twist_with_covariance.twist.linear
            # From the axes of the output frame to those of the object: a turn by minus its heading.
            speed.x = vx * math.cos(yaw) + vy * math.sin(yaw)
            speed.y = vy * math.cos(yaw) - vx * math.sin(yaw)
        entry.shape.type = _BOUNDING_BOX
        entry.shape.dimensions.x = length
        entry.shape.dimensions.y, entry.shape.dimensions.z = width, height
        array.objects.append(entry)
    return array
