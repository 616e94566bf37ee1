# SPDX-License-Identifier: Apache-2.0
"""What the node publishes beside the boxes, and takes beside the usual, over real DDS."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from PIL import Image as Picture
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from vision_msgs.msg import LabelInfo

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.messages import header, stamp_to_ns
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.outputs.publishers import STAGES
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import (
    HEIGHT,
    PATIENT,
    WIDTH,
    map_from_ego,
    offline_set,
    stamp_of,
)

Start = Callable[..., RunningNode]


def test_overlays_latencies_and_names_are_there_for_who_asks(
    vehicle: Vehicle, detector: Start
) -> None:
    node = detector(**PATIENT)
    vehicle.connect()
    vehicle.drive_until(lambda: vehicle.boxes, 0)
    pictures: list[CompressedImage] = []
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    names: list[LabelInfo] = []
    listen = vehicle.node.create_subscription
    listen(
        CompressedImage,
        "/detector/debug/overlay/cam_back/compressed",
        pictures.append,
        qos_profile_sensor_data,
    )
    for stage in STAGES:
        listen(
            Float64,
            f"/detector/debug/latency/{stage}_ms",
            lambda m, stage=stage: times[stage].append(m.data),
            qos_profile_sensor_data,
        )
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listen(LabelInfo, "/detector/label_info", names.append, latched)
    vehicle.expect(lambda: names, "the names, though they were told before")
    detector_names = node.detector.class_names
    assert [c.class_name for c in names[0].class_map] == list(detector_names)
    vehicle.drive_until(lambda: pictures and all(len(v) >= 2 for v in times.values()), 3)
    assert pictures[-1].header.frame_id == "cam_back_optical_frame"
    cycle = round((stamp_to_ns(pictures[-1].header.stamp) - stamp_of(0, "CAM_BACK")) / 1e8)
    drawn = np.asarray(Picture.open(io.BytesIO(bytes(pictures[-1].data)))).astype(int)
    plain = offline_set(cycle).by_name["CAM_BACK"].pixels.astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    changed = np.abs(drawn - plain).max(axis=2) > 60
    assert 0.002 < changed.mean() < 0.9, "lines over the picture"
    assert all(np.isfinite(v) for values in times.values() for v in values)
    assert all(v >= 0 for stage in STAGES for v in times[stage] if stage != "pipeline")


def test_the_threshold_that_is_told_is_the_one_in_force(vehicle: Vehicle, detector: Start) -> None:
    node = detector(score_threshold=0.25, **{"diagnostics.period": 0.1})
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    told: list[float] = []
    vehicle.node.create_subscription(
        LabelInfo, "/detector/label_info", lambda m: told.append(round(m.threshold, 3)), latched
    )
    vehicle.expect(lambda: told == [0.25], "the threshold as configured")
    (done,) = node.node.set_parameters([Parameter("score_threshold", value=0.6)])
    assert done.successful
    vehicle.expect(lambda: told == [0.25, 0.6], "the new threshold, once")
    node.node.trigger_deactivate()
    node.node.trigger_activate()
    vehicle.expect(lambda: told == [0.25, 0.6, 0.6], "the same after another activation")


def test_the_pose_may_come_as_odometry(vehicle: Vehicle, detector: Start) -> None:
    node = detector(
        ego_motion_source="odometry", odometry_topic="/where", fixed_frame="odom", **PATIENT
    )
    publisher = vehicle.node.create_publisher(Odometry, "/where", 10)
    vehicle.connect()
    vehicle.expect(publisher.get_subscription_count, "the node listens")
    for cycle in range(60):
        for step in range(-2, 12):
            stamp_ns = stamp_of(cycle, CAMERAS[0]) + step * 10_000_000
            pose, message = map_from_ego(stamp_ns), Odometry(child_frame_id="base_link")
            message.header = header(stamp_ns, "odom")
            place, turn = message.pose.pose.position, message.pose.pose.orientation
            place.x, place.y, place.z = map(float, pose.translation)
            turn.w, turn.x, turn.y, turn.z = map(float, pose.quaternion)
            publisher.publish(message)
        vehicle.drive([cycle], no_poses=True)
        if [s["pose"] for s in vehicle.sets[-1:] if s["outcome"] == "processed"] == ["known"]:
            break
    assert vehicle.sets[-1]["pose"] == "known"
    frames, _ = node.results[-1]
    for view in frames.views:
        wanted = map_from_ego(view.stamp_ns)
        np.testing.assert_allclose(view.fixed_from_ego.translation, wanted.translation, atol=1e-3)


def test_one_camera_may_have_another_transport(vehicle: Vehicle, detector: Start) -> None:
    node = detector(**PATIENT, **{"cameras.CAM_BACK.transport": "raw"})
    raw = vehicle.node.create_publisher(Image, "/cam_back/image_raw", qos_profile_sensor_data)
    vehicle.silence("CAM_BACK")
    vehicle.connect()
    vehicle.expect(raw.get_subscription_count, "the node listens")
    for cycle in range(60):
        view = offline_set(cycle).by_name["CAM_BACK"]
        image = Image(header=header(view.stamp_ns, "cam_back_optical_frame"), encoding="rgb8")
        image.width, image.height, image.step = WIDTH, HEIGHT, 3 * WIDTH
        image.data.frombytes(view.pixels.tobytes())
        raw.publish(image)
        vehicle.drive([cycle], silent={"CAM_BACK"})
        if node.results:
            break
    cycle = round((node.results[0][0].stamp_ns - stamp_of(0, "CAM_FRONT")) / 1e8)
    wanted = offline_set(cycle).by_name["CAM_BACK"].image
    np.testing.assert_array_equal(node.results[0][0].by_name["CAM_BACK"].image, wanted)


def test_range_and_rate_are_limited_while_it_runs(vehicle: Vehicle, detector: Start) -> None:
    node = detector(output_frame="map", **PATIENT)
    vehicle.connect()
    vehicle.drive_until(lambda: vehicle.boxes, 0)
    node.node.set_parameters([Parameter("max_range", value=20.0)])
    vehicle.boxes.clear()
    n = vehicle.drive_until(lambda: len(vehicle.boxes) >= 2, 3)
    message = vehicle.boxes[-1]
    boxes = boxes_from_detections(message, node.detector.class_names)
    place = map_from_ego(stamp_to_ns(message.header.stamp)).translation
    apart = np.linalg.norm(boxes.centers.numpy()[:, :2] - place[:2], axis=1)
    assert 0 < apart.max() < 20.5
    node.node.set_parameters([Parameter("max_rate", value=5.0)])  # the cameras send at 10 Hz
    vehicle.boxes.clear()
    vehicle.sets.clear()
    vehicle.drive_until(lambda: len(vehicle.boxes) >= 5, n)
    assert {s["outcome"] for s in vehicle.sets if s["cause"] == "max_rate"} == {"dropped"}
    # the first may have been on its way; one that is late may be made up for
    stamps = [stamp_to_ns(m.header.stamp) / 1e9 for m in vehicle.boxes[1:]]
    assert np.diff(stamps).mean() > 0.17


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (
            {"cameras.CAM_BACK.image_topic": "/a b"},
            "cannot configure: parameter cameras.CAM_BACK.image_topic leads to the topic '/a b'",
        ),
        ({"camera_prefix": "//x"}, "cannot configure: parameter camera_prefix leads to"),
        (
            {"cameras.CAM_BACK.image_topic": "/cam_front/image_raw/compressed"},
            "cannot configure: the images of CAM_FRONT and the images of CAM_BACK would both come "
            "from the topic /cam_front/image_raw/compressed",
        ),
        (
            {"cameras.CAM_BACK.info_topic": "/cam_back/image_raw/compressed"},
            "cannot configure: the images of CAM_BACK and camera_info would both come from",
        ),
        ({"fixed_frame": "base_link"}, "cannot configure: fixed_frame and base_frame are both"),
        ({"base_frame": ""}, "cannot configure: base_frame is empty"),
        (
            {"qos_overrides./cam_front/camera_info.subscription.reliability": "sometimes"},
            "cannot activate: ",
        ),
        (
            {"qos_overrides./detector/markers.publisher.reliability": "sometimes"},
            "cannot configure: ",
        ),
    ],
)
def test_names_and_policies_that_ros_refuses_are_told(
    detector: Start, capfd: pytest.CaptureFixture[str], parameters: dict[str, str], text: str
) -> None:
    node = detector(**parameters)
    assert not node.started
    told = capfd.readouterr().err
    assert text in told
    assert "Traceback" not in told
    assert node.node.session is None
