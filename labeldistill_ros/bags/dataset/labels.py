# SPDX-License-Identifier: Apache-2.0
"""Boxes of a topic as annotations of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.classes import NUSCENES
from labeldistill_core.data.tables.writing import Row, SceneRows, token
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array, Transform
from labeldistill_ros.bags.dataset.options import LEFT_OUT, DatasetOptions
from labeldistill_ros.bags.dataset.survey import class_of

UNKNOWN_POINTS = -1
"""Number of points in a box where there is no scan; metrics then count the box."""
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
        try:
            pose = Transform.from_quaternion(
                frame, _BOX, (turn.w, turn.x, turn.y, turn.z), (place.x, place.y, place.z)
            )
        except ValueError as error:
            raise DataError(f"a box stands nowhere: {error}") from error
        found.append(LabelledBox(category, detection.id, pose, size_m))
    return found


def add_annotations(
    rows: SceneRows,
    sample: str,
    boxes: list[LabelledBox],
    fixed_from_frame: Transform,
    scan: NDArray[np.floating[Any]] | None,
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
            _row(rows.token("annotation", sample, number), sample, instance, pose, box, scan)
        )
    return found


def _row(
    own: str,
    sample: str,
    instance: str,
    pose: Transform,
    box: LabelledBox,
    scan: NDArray[np.floating[Any]] | None,
) -> Row:
    length, width, height = box.size_m
    return {
        "token": own,
        "sample_token": sample,
        "instance_token": instance,
        "visibility_token": "",
        "attribute_tokens": [],
        "translation": pose.translation.tolist(),
        "size": [width, length, height],  # the order of nuScenes
        "rotation": pose.quaternion.tolist(),
        "prev": "",
        "next": "",
        "num_lidar_pts": UNKNOWN_POINTS if scan is None else points_inside(scan, pose, box.size_m),
        "num_radar_pts": 0,
    }


def points_inside(
    points: NDArray[np.floating[Any]], frame_from_box: Transform, size_m: tuple[float, float, float]
) -> int:
    """How many points (P, 3), metres, lie in a box of length, width, height."""
    offset: Array = points - frame_from_box.translation
    # A cut along one axis first: most points of a scan drop out before anything is turned.
    offset = offset[np.abs(offset[:, 0]) <= np.linalg.norm(size_m) / 2]
    local = offset @ frame_from_box.rotation
    return int((np.abs(local) <= np.array(size_m) / 2).all(axis=1).sum())
