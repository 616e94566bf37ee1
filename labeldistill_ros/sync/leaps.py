# SPDX-License-Identifier: Apache-2.0
"""Frames whose stamps leap, kept until it is known whose time leapt. No ROS in here.

A single stamp may be wrong by a flipped bit, a camera's clock may be set by itself, or the time of
all may jump, as at the end of a bag that is played in a loop. The first frame looks alike in all
three, and taken at its word it would make whatever follows too late.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from labeldistill_ros.sync.camera_set import Frame

T = TypeVar("T")

_AGREE_NS = 1_000_000_000
"""Cameras of one vehicle expose within half a second; more than one period of most is left."""
_OWN = 8
"""Frames in a row, without one at the others' time, after which a camera's clock is believed to
have been set."""


class Leaps(Generic[T]):
    """Keeps the frames of each camera whose newest stamps leapt."""

    def __init__(self) -> None:
        """Begin without frames."""
        self._frames: dict[str, list[Frame[T]]] = {}

    def keep(self, camera: str, frame: Frame[T]) -> None:
        """Keep a frame that leaps."""
        self._frames.setdefault(camera, []).append(frame)

    def drop(self, camera: str) -> int:
        """Give up a camera's frames, since it is at its old time again.

        Returns:
            How many there were.
        """
        return len(self._frames.pop(camera, ()))

    def told_by_most(self, stamp_ns: int, alive: Collection[str]) -> bool:
        """Whether more than half of the live cameras have leapt to this time."""
        return 2 * len(self._at(stamp_ns)) > len(alive)

    def is_of_one_clock(self, camera: str) -> bool:
        """Whether the camera went on from where it leapt, and most others did not follow."""
        return len(self._frames[camera]) > _OWN

    def take(self, camera: str) -> list[Frame[T]]:
        """The frames of one camera, as they came."""
        return self._frames.pop(camera)

    def take_all(self, stamp_ns: int) -> tuple[list[tuple[str, Frame[T]]], int]:
        """The frames of all cameras that leapt to a time, by stamp; none is kept.

        Returns:
            The frames with their cameras, and how many others there were.
        """
        agreed = self._at(stamp_ns)
        frames = [(camera, f) for camera in agreed for f in self._frames.pop(camera)]
        others = sum(map(len, self._frames.values()))
        self._frames.clear()
        return sorted(frames, key=lambda entry: entry[1].stamp_ns), others

    def _at(self, stamp_ns: int) -> list[str]:
        """Cameras whose newest frame is of this time."""
        return [
            camera
            for camera, frames in self._frames.items()
            if abs(frames[-1].stamp_ns - stamp_ns) <= _AGREE_NS
        ]
