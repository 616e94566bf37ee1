# SPDX-License-Identifier: Apache-2.0
"""Faults of cameras that a conversion puts into a bag, to see what a detector makes of them.

All are drawn from the record's token and the seed, so that the same call gives the same bag.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro

from labeldistill_core.errors import ConfigError
from labeldistill_core.frames import Transform


@dataclass(frozen=True)
class CameraFaults:
    """What goes wrong with the cameras; nothing by default."""

    drop: float = 0.0
    """Share of the images that are lost, 0 to 1."""
    jitter_ms: Annotated[float, tyro.conf.arg(name="jitter")] = 0.0
    """Standard deviation in milliseconds of an error in the images' stamps."""
    kill_camera: tuple[str, ...] = ()
    """Cameras that fall silent: NAME, or NAME@SECONDS after the first image."""
    miscalibrate_deg: Annotated[float, tyro.conf.arg(name="miscalibrate")] = 0.0
    """Degrees by which each camera's mounting is turned, each about another axis."""
    seed: int = 0
    """Seed of the random faults; another seed draws other faults."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0 <= self.drop <= 1:
            raise ConfigError(f"--drop is {self.drop:g}; it is a share between 0 and 1")
        if not 0 <= self.jitter_ms < math.inf:
            raise ConfigError(f"--jitter is {self.jitter_ms:g}; it cannot be negative or endless")
        if not math.isfinite(self.miscalibrate_deg):
            raise ConfigError(f"--miscalibrate is {self.miscalibrate_deg:g}; give degrees")
        self.killed_ns()

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return bool(self.drop or self.jitter_ms or self.kill_camera or self.miscalibrate_deg)

    def killed_ns(self) -> dict[str, int]:
        """Nanoseconds after the first image, by camera.

        Raises:
            ConfigError: a time is wrong.
        """
        out = {}
        for text in self.kill_camera:
            name, at, seconds = text.partition("@")
            try:
                out[name] = round(float(seconds) * 1e9) if at else 0
            except (ValueError, OverflowError):
                raise ConfigError(f"--kill-camera {text!r}: write NAME or NAME@SECONDS") from None
        return out

    def require(self, cameras: Collection[str]) -> None:
        """Refuse the names of cameras that the data do not have.

        Raises:
            ConfigError: a name is none of `cameras`.
        """
        for name in self.killed_ns():
            if name not in cameras:
                raise ConfigError(
                    f"--kill-camera {name!r}: no such camera; use {', '.join(sorted(cameras))}"
                )

    def lost(self, token: str, channel: str, after_ns: int) -> bool:
        """Whether an image is not in the bag.

        Args:
            token: nuScenes token of the image's record.
            channel: name of the camera.
            after_ns: nanoseconds since the first image of the bag.
        """
        killed = self.killed_ns()
        if channel in killed and after_ns >= killed[channel]:
            return True
        return self.drop > 0 and bool(self._random(token, "drop").random() < self.drop)

    def stamp_error_ns(self, token: str) -> int:
        """Error in nanoseconds that is added to the stamp of an image, drawn from its token."""
        if not self.jitter_ms:
            return 0
        return round(self._random(token, "jitter").normal() * self.jitter_ms * 1e6)

    def mounted(self, ego_from_sensor: Transform) -> Transform:
        """The mounting that the bag tells of, for a camera; turned about its own centre."""
        if not self.miscalibrate_deg:
            return ego_from_sensor
        # The axis is drawn from the camera's name and not from a record, so that a camera stays
        # where it was turned to throughout the bag.
        name = ego_from_sensor.source
        axis = self._random(name, "axis").normal(size=3)
        half = math.radians(self.miscalibrate_deg) / 2
        turn = [math.cos(half), *(math.sin(half) * axis / np.linalg.norm(axis))]
        return ego_from_sensor @ Transform.from_quaternion(name, name, turn, [0.0, 0.0, 0.0])

    def _random(self, token: str, kind: str) -> np.random.Generator:
        # Not Python's `hash`, which differs from process to process: bags are made by several, and
        # the same call has to give the same bag.
        digest = hashlib.sha256(f"{self.seed}/{kind}/{token}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))
