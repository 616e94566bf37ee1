# SPDX-License-Identifier: Apache-2.0
"""What works without ROS is imported where ROS cannot be."""

import pytest

from tests.support.banned_imports import ROS, import_all, without


@pytest.mark.parametrize("room", ["sync", "sets"])
def test_rooms_import_without_ros(room: str) -> None:
    assert without((*ROS, "rosbags"), import_all, f"labeldistill_ros.{room}")


def test_messages_import_without_ros() -> None:
    # One of its two families is rosbags'.
    assert without(ROS, import_all, "labeldistill_ros.messages")


def test_the_ban_works() -> None:
    with pytest.raises(ModuleNotFoundError, match="rclpy|_msgs"):
        without((*ROS, "rosbags"), import_all, "labeldistill_ros.node")
