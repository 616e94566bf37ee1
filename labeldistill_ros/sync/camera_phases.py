# SPDX-License-Identifier: Apache-2.0
"""When each camera exposes within a cycle, learned from the stamps alone.

Cameras on one vehicle run at a common rate, but seldom at a common instant: a spinning LiDAR
triggers them one after the other, so the six images of one cycle are spread over half a period.
Images belong together when their stamps agree *after* each camera's offset is taken off.

Which cut of the endless sequence is "one cycle" is not in the stamps. The tightest one is taken:
the cut lies in the largest pause. It is chosen anew from all phases until `settle` is called, and
kept from then on, since another cut would pair images of other cycles.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

_HISTORY = 16
"""Stamps of a camera that are looked at; at 12 Hz a changed phase is adopted within a second."""
_KEPT = 64
"""Stamps kept for each camera, so that one that is two seconds behind can still be compared."""
_MIN_ANCHORS = 3
"""Frames of the anchor from which a period is believed."""
_LARGEST_TOLERANCE = 0.4
"""Of the period; from a half on, an image would fit into two cycles."""
_MAX_OFFSET_NS = 500_000_000
"""Cameras that expose further apart than this do not see the same scene."""


class PhaseTracker:
    """Offset of every camera within the cycle, nanoseconds, relative to the preferred anchor."""

    def __init__(
        self,
        cameras: Sequence[str],
        anchor: str,
        tolerance_ns: int,
        given_ns: Mapping[str, int] | None = None,
    ) -> None:
        """Start without knowledge but for the given offsets, which are never changed.

        Args:
            cameras: all names.
            anchor: the camera whose offset is zero.
            tolerance_ns: stamps that agree within it count as the same phase.
            given_ns: offsets that the user knows.
        """
        self._cameras = tuple(cameras)
        self._anchor = anchor
        self._given_tolerance_ns = tolerance_ns
        self._given_ns = {anchor: 0, **given_ns} if given_ns else {}
        self.relearned = 0
        """How often a learned offset moved by more than the tolerance."""
        self._period_ns, self._period_known = 0, False
        self.forget()

    def forget(self) -> None:
        """Drop the learned offsets and all stamps; the given offsets stay."""
        self.offsets_ns: dict[str, int] = dict(self._given_ns)
        """Phase offset of each camera whose offset is given or learned, nanoseconds."""
        self._assumed: set[str] = set()
        self._settled = False
        self.clear_history()

    def clear_history(self) -> None:
        """Drop the stamps but keep the offsets, as after a bag loop."""
        self._stamps: dict[str, deque[int]] = {c: deque(maxlen=_KEPT) for c in self._cameras}
        self._since_update = 0

    def forget_stamps(self, camera: str) -> None:
        """Drop one camera's stamps, as after its clock was set."""
        self._stamps[camera].clear()

    def settle(self, cameras: Sequence[str]) -> None:
        """Keep the cut between two cycles from now on, since images are placed by it.

        Args:
            cameras: those that have no phase, as of another rate; they are taken as exposing with
                the anchor until one is learned.
        """
        self._settled = True
        for camera in cameras:
            self._assumed.add(camera)
            self.offsets_ns[camera] = 0

    @property
    def tolerance_ns(self) -> int:
        """The given tolerance, but never so much that two cycles come within it."""
        if not self._period_ns:
            return self._given_tolerance_ns
        # Phases are known modulo the period alone, so beyond half of it an image fits two cycles
        # alike.
        return min(self._given_tolerance_ns, int(_LARGEST_TOLERANCE * self._period_ns))

    def observe(self, camera: str, stamp_ns: int) -> None:
        """Remember the stamp of a camera's image, nanoseconds."""
        stamps = self._stamps[camera]
        if stamps and stamp_ns < stamps[-1]:  # out of order; the median does not need it
            return
        if stamps and stamp_ns > stamps[-1] and not self._period_known:
            # A first guess until `update` has three frames of the anchor. The smallest gap, since a
            # lost image makes a gap longer, and a period that is too long would let two cycles come
            # within the tolerance.
            gap_ns = stamp_ns - stamps[-1]
            self._period_ns = min(self._period_ns or gap_ns, gap_ns)
        stamps.append(stamp_ns)

    def learn_first_cycle(self, silence_ns: int) -> None:
        """Take the offsets from a cycle that clear pauses set off from the others, if there is one.

        Args:
            silence_ns: for how long nothing has come since the newest stamp.
        """
        events = sorted((s, c) for c, stamps in self._stamps.items() for s in stamps)
        n = len(self._cameras)
        # The newest run first: the oldest may begin in the middle of a cycle, when the node was
        # started.
        for start in range(len(events) - n, -1, -1):
            cycle = events[start : start + n]
            extent = cycle[-1][0] - cycle[0][0]
            if len({camera for _, camera in cycle}) < n or extent > _MAX_OFFSET_NS:
                continue
            before = cycle[0][0] - events[start - 1][0] if start else None
            after = events[start + n][0] - cycle[-1][0] if start + n < len(events) else silence_ns
            # The first run has no pause before it that was seen; the one after it decides alone.
            pause = after if before is None else min(before, after)
            inner = max((b[0] - a[0] for a, b in zip(cycle, cycle[1:], strict=False)), default=0)
            # A pause twice as long as any gap within: cameras that are spread evenly over the
            # period have no such cut, and wait until `update` knows the period.
            if pause > 2 * inner:
                offsets = {camera: stamp for stamp, camera in cycle}
                zero = offsets[self._anchor] - self._given_ns.get(self._anchor, 0)
                self._adopt({camera: stamp - zero for camera, stamp in offsets.items()})
                return

    def update(self, anchor: str) -> None:
        """Follow the phases; call once for each frame of the anchor.

        Works at every quarter of the history once the cameras that send have offsets, needs a
        period, and leaves cameras alone whose stamps keep no phase (another rate).
        """
        self._since_update += 1
        learning = any(s and c not in self.offsets_ns for c, s in self._stamps.items())
        if not learning and self._since_update < _HISTORY // 4:
            return
        self._since_update = 0
        anchors = list(self._stamps[anchor])
        if len(anchors) < _MIN_ANCHORS:
            return
        # The others tell whether the anchor's first gaps are of frames that were lost.
        gaps = {c: _gaps([*stamps][-_HISTORY:]) for c, stamps in self._stamps.items()}
        if not gaps[anchor]:
            return
        common = median([gap for own in gaps.values() for gap in own])
        period = int(median([gap / max(1, round(gap / common)) for gap in gaps[anchor]]))
        self._period_ns, self._period_known = period, True
        if not self._settled:  # phases that were found by another anchor do not fit to these
            self.offsets_ns = dict(self._given_ns)
        present = self.offsets_ns
        phases = {anchor: 0}
        first, last = anchors[0] - period, anchors[-1] + period
        for camera in self._cameras:
            stamps = [s for s in self._stamps[camera] if first < s < last][-_HISTORY:]
            if camera != anchor and len(stamps) >= 2:
                both = anchor in present and camera in present
                expected = present[camera] - present[anchor] if both else None
                phase = self._phase(stamps, anchors, period, expected)
                if phase is not None:
                    phases[camera] = phase
        self._adopt(self._unwrapped(phases, anchor, period))

    def _phase(
        self, stamps: list[int], anchors: list[int], period: int, expected: int | None
    ) -> int | None:
        """Densest difference to the anchor, modulo the period; None if there is none."""
        differences, tolerance = [], self.tolerance_ns
        for stamp in stamps:
            before = anchors[max(bisect_left(anchors, stamp) - 1, 0)]
            # Modulo the period, since an exposure just before the anchor's is also one just after
            # the last.
            differences.append((stamp - before) % period)

        def around(center: int) -> list[int]:
            wrapped = [(d - center + period // 2) % period - period // 2 for d in differences]
            return [w for w in wrapped if abs(w) <= tolerance]

        # The present offset stays as long as three quarters of the votes of the best one are for
        # it. Jitter does not move the pairing back and forth.
        best, votes = expected or 0, [] if expected is None else around(expected)
        if len(votes) * 4 < len(differences) * 3:
            # The densest place and not the median: where a camera loses images or runs at half the
            # rate, the differences lie in two heaps, and their median in neither.
            densest = max(differences, key=lambda d: len(around(d)))
            if len(votes) * 4 < len(around(densest)) * 3:
                best, votes = densest, around(densest)
        # A camera of half the anchor's rate or double it gives half of the votes; one of an
        # unrelated rate gives fewer, and then the nearest image in time is the best there is.
        if len(votes) * 2 < len(differences):
            return None
        return (best + int(median(votes))) % period

    def _unwrapped(self, phases: dict[str, int], anchor: str, period: int) -> dict[str, int]:
        """Phases modulo the period to offsets: near the present ones, or the tightest cut."""
        present, ordered = self.offsets_ns, sorted(phases.values())
        # The cycle begins after the largest pause, that around the end of the period included.
        pauses = [(b - a) % period for a, b in zip([ordered[-1], *ordered], ordered, strict=False)]
        cut = ordered[max(range(len(pauses)), key=pauses.__getitem__)]
        tight = {camera: (phase - cut) % period for camera, phase in phases.items()}
        # Relative to a camera whose offset is known, at first to the preferred anchor.
        known = [c for c in (anchor, *phases) if c in present]
        zero = known[0] if known else self._anchor if self._anchor in phases else anchor
        shift = present.get(zero, 0) - tight[zero]
        tight = {camera: t + shift for camera, t in tight.items()}
        near = {}
        for camera, offset in tight.items():
            now = present.get(camera, offset)
            near[camera] = now + (offset - now + period // 2) % period - period // 2
        # Free-running cameras drift through the cycle; keep the pairing until it is clearly loose.
        return tight if _spread(near) > _spread(tight) + period // 4 else near

    def _adopt(self, offsets: dict[str, int]) -> None:
        for camera, offset in offsets.items():
            # What the user gave is never learned over, and half a second apart is another scene.
            if camera in self._given_ns or abs(offset) > _MAX_OFFSET_NS:
                continue
            old = self.offsets_ns.get(camera)
            # Within the tolerance it is the same phase, measured better; only a real move is told
            # as a warning.
            moved = old is not None and abs(offset - old) > self.tolerance_ns
            self.relearned += moved and self._settled and camera not in self._assumed
            self._assumed.discard(camera)
            self.offsets_ns[camera] = offset


def _gaps(stamps: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip(stamps, stamps[1:], strict=False) if b > a]


def _spread(offsets: Mapping[str, int]) -> int:
    return max(offsets.values()) - min(offsets.values())
