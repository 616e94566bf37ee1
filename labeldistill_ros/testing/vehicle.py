# SPDX-License-Identifier: Apache-2.0
"""A vehicle that can be broken: six cameras at their true phases, poses, calibrations, and ears.

Everything goes over DDS. What is wrong with the vehicle stands in `Faults`, which may be changed
while it drives; what the detector says is remembered since the last `listen`.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from PIL import Image as Picture
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.messages import header, quaternion_of_yaw, values_of

PHASES_S = {
    "CAM_FRONT_LEFT": -0.0076,
    "CAM_FRONT": 0.0,
    "CAM_FRONT_RIGHT": 0.0081,
    "CAM_BACK_RIGHT": 0.0157,
    "CAM_BACK": 0.0252,
    "CAM_BACK_LEFT": 0.0350,
}
"""When each camera exposes within a cycle, as in nuScenes."""
HEADINGS_DEG = dict(zip(CAMERAS, (55, 0, -55, 110, 180, -110), strict=True))
_SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_BACKLOG = 20_000


@dataclass
class Faults:
    """What is wrong with the vehicle."""

    silent: set[str] = field(default_factory=set)
    """Cameras that send no images."""
    data: dict[str, bytes] = field(default_factory=dict)
    """Bytes in the place of a camera's images."""
    encoding: dict[str, str] = field(default_factory=dict)
    """Another encoding of a camera's raw images."""
    late_s: dict[str, float] = field(default_factory=dict)
    """Delay of a camera's messages; the stamps stay."""
    phase_s: dict[str, float] = field(default_factory=dict)
    """Shift of a camera's exposure."""
    twice: bool = False
    """Each image comes twice."""
    no_info: set[str] = field(default_factory=set)
    """Cameras without `camera_info`."""
    info: dict[str, Callable[[CameraInfo], None]] = field(default_factory=dict)
    """Changes a camera's `camera_info`."""
    no_poses: bool = False
    """/tf is silent."""
    unmounted: set[str] = field(default_factory=set)
    """Cameras whose mounting nobody tells."""
    pose_shift_m: float = 0.0
    """Of the localization."""
    time_shift_s: float = 0.0
    """Of all stamps."""


class Vehicle:
    """Drives in a thread of its own until it is closed."""

    def __init__(
        self,
        context: Context,
        *,
        period_s: float = 0.2,
        size_px: tuple[int, int] = (160, 90),
        raw: bool = False,
        packed_boxes: bool = False,
        faults: Faults | None = None,
    ) -> None:
        """Start to drive.

        Args:
            context: of ROS.
            period_s: between two cycles.
            size_px: width and height of the images.
            raw: images are not compressed.
            packed_boxes: boxes are received, but neither unpacked, which takes this process nine
                milliseconds for two hundred, nor remembered.
            faults: from the start on.
        """
        self.node = Node("vehicle", context=context)
        self.faults = faults or Faults()
        self.period_s, self.size_px, self.raw = period_s, size_px, raw
        self._packed_boxes = packed_boxes
        self.sent = 0
        """Images."""
        self.cycles = 0
        """Rounds of all cameras."""
        self.jump = threading.Event()
        self._pixels = _pixels(size_px)
        self.jpeg = _jpeg(self._pixels)
        """What every camera sends, unless it is raw or faulty."""
        self._lock = threading.Lock()
        self._heard: list[tuple[float, dict[str, str]]] = []
        self._logs: list[str] = []
        self._boxes: list[Detection3DArray] = []
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        self._static = self.node.create_publisher(TFMessage, "/tf_static", _LATCHED)
        self._moving = self.node.create_publisher(TFMessage, "/tf", 100)
        kind: Any = Image if raw else CompressedImage
        ending = "" if raw else "/compressed"
        self._kind, self._ending = kind, ending
        self._images = {c: self._image_publisher(c, _SENSOR) for c in CAMERAS}
        self._infos = {
            c: self.node.create_publisher(CameraInfo, f"/{c.lower()}/camera_info", _SENSOR)
            for c in CAMERAS
        }
        listen = self.node.create_subscription
        self._ears: list[Subscription[Any]] = []
        self.turn_back()
        listen(DiagnosticArray, "/detector/status", self._on_status, 50)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        listen(Log, "/rosout", self._on_log, 100)
        self.latencies: list[tuple[float, float]] = []
        """Steady time and `~/debug/latency/total_ms`, where `listen_to_latency` was called."""
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._spin, self._drive)
        ]
        self.mount()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stand still."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        self._executor.shutdown()
        self.node.destroy_node()

    def _image_publisher(self, camera: str, qos: QoSProfile) -> Any:
        topic = f"/{camera.lower()}/image_raw{self._ending}"
        return self.node.create_publisher(self._kind, topic, qos)

    def republish(self, camera: str, reliability: ReliabilityPolicy) -> None:
        """Give a camera's publisher another reliability."""
        old = self._images[camera]
        self._images[camera] = self._image_publisher(
            camera, QoSProfile(depth=5, reliability=reliability)
        )
        self.node.destroy_publisher(old)

    def turn_away(self) -> None:
        """Stop listening to boxes."""
        for ear in self._ears:
            self.node.destroy_subscription(ear)
        self._ears = []

    def turn_back(self) -> None:
        """Listen to boxes again."""
        packed = self._packed_boxes
        take: Callable[[Any], None] = (lambda _: None) if packed else self._on_boxes
        self._ears = [
            self.node.create_subscription(
                Detection3DArray, "/detector/detections", take, 50, raw=packed
            )
        ]

    def listen_to_latency(self) -> None:
        """Ask for the total latency of each set."""
        self.node.create_subscription(
            Float64,
            "/detector/debug/latency/total_ms",
            lambda m: self.latencies.append((time.monotonic(), m.data)),
            _SENSOR,
        )

    def listen(self) -> None:
        """Forget what was heard."""
        with self._lock:
            self._heard.clear()
            self._logs.clear()
            self._boxes.clear()
            self._diagnostics.clear()

    @property
    def sets(self) -> list[dict[str, str]]:
        """`~/status` of the sets since `listen`."""
        with self._lock:
            return [values for _, values in self._heard]

    @property
    def boxes(self) -> list[Detection3DArray]:
        """Boxes since `listen`."""
        with self._lock:
            return list(self._boxes)

    def told(self, text: str) -> bool:
        """Whether the node logged something since `listen`."""
        with self._lock:
            return any(text in line for line in self._logs)

    def diagnostic(self, name: str) -> DiagnosticStatus:
        """Newest status since `listen`; an empty one before it has come."""
        with self._lock:
            return self._diagnostics.get(name, DiagnosticStatus())

    def wait(self, condition: Callable[[], object], limit_s: float) -> float | None:
        """Seconds until something is so; None when it did not become so."""
        start_s = time.monotonic()
        while time.monotonic() - start_s < limit_s:
            if condition():
                return time.monotonic() - start_s
            time.sleep(0.01)
        return None

    def mount(self) -> None:
        """Tell where the cameras are mounted."""
        entries = [
            _stamped("base_link", f"{c.lower()}_optical_frame", *_mounting(HEADINGS_DEG[c]))
            for c in CAMERAS
            if c not in self.faults.unmounted
        ]
        self._static.publish(TFMessage(transforms=entries))

    def _on_status(self, message: DiagnosticArray) -> None:
        with self._lock:
            self._heard.append((time.monotonic(), values_of(message.status[0])))
            del self._heard[:-_BACKLOG]

    def _on_boxes(self, message: Detection3DArray) -> None:
        with self._lock:
            self._boxes.append(message)
            del self._boxes[:-100]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            self._diagnostics.update({s.name.split(": ")[1]: s for s in message.status})

    def _on_log(self, message: Log) -> None:
        with self._lock:
            self._logs.append(message.msg)
            del self._logs[:-1000]

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _drive(self) -> None:
        start_s, cycle = time.monotonic() + 0.05, 0
        start_ns = time.time_ns() + 50_000_000
        later: list[tuple[float, Callable[[], None]]] = []
        while not self._stop.is_set():
            faults = self.faults
            for camera, phase_s in sorted(
                PHASES_S.items(), key=lambda i: i[1] + faults.phase_s.get(i[0], 0.0)
            ):
                due_s = cycle * self.period_s + phase_s + faults.phase_s.get(camera, 0.0)
                stamp_ns = start_ns + round((due_s + faults.time_shift_s) * 1e9)
                due_s += start_s
                self._stop.wait(max(0.0, due_s - time.monotonic()))
                for _, publish in [entry for entry in later if entry[0] <= due_s]:
                    publish()
                later = [entry for entry in later if entry[0] > due_s]
                self._pose(stamp_ns)
                if camera not in faults.no_info:
                    self._infos[camera].publish(self._info(camera, stamp_ns))
                if camera in faults.silent:
                    continue
                message = self._image(camera, stamp_ns)
                for _ in range(1 + faults.twice):
                    self.sent += 1
                    if delay_s := faults.late_s.get(camera):
                        publisher = self._images[camera]
                        later.append(
                            (due_s + delay_s, lambda p=publisher, m=message: p.publish(m))  # type: ignore[misc]
                        )
                    else:
                        self._images[camera].publish(message)
            cycle += 1
            self.cycles = cycle

    def _pose(self, stamp_ns: int) -> None:
        if self.faults.no_poses:
            return
        along_m = (stamp_ns / 1e9 % 1000) * 5.0 + self.faults.pose_shift_m
        pose = _stamped("map", "base_link", (along_m, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), stamp_ns)
        self._moving.publish(TFMessage(transforms=[pose]))

    def _info(self, camera: str, stamp_ns: int) -> CameraInfo:
        (width, height), frame = self.size_px, f"{camera.lower()}_optical_frame"
        info = CameraInfo(header=header(stamp_ns, frame), width=width, height=height)
        f = 0.7 * width
        info.k = np.array([f, 0, width / 2, 0, f, height / 2, 0, 0, 1], dtype=float)
        info.p = np.array([f, 0, width / 2, 0, 0, f, height / 2, 0, 0, 0, 1, 0], dtype=float)
        info.d, info.distortion_model = [0.0] * 5, "plumb_bob"
        if change := self.faults.info.get(camera):
            change(info)
        return info

    def _image(self, camera: str, stamp_ns: int) -> Image | CompressedImage:
        head = header(stamp_ns, f"{camera.lower()}_optical_frame")
        if not self.raw:
            message = CompressedImage(header=head, format="jpeg")
            message.data.frombytes(self.faults.data.get(camera, self.jpeg))
            return message
        width, height = self.size_px
        encoding = self.faults.encoding.get(camera, "rgb8")
        image = Image(header=head, width=width, height=height, encoding=encoding, step=3 * width)
        image.data.frombytes(self._pixels.tobytes())
        return image


def counter(values: Mapping[str, str], key: str) -> int:
    """A number of a status, zero when it is not there."""
    return int(float(values.get(key, "0")))


def _pixels(size_px: tuple[int, int]) -> Any:
    width, height = size_px
    small = np.random.default_rng(0).integers(0, 255, (height // 20, width // 20, 3), np.uint8)
    return np.asarray(Picture.fromarray(small).resize(size_px))


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


_Xyz = tuple[float, float, float]
_Wxyz = tuple[float, float, float, float]


def _mounting(heading_deg: float) -> tuple[_Xyz, _Wxyz]:
    """Optical frame in the vehicle: one metre from its middle, looking outwards."""
    a = np.deg2rad(heading_deg)
    turn, optical = quaternion_of_yaw(a), (0.5, -0.5, 0.5, -0.5)
    w, z = turn.w, turn.z
    ow, ox, oy, oz = optical
    wxyz = (w * ow - z * oz, w * ox - z * oy, w * oy + z * ox, w * oz + z * ow)
    return (float(np.cos(a)), float(np.sin(a)), 1.5), wxyz


def _stamped(
    parent: str, child: str, xyz: _Xyz, wxyz: _Wxyz, stamp_ns: int = 0
) -> TransformStamped:
    message = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = xyz
    r.w, r.x, r.y, r.z = wxyz
    return message
