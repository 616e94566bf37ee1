# SPDX-License-Identifier: Apache-2.0
"""Any time on /clock, in any order: the node lives, and goes on when time does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.node.spinning import Spinner
from tests.support.fuzzing import fuzz

SECONDS = st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3) | st.just(1_600_000_000)
NANOSECONDS = st.integers(0, 10**9 - 1) | st.integers(0, 2**32 - 1)


class Timed:
    """An active node under simulated time, and who tells it."""

    def __init__(self, context: Context, model: Path) -> None:
        values = {"model": str(model), "device": "cpu", "use_sim_time": True}
        self.node = DetectorNode(
            context=context,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.teller = rclpy.create_node("teller", context=context)
        self._publisher = self.teller.create_publisher(Clock, "/clock", 10)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.spinner = Spinner(self._executor)
        assert self.node.start()

    def tell(self, sec: int, nanosec: int) -> None:
        self._publisher.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))
        for _ in range(4):
            self.spinner.spin_once(0.0)

    def reaches(self, sec: int) -> bool:
        """Whether the node's clock comes to show a time."""
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            self.tell(sec, 0)
            if self.node.get_clock().now().nanoseconds == sec * 10**9:
                return True
        return False

    def close(self) -> None:
        self.node.close()
        self._executor.shutdown()
        self.node.destroy_node()
        self.teller.destroy_node()


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timed]:
    from tests.support.rig import save_tiny

    context = Context()
    rclpy.init(context=context)
    found = Timed(context, save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))
    yield found
    found.close()
    context.try_shutdown()


@pytest.mark.real_time
@fuzz(60)
@given(times=st.lists(st.tuples(SECONDS, NANOSECONDS), min_size=1, max_size=12))
def test_any_times(timed: Timed, times: list[tuple[int, int]]) -> None:
    for sec, nanosec in times:
        timed.tell(sec, nanosec)
    assert timed.reaches(1_700_000_000)
    assert not timed.spinner.failed
    session = timed.node.session
    assert session is not None
    assert session.report()
    assert not session.failed
