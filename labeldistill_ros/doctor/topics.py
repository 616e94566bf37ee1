# SPDX-License-Identifier: Apache-2.0
"""Are the topics there, and of the types that the node takes?"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

from labeldistill_ros.doctor.finding import Finding, by_camera
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.parameters import VehicleParameters

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, CLOUD = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2"
TRANSFORMS, ODOMETRY = "tf2_msgs/msg/TFMessage", "nav_msgs/msg/Odometry"
_OWN_CLOUD = "/detections_table"
"""The detector's boxes are a point cloud too."""
_MOST_NAMED = 12

Types = Mapping[str, Collection[str]]
"""Types of each topic; on a live system a topic may have several."""


def is_lidar(topic: str, kinds: Collection[str]) -> bool:
    """Whether a topic has clouds of points that a sensor measured."""
    return CLOUD in kinds and not topic.endswith(_OWN_CLOUD)


def check_topics(vehicle: VehicleParameters, types: Types) -> list[Finding]:
    """Topics of the cameras and of the vehicle's pose.

    Args:
        vehicle: parameters.
        types: of all topics that somebody publishes or that a bag has.
    """
    images, infos = {}, {}
    for camera, own in vehicle.cameras.items():
        topics = CameraTopics.of(camera, vehicle.common, own)
        kind = COMPRESSED if topics.compressed else IMAGE
        # What most often hides behind a missing topic is offered first: the other transport, a
        # prefix, a name that is spelled otherwise.
        if topics.image not in types:
            mend = _other_transport(camera, vehicle, types) or _instead(
                topics.image, f"cameras.{camera}.image_topic", types, kind
            )
            mend += f"; or cameras.{camera}.enabled: false, where the vehicle lacks this camera"
            images[camera] = f"{camera}: there is no topic {topics.image} ({kind}): {mend}"
        elif kind not in types[topics.image]:
            images[camera] = (
                f"{camera}: {topics.image} is {_named(types[topics.image])}, not {kind}: see "
                f"transport and cameras.{camera}.transport"
            )
        if topics.info not in types:
            mend = _instead(topics.info, f"cameras.{camera}.info_topic", types, INFO)
            infos[camera] = f"{camera}: there is no topic {topics.info} ({INFO}): {mend}"
        elif INFO not in types[topics.info]:
            infos[camera] = f"{camera}: {topics.info} is {_named(types[topics.info])}, not {INFO}"
    count = len(vehicle.cameras)
    return [
        *by_camera("topics", images, f"images of {count} cameras, as the model has"),
        *by_camera("topics", infos, f"camera_info of {count} cameras"),
        *_of_poses(vehicle, types),
    ]


def _of_poses(vehicle: VehicleParameters, types: Types) -> list[Finding]:
    found = []
    if "/tf_static" not in types:
        text = "there is no topic /tf_static: publish the cameras' mountings, see docs/node.md"
        found.append(Finding("topics", "fault", text))
    source, odometry = vehicle.common.ego_motion_source, vehicle.common.odometry_topic
    topic, kind = (odometry, ODOMETRY) if source == "odometry" else ("/tf", TRANSFORMS)
    if source != "none" and kind not in types.get(topic, ()):
        text = (
            f"there is no topic {topic} ({kind}), so the vehicle's pose is unknown: start "
            "localization or odometry, or set ego_motion_source"
        )
        found.append(Finding("topics", "fault", text))
    return found


def _other_transport(camera: str, vehicle: VehicleParameters, types: Types) -> str:
    """That the camera's images are there in the other form; else empty."""
    own = vehicle.cameras[camera]
    compressed = CameraTopics.of(camera, vehicle.common, own).compressed
    other: Literal["raw", "compressed"] = "raw" if compressed else "compressed"
    topic = CameraTopics.of(camera, vehicle.common, replace(own, transport=other)).image
    return f"its {other} images are on {topic}: set transport: {other}" if topic in types else ""


def _instead(topic: str, parameter: str, types: Types, kind: str) -> str:
    """Which topic may be meant."""
    have = sorted(name for name, kinds in types.items() if kind in kinds)
    if not have:
        return f"no topic of this type is there: start the driver, or name another in {parameter}"
    # Where the vehicle's names are those of the model, the prefix alone is missing.
    if longer := [name for name in have if name.endswith(topic)]:
        return f"set camera_prefix: {longer[0].removesuffix(topic)}, or {parameter}"
    if any(topic.endswith(name) for name in have):
        return f'set camera_prefix: "", or {parameter}'
    near = difflib.get_close_matches(topic, have, n=1)
    if near:
        return f"is {near[0]} meant? Set {parameter}"
    return f"set {parameter}; of this type are {_named(have)}"


def _named(names: Collection[str]) -> str:
    shown = list(names)[:_MOST_NAMED]
    more = len(names) - len(shown)
    return ", ".join(shown) + f" and {more} more" * bool(more)
