# SPDX-License-Identifier: Apache-2.0
"""A vehicle for tests: six cameras, transforms and ears, over real DDS."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from PIL import Image as Picture
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from labeldistill_core.cameras import (
    CAMERAS,
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraView,
    FrameSet,
)
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.frames import Transform
from labeldistill_ros.messages import header, stamp_to_ns, values_of

WIDTH, HEIGHT = 160, 90
START_NS = 1_600_000_000_000_000_000
PERIOD_NS = 100_000_000
PHASE_NS = 5_000_000
HEADINGS_DEG = dict(zip(CAMERAS, (55, 0, -55, 110, 180, -110), strict=True))
PATIENT = {"sync.deadline": 1.5, "sync.max_age": 5.0}
"""Parameters of a node that waits for all cameras also on a machine that is busy elsewhere."""
K = np.array([[110.0, 0.0, 80.0], [0.0, 110.0, 45.0], [0.0, 0.0, 1.0]])


def jpeg(seed: int) -> bytes:
    """A picture with large patches, so that compression leaves it much the same."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(small).resize((WIDTH, HEIGHT)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def ego_from_camera(camera: str) -> Transform:
    a = np.deg2rad(HEADINGS_DEG[camera])
    ahead, left, up = np.array([np.cos(a), np.sin(a), 0]), [-np.sin(a), np.cos(a), 0], [0, 0, 1]
    rotation = np.stack([-np.array(left), -np.array(up), ahead], axis=1)
    return Transform(EGO_FRAME, camera, rotation, ahead + [0, 0, 1.5])


def map_from_ego(stamp_ns: int) -> Transform:
    """10 m/s ahead, turning at 0.1 rad/s."""
    t = (stamp_ns - START_NS) / 1e9
    q = (np.cos(0.05 * t), 0, 0, np.sin(0.05 * t))
    return Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, q, [500 + 10 * t, 900 + t, 0.5])


def stamped(transform: Transform, parent: str, child: str, stamp_ns: int) -> TransformStamped:
    message = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, transform.translation)
    r.w, r.x, r.y, r.z = map(float, transform.quaternion)
    return message


def stamp_of(cycle: int, camera: str) -> int:
    return START_NS + cycle * PERIOD_NS + CAMERAS.index(camera) * PHASE_NS


def offline_set(cycle: int, cameras: Collection[str] = CAMERAS) -> FrameSet:
    """The set as a data set would give it."""
    views = []
    for camera in cameras:
        calibration = CameraCalibration(camera, K, WIDTH, HEIGHT, ego_from_camera(camera))
        stamp_ns = stamp_of(cycle, camera)
        pixels = decode_jpeg(jpeg(seed_of(cycle, camera)))
        views.append(CameraView(calibration, stamp_ns, pixels, map_from_ego(stamp_ns)))
    return FrameSet(stamp_of(cycle, "CAM_FRONT"), tuple(views))


def seed_of(cycle: int, camera: str) -> int:
    return cycle * 10 + CAMERAS.index(camera)


class Vehicle:
    """Publishes cycles of images and keeps what the detector says."""

    def __init__(self, context: Context) -> None:
        self.node = Node("vehicle", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.detections: list[Detection3DArray] = []
        self.tables: list[PointCloud2] = []
        self.markers: list[MarkerArray] = []
        self.status: list[dict[str, str]] = []
        self.ended: list[int] = []
        """Cycles in the order in which the detector told of their end."""
        self.diagnostics: dict[str, Any] = {}
        listen = self.node.create_subscription
        listen(Detection3DArray, "/detector/detections", self.detections.append, 10)
        listen(PointCloud2, "/detector/detections_table", self.tables.append, 10)
        listen(MarkerArray, "/detector/markers", self.markers.append, 10)
        listen(DiagnosticArray, "/detector/status", self._on_status, 50)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.static = self.node.create_publisher(TFMessage, "/tf_static", latched)
        self.moving = self.node.create_publisher(TFMessage, "/tf", 100)
        sensor = qos_profile_sensor_data
        self.images, self.infos = {}, {}
        for camera in CAMERAS:
            base = f"/{camera.lower()}"
            self.images[camera] = self.node.create_publisher(
                CompressedImage, f"{base}/image_raw/compressed", sensor
            )
            self.infos[camera] = self.node.create_publisher(
                CameraInfo, f"{base}/camera_info", sensor
            )

    def _on_status(self, message: DiagnosticArray) -> None:
        self.status.append(values_of(message.status[0]))
        self.ended.append((stamp_to_ns(message.header.stamp) - START_NS) // PERIOD_NS)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics = {s.name.split(": ")[1]: s for s in message.status}

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
        """Spin until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}; {self.status[-3:]}"
            self.executor.spin_once(timeout_sec=0.05)

    def connect(self, *, mounts: bool = True) -> None:
        """Wait until the detector hears the cameras and is heard; tell where they are mounted."""
        if mounts:
            self.mount()
        publishers = [*self.images.values(), *self.infos.values(), self.moving]
        self.wait(
            lambda: (
                all(p.get_subscription_count() for p in publishers)
                and self.node.count_publishers("/detector/detections")
            ),
            "the detector is there",
        )
        self.spin(0.3)

    def mount(self) -> None:
        entries = [
            stamped(ego_from_camera(c), "base_link", f"{c.lower()}_optical_frame", START_NS)
            for c in CAMERAS
        ]
        self.static.publish(TFMessage(transforms=entries))

    def info(self, camera: str, stamp_ns: int) -> CameraInfo:
        message = CameraInfo(header=header(stamp_ns, f"{camera.lower()}_optical_frame"))
        message.width, message.height = WIDTH, HEIGHT
        message.k, message.d = K.ravel(), [0.0] * 5
        message.distortion_model = "plumb_bob"
        message.p = np.concatenate([K, np.zeros((3, 1))], axis=1).ravel()
        return message

    def cycle(
        self,
        number: int,
        *,
        without: Collection[str] = (),
        data: dict[str, bytes] | None = None,
        unstamped: Collection[str] = (),
        infos: bool | Collection[str] = True,
        poses: bool = True,
        change_info: Callable[[CameraInfo], None] | None = None,
    ) -> None:
        """Publish the images of a cycle with their poses and calibrations, in real time."""
        begin = time.monotonic()
        for camera in sorted(CAMERAS, key=lambda c: stamp_of(number, c)):
            stamp_ns = stamp_of(number, camera)
            if poses:
                pose = stamped(map_from_ego(stamp_ns), "map", "base_link", stamp_ns)
                self.moving.publish(TFMessage(transforms=[pose]))
            if infos is True or (infos and camera in infos):
                info = self.info(camera, stamp_ns)
                if change_info:
                    change_info(info)
                self.infos[camera].publish(info)
            if camera not in without:
                sent_ns = 0 if camera in unstamped else stamp_ns
                message = CompressedImage(
                    header=header(sent_ns, f"{camera.lower()}_optical_frame"), format="jpeg"
                )
                message.data = (data or {}).get(camera) or jpeg(seed_of(number, camera))
                self.images[camera].publish(message)
            self.spin(PHASE_NS / 1e9)
        self.spin(max(0.0, PERIOD_NS / 1e9 - (time.monotonic() - begin)))

    def drive(self, numbers: Iterable[int], *, settle_s: float = 1.0, **changes: Any) -> None:
        """Publish several cycles, each when the detector has told of the end of the one before.

        At the start, and with a camera missing, sets end later; then the next cycle comes anyway.
        """
        for number in numbers:
            self.cycle(number, **changes)
            end = time.monotonic() + settle_s
            while number not in self.ended[-2:] and time.monotonic() < end:
                self.executor.spin_once(timeout_sec=0.02)

    def drive_until(
        self, condition: Callable[[], object], first: int, *, most: int = 60, **changes: Any
    ) -> int:
        """Publish cycles from `first` on until something is so; gives the next cycle's number."""
        for number in range(first, first + most):
            self.drive([number], **changes)
            if condition():
                return number + 1
        raise AssertionError(f"not within {most} cycles; {self.status[-3:]}")

    def outcomes(self) -> list[str]:
        return [status["outcome"] for status in self.status]
