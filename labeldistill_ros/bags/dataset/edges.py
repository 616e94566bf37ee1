# SPDX-License-Identifier: Apache-2.0
"""The transforms of a drive as they were published: what moves, what stands, and when."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import BagError
from labeldistill_core.frames import UNIT_TOLERANCE, Array, Transform
from labeldistill_core.names import shown
from labeldistill_ros.inputs.transforms import FARTHEST_M
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.sync.lone_stamps import lone_stamps

_MOST_FRAMES = 1000
MOUNT_MOVES_M, MOUNT_MOVES_RAD = 2e-3, 2e-3
"""A sensor stands still that moves by less; calibration tools are no better."""


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


@dataclass
class Edge:
    """A frame in its parent, over time."""

    parent: str
    """Frame that it is told in."""
    first: Array
    """(7,) x, y, z in metres and quaternion w, x, y, z, as it was first published."""
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    """When a moving frame was told of; empty where it came on /tf_static alone."""
    logs_ns: array[int] = field(default_factory=lambda: array("q"))
    """When each of these was recorded."""
    lone: set[int] = field(default_factory=set)
    """Stamps that were left out, since they are of another time than their neighbours."""
    moved_m: float = 0.0
    """Farthest from where it was first."""
    moved_rad: float = 0.0
    """Largest turn from how it was first."""

    @property
    def stands(self) -> bool:
        """Whether it is where it was first all along."""
        return self.moved_m <= MOUNT_MOVES_M and self.moved_rad <= MOUNT_MOVES_RAD

    def take(self, pose: Array) -> None:
        """Take it as it was published another time."""
        # Against the first and not the one before: a mounting that creeps moves little at each
        # step.
        shift = pose[:3] - self.first[:3]
        self.moved_m = max(self.moved_m, float(np.sqrt(shift @ shift)))
        # the angle of the turn between two unit quaternions, whose signs do not matter
        cosine = min(1.0, abs(float(pose[3:] @ self.first[3:])))
        self.moved_rad = max(self.moved_rad, 2 * math.acos(cosine))


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
            times_ns = None if static else (stamp_of(stamped), log_ns)
            self.take(stamped.header.frame_id, stamped.child_frame_id, times_ns, pose)

    def add_odometry(self, message: Any, log_ns: int, base_frame: str) -> None:
        """Take a message of odometry; a driver that names no child means the vehicle."""
        turn, place = message.pose.pose.orientation, message.pose.pose.position
        pose = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
        child = message.child_frame_id or base_frame
        self.take(message.header.frame_id, child, (stamp_of(message), log_ns), pose)

    def take(self, parent: str, child: str, times_ns: tuple[int, int] | None, pose: Array) -> None:
        """Take one pose of a frame.

        Args:
            parent: frame that it is told in.
            child: the frame.
            times_ns: its stamp, and when it was recorded; None where it is told for good.
            pose: (7,) x, y, z in metres and quaternion w, x, y, z.
        """
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
            edge = self.by_child[child] = Edge(parent, pose)
        if edge.parent != parent:
            self.faults[child] = (
                f"frame {shown(child)} has two parents, {shown(edge.parent)} and {shown(parent)}: "
                "record the tree of one vehicle alone"
            )
            return
        edge.take(pose)
        if times_ns is not None:
            edge.stamps_ns.append(times_ns[0])
            edge.logs_ns.append(times_ns[1])

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
            self.take(edge.parent, child, None, edge.first)
            known.stamps_ns += edge.stamps_ns
            known.logs_ns += edge.logs_ns
            known.lone |= edge.lone
            known.moved_m = max(known.moved_m, edge.moved_m)
            known.moved_rad = max(known.moved_rad, edge.moved_rad)

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
            if not edge.stands:
                raise BagError(
                    f"{shown(child)} moves in {shown(edge.parent)}, by up to "
                    f"{edge.moved_m * 100:.1f} cm and {math.degrees(edge.moved_rad):.2f} degrees, "
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
        """`common_from_frame`, as the frames were first published."""
        out = Transform.identity(frame, frame)
        while frame in way:
            edge = self.by_child[frame]
            step = Transform.from_quaternion(edge.parent, frame, edge.first[3:], edge.first[:3])
            out, frame = step @ out, edge.parent
        return out
