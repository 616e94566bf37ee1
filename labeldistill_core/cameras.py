# SPDX-License-Identifier: Apache-2.0
"""Cameras of a vehicle: their names, calibrations, and a set of images taken together.

Frames: "ego" is the vehicle frame (x forward, y left, z up; `base_link` in ROS), a camera's frame
is optical (x right, y down, z forward) and carries the camera's name, and the fixed frame ("map"
or "odom") does not move with the vehicle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.frames import Array, Transform
from labeldistill_core.names import shown

if TYPE_CHECKING:
    from torch import Tensor

CAMERAS: tuple[str, ...] = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
"""The six nuScenes cameras in the order in which the network sees them."""

# A feature cell is 8 to 16 pixels wide, and a grid cell most of a metre: far below both.
_SAME_PIXEL_PX = 0.1
_SAME_PLACE_M = 1e-3

# Roles, not names of tf frames: the node puts its parameters `base_frame` and `fixed_frame` in
# their place where messages come in and go out.
EGO_FRAME = "ego"
FIXED_FRAME = "map"


def fault_of_intrinsics(k: Array) -> str:
    """Why a matrix K, in pixels, cannot be a camera's; empty where it can."""
    whole = k.shape == (3, 3) and bool(np.isfinite(k).all())
    if not whole or min(k[0, 0], k[1, 1], np.linalg.det(k)) <= 0:
        return (
            "must be a (3, 3) matrix with positive focal lengths, "
            f"not {k.tolist()}; is the camera calibrated?"
        )
    # A transposed matrix, or a multiple of one, would project all the same, elsewhere.
    if k[1, 0] or not np.allclose(k[2], (0.0, 0.0, 1.0), atol=1e-6):
        return f"must be rows of (fx, s, cx), (0, fy, cy), (0, 0, 1), not {k.tolist()}"
    return ""


@dataclass(frozen=True, eq=False)
class CameraCalibration:
    """A rectified pinhole camera on the vehicle."""

    name: str
    """Name of the camera and of its optical frame."""
    intrinsics_px: Array
    """(3, 3) matrix K, pixels of the image as published."""
    width_px: int
    """Width of the image that the matrix speaks of, pixels."""
    height_px: int
    """Height of that image, pixels."""
    ego_from_camera: Transform
    """Mounting pose: optical frame to `EGO_FRAME`."""

    def __post_init__(self) -> None:
        """Refuse what cannot project."""
        # A copy: whoever goes on writing into an array must not change what was made of it.
        k = np.array(self.intrinsics_px, dtype=np.float64)
        if fault := fault_of_intrinsics(k):
            raise ValueError(f"{self.name}: intrinsics {fault}")
        if min(self.width_px, self.height_px) < 1:
            raise ValueError(f"{self.name}: it has {self.width_px} x {self.height_px} pixels")
        if self.ego_from_camera.target != EGO_FRAME:
            raise ValueError(f"{self.name}: ego_from_camera must end in {EGO_FRAME!r}")
        object.__setattr__(self, "intrinsics_px", k)

    def project(self, points: NDArray[np.floating[Any]]) -> Array:
        """Points (..., 3) in the optical frame, metres, to (..., 3): u, v in pixels and depth.

        Pixels of points with depth <= 0 have no meaning.

        Examples:
            >>> k = np.array([[800.0, 0.0, 640.0], [0.0, 800.0, 360.0], [0.0, 0.0, 1.0]])
            >>> camera = CameraCalibration(
            ...     name="CAM_FRONT",
            ...     intrinsics_px=k,
            ...     width_px=1280,
            ...     height_px=720,
            ...     ego_from_camera=Transform.identity("ego", "CAM_FRONT"),
            ... )
            >>> camera.project(np.array([1.0, 0.0, 8.0])).tolist()
            [740.0, 360.0, 8.0]
        """
        uvw = np.asarray(points, dtype=np.float64) @ self.intrinsics_px.T
        depth = uvw[..., 2:3]
        # What lies in the plane of the camera has no pixel; callers look at the depth.
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return np.concatenate([uvw[..., :2] / safe, depth], axis=-1)

    def equals(self, other: CameraCalibration) -> bool:
        """Whether the other one projects as this one, but for what no detector sees.

        Calibrations that are computed anew for every image differ in their last digits. Allowed
        are a tenth of a pixel for what is far away, at the corners of the image, and a millimetre
        of the mounting.
        """
        if self is other:
            return True
        if self._content() == other._content():
            return True  # nearly always: each message of a camera says the same
        size, mounted = (self.width_px, self.height_px), self.ego_from_camera
        shift_m = np.abs(mounted.translation - other.ego_from_camera.translation)
        if size != (other.width_px, other.height_px) or shift_m.max() > _SAME_PLACE_M:
            return False
        # A homography from one image to the other is largest at the corners: no other point need be
        # looked at.
        corners = np.array([[u, v, 1.0] for u in (0, size[0]) for v in (0, size[1])])
        turn = other.ego_from_camera.rotation.T @ mounted.rotation
        moved = corners @ (other.intrinsics_px @ turn @ np.linalg.inv(self.intrinsics_px)).T
        if moved[:, 2].min() <= 0:
            return False
        return bool(np.abs(moved / moved[:, 2:] - corners).max() <= _SAME_PIXEL_PX)

    def _content(self) -> tuple[object, ...]:
        """What `equals` looks at, to compare all of it at once."""
        mounted = self.ego_from_camera
        numbers = (self.intrinsics_px, mounted.rotation, mounted.translation)
        return (self.width_px, self.height_px, *(values.tobytes() for values in numbers))


@dataclass(frozen=True, eq=False)
class CameraPose:
    """Where a camera was: what geometry needs of an image."""

    calibration: CameraCalibration
    """How the camera projects, and where on the vehicle it is mounted."""
    fixed_from_ego: Transform
    """Pose of the vehicle in the fixed frame at the time of exposure."""


@dataclass(frozen=True, eq=False)
class CameraView:
    """One image with all that is known about it."""

    calibration: CameraCalibration
    """How the camera that took it projects, and where it is mounted."""
    stamp_ns: int
    """Time of exposure, nanoseconds since the epoch."""
    image: NDArray[np.uint8] | Tensor
    """(height, width, 3) RGB; a tensor where it was decoded on a device."""
    fixed_from_ego: Transform
    """Pose of the vehicle in the fixed frame at `stamp_ns`."""
    reduced: int = 1
    """By how much the image was reduced when it was decoded; the calibration speaks of the image
    as taken."""

    def __post_init__(self) -> None:
        """Refuse an image of another size than the calibration says, and poses of others."""
        size_px = (self.calibration.height_px, self.calibration.width_px)
        expected = (*(size // self.reduced for size in size_px), 3)
        kind, shape = str(self.image.dtype).removeprefix("torch."), tuple(self.image.shape)
        if shape != expected or kind != "uint8":
            raise ValueError(
                f"{self.calibration.name}: image is {kind} {shape}, the calibration says uint8 "
                f"{expected}"
            )
        if self.fixed_from_ego.source != EGO_FRAME:
            raise ValueError(
                f"{self.calibration.name}: fixed_from_ego must begin in {EGO_FRAME!r}, not "
                f"{self.fixed_from_ego.source!r}"
            )

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image in the host's memory."""
        image = self.image
        return image if isinstance(image, np.ndarray) else np.asarray(image.cpu())

    @property
    def pose(self) -> CameraPose:
        """The view without its image."""
        return CameraPose(self.calibration, self.fixed_from_ego)


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Images of the cameras that belong together."""

    stamp_ns: int
    """Time of the set, nanoseconds; the history is picked by it."""
    views: tuple[CameraView, ...]
    """One for each camera that took part, in any order."""

    def __post_init__(self) -> None:
        """Refuse two images of one camera, of which one would be lost."""
        if len(self.by_name) < len(self.views):
            names = Counter(view.calibration.name for view in self.views)
            twice = [shown(name) for name, count in names.items() if count > 1]
            raise ValueError(f"two images are of one camera: {', '.join(twice)}")

    @property
    def by_name(self) -> dict[str, CameraView]:
        """The views by camera name."""
        return {view.calibration.name: view for view in self.views}
