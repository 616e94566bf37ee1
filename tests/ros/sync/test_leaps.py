# SPDX-License-Identifier: Apache-2.0
"""Stamps that leap: one image's, one camera's, those of all; and what a hostile sender makes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.cameras import CAMERAS
from tests.support.sync_stream import Event, Outcome, feed

EPOCH_S = 1.7e9
CYCLES = 100
PERIOD_S = 0.2
LEAPS_S = (-1.7e9 + 1.0, -1e4, -10.0, -0.7, 0.7, 3.0, 1e4, 4e8)
"""Of a clock that was never set, of some seconds, of a flipped bit."""


def drive(cycles: int = CYCLES) -> list[Event]:
    return [
        event(cycle * PERIOD_S + 0.005 * i, camera, 0.0, cycle)
        for cycle in range(cycles)
        for i, camera in enumerate(CAMERAS)
    ]


def event(at_s: float, camera: str, leap_s: float, cycle: int = -1) -> Event:
    """An image that comes 20 ms after its exposure."""
    return at_s + 0.02, camera, round((EPOCH_S + at_s + leap_s) * 1e9), cycle


def told(events: list[Event], policy: str) -> Outcome:
    out = feed(sorted(events), 2.0, policy=policy)
    for found in out.usable:
        assert len({frame.item for frame in found.frames.values()}) == 1
    counts = out.sync.counts
    accounted = sum(len(found.frames) for found in out.sets) + sum(
        counts[why] for why in ("unmatched", "late", "duplicate")
    )
    assert counts["received"] == len(events)
    # of a reset only what waited then is in no account
    assert len(events) - 6 * counts["resets"] <= accounted <= len(events)
    return out


@pytest.mark.parametrize("policy", ["skip", "mask"])
@pytest.mark.parametrize("leap_s", LEAPS_S)
@pytest.mark.parametrize("strays", [1, 5])
@pytest.mark.parametrize(
    "cameras", [("CAM_FRONT",), ("CAM_BACK",), ("CAM_FRONT", "CAM_BACK"), CAMERAS[:4]]
)
def test_stray_stamps_cost_few_sets(
    cameras: tuple[str, ...], strays: int, leap_s: float, policy: str
) -> None:
    extra = [
        event(10.1 + 0.001 * i + 0.006 * k, camera, leap_s + 0.05 * k)
        for i, camera in enumerate(cameras)
        for k in range(strays)
    ]
    out = told(drive() + extra, policy)
    # as long as the leap takes to be over, where it cannot be told from images that come late
    lost = 1 if abs(leap_s) > 1.0 and strays == 1 else 6
    real = [found for found in out.usable if found.frames[found.anchor].item >= 0]
    assert len(real) >= CYCLES - lost
    # what four cameras tell alike is a set like any other, if the policy is content with four
    assert len(out.usable) - len(real) <= strays * (policy == "mask" and len(cameras) == 4)
    assert out.usable[-1].frames["CAM_FRONT"].item == CYCLES - 1


@pytest.mark.parametrize("leap_s", [leap_s for leap_s in LEAPS_S if abs(leap_s) > 1.0])
@pytest.mark.parametrize("cameras", [("CAM_FRONT",), ("CAM_BACK",), ("CAM_FRONT", "CAM_BACK")])
@pytest.mark.parametrize("until", [CYCLES, 70])
def test_a_camera_whose_clock_is_set_by_itself_is_left_out_and_named(
    cameras: tuple[str, ...], leap_s: float, until: int
) -> None:
    moved = [
        (t, c, s + round(leap_s * 1e9) * (c in cameras and 50 <= k < until), k)
        for t, c, s, k in drive()
    ]
    out = told(moved, "mask")
    assert len(out.usable) >= CYCLES - 5
    assert out.sync.counts["resets"] == 0
    if until == CYCLES:
        assert all(set(found.missing) == set(cameras) for found in out.usable[60:])
        assert out.sync.disagreeing_s == pytest.approx(dict.fromkeys(cameras, leap_s), abs=0.01)
    else:
        assert all(found.missing == () for found in out.usable[-20:])
        assert out.sync.disagreeing_s == {}


@pytest.mark.parametrize("leap_s", [leap_s for leap_s in LEAPS_S if abs(leap_s) > 1.0])
@pytest.mark.parametrize("policy", ["skip", "mask"])
def test_a_leap_of_all_loses_nothing(leap_s: float, policy: str) -> None:
    moved = [(t, c, s + round(leap_s * 1e9) * (k >= 50), k) for t, c, s, k in drive()]
    out = told(moved, policy)
    assert len(out.usable) == CYCLES
    assert all(found.missing == () for found in out.usable)
    assert out.sync.counts["resets"] == (leap_s < 0)


@pytest.mark.parametrize("leap_s", [-1e4, -3.0, 3.0, 1e4])
def test_where_as_many_leap_as_stay_it_goes_on_when_they_come_back(leap_s: float) -> None:
    moved = [
        (t, c, s + round(leap_s * 1e9) * (c in CAMERAS[:3] and 40 <= k < 60), k)
        for t, c, s, k in drive()
    ]
    out = told(moved, "skip")
    assert len(out.usable) >= CYCLES - 20 - 25
    assert out.usable[-1].frames["CAM_FRONT"].item == CYCLES - 1


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    per_s=st.floats(1.0, 20.0),
    kept=st.lists(st.sampled_from(CAMERAS), min_size=1, max_size=6, unique=True),
    policy=st.sampled_from(("skip", "mask")),
)
def test_whatever_stamps_another_sender_makes_up(
    seed: int, per_s: float, kept: list[str], policy: str
) -> None:
    """A second publisher on the topics of some cameras, for forty seconds of sixty."""
    rng, at_s, extra = random.Random(seed), 5.0, list[Event]()
    while (at_s := at_s + rng.expovariate(per_s)) < 45.0:
        leap_s = rng.choice((0.0, 0.0, *LEAPS_S, 2**31 - 1 - EPOCH_S - at_s, 1.0 - EPOCH_S - at_s))
        extra.append(event(at_s, rng.choice(kept), leap_s))
    out = feed(sorted(drive(300) + extra), 2.0, policy=policy)
    after = [found for found in out.usable if found.frames[found.anchor].item >= 250]
    assert len(after) == 50, "it has recovered soon after the last of them"
    assert all(found.missing == () for found in after)
