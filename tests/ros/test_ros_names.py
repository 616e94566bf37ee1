# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rclpy.validate_full_topic_name import validate_full_topic_name

from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.parameters import CameraParameters, Parameters
from labeldistill_ros.ros_names import fault_of_names, ros_name, ros_names


@pytest.mark.parametrize(
    ("sensor", "name"),
    [
        ("CAM_FRONT", "cam_front"),
        ("front left", "front_left"),
        ("Kamera-Süd.1", "kamera_s_d_1"),
        ("360cam", "_360cam"),
        ("左", "_"),
    ],
)
def test_every_sensor_has_a_name_that_ros_takes(sensor: str, name: str) -> None:
    assert ros_name(sensor) == name
    topics = CameraTopics.of(sensor, Parameters(camera_prefix="/own"), CameraParameters())
    assert topics.info == f"/own/{name}/camera_info"
    validate_full_topic_name(topics.info)
    validate_full_topic_name(topics.image)


def test_two_sensors_never_share_a_name() -> None:
    assert ros_names(["a b", "A-b", "a_b_2", "c"]) == {
        "a b": "a_b",
        "A-b": "a_b_2",
        "a_b_2": "a_b_2_2",
        "c": "c",
    }


def test_sensors_that_would_share_a_topic_are_told() -> None:
    assert fault_of_names(["CAM_FRONT", "CAM_BACK", "lidar"]) == ""
    told = fault_of_names(["CAM_BACK", "CAM-FRONT", "cam front"])
    assert told == "'CAM-FRONT' and 'cam front' would both be cam_front in ROS"
