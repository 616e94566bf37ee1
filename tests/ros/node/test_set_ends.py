# SPDX-License-Identifier: Apache-2.0
"""Whatever a set meets, its end is told in `~/status` and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.sets.assembly import Assembler
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT

Start = Callable[..., RunningNode]


def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault of ours")


def drive_until_given_up(vehicle: Vehicle, node: RunningNode, first: int) -> None:
    """Sets may be dropped on a busy machine, so as many as it takes."""
    vehicle.sets.clear()
    vehicle.drive_until(lambda: node.node.session is None, first, settle_s=0.3)


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
    drive_until_given_up(vehicle, node, n)
    failed = [s for s in vehicle.sets if s["outcome"] == "failed"]
    cause = "AttributeError" if place == "on_result" else "KeyError"
    assert [s["cause"] for s in failed] == [cause] * 3
    assert [s["sets_failed"] for s in failed] == ["1", "2", "3"]
    told = capfd.readouterr().err
    assert "set dropped, it could not be processed" in told
    assert "Traceback" in told  # a fault of ours can be found
    assert f"the detector is given up: {cause}" in told


def test_two_errors_are_forgotten_after_a_good_set(
    vehicle: Vehicle, detector: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = detector(**PATIENT)
    n = warm(vehicle)
    publish, left = Outputs.boxes, [2, 0, 2]

    def sometimes(self: Outputs, *args: Any, **kwargs: Any) -> None:
        if left and left[0]:
            left[0] -= 1
            raise KeyError("a fault of ours")
        left[:] = left[1:]
        publish(self, *args, **kwargs)

    monkeypatch.setattr(Outputs, "boxes", sometimes)
    vehicle.sets.clear()
    vehicle.drive_until(lambda: not left and vehicle.outcomes()[-1:] == ["processed"], n)
    assert vehicle.outcomes().count("failed") == 4
    assert node.node.session is not None


def test_parameters_hold_before_the_first_set(vehicle: Vehicle, detector: Start) -> None:
    """The first image is decoded ahead, and the first set detected, though nobody listens."""
    node = detector(detect_without_listeners=True)
    vehicle.connect()
    for subscription in list(vehicle.node.subscriptions):
        if subscription.topic_name.startswith(("/detector/detections", "/detector/markers")):
            vehicle.node.destroy_subscription(subscription)
    vehicle.expect(
        lambda: not vehicle.node.count_subscribers("/detector/markers"), "nobody listens"
    )
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
