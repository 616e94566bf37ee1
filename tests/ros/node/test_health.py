# SPDX-License-Identifier: Apache-2.0
"""Counters, latencies and the levels of /diagnostics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from labeldistill_core.cameras import CameraCalibration, CameraView, FrameSet
from labeldistill_core.frames import Transform
from labeldistill_ros.messages import values_of
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.limits import Limits
from labeldistill_ros.sets.assembly import Problem
from labeldistill_ros.sets.report import SetReport

LIMITS = Limits(camera_timeout_s=0.5, max_processing_time_s=0.1, max_delay_s=1.0)
MODEL = {"name": "tiny", "sha256": "abc", "device": "cpu", "precision": "float32", "history": 2}


@pytest.fixture
def health() -> Health:
    return Health({"LEFT": "/left", "RIGHT": "/right"}, LIMITS, lambda: MODEL)


def report(total_ms: float = 50.0, missing: tuple[str, ...] = ()) -> SetReport:
    return SetReport(
        0, "processed", ("LEFT",), missing, history_valid=1, timings_ms={"total": total_ms}
    )


def statuses(health: Health, now_s: float, offset_s: float = 0.0) -> dict[str, DiagnosticStatus]:
    sync = {"complete": 3, "anchor": "LEFT"}
    found = health.diagnostics("detector", sync, {"LEFT": offset_s}, now_s)
    return {status.name.removeprefix("detector: "): status for status in found}


def drive(health: Health, camera: str, begin_s: float, end_s: float) -> None:
    """Ten images a second."""
    for k in range(round((end_s - begin_s) * 10) + 1):
        health.image(camera, begin_s + k / 10)


def test_rate_age_and_silence_of_cameras(health: Health) -> None:
    for k in range(11):
        health.image("LEFT", 10 + k / 10)
    now = statuses(health, 11.1)
    left = values_of(now["camera LEFT"])
    assert now["camera LEFT"].level == DiagnosticStatus.OK
    assert float(left["rate_hz"]) == pytest.approx(10.0)
    assert float(left["age_ms"]) == pytest.approx(100.0)
    assert now["camera RIGHT"].level == DiagnosticStatus.ERROR
    assert now["camera RIGHT"].message == "no image has come on /right"
    assert health.silent_cameras(11.1) == ["RIGHT"]
    assert statuses(health, 11.6)["camera LEFT"].message == "no image for 0.6 s on /left"
    assert health.silent_cameras(11.6) == ["LEFT", "RIGHT"]


def test_slow_cameras_without_boxes_are_an_error(health: Health) -> None:
    worst = {}
    for k in range(48):
        now_s = 100.0 + 1.25 * k
        health.image("LEFT", now_s)
        health.done(SetReport(0, "refused", ("LEFT",), (), "camera_info"), now_s)
        for later_s in (0.1, 0.6, 1.1):
            processing = statuses(health, now_s + later_s)["processing"]
            worst[processing.level] = processing.message
    assert worst[DiagnosticStatus.ERROR] == "no boxes for 58.6 s"


def test_slow_cameras_with_boxes_are_none(health: Health) -> None:
    for k in range(20):
        now_s = 100.0 + 1.25 * k
        health.image("LEFT", now_s)
        health.done(report(), now_s)
        # the set of one cycle may be lost
        if k > 2:
            assert statuses(health, now_s + 1.2)["processing"].level == DiagnosticStatus.OK


def test_one_slow_camera_does_not_hide_that_boxes_are_missed() -> None:
    health = Health({name: name for name in "ABCDEF"}, LIMITS, lambda: MODEL)
    for k in range(1200):
        now_s = 100.0 + k / 10
        for name in "ABCDE":
            health.image(name, now_s)
        if k % 200 == 0:
            health.image("F", now_s)
        if now_s <= 180.0:
            health.done(report(), now_s)
    assert statuses(health, 181.9)["processing"].message.startswith("no boxes for 1.9 s")


def test_images_without_any_set_are_told(health: Health) -> None:
    drive(health, "LEFT", 10.0, 14.0)
    assert statuses(health, 14.0)["sync"].message == "no set yet"
    drive(health, "LEFT", 14.1, 40.0)
    told = statuses(health, 40.0)["sync"]
    assert (told.level, told.message) == (DiagnosticStatus.WARN, "no set for 30.0 s")


def test_what_was_not_looked_at_is_not_called_complete(health: Health) -> None:
    assert statuses(health, 10.0)["sync"].message == "no set yet"
    health.image("LEFT", 10.0)
    health.done(SetReport(0, "idle", ("LEFT",), (), "nobody listens"), 10.0)
    assert statuses(health, 10.1)["transforms"].message == "not looked up yet"
    health.used(FrameSet(0, ()))
    assert statuses(health, 10.1)["transforms"].message == "complete"


def test_a_set_of_long_ago_says_nothing_of_now(health: Health) -> None:
    health.image("LEFT", 10.0)
    health.done(report(), 10.0)
    assert statuses(health, 10.1)["sync"].message == "complete sets"
    rested = statuses(health, 70.0)["sync"]
    assert (rested.level, rested.message) == (DiagnosticStatus.OK, "no set for 60.0 s")
    drive(health, "LEFT", 70.0, 76.0)
    told = statuses(health, 76.0)["sync"]
    assert (told.level, told.message) == (DiagnosticStatus.WARN, "no set for 6.0 s")


def test_images_of_one_time_have_no_rate(health: Health) -> None:
    """As in a bag whose converter wrote one log time."""
    for _ in range(3):
        health.image("LEFT", 7.0)
    assert values_of(statuses(health, 7.0)["camera LEFT"])["rate_hz"] == "0.000"


def test_what_a_camera_sends_is_told(health: Health) -> None:
    health.image("LEFT", 10.0, "bgr8", "left_optical_frame")
    calibration = CameraCalibration(
        "LEFT", np.eye(3), 8, 6, Transform("ego", "LEFT", np.eye(3), np.zeros(3))
    )
    pixels = np.zeros((6, 8, 3), np.uint8)
    view = CameraView(calibration, 0, pixels, Transform.identity("map", "ego"))
    health.used(FrameSet(0, (view,)))
    left = values_of(statuses(health, 10.1)["camera LEFT"])
    assert (left["encoding"], left["frame"]) == ("bgr8", "left_optical_frame")
    assert left["size"] == "8 x 6"


def test_texts_of_a_camera_are_told_cut_and_escaped(health: Health) -> None:
    health.image("LEFT", 10.0, "jpeg" * 10_000, "left\nframe")
    values = values_of(statuses(health, 10.0)["camera LEFT"])
    assert len(values["encoding"]) <= 200
    assert values["frame"] == r"left\nframe"


def test_a_phase_that_moves_is_a_warning_for_a_while(health: Health) -> None:
    for now_s, offset_s in ((10.0, 0.010), (10.5, 0.012), (11.0, 0.030)):
        health.image("LEFT", now_s)
        camera = statuses(health, now_s, offset_s)["camera LEFT"]
    assert (camera.level, camera.message) == (
        DiagnosticStatus.WARN,
        "its phase moved by 20 ms",
    )
    health.image("LEFT", 17.0)
    assert statuses(health, 17.0, 0.030)["camera LEFT"].level == DiagnosticStatus.OK


def test_problems_of_a_camera_fade(health: Health) -> None:
    health.image("LEFT", 10.0)
    health.problems([Problem("LEFT", "image", "LEFT: corrupt")], 10.0)
    camera = statuses(health, 10.1)["camera LEFT"]
    assert (camera.level, camera.message) == (DiagnosticStatus.ERROR, "LEFT: corrupt")
    health.image("LEFT", 16.0)
    camera = statuses(health, 16.1)["camera LEFT"]
    assert camera.level == DiagnosticStatus.OK
    assert values_of(camera)["refused_image"] == "1"


def test_every_set_is_counted_once(health: Health) -> None:
    health.done(report(), 1.0)
    health.done(SetReport(0, "refused", (), (), "image"), 2.0)
    health.done(SetReport(0, "dropped", (), ()), 3.0)
    assert health.counts["seen"] == 3
    assert health.counts["refused/image"] == 1
    totals = values_of(health.set_status(report(), "detector").status[0])
    assert [totals[f"sets_{k}"] for k in ("seen", "processed", "dropped", "refused")] == list(
        "3111"
    )


def test_processing_levels(health: Health) -> None:
    assert statuses(health, 0.0)["processing"].message == "no set yet"
    for k in range(100):
        health.done(report(total_ms=k), 10.0)
    assert health.latencies_ms()["total"] == pytest.approx((49.5, 94.05))
    assert statuses(health, 10.1)["processing"].level == DiagnosticStatus.OK
    for _ in range(100):
        health.done(report(total_ms=150), 10.0)
    slow = statuses(health, 10.1)["processing"]
    assert slow.level == DiagnosticStatus.WARN
    assert slow.message == "150 ms for 95 of 100 sets, allowed 100 ms"
    drive(health, "LEFT", 10.0, 11.8)
    late = statuses(health, 12.1)["processing"]
    assert (late.level, late.message) == (DiagnosticStatus.ERROR, "no boxes for 2.1 s")
    health.given_up = "RuntimeError: x"
    assert statuses(health, 12.1)["processing"].message.endswith("given up: RuntimeError: x")


def test_boxes_are_missed_while_images_come_and_somebody_waits(health: Health) -> None:
    def level(now_s: float) -> object:
        return statuses(health, now_s)["processing"].level

    drive(health, "LEFT", 5.0, 6.4)
    assert statuses(health, 6.5)["processing"].message == "no boxes for 1.5 s"
    health.unwanted(6.6)
    assert level(6.9) == DiagnosticStatus.OK
    # after a rest of the cameras the time begins anew
    health.image("LEFT", 60.0)
    assert level(60.1) == DiagnosticStatus.OK
    health.image("RIGHT", 60.9)
    assert level(61.2) == DiagnosticStatus.ERROR


def test_boxes_are_not_missed_where_max_rate_lets_few_sets_pass(health: Health) -> None:
    def level(now_s: float) -> object:
        found = health.diagnostics("detector", {}, {}, now_s, period_s=2.0)
        return next(s.level for s in found if s.name.endswith("processing"))

    health.done(report(), 10.0)
    for now_s in (10.5, 11.0, 11.5, 12.0, 12.5, 13.0, 13.5, 14.0):
        health.image("LEFT", now_s)
        assert level(now_s) == DiagnosticStatus.OK
    assert level(14.6) == DiagnosticStatus.ERROR


def test_unusable_boxes_are_counted(health: Health) -> None:
    for _ in range(2):
        health.done(replace(report(), unusable=3), 1.0)
    assert values_of(statuses(health, 1.0)["processing"])["boxes_unusable"] == "6"
    told = health.set_status(replace(report(), unusable=3), "detector").status[0]
    assert values_of(told)["boxes_unusable"] == "3"


def test_degraded_sets_and_transforms_are_told(health: Health) -> None:
    health.done(report(missing=("RIGHT",)), 1.0)
    now = statuses(health, 1.0)
    assert (now["sync"].level, now["sync"].message) == (DiagnosticStatus.WARN, "without RIGHT")
    assert now["transforms"].level == DiagnosticStatus.OK
    health.transform_failed("no frame map", 2.0)
    failed = statuses(health, 2.5)["transforms"]
    assert (failed.level, failed.message) == (DiagnosticStatus.ERROR, "no frame map")
    assert statuses(health, 9.0)["transforms"].level == DiagnosticStatus.OK


def test_sets_that_lack_a_camera_and_are_dropped_are_no_complete_sets(health: Health) -> None:
    health.done(report(), 1.0)
    assert statuses(health, 1.0)["sync"].message == "complete sets"
    health.done(SetReport(0, "incomplete", ("LEFT",), ("RIGHT",), "missing camera"), 2.0)
    now = statuses(health, 2.0)["sync"]
    assert (now.level, now.message) == (DiagnosticStatus.WARN, "without RIGHT")
    health.done(SetReport(0, "idle", ("LEFT", "RIGHT"), (), "nobody listens"), 3.0)
    assert statuses(health, 3.0)["sync"].message == "complete sets"


def test_model_is_identified(health: Health) -> None:
    now = statuses(health, 0.0)
    assert values_of(now["model"])["sha256"] == "abc"
    assert {status.hardware_id for status in now.values()} == {"detector on cpu"}
    assert statuses(health, 0.0)["history"].message == "0 of 2 past frames"
