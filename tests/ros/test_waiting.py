# SPDX-License-Identifier: Apache-2.0
"""Scripts wait for the detector."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rclpy.context import Context
from rclpy.node import Node

from labeldistill_core.errors import BagError
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.waiting import wait_until_active


def test_an_active_detector_is_seen_and_an_inactive_one_is_named(
    ros_context: Context, detector: Callable[..., RunningNode]
) -> None:
    node = Node("waits", context=ros_context)
    with pytest.raises(BagError, match="/detector is not there after 0.5 s"):
        wait_until_active(node, "detector", 0.5)
    running = detector()
    assert wait_until_active(node, "/detector", 20.0)
    running.node.trigger_deactivate()
    with pytest.raises(BagError, match="/detector is inactive after 1 s"):
        wait_until_active(node, "/detector", 1.0)
    assert not wait_until_active(node, "/detector", 20.0, lambda: False)
    node.destroy_node()
