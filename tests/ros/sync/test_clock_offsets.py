# SPDX-License-Identifier: Apache-2.0
"""Cameras whose images take longer than others', whose clocks are off, or whose rate is their own.

Stamps say what belongs together. A camera's clock may be off by any time, so whether a set is mixed
is judged by the relation of the cameras' cycles: it has to be the same in every set, and none
between cameras whose clocks agree.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.sync.synchronizer import Synchronizer, SyncOptions
from tests.support.sync_stream import Event, Outcome, feed

EPOCH_NS = 1_600_000_000_000_000_000


@dataclass(frozen=True)
class Rig:
    """Cameras that are triggered together."""

    rate_hz: float = 10.0
    delay_s: Mapping[str, float] = field(default_factory=dict)
    """From the exposure to the arrival, where not 10 ms."""
    clock_s: Mapping[str, float] = field(default_factory=dict)
    """By how much a camera's clock is ahead."""
    loss: float = 0.0
    seconds: float = 10.0
    seed: int = 0

    def events(self) -> list[Event]:
        """Arrival on the steady clock, camera, stamp, cycle."""
        rng = random.Random(self.seed)
        return sorted(
            (
                cycle / self.rate_hz + self.delay_s.get(camera, 0.01),
                camera,
                EPOCH_NS + round((cycle / self.rate_hz + self.clock_s.get(camera, 0.0)) * 1e9),
                cycle,
            )
            for cycle in range(round(self.seconds * self.rate_hz))
            for camera in CAMERAS
            if rng.random() >= self.loss
        )


def shifts_of(outcome: Outcome) -> dict[str, Counter[int]]:
    """Cycles between a camera's image and the first camera's with an undisturbed clock."""
    counts: dict[str, Counter[int]] = {camera: Counter() for camera in CAMERAS}
    for found in outcome.usable:
        anchor = found.frames.get("CAM_FRONT")
        for camera, frame in found.frames.items() if anchor else ():
            counts[camera][frame.item - anchor.item] += 1  # type: ignore[union-attr]
    return counts


def run(events: list[Event], **options: object) -> Outcome:
    outcome = feed(events, 3.0, **options)
    stamps = [found.stamp_ns for found in outcome.sets]
    assert stamps == sorted(stamps), "sets come in order"
    return outcome


seconds = st.floats(0.0, 0.5)


def check_policy(
    rate_hz: float,
    delay_s: dict[str, float],
    clock_s: dict[str, float],
    loss: float,
    policy: str,
    min_cameras: int,
    deadline_s: float | None,
    seed: int,
) -> None:
    rig = Rig(rate_hz, delay_s, clock_s, loss, max(30.0, 300 / rate_hz), seed)
    events = rig.events()
    out = run(events, policy=policy, min_cameras=min_cameras, deadline_s=deadline_s)

    shifts = shifts_of(out)
    usual = {c: max(n, key=n.__getitem__) if n else 0 for c, n in shifts.items()}
    for camera, counts in shifts.items():
        assert len(counts) <= 1, "the relation of two cameras is learned before the first set"
        assert camera in clock_s or set(counts) <= {0}, "images of two cycles in one set"

    present: Counter[int] = Counter(cycle - usual[camera] for _, camera, _, cycle in events)
    needed = len(CAMERAS) if policy == "skip" else min_cameras
    allowed = sum(count >= needed for count in present.values())
    assert len(out.usable) >= 0.95 * allowed


@pytest.mark.parametrize(
    "case",  # in the order of `check_policy`
    [
        (10.0, {}, {"CAM_BACK": 0.2}, 0.0, "mask", 4, 0.065, 0),
        (10.0, {}, {"CAM_BACK": 0.2}, 0.0, "skip", 4, 0.065, 0),
        (10.0, dict.fromkeys(CAMERAS[1:], 0.11), {}, 0.0, "mask", 6, 0.065, 0),
        (12.0, {"CAM_FRONT": 0.5}, {}, 0.1, "mask", 4, None, 0),
    ],
)
def test_the_policy_is_kept_in_known_cases(case: tuple[Any, ...]) -> None:
    check_policy(*case)


@settings(max_examples=20, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(
    rate_hz=st.floats(2.0, 30.0),
    delay_s=st.fixed_dictionaries(dict.fromkeys(CAMERAS, st.just(0.0) | seconds)),
    clock_s=st.dictionaries(st.sampled_from(CAMERAS[2:]), st.floats(-0.45, 0.45), max_size=3),
    loss=st.sampled_from((0.0, 0.01, 0.05, 0.1)),
    policy=st.sampled_from(("skip", "mask")),
    min_cameras=st.integers(3, 6),
    deadline_s=st.sampled_from((None, 0.065)),
    seed=st.integers(0, 1000),
)
def test_the_policy_is_kept_whatever_the_delays_and_clocks(**case: Any) -> None:
    check_policy(**case)


@pytest.mark.parametrize(
    ("rate_hz", "delays_s", "clocks_s"),
    [
        # The last camera's first image comes sixteen cycles after the first one's.
        (16.6, (0.0, 0.48, 0.41, 0.0, 0.39, 0.07), (0.0, 0.0, 0.27, 0.45, 0.0, 0.36)),
        # A clock that is half a period off: both cuts between two cycles are equally tight.
        (25.8, (0.23, 0.29, 0.5, 0.21, 0.11, 0.06), (0.0, 0.0, -0.07, -0.45, -0.0194, 0.0)),
        # Cameras that are compared with one anchor first, and with another then.
        (23.6, (0.47, 0.49, 0.44, 0.08, 0.0, 0.0), (0.0, 0.0, 0.0, 0.32, 0.21, 0.0)),
    ],
)
def test_nothing_is_lost_or_mixed_while_delays_and_clocks_are_learned(
    rate_hz: float, delays_s: tuple[float, ...], clocks_s: tuple[float, ...]
) -> None:
    clocks = {camera: s for camera, s in zip(CAMERAS, clocks_s, strict=True) if s}
    rig = Rig(rate_hz, dict(zip(CAMERAS, delays_s, strict=True)), clocks)
    out = run(rig.events(), policy="skip")
    shift = {camera: next(iter(count)) for camera, count in shifts_of(out).items()}
    cycles = round(rig.seconds * rig.rate_hz) - max(shift.values()) + min(shift.values())
    assert all(len(counts) == 1 for counts in shifts_of(out).values())
    assert len(out.usable) == cycles


def test_lost_images_of_a_late_camera_do_not_end_the_cycles_that_follow() -> None:
    events = [e for e in Rig(delay_s={"CAM_BACK": 0.4}).events() if e[1::2] != ("CAM_BACK", 50)]
    three = [e for e in events if e[1] != "CAM_BACK" or e[3] not in (51, 52)]
    assert len(run(three).usable) == 97


@pytest.mark.parametrize("policy", ["skip", "mask"])
@pytest.mark.parametrize(
    ("rig", "named"),
    [
        (Rig(clock_s={"CAM_BACK": 0.2}), {"CAM_BACK": 0.2}),
        (Rig(clock_s={"CAM_FRONT": -0.3}), {"CAM_FRONT": -0.3}),
        (Rig(delay_s={c: 0.11 for c in CAMERAS if c != "CAM_BACK"}), {"CAM_BACK": 0.1}),
        (Rig(delay_s={"CAM_BACK": 0.36}, rate_hz=30.0), {"CAM_BACK": -0.35}),
        (Rig(delay_s={"CAM_BACK": 0.05}), {}),
    ],
)
def test_a_camera_that_disagrees_is_named_with_its_offset(
    rig: Rig, named: dict[str, float], policy: str
) -> None:
    out = run(rig.events(), policy=policy, deadline_s=0.065)
    cycles = rig.seconds * rig.rate_hz
    assert len(out.sets) >= 0.95 * cycles
    assert len(out.usable) >= 0.93 * cycles
    assert out.sync.disagreeing_s == pytest.approx(named, abs=0.001)


@pytest.mark.parametrize("ahead_s", [-1e8, -20.0, 3.0, 1e8])
@pytest.mark.parametrize("camera", ["CAM_BACK", "CAM_FRONT"])
def test_a_camera_of_another_time_is_left_out_and_named(camera: str, ahead_s: float) -> None:
    rig = Rig(clock_s={camera: ahead_s})
    out = run(rig.events(), policy="mask")
    assert len(out.usable) >= 97
    assert all(found.missing == (camera,) for found in out.usable)
    assert out.sync.disagreeing_s == pytest.approx({camera: ahead_s}, abs=0.001)
    assert out.sync.absent[camera] >= 97
    assert max(found.waited_s for found in out.usable[20:]) < 0.001, "nobody waits for it"
    told = run(rig.events(), policy="skip")
    assert len(told.sets) >= 97
    assert told.usable == []


def test_a_clock_that_is_set_in_mid_drive_is_followed() -> None:
    events = [
        (t, c, s + 5_000_000_000 * (c == "CAM_BACK" and k < 50), k) for t, c, s, k in Rig().events()
    ]
    out = run(events, policy="mask")
    assert len(out.usable) >= 97
    assert all(found.missing == () for found in out.usable[-40:])
    assert out.sync.disagreeing_s == {}


def test_a_joint_jump_of_time_makes_no_camera_suspicious() -> None:
    events = [(t, c, s + 60_000_000_000 * (k >= 50), k) for t, c, s, k in Rig().events()]
    out = run(events)
    assert len(out.usable) >= 98
    assert out.sync.disagreeing_s == {}


@pytest.mark.parametrize("rate_hz", [7.0, 0.3])
def test_a_camera_of_an_unrelated_rate_holds_nobody_up(rate_hz: float) -> None:
    others = [event for event in Rig(rate_hz=12.0).events() if event[1] != "CAM_BACK"]
    own = [event for event in Rig(rate_hz=rate_hz).events() if event[1] == "CAM_BACK"]
    out = run(sorted(others + own), policy="mask")
    assert len(out.usable) >= 0.95 * 120
    assert max(found.waited_s for found in out.usable[40:]) < 0.3


@pytest.mark.parametrize("speed", [0.1, 0.5, 4.0])
def test_delays_and_clocks_at_another_playback_rate(speed: float) -> None:
    """What a bag that is played slowly or fast makes of the arrivals."""
    rig = Rig(delay_s={"CAM_BACK": 0.3}, seconds=20.0)
    out = run([(t / speed, c, s, k) for t, c, s, k in rig.events()])
    assert len(out.usable) >= 0.95 * 200
    assert out.sync.disagreeing_s == pytest.approx({"CAM_BACK": -0.29}, abs=0.01)


@pytest.mark.parametrize("speed", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("deadline_s", [None, 0.2])
@pytest.mark.parametrize("policy", ["skip", "mask"])
def test_the_deadline_stretches_with_a_slow_playback(
    speed: float, deadline_s: float | None, policy: str
) -> None:
    """Images that come within the deadline by the bag's time do so at any speed."""
    rng = random.Random(2)
    rig = Rig(rate_hz=5.0, delay_s={"CAM_BACK": 0.05}, seconds=32.0)
    late_s = {k: 0.1 + 0.04 * rng.random() for k in range(0, 160, 4)}
    events = sorted(
        ((t + late_s.get(k, 0.0) * (c == "CAM_BACK")) / speed, c, s, k)
        for t, c, s, k in rig.events()
    )
    out = run(events, policy=policy, deadline_s=deadline_s)
    assert sum(found.missing == () for found in out.usable) == 160
    slow = min(speed, 1.0)
    expected_s = deadline_s / slow if deadline_s else min(2.4 / 5.0 / speed, 0.25 / slow)
    assert out.sync.deadline_s == pytest.approx(expected_s, rel=0.15)


@pytest.mark.parametrize(("rate_hz", "deadline_s"), [(12.0, 0.2), (30.0, 0.08), (2.0, 0.25)])
def test_the_deadline_follows_the_period_where_none_is_given(
    rate_hz: float, deadline_s: float
) -> None:
    assert run(Rig(rate_hz).events()).sync.deadline_s == pytest.approx(deadline_s, abs=1e-3)
    assert run(Rig(rate_hz).events(), deadline_s=0.065).sync.deadline_s == 0.065


def test_a_tolerance_beyond_half_a_period_mixes_nothing() -> None:
    events = Rig(rate_hz=30.0, loss=0.1, seconds=20.0).events()
    out = run(events, policy="mask", tolerance_s=0.5)
    assert all(len({f.item for f in found.frames.values()}) == 1 for found in out.usable[30:])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_values_that_are_no_number_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="offset of CAM_BACK"):
        SyncOptions(CAMERAS, "CAM_FRONT", offsets_s={"CAM_BACK": bad})
    with pytest.raises(ValueError, match="must be positive seconds"):
        SyncOptions(CAMERAS, "CAM_FRONT", deadline_s=bad)


@pytest.mark.parametrize("max_age_s", [0.3, 0.5, 2.0, 10.0])
def test_a_single_cycle_is_a_set(max_age_s: float) -> None:
    """A bag may hold no more than one; when all cameras count as dead, it is still there."""
    cameras = ("left", "front", "right")
    synchronizer = Synchronizer[None](
        SyncOptions(cameras, anchor="front", min_cameras=3, max_age_s=max_age_s)
    )
    sets = []
    for number, camera in enumerate(cameras):
        at_s = 0.015 * number
        sets += synchronizer.add(camera, 10**18 + round(at_s * 1e9), None, at_s).sets
    for tick in range(1, 2000):
        sets += synchronizer.poll(0.03 + 0.01 * tick)
    assert [set(found.frames) for found in sets] == [set(cameras)]
    assert not synchronizer.counts["unmatched"]
