# SPDX-License-Identifier: Apache-2.0
"""Six image streams to sets of images that were taken together. No ROS in here.

Every frame is brought to the time of its cycle by taking off its camera's phase offset
(`camera_phases.PhaseTracker`); frames whose cycle times agree within a tolerance form a group.
When each camera's frame of a cycle will come is known from its earlier ones
(`camera_streams.CameraStreams`), however long it takes or whatever its clock says. A group is
closed when no camera that it lacks can still join it: it is dead, has sent newer frames, or is
overdue by the deadline (`timetable.Timetable`). Where the policy is content with the cameras that
are there, the deadline after the anchor is enough.

Nothing is lost while the cameras are learned: at the start, and when a camera comes for the first
time, all frames wait until every camera that sends has a phase, and are put together then.

Stamps decide what belongs together, the steady clock only how long to wait, so simulated time and
any playback rate work.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Generic, TypeVar

from labeldistill_ros.sync.camera_phases import PhaseTracker
from labeldistill_ros.sync.camera_set import AddResult, CameraSet, Frame, FrameGroup, SyncOptions
from labeldistill_ros.sync.camera_streams import CameraStreams
from labeldistill_ros.sync.leaps import Leaps
from labeldistill_ros.sync.timetable import Timetable

__all__ = ["AddResult", "CameraSet", "Frame", "SyncOptions", "Synchronizer"]

T = TypeVar("T")

_NS = 1_000_000_000

_MAX_GROUPS = 64
"""Open groups, two seconds at 30 Hz: from the camera that is furthest ahead to the last; a burst of
more cycles gives up the oldest."""
_MAX_LEARNING = 8
"""Periods, beyond the longest delay, in which a camera has to show a phase. One that shows none
keeps another rate or jitters, and is paired by nearest stamp instead of holding the others back."""
_FIRST_PERIODS_S = 2.0
"""The same while no camera has sent a second image, so that no period is known."""
_JUMP_NS = _NS // 2
"""A camera whose stamps go back further than this says that time was set back."""


class Synchronizer(Generic[T]):
    """Puts frames together; give it every frame, and poll it when nothing comes."""

    def __init__(self, options: SyncOptions) -> None:
        """Begin without frames and without knowledge of the cameras."""
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
        """Camera whose stamp the next set carries: the preferred one, or one elected instead."""
        self._clear()

    def _clear(self) -> None:
        self._streams = CameraStreams(
            self._options.cameras, self._options.anchor, self._options.max_age_s
        )
        self._times = Timetable(self._options, self._streams, self._phases)
        self._absent: Counter[str] = Counter()
        self._groups: list[FrameGroup[T]] = []
        self._front: list[FrameGroup[T]] = []
        self._waiting: list[tuple[str, Frame[T]]] = []
        self._leaps: Leaps[T] = Leaps()
        self._told_ns: int | None = None
        self._polled_s = -math.inf

    def reset(self) -> None:
        """Forget all frames, as after a jump of time; the offsets stay."""
        self.counts["resets"] += 1
        self._phases.clear_history()
        self._clear()

    def relearn_offsets(self) -> None:
        """Forget the learned offsets, and learn them anew from the next images."""
        self._phases.forget()

    @property
    def offsets_s(self) -> dict[str, float]:
        """Phase offsets known so far, by camera, in seconds relative to the anchor."""
        return {camera: ns / _NS for camera, ns in self._phases.offsets_ns.items()}

    @property
    def relearned(self) -> int:
        """How often a learned offset moved by more than the tolerance."""
        return self._phases.relearned

    @property
    def disagreeing_s(self) -> dict[str, float]:
        """Cameras whose stamps run ahead (positive) of most others' when they come, in seconds.

        Either the camera's clock is off by this, or its images take this much less time to come.
        """
        limit_s = 2 * self._options.tolerance_s
        return {c: s for c, s in self._streams.ahead_s.items() if abs(s) > limit_s}

    @property
    def absent(self) -> dict[str, int]:
        """Cameras that the newest sets lacked, and how many sets in a row."""
        return {camera: count for camera, count in self._absent.items() if count}

    @property
    def deadline_s(self) -> float:
        """The deadline that is used now: the given one, or that of the learned period."""
        return self._times.deadline_s

    def alive(self, now_s: float) -> tuple[str, ...]:
        """Cameras that are sending at `now_s`, seconds of the steady clock."""
        return self._streams.alive(now_s)

    def next_deadline_s(self) -> float | None:
        """When `poll` is due, seconds of the steady clock; None when nothing is open."""
        deadlines: list[float] = []
        for group in self._front:
            missing = [c for c in self._options.cameras if c not in group.frames]
            deadlines += [self._times.overdue_s(group, camera) for camera in missing]
            deadlines.append(self._times.content_s(group, self.anchor))
        if self._waiting:
            quiet_s = self._waiting[-1][1].arrival_s + self.deadline_s
            all_came_s = self._times.started_s + self._times.longest_delay_s
            deadlines += [quiet_s, all_came_s, self._learned_by_s]
        return min((d for d in deadlines if d > self._polled_s), default=None)

    def add(self, camera: str, stamp_ns: int, item: T, now_s: float) -> AddResult[T]:
        """Take a frame, and close what it makes complete.

        Args:
            camera: its name.
            stamp_ns: time of exposure.
            item: comes back in the set.
            now_s: steady clock.

        Raises:
            KeyError: the camera is none of the options.
        """
        self.counts["received"] += 1
        frame = Frame(stamp_ns, now_s, item)
        newest_ns = self._streams.newest_ns(camera)
        if newest_ns is not None:
            back = stamp_ns < newest_ns - _JUMP_NS
            if back and self._streams.another_is_at(stamp_ns, _JUMP_NS, camera, now_s):
                # The others are at this time: the camera's clock was wrong and is right now.
                self._streams.forget_stamps(camera)
                self._phases.forget_stamps(camera)
            elif back or self._streams.leaps_ahead(camera, stamp_ns, now_s):
                return self._leapt(camera, frame, back=back)
        # An image in order shows that the leap of this camera was a stray stamp.
        self.counts["unmatched"] += self._leaps.drop(camera)
        if newest_ns == stamp_ns:
            self.counts["duplicate"] += 1
            return AddResult(self.poll(now_s))
        # A few cameras with wrong stamps can make a set, and everything after it would be late.
        refuting_ns = stamp_ns if self._told_ns is None else self._told_ns - 2 * _JUMP_NS
        if stamp_ns < refuting_ns and self._streams.most_are_before(refuting_ns, now_s):
            return self._begin_anew([(camera, frame)], now_s)
        self._take(camera, frame)
        return AddResult(self.poll(now_s))

    def _take(self, camera: str, frame: Frame[T]) -> None:
        """Put a frame to those of its cycle."""
        now_s = frame.arrival_s
        # The first image, or the first after a silence of all: dead and slow cameras look alike.
        if not any(self._streams.lives(c, now_s) for c in self._options.cameras):
            self._times.started_s = now_s
        self._learn_from(camera, frame)
        self._elect(now_s)
        if camera == self.anchor:
            self._phases.update(camera)
        if self._streams.astray(camera):
            self.counts["unmatched"] += 1
        # While one camera's phase is unknown all frames wait, since a frame that is placed without
        # it could close a group too early.
        elif self._waiting or camera not in self._phases.offsets_ns:
            self._waiting.append((camera, frame))
        else:
            self._place(camera, frame)

    def _learn_from(self, camera: str, frame: Frame[T]) -> None:
        self._streams.arrived(camera, frame.stamp_ns, frame.arrival_s)
        self._phases.observe(camera, frame.stamp_ns)

    def poll(self, now_s: float) -> list[CameraSet[T]]:
        """Close what is complete or overdue at `now_s` (steady clock), oldest first."""
        self._polled_s = now_s
        sets: list[CameraSet[T]] = []
        if self._waiting:
            self._learn(now_s)
        # The anchor is elected as images come, not here: when all cameras fall silent together,
        # none is a better anchor than the one that they had.
        while due := self._due(now_s):  # which tells the groups in front as well
            # Sets come in order, so what is older than one is closed with it.
            until = self._groups.index(due[-1]) if self._is_cycle(due[-1]) else None
            closed = due if until is None else self._groups[: until + 1]
            self._groups = [group for group in self._groups if group not in closed]
            sets += [found for group in closed for found in self._close(group, now_s)]
        return sets

    def _due(self, now_s: float) -> list[FrameGroup[T]]:
        """Groups to close, none newer than one that may still become what the policy asks for."""
        due: list[FrameGroup[T]] = []
        self._front = []
        for group in self._groups:
            awaited = self._awaited(group, now_s)
            # `mask` is content with enough cameras once the anchor's deadline is over; `skip` needs
            # all of them, so that there only completeness or hopelessness closes a group.
            content = len(group.frames) >= self._needed and now_s >= self._times.content_s(
                group, self.anchor
            )
            if content or not awaited or len(self._groups) - len(due) > _MAX_GROUPS:
                due.append(group)
                continue
            self._front.append(group)
            # This one may still become a set, so newer groups wait behind it: sets come in order of
            # time.
            if len(group.frames) + len(awaited) >= self._needed:
                break
        return due

    def _leapt(self, camera: str, frame: Frame[T], *, back: bool) -> AddResult[T]:
        """Believe a leap when most cameras tell of it; one alone may have a broken clock."""
        now_s = frame.arrival_s
        self._leaps.keep(camera, frame)
        if self._leaps.told_by_most(frame.stamp_ns, self.alive(now_s)):
            frames, others = self._leaps.take_all(frame.stamp_ns)
            self.counts["unmatched"] += others
            if back:
                return self._begin_anew(frames, now_s)
            for name, kept in frames:
                self._take(name, kept)
        elif self._leaps.is_of_one_clock(camera):
            # From now on it is known how far it is from the others, and it can be named.
            self._streams.forget_stamps(camera)
            self._phases.forget_stamps(camera)
            for kept in self._leaps.take(camera):
                self.counts["unmatched"] += 1
                self._learn_from(camera, kept)
        return AddResult(self.poll(now_s))

    def _begin_anew(self, frames: list[tuple[str, Frame[T]]], now_s: float) -> AddResult[T]:
        """Forget everything but these frames."""
        self.reset()
        # They were counted when they came, and `add` counts them a second time.
        self.counts["received"] -= len(frames)
        sets: list[CameraSet[T]] = []
        for name, frame in frames:
            sets += self.add(name, frame.stamp_ns, frame.item, now_s).sets
        return AddResult(sets, reset=True)

    def _elect(self, now_s: float) -> None:
        """The preferred anchor when it lives, else the present one, else the first that does."""
        for camera in (self._options.anchor, self.anchor, *self._options.cameras):
            if self._times.expects(camera, now_s, self._options.max_age_s):
                # The preferred camera takes its place back as soon as it lives, since the user
                # chose its stamps.
                self.counts["elections"] += camera != self.anchor
                self.anchor = camera
                return

    @property
    def _learned_by_s(self) -> float:
        """When waiting frames are placed at the latest."""
        learning_s = _MAX_LEARNING * self._streams.period_s or _FIRST_PERIODS_S
        return self._waiting[0][1].arrival_s + self._times.longest_delay_s + learning_s

    def _unknown(self, now_s: float) -> list[str]:
        """Cameras without a phase that send, or may yet begin to."""
        grace_s, offsets = self._times.longest_delay_s, self._phases.offsets_ns
        cameras = [camera for camera in self._options.cameras if camera not in offsets]
        if not self.alive(now_s):
            # All have fallen silent, as after a bag of one cycle: what came is judged by itself.
            came = {camera for camera, _ in self._waiting}
            return [camera for camera in cameras if camera in came]
        return [camera for camera in cameras if self._times.expects(camera, now_s, grace_s)]

    def _learn(self, now_s: float) -> None:
        """Place the waiting frames once the phases of the live cameras are known."""
        unknown = self._unknown(now_s)
        silence_s = now_s - self._waiting[-1][1].arrival_s
        # A pause shorter than the deadline may be that of images which are still on their way.
        quiet = silence_s >= self.deadline_s
        # Where images take equally long, what came is whole, so that one cycle is enough.
        if unknown and (quiet or not self.disagreeing_s):
            silence_ns = round(silence_s * self._streams.rate * _NS) if quiet else 0
            self._phases.learn_first_cycle(silence_ns)
            unknown = self._unknown(now_s)
        full = len(self._waiting) >= _MAX_GROUPS * len(self._options.cameras)
        if unknown and now_s < self._learned_by_s and not full:
            return
        self._phases.settle(unknown)
        offsets = self._phases.offsets_ns
        waiting, self._waiting = self._waiting, []
        for camera, frame in sorted(waiting, key=lambda entry: entry[1].stamp_ns):
            if camera in offsets and not self._streams.astray(camera):
                self._place(camera, frame)
            else:
                self.counts["unmatched"] += 1

    def _place(self, camera: str, frame: Frame[T]) -> None:
        """Add a frame to the group of its cycle, or open one."""
        offsets = self._phases.offsets_ns
        tolerance = self._phases.tolerance_ns
        cycle_ns = frame.stamp_ns - offsets[camera]
        # Its set is out already. A second set of the same cycle would put one instant into the
        # history twice.
        if self._told_ns is not None and cycle_ns <= self._told_ns + tolerance:
            self.counts["late"] += 1
            return
        near = [g for g in self._groups if abs(cycle_ns - g.cycle_ns) <= tolerance]
        if near:
            group = min(near, key=lambda g: abs(cycle_ns - g.cycle_ns))
            # A camera faster than the others: one image per cycle belongs to the set, this is the
            # other one.
            if camera in group.frames:
                self.counts["unmatched"] += 1
                return
        else:
            group = FrameGroup(cycle_ns)
            self._groups.append(group)
            self._groups.sort(key=lambda g: g.cycle_ns)
        group.frames[camera] = frame
        # The mean of the members, so that the tolerance is measured from the middle of the group
        # and not from whichever frame happened to come first.
        members = [f.stamp_ns - offsets.get(c, 0) for c, f in group.frames.items()]
        group.cycle_ns = sum(members) // len(members)

    @property
    def _needed(self) -> int:
        """Fewest cameras of a set that the policy gives out."""
        options = self._options
        return options.min_cameras if options.policy == "mask" else len(options.cameras)

    def _awaited(self, group: FrameGroup[T], now_s: float) -> list[str]:
        """Cameras whose frame of this cycle may still come."""
        times, grace_s = self._times, self._times.longest_delay_s
        latest_ns = group.cycle_ns + self._phases.tolerance_ns
        return [
            camera
            for camera in self._options.cameras
            if camera not in group.frames
            and not self._passed(camera, latest_ns)
            and times.expects(camera, now_s, grace_s)
            and times.waits(group, camera, now_s)
        ]

    def _passed(self, camera: str, latest_ns: int) -> bool:
        """Whether the camera is beyond a cycle, so that it sends no frame of it any more."""
        newest_ns = self._streams.newest_ns(camera)
        offset_ns = self._phases.offsets_ns.get(camera)
        if newest_ns is None:
            return False
        # DDS delivers one writer's messages in order, so a newer image means that this cycle's is
        # lost. Without a phase the camera cannot be placed in the cycle and is not waited for.
        return offset_ns is None or newest_ns - offset_ns > latest_ns

    def _is_cycle(self, group: FrameGroup[T]) -> bool:
        """Whether it is to be told; a few frames without the anchor are a faster camera's."""
        return self.anchor in group.frames or len(group.frames) * 2 >= len(self._options.cameras)

    def _close(self, group: FrameGroup[T], now_s: float) -> list[CameraSet[T]]:
        options = self._options
        if not self._is_cycle(group):
            self.counts["unmatched"] += len(group.frames)
            return []
        self._told_ns = group.cycle_ns
        missing = tuple(c for c in options.cameras if c not in group.frames)
        self.missing.update(missing)
        self._absent = Counter({camera: self._absent[camera] + 1 for camera in missing})
        masked = bool(missing) and len(group.frames) >= self._needed
        self.counts["complete" if not missing else "masked" if masked else "skipped"] += 1
        usable = not missing or masked
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
