# SPDX-License-Identifier: Apache-2.0
"""Whether a node's clock runs."""

from __future__ import annotations

from rclpy.lifecycle import Node


def why_no_clock(node: Node) -> str:
    """Why the clock of a node does not run; empty where it does."""
    simulated = node.get_parameter("use_sim_time").value
    if not simulated or node.get_clock().now().nanoseconds:
        return ""
    return (
        "use_sim_time is true, but nobody tells the time on /clock: play the bag with --clock, "
        "or set use_sim_time to false"
    )
