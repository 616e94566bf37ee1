# SPDX-License-Identifier: Apache-2.0
"""A vehicle that can be broken: six cameras at their true phases, poses, calibrations, and ears.

Everything goes over DDS. What is wrong with the vehicle stands in `VehicleFaults`, which may be
changed while it drives; what the detector says is remembered, see `Ears`. It drives by itself, or,
given a course, step by step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from labeldistill_core.frames import Transform
from labeldistill_ros.messages import header
from labeldistill_ros.ros_names import ros_name
from labeldistill_ros.testing.course import Course, ego_from_camera, jpeg, picture
from labeldistill_ros.testing.ears import Ears

_SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass
class VehicleFaults:
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
    unstamped: set[str] = field(default_factory=set)
    """Cameras whose images have no stamp."""
    twice: bool = False
    """Each image comes twice."""
    reliable: set[str] = field(default_factory=set)
    """Cameras whose images are published reliably; at the start, see `Vehicle.republish`."""
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


class Vehicle(Ears):
    """Its node is spun by a thread of its own until it is closed; so are the cameras, usually."""

    def __init__(
        self,
        context: Context,
        *,
        period_s: float = 0.2,
        size_px: tuple[int, int] = (160, 90),
        raw: bool = False,
        packed_boxes: bool = False,
        faults: VehicleFaults | None = None,
        course: Course | None = None,
    ) -> None:
        """Start to drive, or wait for `cycle` where a course is given.

        Args:
            context: of ROS.
            period_s: between two cycles.
            size_px: width and height of the images.
            raw: images are not compressed.
            packed_boxes: boxes are received, but neither unpacked nor remembered, see `Ears`.
            faults: from the start on.
            course: where it goes, step by step; each image is another one. From now on, with the
                period and the size above and one picture for all images, when None.
        """
        super().__init__(Node("vehicle", context=context), packed_boxes)
        self.faults = faults or VehicleFaults()
        self._itself = course is None
        # A little ahead, as the threads have to start before the first image is due.
        self.course = course or Course(time.time_ns() + 50_000_000, period_s, size_px=size_px)
        self.raw = raw
        self.sent = 0
        """Images."""
        self.cycles = 0
        """Rounds of all cameras."""
        self._late: list[tuple[float, Callable[[], None]]] = []
        # Made once: a picture an image would take the time of a core.
        self._pixels = {
            size: picture(size, seed=0) for size in map(self.course.size_of, self.course.cameras)
        }
        self.jpeg = jpeg(next(iter(self._pixels.values())))
        """What every camera sends where the vehicle drives by itself, unless raw or faulty."""
        self._static = self.node.create_publisher(TFMessage, "/tf_static", _LATCHED)
        self._moving = self.node.create_publisher(TFMessage, "/tf", 100)
        self._kind: Any = Image if raw else CompressedImage
        self._ending = "" if raw else "/compressed"
        self._images = {c: self._image_publisher(c, _SENSOR) for c in self.course.cameras}
        for camera in self.faults.reliable:
            self.republish(camera, ReliabilityPolicy.RELIABLE)
        self._infos = {
            c: self.node.create_publisher(CameraInfo, f"/{ros_name(c)}/camera_info", _SENSOR)
            for c in self.course.cameras
        }
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        runs = (self._spin, self._drive) if self._itself else (self._spin,)
        self._threads = [threading.Thread(target=run, daemon=True) for run in runs]
        if self._itself:
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

    def connect(self) -> None:
        """Tell the mountings and wait until the detector hears the cameras and is heard."""
        self.mount()
        publishers = [*self._images.values(), *self._infos.values(), self._moving]
        self.expect(
            lambda: (
                all(p.get_subscription_count() for p in publishers)
                and self.node.count_publishers("/detector/detections")
                and self.matched()
            ),
            "the detector is there",
        )
        # Discovery tells of a subscription before all of its matches are made.
        time.sleep(0.3)

    def cycle(self, number: int, **wrong: Any) -> None:
        """Send one cycle in real time.

        Args:
            number: of the cycle.
            **wrong: fields of `VehicleFaults` for this cycle.
        """
        # A copy, so that a fault of one cycle does not stay in what the caller handed in.
        usual, self.faults = self.faults, replace(self.faults, **wrong)
        begin_s, phases_s = time.monotonic(), self.course.phases_s
        first_s = min(phases_s.values())
        for camera in self.course.order:
            due_s = begin_s + phases_s[camera] - first_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._send(camera, self.course.stamp_ns(number, camera), due_s)
        time.sleep(max(0.0, begin_s + self.course.period_s - time.monotonic()))
        self.faults = usual

    def drive(self, numbers: Iterable[int], *, settle_s: float = 1.0, **wrong: Any) -> None:
        """Send several cycles, each when the detector has told of the end of the one before.

        At the start, and with a camera missing, sets end later; then the next cycle comes anyway.
        """
        for number in numbers:
            self.cycle(number, **wrong)
            self.wait(
                lambda n=number: n in map(self.course.cycle_of, self.ended_ns[-2:]),  # type: ignore[misc]
                settle_s,
            )

    def drive_until(
        self, condition: Callable[[], object], first: int, *, most: int = 60, **wrong: Any
    ) -> int:
        """Send cycles from `first` on until something is so; gives the next cycle's number.

        Raises:
            TimeoutError: it did not become so within `most` cycles.
        """
        for number in range(first, first + most):
            self.drive([number], **wrong)
            if condition():
                return number + 1
        raise TimeoutError(f"not within {most} cycles; {self.sets[-3:]}")

    def republish(self, camera: str, reliability: ReliabilityPolicy) -> None:
        """Give a camera's publisher another reliability."""
        self.silence(camera)
        self._images[camera] = self._image_publisher(
            camera, QoSProfile(depth=5, reliability=reliability)
        )

    def silence(self, camera: str) -> None:
        """Take a camera's images away for good, together with their topic."""
        self.node.destroy_publisher(self._images.pop(camera))

    def mount(self) -> None:
        """Tell where the cameras are mounted."""
        entries = [
            _stamped_pose(
                ego_from_camera(c, self.course.headings_deg),
                "base_link",
                f"{ros_name(c)}_optical_frame",
            )
            for c in self.course.cameras
            if c not in self.faults.unmounted
        ]
        self._static.publish(TFMessage(transforms=entries))

    def tell_pose(self, stamp_ns: int) -> None:
        """Publish where the vehicle is, unless localization is silent."""
        if self.faults.no_poses:
            return
        pose = _stamped_pose(self.course.map_from_ego(stamp_ns), "map", "base_link", stamp_ns)
        pose.transform.translation.x += self.faults.pose_shift_m
        self._moving.publish(TFMessage(transforms=[pose]))

    def info(self, camera: str, stamp_ns: int) -> CameraInfo:
        """The calibration of a camera as its driver tells it, with the fault that it has."""
        (width, height), frame = self.course.size_of(camera), f"{ros_name(camera)}_optical_frame"
        info = CameraInfo(header=header(stamp_ns, frame), width=width, height=height)
        k = self.course.intrinsics_of(camera)
        info.k, info.p = k.ravel(), [*k[0], 0.0, *k[1], 0.0, *k[2], 0.0]
        info.d, info.distortion_model = [0.0] * 5, "plumb_bob"
        if change := self.faults.info.get(camera):
            change(info)
        return info

    def _image_publisher(self, camera: str, qos: QoSProfile) -> Any:
        topic = f"/{ros_name(camera)}/image_raw{self._ending}"
        return self.node.create_publisher(self._kind, topic, qos)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _drive(self) -> None:
        start_s = time.monotonic() + (self.course.start_ns - time.time_ns()) / 1e9
        while not self._stop.is_set():
            shifts_s = self.faults.phase_s
            for camera in sorted(
                self.course.cameras, key=lambda c: self.course.phases_s[c] + shifts_s.get(c, 0.0)
            ):
                shift_s = shifts_s.get(camera, 0.0)
                stamp_ns = self.course.stamp_ns(self.cycles, camera) + round(shift_s * 1e9)
                due_s = start_s + (stamp_ns - self.course.start_ns) / 1e9
                self._stop.wait(max(0.0, due_s - time.monotonic()))
                self._send(camera, stamp_ns + round(self.faults.time_shift_s * 1e9), due_s)
            self.cycles += 1

    def _send(self, camera: str, stamp_ns: int, due_s: float) -> None:
        """Publish what a camera says at an instant, and what is late until then."""
        for _, publish in [entry for entry in self._late if entry[0] <= due_s]:
            publish()
        # Published in the camera's own thread and not by timers, so that the order stays what the
        # fault asks for.
        self._late = [entry for entry in self._late if entry[0] > due_s]
        # Taken once for an image, as faults change in another thread while the vehicle drives.
        faults, publisher = self.faults, self._images.get(camera)
        self._pose(stamp_ns)
        # Pose and calibration before the image, as drivers do, so that a set need not wait for
        # them.
        if camera not in faults.no_info:
            self._infos[camera].publish(self._info(camera, stamp_ns))
        if camera in faults.silent or publisher is None:
            return
        message = self._image(camera, stamp_ns)
        for _ in range(1 + faults.twice):
            self.sent += 1
            if delay_s := faults.late_s.get(camera):
                self._late.append((due_s + delay_s, partial(publisher.publish, message)))
            else:
                publisher.publish(message)

    def _pose(self, stamp_ns: int) -> None:
        self.tell_pose(stamp_ns)

    def _info(self, camera: str, stamp_ns: int) -> CameraInfo:
        return self.info(camera, stamp_ns)

    def _image(self, camera: str, stamp_ns: int) -> Image | CompressedImage:
        sent_ns = 0 if camera in self.faults.unstamped else stamp_ns
        head = header(sent_ns, f"{ros_name(camera)}_optical_frame")
        if not self.raw:
            message = CompressedImage(header=head, format="jpeg")
            message.data.frombytes(self.faults.data.get(camera) or self._jpeg(camera, stamp_ns))
            return message
        width, height = self.course.size_of(camera)
        encoding = self.faults.encoding.get(camera, "rgb8")
        image = Image(header=head, width=width, height=height, encoding=encoding, step=3 * width)
        image.data.frombytes(self._pixels[width, height].tobytes())
        return image

    def _jpeg(self, camera: str, stamp_ns: int) -> bytes:
        if self._itself:
            return self.jpeg
        return self.course.jpeg(self.course.cycle_of(stamp_ns), camera)


def counter(values: Mapping[str, str], key: str) -> int:
    """A number of a status, zero when it is not there."""
    return int(float(values.get(key, "0")))


def _stamped_pose(
    transform: Transform, parent: str, child: str, stamp_ns: int = 0
) -> TransformStamped:
    x, y, z = map(float, transform.translation)
    qw, qx, qy, qz = map(float, transform.quaternion)
    return _stamped(parent, child, (x, y, z), (qw, qx, qy, qz), stamp_ns)


_Xyz = tuple[float, float, float]
_Wxyz = tuple[float, float, float, float]


def _stamped(
    parent: str, child: str, xyz: _Xyz, wxyz: _Wxyz, stamp_ns: int = 0
) -> TransformStamped:
    message = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = xyz
    r.w, r.x, r.y, r.z = wxyz
    return message
