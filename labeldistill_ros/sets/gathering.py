# SPDX-License-Identifier: Apache-2.0
"""Images and calibrations to closed sets, for whoever brings the time along, such as a bag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.parameters import VehicleParameters
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.options import make_synchronizer
from labeldistill_ros.sync.synchronizer import CameraSet


@dataclass(frozen=True)
class TimeWentBack:
    """The stamps went back, so that the past is no past any more."""


class SetGathering:
    """The node's synchronizer with the newest calibration of each camera."""

    def __init__(self, vehicle: VehicleParameters) -> None:
        """Begin without images.

        Raises:
            ConfigError: the parameters contradict each other, or a library is missing.
        """
        self.synchronizer = make_synchronizer(vehicle)
        """Puts images together; learns phases and delays of the cameras."""
        self.infos: dict[str, Any] = {}
        """Newest `sensor_msgs/CameraInfo` by camera; whoever receives them puts them here."""
        self.unstamped: Counter[str] = Counter()
        """Images without a stamp, which can join no set, by camera."""

    def add(self, camera: str, image: Any, now_s: float) -> Iterator[ClosedSet | TimeWentBack]:
        """Take an image, and give out the sets that it closes.

        Args:
            camera: its name.
            image: `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any family.
            now_s: clock of the images' arrival, seconds.
        """
        stamp_ns = stamp_of(image)
        if stamp_ns <= 0:  # before 1970 there is none
            self.unstamped[camera] += 1
            return
        arrival = Arrival(image, self.infos.get(camera))
        added = self.synchronizer.add(camera, stamp_ns, arrival, now_s)
        if added.reset:
            yield TimeWentBack()
        yield from self._closed(added.sets, now_s)

    def until(self, end_s: float) -> Iterator[ClosedSet]:
        """Sets whose deadline has passed by then; those of infinity are all that still wait."""
        while (due_s := self.synchronizer.next_deadline_s()) is not None and due_s <= end_s:
            yield from self._closed(self.synchronizer.poll(due_s), due_s)

    def _closed(self, sets: Iterable[CameraSet[Arrival]], now_s: float) -> Iterator[ClosedSet]:
        return (ClosedSet(images, dict(self.infos), now_s) for images in sets)
