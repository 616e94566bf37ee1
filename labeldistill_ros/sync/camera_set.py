# SPDX-License-Identifier: Apache-2.0
"""What the synchronizer is told, what goes into it, and what comes out. No ROS in here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

_NS = 1_000_000_000


@dataclass(frozen=True)
class SyncOptions:
    """How frames are put together."""

    cameras: tuple[str, ...]
    """All cameras of a complete set."""
    anchor: str
    """Camera whose stamp a set carries, as long as it lives."""
    tolerance_s: float = 0.03
    """Largest difference to the mean of the group, after offsets; under half a period."""
    deadline_s: float | None = None
    """Wait for missing cameras after the anchor's frame came, or should have come; where the
    largest offset and the tolerance sum to more, that sum. A set that the policy would drop waits
    for every camera until this long after its frame should have come. Learned from the cameras'
    period when None, and then at most `max_age_s`."""
    max_age_s: float = 0.25
    """A camera that is silent for longer (or for 4.5 of its periods) is dead."""
    min_cameras: int = 4
    """Fewest cameras of an incomplete set, where the policy allows one."""
    policy: Literal["skip", "mask"] = "skip"
    """`skip` drops incomplete sets, `mask` gives them out."""
    offsets_s: Mapping[str, float] = field(default_factory=dict)
    """Known phase offsets relative to the anchor; the others are learned."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras must be distinct names, not {list(self.cameras)}")
        for camera in (self.anchor, *self.offsets_s):
            if camera not in self.cameras:
                raise ValueError(f"{camera!r} is none of the cameras {list(self.cameras)}")
        if not 1 <= self.min_cameras <= len(self.cameras):
            raise ValueError(
                f"min_cameras is {self.min_cameras}: use 1 to {len(self.cameras)} cameras"
            )
        # A deadline that is learned never exceeds max_age, so that stands for it in the check.
        deadline_s = self.max_age_s if self.deadline_s is None else self.deadline_s
        if not all(0 < s < math.inf for s in (self.tolerance_s, deadline_s, self.max_age_s)):
            raise ValueError("tolerance, deadline and max_age must be positive seconds")
        for camera, offset_s in self.offsets_s.items():
            if not math.isfinite(offset_s):
                raise ValueError(f"the offset of {camera} is {offset_s}: use finite seconds")


def fewest_cameras(cameras: Sequence[str], wanted: int = SyncOptions.min_cameras) -> int:
    """Fewest cameras of an incomplete set, which lacks one of them at least."""
    return max(1, min(wanted, len(cameras) - 1))


@dataclass(frozen=True)
class Frame(Generic[T]):
    """One camera's contribution."""

    stamp_ns: int
    """Time of exposure by the camera's clock, nanoseconds since the epoch."""
    arrival_s: float
    """When the image came, in seconds of the steady clock."""
    item: T
    """What the caller handed in with the stamp, usually the image message."""


@dataclass(eq=False)
class FrameGroup(Generic[T]):
    """Frames that were put together so far, of a cycle that is still open."""

    cycle_ns: int
    """Mean of their stamps less their cameras' phases, nanoseconds since the epoch."""
    frames: dict[str, Frame[T]] = field(default_factory=dict)
    """By camera, in the order in which they came."""


@dataclass(frozen=True)
class CameraSet(Generic[T]):
    """Frames of one cycle of the cameras, at most one of each camera."""

    anchor: str
    """Camera whose stamp this is: the anchor, or the next one present in a masked set."""
    stamp_ns: int
    """Stamp of the anchor's image, nanoseconds since the epoch."""
    frames: Mapping[str, Frame[T]]
    """By camera, in the order of the options."""
    missing: tuple[str, ...]
    """Cameras without a frame; empty in a complete set."""
    usable: bool
    """False for an incomplete set that the policy drops; it is given out so that it can be told."""
    waited_s: float
    """Seconds from the first frame's arrival until the set was closed."""

    @property
    def spread_s(self) -> float:
        """Seconds between the first and the last exposure."""
        # Of true stamps, phases included: it tells how far the vehicle moved within the set.
        stamps = [frame.stamp_ns for frame in self.frames.values()]
        return (max(stamps) - min(stamps)) / _NS


@dataclass(frozen=True)
class AddResult(Generic[T]):
    """What adding a frame led to: sets that it closed, or a reset."""

    sets: list[CameraSet[T]]
    """Sets that it closed, oldest first."""
    reset: bool = False
    """Whether its stamp told that time was set back, so that all earlier frames are forgotten."""

    def __iter__(self) -> Iterator[CameraSet[T]]:
        """Go through the sets, for a caller to whom resets mean nothing."""
        return iter(self.sets)
