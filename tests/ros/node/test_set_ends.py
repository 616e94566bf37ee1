# SPDX-License-Identifier: Apache-2.0
"""Whatever a set meets, its end is told in `~/status` and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from labeldistill_core.runtime.detector import Detections
from labeldistill_ros.node.processing import MAX_FAILURES
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.sets.assembly import Assembler, SetError
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT
from tests.support.ros_fixtures import turn_away

Start = Callable[..., RunningNode]


def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault of ours")


def warm(vehicle: Vehicle) -> int:
    vehicle.connect()
    vehicle.drive(range(4))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "a first set")
    return 4


@pytest.mark.parametrize("place", ["assembling", "on_result", "publishing"])
def test_an_error_of_ours_is_told_and_counted(
    vehicle: Vehicle,
    detector: Start,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    node = detector(**PATIENT, **{"diagnostics.period": 0.1})
    n = warm(vehicle)
    if place == "assembling":
        monkeypatch.setattr(Assembler, "assemble", broken)
    elif place == "publishing":
        monkeypatch.setattr(Outputs, "boxes", broken)
    else:
        monkeypatch.setattr(node, "results", None)  # AttributeError in the callback
    vehicle.sets.clear()

    def failed() -> list[dict[str, str]]:
        return [s for s in vehicle.sets if s["outcome"] == "failed"]

    # one more than it takes to give a detector up
    n = vehicle.drive_until(lambda: len(failed()) > MAX_FAILURES, n, settle_s=0.3)
    cause = "AttributeError" if place == "on_result" else "KeyError"
    found = failed()[: MAX_FAILURES + 1]
    assert [s["cause"] for s in found] == [cause] * 4
    assert [s["sets_failed"] for s in found] == ["1", "2", "3", "4"]
    assert [s["sets_unforeseen"] for s in found] == ["1", "2", "3", "4"]
    told = capfd.readouterr().err
    assert "set dropped, it could not be processed" in told
    assert "Traceback" in told  # a fault of ours can be found
    # It is an ERROR, by the exit code as well, and says nothing of the detector.
    vehicle.expect(lambda: vehicle.diagnostic("processing").level == b"\2", "an ERROR")
    processing = vehicle.diagnostic("processing")
    assert processing.message.startswith(f"failed unforeseen: {cause}")
    assert "given up" not in told
    assert node.node.session is not None
    assert node.node.session.failed
    monkeypatch.undo()
    vehicle.boxes.clear()
    vehicle.drive_until(lambda: vehicle.boxes, n)


def test_two_errors_are_forgotten_after_a_good_set(
    vehicle: Vehicle, detector: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = detector(**PATIENT)
    n = warm(vehicle)
    detect, left = node.detector.detect, [2, 0, 2]

    def sometimes(*args: Any, **kwargs: Any) -> Detections:
        if left and left[0]:
            left[0] -= 1
            raise RuntimeError("CUDA error: device busy")
        left[:] = left[1:]
        return detect(*args, **kwargs)

    monkeypatch.setattr(node.detector, "detect", sometimes)
    vehicle.sets.clear()
    vehicle.drive_until(lambda: not left and vehicle.outcomes()[-1:] == ["processed"], n)
    assert vehicle.outcomes().count("failed") == 4
    assert node.node.session is not None


def test_parameters_hold_before_the_first_set(vehicle: Vehicle, detector: Start) -> None:
    """The first image is decoded ahead, and the first set detected, though nobody listens."""
    node = detector(detect_without_listeners=True)
    vehicle.connect()
    turn_away(vehicle)
    session = node.node.session
    assert session is not None
    assert session.wanted
    time.sleep(0.3)
    vehicle.drive(range(4))
    vehicle.expect(lambda: vehicle.sets, "a set")
    assert set(vehicle.outcomes()) == {"processed"}


def test_a_parameter_that_changes_holds_from_the_next_image_on(
    vehicle: Vehicle, detector: Start
) -> None:
    from rclpy.parameter import Parameter

    node = detector(score_threshold=0.0)
    n = warm(vehicle)
    node.node.set_parameters([Parameter("max_boxes", value=1)])
    vehicle.boxes.clear()
    vehicle.drive_until(lambda: [m for m in vehicle.boxes if len(m.detections) == 1], n)


def test_a_set_that_waits_when_the_node_is_deactivated_is_told(
    vehicle: Vehicle, detector: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = detector(**PATIENT)
    n = warm(vehicle)
    session, begun, go_on = node.node.session, threading.Event(), threading.Event()
    assert session is not None

    def slow(*_: Any) -> Any:
        begun.set()
        go_on.wait(30)
        raise SetError("image", "slow")

    monkeypatch.setattr(Assembler, "assemble", slow)
    vehicle.sets.clear()
    vehicle.cycle(n)
    assert begun.wait(10)
    vehicle.drive([n + 1], settle_s=0.5)
    threading.Timer(0.1, go_on.set).start()
    node.node.trigger_deactivate()
    ends = {("dropped", "deactivated"), ("refused", "image")}
    vehicle.expect(
        lambda: ends <= {(s["outcome"], s["cause"]) for s in vehicle.sets}, "the ends of both sets"
    )
    assert session.health.counts["seen"] == n + 2
