# SPDX-License-Identifier: Apache-2.0
"""Boxes of a topic as annotations of the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labeldistill_core.data.tables.annotation_rows import Points, annotation_row
from labeldistill_core.data.tables.writing import SceneRows, token
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.labelling.tracking import DetectedFrame, track
from labeldistill_ros.bags.dataset.edges import fault_of_pose
from labeldistill_ros.bags.dataset.options import LEFT_OUT
from labeldistill_ros.bags.dataset.survey import class_of
from labeldistill_ros.ros_names import frame_name

_BOX = "box"


@dataclass(frozen=True, eq=False)
class LabelledBox:
    """A box of a message."""

    category: str
    """Of the tables."""
    identity: str
    """Of the object over time; empty where the message tells none."""
    frame_from_box: Transform
    """Centre, metres, and heading, in the frame of the message, or in the fixed one."""
    size_m: tuple[float, float, float]
    """Length, width, height."""


def boxes_of(
    message: Any, known: Mapping[str, str], shared_ids: Collection[str] = ()
) -> list[LabelledBox]:
    """Boxes of a `vision_msgs/Detection3DArray` whose classes are taken.

    Args:
        message: the boxes.
        known: category of each class.
        shared_ids: those that tell no object from others.

    Raises:
        DataError: a box has no class, no size, or no place.
    """
    found = []
    for detection in message.detections:
        if not detection.results:
            raise DataError("a box has no result, so that its class is unknown")
        category = known[class_of(detection)]
        if category == LEFT_OUT:
            continue
        center, size = detection.bbox.center, detection.bbox.size
        turn, place = center.orientation, center.position
        size_m = (float(size.x), float(size.y), float(size.z))
        if not all(0 < side < 1e3 for side in size_m):
            raise DataError(f"a box is {size_m} metres in size")
        frame = frame_name(message.header.frame_id)
        stands = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
        if fault := fault_of_pose(stands):
            raise DataError(f"a box stands nowhere: {fault}")
        pose = Transform.from_quaternion(frame, _BOX, stands[3:], stands[:3])
        identity = "" if detection.id in shared_ids else detection.id
        found.append(LabelledBox(category, identity, pose, size_m))
    return found


def with_identities(
    stamps_ns: Sequence[int], frames: Sequence[Sequence[LabelledBox]]
) -> list[list[LabelledBox]]:
    """Boxes of which those without an identity are put together to objects over time.

    Args:
        stamps_ns: of the key frames of a scene, in the order of time.
        frames: boxes of each, in the fixed frame.
    """
    names = sorted({box.category for boxes in frames for box in boxes})
    nameless = [[box for box in boxes if not box.identity] for boxes in frames]
    numbers = track(
        [
            _detected(stamp_ns, boxes, names)
            for stamp_ns, boxes in zip(stamps_ns, nameless, strict=True)
        ]
    )
    found = []
    for boxes, of_frame in zip(frames, numbers, strict=True):
        each = iter(of_frame.tolist())
        # Behind a slash, as no number that a message tells.
        found.append(
            [box if box.identity else replace(box, identity=f"/{next(each)}") for box in boxes]
        )
    return found


def _detected(stamp_ns: int, boxes: Sequence[LabelledBox], names: Sequence[str]) -> DetectedFrame:
    poses = [box.frame_from_box for box in boxes]
    ahead = np.array([pose.rotation[:2, 0] for pose in poses]).reshape(-1, 2)
    return DetectedFrame(
        stamp_ns,
        np.array([pose.translation[:2] for pose in poses]).reshape(-1, 2),
        np.full((len(boxes), 2), np.nan),
        np.arctan2(ahead[:, 1], ahead[:, 0]),
        np.array([names.index(box.category) for box in boxes], np.int64),
        np.array([box.size_m[0] for box in boxes]),
        np.ones(len(boxes)),
    )


def add_annotations(
    rows: SceneRows, sample: str, boxes: Sequence[LabelledBox], scan: Points | None
) -> dict[str, str]:
    """Add the boxes of a sample; returns the category's token of each of their instances.

    Args:
        rows: of the scene.
        sample: its token.
        boxes: with an identity each, in the fixed frame.
        scan: (P, 3) points of the sample in the fixed frame; None without.
    """
    found: dict[str, str] = {}
    categories = rows.tables["category"]
    for number, box in enumerate(boxes):
        # An object whose class changes is told apart, since an instance has one category.
        instance = rows.token("instance", box.category, box.identity)
        category = token("category", box.category)
        if category not in {row["token"] for row in categories}:
            categories.append({"token": category, "name": box.category, "description": ""})
        found[instance] = category
        own = rows.token("annotation", sample, number)
        rows.tables["sample_annotation"].append(
            annotation_row(own, sample, instance, box.frame_from_box, box.size_m, scan)
        )
    return found
