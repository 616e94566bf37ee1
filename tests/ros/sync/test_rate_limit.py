# SPDX-License-Identifier: Apache-2.0
"""The rate is kept on average, whatever the cameras' rate, jitter and jumps."""

from __future__ import annotations

import random

import pytest

from labeldistill_ros.sync.rate_limit import RateLimit


def passed(stamps_s: list[float], rate_hz: float) -> list[float]:
    limit = RateLimit()
    return [s for s in stamps_s if limit.passes(round(s * 1e9), rate_hz)]


@pytest.mark.parametrize(("rate_hz", "count"), [(0.0, 120), (12.0, 120), (6.0, 60), (5.0, 50)])
def test_so_many_pass_in_ten_seconds(rate_hz: float, count: int) -> None:
    rng = random.Random(1)
    stamps = [1e9 + k / 12 + rng.gauss(0, 0.002) for k in range(120)]
    assert len(passed(stamps, rate_hz)) == pytest.approx(count, abs=1)


def test_a_faster_limit_than_the_cameras_passes_all() -> None:
    stamps = [k / 10 for k in range(50)]
    assert passed(stamps, 30.0) == stamps


def test_pauses_and_jumps_start_it_afresh() -> None:
    assert passed([0.0, 0.1, 50.0, 50.1, 50.6, 3.0, 3.1, 3.5], 2.0) == [0.0, 50.0, 50.6, 3.0, 3.5]


def test_the_smallest_rate_passes_one() -> None:
    assert passed([k / 10 for k in range(50)], 5e-324) == [0.0]
