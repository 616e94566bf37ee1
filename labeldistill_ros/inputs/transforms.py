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
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.frames import Transform
from labeldistill_core.names import plain_text, shown

_LOG = logging.getLogger(__name__)

_MAX_FRAMES = 1000
"""Of a vehicle with its map; a table that grows by what comes in has an end."""
_LONGEST_NAME = 256
_NS = 1_000_000_000

FARTHEST_M = 1e8
"""Of a frame from its parent: coordinates of UTM and from the Earth's centre stay below 1e7."""

Wxyz = tuple[float, float, float, float]
Xyz = tuple[float, float, float]

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
    """A frame in its parent, over time."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[tuple[Wxyz, Xyz]] = field(default_factory=list)


class TransformBuffer:
    """Remembers the poses of the last seconds; not thread-safe, the owner holds a lock."""

    def __init__(
        self,
        keep_s: float = 10.0,
        jump_s: float = 0.5,
        tell: Callable[[str], object] = _LOG.warning,
    ) -> None:
        """Begin without any transform.

        Args:
            keep_s: history of a moving frame, which is forgotten when it is silent for longer.
            jump_s: a pose that is older than the newest by more than this says that time was set
                back, and what is newer than it is dropped.
            tell: is given a sentence for each transform that is refused.
        """
        self._tell = tell
        self._keep_ns = round(keep_s * _NS)
        self._jump_ns = round(jump_s * _NS)
        self._edges: dict[str, _Edge] = {}

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        wxyz: Wxyz,
        translation: Xyz,
        *,
        static: bool = False,
    ) -> bool:
        """Take one transform (`parent_from_child`, metres).

        One that cannot be is refused and told: it closes a loop, gives a frame a second parent, or
        is of one frame more than a vehicle has.

        Returns:
            Whether time was set back.
        """
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            if fault := self._fault(parent, child, stamp_ns, static):
                self._tell(fault)
                return False
            if edge and edge.parent != parent and static:
                self._tell(
                    f"the static transform of {shown(child)} names another parent, "
                    f"{shown(parent)}, than before, {shown(edge.parent)}; the newer one counts"
                )
            edge = self._edges[child] = _Edge(parent, static)
        pose = (wxyz, translation)
        if static:
            edge.stamps_ns, edge.poses = [stamp_ns], [pose]
            return False
        stamps, poses = edge.stamps_ns, edge.poses
        jumped = bool(stamps) and stamp_ns < stamps[-1] - self._jump_ns
        i = bisect_left(stamps, stamp_ns)
        # What is newer than the jump belongs to a time that has not come yet: a looped bag would
        # otherwise be looked up in its last round.
        if jumped:
            del stamps[i:], poses[i:]
        if i < len(stamps) and stamps[i] == stamp_ns:
            poses[i] = pose
        else:
            stamps.insert(i, stamp_ns)
            poses.insert(i, pose)
        old = bisect_left(stamps, stamps[-1] - self._keep_ns)
        if old > 64:  # in blocks, so that a deletion is cheap on average
            del stamps[:old], poses[:old]
        return jumped

    def _fault(self, parent: str, child: str, stamp_ns: int, static: bool) -> str:
        """Why the tree cannot take a new edge; empty where it can."""
        if max(len(parent), len(child)) > _LONGEST_NAME:
            return f"the transform of {shown(child)} in {shown(parent)} is refused: too long a name"
        edge = self._edges.get(child)
        if edge is None and len(self._edges) >= _MAX_FRAMES:
            return f"the transform of {shown(child)} is refused: {_MAX_FRAMES} frames are known"
        if edge is not None and edge.parent != parent:
            both_static = edge.static and static  # what is latched anew corrects what was latched
            if not both_static and not self._expired(edge, stamp_ns):
                return (
                    f"frame {shown(child)} has two parents, {shown(edge.parent)} and "
                    f"{shown(parent)}; the second is refused: stop one of the two publishers"
                )
        path = [child, parent]
        while path[-1] != child and (above := self._edges.get(path[-1])) is not None:
            if self._expired(above, stamp_ns):
                del self._edges[path[-1]]
                break
            path.append(above.parent)
        if path[-1] == child:
            return (
                f"the transform of {shown(child)} in {shown(parent)} is refused, since it closes "
                f"a loop: {' -> '.join(map(shown, path))}"
            )
        return ""

    def _expired(self, edge: _Edge, stamp_ns: int) -> bool:
        return not edge.static and edge.stamps_ns[-1] < stamp_ns - self._keep_ns

    def frames(self) -> tuple[str, ...]:
        """Names of all frames that are known, parents included, sorted."""
        return tuple(sorted({*self._edges, *(edge.parent for edge in self._edges.values())}))

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """`target_from_source` at a time.

        Raises:
            TransformError: a frame is unknown, the two are not connected, or the stamp lies
                outside of what is remembered.
        """
        source_path, target_path = self._to_root(source), self._to_root(target)
        # The nearest common ancestor: a transform above it that is missing does no harm.
        common = next((frame for frame in source_path if frame in target_path), None)
        if common is None:
            raise TransformError(self._why_unconnected(target, source), may_come=False)
        common_from_source = self._chain(source, common, stamp_ns)
        if common == target:
            return common_from_source
        return self._chain(target, common, stamp_ns).inverse @ common_from_source

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
            try:
                wxyz, xyz = edge.poses[i]
                if max(map(abs, xyz)) > FARTHEST_M:
                    raise ValueError(f"it is at {list(xyz)} metres")
                return Transform.from_quaternion(edge.parent, child, wxyz, xyz)
            except ValueError as error:
                names = f"{shown(edge.parent)} from {shown(child)}"
                what = f"{names} was published as no rigid transform: {plain_text(str(error))}"
                raise TransformError(what, may_come=False) from error

        stamps = edge.stamps_ns
        if edge.static:
            return pose(0)
        i = bisect_right(stamps, stamp_ns) - 1
        if i >= 0 and stamps[i] == stamp_ns:
            return pose(i)
        if 0 <= i < len(stamps) - 1:
            # Rotations by slerp, translations linearly, as tf2 does. Nothing is extrapolated.
            fraction = (stamp_ns - stamps[i]) / (stamps[i + 1] - stamps[i])
            return pose(i).interpolate(pose(i + 1), fraction)
        newer = i >= 0
        distance_s = (stamp_ns - stamps[-1] if newer else stamps[0] - stamp_ns) / _NS
        raise TransformError(
            f"{shown(edge.parent)} from {shown(child)} at {stamp_ns / _NS:.3f} s: the stamp is "
            f"{distance_s:.3f} s {'newer' if newer else 'older'} than the "
            f"{'newest' if newer else 'oldest'} of {len(stamps)} transforms that were received",
            may_come=newer,
        )
