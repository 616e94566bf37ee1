# SPDX-License-Identifier: Apache-2.0
"""Spinning goes on after a callback failed."""

from __future__ import annotations

import logging

import pytest
from builtin_interfaces.msg import Time
from rclpy.time import Time as RclpyTime

from labeldistill_ros.node.spinning import Spinner


class Executor:
    """Stands for one whose callbacks read a time, or divide."""

    def __init__(self, *seconds: int) -> None:
        self.left = list(seconds)

    def spin_once(self, timeout_sec: float) -> None:
        seconds = self.left.pop(0)
        RclpyTime.from_msg(Time(sec=seconds))
        1 / seconds  # noqa: B018


@pytest.mark.parametrize(
    ("seconds", "failed", "told"),
    [
        ((-5, -5, 7, -5), False, "a time that ROS cannot tell"),
        ((0, 7, 0), True, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_callback_ends_nothing(
    seconds: tuple[int, ...], failed: bool, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    executor = Executor(*seconds)
    spinner = Spinner(executor)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for _ in seconds:
            spinner.spin_once(0.0)
    assert executor.left == []
    assert spinner.failed is failed
    assert len(caplog.records) == 1, "told once in five seconds"
    assert told in caplog.text
