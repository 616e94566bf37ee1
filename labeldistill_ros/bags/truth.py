# SPDX-License-Identifier: Apache-2.0
"""Samples and ground truth in a bag, complete enough to be scored without the data set.

`/ground_truth/detections` carries the boxes in "map"; `/nuscenes/sample` has, as JSON, the
sample's token and stamps, the vehicle's pose, and aligned by index with the boxes what
`Detection3D` has no field for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import BagError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.types import header, message, point, pose, stamp_of, vector3

SAMPLE_TOPIC = "/nuscenes/sample"
TRUTH_TOPIC = "/ground_truth/detections"
MARKERS_TOPIC = "/ground_truth/markers"

_GREEN = {"r": 0.2, "g": 1.0, "b": 0.3, "a": 0.9}
_LINE_LIST, _ARROW, _DELETE_ALL = 5, 0, 3
_EDGES = [(i, (i + 1) % 4) for i in range(4)]
_EDGES += [(a + 4, b + 4) for a, b in _EDGES] + [(i, i + 4) for i in range(4)]
_MIN_SPEED_M_S = 0.5


@dataclass(frozen=True, eq=False)
class BagSample:
    """A sample as a bag tells of it."""

    scene: str
    """Name of its scene."""
    truth: GroundTruth
    """Its boxes."""
    camera_stamps_ns: Mapping[str, int]
    """Exposure of each camera's key frame."""

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Of the sample and of its cameras; each belongs to no other sample."""
        return (self.truth.stamp_ns, *self.camera_stamps_ns.values())


def sample_message(sample: BagSample) -> Any:
    """`std_msgs/String` for `/nuscenes/sample`."""
    truth = sample.truth
    annotations = [
        {
            "token": truth.tokens[i],
            "instance": truth.instances[i],
            "velocity": [v if math.isfinite(v) else None for v in velocity],
            "num_lidar_pts": truth.num_lidar_pts[i],
            "num_radar_pts": truth.num_radar_pts[i],
            "attribute": truth.attributes[i],
            "visibility": truth.visibility[i],
        }
        for i, velocity in enumerate(truth.boxes.velocities.tolist())
    ]
    content = {
        "sample_token": truth.sample_token,
        "scene": sample.scene,
        "stamp_ns": truth.stamp_ns,
        "camera_stamps_ns": dict(sample.camera_stamps_ns),
        "map_from_base_link": {
            "translation": truth.fixed_from_ego.translation.tolist(),
            "rotation_wxyz": truth.fixed_from_ego.quaternion.tolist(),
        },
        "annotations": annotations,
        "bicycle_racks": truth.bicycle_racks.tolist(),
    }
    return message("std_msgs/msg/String", data=json.dumps(content))


def detections_message(boxes: Boxes3D, stamp_ns: int, ids: tuple[str, ...] = ()) -> Any:
    """`vision_msgs/Detection3DArray` of boxes of the ten classes, in the boxes' frame."""
    head = header(stamp_ns, boxes.frame)
    detections = []
    rows = zip(boxes.values.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
    for i, (row, label, score) in enumerate(rows):
        x, y, z, length, width, height, yaw = row[:7]
        center = pose((x, y, z), (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)))
        hypothesis = message(
            "vision_msgs/msg/ObjectHypothesis", class_id=CLASSES[label], score=score
        )
        covariance = np.zeros(36)
        result = message(
            "vision_msgs/msg/ObjectHypothesisWithPose",
            hypothesis=hypothesis,
            pose=message(
                "geometry_msgs/msg/PoseWithCovariance", pose=center, covariance=covariance
            ),
        )
        size = vector3(length, width, height)
        box = message("vision_msgs/msg/BoundingBox3D", center=center, size=size)
        detections.append(
            message(
                "vision_msgs/msg/Detection3D",
                header=head,
                results=[result],
                bbox=box,
                id=ids[i] if ids else "",
            )
        )
    return message("vision_msgs/msg/Detection3DArray", header=head, detections=detections)


def markers_message(boxes: Boxes3D, stamp_ns: int, lifetime_s: int = 1) -> Any:
    """`visualization_msgs/MarkerArray`: green wire frames, and arrows as long as the velocity."""
    corners = [[point(*corner) for corner in box] for box in boxes.corners().tolist()]
    markers = [_marker(boxes.frame, stamp_ns, "", 0, 0, (1.0, 1.0, 1.0), [], 0, _DELETE_ALL)]
    for i, (row, label) in enumerate(
        zip(boxes.values.tolist(), boxes.labels.tolist(), strict=True)
    ):
        name = CLASSES[label]
        lines = [corners[i][end] for edge in _EDGES for end in edge]
        frame, scale = boxes.frame, (0.06, 0.0, 0.0)
        markers.append(_marker(frame, stamp_ns, name, i, _LINE_LIST, scale, lines, lifetime_s))
        x, y, z, *_, vx, vy = row
        if math.hypot(vx, vy) > _MIN_SPEED_M_S:  # false for NaN, an unknown velocity
            arrow = [point(x, y, z), point(x + vx, y + vy, z)]
            name, scale = f"{name} velocity", (0.12, 0.3, 0.4)
            markers.append(_marker(frame, stamp_ns, name, i, _ARROW, scale, arrow, lifetime_s))
    return message("visualization_msgs/msg/MarkerArray", markers=markers)


def read_samples(bag: BagReader) -> list[BagSample]:
    """Samples with their ground truth, in the order of time.

    Raises:
        BagError: a topic is missing, or what the two topics say does not fit together.
    """
    bag.require(SAMPLE_TOPIC, TRUTH_TOPIC)
    boxes = {stamp_of(truth): truth for _, truth in bag.messages([TRUTH_TOPIC])}
    samples = []
    for recorded, text in bag.messages([SAMPLE_TOPIC]):
        try:
            content = json.loads(text.data)
            samples.append(_sample(content, boxes[content["stamp_ns"]]))
        except (KeyError, TypeError, ValueError) as error:
            raise BagError(
                f"{bag.path}: {SAMPLE_TOPIC} at {recorded.stamp_ns} ns is not as this version "
                f"writes it, or has no boxes in {TRUTH_TOPIC} ({error!r}); convert the scene anew"
            ) from error
    return samples


def _sample(content: dict[str, Any], detections: Any) -> BagSample:
    annotations = content["annotations"]
    rows, labels = [], []
    for found, extra in zip(detections.detections, annotations, strict=True):
        center, size = found.bbox.center.position, found.bbox.size
        turn = found.bbox.center.orientation
        yaw = 2 * math.atan2(turn.z, turn.w)
        velocity = [math.nan if v is None else v for v in extra["velocity"]]
        rows.append([center.x, center.y, center.z, size.x, size.y, size.z, yaw, *velocity])
        labels.append(CLASSES.index(found.results[0].hypothesis.class_id))
    ego = content["map_from_base_link"]
    truth = GroundTruth(
        content["sample_token"],
        content["stamp_ns"],
        Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, ego["rotation_wxyz"], ego["translation"]),
        Boxes3D(
            detections.header.frame_id,
            torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
            torch.tensor(labels, dtype=torch.int64),
            torch.ones(len(rows), dtype=torch.float64),
        ),
        tuple(a["token"] for a in annotations),
        tuple(a["instance"] for a in annotations),
        tuple(a["num_lidar_pts"] for a in annotations),
        tuple(a["num_radar_pts"] for a in annotations),
        tuple(a["attribute"] for a in annotations),
        tuple(a["visibility"] for a in annotations),
        np.array(content["bicycle_racks"], dtype=np.float64).reshape(-1, 7),
    )
    return BagSample(content["scene"], truth, content["camera_stamps_ns"])


def _marker(
    frame: str,
    stamp_ns: int,
    namespace: str,
    number: int,
    kind: int,
    scale: tuple[float, float, float],
    points: list[Any],
    lifetime_s: int,
    action: int = 0,
) -> Any:
    return message(
        "visualization_msgs/msg/Marker",
        header=header(stamp_ns, frame),
        ns=namespace,
        id=number,
        type=kind,
        action=action,
        scale=vector3(*scale),
        lifetime=message("builtin_interfaces/msg/Duration", sec=lifetime_s, nanosec=0),
        points=points,
        **_same_in_all(),
    )


@cache
def _same_in_all() -> dict[str, Any]:
    nothing = np.empty(0, np.uint8)
    image = "sensor_msgs/msg/CompressedImage"
    return {
        "pose": pose((0, 0, 0), (1, 0, 0, 0)),
        "color": message("std_msgs/msg/ColorRGBA", **_GREEN),
        "frame_locked": False,
        "colors": [],
        "texture_resource": "",
        "texture": message(image, header=header(0, ""), format="", data=nothing),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": message("visualization_msgs/msg/MeshFile", filename="", data=nothing),
        "mesh_use_embedded_materials": False,
    }
