# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.runtime.history import History, PastFrame

NOTHING = torch.zeros(0)


def frame(seconds: float) -> PastFrame:
    features = FrameFeatures(NOTHING, NOTHING)
    return PastFrame(round(seconds * 1e9), features, (), NOTHING, NOTHING)


def filled(history: History[PastFrame], *seconds: float) -> History[PastFrame]:
    for s in seconds:
        history.push(frame(s))
    return history


def picked(history: History[PastFrame], seconds: float) -> list[float | None]:
    return [f.stamp_ns / 1e9 if f else None for f in history.pick(round(seconds * 1e9))]


def test_frames_are_picked_by_age_and_not_by_count() -> None:
    history = filled(History((1.0, 2.0)), *(n / 12 for n in range(24)))
    assert picked(history, 2.0) == [1.0, 0.0]


def test_the_nearest_frame_within_tolerance() -> None:
    history = filled(History((1.0,), tolerance_s=0.1), 0.95, 1.08)
    assert picked(history, 2.0) == [0.95]
    assert picked(history, 2.04) == [1.08]
    assert picked(history, 2.18) == [1.08]
    assert picked(history, 2.19) == [None]


def test_no_frame_is_near_enough() -> None:
    assert picked(History((1.0, 2.0)), 5.0) == [None, None]
    assert picked(filled(History((0.5, 1.0)), 4.5), 5.0) == [4.5, None]


@pytest.mark.parametrize("tolerance_s", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_picks_nothing_or_anything_is_refused(tolerance_s: float) -> None:
    with pytest.raises(ValueError, match="history_tolerance_s is .*: it must be 0 or more"):
        History((1.0,), tolerance_s)


def test_old_frames_are_dropped() -> None:
    history = filled(History((1.0,), tolerance_s=0.1), *(n / 2 for n in range(10)))
    assert len(history) == 3
    assert history.newest is not None
    assert history.newest.stamp_ns == 4_500_000_000
    history.clear()
    assert len(history) == 0
    assert history.newest is None


def test_without_past_frames() -> None:
    history = filled(History(()), 0.0, 0.5)
    assert picked(history, 1.0) == []
