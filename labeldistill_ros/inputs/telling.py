# SPDX-License-Identifier: Apache-2.0
"""Warnings about what comes in, of which nobody outside can make a flood."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.lifecycle import Node

_MOST_TOLD = 10
"""Different warnings within the pause; texts hold names that come from outside."""

Tell = Callable[[str], object]
"""Is given a sentence for each thing that is refused."""


def logged(node: Node, quiet_s: float = 5.0) -> Tell:
    """Log each sentence once in a while, so that one that repeats hides no other.

    Args:
        node: whose log it is.
        quiet_s: between two repetitions of a sentence.
    """
    told_s: dict[str, float] = {}

    def tell(text: str) -> None:
        now_s = time.monotonic()
        if text in told_s or len(told_s) >= _MOST_TOLD:
            for old in [told for told, when_s in told_s.items() if now_s - when_s >= quiet_s]:
                del told_s[old]
            if text in told_s or len(told_s) >= _MOST_TOLD:
                return
        told_s[text] = now_s
        node.get_logger().warning(text)

    return tell
