# SPDX-License-Identifier: Apache-2.0
"""The transform tree of /tf and /tf_static, with interpolation. No ROS in here.

Names are those of ROS frames; a lookup gives `target_from_source` at a stamp.

Why this is not `tf2_ros`: that is no package of PyPI, so what runs without a ROS distribution (the
bag tools, the demo, the tests) could not have it. Online and offline would then interpolate
differently, and scores of a bag would no longer tell what the node does. Its Python buffer also
does not say whether waiting can help, which decides between waiting and refusing a set.
"""

from __future__ import annotations

import logging
import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.frames import Transform
from labeldistill_core.names import plain_text, shown
from labeldistill_ros.ros_names import frame_name

_LOG = logging.getLogger(__name__)

_MAX_FRAMES = 1000
"""Of a vehicle with its map; a table that grows by what comes in has an end."""
_LONGEST_NAME = 256
_NS = 1_000_000_000
_GAPS = 8
"""Arrivals of a moving frame by which it is known how long it may be silent."""
_PLAIN = 1e-6
"""A quaternion whose length is nearer to 1 needs no closer look, which would take longer."""
_STREAM = 3
"""Transforms of a frame on /tf that are no accident."""
_JUMPS = 3
"""Times that time was set back within `keep_s`, which no bag that is looped does."""
_NUMBERS = 7
"""Of a pose: w x y z of its rotation, then its metres."""
_SILENT = 1.5
"""Longest gap between such arrivals after which the next one is overdue."""

LONGEST_GAP_S = 10.0
"""Between two poses of a moving frame that are interpolated; more hides where it has been."""
FARTHEST_M = 1e8
"""Of a frame from its parent: coordinates of UTM and from the Earth's centre stay below 1e7."""

Wxyz = tuple[float, float, float, float]
Xyz = tuple[float, float, float]
_Pose = tuple[Wxyz, Xyz]

Lookup = Callable[[str, str, int, float], Transform]
"""Gives `target_from_source` at a stamp: target, source, stamp in ns, end of waiting in s (steady
clock). Raises `TransformError`."""


class TransformError(LabelDistillError):
    """A transform is not there (yet)."""

    def __init__(self, message: str, *, may_come: bool) -> None:
        """`may_come`: waiting can help, since the stamp is newer than what has arrived."""
        super().__init__(message)
        self.may_come = may_come


@dataclass
class _Edge:
    """A frame in its parent, over time; the arrays are in the order of the stamps.

    Numbers without objects: 200 joints at 100 Hz are 400,000 poses, as tuples 190 MB.
    """

    parent: str
    fixed: _Pose | None = None
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    came_s: array[float] = field(default_factory=lambda: array("d"))
    newest_s: deque[float] = field(default_factory=lambda: deque(maxlen=_GAPS))
    trimmed_s: float = -math.inf
    told_both_s: float = -math.inf
    goes_back: bool = False
    jumps_s: deque[float] = field(default_factory=lambda: deque(maxlen=_JUMPS))

    def silent(self, arrival_s: float) -> bool:
        """Whether the newest stamp came longer ago than such do from one another."""
        came_s = [*self.newest_s]
        gaps_s = [b - a for a, b in pairwise(came_s)]
        return abs(arrival_s - came_s[-1]) > _SILENT * max(gaps_s, default=0.0)

    def take(self, stamp_ns: int, pose: _Pose, arrival_s: float, keep_s: float) -> None:
        """Sort a pose in, and forget those that came long ago."""
        i = bisect_left(self.stamps_ns, stamp_ns)
        same = i < len(self.stamps_ns) and self.stamps_ns[i] == stamp_ns
        self.stamps_ns[i : i + same] = array("q", (stamp_ns,))
        wxyz, xyz = pose
        self.numbers[_NUMBERS * i : _NUMBERS * (i + same)] = array("d", (*wxyz, *xyz))
        self.came_s[i : i + same] = array("d", (arrival_s,))
        if abs(arrival_s - self.trimmed_s) > keep_s:  # seldom, as it looks at all
            self.trimmed_s = arrival_s
            kept = [k for k, s in enumerate(self.came_s) if abs(arrival_s - s) <= keep_s]
            self.stamps_ns = array("q", (self.stamps_ns[k] for k in kept))
            self.numbers = array("d", (number for k in kept for number in self._numbers(k)))
            self.came_s = array("d", (self.came_s[k] for k in kept))

    def _numbers(self, i: int) -> array[float]:
        return self.numbers[_NUMBERS * i : _NUMBERS * (i + 1)]

    def pose(self, i: int) -> _Pose:
        """The pose at the i-th stamp."""
        w, x, y, z, *xyz = self._numbers(i)
        return (w, x, y, z), (xyz[0], xyz[1], xyz[2])

    def drop_newer(self, stamp_ns: int) -> None:
        """Forget what belongs to a time that has not come yet."""
        i = bisect_left(self.stamps_ns, stamp_ns)
        del self.stamps_ns[i:], self.numbers[_NUMBERS * i :], self.came_s[i:]
        self.newest_s.clear()


class TransformBuffer:
    """Remembers the poses of the last seconds; not thread-safe, the owner holds a lock."""

    def __init__(
        self,
        keep_s: float = LONGEST_GAP_S,
        jump_s: float = 0.5,
        tell: Callable[[str], object] = _LOG.warning,
    ) -> None:
        """Begin without any transform.

        Args:
            keep_s: history of a moving frame, which is forgotten when it is silent for longer;
                infinite to forget nothing.
            jump_s: a pose that is older than the newest by more than this says that time was set
                back, unless newer ones go on coming; what is newer than it is dropped.
            tell: is given a sentence for each transform that is refused.
        """
        self._tell = tell
        self._keep_s, self._jump_ns = keep_s, jump_s * _NS
        self._edges: dict[str, _Edge] = {}
        self._swept_s = self._now_s = -math.inf

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        wxyz: Wxyz,
        translation: Xyz,
        *,
        static: bool = False,
        arrival_s: float | None = None,
    ) -> bool:
        """Take one transform (`parent_from_child`, metres).

        One that cannot be is refused and told: it closes a loop, gives a frame a second parent, or
        is of one frame more than a vehicle has. What is silent is decided
        by arrivals and not by stamps, since a clock may be wrong.

        Args:
            parent: frame in which the pose is told.
            child: frame whose pose it is.
            stamp_ns: time of the pose.
            wxyz: rotation, a unit quaternion.
            translation: metres.
            static: whether it holds for all times.
            arrival_s: when it came, by a clock that never jumps; by its stamp when None.

        Returns:
            Whether time was set back.
        """
        parent, child = frame_name(parent), frame_name(child)
        arrival_s = stamp_ns / _NS if arrival_s is None else arrival_s
        edge, pose = self._edges.get(child), (wxyz, translation)
        self._now_s = arrival_s
        if edge is None or edge.parent != parent:
            if fault := self._fault(parent, child, arrival_s, static):
                self._tell(fault)
                return False
            if edge and static:
                self._tell(
                    f"the static transform of {shown(child)} names another parent, "
                    f"{shown(parent)}, than before, {shown(edge.parent)}; the newer one counts"
                )
            edge = self._edges[child] = _Edge(parent)
        known = edge.fixed is not None if static else bool(edge.stamps_ns)
        plain = abs(math.hypot(*wxyz) - 1.0) < _PLAIN and _is_near(translation)
        if known and not plain and (fault := _fault_of_pose(parent, child, pose)):
            # Those before it are better than none. One that comes first is kept, to be told of by
            # whoever asks for it.
            self._tell(fault)
            return False
        if static:
            edge.fixed = pose
        both = edge.fixed is not None and (bool(edge.stamps_ns) or not static)
        if both and arrival_s - edge.told_both_s >= self._keep_s:  # once where a bag is read
            edge.told_both_s = arrival_s
            self._tell(
                f"frame {shown(child)} in {shown(parent)} is static and comes on /tf as "
                f"well, which counts from the {_STREAM}rd time on: stop one of the two publishers"
            )
        if static:
            return False
        back = bool(edge.stamps_ns) and edge.stamps_ns[-1] - stamp_ns > self._jump_ns
        # A looped bag, or a stray stamp, or a second publisher whose clock is off? Whether time was
        # set back is seen by whether the newer stamps go on.
        jumped = back and edge.silent(arrival_s)
        if jumped:
            # A looped bag would otherwise be looked up in its last round.
            edge.drop_newer(stamp_ns)
            edge.jumps_s.append(arrival_s)
        often = len(edge.jumps_s) == _JUMPS and arrival_s - edge.jumps_s[0] <= self._keep_s
        if (jumped and often) or (edge.goes_back and not back):
            self._tell(
                f"the stamps of {shown(child)} in {shown(parent)} go back and forth: it has two "
                "publishers, or a clock that is set again and again; stop one, or see to the clock"
            )
        edge.goes_back = back and not jumped
        if not edge.goes_back:
            edge.newest_s.append(arrival_s)
        edge.take(stamp_ns, pose, arrival_s, self._keep_s)
        return jumped

    def _fault(self, parent: str, child: str, arrival_s: float, static: bool) -> str:
        """Why the tree cannot take a new edge; empty where it can."""
        refused = f"the transform of {shown(child)} in {shown(parent)} is refused"
        if not parent or not child:
            return f"{refused}: it has to name both frames"
        if max(len(parent), len(child)) > _LONGEST_NAME:
            return f"{refused}: too long a name"
        edge = self._edges.get(child)
        if edge is None and self._full(arrival_s):
            return f"the transform of {shown(child)} is refused: {_MAX_FRAMES} frames are known"
        if edge is not None and edge.parent != parent:
            # what is latched anew corrects what was latched
            both_static = static and not self._moves(edge)
            if not both_static and not self._expired(edge, arrival_s):
                return (
                    f"frame {shown(child)} has two parents, {shown(edge.parent)} and "
                    f"{shown(parent)}; the second is refused: stop one of the two publishers"
                )
        path = [child, parent]
        while path[-1] != child and (above := self._edges.get(path[-1])) is not None:
            if self._expired(above, arrival_s):
                del self._edges[path[-1]]
                break
            path.append(above.parent)
        if path[-1] == child:
            loop = " -> ".join(map(shown, path))
            return f"{refused}, since it closes a loop: {loop}"
        return ""

    def _full(self, arrival_s: float) -> bool:
        """Whether no frame can be added; moving ones that are silent give way."""
        # Once a second, since whoever fills the table goes on doing so.
        if len(self._edges) >= _MAX_FRAMES and abs(arrival_s - self._swept_s) > 1.0:
            self._swept_s = arrival_s
            living = {c: e for c, e in self._edges.items() if not self._expired(e, arrival_s)}
            self._edges = living
        return len(self._edges) >= _MAX_FRAMES

    def _expired(self, edge: _Edge, arrival_s: float) -> bool:
        return edge.fixed is None and max(edge.newest_s) < arrival_s - self._keep_s

    def _moves(self, edge: _Edge) -> bool:
        """Whether what came on /tf counts; beside a static transform only a stream does."""
        if edge.fixed is None:
            return True
        came_s = edge.newest_s
        return len(came_s) >= _STREAM and self._now_s - came_s[-1] <= self._keep_s

    def frames(self) -> tuple[str, ...]:
        """Names of all frames that are known, parents included, sorted."""
        return tuple(sorted({*self._edges, *(edge.parent for edge in self._edges.values())}))

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """`target_from_source` at a time.

        Raises:
            TransformError: a frame is unknown, the two are not connected, or the stamp lies
                outside of what is remembered.
        """
        asked = (target, source)
        target, source = frame_name(target), frame_name(source)
        source_path, target_path = self._to_root(source), self._to_root(target)
        # The nearest common ancestor: a transform above it that is missing does no harm.
        common = next((frame for frame in source_path if frame in target_path), None)
        if common is None:
            raise TransformError(self._why_unconnected(target, source), may_come=False)
        common_from_source = self._chain(source, common, stamp_ns)
        if common == target:
            found = common_from_source
        else:
            found = self._chain(target, common, stamp_ns).inverse @ common_from_source
        return replace(found, target=asked[0], source=asked[1])

    def _to_root(self, frame: str) -> list[str]:
        path = [frame]
        while (edge := self._edges.get(path[-1])) is not None:
            path.append(edge.parent)
        return path

    def _why_unconnected(self, target: str, source: str) -> str:
        known = self.frames()
        absent = [name for name in (target, source) if name not in known]
        if absent:
            names = " and ".join(shown(name) for name in absent)
            have = ", ".join(name if name.isprintable() else shown(name) for name in known[:40])
            have += f" and {len(known) - 40} more" if len(known) > 40 else "" if known else "none"
            return f"no transform names the frame {names} (known frames: {have})"
        return (
            f"frames {shown(target)} and {shown(source)} are in different trees: nothing "
            f"publishes a transform between {shown(self._to_root(target)[-1])} and "
            f"{shown(self._to_root(source)[-1])}"
        )

    def _chain(self, frame: str, ancestor: str, stamp_ns: int) -> Transform:
        """`ancestor_from_frame`."""
        result = Transform.identity(frame, frame)
        while frame != ancestor:
            edge = self._edges[frame]
            result = self._at(frame, edge, stamp_ns) @ result
            frame = edge.parent
        return result

    def _at(self, child: str, edge: _Edge, stamp_ns: int) -> Transform:
        def pose(i: int) -> Transform:
            return rigid(edge.pose(i))

        def rigid(pose: _Pose) -> Transform:
            if fault := _fault_of_pose(edge.parent, child, pose):
                raise TransformError(fault, may_come=False)
            return _transform(edge.parent, child, pose)

        if edge.fixed is not None and not self._moves(edge):
            return rigid(edge.fixed)
        stamps = edge.stamps_ns
        i = bisect_right(stamps, stamp_ns) - 1
        if i >= 0 and stamps[i] == stamp_ns:
            return pose(i)
        if 0 <= i < len(stamps) - 1:
            gap_s = (stamps[i + 1] - stamps[i]) / _NS
            if gap_s > LONGEST_GAP_S:
                # One that belongs here may come yet: the later stamp may be of a wrong clock.
                raise TransformError(
                    f"{shown(edge.parent)} from {shown(child)} at {stamp_ns / _NS:.3f} s: the "
                    f"stamp lies between two transforms that are {gap_s:.3f} s apart, and over "
                    f"more than {LONGEST_GAP_S:g} s nothing is interpolated",
                    may_come=True,
                )
            # Rotations by slerp, translations linearly, as tf2 does. Nothing is extrapolated.
            fraction = (stamp_ns - stamps[i]) / (stamps[i + 1] - stamps[i])
            return pose(i).interpolate(pose(i + 1), fraction)
        newer = i >= 0
        near_ns = stamps[i] if newer else stamps[0]
        raise TransformError(
            f"{shown(edge.parent)} from {shown(child)} at {stamp_ns / _NS:.3f} s: the stamp is "
            f"{abs(stamp_ns - near_ns) / _NS:.3f} s {'newer' if newer else 'older'} than the "
            f"{'newest' if newer else 'oldest'} of {len(stamps)} transforms that were received",
            may_come=newer,
        )


def _is_near(xyz: Xyz) -> bool:
    """Whether all are numbers that a frame can be at."""
    # One by one: a maximum of numbers and NaN depends on their order.
    return all(abs(metres) <= FARTHEST_M for metres in xyz)


def _transform(parent: str, child: str, pose: _Pose) -> Transform:
    """Raises `ValueError` where it is none."""
    wxyz, xyz = pose
    if not _is_near(xyz):
        raise ValueError(f"it is at {list(xyz)} metres")
    return Transform.from_quaternion(parent, child, wxyz, xyz)


def _fault_of_pose(parent: str, child: str, pose: _Pose) -> str:
    """Why a pose is no rigid transform; empty where it is one."""
    try:
        _transform(parent, child, pose)
    except ValueError as error:
        names = f"{shown(parent)} from {shown(child)}"
        return f"{names} was published as no rigid transform: {plain_text(str(error))}"
    return ""
