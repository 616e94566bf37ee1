# SPDX-License-Identifier: Apache-2.0
"""A detector that was given up is tried again after a pause that doubles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labeldistill_core import Detector
from labeldistill_ros.node.configuration import configure
from labeldistill_ros.node.restart import FIRST_S, LONGEST_S, RestartPause
from labeldistill_ros.node.session import Session
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT


def test_the_pause_doubles_and_has_an_end() -> None:
    pause, now_s, found = RestartPause(), 100.0, []
    for _ in range(9):
        found.append(pause.next_s(now_s))
        now_s += found[-1] + 1.0
    assert found[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert found[-1] == found[-2] == LONGEST_S


def test_a_detector_that_worked_for_long_begins_anew() -> None:
    pause = RestartPause()
    assert pause.next_s(0.0) == FIRST_S
    assert pause.next_s(10.0) == 2 * FIRST_S
    assert pause.next_s(10_000.0) == FIRST_S


@pytest.fixture
def node(
    vehicle: Vehicle, detector: Callable[..., RunningNode], monkeypatch: pytest.MonkeyPatch
) -> RunningNode:
    """A node that is tried again after half a second, and is connected with the vehicle."""
    monkeypatch.setattr(
        "labeldistill_ros.node.detector_node.RestartPause", lambda: RestartPause(0.5)
    )
    started = detector(**PATIENT, **{"diagnostics.period": 0.1})
    vehicle.connect()
    return started


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def is_active_again(node: RunningNode, first: Detector) -> bool:
    """Whether it detects with another detector than the first, which was given up."""
    return node.node.session is not None and node.detector is not first


def test_the_node_comes_back_by_itself(
    vehicle: Vehicle,
    node: RunningNode,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vehicle.drive(range(4))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "a first set")
    first = node.detector

    monkeypatch.setattr(first, "detect", fail)
    # Until it has loaded another: on a busy machine it is back before anybody could see it away.
    n = vehicle.drive_until(lambda: node.detector is not first, 4, settle_s=0.3)
    assert "it is tried again in 0.5 s" in capfd.readouterr().err
    vehicle.expect(lambda: is_active_again(node, first), "the node is active again", 30.0)
    vehicle.boxes.clear()
    vehicle.connect()
    vehicle.drive_until(lambda: vehicle.boxes, n)


def test_a_node_that_cannot_be_activated_is_tried_again_too(
    vehicle: Vehicle,
    node: RunningNode,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would stay configured otherwise, where no second start can begin."""
    refusals = [RuntimeError("can't start new thread")] * 2

    def sometimes(*args: Any) -> Session:
        if refusals:
            raise refusals.pop()
        return Session(*args)

    monkeypatch.setattr("labeldistill_ros.node.detector_node.Session", sometimes)

    first = node.detector
    monkeypatch.setattr(first, "detect", fail)
    vehicle.drive_until(lambda: node.detector is not first, 0, settle_s=0.3)
    vehicle.expect(lambda: is_active_again(node, first), "the node is active again", 30.0)
    told = capfd.readouterr().err
    assert told.count("cannot activate: RuntimeError: can't start new thread") == 2
    assert told.count("it cannot be started again; it is tried again in") == 2


def test_a_manager_that_fails_to_configure_it_ends_no_retry(
    vehicle: Vehicle, node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = node.detector
    monkeypatch.setattr(first, "detect", fail)
    refusals, asked = [RuntimeError("CUDA error: out of memory")] * 2, list[Any]()

    def by_hand_as_well(*args: Any) -> Any:
        if refusals:
            # The first call is the retry's own: it fails, and a manager's fails just after it.
            error = refusals.pop()
            if refusals:
                node.node.create_timer(0.05, configure_once)
            raise error
        return configure(*args)

    def configure_once() -> None:
        if node.node.session is None and not asked:
            asked.append(node.node.trigger_configure())

    monkeypatch.setattr("labeldistill_ros.node.detector_node.configure", by_hand_as_well)
    vehicle.drive_until(lambda: len(asked) > 0, 0, settle_s=0.3)
    vehicle.expect(lambda: is_active_again(node, first), "the node is active again", 30.0)
    assert not refusals
