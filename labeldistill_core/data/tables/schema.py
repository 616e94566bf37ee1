# SPDX-License-Identifier: Apache-2.0
"""The records of the nuScenes tables, as far as they are read.

Columns that are not named here are passed over; a field with a default may be absent. Tokens are
any text that is unique in its table, and an empty one refers to nothing.

Source: nuScenes, "Database schema".
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

_Whole = Meta(ge=0, le=9_000_000_000_000_000)
_Pixels = Meta(ge=0, le=65535)
_Points = Meta(ge=-1, le=2**31 - 1)

Microseconds = Annotated[int, _Whole] | Annotated[float, _Whole]
"""Since 1970; in nanoseconds, times of today exceed the bound."""
Vector = tuple[float, float, float]
"""x, y, z in metres."""
Quaternion = tuple[float, float, float, float]
"""w, x, y, z of a rotation."""
Size = tuple[float, float, float]
"""Width, length, height in metres."""


class Scene(Struct, gc=False):
    """`scene.json`: one drive of 20 s."""

    token: str
    name: str
    first_sample_token: str
    log_token: str | None = None
    description: str | None = None


class Log(Struct, gc=False):
    """`log.json`: when, where and with which vehicle."""

    token: str
    location: str | None = None
    date_captured: str | None = None
    vehicle: str | None = None


class Sample(Struct, gc=False):
    """`sample.json`: one instant at 2 Hz that is annotated."""

    token: str
    timestamp: Microseconds
    scene_token: str
    next: str | None


class Sensor(Struct, gc=False):
    """`sensor.json`: a camera, LiDAR or radar by name."""

    token: str
    channel: str
    modality: str


class CalibratedSensor(Struct, gc=False):
    """`calibrated_sensor.json`: a sensor as it was mounted in a scene."""

    token: str
    sensor_token: str
    translation: Vector
    rotation: Quaternion
    camera_intrinsic: list[list[float]] | None = None


class EgoPose(Struct, gc=False):
    """`ego_pose.json`: where the vehicle was when a sensor recorded."""

    token: str
    translation: Vector
    rotation: Quaternion


class SampleData(Struct, gc=False):
    """`sample_data.json`: one file of one sensor."""

    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: Microseconds
    is_key_frame: bool
    filename: str
    width: Annotated[int, _Pixels] | None = None
    height: Annotated[int, _Pixels] | None = None
    prev: str | None = None
    next: str | None = None


class Category(Struct, gc=False):
    """`category.json`: what an object is."""

    token: str
    name: str


class Attribute(Struct, gc=False):
    """`attribute.json`: what an object does."""

    token: str
    name: str


class Visibility(Struct, gc=False):
    """`visibility.json`: how much of an object the cameras see."""

    token: str
    level: str


class Instance(Struct, gc=False):
    """`instance.json`: one object over all its boxes."""

    token: str
    category_token: str
    first_annotation_token: str | None = None
    last_annotation_token: str | None = None


class SampleAnnotation(Struct, gc=False):
    """`sample_annotation.json`: one box in one sample."""

    token: str
    sample_token: str
    instance_token: str
    translation: Vector
    size: Size
    rotation: Quaternion
    num_lidar_pts: Annotated[int, _Points]
    num_radar_pts: Annotated[int, _Points] = 0
    visibility_token: str | None = None
    attribute_tokens: list[str] | None = None
    prev: str | None = None
    next: str | None = None


REQUIRED = {
    "scene": Scene,
    "sample": Sample,
    "sensor": Sensor,
    "calibrated_sensor": CalibratedSensor,
    "ego_pose": EgoPose,
    "sample_data": SampleData,
    "category": Category,
    "instance": Instance,
    "sample_annotation": SampleAnnotation,
}
"""Tables without which there is no data set."""
OPTIONAL = {"log": Log, "attribute": Attribute, "visibility": Visibility}
"""Tables that count as empty where they are absent."""
HINTS = {
    "timestamp": "whole microseconds since 1970",
    "camera_intrinsic": "three rows of three numbers, in pixels",
    "rotation": "a quaternion w, x, y, z",
    "size": "width, length, height in metres",
    "translation": "x, y, z in metres",
}
"""What a field must hold, for the error."""
