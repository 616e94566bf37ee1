# SPDX-License-Identifier: Apache-2.0
"""What is wrong for longer than a moment: clocks, cameras without sets, an empty history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from labeldistill_ros.messages import values_of
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.limits import Limits
from labeldistill_ros.sets.report import SetReport

CAMERAS = ("LEFT", "MIDDLE", "RIGHT")
LIMITS = Limits(camera_timeout_s=0.5, max_processing_time_s=0.1, max_delay_s=1.0)
MODEL = {"name": "tiny", "sha256": "abc", "device": "cpu", "precision": "float32", "history": 2}
WARN, OK, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.OK, DiagnosticStatus.ERROR


@pytest.fixture
def health() -> Health:
    return Health({c: f"/{c.lower()}" for c in CAMERAS}, LIMITS, lambda: MODEL)


def drive(
    health: Health,
    until_s: float,
    *,
    period_s: float = 0.1,
    ahead_s: Mapping[str, float] | None = None,
    disagreeing_s: Mapping[str, float] | None = None,
    absent: Mapping[str, int] | None = None,
    clock: str = "",
) -> dict[str, str]:
    """Images of all cameras from time 0 on, looked at after each cycle."""
    told: dict[str, str] = {}
    for k in range(1 + round(until_s / period_s)):
        now_s = k * period_s
        for camera in CAMERAS:
            health.image(camera, now_s, ahead_s=(ahead_s or {}).get(camera, -0.05))
        told = health.watch(
            now_s, disagreeing_s=disagreeing_s or {}, absent=absent or {}, clock=clock
        )
    return told


def status(health: Health, name: str, now_s: float) -> Any:
    found = health.diagnostics("detector", {}, {}, now_s)
    return next(s for s in found if s.name == f"detector: {name}")


def processed(stamp_s: float, history_valid: int = 0, pose: str = "") -> SetReport:
    stamp_ns = round(stamp_s * 1e9)
    return SetReport(stamp_ns, "processed", CAMERAS, (), history_valid=history_valid, pose=pose)


def test_a_given_offset_is_among_the_reasons_why_a_camera_is_in_no_set(health: Health) -> None:
    (told,) = drive(health, 4.0, absent={"LEFT": 40}).values()
    assert "LEFT: its images come, but no set gets one" in told
    assert "cameras.LEFT.time_offset" in told


def test_a_camera_ahead_of_the_others_is_told_with_its_seconds(health: Health) -> None:
    told = drive(health, 4.0, disagreeing_s={"LEFT": 0.2, "RIGHT": -0.31})
    ahead = "LEFT: its stamps run 0.20 s ahead of the others': set its clock or look at its delay"
    behind = "RIGHT: its stamps run 0.31 s behind the others': set its clock or look at its delay"
    assert list(told.values()) == [ahead, behind]
    camera = status(health, "camera LEFT", 4.0)
    assert (camera.level, camera.message) == (WARN, ahead)
    assert status(health, "camera MIDDLE", 4.0).level == OK
    (own,) = health.set_status(processed(4.0), "detector").status
    assert own.level == WARN
    assert values_of(own)["warnings"] == f"{ahead}; {behind}"


def test_what_passes_within_three_seconds_is_not_told(health: Health) -> None:
    assert drive(health, 2.5, disagreeing_s={"LEFT": 0.2}) == {}
    assert drive(health, 0.5) == {}
    assert status(health, "camera LEFT", 0.5).level == OK
    (own,) = health.set_status(processed(4.0), "detector").status
    assert (own.level, values_of(own)["warnings"]) == (OK, "")


def test_a_camera_whose_images_join_no_set_is_told(health: Health) -> None:
    assert drive(health, 4.0, absent={"LEFT": 9}) == {}
    told = drive(health, 4.0, absent={"LEFT": 40})
    assert [t.partition(":")[0] for t in told.values()] == ["LEFT"]
    assert "no set gets one" in status(health, "camera LEFT", 4.0).message


def test_a_camera_that_is_silent_is_not_blamed_for_its_stamps(health: Health) -> None:
    drive(health, 4.0)
    for k in range(50):
        for camera in ("MIDDLE", "RIGHT"):
            health.image(camera, 4.0 + k / 10)
        told = health.watch(4.0 + k / 10, disagreeing_s={}, absent={"LEFT": 10 + k})
    assert told == {}


@pytest.mark.parametrize(
    ("ahead_s", "words"), [(86400.4, "86400 s ahead of"), (-86400.4, "86400 s behind")]
)
def test_stamps_of_another_day_are_one_sentence(health: Health, ahead_s: float, words: str) -> None:
    delays_s = {"LEFT": 0.0, "MIDDLE": -0.3, "RIGHT": 0.2}
    told = drive(health, 4.0, ahead_s={c: ahead_s + s for c, s in delays_s.items()})
    (text,) = told.values()
    assert text.startswith(f"LEFT, MIDDLE, RIGHT: its stamps are {words} this node's clock")
    clock = status(health, "clock", 4.0)
    assert (clock.level, clock.message) == (WARN, text)


def test_one_camera_of_another_time_is_named(health: Health) -> None:
    (text,) = drive(health, 4.0, ahead_s={"MIDDLE": -7.0}).values()
    assert text.startswith("MIDDLE: its stamps are 7 s behind")


def test_stamps_are_compared_anew_after_a_jump_of_time(health: Health) -> None:
    assert drive(health, 4.0, ahead_s=dict.fromkeys(CAMERAS, 100.0))
    health.time_jumped()
    assert drive(health, 1.0) == {}
    assert status(health, "clock", 1.0).level == OK


def test_a_clock_that_does_not_run_is_told_while_images_come(health: Health) -> None:
    assert health.watch(0.0, disagreeing_s={}, absent={}, clock="no /clock") == {}
    assert list(drive(health, 4.0, clock="no /clock").values()) == ["no /clock"]
    assert status(health, "clock", 4.0).message == "no /clock"


@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        ("unknown", "the vehicle's pose is unknown: no frame map"),
        ("", "the past is dropped again and again: calibration changed"),
    ],
)
def test_a_history_that_stays_empty_is_a_warning_with_its_reason(
    health: Health, pose: str, reason: str
) -> None:
    if pose:
        health.transform_failed("no frame map", 0.0)
    for k in range(20):
        health.done(processed(0.5 * k, pose=pose), 0.5 * k)
        if not pose:
            health.forgotten("calibration changed", 0.5 * k)
        health.watch(0.5 * k, disagreeing_s={}, absent={})
    history = status(health, "history", 9.5)
    assert history.level == WARN
    assert history.message == f"no past frame has been used for 5 s and more: {reason}"
    health.done(processed(10.0, history_valid=1), 10.0)
    health.watch(10.0, disagreeing_s={}, absent={})
    assert status(health, "history", 10.0).level == OK


def test_a_history_that_fills_only_in_part_is_a_warning(health: Health) -> None:
    for half_seconds in range(20):
        health.done(processed(half_seconds / 2, history_valid=1), half_seconds / 2)
        told = health.watch(half_seconds / 2, disagreeing_s={}, absent={})
    history = status(health, "history", 9.5)
    assert history.level == WARN
    assert history.message.startswith(
        "no more than 1 of 2 past frames are used all the time: no set is as old as the model wants"
    )
    assert list(told.values()) == [history.message]
    health.done(processed(10.0, history_valid=2), 10.0)
    health.watch(10.0, disagreeing_s={}, absent={})
    assert status(health, "history", 10.0).level == OK


def test_a_history_that_is_dropped_before_it_is_full_is_a_warning(health: Health) -> None:
    for half_seconds in range(20):
        now_s = half_seconds / 2
        health.forgotten("the stamps jumped", now_s)
        health.done(processed(now_s, history_valid=half_seconds % 2), now_s)
        health.watch(now_s, disagreeing_s={}, absent={})
    history = status(health, "history", 9.5)
    assert history.level == WARN
    assert history.message == (
        "no more than 1 of 2 past frames are used all the time: the past is dropped again and "
        "again: the stamps jumped"
    )


def test_a_history_that_starts_again_is_given_time(health: Health) -> None:
    """Stamps that go back, as of a bag that is played again, begin a new start."""
    for second in [*range(100, 110), *range(4)]:
        health.done(processed(second), float(second))
        health.watch(float(second), disagreeing_s={}, absent={})
    assert status(health, "history", 4.0).level == OK


def test_an_empty_history_at_the_start_is_none(health: Health) -> None:
    for k in range(9):
        health.done(processed(0.5 * k), 0.5 * k)
        health.watch(0.5 * k, disagreeing_s={}, absent={})
    assert status(health, "history", 4.0).level == OK


def test_the_time_out_is_never_shorter_than_two_and_a_half_periods(health: Health) -> None:
    drive(health, 4.0, period_s=0.5)
    assert health.silent_cameras(5.2) == []
    assert status(health, "camera LEFT", 5.2).level == OK
    assert health.silent_cameras(5.3) == list(CAMERAS)
    assert status(health, "camera LEFT", 5.3).level == ERROR


def test_cameras_that_stop_within_a_cycle_of_each_other_are_not_accused(health: Health) -> None:
    assert health.outlived_cameras(0.0) == list(CAMERAS)  # never sent
    drive(health, 4.0, period_s=0.5)
    health.image("LEFT", 4.05)
    # The others are overdue and LEFT not yet: that is how a bag ends.
    others = [name for name in CAMERAS if name != "LEFT"]
    assert health.silent_cameras(5.28) == others
    assert health.outlived_cameras(5.28) == []
    # LEFT goes on, so that the others have indeed stopped.
    for k in range(1, 5):
        health.image("LEFT", 4.05 + 0.5 * k)
    assert health.outlived_cameras(6.1) == others


def test_cameras_that_stop_together_rest(health: Health) -> None:
    assert not health.cameras_rest(0.0)
    drive(health, 4.0)
    assert not health.cameras_rest(4.4)
    assert health.cameras_rest(4.6)
    health.image("LEFT", 4.7)
    assert not health.cameras_rest(4.8)


def test_a_second_node_of_the_same_name_is_told(health: Health) -> None:
    twin = "2 publishers are on /detector/detections"
    for now_s in (0.0, 1.0, 4.0):
        lines = health.watch(now_s, disagreeing_s={}, absent={}, twin=twin)
    assert lines == {"twin/0": twin}
    statuses = health.diagnostics("detector", {}, {}, 4.0)
    (status,) = [status for status in statuses if status.name == "detector: processing"]
    assert (status.level, status.message) == (WARN, twin)
    assert not health.watch(5.0, disagreeing_s={}, absent={})
