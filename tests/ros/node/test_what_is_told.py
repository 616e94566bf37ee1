# SPDX-License-Identifier: Apache-2.0
"""What the node says while nothing is wrong: at its start, by its services and its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.context import Context
from std_srvs.srv import SetBool, Trigger

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT

Start = Callable[..., RunningNode]
DEMO = "no model is named, so this is the demo model"


@pytest.mark.parametrize("named", [True, False])
def test_the_start_is_told_and_a_demo_model_warned_of(
    ros_context: Context, tiny_model: Path, capfd: pytest.CaptureFixture[str], named: bool
) -> None:
    arguments = ["--ros-args", "-p", f"model:={tiny_model}"] if named else []
    node = DetectorNode(
        context=ros_context,
        load=lambda parameters: Detector.load(tiny_model, device="cpu"),
        cli_args=arguments,
        namespace="left/car",
    )
    assert node.start()
    assert node.session
    names = {status.name.partition(":")[0] for status in node.session.report()}
    node.close()
    node.destroy_node()
    told = capfd.readouterr().err.splitlines()
    assert any("[INFO]" in line and "active, waiting for images" in line for line in told)
    assert any("[WARN]" in line and DEMO in line for line in told) is not named
    assert names == {"left/car/detector"}


def call(vehicle: Vehicle, kind: Any, name: str, request: Any) -> Any:
    client: Client[Any, Any] = vehicle.node.create_client(kind, f"/detector/{name}")
    vehicle.expect(client.service_is_ready, f"the service {name}")
    future = client.call_async(request)
    vehicle.expect(future.done, "its answer")
    return future.result()


def test_services_answer_with_a_sentence(vehicle: Vehicle, detector: Start) -> None:
    detector()
    answers = [
        call(vehicle, SetBool, "enable", SetBool.Request(data=False)),
        call(vehicle, Trigger, "reset_temporal", Trigger.Request()),
        call(vehicle, Trigger, "relearn_offsets", Trigger.Request()),
    ]
    assert all(answer.success for answer in answers)
    assert answers[0].message == "sets pass without detection"
    assert all(len(answer.message) > 20 for answer in answers)


def test_sets_are_complete_without_a_camera_that_is_not_there(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    running = detector(**PATIENT, **{"cameras.CAM_BACK.enabled": False})
    vehicle.mount()  # `connect` would wait until all cameras are heard
    vehicle.drive_until(lambda: "processed" in vehicle.outcomes(), 0)
    seen = {view.calibration.name for view in running.results[-1][0].views}
    assert seen == set(CAMERAS) - {"CAM_BACK"}
    session = running.node.session
    assert session
    misspelled = SetParameters.Request(
        parameters=[ParameterMessage(name="cameras.CAM_BACK.enabld")]
    )
    (refused,) = call(vehicle, SetParameters, "set_parameters", misspelled).results
    assert "did you mean cameras.CAM_BACK.enabled?" in refused.reason, "the model has it"
    told = [status for status in session.report() if "CAM_BACK" in status.name.split()]
    assert told == []
    assert "detecting without CAM_BACK: enabled is false there" in capfd.readouterr().err


def test_cameras_without_stamps_are_one_line(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    running = detector(**PATIENT, **{"diagnostics.period": 0.1})
    vehicle.connect()
    told: list[str] = []
    sentence = "its images have no stamp, or one before 1970; set it in the driver"

    def said() -> bool:
        told.extend(line for line in capfd.readouterr().err.splitlines() if sentence in line)
        return bool(told)

    vehicle.drive_until(said, 0, unstamped=set(CAMERAS))
    assert running.started
    assert len(told) == 1
    assert all(camera in told[0] for camera in CAMERAS)
