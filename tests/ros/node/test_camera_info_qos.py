# SPDX-License-Identifier: Apache-2.0
"""Calibrations arrive however they are published, and QoS overrides hold or are told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT

Start = Callable[..., RunningNode]
INFO = "/cam_back/camera_info"


def test_a_calibration_that_was_latched_before_the_node_came(
    vehicle: Vehicle, detector: Start
) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for camera in CAMERAS:
        topic = f"/{camera.lower()}/camera_info"
        publisher = vehicle.node.create_publisher(CameraInfo, topic, latched)
        publisher.publish(vehicle.info(camera, vehicle.course.start_ns))
    node = detector(**PATIENT, **{"diagnostics.period": 0.1})
    vehicle.connect()
    vehicle.drive_until(lambda: "processed" in vehicle.outcomes(), 0, no_info=set(CAMERAS))
    assert len(node.results[-1][0].views) == len(CAMERAS)


def test_no_second_subscription_where_nobody_latches(vehicle: Vehicle, detector: Start) -> None:
    node = detector(**{"diagnostics.period": 0.1})
    vehicle.connect()
    time.sleep(0.5)
    assert len([s for s in node.node.subscriptions if s.topic_name == INFO]) == 1


def test_overrides_of_durability_hold_and_misspelled_ones_are_told(
    detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    node = detector(
        **{
            f"qos_overrides.{INFO}.subscription.durability": "transient_local",
            f"qos_overrides.{INFO}.subscription.reliability": "reliable",
            f"qos_overrides.{INFO}.subscription.dept": 3,
            "qos_overrides./no/topic.publisher.depth": 3,
        }
    )
    assert node.started
    (own,) = [s for s in node.node.subscriptions if s.topic_name == INFO]
    assert own.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    told = capfd.readouterr().err
    spelled = f"qos_overrides.{INFO}.subscription.depth"
    assert f"{INFO}.subscription.dept holds for nothing: did you mean {spelled}?" in told
    assert "override qos_overrides./no/topic.publisher.depth holds for nothing" in told
    assert "durability holds for nothing" not in told


def test_every_publisher_that_offers_less_is_told_by_name_and_no_other(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    topic = "/cam_back/image_raw/compressed"
    detector(
        **{f"qos_overrides.{topic}.subscription.reliability": "reliable", "diagnostics.period": 0.1}
    )
    told = ""
    for name, reliability in (
        ("good", ReliabilityPolicy.RELIABLE),
        ("first", ReliabilityPolicy.BEST_EFFORT),
        ("second", ReliabilityPolicy.BEST_EFFORT),
    ):
        node = Node(name, context=vehicle.node.context)
        node.create_publisher(CompressedImage, topic, QoSProfile(depth=1, reliability=reliability))
        end_s = time.monotonic() + 5
        wanted = f"/{name} publishes {topic} with reliability best effort"
        while name != "good" and wanted not in told and time.monotonic() < end_s:
            time.sleep(0.05)
            told += capfd.readouterr().err
    time.sleep(0.5)
    told += capfd.readouterr().err
    for name, times in (("good", 0), ("first", 1), ("second", 1)):
        assert told.count(f"/{name} publishes {topic}") == times
    assert "UNKNOWN" not in told
