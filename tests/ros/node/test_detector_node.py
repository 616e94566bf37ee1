# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: six cameras in, boxes out, equal to the offline pipeline's."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.context import Context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.checkpoints import save_student
from labeldistill_core.frames import Transform
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.messages import (
    stamp_from_ns,
    stamp_to_ns,
)
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.messages.tables import boxes_from_table
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import (
    PATIENT,
    PERIOD_NS,
    map_from_ego,
    offline_set,
    stamp_of,
    tiny_config,
)
from tests.support.ros_fixtures import turn_away

Start = Callable[..., RunningNode]


def test_six_cameras_give_the_offline_boxes(
    vehicle: Vehicle, detector: Start, tiny_model: Path
) -> None:
    node = detector(**PATIENT)
    assert node.started
    vehicle.connect()
    vehicle.drive(range(8))
    vehicle.expect(lambda: vehicle.outcomes().count("processed") >= 6, "six sets")
    time.sleep(0.3)

    offline, names = Detector.load(tiny_model), node.detector.class_names
    cycles = [
        (stamp_to_ns(m.header.stamp) - stamp_of(0, "CAM_FRONT")) / PERIOD_NS for m in vehicle.boxes
    ]
    assert len(cycles) >= 6
    assert all(c == int(c) for c in cycles)
    for cycle, message, table, (frames, _) in zip(
        map(int, cycles), vehicle.boxes, vehicle.tables, node.results, strict=True
    ):
        wanted = offline_set(cycle)
        prepared, expected = offline.prepare(frames), offline.prepare(wanted)
        grey = (prepared.images.int() - expected.images.int()).abs().max()
        assert grey <= 1
        torch.testing.assert_close(prepared.ego_from_camera, expected.ego_from_camera)
        base_from_map = map_from_ego(wanted.stamp_ns).inverse
        boxes = offline.detect(wanted).in_frame(base_from_map)
        assert len(boxes) > 5
        assert message.header.frame_id == "base_link"
        got = boxes_from_detections(message, names)
        order = boxes.scores.argsort(descending=True, stable=True)[:200]
        torch.testing.assert_close(got.values[:, :6], boxes.values[order][:, :6], atol=1e-3, rtol=0)
        turn = (got.yaws - boxes.yaws[order]).numpy()
        assert np.abs(np.angle(np.exp(1j * turn))).max() < 1e-3
        assert got.labels.tolist() == boxes.labels[order].tolist()
        rows = boxes_from_table(table)
        assert stamp_to_ns(table.header.stamp) == wanted.stamp_ns
        torch.testing.assert_close(
            rows.velocities.double(), boxes.velocities[order], atol=1e-3, rtol=0
        )
    last = vehicle.sets[-1]
    assert last["history_valid"] == "1"
    assert last["cameras"].split() == list(CAMERAS)
    assert float(last["total_ms"]) > 0


def test_boxes_in_the_fixed_frame(vehicle: Vehicle, detector: Start) -> None:
    node = detector(output_frame="map")
    vehicle.connect()
    vehicle.drive(range(4))
    vehicle.expect(lambda: vehicle.boxes, "boxes")
    assert {m.header.frame_id for m in vehicle.boxes} == {"map"}
    names = node.detector.class_names
    got = boxes_from_detections(vehicle.boxes[0], names)
    found = node.results[0][1]
    boxes = found.in_frame(Transform("map", "map", np.eye(3), np.zeros(3)))
    order = boxes.scores.argsort(descending=True, stable=True)[:200]
    torch.testing.assert_close(got.centers, boxes.centers[order], atol=1e-3, rtol=0)
    assert got.centers[:, 0].mean() > 400  # the vehicle is at 500 m


def test_raw_images_under_a_prefix(
    ros_context: Context, vehicle: Vehicle, detector: Start, tiny_model: Path
) -> None:
    node = detector(transport="raw", camera_prefix="/sensing/")
    publishers = {
        c: (
            vehicle.node.create_publisher(Image, f"/sensing/{c.lower()}/image_raw", 5),
            vehicle.node.create_publisher(CameraInfo, f"/sensing/{c.lower()}/camera_info", 5),
        )
        for c in CAMERAS
    }
    vehicle.mount()
    pairs = publishers.values()
    vehicle.expect(
        lambda: all(p.get_subscription_count() for pair in pairs for p in pair), "topics"
    )
    time.sleep(0.3)
    for cycle in range(4):
        for view in offline_set(cycle).views:
            camera, stamp_ns = view.calibration.name, view.stamp_ns
            vehicle.tell_pose(stamp_ns)
            info = vehicle.info(camera, stamp_ns)
            image = Image(header=info.header, width=160, height=90, encoding="bgr8", step=480)
            image.data.frombytes(view.pixels[..., ::-1].tobytes())
            publishers[camera][1].publish(info)
            publishers[camera][0].publish(image)
        time.sleep(0.3)
    vehicle.expect(lambda: node.results, "boxes")
    frames = node.results[0][0]
    cycle = (frames.stamp_ns - stamp_of(0, "CAM_FRONT")) // PERIOD_NS
    for view, wanted in zip(frames.views, offline_set(cycle).views, strict=True):
        np.testing.assert_array_equal(view.image, wanted.image)


def test_nothing_is_computed_when_nobody_listens(vehicle: Vehicle, detector: Start) -> None:
    node = detector()
    vehicle.connect()
    turn_away(vehicle)
    time.sleep(0.3)
    vehicle.drive(range(4))
    vehicle.expect(lambda: "idle" in vehicle.outcomes(), "idle sets")
    assert set(vehicle.outcomes()) == {"idle"}
    assert not node.results


def test_clock_that_goes_back_resets(
    vehicle: Vehicle, detector: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    node = detector(use_sim_time=True)
    clock = vehicle.node.create_publisher(Clock, "/clock", 10)
    vehicle.connect()

    def tell(cycle: int) -> None:
        clock.publish(Clock(clock=stamp_from_ns(stamp_of(cycle, "CAM_FRONT"))))
        time.sleep(0.1)

    tell(6)
    vehicle.drive(range(6))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "boxes")
    assert abs(float(vehicle.sets[-1]["age_ms"])) < 1000  # by the simulated clock
    tell(0)
    vehicle.expect(
        lambda: node.node.get_clock().now().nanoseconds < stamp_of(1, "CAM_FRONT"), "back"
    )
    assert "started afresh: the clock went back" in capfd.readouterr().err
    node.results.clear()
    vehicle.drive(range(4))
    vehicle.expect(lambda: node.results, "boxes again")
    assert node.results[0][1].history_valid == 0


OWN_THREADS = ("detect", "decode", "resize")
"""How the names of the node's threads begin."""


def others() -> int:
    """Number of threads that are not the node's."""
    return sum(not t.name.startswith(OWN_THREADS) for t in threading.enumerate())


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python does not look for circles by itself, as in a node that allocates little."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_lifecycle_by_hand(vehicle: Vehicle, detector: Start, uncollected: None) -> None:
    """Inactive, active, inactive, unconfigured and again: no publisher or thread is left behind."""
    node = detector()
    before, left = others(), list[threading.Thread]()
    client: Client[Any, Any] = vehicle.node.create_client(ChangeState, "/detector/change_state")
    vehicle.expect(client.service_is_ready, "the service")

    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        future = client.call_async(request)
        vehicle.expect(future.done, "the transition")
        answer = future.result()
        assert answer is not None
        assert answer.success

    for _ in range(2):
        left += [t for t in threading.enumerate() if t.name.startswith(OWN_THREADS)]
        change(Transition.TRANSITION_DEACTIVATE)
        change(Transition.TRANSITION_CLEANUP)
        vehicle.expect(
            lambda: not vehicle.node.count_publishers("/detector/detections"), "withdrawn"
        )
        assert not vehicle.node.count_subscribers("/cam_front/camera_info")
        change(Transition.TRANSITION_CONFIGURE)
        change(Transition.TRANSITION_ACTIVATE)
    # Each one, and not their number: a pool begins as many as it happens to need at once.
    assert left
    vehicle.expect(lambda: not any(t.is_alive() for t in left), "threads to end")
    # Fewer is no fault: threads of tests before this one may have ended meanwhile.
    vehicle.expect(lambda: others() <= before, "other threads to end")
    vehicle.connect()
    vehicle.drive(range(4))
    vehicle.expect(lambda: vehicle.boxes, "boxes")
    change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert node.node.finished


@pytest.mark.parametrize("history_s", [(), (0.2,), (0.1, 0.2, 0.3, 0.4)])
def test_one_two_and_five_frames_equal_offline_also_after_a_bag_loop(
    vehicle: Vehicle,
    detector: Start,
    tmp_path: Path,
    history_s: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Otherwise the machine's load decides how many threads compute, and the last bit of two equal
    # scores which box comes first.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    torch.manual_seed(1)
    model = tmp_path / "student.safetensors"
    save_student(model, Student(replace(tiny_config(), history_s=history_s)))
    node = detector(model, **PATIENT)
    vehicle.connect()
    for lap in (1, 2):
        vehicle.drive(range(9))
        vehicle.expect(lambda n=8 * lap: len(node.results) >= n, "eight sets of each lap")  # type: ignore[misc]
    offline = Detector.load(model)
    most = 0
    for frames, found in node.results:
        cycle = round((frames.stamp_ns - offline_set(0).stamp_ns) / PERIOD_NS)
        wanted = offline.detect(offline_set(cycle))
        assert found.history_valid == wanted.history_valid
        most = max(most, found.history_valid)
        assert torch.equal(found.boxes.labels, wanted.boxes.labels)
        torch.testing.assert_close(found.boxes.values, wanted.boxes.values, atol=1e-3, rtol=0)
    assert most == len(history_s)
