# SPDX-License-Identifier: Apache-2.0
"""A clock that goes back once is believed, one that goes back all the time is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rosgraph_msgs.msg import Clock

from labeldistill_ros.inputs.clock import ClockJumps


@pytest.fixture
def node(ros_context: Context) -> Iterator[LifecycleNode]:
    node = LifecycleNode("listens", context=ros_context)
    yield node
    node.destroy_node()


def test_a_looped_bag_is_believed_each_time(node: LifecycleNode) -> None:
    jumps = ClockJumps()
    for i in range(10):
        assert jumps.went_back(i * 20.0)
        assert jumps.why_not_believed(node, i * 20.0) == ""


def test_a_clock_that_goes_back_and_forth_is_told_with_its_publishers(node: LifecycleNode) -> None:
    jumps = ClockJumps()
    believed = [jumps.went_back(i * 0.02) for i in range(100)]
    assert believed == [True, True, *[False] * 98]
    assert jumps.why_not_believed(node, 3.0).endswith("see to its publisher")
    publishers = [node.create_publisher(Clock, "/clock", 1) for _ in range(2)]
    assert "2 publishers are on /clock: /listens and /listens" in jumps.why_not_believed(node, 3.0)
    assert jumps.why_not_believed(node, 13.0) == ""
    assert jumps.went_back(30.0)
    for publisher in publishers:
        node.destroy_publisher(publisher)
