# SPDX-License-Identifier: Apache-2.0
"""A vehicle that drives over DDS, sound and broken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from tf2_msgs.msg import TFMessage

from labeldistill_ros.doctor.examination import DoctorOptions, examine
from labeldistill_ros.doctor.finding import Finding
from labeldistill_ros.doctor.live import observe_live
from labeldistill_ros.testing.vehicle import Vehicle, VehicleFaults

FRONT = "/cam_front/image_raw/compressed"


class Clinic:
    """Lets a vehicle drive and looks at it."""

    def __init__(self, context: Context, model: Path, folder: Path) -> None:
        self._context, self._model, self._folder = context, model, folder
        self.node = Node("odd", context=context)
        """Whatever else is on the vehicle."""

    def findings(self, faults: VehicleFaults, text: str = "") -> list[Finding]:
        """Those that are not ok.

        Args:
            faults: of the vehicle.
            text: parameters of the node.
        """
        file = self._folder / "parameters.yaml"
        file.write_text(f"/**:\n  ros__parameters:\n    model: {self._model}\n{text}")
        options = DoctorOptions(params_file=file, device="cpu", speed=False)
        vehicle = Vehicle(self._context, faults=faults)
        try:
            observe = partial(observe_live, seconds=4.0, context=self._context)
            return [one for one in examine(observe, options) if one.level != "ok"]
        finally:
            vehicle.close()


@pytest.fixture
def clinic(ros_context: Context, tiny_model: Path, tmp_path: Path) -> Iterator[Clinic]:
    clinic = Clinic(ros_context, tiny_model, tmp_path)
    yield clinic
    clinic.node.destroy_node()


def test_a_sound_vehicle_has_no_finding(clinic: Clinic) -> None:
    assert clinic.findings(VehicleFaults()) == []


def test_silence_clock_and_calibration(clinic: Clinic) -> None:
    faults = VehicleFaults(silent={"CAM_BACK"}, no_info={"CAM_FRONT"}, time_shift_s=-30.0)
    found = {finding.check: finding for finding in clinic.findings(faults)}
    silent = found["images"]
    assert silent.level == "fault"
    assert "CAM_BACK: no image comes on /cam_back/image_raw/compressed" in silent.text
    assert "1 publisher: /vehicle publishes" in silent.text
    assert "CAM_FRONT: images come, but no camera_info" in found["calibration"].text
    assert "30 s behind this node's clock" in found["host clock"].text
    assert "0 of" in found["sets"].text


def test_publishers_that_do_not_fit(clinic: Clinic) -> None:
    second = clinic.node.create_publisher(CompressedImage, FRONT, 5)
    volatile = clinic.node.create_publisher(TFMessage, "/tf_static", QoSProfile(depth=1))
    text = (
        "    qos_overrides:\n"
        "      /cam_back/image_raw/compressed:\n"
        "        subscription: {reliability: reliable}\n"
    )
    found = clinic.findings(VehicleFaults(), text)
    qos = [finding.text for finding in found if finding.check == "QoS"]
    assert len(qos) == 2
    assert qos[0].startswith(
        "/vehicle publishes /cam_back/image_raw/compressed with reliability best effort"
    )
    assert qos[1].startswith("/odd publishes /tf_static with durability volatile")
    shared = next(finding.text for finding in found if finding.check == "publishers")
    assert f"CAM_FRONT: 2 publishers are on {FRONT}: /odd and /vehicle" in shared
    clinic.node.destroy_publisher(second)
    clinic.node.destroy_publisher(volatile)


def test_images_that_come_before_tf_is_connected(clinic: Clinic) -> None:
    faults = VehicleFaults(no_poses=True)
    # Within the time of discovery, in which a busy machine may connect one topic and not the other.
    connected = threading.Timer(1.0, setattr, (faults, "no_poses", False))
    connected.start()
    assert clinic.findings(faults) == []


def test_a_clock_that_nobody_tells(clinic: Clinic) -> None:
    found = clinic.findings(VehicleFaults(), "    use_sim_time: true\n")
    assert [finding.check for finding in found] == ["host clock"], found
    assert "nobody tells the time on /clock" in found[0].text
