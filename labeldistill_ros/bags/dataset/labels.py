# SPDX-License-Identifier: Apache-2.0
"""Boxes of a topic as annotations of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeldistill_core.classes import NUSCENES
from labeldistill_core.data.tables.annotation_rows import Points, annotation_row
from labeldistill_core.data.tables.writing import SceneRows, token
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.dataset.edges import fault_of_pose
from labeldistill_ros.bags.dataset.options import LEFT_OUT, DatasetOptions
from labeldistill_ros.bags.dataset.survey import class_of

_BOX = "box"


def categories(options: DatasetOptions) -> dict[str, str]:
    """Category of each class that the labels may name."""
    known: dict[str, str] = {}
    for category, name in sorted(NUSCENES.class_of.items()):
        known.setdefault(name, category)
    return known | dict(options.categories)


@dataclass(frozen=True, eq=False)
class LabelledBox:
    """A box of a message."""

    category: str
    """Of the tables."""
    identity: str
    """Of the object over time; empty where the message tells none."""
    frame_from_box: Transform
    """Centre, metres, and heading, in the frame of the message."""
    size_m: tuple[float, float, float]
    """Length, width, height."""


def boxes_of(message: Any, known: Mapping[str, str]) -> list[LabelledBox]:
    """Boxes of a `vision_msgs/Detection3DArray` whose classes are taken.

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
        frame = message.header.frame_id
        stands = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
        if fault := fault_of_pose(stands):
            raise DataError(f"a box stands nowhere: {fault}")
        pose = Transform.from_quaternion(frame, _BOX, stands[3:], stands[:3])
        found.append(LabelledBox(category, detection.id, pose, size_m))
    return found


def add_annotations(
    rows: SceneRows,
    sample: str,
    boxes: list[LabelledBox],
    fixed_from_frame: Transform,
    scan: Points | None,
) -> dict[str, str]:
    """Add the boxes of a sample; returns the category's token of each of their instances.

    Args:
        rows: of the scene.
        sample: its token.
        boxes: in one frame.
        fixed_from_frame: that frame in the fixed one, at the time of the boxes.
        scan: (P, 3) points of the sample in the fixed frame; None without.
    """
    found: dict[str, str] = {}
    categories = rows.tables["category"]
    for number, box in enumerate(boxes):
        # An object whose class changes is told apart, since an instance has one category.
        identity = box.identity or f"{sample}/{number}"
        instance = rows.token("instance", box.category, identity)
        category = token("category", box.category)
        if category not in {row["token"] for row in categories}:
            categories.append({"token": category, "name": box.category, "description": ""})
        found[instance] = category
        pose = fixed_from_frame @ box.frame_from_box
        rows.tables["sample_annotation"].append(
            annotation_row(
                rows.token("annotation", sample, number), sample, instance, pose, box.size_m, scan
            )
        )
    return found
