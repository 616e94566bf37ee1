# SPDX-License-Identifier: Apache-2.0
"""`message_filters`' ApproximateTimeSynchronizer in the place of ours, for comparison.

It has no answer to a dead camera or to time that goes back, and pairs different cycles where the
slop is too large; see docs/node.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labeldistill_core.errors import ConfigError
from labeldistill_ros.messages import header
from labeldistill_ros.sync.synchronizer import AddResult, CameraSet, Frame, SyncOptions

T = TypeVar("T")

_QUEUE = 10
"""Messages of each camera that the library keeps while it looks for a set."""


@dataclass
class _Carrier(Generic[T]):
    """A frame in the form that `message_filters` reads stamps from."""

    camera: str
    header: Any
    frame: Frame[T]


class ApproximateSynchronizer(Generic[T]):
    """The interface of `Synchronizer` over the library's; complete sets only."""

    def __init__(self, options: SyncOptions, slop_s: float) -> None:
        """Begin without any frame."""
        self.require()
        self._options, self._slop_s = options, slop_s
        self.counts: Counter[str] = Counter()
        """How often each thing happened since the start: received, complete, resets."""
        self.anchor = options.anchor
        """Camera whose stamp the sets carry."""
        self.offsets_s: dict[str, float] = {}
        """Phase offset of each camera in seconds; always empty, since this policy learns none."""
        self.relearned = 0
        """Nothing is learned, so nothing is learned anew."""
        self.disagreeing_s: dict[str, float] = {}
        """Stamps are not compared with arrivals."""
        self.missing: Counter[str] = Counter()
        """How often each camera was missing from a set; only complete sets are found."""
        self.absent: dict[str, int] = {}
        """Only complete sets are found."""
        self._found: list[CameraSet[T]] = []
        self._build()

    @staticmethod
    def require() -> None:
        """Say what is missing.

        Raises:
            ConfigError: `message_filters` is not installed.
        """
        try:
            # message_filters belongs to a ROS distribution and is not on PyPI: a checkout that pip
            # installed runs without it, as long as nobody asks for this policy.
            import message_filters  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "sync.policy is approximate_time, which needs message_filters: install "
                "ros-<distribution>-message-filters, or use the policy anchor"
            ) from error

    def _build(self) -> None:
        import message_filters

        # The library pairs messages by their headers and takes them from filters that subscribe.
        # Filters without a subscription are fed by `add`, so that the node keeps its own
        # subscriptions.
        self._filters: dict[str, Any] = {
            camera: message_filters.SimpleFilter() for camera in self._options.cameras
        }
        self._library = message_filters.ApproximateTimeSynchronizer(
            list(self._filters.values()), _QUEUE, self._slop_s
        )
        self._library.registerCallback(self._on_set)
        self._newest_ns = 0

    def _on_set(self, *carriers: _Carrier[T]) -> None:
        frames = {c.camera: c.frame for c in carriers}
        arrivals = [frame.arrival_s for frame in frames.values()]
        self.counts["complete"] += 1
        self._found.append(
            CameraSet(
                anchor=self.anchor,
                stamp_ns=frames[self.anchor].stamp_ns,
                frames=frames,
                missing=(),
                usable=True,
                waited_s=max(arrivals) - min(arrivals),
            )
        )

    def add(self, camera: str, stamp_ns: int, item: T, now_s: float) -> AddResult[T]:
        """Take a frame; see `Synchronizer.add`."""
        self.counts["received"] += 1
        # Less than half a second back is an image out of order, which the library sorts in by
        # itself.
        if reset := stamp_ns < self._newest_ns - 500_000_000:
            self.reset()  # the library would wait for the time before the jump
        self._newest_ns = max(self._newest_ns, stamp_ns)
        carrier = _Carrier(camera, header(stamp_ns, ""), Frame(stamp_ns, now_s, item))
        self._filters[camera].signalMessage(carrier)
        return AddResult(self.poll(now_s), reset)

    def poll(self, now_s: float) -> list[CameraSet[T]]:
        """Sets that were found since the last call."""
        found, self._found = self._found, []
        return found

    def next_deadline_s(self) -> float | None:
        """Nothing is ever due: a set without a camera waits for ever."""
        return None

    def reset(self) -> None:
        """Forget all frames that wait for others."""
        self.counts["resets"] += 1
        self._build()

    def relearn_offsets(self) -> None:
        """Do nothing: the library learns no offsets."""
