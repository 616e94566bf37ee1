# SPDX-License-Identifier: Apache-2.0
"""The synchronizer on streams with the phases of a nuScenes rig, without ROS.

A stream is a list of (arrival in seconds, camera, stamp, cycle); the cycle travels as the item, so
a set that holds two different cycles is a mixed one.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.sync.synchronizer import Synchronizer, SyncOptions
from labeldistill_ros.testing.course import PHASES_S as PHASE
from tests.support.sync_stream import Event, Outcome, feed

PERIOD = 1 / 12
EPOCH_NS = 1_500_000_000_000_000_000
TRANSPORT = 0.005


def stream(
    cycles: int = 240,
    *,
    lost: Callable[[str, int], bool] = lambda camera, cycle: False,
    jitter: float = 0.0,
    period: float = PERIOD,
    first: int = 0,
    rate: dict[str, float] | None = None,
    seed: int = 0,
) -> list[Event]:
    """Frames in the order in which they come; `rate` lets a camera run fast or slow."""
    rng = random.Random(seed)
    events = []
    for cycle in range(cycles):
        for camera, phase in PHASE.items():
            if lost(camera, cycle):
                continue
            t = (cycle * period + phase) * (rate or {}).get(camera, 1.0) + rng.gauss(0, jitter)
            events.append((t + TRANSPORT, camera, EPOCH_NS + round(t * 1e9), cycle))
    return sorted(events)[first:]


def losing(share: float, seed: int = 3) -> Callable[[str, int], bool]:
    """Random loss."""
    rng = random.Random(seed)
    return lambda camera, cycle: rng.random() < share


def mixed(outcome: Outcome) -> int:
    """Sets that hold images of two cycles."""
    return sum(len({f.item for f in s.frames.values()}) > 1 for s in outcome.usable)


def run(events: list[Event], **options: object) -> Outcome:
    outcome = feed(events, 0.2, **options)
    stamps = [s.stamp_ns for s in outcome.usable]
    assert stamps == sorted(stamps) or outcome.sync.counts["resets"], "sets come out in order"
    return outcome


def complete_cycles(events: list[Event]) -> int:
    seen: dict[int, int] = {}
    for *_, cycle in events:
        seen[cycle] = seen.get(cycle, 0) + 1
    return sum(count == len(CAMERAS) for count in seen.values())


@pytest.mark.parametrize("first", range(6))
def test_clean_stream_is_complete_wherever_it_starts(first: int) -> None:
    out = run(stream(first=first))
    assert len(out.usable) == 240 - (first > 0)
    assert mixed(out) == 0
    assert out.usable[5].anchor == "CAM_FRONT"
    assert out.usable[5].spread_s == pytest.approx(0.0426, abs=1e-6)
    assert out.usable[5].waited_s == pytest.approx(0.0426, abs=1e-6)


def test_stamps_before_1970_are_as_good_as_others() -> None:
    early = [(arrival, camera, stamp - 10**18, cycle) for arrival, camera, stamp, cycle in stream()]
    out = run(early)
    assert len(out.usable) == 240
    assert out.sync.counts["resets"] == 0


@pytest.mark.parametrize("period", [0.5, 1 / 30])
def test_other_rates(period: float) -> None:
    phase_fits = period > 0.05
    out = run(stream(60, period=period), tolerance_s=0.03 if phase_fits else 0.004)
    # At 30 Hz the cameras' spread exceeds the period: a cycle is then the tightest six images.
    assert len(out.usable) >= (60 if phase_fits else 57)
    assert mixed(out) == 0 or not phase_fits


@pytest.mark.parametrize("minimum", [6, 5, 4])
def test_random_loss(minimum: int) -> None:
    events = stream(lost=losing(0.05))
    complete = complete_cycles(events)
    out = run(events, policy="mask", min_cameras=minimum)
    full = sum(not s.missing for s in out.usable)
    assert full == complete
    assert len(out.usable) >= {6: complete, 5: 230, 4: 239}[minimum]
    assert mixed(out) == 0


def test_skipped_sets_are_told_with_what_they_lack() -> None:
    out = run(stream(lost=lambda camera, cycle: camera == "CAM_BACK" and cycle == 100))
    (skipped,) = [s for s in out.sets if not s.usable]
    assert skipped.missing == ("CAM_BACK",)
    assert out.sync.counts["skipped"] == 1
    assert out.sync.missing == {"CAM_BACK": 1}


@pytest.mark.parametrize(
    ("jitter", "tolerance", "least"),
    [(0.003, 0.02, 240), (0.005, 0.02, 233), (0.003, 0.03, 240), (0.005, 0.03, 240)],
)
def test_jitter(jitter: float, tolerance: float, least: int) -> None:
    out = run(stream(jitter=jitter), tolerance_s=tolerance)
    assert len(out.usable) >= least
    assert mixed(out) == 0


@pytest.mark.parametrize("dead", ["CAM_BACK", "CAM_FRONT"])
@pytest.mark.parametrize("since", [60, 0])
def test_dead_camera(dead: str, since: int) -> None:
    events = stream(lost=lambda camera, cycle: camera == dead and cycle >= since)
    out = run(events, policy="mask")
    assert len(out.usable) == 240
    assert mixed(out) == 0
    later = out.usable[since + 20 :]
    assert {s.anchor for s in later} == {"CAM_FRONT" if dead != "CAM_FRONT" else "CAM_FRONT_LEFT"}
    # Once the camera counts as dead nobody waits for it.
    assert max(s.waited_s for s in later) < 0.045
    assert len(run(events).usable) == since


def test_dead_camera_comes_back() -> None:
    events = stream(lost=lambda camera, cycle: camera == "CAM_FRONT" and 60 <= cycle < 120)
    out = run(events, policy="mask")
    assert len(out.usable) == 240
    assert out.sync.anchor == "CAM_FRONT"
    assert all(not s.missing for s in out.usable[122:])
    assert out.sync.counts["elections"] == 2


def test_bag_loop_with_a_track_that_ends_early() -> None:
    once = stream(lost=lambda camera, cycle: camera == "CAM_BACK" and cycle >= 216)
    again = [(t + 20.1, camera, stamp, cycle + 1000) for t, camera, stamp, cycle in once]
    out = run(once + again)
    assert len(out.usable) == 2 * 216
    assert mixed(out) == 0
    assert out.sync.counts["resets"] == 1


def test_the_frame_that_tells_of_a_jump_says_so() -> None:
    once = stream(24)
    again = [(t + 2.1, camera, stamp, cycle + 1000) for t, camera, stamp, cycle in once]
    sync: Synchronizer[int] = Synchronizer(SyncOptions(CAMERAS, "CAM_FRONT"))
    told = [sync.add(camera, stamp, cycle, t).reset for t, camera, stamp, cycle in once + again]
    assert told.count(True) == sync.counts["resets"] == 1
    # three of six may have broken clocks, so the fourth one's frame is believed
    assert told.index(True) == len(once) + 3


def test_one_camera_with_a_broken_clock_resets_nothing() -> None:
    events = stream()
    garbage = [
        (t, c, EPOCH_NS // 2 if i % 50 == 7 else s, k) for i, (t, c, s, k) in enumerate(events)
    ]
    future = [(t, c, 2 * EPOCH_NS if i == 300 else s, k) for i, (t, c, s, k) in enumerate(events)]
    for broken, least in ((garbage, 240), (future, 240)):
        out = run(broken, policy="mask")
        assert len(out.usable) == least
        assert mixed(out) == out.sync.counts["resets"] == 0
        assert sum(not s.missing for s in out.usable) >= 240 - 30


def test_free_running_clocks_are_followed() -> None:
    rate = {"CAM_BACK": 1.0002, "CAM_FRONT_LEFT": 0.9998}  # 20 ms in 100 s, each
    out = run(stream(1200, rate=rate, jitter=0.001), tolerance_s=0.015)
    assert len(out.usable) >= 1199
    assert mixed(out) == 0
    assert out.sync.offsets_s["CAM_BACK"] == pytest.approx(0.0452, abs=0.003)
    assert out.sync.relearned == 0


def test_a_camera_that_slips_by_whole_periods_keeps_pairing() -> None:
    out = run(stream(1200, rate={"CAM_BACK": 1.001}, jitter=0.001))
    assert len(out.usable) >= 1195
    assert max(s.spread_s for s in out.usable) < PERIOD


def test_phase_step_is_relearned_within_a_second() -> None:
    events = sorted(
        (
            t + 0.04 * (c == "CAM_BACK" and k >= 100),
            c,
            s + 40_000_000 * (c == "CAM_BACK" and k >= 100),
            k,
        )
        for t, c, s, k in stream()
    )
    out = run(events)
    assert 240 - 12 <= len(out.usable) < 240
    assert mixed(out) == 0
    assert out.sync.relearned == 1


def test_bursts_after_a_stalled_transport() -> None:
    def arrival(t: float, cycle: int) -> float:
        return max(t, (cycle // 6 + 1) * 6 * PERIOD) if (cycle // 6) % 4 == 0 else t

    events = [(arrival(t, cycle), c, s, cycle) for t, c, s, cycle in stream()]
    out = run(sorted(events, key=lambda event: event[0]))
    assert len(out.usable) == 240
    assert mixed(out) == 0


def test_one_camera_in_bursts() -> None:
    """Three images of one camera come at once, the others as they should."""
    events = sorted(
        (t + (2 - k % 3) * PERIOD if c == "CAM_BACK" else t, c, s, k) for t, c, s, k in stream()
    )
    out = run(events, policy="mask", deadline_s=0.065)
    assert len(out.usable) == 240
    assert mixed(out) == 0
    assert out.sync.counts["late"] >= 158  # two of three come after the deadline


def test_duplicates_are_dropped() -> None:
    out = run([event for event in stream() for _ in range(1 + (event[3] % 7 == 0))])
    assert len(out.usable) == 240
    assert out.sync.counts["duplicate"] == 6 * 35


def test_late_and_reordered_frames_join_no_other_set() -> None:
    rng = random.Random(1)
    events = sorted((t + rng.random() * 0.15, c, s, k) for t, c, s, k in stream())
    out = run(events, policy="mask", min_cameras=2)
    assert mixed(out) == 0
    counts = out.sync.counts
    placed = sum(len(s.frames) for s in out.sets)
    assert counts["received"] == placed + counts["late"] + counts["unmatched"]
    assert counts["late"] > 0


def test_two_cameras_at_half_the_rate() -> None:
    slow = ("CAM_BACK", "CAM_BACK_LEFT")
    out = run(stream(lost=lambda camera, cycle: camera in slow and cycle % 2 == 1), policy="mask")
    assert len(out.usable) == 240
    assert out.sync.counts["complete"] == 120
    assert mixed(out) == 0


def test_two_cameras_at_double_rate() -> None:
    extra = [
        (t + PERIOD / 2, c, s + round(PERIOD / 2 * 1e9), -1)
        for t, c, s, _ in stream()
        if c in ("CAM_BACK", "CAM_BACK_LEFT")
    ]
    out = run(sorted(stream() + extra), policy="mask", min_cameras=2)
    assert sum(not s.missing for s in out.usable) >= 239
    assert len(out.usable) == len([s for s in out.usable if not s.missing])
    assert out.sync.counts["unmatched"] >= 470


def test_given_offsets_need_no_learning() -> None:
    out = run(stream(), offsets_s=PHASE)
    assert len(out.usable) == 240
    assert out.usable[0].waited_s == pytest.approx(0.0426, abs=1e-6)
    assert out.sync.offsets_s == pytest.approx(PHASE)


def test_wrong_offsets_show_why_they_are_not_optional() -> None:
    """Without offsets the tolerance of one set reaches into the next cycle's images."""
    out = run(stream(), offsets_s=dict.fromkeys(CAMERAS, 0.0), tolerance_s=0.02)
    assert len(out.usable) == 0


def test_deadline_closes_a_set_without_another_message() -> None:
    events = stream(4)[:-1]
    sync = Synchronizer[int](
        SyncOptions(CAMERAS, "CAM_FRONT", deadline_s=0.065, policy="mask", offsets_s=PHASE)
    )
    for arrival, camera, stamp, cycle in events:
        sync.add(camera, stamp, cycle, arrival)
    due = sync.next_deadline_s()
    assert due == pytest.approx(3 * PERIOD + TRANSPORT + 0.065)
    assert due is not None
    assert sync.poll(due - 1e-4) == []
    (late,) = sync.poll(due)
    assert late.missing == ("CAM_BACK_LEFT",)
    assert sync.next_deadline_s() is None


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_order_of_events_keeps_the_books(data: st.DataObject) -> None:
    """Random stamps in random order: no crash, nothing kept for ever, every frame accounted for."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    sync = Synchronizer[int](
        SyncOptions(cameras=CAMERAS, anchor="CAM_FRONT", policy=rng.choice(["skip", "mask"]))
    )
    now, t, sets = 0.0, 0.0, []
    for k in range(400):
        now += rng.choice([0.0, 0.01, 0.3])
        t += rng.choice([0.0, 0.01, 0.1, -0.05, 3.0, -3.0])
        sets += sync.add(rng.choice(CAMERAS), EPOCH_NS + round(t * 1e9), k, now).sets
        if rng.random() < 0.1:
            sets += sync.poll(now)
        if rng.random() < 0.01:
            sync.relearn_offsets()
    for result in sets:
        cycles = [f.stamp_ns / 1e9 for f in result.frames.values()]
        assert max(cycles) - min(cycles) < 1.1
        items = [f.item for f in result.frames.values()]
        assert len(set(items)) == len(items)
    assert sync.counts["received"] == 400


@pytest.mark.long
def test_a_million_events_mix_nothing_and_leave_nothing_behind() -> None:
    """Half a day of six cameras with loss, doubles, jitter, lateness and pauses."""
    rng = random.Random(11)
    sync = Synchronizer[int](
        SyncOptions(cameras=CAMERAS, anchor="CAM_FRONT", policy="mask", offsets_s=PHASE)
    )
    received, usable, most_kept = 0, 0, 0
    shift = 0.0
    for cycle in range(166_700):
        if rng.random() < 1e-4:
            shift += rng.choice((0.5, 5.0, -2.0))  # the vehicle pauses, or a bag begins anew
        start = cycle * PERIOD + shift
        events = []
        for camera, phase in PHASE.items():
            if rng.random() < 0.05:
                continue
            stamp = start + phase + rng.gauss(0, 0.002)
            late = TRANSPORT + (0.2 if rng.random() < 0.01 else 0.01 * rng.random())
            for _ in range(2 if rng.random() < 0.06 else 1):
                events.append((cycle * PERIOD + phase + late, camera, stamp))
        for arrival, camera, stamp in sorted(events):
            received += 1
            for found in sync.add(camera, EPOCH_NS + round(stamp * 1e9), cycle, arrival).sets:
                assert len({frame.item for frame in found.frames.values()}) == 1
                usable += found.usable
        for found in sync.poll(cycle * PERIOD):
            assert len({frame.item for frame in found.frames.values()}) == 1
            usable += found.usable
        if cycle % 1000 == 0:
            most_kept = max(most_kept, len(pickle.dumps(sync)))
    assert received > 990_000
    assert most_kept < 100_000, "bytes that the synchronizer keeps"
    assert sync.counts["received"] == received
    assert usable > 0.9 * 166_700


@given(
    cycles=st.integers(1, 4),
    frozen=st.booleans(),
    step_s=st.sampled_from((-3600.0, 0.0, 1.0, 5.0, 3600.0, 1.7e9)),
    pause_s=st.sampled_from((0.0, 3.0, 60.0)),
    period_s=st.sampled_from((0.05, 0.2, 0.5)),
)
def test_a_clock_that_is_set_after_few_images_costs_few_sets(
    cycles: int, frozen: bool, step_s: float, pause_s: float, period_s: float
) -> None:
    """As when a machine starts in 1970 and is told the time then, or a bag is paused."""
    events: list[Event] = []
    for cycle in range(cycles + 25):
        stepped = cycle >= cycles
        begin_s = 100.0 + cycle * period_s + stepped * pause_s
        for camera in sorted(CAMERAS, key=PHASE.__getitem__):
            arrival_s = begin_s + PHASE[camera] * period_s / 0.2
            stamp_s = arrival_s + stepped * step_s
            if frozen and not stepped:
                stamp_s = 5.0
            events.append((arrival_s, camera, round((stamp_s + 1e5) * 1e9), cycle))
    told = feed(events, 3.0).usable
    assert all(len({frame.item for frame in found.frames.values()}) == 1 for found in told)
    late = {next(iter(found.frames.values())).item for found in told if not found.missing}
    assert set(range(cycles + 4, cycles + 25)) <= late
