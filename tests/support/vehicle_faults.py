# SPDX-License-Identifier: Apache-2.0
"""What may be wrong with the messages of a vehicle, one fault a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages import header, stamp_from_ns
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import transform_stamped

Change = Callable[[str, Any], Any]
"""From topic and message to the message, or None where it is lost."""
IMAGES = {f"/{c.lower()}/image_raw/compressed": c for c in CAMERAS}
INFOS = {f"/{c.lower()}/camera_info": c for c in CAMERAS}
BACK, INFO = "/cam_back/image_raw/compressed", "/cam_back/camera_info"
CLOUD = "sensor_msgs/msg/PointCloud2"
LOST, JITTER = CameraFaults(drop=0.2), CameraFaults(jitter_ms=25.0)
TURNED = CameraFaults(miscalibrate_deg=90.0)


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def shift(message: Any, ns: int) -> Any:
    message.header.stamp = stamp_from_ns(stamp_ns(message) + ns, BAG)
    return message


def altered(bag: Path, out: Path, change: Change) -> Path:
    """The bag with other messages at the same log times."""
    with BagReader(bag) as reader, BagWriter(out) as writer:
        for recorded, message in reader.messages(list(reader.topics)):
            if (new := change(recorded.topic, message)) is not None:
                writer.write(recorded.topic, recorded.msgtype, new, recorded.stamp_ns)
    return out


def of_image(act: Callable[[str, Any], Any]) -> Change:
    """Only images are changed, by camera."""
    return lambda topic, message: act(IMAGES[topic], message) if topic in IMAGES else message


def of_topic(name: str, act: Callable[[Any], Any]) -> Change:
    return lambda topic, message: act(message) if topic == name else message


def lost(camera: str, message: Any) -> Any:
    gone = camera == "CAM_BACK" and LOST.lost(str(stamp_ns(message)), camera, 0)
    return None if gone else message


def jitter(camera: str, message: Any) -> Any:
    error_ns = JITTER.stamp_error_ns(str(stamp_ns(message)))
    return shift(message, error_ns) if camera == "CAM_BACK" else message


def late_clock(camera: str, message: Any) -> Any:
    return shift(message, 300_000_000) if camera == "CAM_BACK" else message


def no_stamp(message: Any) -> Any:
    message.header.stamp = stamp_from_ns(0, BAG)
    return message


def uncalibrated(message: Any) -> Any:
    message.k = np.zeros(9)
    return message


def endless_lens(message: Any) -> Any:
    message.d = np.array([1e200, 0, 0, 0, 0])
    return message


SOMETIME_NS = 1_600_000_001_000_000_000


def one_of_1970(message: Any) -> Any:
    at_ns = stamp_ns(message)
    odd = SOMETIME_NS <= at_ns < SOMETIME_NS + 83_000_000  # one cycle at 12 Hz
    return shift(message, -at_ns + 5 * 10**9) if odd else message


def set_clock(topic: str, message: Any) -> Any:
    parts = message.transforms if topic == "/tf" else [message] if topic in IMAGES else []
    for part in parts:
        if stamp_ns(part) > 1_600_000_001_500_000_000:
            shift(part, 37 * 10**9)
    return message


def larger(message: Any) -> Any:
    message.width, message.height = 2 * message.width, 2 * message.height
    message.k = message.k * np.array([2.0, 1, 2, 1, 2, 2, 1, 1, 1])
    return message


def cut_off(message: Any) -> Any:
    message.data = message.data[: len(message.data) // 2]
    return message


def unmounted(message: Any) -> Any:
    entries = [t for t in message.transforms if "cam_back_optical" not in t.child_frame_id]
    return BAG.make("tf2_msgs/msg/TFMessage", transforms=entries)


def swapped(message: Any) -> Any:
    names = {"cam_front_optical_frame": "cam_back_optical_frame"}
    names |= {new: old for old, new in names.items()}
    for entry in message.transforms:
        entry.child_frame_id = names.get(entry.child_frame_id, entry.child_frame_id)
    return message


def turned(message: Any) -> Any:
    for entry in message.transforms:
        name = entry.child_frame_id.removesuffix("_optical_frame").upper()
        r, t = entry.transform.rotation, entry.transform.translation
        at = Transform.from_quaternion("ego", name, (r.w, r.x, r.y, r.z), (t.x, t.y, t.z))
        moved = TURNED.mounted(at)
        new = transform_stamped(moved, stamp_ns(entry), "base_link", entry.child_frame_id, BAG)
        entry.transform = new.transform
    return message


def two_parents(topic: str, message: Any) -> Any:
    if topic == "/tf":
        first = message.transforms[0]
        second = BAG.make(
            "geometry_msgs/msg/TransformStamped",
            header=header(stamp_ns(first), "odom", BAG),
            child_frame_id="base_link",
            transform=first.transform,
        )
        message.transforms = [first, second]
    return message


def late_poses(message: Any) -> Any:
    for entry in message.transforms:
        shift(entry, 60 * 10**9)
    return message


def dead(camera: str, message: Any) -> Any:
    return (
        None if camera == "CAM_BACK" and stamp_ns(message) > 1_600_000_001_000_000_000 else message
    )
