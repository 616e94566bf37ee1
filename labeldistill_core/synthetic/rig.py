# SPDX-License-Identifier: Apache-2.0
"""The sensors of the vehicle: any cameras and a LiDAR, told in YAML; without, the nuScenes rig.

nuScenes' rig is rounded, with its firing phases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from labeldistill_core.cameras import EGO_FRAME, CameraCalibration
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import TEXT_BYTES, read_bounded
from labeldistill_core.frames import Array, Transform
from labeldistill_core.names import fault_of_name, plain_text, shown
from labeldistill_core.yaml_text import parsed_yaml

NATIVE_WIDTH_PX, NATIVE_HEIGHT_PX = 1600, 900

LIDAR = "LIDAR_TOP"
LIDAR_PERIOD_S = 0.05
CAMERA_PERIOD_S = 1 / 12
KEY_FRAME_PERIOD_S = 0.5
_TOPIC_PART = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MOST_CAMERAS = 64
LARGEST_PX = 8192
_LARGEST_PHASE = 0.6
"""Of a camera's period; nuScenes' own go to 0.52, and another exposure would hardly be nearer."""
_FARTHEST_PX = 1e6
"""Focal lengths and principal points are less than that of any lens."""

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
LensModel = Literal["plumb_bob", "rational_polynomial", "equidistant"]
"""As `sensor_msgs/CameraInfo` names them; equidistant is that of a fisheye lens."""
_MOST_BENT = 1e4
"""Of a coefficient: rational models of real lenses have some of a hundred, which cancel out."""
_FARTHEST_M = 100.0
"""From the vehicle's origin, on the longest of trucks."""
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}


class Focus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The camera matrix, in pixels of the image."""

    fx: float
    """Focal length along a row."""
    fy: float
    """Focal length along a column."""
    cx: float
    """Column of the principal point."""
    cy: float
    """Row of the principal point."""


class Lens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a lens departs from a pinhole."""

    model: LensModel
    """Which formula the coefficients are of."""
    coefficients: tuple[float, ...]
    """D of `camera_info`: five of plumb_bob, eight of rational_polynomial, four of equidistant."""


class Mounting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a sensor is on the vehicle, whose x points forward, y to the left and z up."""

    position: Vector
    """Of the sensor in the vehicle frame, metres."""
    yaw: float = 0.0
    """Degrees to the left; a camera of zero looks forward."""
    pitch: float = 0.0
    """Degrees by which it looks down."""
    roll: float = 0.0
    """Degrees by which it leans to the right."""
    rotation: Quaternion | None = None
    """w, x, y, z of the sensor's own axes in the vehicle frame, instead of the angles; those of a
    camera are x right, y down, z forward."""


class RigCamera(Mounting, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A camera of the vehicle."""

    name: str
    """Of the camera, in tables and topics."""
    size: tuple[int, int]
    """Width and height of its images, pixels."""
    field_of_view: float | None = None
    """Degrees from the left edge to the right one, where no intrinsics are told."""
    intrinsics: Focus | None = None
    """The camera matrix, where no field of view is told."""
    distortion: Lens | None = None
    """Of the lens; the camera is a pinhole without it."""
    rate: float = 12.0
    """Images a second."""
    phase: float = 0.0
    """Seconds from the time of a key frame, at which a turn of the LiDAR ends, to an exposure."""

    @property
    def ego_from_camera(self) -> Transform:
        """Mounting pose of the optical frame."""
        return _mounted(self, self.name, _OPTICAL)

    @property
    def intrinsics_px(self) -> Array:
        """(3, 3) matrix K."""
        width, height = self.size
        if self.intrinsics is not None:
            f = self.intrinsics
            return np.array([[f.fx, 0.0, f.cx], [0.0, f.fy, f.cy], [0.0, 0.0, 1.0]])
        half_rad = math.radians(self.field_of_view or 0.0) / 2
        fisheye = self.distortion is not None and self.distortion.model == "equidistant"
        # A fisheye's radius in the image is f times the angle, a pinhole's f times its tangent.
        focal = width / 2 / (half_rad if fisheye else math.tan(half_rad))
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])

    @property
    def calibration(self) -> CameraCalibration:
        """Of the rectified images."""
        return CameraCalibration(self.name, self.intrinsics_px, *self.size, self.ego_from_camera)


class RigLidar(Mounting, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The LiDAR of the vehicle."""

    @property
    def ego_from_lidar(self) -> Transform:
        """Mounting pose."""
        return _mounted(self, LIDAR, np.eye(3))


class Rig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sensors of a vehicle."""

    cameras: tuple[RigCamera, ...]
    """One or more."""
    lidar: RigLidar
    """A spinning one of 32 beams, 20 turns a second."""

    @property
    def calibrations(self) -> dict[str, CameraCalibration]:
        """Of the rectified images, by camera."""
        return {camera.name: camera.calibration for camera in self.cameras}

    @property
    def ego_from_lidar(self) -> Transform:
        """Mounting pose of the LiDAR."""
        return self.lidar.ego_from_lidar


_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""A camera that looks forward: its x is the vehicle's right, its y down, its z forward."""


def load_rig(file: Path) -> Rig:
    """Read a rig from YAML.

    Raises:
        ConfigError: the file cannot be read, or a value is impossible; names its key.
    """
    try:
        rig = msgspec.convert(parsed_yaml(read_bounded(file, TEXT_BYTES).decode()), Rig)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: it is no text ({error})") from error
    except (ConfigError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file}: {plain_text(str(error), 500)}") from error
    for key, fault in _faults(rig):
        raise ConfigError(f"{file}: {key}: {fault}")
    return rig


def _faults(rig: Rig) -> list[tuple[str, str]]:
    """Keys with impossible values, and what is wrong with each."""
    found = []
    if not 1 <= len(rig.cameras) <= _MOST_CAMERAS:
        found.append(("cameras", f"{len(rig.cameras)} of them: use 1 to {_MOST_CAMERAS}"))
    names = [camera.name for camera in rig.cameras]
    for i, camera in enumerate(rig.cameras):
        found += [(f"cameras[{i}].{key}", fault) for key, fault in _camera_faults(camera)]
        # Whatever the case: names become folders, and not all file systems tell A from a.
        if camera.name.lower() in [name.lower() for name in names[:i]] or camera.name == LIDAR:
            found.append((f"cameras[{i}].name", f"{shown(camera.name)} is there already"))
    found += [(f"lidar.{key}", fault) for key, fault in _mounting_faults(rig.lidar)]
    return found


def _camera_faults(camera: RigCamera) -> list[tuple[str, str]]:
    found = []
    # It becomes a part of topics, by the rules of ROS.
    if (fault := fault_of_name(camera.name)) or not _TOPIC_PART.fullmatch(camera.name):
        text = f"{shown(camera.name)}: use letters of ASCII, digits and _, a letter first"
        found.append(("name", fault or text))
    if not all(32 <= side <= LARGEST_PX for side in camera.size):
        found.append(("size", f"{list(camera.size)}: use 32 to {LARGEST_PX} pixels"))
    if (camera.field_of_view is None) == (camera.intrinsics is None):
        found.append(("field_of_view", "tell either this or intrinsics"))
    fisheye = camera.distortion is not None and camera.distortion.model == "equidistant"
    widest = 220.0 if fisheye else 160.0
    if camera.field_of_view is not None and not 1 <= camera.field_of_view <= widest:
        found.append(("field_of_view", f"{camera.field_of_view:g}: use 1 to {widest:g} degrees"))
    if (f := camera.intrinsics) and not all(0 < side < _FARTHEST_PX for side in (f.fx, f.fy)):
        found.append(("intrinsics", f"focal lengths {f.fx:g}, {f.fy:g}: use positive pixels"))
    if f and not all(abs(place) < _FARTHEST_PX for place in (f.cx, f.cy)):
        found.append(("intrinsics", f"principal point {f.cx:g}, {f.cy:g}: use pixels of the image"))
    if lens := camera.distortion:
        wanted = _COEFFICIENTS[lens.model]
        if len(lens.coefficients) not in wanted:
            text = " or ".join(map(str, wanted))
            count = len(lens.coefficients)
            found.append(("distortion.coefficients", f"{count}: {lens.model} has {text}"))
        if not np.isfinite(lens.coefficients).all():
            found.append(("distortion.coefficients", "they must be finite numbers"))
        elif np.abs(lens.coefficients).max(initial=0.0) > _MOST_BENT:
            text = f"{list(lens.coefficients)}: use {_MOST_BENT:g} at most"
            found.append(("distortion.coefficients", text))
    # One of its images at least belongs to each key frame.
    if not 1 / KEY_FRAME_PERIOD_S <= camera.rate <= 240:
        text = f"use {1 / KEY_FRAME_PERIOD_S:g} to 240 images a second"
        found.append(("rate", f"{camera.rate:g}: {text}"))
    # Half a period away another exposure is as near to the key frame.
    elif not abs(camera.phase) <= _LARGEST_PHASE / camera.rate:
        text = (
            f"{camera.phase:g}: an exposure a period of {1 / camera.rate:g} s before or after is "
            f"nearer to the key frame: use at most {_LARGEST_PHASE / camera.rate:g}"
        )
        found.append(("phase", text))
    return found + _mounting_faults(camera)


def _mounting_faults(mounting: Mounting) -> list[tuple[str, str]]:
    if not np.isfinite([*mounting.position, mounting.yaw, mounting.pitch, mounting.roll]).all():
        return [("position", "position and angles must be finite numbers")]
    if np.abs(mounting.position).max() > _FARTHEST_M:
        return [("position", f"{list(mounting.position)}: use {_FARTHEST_M:g} m at most")]
    if mounting.rotation and (mounting.yaw or mounting.pitch or mounting.roll):
        return [("rotation", "tell either this or yaw, pitch and roll")]
    if mounting.rotation and not abs(float(np.linalg.norm(mounting.rotation)) - 1) < 0.01:
        return [("rotation", f"{list(mounting.rotation)} is no unit quaternion w, x, y, z")]
    return []


def _mounted(mounting: Mounting, source: str, forward: Array) -> Transform:
    if mounting.rotation is not None:
        return _pose(source, mounting.rotation, mounting.position)
    yaw, pitch, roll = np.radians([mounting.yaw, mounting.pitch, mounting.roll]).tolist()
    # From the left: yaw about the vehicle's z, pitch and roll about axes that turn along.
    turn = _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)
    return Transform(EGO_FRAME, source, turn @ forward, np.array(mounting.position))


def _about(axis: int, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    out = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    out[first, first], out[first, second] = c, -s
    out[second, first], out[second, second] = s, c
    return out


_NUSCENES: dict[str, tuple[Vector, Quaternion, float, tuple[float, float], float]] = {
    "CAM_FRONT_LEFT": (
        (1.575, 0.501, 1.507), (0.6812, -0.6688, 0.2102, -0.2111), 1257.9, (827.2, 450.9), -0.0432
    ),
    "CAM_FRONT": (
        (1.722, 0.005, 1.495), (0.5077, -0.4973, 0.4984, -0.4965), 1252.8, (826.6, 470.0), -0.0356
    ),
    "CAM_FRONT_RIGHT": (
        (1.581, -0.499, 1.517), (0.2034, -0.1915, 0.6786, -0.6794), 1256.7, (817.8, 452.0), -0.0275
    ),
    "CAM_BACK_LEFT": (
        (1.049, 0.483, 1.562), (0.7049, -0.6907, -0.1121, 0.1162), 1255.0, (829.6, 467.2), -0.0006
    ),
    "CAM_BACK": (
        (0.055, 0.011, 1.568), (0.5068, -0.4978, -0.4988, 0.4966), 796.9, (857.8, 476.9), -0.0105
    ),
    "CAM_BACK_RIGHT": (
        (1.059, -0.467, 1.551), (0.1382, -0.1380, -0.6893, 0.6976), 1250.0, (825.4, 462.5), -0.0197
    ),
}  # fmt: skip
"""Position, rotation, focal length and principal point at the native size, and phase."""

CAMERA_PHASES_S: dict[str, float] = {name: phase for name, (*_, phase) in _NUSCENES.items()}
"""Exposure of each camera of nuScenes' rig, relative to the key frame's time."""


def nuscenes_rig(width_px: int, height_px: int) -> Rig:
    """The sensors of nuScenes, with images of a given size; the intrinsics scale with it."""
    x, y = width_px / NATIVE_WIDTH_PX, height_px / NATIVE_HEIGHT_PX
    cameras = tuple(
        RigCamera(
            name=name,
            size=(width_px, height_px),
            intrinsics=Focus(x * focal, y * focal, x * center[0], y * center[1]),
            position=place,
            rotation=turn,
            phase=phase,
        )
        for name, (place, turn, focal, center, phase) in _NUSCENES.items()
    )
    turn = (0.7067, -0.0153, 0.0174, -0.7071)
    # Its frame has x to the right and y forward.
    return Rig(cameras, RigLidar(position=(0.986, 0.0, 1.840), rotation=turn))


def camera_calibrations(width_px: int, height_px: int) -> dict[str, CameraCalibration]:
    """The six cameras of nuScenes' rig with images of a given size."""
    return nuscenes_rig(width_px, height_px).calibrations


def ego_from_lidar() -> Transform:
    """Mounting pose of nuScenes' LiDAR; its frame has x to the right and y forward."""
    return nuscenes_rig(NATIVE_WIDTH_PX, NATIVE_HEIGHT_PX).ego_from_lidar


def _pose(source: str, wxyz: Sequence[float], translation: Vector) -> Transform:
    q = np.array(wxyz)
    return Transform.from_quaternion(EGO_FRAME, source, q / np.linalg.norm(q), translation)
