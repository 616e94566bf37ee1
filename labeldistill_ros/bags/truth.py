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
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME
from labeldistill_core.classes import NUSCENES, ClassList, ObjectClass
from labeldistill_core.config_json import from_mapping, to_mapping
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import BagError, ConfigError, DataError
from labeldistill_core.frames import Transform
from labeldistill_core.names import fault_of_name
from labeldistill_ros.bags.library_errors import reason
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.messages.stamps import stamp_of

SAMPLE_TOPIC = "/nuscenes/sample"
TRUTH_TOPIC = "/ground_truth/detections"
MARKERS_TOPIC = "/ground_truth/markers"
_ODD = (
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    ConfigError,
    DataError,
)
"""What reading JSON of other contents raises."""
_TEXTS = ("token", "instance", "attribute", "visibility")
_COUNTS = ("num_lidar_pts", "num_radar_pts")


@dataclass(frozen=True, eq=False)
class BagSample:
    """A sample as a bag tells of it."""

    scene: str
    """Name of the scene that the sample belongs to."""
    truth: GroundTruth
    """Ground truth of the sample: its boxes and the pose of the vehicle."""
    camera_stamps_ns: Mapping[str, int]
    """Exposure of each camera's key frame, in nanoseconds since the epoch."""

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the sample and of its cameras; each belongs to no other sample."""
        return (self.truth.stamp_ns, *self.camera_stamps_ns.values())


def sample_message(sample: BagSample) -> Any:
    """`std_msgs/String` for `/nuscenes/sample`."""
    truth = sample.truth
    annotations = [
        {
            "token": truth.tokens[i],
            "instance": truth.instances[i],
            # JSON has no NaN; the velocity of a box that is seen once is unknown.
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
    # Bags of nuScenes' classes say nothing of them, as those of earlier versions.
    if truth.classes != NUSCENES:
        content["classes"] = [to_mapping(one) for one in truth.classes.members]
    return BAG.make("std_msgs/msg/String", data=json.dumps(content))


def read_samples(bag: BagReader) -> list[BagSample]:
    """Samples with their ground truth, in the order of time.

    Raises:
        BagError: a topic is missing, or what the two topics say does not fit together.
    """
    if SAMPLE_TOPIC not in bag.topics:
        raise BagError(
            f"{bag.path} lacks the topic {SAMPLE_TOPIC}, so nothing can be scored by it: give the "
            "data root of the drive (`bag score RUN --dataroot ROOT`), or a bag that "
            "`bag from-nuscenes` makes of it"
        )
    bag.require(TRUTH_TOPIC)
    # Joined by stamp and not by order, since a recorder may begin between the two messages.
    boxes = {stamp_of(truth): truth for _, truth in bag.messages([TRUTH_TOPIC])}
    samples = []
    for recorded, text in bag.messages([SAMPLE_TOPIC]):
        try:
            content = json.loads(text.data)
            samples.append(_sample(content, boxes[content["stamp_ns"]]))
        except _ODD as error:
            raise BagError(
                f"{bag.path}: {SAMPLE_TOPIC} at {recorded.stamp_ns} ns is not as this version "
                f"writes it, or has no boxes in {TRUTH_TOPIC} ({reason(error)}); convert the scene "
                "anew"
            ) from error
    return samples


def _sample(content: dict[str, Any], detections: Any) -> BagSample:
    annotations = content["annotations"]
    stamps_ns = content["camera_stamps_ns"]
    names = (content["sample_token"], content["scene"], *stamps_ns)
    numbers = (content["stamp_ns"], *stamps_ns.values())
    if not all(isinstance(name, str) and not fault_of_name(name) for name in names):
        raise DataError("a name of it is none")
    if not all(type(stamp) is int and 0 <= stamp < 2**63 for stamp in numbers):
        raise DataError("a stamp of it is none")
    texts = [a[name] for a in annotations for name in _TEXTS]
    # some name rows of tables
    if not all(isinstance(t, str) and len(t) <= 256 and t.isprintable() for t in texts):
        raise DataError(f"one of {', '.join(_TEXTS)} of an annotation is no short text")
    counts = [a[name] for a in annotations for name in _COUNTS]
    if not all(type(count) is int and abs(count) < 2**31 for count in counts):
        raise DataError(f"one of {', '.join(_COUNTS)} of an annotation is no number of points")
    racks = np.array(content["bicycle_racks"], dtype=np.float64).reshape(-1, 7)
    if not np.isfinite(racks).all():
        raise DataError("a bicycle rack of it has a number that is none")
    classes = NUSCENES
    if "classes" in content:
        classes = ClassList(tuple(from_mapping(ObjectClass, one) for one in content["classes"]))
    found = boxes_from_detections(detections, classes.names)
    if len(found) != len(annotations):
        raise DataError(f"{len(annotations)} annotations tell of {len(found)} boxes")
    velocities = [[math.nan if v is None else v for v in a["velocity"]] for a in annotations]
    known = torch.tensor(velocities, dtype=torch.float64).reshape(-1, 2)
    # The velocities of the sample replace those of the message type, which has none.
    values = torch.cat([found.values[:, :7], known], dim=1)
    ego = content["map_from_base_link"]
    truth = GroundTruth(
        content["sample_token"],
        content["stamp_ns"],
        Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, ego["rotation_wxyz"], ego["translation"]),
        Boxes3D(found.frame, values, found.labels, torch.ones(len(found), dtype=torch.float64)),
        tuple(a["token"] for a in annotations),
        tuple(a["instance"] for a in annotations),
        tuple(a["num_lidar_pts"] for a in annotations),
        tuple(a["num_radar_pts"] for a in annotations),
        tuple(a["attribute"] for a in annotations),
        tuple(a["visibility"] for a in annotations),
        racks,
        classes,
    )
    return BagSample(content["scene"], truth, stamps_ns)
