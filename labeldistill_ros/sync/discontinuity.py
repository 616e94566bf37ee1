# SPDX-License-Identifier: Apache-2.0
"""Whether a set can follow the one before it, or the past has to be forgotten. No ROS in here."""

from __future__ import annotations

import numpy as np

from labeldistill_core.frames import Transform

_SLACK_M = 2.0
"""A correction of the localization by less than this is no jump."""


class DiscontinuityCheck:
    """Watches stamps and poses of the sets, in the order in which they are processed."""

    def __init__(self, max_gap_s: float, max_speed_m_s: float) -> None:
        """Gaps that are longer and motions that are faster break the history."""
        self._max_gap_s, self._max_speed_m_s = max_gap_s, max_speed_m_s
        self._last: tuple[int, Transform] | None = None

    def reason(self, stamp_ns: int, fixed_from_ego: Transform) -> str:
        """Why the past cannot be used after this set's stamp and pose; empty when it can."""
        last, self._last = self._last, (stamp_ns, fixed_from_ego)
        # A stamp that goes back is the synchronizer's to tell, which drops the images as well.
        if last is None or stamp_ns <= last[0]:
            return ""
        gap_s = (stamp_ns - last[0]) / 1e9
        if gap_s > self._max_gap_s:
            return f"no set for {gap_s:.1f} s"
        moved_m = float(np.linalg.norm(fixed_from_ego.translation - last[1].translation))
        # Faster than any vehicle: the localization was set anew, so poses before and after do not
        # fit together, and past frames would be pooled in the wrong place.
        if moved_m > self._max_speed_m_s * gap_s + _SLACK_M:
            return f"the pose jumped by {moved_m:.0f} m in {gap_s:.2f} s"
        return ""
