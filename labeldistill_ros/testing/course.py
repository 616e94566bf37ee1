# SPDX-License-Identifier: Apache-2.0
"""Where the simulated vehicle is, and what its cameras are and see.

Everything follows from the number of a cycle and the name of a camera, so that what the detector
receives over ROS can be made a second time without ROS.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from labeldistill_core.cameras import (
    CAMERAS,
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraView,
    FrameSet,
)
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.frames import Transform

PHASES_S = {
    "CAM_FRONT_LEFT": -0.0076,
    "CAM_FRONT": 0.0,
    "CAM_FRONT_RIGHT": 0.0081,
    "CAM_BACK_RIGHT": 0.0157,
    "CAM_BACK": 0.0252,
    "CAM_BACK_LEFT": 0.0350,
}
"""When each camera exposes within a cycle, as in nuScenes."""
HEADINGS_DEG = dict(zip(CAMERAS, (55, 0, -55, 110, 180, -110), strict=True))


def ego_from_camera(camera: str, headings_deg: Mapping[str, float] = HEADINGS_DEG) -> Transform:
    """Mounting of a camera: one metre from the vehicle's middle, level, looking outwards."""
    a = np.deg2rad(headings_deg[camera])
    ahead, left, up = np.array([np.cos(a), np.sin(a), 0]), [-np.sin(a), np.cos(a), 0], [0, 0, 1]
    rotation = np.stack([-np.array(left), -np.array(up), ahead], axis=1)
    return Transform(EGO_FRAME, camera, rotation, ahead + [0, 0, 1.5])


def picture(size_px: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """A picture of random colours in patches so large that compression leaves it much the same."""
    width, height = size_px
    patches = (height // 15, width // 16, 3)
    small = np.random.default_rng(seed).integers(0, 255, patches, np.uint8)
    return np.asarray(Picture.fromarray(small).resize(size_px))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a camera's driver compresses it."""
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _intrinsics_px(size_px: tuple[int, int]) -> NDArray[np.float64]:
    width, height = size_px
    # A field of view of 72 degrees, so that six cameras at their headings overlap.
    f = 0.6875 * width
    return np.array([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Course:
    """A drive along a curve, at 10 m/s and 0.1 rad/s."""

    start_ns: int
    """Stamp of the first cycle, in nanoseconds since 1970."""
    period_s: float = 0.2
    """Time between two cycles, in seconds."""
    phases_s: Mapping[str, float] = field(default_factory=lambda: PHASES_S)
    """When each camera exposes within a cycle, in seconds."""
    size_px: tuple[int, int] = (160, 90)
    """Width and height of the images."""
    sizes_px: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Width and height of the images of cameras of which they are other ones."""
    headings_deg: Mapping[str, float] = field(default_factory=lambda: HEADINGS_DEG)
    """Where each camera looks, degrees to the left; its keys are the cameras."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(self.headings_deg)

    @property
    def order(self) -> list[str]:
        """The cameras in the order in which they expose."""
        return sorted(self.cameras, key=self.phases_s.__getitem__)

    def size_of(self, camera: str) -> tuple[int, int]:
        """Width and height of a camera's images."""
        return self.sizes_px.get(camera, self.size_px)

    @property
    def intrinsics_px(self) -> NDArray[np.float64]:
        """Camera matrix (3, 3) of images of `size_px`."""
        return _intrinsics_px(self.size_px)

    def intrinsics_of(self, camera: str) -> NDArray[np.float64]:
        """Camera matrix (3, 3) of a camera."""
        return _intrinsics_px(self.size_of(camera))

    def stamp_ns(self, cycle: int, camera: str) -> int:
        """When a camera exposes."""
        return self.start_ns + round((cycle * self.period_s + self.phases_s[camera]) * 1e9)

    def cycle_of(self, stamp_ns: int) -> int:
        """The cycle that a stamp belongs to."""
        first_s = min(self.phases_s.values())
        # A microsecond more, since the first camera exposes on the border itself.
        return int(((stamp_ns - self.start_ns) / 1e9 - first_s + 1e-6) // self.period_s)

    def map_from_ego(self, stamp_ns: int) -> Transform:
        """Pose of the vehicle."""
        t = (stamp_ns - self.start_ns) / 1e9
        q = (np.cos(0.05 * t), 0, 0, np.sin(0.05 * t))
        return Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, q, [500 + 10 * t, 900 + t, 0.5])

    def jpeg(self, cycle: int, camera: str) -> bytes:
        """What a camera sends, another picture each time."""
        return jpeg(picture(self.size_of(camera), cycle * 10 + self.cameras.index(camera)))

    def frame_set(self, cycle: int, cameras: Collection[str] | None = None) -> FrameSet:
        """The set of a cycle as a data set would give it."""
        views = []
        for camera in self.cameras if cameras is None else cameras:
            calibration = CameraCalibration(
                camera,
                self.intrinsics_of(camera),
                *self.size_of(camera),
                ego_from_camera(camera, self.headings_deg),
            )
            stamp_ns = self.stamp_ns(cycle, camera)
            pixels = decode_jpeg(self.jpeg(cycle, camera))
            views.append(CameraView(calibration, stamp_ns, pixels, self.map_from_ego(stamp_ns)))
        anchor = "CAM_FRONT" if "CAM_FRONT" in self.cameras else self.cameras[0]
        return FrameSet(self.stamp_ns(cycle, anchor), tuple(views))
