# SPDX-License-Identifier: Apache-2.0
"""A stamp is left out that one message has by itself, and none that has a reason."""

import numpy as np
import pytest
from numpy.typing import NDArray

from labeldistill_ros.sync.lone_stamps import lone_stamps

NS = 10**9
START = 1_600_000_000 * NS
EVERY = START + np.arange(50, dtype=np.int64) * NS // 10


@pytest.mark.parametrize("wrong_ns", [0, 5 * NS, START - 3 * NS, START + 9 * NS, 2**62])
@pytest.mark.parametrize("places", [[0], [49], [20], [0, 1], [20, 22], [47, 48, 49]])
def test_wrong_stamps(places: list[int], wrong_ns: int) -> None:
    stamps, logs = EVERY.copy(), EVERY + 20_000_000
    stamps[places] = wrong_ns
    assert np.flatnonzero(lone_stamps(stamps, logs)).tolist() == places


def test_one_of_three() -> None:
    stamps = EVERY[:3].copy()
    stamps[1] = 7
    assert lone_stamps(stamps, EVERY[:3]).tolist() == [False, True, False]


def _pause(stamps: NDArray[np.int64], logs: NDArray[np.int64]) -> None:
    stamps[45:] += 60 * NS
    logs[45:] += 60 * NS


def _late(_: NDArray[np.int64], logs: NDArray[np.int64]) -> None:
    logs[20:26] = logs[26]  # the recorder was busy


def _slow_replay(stamps: NDArray[np.int64], logs: NDArray[np.int64]) -> None:
    stamps[:] = START + np.arange(50) * 2 * NS
    logs[:] = START + np.arange(50) * 20 * NS


def _other_clock(stamps: NDArray[np.int64], _: NDArray[np.int64]) -> None:
    stamps[25:] += 37 * NS


@pytest.mark.parametrize("happens", [_pause, _late, _slow_replay, _other_clock])
def test_stamps_that_have_a_reason(happens: object) -> None:
    stamps, logs = EVERY.copy(), EVERY + 20_000_000
    happens(stamps, logs)  # type: ignore[operator]
    assert not lone_stamps(stamps, logs).any()


def test_none_and_one_message() -> None:
    for count in (0, 1, 2):
        assert not lone_stamps(EVERY[:count], EVERY[:count] + 10**10).any()
