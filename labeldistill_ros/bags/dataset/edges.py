# SPDX-License-Identifier: Apache-2.0
"""The transforms of a drive as they were published: what moves, what stands, and when."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import BagError
from labeldistill_core.frames import UNIT_TOLERANCE, Array, Transform
from labeldistill_core.names import shown
from labeldistill_ros.inputs.transforms import FARTHEST_M
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.ros_names import frame_name
from labeldistill_ros.sync.lone_stamps import lone_stamps

T = TypeVar("T")

_MOST_FRAMES = 1000
MOUNT_MOVES_M, MOUNT_MOVES_RAD = 2e-3, 2e-3
"""A sensor stands still that moves by less; calibration tools are no better."""
_PLACES_APART = 0.1
"""Share of these by which a place differs from the one before."""
_MOST_PLACES = 10_000
"""Of a sensor whose mounting changes now and then; what has more never rests."""


def fault_of_pose(pose: Array) -> str:
    """Why a frame cannot be where it was published; empty where it can.

    Args:
        pose: (7,) x, y, z in metres and quaternion w, x, y, z.
    """
    if not np.isfinite(pose).all():
        return f"{pose.tolist()} are not all numbers"
    # Of the largest part first: the square of what is far off overflows.
    if np.abs(pose[3:]).max() > 2 or abs(float(np.linalg.norm(pose[3:])) - 1) >= UNIT_TOLERANCE:
        return f"not a unit quaternion (w, x, y, z): {pose[3:].tolist()}"
    if np.abs(pose[:3]).max() > FARTHEST_M:
        return f"it is at {pose[:3].tolist()} metres"
    return ""


def told_within(told: list[tuple[int, T]], span_ns: tuple[int, int]) -> list[tuple[int, T]]:
    """What held between two log times, of what was told at a log time and held until the next.

    One of them at least: the first, where it was told after the span.
    """
    begin_ns, end_ns = span_ns
    before = [known for known in told if known[0] <= begin_ns]
    return [*before[-1:], *(k for k in told if begin_ns < k[0] <= end_ns)] or told[:1]


@dataclass(frozen=True)
class Movement:
    """How far one pose is from another."""

    metres: float = 0.0
    """Between the two places."""
    radians: float = 0.0
    """Of the turn from one to the other."""

    @classmethod
    def between(cls, pose: Array, other: Array) -> Movement:
        """That of two poses, (7,) each."""
        shift = pose[:3] - other[:3]
        # the angle of the turn between two unit quaternions, whose signs do not matter
        cosine = min(1.0, abs(float(pose[3:] @ other[3:])))
        return cls(float(np.sqrt(shift @ shift)), 2 * math.acos(cosine))

    def farther(self, other: Movement) -> Movement:
        """The larger of both, in metres and in radians."""
        return Movement(max(self.metres, other.metres), max(self.radians, other.radians))

    def exceeds(self, share: float = 1.0) -> bool:
        """Whether a sensor that moves so does not stand, or by a share of that."""
        return self.metres > share * MOUNT_MOVES_M or self.radians > share * MOUNT_MOVES_RAD


@dataclass
class Edge:
    """A frame in its parent, over time."""

    parent: str
    """Frame that it is told in."""
    places: list[tuple[int, Array]]
    """When it was recorded somewhere else than before, and where: (7,) x, y, z in metres and
    quaternion w, x, y, z. What never rests has the first of them alone."""
    motion: Movement = Movement()
    """Farthest from where it was first."""
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    """When a moving frame was told of; empty where it came on /tf_static alone."""
    logs_ns: array[int] = field(default_factory=lambda: array("q"))
    """When each of these was recorded."""
    lone: set[int] = field(default_factory=set)
    """Stamps that were left out, since they are of another time than their neighbours."""

    def take(self, pose: Array, log_ns: int) -> None:
        """Take it as it was published another time."""
        last = self.places[-1][1]
        if (pose == last).all():
            return
        # Against the first and not the one before: a mounting that creeps moves little at each
        # step.
        self.motion = self.motion.farther(Movement.between(pose, self.places[0][1]))
        if len(self.places) < _MOST_PLACES and Movement.between(pose, last).exceeds(_PLACES_APART):
            self.places.append((log_ns, pose))

    def keep(self, span_ns: tuple[int, int]) -> None:
        """Forget where it was outside of two log times, unless it stands all along."""
        if not self.motion.exceeds() or len(self.places) >= _MOST_PLACES:
            return
        self.places = told_within(self.places, span_ns)
        self.motion = Movement()
        for _, pose in self.places[1:]:
            self.motion = self.motion.farther(Movement.between(pose, self.places[0][1]))


class Edges:
    """All frames that a drive tells of."""

    def __init__(self) -> None:
        """Begin without frames."""
        self.by_child: dict[str, Edge] = {}
        self.faults: dict[str, str] = {}
        """What is wrong with a frame, for those who need it."""
        self.refused: dict[str, str] = {}
        """First of the poses that no frame can have, by the frame; those are left out."""

    def add(self, message: Any, log_ns: int, *, static: bool) -> None:
        """Take a message of /tf or /tf_static, recorded at a time."""
        for stamped in message.transforms:
            turn, place = stamped.transform.rotation, stamped.transform.translation
            pose = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
            stamp_ns = None if static else stamp_of(stamped)
            self.take(stamped.header.frame_id, stamped.child_frame_id, stamp_ns, log_ns, pose)

    def add_odometry(self, message: Any, log_ns: int, base_frame: str) -> None:
        """Take a message of odometry; a driver that names no child means the vehicle."""
        turn, place = message.pose.pose.orientation, message.pose.pose.position
        pose = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
        child = message.child_frame_id or base_frame
        self.take(message.header.frame_id, child, stamp_of(message), log_ns, pose)

    def take(self, parent: str, child: str, stamp_ns: int | None, log_ns: int, pose: Array) -> None:
        """Take one pose of a frame.

        Args:
            parent: frame that it is told in.
            child: the frame.
            stamp_ns: its stamp; None where it is told for good.
            log_ns: when it was recorded.
            pose: (7,) x, y, z in metres and quaternion w, x, y, z.
        """
        parent, child = frame_name(parent), frame_name(child)
        if fault := fault_of_pose(pose):
            if len(self.refused) < _MOST_FRAMES:
                names = f"{shown(parent)} from {shown(child)}"
                self.refused.setdefault(
                    child, f"{names} was published as no rigid transform: {fault}"
                )
            return
        edge = self.by_child.get(child)
        if edge is None:
            # A bag with a new frame in every message would fill the memory.
            if len(self.by_child) >= _MOST_FRAMES:
                return
            edge = self.by_child[child] = Edge(parent, [(log_ns, pose)])
        if edge.parent != parent:
            self.faults[child] = (
                f"frame {shown(child)} has two parents, {shown(edge.parent)} and {shown(parent)}: "
                "record the tree of one vehicle alone"
            )
            return
        edge.take(pose, log_ns)
        if stamp_ns is not None:
            edge.stamps_ns.append(stamp_ns)
            edge.logs_ns.append(log_ns)

    def leave_out_lone(self) -> None:
        """Forget poses whose stamps are not of the time of their neighbours."""
        for edge in self.by_child.values():
            stamps, logs = (np.frombuffer(a, np.int64) for a in (edge.stamps_ns, edge.logs_ns))
            lone = lone_stamps(stamps, logs)
            if lone.any():
                edge.lone |= set(stamps[lone].tolist())
                edge.stamps_ns, edge.logs_ns = array("q", stamps[~lone]), array("q", logs[~lone])

    def merge(self, other: Edges) -> None:
        """Take what another bag of the drive tells."""
        self.faults |= other.faults
        self.refused = other.refused | self.refused
        for child, edge in other.by_child.items():
            known = self.by_child.get(child)
            if known is None:
                self.by_child[child] = edge
                continue
            self.take(edge.parent, child, None, *edge.places[0])
            known.places = sorted([*known.places, *edge.places], key=lambda place: place[0])
            known.motion = known.motion.farther(edge.motion)
            known.stamps_ns += edge.stamps_ns
            known.logs_ns += edge.logs_ns
            known.lone |= edge.lone

    @property
    def frames(self) -> list[str]:
        """Names of all frames, sorted."""
        return sorted({*self.by_child, *(edge.parent for edge in self.by_child.values())})

    def way(self, target: str, source: str) -> list[str] | None:
        """Children of the edges between two frames; None where they are not connected."""
        up, down = list(self._up(source)), list(self._up(target))
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            return None
        return [*up[: up.index(common)], *down[: down.index(common)]]

    def standing(self, target: str, source: str) -> Transform:
        """`target_from_source` of two frames that do not move against each other.

        Raises:
            BagError: they are not connected, or move.
        """
        way = self.way(target, source)
        if way is None:
            for end in (list(self._up(source))[-1], list(self._up(target))[-1]):
                if fault := self.refused.get(end):
                    raise BagError(fault)
            known = ", ".join(map(shown, self.frames[:30])) or "none"
            raise BagError(
                f"no transforms connect {shown(target)} and {shown(source)}: record /tf_static "
                f"from the start (frames in the bag: {known})"
            )
        for child in way:
            if fault := self.faults.get(child):
                raise BagError(fault)
            edge = self.by_child[child]
            if (moved := edge.motion).exceeds():
                raise BagError(
                    f"{shown(child)} moves in {shown(edge.parent)}, by up to "
                    f"{moved.metres * 100:.1f} cm and {math.degrees(moved.radians):.2f} degrees, "
                    f"so that {shown(source)} has no calibration that holds: cut the bag where it "
                    "changes (--since, --until), or mount the sensor on the vehicle"
                )
        return self._first(target, way).inverse @ self._first(source, way)

    def known(self, way: list[str], stamps_ns: NDArray[np.int64], longest_s: float) -> Any:
        """(N,) whether poses around a time are there, close enough to interpolate between.

        Args:
            way: from `way`.
            stamps_ns: (N,) times.
            longest_s: between two poses at most.
        """
        good = np.ones(len(stamps_ns), np.bool_)
        for child in way:
            # Sorted, since poses are recorded in another order than stamped when a node publishes
            # late.
            at = np.unique(np.frombuffer(self.by_child[child].stamps_ns, np.int64))
            if not len(at):
                continue
            right = np.searchsorted(at, stamps_ns)
            after = at[np.minimum(right, len(at) - 1)]
            before = at[np.maximum(right - 1, 0)]
            exact = after == stamps_ns
            between = (right > 0) & (right < len(at)) & (after - before <= longest_s * 1e9)
            good &= exact | between
        return good

    def _up(self, frame: str) -> Iterator[str]:
        seen = set()
        while frame not in seen:  # a loop of frames ends nowhere
            seen.add(frame)
            yield frame
            if (edge := self.by_child.get(frame)) is None:
                return
            frame = edge.parent

    def _first(self, frame: str, way: list[str]) -> Transform:
        """`common_from_frame`, as the frames were first."""
        out = Transform.identity(frame, frame)
        while frame in way:
            edge = self.by_child[frame]
            pose = edge.places[0][1]
            step = Transform.from_quaternion(edge.parent, frame, pose[3:], pose[:3])
            out, frame = step @ out, edge.parent
        return out
