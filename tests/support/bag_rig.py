# SPDX-License-Identifier: Apache-2.0
"""A bag of the small data root, and a detector's words about it."""

from pathlib import Path

from rosbags.interfaces import Qos

from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages import detections_message, table_message
from labeldistill_ros.messages.bag_family import BAG
from tests.support.nuscenes_fixture import SCENES, VERSION, ego_at

ARRAY = "vision_msgs/msg/Detection3DArray"


def truths_of(root: Path) -> list[GroundTruth]:
    tables = NuScenesTables(root, VERSION)
    return [tables.ground_truth(token) for token in tables.samples(SCENES[0])]


def profile_of(reader: BagReader, topic: str) -> Qos:
    """How a topic was offered when it was recorded, which must be known."""
    profile = reader.qos(topic)
    assert profile is not None, f"{topic} has no profile"
    return profile


def write_detections(
    out: Path,
    truths: list[GroundTruth],
    *,
    frame: str = "map",
    shift_ns: int = 0,
    table: bool = True,
) -> Path:
    """Ground truth as the detector publishes it."""
    with BagWriter(out) as writer:
        for truth in truths:
            stamp_ns = truth.stamp_ns + shift_ns
            boxes = truth.boxes
            if frame == "base_link":
                ego = ego_at(0, stamp_ns // 1000)
                map_from_ego = Transform.from_quaternion("map", "base_link", ego[1], ego[0])
                boxes = boxes.transformed(map_from_ego.inverse)
            array = detections_message(boxes, CLASSES, stamp_ns, family=BAG)
            writer.write("/detector/detections", ARRAY, array, stamp_ns)
            if table:
                cloud = table_message(boxes, stamp_ns, BAG)
                kind = "sensor_msgs/msg/PointCloud2"
                writer.write("/detector/detections_table", kind, cloud, stamp_ns)
    return out
