# SPDX-License-Identifier: Apache-2.0
"""What makes a drive unusable: each fault in a sentence that says how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from labeldistill_core.names import shown
from labeldistill_ros.bags.dataset.key_frames import period_ns
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.survey import Stream

_CLOCKS_APART_S = 0.5
"""Of stamps, against the time at which they were recorded: more is no delay on the way."""
_SILENT_S = 1.0
"""A camera that is silent for longer than the others has stopped."""
_SILENT_PERIODS = 3.0
_MOST_TOLD = 20
"""Of classes without category."""


def stamp_faults(streams: Mapping[str, Stream]) -> Iterator[str]:
    """Sensors without messages, stamps or a frame, and those whose clocks disagree.

    Args:
        streams: by what they are called in the sentence.
    """
    for name, stream in streams.items():
        count = len(stream.stamps)
        if stream.unstamped:
            total = stream.unstamped + count
            yield (
                f"{name}: {stream.unstamped} of {total} messages have no stamp: set header.stamp "
                "in the driver, and record anew"
            )
        elif not count:
            yield f"{name}: no message in the bag: is the driver running when you record?"
        if len(stream.frame_ids) > 1:
            frames = ", ".join(map(shown, list(stream.frame_ids)[:3]))
            yield f"{name}: its messages name several frames, {frames}: name one"
        elif "" in stream.frame_ids:
            yield f"{name}: its messages name no frame: set header.frame_id in the driver"
    yield from _clock_faults({name: s for name, s in streams.items() if len(s.stamps)})


def _clock_faults(streams: Mapping[str, Stream]) -> Iterator[str]:
    late_s = {
        name: float(np.median(stream.logs_ns - stream.stamps_ns)) / 1e9
        for name, stream in streams.items()
    }
    if not late_s:
        return
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


def label_faults(class_names: Mapping[str, int], categories: Mapping[str, str]) -> Iterator[str]:
    """Classes of the labels that have no category."""
    unknown = [name for name in class_names if name not in categories]
    for name in unknown[:_MOST_TOLD]:
        yield (
            f"the labels call {class_names[name]} boxes {shown(name)}, which has no category: give "
            f"it one by --categories {shown(name)} CATEGORY, as the configuration's classes name "
            f"it, or leave such boxes out by --categories {shown(name)} -"
        )
    if unknown[_MOST_TOLD:]:
        yield f"{len(unknown) - _MOST_TOLD} more classes of the labels have no category"


def drive_span_ns(streams: Mapping[str, Stream], options: DatasetOptions) -> tuple[int, int]:
    """From which stamp on, and up to which one, messages are taken; in nanoseconds."""
    begin_ns = min((int(s.stamps_ns.min()) for s in streams.values() if len(s.stamps)), default=0)
    until = options.until_s
    end_ns = 2**62 if until == float("inf") else begin_ns + round(until * 1e9)
    return begin_ns + round(options.since_s * 1e9), end_ns
