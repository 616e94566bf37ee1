# SPDX-License-Identifier: Apache-2.0
"""Whether a node's clock runs, and forwards."""

from __future__ import annotations

from collections import deque

from rclpy.lifecycle import Node

from labeldistill_ros.inputs.publishers import several

_OFTEN = 3
"""Times that a clock goes back within `_OFTEN_S`, after which it is not believed."""
_OFTEN_S = 10.0
BACK_NS = 500_000_000
"""Messages on /clock may overtake each other; a clock that goes back further was set."""


class ClockJumps:
    """How often a node's clock went back; times are of the steady clock.

    A bag that is looped sets it back once a round. Two publishers on /clock set it back all the
    time, and a node that starts afresh each time puts no set together any more.
    """

    def __init__(self) -> None:
        """It has not gone back yet."""
        self._back_s: deque[float] = deque(maxlen=_OFTEN)

    def went_back(self, now_s: float) -> bool:
        """Note that it did; whether to believe it."""
        self._back_s.append(now_s)
        return not self._often(now_s)

    def _often(self, now_s: float) -> bool:
        return len(self._back_s) == _OFTEN and now_s - self._back_s[0] < _OFTEN_S

    def why_not_believed(self, node: Node, now_s: float) -> str:
        """What to say of a clock that goes back again and again; empty where it does not."""
        if not self._often(now_s):
            return ""
        return (
            "the time on /clock goes back again and again, so that only the images' stamps count: "
            f"{several(node, '/clock') or 'see to its publisher'}"
        )


def why_no_clock(node: Node) -> str:
    """Why the clock of a node does not run; empty where it does."""
    simulated = node.get_parameter("use_sim_time").value
    if not simulated or node.get_clock().now().nanoseconds:
        return ""
    return (
        "use_sim_time is true, but nobody tells the time on /clock: play the bag with --clock, "
        "or set use_sim_time to false"
    )
