# SPDX-License-Identifier: Apache-2.0
"""An image between its arrival and the set that it becomes a part of."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from labeldistill_core.data.images import Reduction, TakePixels
from labeldistill_ros.inputs.decoding import Pixels, to_rgb
from labeldistill_ros.sets.decode_pool import DecodePool
from labeldistill_ros.sets.report import Outcome, SetReport
from labeldistill_ros.sync.synchronizer import CameraSet


class Arrival:
    """An image on its way; decoded once, in a pool, when that is asked for."""

    def __init__(self, message: Any, info: Any = None) -> None:
        """Take an image and, where it has come, its camera's newest calibration.

        Args:
            message: `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any family.
            info: `sensor_msgs/CameraInfo`; larger images than it says are not decoded.
        """
        self.info = info
        """The camera's calibration when the image came, or a later one if that told no size."""
        self.message = message
        """The image message as it came, not decoded."""
        self._decoded: Future[Pixels] | None = None
        self._asked = threading.Lock()  # by who receives and by who detects

    @property
    def is_sized(self) -> bool:
        """Whether it is known how large its camera's images are, so that no other is decoded."""
        return self.info is not None and bool(self.info.width and self.info.height)

    def decode(
        self, pool: DecodePool, take: TakePixels, reduction: Reduction | None = None
    ) -> Future[Pixels]:
        """Start to decode, unless that was done before; see `to_rgb`."""
        with self._asked:
            # Two threads may ask: the one that receives decodes ahead, the one that detects needs
            # the result.
            if self._decoded is None:
                size = (self.info.width, self.info.height) if self.info is not None else None
                self._decoded = pool.submit(to_rgb, self.message, take, size, reduction)
            return self._decoded

    def cancel(self) -> None:
        """Do not decode when that has not begun."""
        if self._decoded is not None:
            self._decoded.cancel()


@dataclass(frozen=True, eq=False)
class ClosedSet:
    """The messages of one instant, as the synchronizer gave them out."""

    images: CameraSet[Arrival]
    """Images that belong together."""
    infos: Mapping[str, Any]
    """Newest `sensor_msgs/CameraInfo` of each camera when the set was closed."""
    closed_s: float
    """When the set was closed, by the clock of the images' arrival."""

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        """Images of the set, in the order of the model's cameras."""
        return tuple(frame.item for frame in self.images.frames.values())

    @property
    def waited_s(self) -> float:
        """Seconds from the last image's arrival until the set was closed."""
        return self.closed_s - max(frame.arrival_s for frame in self.images.frames.values())

    def cancel(self) -> None:
        """Do not decode what has not begun."""
        for arrival in self.arrivals:
            arrival.cancel()

    def report(self, outcome: Outcome, cause: str = "") -> SetReport:
        """The record of this set's end, without what only an assembled set knows."""
        images = self.images
        return SetReport(
            images.stamp_ns,
            outcome,
            tuple(images.frames),
            images.missing,
            cause,
            spread_s=images.spread_s,
        )
