# SPDX-License-Identifier: Apache-2.0
"""A recording of any length and of real size: six cameras at 12 Hz, a LiDAR at 20 Hz, labels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.frames import Transform
from labeldistill_core.synthetic.rig import Rig, nuscenes_rig
from labeldistill_ros.bags.message_types import with_data
from labeldistill_ros.bags.sensors import (
    BASE_FRAME,
    MAP_FRAME,
    image_topic,
    info_topic,
    optical_frame,
    points_topic,
)
from labeldistill_ros.bags.truth import TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.calibration import camera_info
from labeldistill_ros.messages.geometry import transform_stamped
from labeldistill_ros.messages.stamps import header
from labeldistill_ros.messages.tables import cloud_message

_START_NS = 1_600_000_000_000_000_000
_IMAGE, _CLOUD, _TF = (
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/PointCloud2",
    "tf2_msgs/msg/TFMessage",
)
_ROWS = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity", "ring")])
_POINTS, _BOXES = 34_000, 40
"""Of a scan, and of a key frame, as nuScenes has them in the mean."""


@dataclass(frozen=True)
class Recording:
    """What is recorded."""

    seconds: float
    """Length of the drive."""
    size_px: tuple[int, int] = (1600, 900)
    """Of the images."""
    lidar: bool = True
    """Whether there are scans."""


def write_recording(bag: Path, recording: Recording) -> None:
    """Write a bag of a vehicle that drives straight on, whose sensors see noise."""
    rig, rng = nuscenes_rig(*recording.size_px), np.random.default_rng(0)
    # One picture a camera, since to encode each image anew would take minutes.
    pictures = [_jpeg(recording.size_px, rng) for _ in rig.cameras]
    scan = rng.normal(0, 20, (_POINTS, 5)).astype(np.float32).view(_ROWS).reshape(-1)
    events: list[tuple[float, str, int]] = []
    for number, camera in enumerate(rig.cameras):
        events += [(t, "image", number) for t in _times(recording, 12, camera.phase)]
    events += [(t, "pose", 0) for t in _times(recording, 100, 0)]
    events += [(t, "labels", 0) for t in _times(recording, 2, 0)]
    if recording.lidar:
        events += [(t, "scan", 0) for t in _times(recording, 20, 0)]
    with BagWriter(bag) as writer:
        writer.write("/tf_static", _TF, _mountings(rig), _START_NS)
        for time_s, kind, number in sorted(events):
            stamp_ns = _START_NS + round(time_s * 1e9)
            _write(writer, rig, kind, number, stamp_ns, pictures, scan)


def _write(
    writer: BagWriter,
    rig: Rig,
    kind: str,
    number: int,
    stamp_ns: int,
    pictures: list[bytes],
    scan: np.ndarray[Any, Any],
) -> None:
    if kind == "image":
        camera = rig.cameras[number]
        frame = optical_frame(camera.name)
        info = camera_info(camera.intrinsics_px, camera.size, stamp_ns, frame, BAG)
        writer.write(info_topic(camera.name), "sensor_msgs/msg/CameraInfo", info, stamp_ns)
        empty = BAG.make(_IMAGE, header=header(stamp_ns, frame, BAG), format="jpeg")
        data = with_data(_IMAGE, empty, pictures[number], behind=0)
        writer.write(image_topic(camera.name), _IMAGE, data, stamp_ns)
    elif kind == "scan":
        empty = cloud_message(scan, stamp_ns, "lidar_top", BAG, filled=False)
        data = with_data(_CLOUD, empty, scan.view(np.uint8).data, behind=1)
        writer.write(points_topic("LIDAR_TOP"), _CLOUD, data, stamp_ns)
    elif kind == "pose":
        place = [10 * (stamp_ns - _START_NS) / 1e9, 0.0, 0.0]
        pose = Transform.from_quaternion(FIXED_FRAME, "ego", (1.0, 0.0, 0.0, 0.0), place)
        moved = transform_stamped(pose, stamp_ns, MAP_FRAME, BASE_FRAME, BAG)
        writer.write("/tf", _TF, BAG.make(_TF, transforms=[moved]), stamp_ns)
    else:
        values = torch.zeros(_BOXES, 9, dtype=torch.float64)
        values[:, 3:6], values[:, 0] = 2.0, torch.arange(_BOXES)
        labels = torch.zeros(_BOXES, dtype=torch.int64)
        boxes = Boxes3D(MAP_FRAME, values, labels, torch.ones(_BOXES))
        ids = [str(i) for i in range(_BOXES)]
        message = detections_message(boxes, ["car"], stamp_ns, ids, BAG)
        writer.write(TRUTH_TOPIC, "vision_msgs/msg/Detection3DArray", message, stamp_ns)


def _times(recording: Recording, rate_hz: float, phase_s: float) -> list[float]:
    # begins half a second in, so that poses are known around each image
    count = int((recording.seconds - 1) * rate_hz)
    if rate_hz > 50:
        return [i / rate_hz for i in range(int(recording.seconds * rate_hz) + 1)]
    return [0.5 + phase_s + i / rate_hz for i in range(count)]


def _jpeg(size_px: tuple[int, int], rng: np.random.Generator) -> bytes:
    width, height = size_px
    # Patches of such a size that a file is about as large as one of nuScenes.
    small = rng.integers(0, 255, (height // 20, width // 20, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize(size_px, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    return data.getvalue()


def _mountings(rig: Rig) -> Any:
    mounted = [(optical_frame(c.name), c.ego_from_camera) for c in rig.cameras]
    mounted.append(("lidar_top", rig.ego_from_lidar))
    transforms = [
        transform_stamped(pose, _START_NS, BASE_FRAME, frame, BAG) for frame, pose in mounted
    ]
    return BAG.make(_TF, transforms=transforms)
