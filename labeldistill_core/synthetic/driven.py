# SPDX-License-Identifier: Apache-2.0
"""One scene that is driven through: what each sensor sees at any time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeldistill_core.cameras import CameraPose
from labeldistill_core.data.tables.writing import token
from labeldistill_core.frames import Array, Transform
from labeldistill_core.synthetic.actors import Actor
from labeldistill_core.synthetic.camera import take_picture
from labeldistill_core.synthetic.lens import lens_rays
from labeldistill_core.synthetic.lidar import scan
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.raycast import RaycastingScene, Snapshot
from labeldistill_core.synthetic.rig import KEY_FRAME_PERIOD_S, LIDAR, Rig, nuscenes_rig
from labeldistill_core.synthetic.road import Road
from labeldistill_core.synthetic.world import World

_FIRST_STAMP_US = 1_600_000_000_000_000
_SCENE_APART_US = 1_000_000_000
_JPEG_QUALITY = 88

Sweeps = Literal["none", "lidar", "all"]
"""Sensors that are also recorded between key frames."""


@dataclass(frozen=True)
class SceneSettings:
    """What determines a scene, byte for byte."""

    name: str
    """Of the scene, from the split lists of nuScenes."""
    index: int
    """Number of the scene; sets the seed of its random stream and its time stamps."""
    seed: int
    """Seed of the data set; the stream of a scene is drawn from it and the index."""
    key_frames: int
    """How many key frames the scene has, at 2 Hz."""
    image_size_px: tuple[int, int]
    """Width and height of the images, in pixels."""
    sweeps: Sweeps
    """Sensors whose frames between key frames are recorded too."""
    rig: Rig | None = None
    """The vehicle's sensors; those of nuScenes, with images of that size, when None."""


class DrivenScene:
    """A world and the vehicle in it; everything follows from the settings."""

    def __init__(self, settings: SceneSettings) -> None:
        """Make the world of a scene."""
        self._settings = settings
        # Seed and index together: a scene is the same whatever other scenes are written, and in
        # which order or process.
        rng = np.random.default_rng([settings.seed, settings.index])
        self.duration_s = (settings.key_frames - 1) * KEY_FRAME_PERIOD_S
        """From the first key frame to the last, seconds."""
        self._world = World.sample(rng, self.duration_s)
        self._geometry = RaycastingScene(self._world)
        self.rig = settings.rig or nuscenes_rig(*settings.image_size_px)
        """The vehicle's sensors."""
        self._start_us = _FIRST_STAMP_US + settings.index * _SCENE_APART_US

    @property
    def road(self) -> Road:
        """The street."""
        return self._world.road

    @property
    def actors(self) -> tuple[Actor, ...]:
        """The objects that are annotated."""
        return self._world.actors

    @property
    def origin(self) -> Array:
        """(3,) where the geometry that rays are cast in has its origin, in the map."""
        return self._geometry.origin

    def at(self, time_s: float) -> Snapshot:
        """The geometry at a time, in seconds from the first key frame."""
        return self._geometry.at(time_s)

    def map_from_ego(self, time_s: float) -> Transform:
        """Pose of the vehicle."""
        return self._world.map_from_ego(time_s)

    def stamp_us(self, time_s: float) -> int:
        """Microseconds since 1970 of a time in seconds from the first key frame."""
        return self._start_us + round(time_s * 1e6)

    def points(self, time_s: float) -> Floats:
        """(P, 5) the scan that ends at a time: x, y, z in the LiDAR's frame, intensity, ring."""
        noise = self._noise(LIDAR, self.stamp_us(time_s))
        return scan(self.at(time_s), time_s, noise, self.rig.ego_from_lidar)

    def image(self, camera: str, time_s: float, *, bent: bool = False) -> NDArray[np.uint8]:
        """(height, width, 3) RGB that a camera takes.

        Args:
            camera: its name.
            time_s: of the exposure.
            bent: as its lens bends it, rather than rectified.

        Raises:
            ConfigError: the distortion of the lens is none that an image can have.
        """
        pose = CameraPose(self.rig.calibrations[camera], self.map_from_ego(time_s))
        noise = self._noise(camera, self.stamp_us(time_s))
        rays = self._bent_rays.get(camera) if bent else None
        return take_picture(self.at(time_s), pose, self._world.light, noise, rays).image

    def jpeg(self, camera: str, time_s: float, *, bent: bool = False) -> bytes:
        """The same as a JPEG file."""
        data = io.BytesIO()
        Image.fromarray(self.image(camera, time_s, bent=bent)).save(
            data, "JPEG", quality=_JPEG_QUALITY
        )
        return data.getvalue()

    @cached_property
    def _bent_rays(self) -> dict[str, Floats]:
        return {c.name: lens_rays(c) for c in self.rig.cameras if c.distortion}

    def _noise(self, sensor: str, stamp_us: int) -> np.random.Generator:
        # A stream for each frame: a key frame looks the same with and without sweeps around it.
        seed = int(token(self._settings.seed, sensor, stamp_us)[:12], 16)
        return np.random.default_rng(seed)
