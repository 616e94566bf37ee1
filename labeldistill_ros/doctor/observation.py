# SPDX-License-Identifier: Apache-2.0
"""What came from a vehicle within some seconds; memory does not grow with their number."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from statistics import median
from typing import Any

from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.node.camera_health import CameraHealth
from labeldistill_ros.parameters import VehicleParameters
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.gathering import SetGathering, TimeWentBack
from labeldistill_ros.sync.camera_set import CameraSet, Frame

_ROUNDS = 5
"""Times at which an image of each camera is kept, so that what is seldom wrong is seen as well."""
_STAMPS = 2000
"""Stamps kept of each camera, 166 s at 12 Hz."""
JUMP_NS = 500_000_000
"""A stamp that is further back says that time was set back."""


class Observation:
    """Takes messages and puts sets together as the node does. Times are of one steady clock."""

    def __init__(self, vehicle: VehicleParameters, duration_s: float) -> None:
        """Nothing has come yet.

        Args:
            vehicle: parameters.
            duration_s: for how long it is observed.

        Raises:
            ConfigError: the parameters contradict each other.
        """
        self.vehicle = vehicle
        self.cameras = {name: CameraHealth() for name in vehicle.cameras}
        """What came from each camera."""
        self.gathering = SetGathering(vehicle)
        """Puts images together; has the newest calibrations."""
        self.stamps_ns: dict[str, deque[int]] = {n: deque(maxlen=_STAMPS) for n in vehicle.cameras}
        """Late stamps of each camera, since time was last set back."""
        self.times_ns: dict[str, deque[tuple[int, int]]] = {
            name: deque(maxlen=_STAMPS) for name in vehicle.cameras
        }
        """Late stamps of each camera with the steady time of their arrival, whatever they are."""
        self.off_phase_s: dict[str, list[float]] = defaultdict(list)
        """How far each camera's stamps in complete sets are from its phase."""
        self.cloud_ahead_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_STAMPS))
        """Stamps of point clouds less the clock, by topic."""
        self.resets = 0
        """How often the stamps went back."""
        self.now_s = 0.0
        """Time of the newest message."""
        self._round_s = duration_s / _ROUNDS or 1.0
        self._rounds: dict[int, dict[str, Frame[Arrival]]] = defaultdict(dict)

    def image(self, camera: str, message: Any, now_s: float, clock_ns: int) -> None:
        """Take an image.

        Args:
            camera: its name.
            message: of any family.
            now_s: steady clock.
            clock_ns: what its stamp is compared with; 0 where that clock does not run.
        """
        self._until(now_s)
        stamp_ns = stamp_of(message)
        ahead_s = (stamp_ns - clock_ns) / 1e9 if stamp_ns and clock_ns else None
        encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
        self.cameras[camera].arrived(now_s, encoding, message.header.frame_id, ahead_s)
        if stamp_ns:
            stamps_ns = self.stamps_ns[camera]
            # A new round of a bag: poses of the one before are forgotten, as on the node.
            if stamps_ns and stamp_ns < stamps_ns[-1] - JUMP_NS:
                stamps_ns.clear()
            stamps_ns.append(stamp_ns)
            self.times_ns[camera].append((stamp_ns, round(now_s * 1e9)))
        arrival = Arrival(message, self.gathering.infos.get(camera))
        # The last image of each round stays, so memory does not grow with the bag.
        self._rounds[int(now_s / self._round_s)][camera] = Frame(stamp_ns, now_s, arrival)
        self._note(self.gathering.add(camera, message, now_s))

    def info(self, camera: str, message: Any) -> None:
        """Take a `camera_info`."""
        self.gathering.infos[camera] = message

    def cloud(self, topic: str, stamp_ns: int, clock_ns: int) -> None:
        """Take the stamp of a point cloud."""
        if clock_ns:
            self.cloud_ahead_s[topic].append((stamp_ns - clock_ns) / 1e9)

    def end(self, now_s: float) -> None:
        """Nothing more comes; sets that are overdue are closed."""
        self._until(now_s)

    @property
    def seen(self) -> list[str]:
        """Cameras of which images came."""
        return [name for name, camera in self.cameras.items() if camera.seen]

    @property
    def rate_hz(self) -> float:
        """Images a second that most cameras send; 0 where none does."""
        rates = [self.cameras[name].rate_hz(self.now_s) for name in self.seen]
        return median(rates) if rates else 0.0

    @property
    def counts(self) -> Counter[str]:
        """See `Synchronizer.counts`."""
        return self.gathering.synchronizer.counts

    def rounds(self) -> Iterable[ClosedSet]:
        """Images of all cameras at a few times, put together whatever their stamps are."""
        for frames in self._rounds.values():
            anchor = next(iter(frames))
            missing = tuple(name for name in self.cameras if name not in frames)
            stamp_ns = frames[anchor].stamp_ns
            images = CameraSet(anchor, stamp_ns, frames, missing, usable=True, waited_s=0.0)
            yield ClosedSet(images, dict(self.gathering.infos), self.now_s)

    def _until(self, now_s: float) -> None:
        self.now_s = now_s
        self._note(self.gathering.until(now_s))

    def _note(self, events: Iterable[ClosedSet | TimeWentBack]) -> None:
        offsets_s = self.gathering.synchronizer.offsets_s
        for event in events:
            if isinstance(event, TimeWentBack):
                self.resets += 1
            elif not event.images.missing:
                begin_ns = event.images.stamp_ns
                at_s = {
                    camera: (frame.stamp_ns - begin_ns) / 1e9 - offsets_s.get(camera, 0.0)
                    for camera, frame in event.images.frames.items()
                }
                # A set as a whole may be late, as the LiDAR's turn that triggers the cameras is
                # never exact; that puts no camera out of phase, so what all have in common is taken
                # off.
                middle_s = median(at_s.values())
                for camera, own_s in at_s.items():
                    self.off_phase_s[camera].append(own_s - middle_s)
