# SPDX-License-Identifier: Apache-2.0
"""Poses that come later than the node waits."""

from __future__ import annotations

import pytest

from labeldistill_core.frames import Transform
from labeldistill_ros.doctor.pose_delay import PoseDelay
from labeldistill_ros.inputs.transforms import TransformError

PERIOD_NS = 100_000_000


def delayed(periods: int, lost: int | None = None, first: int = 0) -> PoseDelay:
    """Images every 0.1 s, each of whose poses comes so many periods later, but that of one.

    There are no poses of images before the stamp `first`.
    """
    newest_ns = 0

    def lookup(target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        if stamp_ns < first:
            raise TransformError("older than the oldest", may_come=False)
        if stamp_ns > newest_ns or stamp_ns == lost:
            raise TransformError("not there", may_come=True)
        return Transform.identity(target, source)

    delay = PoseDelay(lookup, "map", "base_link")
    for number in range(1, 60):
        newest_ns = (number - periods) * PERIOD_NS
        delay.image(number * PERIOD_NS, 0.1 * number)
    return delay


@pytest.mark.parametrize(("periods", "level", "ms"), [(0, "ok", 0), (2, "warning", 200)])
def test_the_delay_is_told(periods: int, level: str, ms: int) -> None:
    (found,) = delayed(periods).check(0.1)
    assert found.level == level
    assert f"they come {ms} ms after the images" in found.text


def test_images_before_the_first_pose_hold_back_none() -> None:
    (found,) = delayed(0, first=10 * PERIOD_NS).check(0.1)
    assert found.level == "ok"
    assert "they come 0 ms after the images" in found.text


def test_poses_that_never_come_are_no_delay() -> None:
    assert delayed(1000).check(0.1) == []
    (found,) = delayed(0, lost=59 * PERIOD_NS).check(0.1)
    assert found.level == "ok"
