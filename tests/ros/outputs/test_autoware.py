# SPDX-License-Identifier: Apache-2.0
"""Boxes in Autoware's message, whose package stands in here with the fields of its definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from geometry_msgs.msg import PoseWithCovariance, TwistWithCovariance, Vector3
from std_msgs.msg import Header

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_ros.outputs.autoware import LABELS, objects_message


@dataclass
class ObjectClassification:
    label: int = 0
    probability: float = 0.0


@dataclass
class DetectedObjectKinematics:
    pose_with_covariance: PoseWithCovariance = field(default_factory=PoseWithCovariance)
    orientation_availability: int = 0
    has_twist: bool = False
    twist_with_covariance: TwistWithCovariance = field(default_factory=TwistWithCovariance)


@dataclass
class Shape:
    type: int = 9
    dimensions: Vector3 = field(default_factory=Vector3)


@dataclass
class DetectedObject:
    existence_probability: float = 0.0
    classification: list[ObjectClassification] = field(default_factory=list)
    kinematics: DetectedObjectKinematics = field(default_factory=DetectedObjectKinematics)
    shape: Shape = field(default_factory=Shape)


@dataclass
class DetectedObjects:
    header: Header
    objects: list[DetectedObject] = field(default_factory=list)


MESSAGES: Any = SimpleNamespace(
    DetectedObjects=DetectedObjects,
    DetectedObject=DetectedObject,
    ObjectClassification=ObjectClassification,
)


def test_an_object_is_its_box() -> None:
    ahead_left = [10.0, 5.0, 1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]  # drives left
    still = [1.0, 2.0, 0.5, 0.4, 0.4, 1.0, 0.0, math.nan, math.nan]
    labels = torch.tensor([CLASSES.index("car"), CLASSES.index("traffic_cone")])
    boxes = Boxes3D("base_link", torch.tensor([ahead_left, still]), labels, torch.tensor([0.5, 1]))
    message = objects_message(boxes, CLASSES, 7_000_000_000, MESSAGES)
    assert (message.header.frame_id, message.header.stamp.sec) == ("base_link", 7)
    car, cone = message.objects
    assert (car.existence_probability, car.classification[0].label) == (0.5, 1)
    pose = car.kinematics.pose_with_covariance.pose
    assert (pose.position.x, pose.position.y, pose.position.z) == (10.0, 5.0, 1.0)
    assert 2 * math.atan2(pose.orientation.z, pose.orientation.w) == pytest.approx(math.pi / 2)
    size = car.shape.dimensions
    assert (size.x, size.y, size.z, car.shape.type) == (4.0, 2.0, 1.5, 0)
    assert car.kinematics.has_twist
    speed = car.kinematics.twist_with_covariance.twist.linear  # in the object's own axes
    assert (speed.x, speed.y) == pytest.approx((3.0, 0.0), abs=1e-6)
    assert not cone.kinematics.has_twist
    assert cone.classification[0].label == 0  # unknown


def test_every_class_has_a_label_or_none_there() -> None:
    assert set(LABELS) <= set(CLASSES)
    assert set(CLASSES) - set(LABELS) == {"barrier", "traffic_cone"}
