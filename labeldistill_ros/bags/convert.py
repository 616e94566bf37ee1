# SPDX-License-Identifier: Apache-2.0
"""A nuScenes scene as a rosbag: JPEG bytes as they are, true stamps, every ego pose, the truth.

Header stamp and log time are both the time of capture. Only samples all of whose images are there
are told of; of a partial data root the rest is left out and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Qos

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.truth import (
    MARKERS_TOPIC,
    SAMPLE_TOPIC,
    TRUTH_TOPIC,
    BagSample,
    detections_message,
    markers_message,
    sample_message,
)
from labeldistill_ros.bags.types import header, message, transform_stamped
from labeldistill_ros.bags.writer import BagWriter, Storage, reliable

_LOG = logging.getLogger(__name__)

BASE_FRAME = "base_link"
MAP_FRAME = "map"
_MARGIN_NS = 1_000_000_000
"""Poses are kept for as long before the first and after the last image."""


@dataclass(frozen=True)
class Conversion:
    """What went into the bag."""

    samples: int
    """Samples with all their images."""
    samples_left_out: int
    """Samples of the scene of which an image is missing."""
    images: int
    """Key frames and sweeps."""
    images_left_out: int
    """Images of which the tables speak without a file, or of samples left out."""
    duration_s: float
    """From the first image to the last."""
    counts: dict[str, int]
    """Messages by topic."""


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    topic: str
    msgtype: str
    build: Callable[[], Any]
    """Makes the message; late, so that only one image is in memory."""
    qos: Qos | None = None


def optical_frame(camera: str) -> str:
    """ROS name of a camera's frame, such as `cam_front_optical_frame`."""
    return f"{camera.lower()}_optical_frame"


def image_topic(camera: str) -> str:
    """Such as `/cam_front/image_raw/compressed`."""
    return f"/{camera.lower()}/image_raw/compressed"


def info_topic(camera: str) -> str:
    """Such as `/cam_front/camera_info`."""
    return f"/{camera.lower()}/camera_info"


def convert_scene(
    tables: NuScenesTables,
    scene: str,
    out: Path,
    *,
    sweeps: bool = True,
    storage: Storage = "mcap",
    force: bool = False,
) -> Conversion:
    """Write one scene.

    Args:
        tables: of the data root.
        scene: its name.
        out: folder of the bag.
        sweeps: also images between the samples.
        storage: mcap or sqlite3.
        force: replace a bag that is there.

    Raises:
        DataError: no such scene, or no sample has all its images.
        BagError: the bag is there already.
    """
    tokens = tables.samples(scene)
    whole = [token for token in tokens if tables.has_images(token)]
    if not whole:
        raise DataError(
            f"{scene}: none of its {len(tokens)} samples has all its images under "
            f"{tables.dataroot}; unpack the camera blobs there"
        )
    records = tables.camera_data(scene, sweeps=sweeps)
    images = [
        r for r in records if (r.sample_token in whole if r.is_key_frame else r.path.is_file())
    ]
    entries = [entry for record in images for entry in _image_entries(record)]
    entries += [entry for token in whole for entry in _sample_entries(tables, scene, token)]
    first, last = min(e.stamp_ns for e in entries), max(e.stamp_ns for e in entries)
    entries += _pose_entries(tables, scene, first - _MARGIN_NS, last + _MARGIN_NS)
    # of the same time, the pose first: who gets an image can place it at once
    entries.sort(key=lambda entry: (entry.stamp_ns, entry.topic != "/tf", entry.topic))
    with BagWriter(out, storage=storage, force=force) as bag:
        static = _static_message(tables, scene, entries[0].stamp_ns)
        latched = reliable(1, latched=True)
        bag.write("/tf_static", "tf2_msgs/msg/TFMessage", static, entries[0].stamp_ns, latched)
        for entry in entries:
            bag.write(entry.topic, entry.msgtype, entry.build(), entry.stamp_ns, entry.qos)
    result = Conversion(
        samples=len(whole),
        samples_left_out=len(tokens) - len(whole),
        images=len(images),
        images_left_out=len(records) - len(images),
        duration_s=(images[-1].stamp_ns - images[0].stamp_ns) / 1e9,
        counts=dict(bag.counts),
    )
    if result.samples_left_out or result.images_left_out:
        _LOG.warning(
            "%s: the data root is partial: %d of %d samples and %d of %d images left out",
            scene,
            result.samples_left_out,
            len(tokens),
            result.images_left_out,
            len(records),
        )
    return result


def _image_entries(record: SensorRecord) -> list[_Entry]:
    stamp_ns, camera = record.stamp_ns, record.channel
    head = header(stamp_ns, optical_frame(camera))

    def image() -> Any:
        data = np.frombuffer(record.read(), np.uint8)
        return message("sensor_msgs/msg/CompressedImage", header=head, format="jpeg", data=data)

    def info() -> Any:
        k = record.calibration.intrinsics_px
        return message(
            "sensor_msgs/msg/CameraInfo",
            header=head,
            height=record.height_px,
            width=record.width_px,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k.reshape(-1).copy(),
            r=np.eye(3).reshape(-1),
            p=np.hstack([k, np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=message(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0,
                y_offset=0,
                height=0,
                width=0,
                do_rectify=False,
            ),
        )

    return [
        _Entry(stamp_ns, info_topic(camera), "sensor_msgs/msg/CameraInfo", info),
        _Entry(stamp_ns, image_topic(camera), "sensor_msgs/msg/CompressedImage", image),
    ]


def _sample_entries(tables: NuScenesTables, scene: str, token: str) -> list[_Entry]:
    truth = tables.ground_truth(token)
    stamps = {name: record.stamp_ns for name, record in tables.cameras(token).items()}
    sample, boxes, stamp_ns = BagSample(scene, truth, stamps), truth.boxes, truth.stamp_ns
    return [
        _Entry(stamp_ns, SAMPLE_TOPIC, "std_msgs/msg/String", lambda: sample_message(sample)),
        _Entry(
            stamp_ns,
            TRUTH_TOPIC,
            "vision_msgs/msg/Detection3DArray",
            lambda: detections_message(boxes, stamp_ns, truth.instances),
        ),
        _Entry(
            stamp_ns,
            MARKERS_TOPIC,
            "visualization_msgs/msg/MarkerArray",
            lambda: markers_message(boxes, stamp_ns),
        ),
    ]


def _pose_entries(tables: NuScenesTables, scene: str, first: int, last: int) -> list[_Entry]:
    def entry(stamp_ns: int, pose: Transform) -> _Entry:
        moved = transform_stamped(pose, stamp_ns, MAP_FRAME, BASE_FRAME)
        kind = "tf2_msgs/msg/TFMessage"
        return _Entry(
            stamp_ns, "/tf", kind, lambda: message(kind, transforms=[moved]), reliable(100)
        )

    poses = tables.ego_poses(scene)
    return [entry(stamp_ns, pose) for stamp_ns, pose in poses if first <= stamp_ns <= last]


def _static_message(tables: NuScenesTables, scene: str, stamp_ns: int) -> Any:
    sensors: dict[str, SensorRecord] = {}
    for token in tables.samples(scene):
        sensors = {**tables.sensors(token), **sensors}
    transforms = []
    for name, record in sorted(sensors.items()):
        child = optical_frame(name) if record.modality == "camera" else name.lower()
        mounted = transform_stamped(record.ego_from_sensor, stamp_ns, BASE_FRAME, child)
        transforms.append(mounted)
    return message("tf2_msgs/msg/TFMessage", transforms=transforms)
