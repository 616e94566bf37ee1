# SPDX-License-Identifier: Apache-2.0
"""Six image streams to sets of images that were taken together. No ROS in here.

Every frame is brought to the time of its cycle by taking off its camera's phase offset
(`phases.PhaseTracker`); frames whose cycle times agree within a tolerance form a group. A group
becomes a set when it is complete, when the cameras that it lacks have already sent newer frames,
or when a deadline on the steady clock passes. Stamps decide what belongs together, the steady
clock only how long to wait, so simulated time and any playback rate work.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from labeldistill_ros.sync.camera_phases import PhaseTracker

T = TypeVar("T")

_NS = 1_000_000_000
_MAX_GROUPS = 8
"""Open groups; a burst of more cycles than this gives up the oldest."""
_MAX_WAITING = 8
"""Cycles of frames that are kept while the phases are being learned."""
_JUMP_NS = _NS // 2
"""A camera whose stamps go back further than this says that time was set back."""
_FIRST_PERIOD_S = 2.0
"""A camera of which only one frame came is given this long for the next."""


@dataclass(frozen=True)
class SyncOptions:
    """How frames are put together."""

    cameras: tuple[str, ...]
    """All cameras of a complete set."""
    anchor: str
    """Camera whose stamp a set carries, as long as it lives."""
    tolerance_s: float = 0.03
    """Largest difference to the mean of the group, after offsets; under half a period."""
    deadline_s: float = 0.065
    """Wait for missing cameras after the anchor's frame came, or should have come; where the
    largest offset and the tolerance sum to more, that sum."""
    max_age_s: float = 0.25
    """A camera that is silent for longer (or for 2.5 of its periods) is dead."""
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
        if min(self.tolerance_s, self.deadline_s, self.max_age_s) <= 0:
            raise ValueError("tolerance, deadline and max_age must be positive seconds")


@dataclass(frozen=True)
class Frame(Generic[T]):
    """One camera's contribution."""

    stamp_ns: int
    """Time of exposure."""
    arrival_s: float
    """When it came, steady clock."""
    item: T
    """What the caller handed in."""


@dataclass(frozen=True)
class CameraSet(Generic[T]):
    """Frames of one cycle."""

    anchor: str
    """Camera whose stamp this is: the anchor, or the next one present in a masked set."""
    stamp_ns: int
    """The anchor's stamp."""
    frames: Mapping[str, Frame[T]]
    """By camera, in the order of the options."""
    missing: tuple[str, ...]
    """Cameras without a frame; empty in a complete set."""
    usable: bool
    """False for an incomplete set that the policy drops; it is given out so that it can be told."""
    waited_s: float
    """From the first frame's arrival until the set was closed."""

    @property
    def spread_s(self) -> float:
        """Between the first and the last exposure."""
        stamps = [frame.stamp_ns for frame in self.frames.values()]
        return (max(stamps) - min(stamps)) / _NS


@dataclass(frozen=True)
class AddResult(Generic[T]):
    """What a frame led to."""

    sets: list[CameraSet[T]]
    """Sets that it closed, oldest first."""
    reset: bool = False
    """Whether its stamp told that time was set back, so that all earlier frames are forgotten."""


@dataclass
class _Group(Generic[T]):
    deadline_s: float
    cycle_ns: int
    frames: dict[str, Frame[T]] = field(default_factory=dict)


@dataclass
class _Stream:
    """What is known of one camera's messages."""

    newest_ns: int | None = None
    arrival_s: float | None = None
    period_s: float = 0.0

    def alive(self, now_s: float, max_age_s: float) -> bool:
        """Whether it sent something lately, measured by its own rate."""
        if self.arrival_s is None:
            return False
        limit_s = 2.5 * self.period_s if self.period_s else _FIRST_PERIOD_S
        return now_s - self.arrival_s <= max(max_age_s, limit_s)

    def arrived(self, now_s: float) -> None:
        """Follow the period by an exponential mean; a pause counts as at most two periods."""
        if self.arrival_s is not None:
            gap = now_s - self.arrival_s
            if self.period_s:
                gap = min(gap, 2 * self.period_s)
            self.period_s += (gap - self.period_s) * (0.2 if self.period_s else 1.0)
        self.arrival_s = now_s


class Synchronizer(Generic[T]):
    """Puts frames together; give it every frame, and poll it when nothing comes."""

    def __init__(self, options: SyncOptions) -> None:
        """Start empty."""
        self._options = options
        self._phases = PhaseTracker(
            options.cameras,
            options.anchor,
            round(options.tolerance_s * _NS),
            {c: round(s * _NS) for c, s in options.offsets_s.items()},
        )
        self.counts: Counter[str] = Counter()
        """Over the whole life: received, duplicate, late, unmatched (frames); complete, masked,
        skipped (sets); resets, elections."""
        self.missing: Counter[str] = Counter()
        """How often each camera was missing from a set."""
        self.anchor = options.anchor
        """The camera that is the anchor now."""
        self._clear()

    def _clear(self) -> None:
        self._streams = {camera: _Stream() for camera in self._options.cameras}
        self._groups: list[_Group[T]] = []
        self._waiting: list[tuple[str, Frame[T]]] = []
        self._jumped: dict[str, list[Frame[T]]] = {}
        self._emitted_ns: int | None = None
        self._polled_s = self._started_s = -math.inf
        self._closed_ns: deque[int] = deque(maxlen=2 * _MAX_GROUPS)

    def reset(self) -> None:
        """Forget all frames, as after a jump of time; the offsets stay."""
        self.counts["resets"] += 1
        self._phases.clear_history()
        self._clear()

    def relearn_offsets(self) -> None:
        """Forget the learned offsets."""
        self._phases.forget()

    @property
    def offsets_s(self) -> dict[str, float]:
        """Phase offsets known so far."""
        return {camera: ns / _NS for camera, ns in self._phases.offsets_ns.items()}

    @property
    def relearned(self) -> int:
        """How often a learned offset moved by more than the tolerance."""
        return self._phases.relearned

    def alive(self, now_s: float) -> tuple[str, ...]:
        """Cameras that send."""
        age = self._options.max_age_s
        return tuple(c for c, stream in self._streams.items() if stream.alive(now_s, age))

    def _expected(self, now_s: float) -> tuple[str, ...]:
        """Cameras to wait for: those that live; all of them just after the start or a silence."""
        if now_s - self._started_s <= self._options.max_age_s:
            return self._options.cameras
        return self.alive(now_s)

    def next_deadline_s(self) -> float | None:
        """When `poll` is due; None when nothing is open."""
        deadlines = [group.deadline_s for group in self._groups]
        if self._waiting and not self._phases.known:
            deadlines.append(self._waiting[-1][1].arrival_s + self._options.deadline_s)
        return min((d for d in deadlines if d > self._polled_s), default=None)

    def add(self, camera: str, stamp_ns: int, item: T, now_s: float) -> AddResult[T]:
        """Take a frame.

        Args:
            camera: its name.
            stamp_ns: time of exposure.
            item: comes back in the set.
            now_s: steady clock.

        Raises:
            KeyError: the camera is none of the options.
        """
        stream = self._streams[camera]
        self.counts["received"] += 1
        frame = Frame(stamp_ns, now_s, item)
        if stream.newest_ns is not None and stamp_ns < stream.newest_ns - _JUMP_NS:
            if not self._agrees(camera, stamp_ns, now_s):
                return self._time_went_back(camera, frame)
            stream.newest_ns = None  # its own clock was wrong before and is right now
        self._jumped.pop(camera, None)
        if stream.newest_ns == stamp_ns:
            self.counts["duplicate"] += 1
            return AddResult(self.poll(now_s))
        if not self.alive(now_s):
            self._started_s = now_s
        stream.arrived(now_s)
        stream.newest_ns = max(stamp_ns, stream.newest_ns or stamp_ns)
        self._phases.observe(camera, stamp_ns)
        self._elect(now_s)
        if camera == self.anchor:
            self._phases.update(camera)
        if self._waiting or camera not in self._phases.offsets_ns:
            self._waiting.append((camera, frame))
        else:
            self._place(camera, frame)
        return AddResult(self.poll(now_s))

    def poll(self, now_s: float) -> list[CameraSet[T]]:
        """Close what is complete or overdue at `now_s` (steady clock), oldest first."""
        self._polled_s = now_s
        sets: list[CameraSet[T]] = []
        if self._waiting:
            self._learn(now_s)
        self._elect(now_s)
        expected = self._expected(now_s)
        due = [i for i, group in enumerate(self._groups) if self._is_due(group, expected, now_s)]
        if due:
            closed, self._groups = self._groups[: due[-1] + 1], self._groups[due[-1] + 1 :]
            sets += [result for group in closed for result in self._close(group, now_s)]
        return sets

    def _agrees(self, camera: str, stamp_ns: int, now_s: float) -> bool:
        """Whether another live camera is at this time too."""
        return any(
            abs(stamp_ns - newest) <= _JUMP_NS
            for other in self.alive(now_s)
            if other != camera and (newest := self._streams[other].newest_ns) is not None
        )

    def _time_went_back(self, camera: str, frame: Frame[T]) -> AddResult[T]:
        """Believe a jump when two cameras tell of it; one alone may have a broken clock."""
        frames = self._jumped.setdefault(camera, [])
        frames.append(frame)
        if len(self._jumped) < min(2, len(self.alive(frame.arrival_s))):
            if len(frames) > _MAX_WAITING:
                frames.pop(0)
                self.counts["late"] += 1
            return AddResult([])
        jumped = [(c, f) for c, frames in self._jumped.items() for f in frames]
        self.reset()
        self.counts["received"] -= len(jumped)
        sets: list[CameraSet[T]] = []
        for name, early in sorted(jumped, key=lambda entry: entry[1].stamp_ns):
            sets += self.add(name, early.stamp_ns, early.item, frame.arrival_s).sets
        return AddResult(sets, reset=True)

    def _elect(self, now_s: float) -> None:
        """The preferred anchor when it lives, else the present one, else the first that does."""
        expected = self._expected(now_s)
        for camera in (self._options.anchor, self.anchor, *self._options.cameras):
            if camera in expected:
                self.counts["elections"] += camera != self.anchor
                self.anchor = camera
                return

    def _learn(self, now_s: float) -> None:
        """Place the waiting frames once the phases of the live cameras are known."""
        if not self._phases.known:
            silence_s = now_s - self._waiting[-1][1].arrival_s
            quiet = silence_s >= self._options.deadline_s
            self._phases.learn_first_cycle(round(silence_s * _NS) if quiet else 0)
        offsets = self._phases.offsets_ns
        full = len(self._waiting) >= _MAX_WAITING * len(self._options.cameras)
        if not full and any(camera not in offsets for camera in self.alive(now_s)):
            return
        waiting, self._waiting = self._waiting, []
        for camera, frame in sorted(waiting, key=lambda entry: entry[1].stamp_ns):
            if camera in offsets:
                self._place(camera, frame)
            else:
                self.counts["unmatched"] += 1

    def _place(self, camera: str, frame: Frame[T]) -> None:
        """Add a frame to the group of its cycle, or open one."""
        offsets = self._phases.offsets_ns
        tolerance = self._options.tolerance_s * _NS
        cycle_ns = frame.stamp_ns - offsets[camera]
        if self._emitted_ns is not None and cycle_ns < self._emitted_ns + tolerance:
            self.counts["late"] += 1
            return
        if any(abs(cycle_ns - closed) <= tolerance for closed in self._closed_ns):
            self.counts["late"] += 1
            return
        near = [g for g in self._groups if abs(cycle_ns - g.cycle_ns) <= tolerance]
        if near:
            group = min(near, key=lambda g: abs(cycle_ns - g.cycle_ns))
            if camera in group.frames:
                self.counts["unmatched"] += 1
                return
        else:
            anchor_ns = offsets.get(self.anchor, 0)
            last_s = (max(offsets.values()) - anchor_ns + tolerance) / _NS
            wait_s = (anchor_ns - offsets[camera]) / _NS + max(self._options.deadline_s, last_s)
            group = _Group(frame.arrival_s + wait_s, cycle_ns)
            self._groups.append(group)
            self._groups.sort(key=lambda g: g.cycle_ns)
        group.frames[camera] = frame
        members = [f.stamp_ns - offsets[c] for c, f in group.frames.items()]
        group.cycle_ns = sum(members) // len(members)

    def _is_due(self, group: _Group[T], expected: tuple[str, ...], now_s: float) -> bool:
        if now_s >= group.deadline_s or len(self._groups) > _MAX_GROUPS:
            return True
        tolerance_ns = round(self._options.tolerance_s * _NS)
        for camera in self._options.cameras:
            if camera in group.frames or camera not in expected:
                continue
            newest = self._streams[camera].newest_ns
            offset = self._phases.offsets_ns.get(camera)
            if newest is None:
                return False
            if offset is not None and newest - offset <= group.cycle_ns + tolerance_ns:
                return False
        return True

    def _close(self, group: _Group[T], now_s: float) -> list[CameraSet[T]]:
        options = self._options
        self._closed_ns.append(group.cycle_ns)
        if self.anchor not in group.frames and len(group.frames) * 2 < len(options.cameras):
            self.counts["unmatched"] += len(group.frames)
            return []
        missing = tuple(c for c in options.cameras if c not in group.frames)
        self.missing.update(missing)
        masked = options.policy == "mask" and len(group.frames) >= options.min_cameras
        self.counts["complete" if not missing else "masked" if masked else "skipped"] += 1
        usable = not missing or masked
        if usable:
            self._emitted_ns = group.cycle_ns
        anchor = (
            self.anchor
            if self.anchor in group.frames
            else next(c for c in options.cameras if c in group.frames)
        )
        return [
            CameraSet(
                anchor=anchor,
                stamp_ns=group.frames[anchor].stamp_ns,
                frames={c: group.frames[c] for c in options.cameras if c in group.frames},
                missing=missing,
                usable=usable,
                waited_s=now_s - min(f.arrival_s for f in group.frames.values()),
            )
        ]
