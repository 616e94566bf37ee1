# SPDX-License-Identifier: Apache-2.0
"""Until a lifecycle node is active."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from labeldistill_core.errors import BagError

_POLL_S = 0.2


def wait_until_active(
    node: Node, name: str, timeout_s: float, keep_going: Callable[[], bool] = lambda: True
) -> bool:
    """Wait until another node is active.

    Args:
        node: asks; nobody else spins it.
        name: of the other node, with its namespace.
        timeout_s: how long at most.
        keep_going: asked again and again.

    Returns:
        Whether it is active; false when `keep_going` said no.

    Raises:
        BagError: it is not in time.
    """
    whole, end_s = f"/{name.strip('/')}", time.monotonic() + timeout_s
    client: Client[Any, Any] = node.create_client(GetState, f"{whole}/get_state")
    # One of its own, since rclpy's global executor knows the default context alone.
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    state = "not there"
    try:
        while keep_going():
            if time.monotonic() > end_s:
                raise BagError(
                    f"{whole} is {state} after {timeout_s:g} s: see its log, and whether it is in "
                    "the same ROS_DOMAIN_ID"
                )
            if not client.service_is_ready():
                time.sleep(_POLL_S)
                continue
            answer = client.call_async(GetState.Request())
            executor.spin_until_future_complete(answer, timeout_sec=1.0)
            # a node that loads its model answers late
            if (result := answer.result() if answer.done() else None) is not None:
                state = result.current_state.label
                if result.current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return True
                time.sleep(_POLL_S)
    finally:
        executor.remove_node(node)
        executor.shutdown()
        node.destroy_client(client)
    return False
