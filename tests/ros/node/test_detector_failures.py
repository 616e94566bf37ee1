# SPDX-License-Identifier: Apache-2.0
"""What the node does, over real DDS, when something is wrong: one test for each event."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.runtime.detector import Detections
from labeldistill_ros.messages import values_of
from labeldistill_ros.testing.running import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT, jpeg, offline_set, stamp_of

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


def drive_until_told(
    vehicle: Vehicle, first: int, text: str, **wrong: Any
) -> tuple[int, DiagnosticStatus]:
    """Drive until CAM_BACK's diagnostics say so and two sets came; gives the next cycle, too."""
    for number in range(first, first + 60):
        vehicle.drive([number], **wrong)
        camera = vehicle.diagnostic("camera CAM_BACK")
        if len(vehicle.boxes) >= 2 and text in camera.message:
            return number + 1, camera
    raise TimeoutError(f"never told: {text}")


def test_corrupt_jpeg_is_left_out_and_told(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector(**{"sync.missing_camera_policy": "mask", "diagnostics.period": 0.1})
    n = warm(vehicle)
    clear(vehicle)
    text = "CAM_BACK: corrupt image of 300 bytes"
    n, camera = drive_until_told(vehicle, n, text, data={"CAM_BACK": jpeg(1)[:300]})
    assert {s["missing"] for s in vehicle.sets} == {"CAM_BACK"}
    assert {s["degraded"] for s in vehicle.sets} == {"True"}
    assert camera.level == camera.ERROR
    assert int(values_of(camera)["refused_image"]) >= 1
    assert capfd.readouterr().err.count("corrupt image") == 1  # throttled
    clear(vehicle)
    vehicle.drive([n])
    vehicle.expect(lambda: vehicle.sets and vehicle.sets[-1]["missing"] == "", "recovery")


def test_images_without_stamp_are_left_out_and_told(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector(**{"sync.missing_camera_policy": "mask", "diagnostics.period": 0.1})
    n = warm(vehicle)
    clear(vehicle)
    text = "CAM_BACK: its images have no stamp; set it in the driver"
    _, camera = drive_until_told(vehicle, n, text, unstamped={"CAM_BACK"}, settle_s=0.2)
    assert all("CAM_BACK" in s["missing"] for s in vehicle.sets)
    assert camera.level == camera.ERROR
    assert int(values_of(camera)["refused_image"]) >= 2
    assert capfd.readouterr().err.count("no stamp") == 1  # throttled


def test_corrupt_jpeg_under_skip_refuses_the_set(vehicle: Vehicle, detector: Start) -> None:
    detector()
    n = warm(vehicle)
    clear(vehicle)
    vehicle.drive([n], data={"CAM_FRONT": b"no picture"})
    vehicle.expect(lambda: "refused" in vehicle.outcomes(), "the refusal")
    assert vehicle.sets[-1]["cause"] == "image"
    assert not vehicle.boxes


def change(**fields: object) -> Callable[[CameraInfo], None]:
    def apply(info: CameraInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return apply


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 320}, "the image is 160 x 90 pixels, its camera_info says 320 x 90"),
        (
            {"d": [-0.3, 0.1, 0.0, 0.0], "distortion_model": "mirror"},
            "the distortion model 'mirror' is none of plumb_bob",
        ),
        ({"k": np.zeros(9)}, "camera_info has the focal lengths 0 and 0 in K"),
    ],
)
def test_unusable_camera_info_is_named(
    vehicle: Vehicle,
    detector: Start,
    capfd: pytest.CaptureFixture[str],
    fields: dict[str, object],
    message: str,
) -> None:
    detector()
    vehicle.connect()
    vehicle.drive(range(3), info=dict.fromkeys(CAMERAS, change(**fields)))
    vehicle.expect(lambda: "refused" in vehicle.outcomes(), "the refusal")
    assert {s["cause"] for s in vehicle.sets if s["outcome"] == "refused"} == {"camera_info"}
    assert message in capfd.readouterr().err


def test_rectification_that_differs_is_told_once(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector()
    vehicle.connect()
    p = np.array([100, 0, 80, 0, 0, 100, 45, 0, 0, 0, 1, 0], dtype=float)
    vehicle.drive(range(4), info=dict.fromkeys(CAMERAS, change(p=p)))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "boxes")
    assert capfd.readouterr().err.count("P and K of /cam_front/camera_info differ") == 1


def test_camera_without_camera_info_names_the_topic(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector(**{"diagnostics.period": 0.1})
    vehicle.connect()
    text = "CAM_BACK_LEFT: images come, but no camera_info on /cam_back_left/camera_info"
    told, n = "", 0
    while text not in told and n < 60:
        vehicle.drive([n], no_info={"CAM_BACK_LEFT"}, settle_s=0.05)
        told, n = told + capfd.readouterr().err, n + 1
    assert text in told
    assert "CAM_BACK_LEFT: no camera_info has come" in told
    assert {s["cause"] for s in vehicle.sets if s["outcome"] == "refused"} == {"camera_info"}
    assert not vehicle.boxes
    vehicle.drive(range(n, n + 2))
    vehicle.expect(lambda: vehicle.boxes, "boxes once the calibration is there")


def test_absent_pose_names_the_frames_and_recovers(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector(tf_timeout=0.05, missing_pose_policy="required", **{"diagnostics.period": 0.1})
    vehicle.connect()
    vehicle.drive(range(3), no_poses=True)
    vehicle.expect(lambda: "refused" in vehicle.outcomes(), "the refusal")
    assert {s["cause"] for s in vehicle.sets if s["outcome"] == "refused"} == {"transform"}
    time.sleep(0.3)
    assert vehicle.diagnostic("transforms").level == vehicle.diagnostic("transforms").ERROR
    assert "no transform names the frame 'map' (known frames: base_link," in capfd.readouterr().err
    clear(vehicle)
    vehicle.drive(range(3, 6))
    vehicle.expect(lambda: vehicle.boxes, "boxes")


def test_absent_mounting_names_the_camera(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector()
    vehicle.faults.unmounted = set(CAMERAS)
    vehicle.connect()
    vehicle.drive(range(3))
    vehicle.expect(lambda: "refused" in vehicle.outcomes(), "the refusal")
    assert "no transform names the frame 'cam_back_optical_frame'" in capfd.readouterr().err
    vehicle.faults.unmounted = set()
    vehicle.mount()
    vehicle.drive(range(3, 6))
    vehicle.expect(lambda: vehicle.boxes, "boxes once the mounting is known")


def test_dead_camera_under_skip_says_why(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    detector(**{"diagnostics.period": 0.1})
    n = warm(vehicle)
    clear(vehicle)
    vehicle.drive(range(n, n + 8), silent={"CAM_BACK"}, settle_s=0.1)
    assert set(vehicle.outcomes()) == {"incomplete"}
    assert {s["missing"] for s in vehicle.sets} == {"CAM_BACK"}
    camera = vehicle.diagnostic("camera CAM_BACK")
    assert camera.level == camera.ERROR
    assert "on /cam_back/image_raw/compressed" in camera.message
    assert "set dropped, no image of CAM_BACK" in capfd.readouterr().err
    clear(vehicle)
    vehicle.drive(range(n + 8, n + 12))
    vehicle.expect(lambda: vehicle.boxes, "boxes when the camera is back")


def test_dead_anchor_under_mask_goes_on(vehicle: Vehicle, detector: Start) -> None:
    detector(**{"sync.missing_camera_policy": "mask", "sync.min_cameras": 5})
    n = warm(vehicle)
    clear(vehicle)
    vehicle.drive(range(n, n + 8), silent={"CAM_FRONT"}, settle_s=0.2)
    vehicle.expect(lambda: len(vehicle.boxes) >= 4, "boxes without CAM_FRONT")
    assert {s["missing"] for s in vehicle.sets if s["outcome"] == "processed"} == {"CAM_FRONT"}


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


def test_changed_calibration_drops_the_history(vehicle: Vehicle, detector: Start) -> None:
    node = detector(**PATIENT)
    n = warm(vehicle, 6)
    assert node.results[-1][1].history_valid == 1

    def longer(info: CameraInfo) -> None:
        info.k = info.k * np.array([1.05, 1, 1, 1, 1.05, 1, 1, 1, 1])

    vehicle.drive([n], info=dict.fromkeys(CAMERAS, longer))
    vehicle.expect(lambda: node.results[-1][0].stamp_ns == stamp_of(n, "CAM_FRONT"), "the set")
    frames, found = node.results[-1]
    assert frames.views[0].calibration.intrinsics_px[0, 0] == pytest.approx(115.5)
    assert found.history_valid == 0


def test_slow_detector_takes_the_newest_set(vehicle: Vehicle, detector: Start) -> None:
    node = detector()
    n = warm(vehicle)
    slow = node.detector
    detect = slow.detect

    def late(*args: Any, **options: Any) -> Detections:
        time.sleep(0.35)
        return detect(*args, **options)

    slow.detect = late  # type: ignore[method-assign]
    clear(vehicle)
    vehicle.drive(range(n, n + 12), settle_s=0)
    time.sleep(1.0)
    outcomes = vehicle.outcomes()
    assert outcomes.count("dropped") >= 4
    delays = [float(s["total_ms"]) for s in vehicle.sets if s["outcome"] == "processed"]
    assert len(delays) >= 2
    assert max(delays) < 1500


def test_detector_that_keeps_failing_is_given_up(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    node = detector(**PATIENT, **{"diagnostics.period": 0.1})
    n = warm(vehicle)

    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("CUDA out of memory")

    node.detector.detect = fail  # type: ignore[method-assign]
    clear(vehicle)
    # sets may be dropped on a busy machine, so as many as it takes
    given_up = "the detector is given up: RuntimeError: CUDA out of memory"
    n = vehicle.drive_until(
        lambda: vehicle.diagnostic("processing").message == given_up, n, settle_s=0.3
    )
    assert vehicle.outcomes().count("failed") == 3
    assert given_up in capfd.readouterr().err
    assert vehicle.diagnostic("processing").level == DiagnosticStatus.ERROR
    assert node.node.start()
    clear(vehicle)
    vehicle.connect()
    vehicle.drive(range(n, n + 5))
    vehicle.expect(lambda: vehicle.boxes, "boxes after a restart")


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


def test_disabled_node_is_idle(vehicle: Vehicle, detector: Start) -> None:
    detector()
    n = warm(vehicle)
    client: Client[Any, Any] = vehicle.node.create_client(SetBool, "/detector/enable")
    vehicle.expect(client.service_is_ready, "the service")
    future = client.call_async(SetBool.Request(data=False))
    vehicle.expect(future.done, "the answer")
    answer = future.result()
    assert answer is not None
    assert answer.success
    clear(vehicle)
    vehicle.drive(range(n, n + 2))
    assert vehicle.sets[-1]["outcome"] == "idle"
    assert vehicle.sets[-1]["cause"] == "disabled"
    assert not vehicle.boxes


def test_live_parameters_change_and_others_say_why_not(vehicle: Vehicle, detector: Start) -> None:
    detector(**PATIENT)
    n = warm(vehicle)
    assert vehicle.boxes[-1].detections
    client = AsyncParameterClient(vehicle.node, "detector")
    vehicle.expect(client.services_are_ready, "the parameter services")
    future = client.set_parameters(
        [
            Parameter("max_boxes", value=2),
            Parameter("sync.tolerance", value=0.05),
            Parameter("transport", value="jpg"),
        ]
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
