# SPDX-License-Identifier: Apache-2.0
"""What is told of cameras from which nothing comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from labeldistill_ros.inputs.publishers import unheard
from labeldistill_ros.inputs.subscriptions import CameraSubscriptions
from labeldistill_ros.inputs.topics import CameraTopics

PROFILE = "Fast DDS profile"


@pytest.fixture
def node(ros_context: Context) -> Iterator[LifecycleNode]:
    remap = ["--ros-args", "-r", "/front/image_raw:=/car/front", "-r", "/front/info:=/car/info"]
    node = LifecycleNode("listens", context=ros_context, cli_args=remap)
    yield node
    node.destroy_node()


@pytest.fixture
def front(node: LifecycleNode) -> Iterator[CameraSubscriptions]:
    topics = {"FRONT": CameraTopics("/front/image_raw", "/front/info", compressed=False)}
    subscriptions = CameraSubscriptions(node, topics, True, lambda *_: None)
    yield subscriptions
    subscriptions.close()


def test_topics_are_named_as_remapping_has_them(front: CameraSubscriptions) -> None:
    assert "nobody publishes /car/front (" in front.why_silent("FRONT")
    assert "no camera_info on /car/info (" in front.why_without_info("FRONT")


@pytest.mark.parametrize(
    ("asked", "there", "transport"),
    [
        ("/front/image_raw/compressed", "/front/image_raw", "raw"),
        ("/front/image", "/front/image/compressed", "compressed"),
    ],
)
def test_the_other_transport_is_named_where_it_is_published(
    node: LifecycleNode, asked: str, there: str, transport: str
) -> None:
    topics = {"FRONT": CameraTopics(asked, "/front/info", compressed=transport == "raw")}
    subscriptions = CameraSubscriptions(node, topics, True, lambda *_: None)
    assert "check the topic" in subscriptions.why_silent("FRONT")
    publisher = node.create_publisher(Image, there, 5)
    published = node.resolve_topic_name(there)
    why = subscriptions.why_silent("FRONT")
    assert f"but {published} is: set transport to {transport}" in why
    node.destroy_publisher(publisher)
    subscriptions.close()


@pytest.mark.parametrize(
    ("qos", "told"), [(QoSProfile(depth=5), True), (qos_profile_sensor_data, False)]
)
def test_the_profile_is_named_where_a_publisher_fits(
    node: LifecycleNode, front: CameraSubscriptions, qos: QoSProfile, told: bool
) -> None:
    publisher = node.create_publisher(Image, "/car/front", qos)
    why = front.why_silent("FRONT")
    assert "1 publisher: /listens publishes" in why
    assert (PROFILE in why) is told
    node.destroy_publisher(publisher)


def test_several_publishers_are_told_with_their_nodes(
    node: LifecycleNode, front: CameraSubscriptions
) -> None:
    first = node.create_publisher(Image, "/car/front", 5)
    assert front.shared() == {}
    second = node.create_publisher(Image, "/car/front", 5)
    assert front.shared() == {
        "FRONT": "FRONT: 2 publishers are on /car/front: /listens and /listens; their messages "
        "mix: stop all but one"
    }
    node.destroy_publisher(first)
    node.destroy_publisher(second)


def test_several_publishers_of_a_calibration_are_told(
    node: LifecycleNode, front: CameraSubscriptions
) -> None:
    publishers = [node.create_publisher(CameraInfo, "/car/info", 5) for _ in range(2)]
    assert "2 publishers are on /car/info" in front.shared()["FRONT"]
    for publisher in publishers:
        node.destroy_publisher(publisher)


def test_only_publishers_that_offer_less_are_unheard(
    node: LifecycleNode, front: CameraSubscriptions
) -> None:
    fits = node.create_publisher(Image, "/car/front", QoSProfile(depth=5))
    assert front.unheard() == []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    asked = unheard(node, "/front/image_raw", latched)
    assert [text.partition(", which")[0] for text in asked.values()] == [
        "/listens publishes /car/front with durability volatile"
    ]
    node.destroy_publisher(fits)


def test_a_publisher_that_comes_and_goes_does_not_fill_the_log(
    ros_context: Context, spun: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    reliable = "qos_overrides./front/image_raw.subscription.reliability:=reliable"
    node = LifecycleNode("listens", context=ros_context, cli_args=["--ros-args", "-p", reliable])
    topics = {"FRONT": CameraTopics("/front/image_raw", "/front/info", compressed=False)}
    subscriptions = CameraSubscriptions(node, topics, True, lambda *_: None)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)
    for _ in range(5):
        publisher = spun.create_publisher(Image, "/front/image_raw", qos_profile_sensor_data)
        for count in (1, 0):
            while node.count_publishers("/front/image_raw") != count:
                executor.spin_once(timeout_sec=0.05)
            executor.spin_once(timeout_sec=0.05)
            subscriptions.tell_incompatible()
            if count:
                spun.destroy_publisher(publisher)
    assert capfd.readouterr().err.count("set qos_overrides./front/image_raw") == 1
    subscriptions.close()
    executor.shutdown()
    node.destroy_node()
