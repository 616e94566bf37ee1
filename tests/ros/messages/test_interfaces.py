# SPDX-License-Identifier: Apache-2.0
"""`interfaces/` speaks the same language as the public packages of the same names."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tf2_msgs.msg import TF2Error, TFMessage
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

# As `ros2 topic info --verbose` shows them for the public packages, Iron to Kilted. The hash covers
# the names, types and order of all fields, those of the nested messages included.
PUBLIC_TYPE_HASHES = {
    Detection3D: "RIHS01_ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b",
    Detection3DArray: "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    TF2Error: "RIHS01_db2485e7d6a0ec75bf087e058ee45df682acc3a621ca7780503d10aac141809a",
    TFMessage: "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
}


def detections() -> Detection3DArray:
    """One detection in which no field has its default value."""
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = "pedestrian"
    result.hypothesis.score = 0.75
    result.pose.pose.position.x = 1.0
    result.pose.covariance[35] = 0.5
    detection = Detection3D(id="7", results=[result])
    detection.header.frame_id = "base_link"
    detection.header.stamp.sec = 12
    detection.bbox.center.position.y = -2.0
    detection.bbox.center.orientation.z = 1.0
    detection.bbox.size.z = 1.8
    message = Detection3DArray(detections=[detection])
    message.header = detection.header
    return message


def spin_until(
    executor: SingleThreadedExecutor, done: Callable[[], bool], timeout_s: float = 20.0
) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)


def test_type_hashes_are_the_public_ones(ros_context: Context) -> None:
    node = rclpy.create_node("hashes", context=ros_context)
    for kind in PUBLIC_TYPE_HASHES:
        node.create_publisher(kind, kind.__name__.lower(), 1)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)
    seen = {}

    def all_seen() -> bool:
        for kind in PUBLIC_TYPE_HASHES:
            for info in node.get_publishers_info_by_topic(f"/{kind.__name__.lower()}"):
                seen[kind] = str(info.topic_type_hash)
        return len(seen) == len(PUBLIC_TYPE_HASHES)

    spin_until(executor, all_seen)
    assert seen == PUBLIC_TYPE_HASHES


def test_bytes_on_the_wire_match_an_independent_reader(repository: Path) -> None:
    """The CDR bytes of the generated code, read by rosbags from the message definitions alone."""
    store = get_typestore(Stores.EMPTY)
    humble = get_typestore(Stores.ROS2_HUMBLE)
    store.register({name: humble.fielddefs[name] for name in humble.fielddefs})
    for path in (repository / "interfaces" / "vision_msgs" / "msg").glob("*.msg"):
        store.register(get_types_from_msg(path.read_text(), f"vision_msgs/msg/{path.stem}"))
    read: Any = store.deserialize_cdr(
        serialize_message(detections()), "vision_msgs/msg/Detection3DArray"
    )
    detection = read.detections[0]
    assert (read.header.frame_id, read.header.stamp.sec) == ("base_link", 12)
    assert detection.results[0].hypothesis.class_id == "pedestrian"
    assert detection.results[0].hypothesis.score == 0.75
    assert detection.results[0].pose.pose.position.x == 1.0
    assert detection.results[0].pose.covariance[35] == 0.5
    assert detection.bbox.center.position.y == -2.0
    assert detection.bbox.center.orientation.z == 1.0
    assert detection.bbox.size.z == 1.8
    assert detection.id == "7"
    written = bytes(store.serialize_cdr(read, "vision_msgs/msg/Detection3DArray"))
    assert deserialize_message(written, Detection3DArray) == detections()


def test_messages_travel_over_dds(ros_context: Context) -> None:
    node = rclpy.create_node("travel", context=ros_context)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)
    transform = TransformStamped(child_frame_id="base_link")
    transform.header.frame_id = "map"
    sent = {"boxes": detections(), "tf": TFMessage(transforms=[transform])}
    received = {}
    publishers = {}
    for topic, message in sent.items():
        node.create_subscription(
            type(message), topic, lambda m, topic=topic: received.update({topic: m}), 10
        )
        publishers[topic] = node.create_publisher(type(message), topic, 10)
    spin_until(executor, lambda: all(p.get_subscription_count() for p in publishers.values()))
    for topic, message in sent.items():
        publishers[topic].publish(message)
    spin_until(executor, lambda: len(received) == len(sent))
    assert received == sent


@pytest.mark.parametrize("package", ["tf2_msgs", "vision_msgs"])
def test_every_definition_was_built(repository: Path, package: str) -> None:
    module = __import__(f"{package}.msg", fromlist=["msg"])
    definitions = {p.stem for p in (repository / "interfaces" / package / "msg").glob("*.msg")}
    assert definitions
    assert definitions <= set(dir(module))


def test_a_vehicle_build_does_not_see_these_packages(repository: Path) -> None:
    """colcon must take the distribution's packages: a second vision_msgs would shadow them."""
    assert (repository / "interfaces" / "COLCON_IGNORE").is_file()
    manifest = (repository / "package.xml").read_text()
    needed = set(re.findall(r"<exec_depend>(\w+)</exec_depend>", manifest))
    assert {"tf2_msgs", "vision_msgs"} <= needed
