# SPDX-License-Identifier: Apache-2.0
"""What the failure table does not see: frame sets, the device's memory, parameters that change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT, offline_set

Start = Callable[..., RunningNode]


def warm(vehicle: Vehicle, cycles: int = 4) -> int:
    """Drive until sets come out; gives the number of the next cycle."""
    vehicle.connect()
    vehicle.drive(range(cycles))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "a first set")
    return cycles


def clear(vehicle: Vehicle) -> None:
    time.sleep(0.2)
    vehicle.sets.clear()
    vehicle.boxes.clear()


def test_bag_loop_starts_afresh(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    node = detector()
    vehicle.connect()
    vehicle.drive(range(8))
    vehicle.expect(lambda: vehicle.outcomes().count("processed") >= 5, "the first pass")
    clear(vehicle)
    node.results.clear()
    vehicle.drive(range(8))
    vehicle.expect(lambda: vehicle.outcomes().count("processed") >= 5, "the second pass")
    assert node.results[0][1].history_valid == 0
    assert node.results[-1][1].history_valid == 1
    assert "started afresh: the stamps went back" in capfd.readouterr().err
    for frames, _ in node.results:  # no image of the first pass, no pose from elsewhere
        cycle = round((frames.stamp_ns - offline_set(0).stamp_ns) / 1e8)
        for view, wanted in zip(frames.views, offline_set(cycle).views, strict=True):
            assert view.stamp_ns == wanted.stamp_ns
            np.testing.assert_allclose(
                view.fixed_from_ego.translation, wanted.fixed_from_ego.translation, atol=1e-6
            )


def test_out_of_memory_empties_the_cache_and_the_next_set_is_processed(
    vehicle: Vehicle, detector: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = detector(**PATIENT)
    n = warm(vehicle)
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    network, detect = node.detector, node.detector.detect

    def fail(*_: object, **__: object) -> NoReturn:
        network.detect = detect  # type: ignore[method-assign]
        raise torch.OutOfMemoryError("CUDA out of memory")

    network.detect = fail  # type: ignore[method-assign]
    clear(vehicle)
    node.results.clear()
    vehicle.drive(range(n, n + 3))
    vehicle.expect(lambda: node.results, "boxes after the error")
    assert vehicle.outcomes()[0] == "failed"
    assert vehicle.sets[0]["cause"] == "OutOfMemoryError"
    assert emptied == [True]
    assert node.results[0][1].history_valid == 0


def test_live_parameters_change_and_others_say_why_not(vehicle: Vehicle, detector: Start) -> None:
    detector(**PATIENT)
    n = warm(vehicle)
    assert vehicle.boxes[-1].detections
    # not by rclpy's client of parameters, which Humble does not have
    client: Any = vehicle.node.create_client(SetParameters, "/detector/set_parameters")
    vehicle.expect(client.service_is_ready, "the parameter services")
    asked: list[Parameter[Any]] = [
        Parameter("max_boxes", value=2),
        Parameter("sync.tolerance", value=0.05),
        Parameter("transport", value="jpg"),
    ]
    future = client.call_async(
        SetParameters.Request(parameters=[parameter.to_parameter_msg() for parameter in asked])
    )
    vehicle.expect(future.done, "the answer")
    answer = future.result()
    assert answer is not None
    good, locked, wrong = answer.results
    assert good.successful
    assert "read when the node is configured" in locked.reason
    assert not wrong.successful
    clear(vehicle)
    vehicle.drive_until(lambda: [m for m in vehicle.boxes if len(m.detections) == 2], n)
