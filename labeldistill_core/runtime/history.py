# SPDX-License-Identifier: Apache-2.0
"""Past frames by age: depth and context are kept, where they fall is computed anew."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from labeldistill_core.cameras import CameraPose
from labeldistill_core.network.depth_net import FrameFeatures

_NS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class PastFrame:
    """What remains of a set of images."""

    stamp_ns: int
    """Time of the set, nanoseconds since the epoch."""
    features: FrameFeatures
    """Depth and context of the set's N images."""
    poses: tuple[CameraPose | None, ...]
    """Of its cameras in the order of the model; None where one was missing."""
    intrinsics: Tensor
    """(1, N, 3, 3), see `CameraBatch`."""
    image_from_sensor: Tensor
    """(1, N, 4, 4), see `CameraBatch`."""


class Stamped(Protocol):
    """A frame as the history sees it."""

    @property
    def stamp_ns(self) -> int:
        """Its time."""


Frame = TypeVar("Frame", bound=Stamped)


class History(Generic[Frame]):
    """Frames of the last seconds, picked by age.

    The student was trained with frames of fixed ages (1 s apart), not with the last few sets.
    """

    def __init__(self, ages_s: tuple[float, ...], tolerance_s: float = 0.1) -> None:
        """Keep frames that can still be asked for; a pick is within `tolerance_s` of its age.

        Raises:
            ValueError: the tolerance is negative or no number.
        """
        if not 0 <= tolerance_s < math.inf:
            raise ValueError(f"history_tolerance_s is {tolerance_s}: it must be 0 or more")
        self._ages_ns = [round(age * _NS) for age in ages_s]
        self._tolerance_ns = round(tolerance_s * _NS)
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        """Number of frames kept."""
        return len(self._frames)

    @property
    def newest(self) -> Frame | None:
        """The newest frame."""
        return self._frames[-1] if self._frames else None

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()

    def push(self, frame: Frame) -> None:
        """Keep a frame that is newer than all others; drop those that are too old by now."""
        self._frames.append(frame)
        horizon = max(self._ages_ns, default=0) + self._tolerance_ns
        # By age and not by number: at 12 Hz four seconds are 48 frames, at 2 Hz eight.
        while frame.stamp_ns - self._frames[0].stamp_ns > horizon:
            self._frames.popleft()

    def pick(self, stamp_ns: int) -> list[Frame | None]:
        """For each age the frame that is nearest to it, or None when none is near enough."""
        picked: list[Frame | None] = []
        for age in self._ages_ns:
            # Of a few dozen frames; nothing faster than looking at each is needed.
            nearest = min(
                self._frames, key=lambda f: abs(stamp_ns - age - f.stamp_ns), default=None
            )
            if nearest and abs(stamp_ns - age - nearest.stamp_ns) > self._tolerance_ns:
                nearest = None
            picked.append(nearest)
        return picked
