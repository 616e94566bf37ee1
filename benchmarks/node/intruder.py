# SPDX-License-Identifier: Apache-2.0
"""A participant that sends to each door of the detector what should not come there.

It writes to the same topics as the cameras, localization and clock, and calls the node's services.
"""

from __future__ import annotations

import io
import math
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.srv import ChangeState
from PIL import Image as Picture
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.messages import header, stamp_from_ns

_SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_ODD = (0.0, -1.0, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf)
_NAMES = ("", "map", "base_link", "cam_front_optical_frame", "\x1b[2J", "x" * 5000, "é😀", "a\nb")
_OF_VEHICLE = ("map", "base_link", "cam_front_optical_frame")
# Pillow hands EPS to Ghostscript, which would run this endless loop.
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 160 90\n%%EndComments\n{} loop\n"


def _encoded(size: tuple[int, int], form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Picture.new("L", size, 128).save(buffer, form, **options)
    return buffer.getvalue()


def _claiming(width: int, height: int) -> bytes:
    """A PNG whose head claims a size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk


def _of_many_scans() -> bytes:
    jpeg = _encoded((1600, 900), "JPEG", progressive=True)
    # A decoder goes over the whole image for each scan, however few bytes the scan has.
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    return jpeg[:-2] + scan * 500 + jpeg[-2:]


class Intruder:
    """Sends one thing after the other, drawn from a seed."""

    def __init__(self, node: Node, jpeg: bytes, seed: int) -> None:
        """Advertise.

        Args:
            node: that publishes and calls.
            jpeg: what a healthy camera sends; parts of it are damaged.
            seed: of what is drawn.
        """
        self._node, self._jpeg, self._random = node, jpeg, random.Random(seed)
        self._bombs = (
            _encoded((8000, 8000), "JPEG", quality=30),
            _of_many_scans(),
            _claiming(60_000, 60_000),
            _EPS,
        )
        create = node.create_publisher
        self._images = {
            c: create(CompressedImage, f"/{c.lower()}/image_raw/compressed", _SENSOR)
            for c in CAMERAS
        }
        self._infos = {c: create(CameraInfo, f"/{c.lower()}/camera_info", _SENSOR) for c in CAMERAS}
        self._moving = create(TFMessage, "/tf", 100)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = create(TFMessage, "/tf_static", latched)
        self._clock = create(Clock, "/clock", 10)
        client = node.create_client
        self._enable: Client[Any, Any] = client(SetBool, "/detector/enable")
        self._triggers: list[Client[Any, Any]] = [
            client(Trigger, f"/detector/{name}") for name in ("reset_temporal", "relearn_offsets")
        ]
        self._parameters: Client[Any, Any] = client(SetParameters, "/detector/set_parameters")
        self._change: Client[Any, Any] = client(ChangeState, "/detector/change_state")
        self.sent: Counter[str] = Counter()
        """How many messages and calls went to each door."""
        self._doors: dict[str, Callable[[], None]] = {
            "images": self._image,
            "camera_info": self._info,
            "transforms": self._transform,
            "clock": self._time,
            "services": self._call,
            "parameters": self._parameter,
        }

    def act(self) -> None:
        """Send one thing to one door."""
        door = self._random.choice(tuple(self._doors))
        self._doors[door]()
        self.sent[door] += 1

    def _stamp_ns(self) -> int:
        now_ns, draw = time.time_ns(), self._random.random()
        # Most are of now, so that what is in the images gets as far as the decoder.
        if draw < 0.7:
            return now_ns
        return self._random.choice((0, 1, now_ns + 10**13, now_ns - 10**10, 2**31 * 10**9 - 1))

    def _camera(self) -> str:
        return self._random.choice(CAMERAS)

    def _damaged(self) -> bytes:
        data, rng = bytearray(self._jpeg), self._random
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.5 else data)

    def _image(self) -> None:
        rng, camera = self._random, self._camera()
        frame = rng.choice((f"{camera.lower()}_optical_frame", rng.choice(_NAMES)))
        message = CompressedImage(header=header(self._stamp_ns(), frame))
        message.format = rng.choice(("jpeg", "png", "bayer_rggb8; jpeg compressed ", "x" * 9000))
        draws = (rng.choice(self._bombs), self._damaged(), rng.randbytes(rng.randint(0, 500)))
        message.data.frombytes(rng.choice(draws))
        self._images[camera].publish(message)

    def _info(self) -> None:
        rng, camera = self._random, self._camera()
        odd = [rng.choice(_ODD) for _ in range(12)]
        info = CameraInfo(header=header(self._stamp_ns(), rng.choice(_NAMES)))
        info.width, info.height = (rng.choice((0, 1, 160, 2**31)) for _ in range(2))
        info.k, info.p = odd[:9], odd
        info.d = [rng.choice(_ODD) for _ in range(rng.randint(0, 14))]
        info.distortion_model = rng.choice(("plumb_bob", "equidistant", "", "x" * 5000))
        info.binning_x, info.roi.width = rng.choice((0, 3, 2**31)), rng.choice((0, 7, 2**31))
        self._infos[camera].publish(info)

    def _transform(self) -> None:
        rng = self._random
        names = (*_NAMES, "odom", f"frame{rng.randrange(3000)}")
        message = TransformStamped(header=header(self._stamp_ns(), rng.choice(names)))
        message.child_frame_id = rng.choice(names)
        turn, place = message.transform.rotation, message.transform.translation
        turn.x, turn.y, turn.z, turn.w = (
            (0.0, 0.0, 0.0, 1.0) if rng.random() < 0.5 else [rng.choice(_ODD) for _ in range(4)]
        )
        place.x, place.y, place.z = (rng.choice(_ODD) for _ in range(3))
        # Whoever may overwrite the vehicle's pose or a mounting steers what is seen, rightly; a
        # static transform holds for as long as its publisher lives.
        edge = (message.header.frame_id, message.child_frame_id)
        static = rng.random() < 0.2 and message.child_frame_id not in _OF_VEHICLE
        if edge not in (("map", "base_link"), ("base_link", "cam_front_optical_frame")):
            publisher = self._static if static else self._moving
            publisher.publish(TFMessage(transforms=[message]))

    def _time(self) -> None:
        sec = self._random.choice((-5, 0, 1, 1_600_000_000, 2**31 - 1, -(2**31)))
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = sec, self._random.choice((0, 10**9 - 1, 2**32 - 1))
        self._clock.publish(clock)

    def _call(self) -> None:
        rng = self._random
        if rng.random() < 0.3:
            self._enable.call_async(SetBool.Request(data=False))
            self._enable.call_async(SetBool.Request(data=True))
        elif rng.random() < 0.5:
            rng.choice(self._triggers).call_async(Trigger.Request())
        else:  # transitions that an active node does not have
            request = ChangeState.Request()
            request.transition.id = rng.choice((0, 1, 2, 3, 99, 255))
            request.transition.label = rng.choice(_NAMES)
            self._change.call_async(request)

    def _parameter(self) -> None:
        rng = self._random
        names = ("max_boxes", "score_threshold", "max_rate", "sync.tolerance", "model", "nobody's")
        kinds = ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_STRING
        value = ParameterValue(type=rng.choice(kinds))
        value.double_value, value.string_value = rng.choice(_ODD), rng.choice(_NAMES)
        name = rng.choice((*names, rng.choice(_NAMES)))
        # the good value, which the node would rightly take, is not among them
        if name == "score_threshold" and value.double_value == 0.0:
            value.double_value = math.nan
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        self._parameters.call_async(request)


def healthy_clock(node: Node) -> Callable[[], None]:
    """Publishes this machine's time on /clock each time that it is called."""
    publisher = node.create_publisher(Clock, "/clock", 10)
    return lambda: publisher.publish(Clock(clock=stamp_from_ns(time.time_ns())))


def finite(values: list[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if np.isfinite(value)]
