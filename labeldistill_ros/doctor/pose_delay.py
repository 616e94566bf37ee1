# SPDX-License-Identifier: Apache-2.0
"""How long after an image the vehicle's pose at its stamp comes, on a live system."""

from __future__ import annotations

from collections import deque

import numpy as np

from labeldistill_ros.doctor.finding import Finding
from labeldistill_ros.inputs.transforms import Lookup, TransformError

_GIVEN_UP_S = 2.0
"""A pose that has not come by then is missing, which is told elsewhere."""


class PoseDelay:
    """Asks for the poses of images again and again, until each is there."""

    def __init__(self, lookup: Lookup, fixed_frame: str, base_frame: str) -> None:
        """Nothing has come yet.

        Args:
            lookup: gives the transform between two ROS frames at a stamp.
            fixed_frame: ROS name.
            base_frame: ROS name.
        """
        self._lookup, self._frames = lookup, (fixed_frame, base_frame)
        self._waiting: deque[tuple[int, float]] = deque()
        self._delays_s: list[float] = []

    def image(self, stamp_ns: int, now_s: float) -> None:
        """An image has come; the poses of those before it may have come, too."""
        self._waiting.append((stamp_ns, now_s))
        self.look(now_s)

    def look(self, now_s: float) -> None:
        """See which poses have come by now."""
        # In order, as one that may still come comes before those of later images.
        while self._waiting:
            stamp_ns, came_s = self._waiting[0]
            try:
                self._lookup(*self._frames, stamp_ns, 0.0)
            except TransformError as error:
                # What can no longer come must not hold back those that are there: their delay
                # would be that of the wait.
                if error.may_come and now_s - came_s < _GIVEN_UP_S:
                    return
            else:
                self._delays_s.append(now_s - came_s)
            self._waiting.popleft()

    def check(self, timeout_s: float) -> list[Finding]:
        """Whether the poses come within `tf_timeout`; nothing where none came at all."""
        if not self._delays_s:
            return []
        delay_s = float(np.percentile(self._delays_s, 95))
        text = f"they come {delay_s * 1e3:.0f} ms after the images (95th percentile)"
        if delay_s <= timeout_s:
            return [Finding("poses", "ok", text)]
        mend = (
            f"{text}, and the node waits {timeout_s * 1e3:.0f} ms: raise tf_timeout, or tell the "
            "pose sooner or more often; without it the set's past is not used"
        )
        return [Finding("poses", "warning", mend)]
