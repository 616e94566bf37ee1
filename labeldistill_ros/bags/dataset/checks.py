# SPDX-License-Identifier: Apache-2.0
"""What makes a drive unusable: each fault in a sentence that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.names import shown
from labeldistill_ros.bags.dataset.edges import Edges
from labeldistill_ros.bags.dataset.key_frames import period_ns
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.survey import Stream
from labeldistill_ros.messages.stamps import told_time

_T = TypeVar("_T")
_CLOCKS_APART_S = 0.5
"""Of stamps, against the time at which they were recorded: more is no delay on the way."""
_JUMP_S = 10.0
"""Of a clock ahead; a recorder that is busy for as long loses messages rather than times."""
_FEW = 0.1
"""Share of messages without stamp that a drive can do without."""
_SILENT_S = 1.0
"""A camera that is silent for longer than the others has stopped."""
_SILENT_PERIODS = 3.0
_UNPOSED = 0.02
_MOST_TOLD = 20
"""Of classes without category."""


class Problems(list[str]):
    """Collects what is wrong, so that a user sees all of it at once."""

    def tried(self, call: Callable[[], _T], otherwise: _T) -> _T:
        """What a call gives; `otherwise`, with a problem more, where it refuses."""
        try:
            return call()
        except (LabelDistillError, ValueError) as error:
            if str(error) not in self:
                self.append(str(error))
            return otherwise


def stamp_faults(streams: Mapping[str, Stream]) -> Iterator[str]:
    """Sensors without messages, stamps or a frame, and those whose clocks disagree.

    Args:
        streams: by what they are called in the sentence.
    """
    for name, stream in streams.items():
        count = len(stream.stamps)
        if stream.unstamped > _FEW * count:
            total = stream.unstamped + count
            yield (
                f"{name}: {stream.unstamped} of {total} messages have no stamp: set header.stamp "
                "in the driver, and record anew"
            )
        elif not count:
            yield f"{name}: no message in the bag: is the driver running when you record?"
        # One mounting is looked up for a whole stream, so it has to be that of all its messages.
        if len(stream.frame_ids) > 1:
            frames = ", ".join(map(shown, list(stream.frame_ids)[:3]))
            yield f"{name}: its messages name several frames, {frames}: name one"
        elif "" in stream.frame_ids:
            yield f"{name}: its messages name no frame: set header.frame_id in the driver"
    told = {name: s for name, s in streams.items() if len(s.stamps)}
    yield from _clock_faults(told)


def _clock_faults(streams: Mapping[str, Stream]) -> Iterator[str]:
    """Clocks that disagree, or were set while the drive was recorded."""
    ahead = {name: _jump_ahead(stream) for name, stream in streams.items()}
    jumped = list(_jump_faults(streams, ahead))
    yield from jumped
    # A clock that was set within the drive has no one difference to those of the others.
    if jumped or not streams:
        return
    late_s = {}
    for name, stream in streams.items():
        # Where all clocks are set at once, what came before tells how they agree.
        before = ahead[name].at if ahead[name].by_s > _JUMP_S else len(stream.stamps)
        late_s[name] = float(np.median((stream.logs_ns - stream.stamps_ns)[:before])) / 1e9
    # The median sensor is right: one clock that is off must not accuse all others.
    middle_s = sorted(late_s.values())[len(late_s) // 2]
    for name, own_s in late_s.items():
        if abs(own_s - middle_s) > _CLOCKS_APART_S:
            yield (
                f"{name}: its stamps are {abs(own_s - middle_s):.1f} s "
                f"{'behind' if own_s > middle_s else 'ahead of'} those of the other sensors when "
                "they come, so that its clock disagrees: synchronize the clocks (PTP, chrony), and "
                "record anew"
            )


class _Jump(NamedTuple):
    by_s: float
    at: int
    """Of the first message behind it."""


def _jump_ahead(stream: Stream) -> _Jump:
    """The largest step of the stamps ahead of that of the recording."""
    steps_s = (np.diff(stream.stamps_ns) - np.diff(stream.logs_ns)) / 1e9
    at = int(steps_s.argmax()) if len(steps_s) else 0
    return _Jump(float(steps_s.max(initial=0.0)), at + 1)


def _jump_faults(streams: Mapping[str, Stream], ahead: Mapping[str, _Jump]) -> Iterator[str]:
    mend = "let the clocks settle before you record, or cut the bag there"
    for name, stream in streams.items():
        back_s = (np.maximum.accumulate(stream.stamps_ns) - stream.stamps_ns) / 1e9
        # Of one message that was long on the way the next is not behind.
        back_s = np.minimum(back_s[1:], back_s[:-1])
        if back_s.max(initial=0.0) > _CLOCKS_APART_S:
            at = int(np.argmax(back_s > _CLOCKS_APART_S))
            yield (
                f"{name}: its stamps go back by {back_s[at]:.1f} s {_after(stream, at)}, and each "
                f"time has to come once: {mend}"
            )
    least_s = min((jump.by_s for jump in ahead.values()), default=0.0)
    for name, jump in ahead.items():
        if jump.by_s - least_s > _JUMP_S:
            yield (
                f"{name}: its clock jumps ahead by {jump.by_s:.1f} s "
                f"{_after(streams[name], jump.at)}, as not all others do: {mend}"
            )


def _after(stream: Stream, at: int) -> str:
    return f"after {(stream.logs_ns[at] - stream.logs_ns[0]) / 1e9:.1f} s"


def left_out(streams: Mapping[str, Stream], *trees: Edges) -> Iterator[str]:
    """Messages that are not taken, since their stamps tell nothing.

    Args:
        streams: by what they are called in the sentence.
        trees: transforms.
    """
    for name, stream in streams.items():
        total = len(stream.stamps) + stream.unstamped + len(stream.lone)
        if 0 < stream.unstamped <= _FEW * len(stream.stamps):
            yield f"{name}: {stream.unstamped} of {total} messages have no stamp, and are left out"
        if stream.lone:
            yield (
                f"{name}: {len(stream.lone)} of {total} messages are stamped apart from those "
                f"around them, one with {told_time(stream.lone[0])}, and are left out"
            )
    for tree in trees:
        for child, edge in tree.by_child.items():
            if edge.lone:
                yield (
                    f"{len(edge.lone)} poses of {shown(child)} in {shown(edge.parent)} are stamped "
                    f"apart from those around them, one with {told_time(min(edge.lone))}, and are "
                    "left out"
                )


def silence_faults(cameras: Mapping[str, Stream], begin_ns: int) -> Iterator[str]:
    """Cameras that stop before the others, or begin after them.

    Args:
        cameras: streams of images.
        begin_ns: from which on the sentences count seconds, as --since and --until do.
    """
    streams = {name: stream.stamps_ns for name, stream in cameras.items() if len(stream.stamps)}
    if len(streams) < 2:
        return
    first_ns, last_ns = (
        min(int(s.min()) for s in streams.values()),
        max(int(s.max()) for s in streams.values()),
    )
    for name, stamps in streams.items():
        # A camera of one image a second is not silent between two of them.
        limit_s = max(_SILENT_S, _SILENT_PERIODS * min(period_ns(stamps) / 1e9, 1e3))
        begins_s, stops_s = (
            (int(stamps.min()) - begin_ns) / 1e9,
            (int(stamps.max()) - begin_ns) / 1e9,
        )
        if (last_ns - begin_ns) / 1e9 - stops_s > limit_s:
            yield (
                f"{name} sends nothing after {stops_s:.1f} s, the others go on until "
                f"{(last_ns - begin_ns) / 1e9:.1f} s: --until {max(stops_s, 0.1):.1f} takes what "
                "is whole, --cameras the other cameras"
            )
        if begins_s - (first_ns - begin_ns) / 1e9 > limit_s:
            yield (
                f"{name} sends nothing before {begins_s:.1f} s, while the others do: --since "
                f"{begins_s:.1f} takes what is whole, --cameras the other cameras"
            )


def unposed(known: NDArray[np.bool_]) -> Iterator[str]:
    """Sets of images at whose time the vehicle's pose is unknown; `known` is (S,)."""
    without, total = int((~known).sum()), len(known)
    # One at the beginning and one at the end have poses on one side alone.
    if without > max(2, _UNPOSED * total):
        yield (
            f"{without} of {total} sets of images are left out, since the vehicle's pose is not "
            "known at their time: record localization or odometry throughout, and look at its clock"
        )


def label_faults(class_names: Mapping[str, int], categories: Mapping[str, str]) -> Iterator[str]:
    """Classes of the labels that have no category."""
    unknown = [name for name in class_names if name not in categories]
    for name in unknown[:_MOST_TOLD]:
        yield (
            f"the labels call {class_names[name]} boxes {shown(name)}, which has no category: give "
            f"it one by --categories {shown(name)} CATEGORY, or by --config and a configuration "
            f"that has such a class, or leave such boxes out by --categories {shown(name)} -"
        )
    if unknown[_MOST_TOLD:]:
        yield f"{len(unknown) - _MOST_TOLD} more classes of the labels have no category"


def drive_span_ns(streams: Mapping[str, Stream], options: DatasetOptions) -> tuple[int, int]:
    """From which stamp on, and up to which one, messages are taken; in nanoseconds."""
    begin_ns = min((int(s.stamps_ns.min()) for s in streams.values() if len(s.stamps)), default=0)
    # Far enough from the end of 64 bits to be added to.
    end_ns = min(2**62, begin_ns + round(min(options.until_s, 1e10) * 1e9))
    return begin_ns + round(options.since_s * 1e9), end_ns


def why_no_key_frame(images: Sequence[Stream], poses: Sequence[Sequence[int]], labels: str) -> str:
    """Why a drive has no key frame.

    Args:
        images: of its cameras; none where no complete set was found.
        poses: stamps, in nanoseconds, of what leads to the fixed frame.
        labels: their topic; empty without.
    """
    if not images:
        return (
            "no instant at which all cameras took an image: `--cameras` takes fewer of them; are "
            "their clocks synchronized?"
        )
    told = [stamps for stamps in poses if len(stamps)]
    first, last = min(min(s.stamps) for s in images), max(max(s.stamps) for s in images)
    if told and (min(map(max, told)) < first or max(map(min, told)) > last):
        apart_s = max(first - min(map(max, told)), max(map(min, told)) - last) / 1e9
        return (
            f"the vehicle's poses are {apart_s:.1f} s away from all images, so that their clocks "
            "disagree: synchronize them, and record anew"
        )
    if labels:
        return (
            f"none of the labels on {labels} is of a time at which there are images and poses: "
            "compare their stamps, or leave the labels out by --labels ''"
        )
    return "at no set of images the vehicle's pose is known: record /tf throughout"
