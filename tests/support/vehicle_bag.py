# SPDX-License-Identifier: Apache-2.0
"""A bag of the tests' vehicle: six cameras, poses and calibrations, some of them odd."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.images import decode_jpeg
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages import camera_info, header
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import pose, transform_stamped
from labeldistill_ros.testing.course import ego_from_camera
from tests.support.rig import COURSE, HEIGHT, WIDTH, map_from_ego, stamp_of

COMPRESSED, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
TRANSFORMS, ODOMETRY = "tf2_msgs/msg/TFMessage", "nav_msgs/msg/Odometry"


def image_of(cycle: int, camera: str, *, raw: bool = False) -> Any:
    head = header(stamp_of(cycle, camera), f"{camera.lower()}_optical_frame", BAG)
    data = COURSE.jpeg(cycle, camera)
    if not raw:
        return BAG.make(COMPRESSED, header=head, format="jpeg", data=data)
    pixels = decode_jpeg(data)[..., ::-1]
    return BAG.make(
        RAW,
        header=head,
        height=HEIGHT,
        width=WIDTH,
        encoding="bgr8",
        step=3 * WIDTH,
        data=pixels.tobytes(),
    )


def info_of(
    cycle: int, camera: str, distortion: Collection[float] = (), r: Collection[float] = ()
) -> Any:
    stamp_ns, frame = stamp_of(cycle, camera), f"{camera.lower()}_optical_frame"
    info = camera_info(COURSE.intrinsics_px, (WIDTH, HEIGHT), stamp_ns, frame, BAG)
    if distortion:
        info.d = np.array(list(distortion), np.float64)
    if r:
        info.r = np.array(list(r), np.float64)
    return info


def write_bag(
    path: Path,
    *,
    cycles: int = 8,
    prefix: str = "",
    raw: bool = False,
    distortion: Collection[float] = (),
    r: Collection[float] = (),
    silent: Collection[str] = (),
    poses: bool = True,
    odometry: bool = False,
    damaged: Collection[tuple[int, str]] = (),
) -> Path:
    """Drive for some cycles.

    Args:
        path: of the bag.
        cycles: how many.
        prefix: of the cameras' topics.
        raw: images are not compressed.
        distortion: coefficients of all cameras.
        r: rectification of all cameras, by rows; the identity when empty.
        silent: cameras without images after the first two cycles.
        poses: whether `/tf` tells where the vehicle is.
        odometry: whether `/odom` does.
        damaged: cycle and camera of images that are cut off.
    """
    mounts = [
        transform_stamped(
            ego_from_camera(c), COURSE.start_ns, "base_link", f"{c.lower()}_optical_frame", BAG
        )
        for c in CAMERAS
    ]
    with BagWriter(path) as writer:
        latched = BAG.make(TRANSFORMS, transforms=mounts)
        writer.write("/tf_static", TRANSFORMS, latched, COURSE.start_ns - 50_000_000)
        for cycle in range(cycles):
            for camera in sorted(CAMERAS, key=lambda c: stamp_of(cycle, c)):
                stamp_ns, base = stamp_of(cycle, camera), f"{prefix}/{camera.lower()}"
                where = map_from_ego(stamp_ns)
                if poses:
                    moving = transform_stamped(where, stamp_ns, "map", "base_link", BAG)
                    message = BAG.make(TRANSFORMS, transforms=[moving])
                    writer.write("/tf", TRANSFORMS, message, stamp_ns)
                if odometry:
                    writer.write("/odom", ODOMETRY, _odometry(stamp_ns), stamp_ns)
                kind, ending = (RAW, "") if raw else (COMPRESSED, "/compressed")
                info = info_of(cycle, camera, distortion, r)
                writer.write(f"{base}/camera_info", "sensor_msgs/msg/CameraInfo", info, stamp_ns)
                if camera in silent and cycle >= 2:
                    continue
                image = image_of(cycle, camera, raw=raw)
                if (cycle, camera) in damaged:
                    image.data = image.data[: len(image.data) // 2]
                writer.write(f"{base}/image_raw{ending}", kind, image, stamp_ns + 1_000_000)
    return path


def _odometry(stamp_ns: int) -> Any:
    where = map_from_ego(stamp_ns)
    place = pose(where.translation.tolist(), where.quaternion.tolist(), BAG)
    return BAG.make(
        ODOMETRY,
        header=header(stamp_ns, "odom", BAG),
        child_frame_id="base_link",
        pose=BAG.make("geometry_msgs/msg/PoseWithCovariance", pose=place),
    )
