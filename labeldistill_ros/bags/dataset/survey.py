# SPDX-License-Identifier: Apache-2.0
"""One look through a bag: which messages its sensors sent, and when; none of them is kept."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import BagError, DataError
from labeldistill_ros.bags.dataset.edges import Edges, told_within
from labeldistill_ros.bags.dataset.peek import peek_header
from labeldistill_ros.bags.dataset.topics import (
    BOXES,
    INFO,
    ODOMETRY,
    TRANSFORMS,
    SensorTopics,
)
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.ros_names import frame_name
from labeldistill_ros.sync.lone_stamps import lone_stamps

Stamps = NDArray[np.int64]
STATIC_TOPIC, MOVING_TOPIC = "/tf_static", "/tf"
_TOLD_NS = 1_000_000_000


@dataclass
class Stream:
    """The messages of a topic."""

    msgtype: str
    """Type of the messages."""
    stamps: array[int] = field(default_factory=lambda: array("q"))
    """Time of each, by its header, in the order in which they were recorded."""
    logs: array[int] = field(default_factory=lambda: array("q"))
    """When each was recorded."""
    frame_ids: Counter[str] = field(default_factory=Counter)
    """Frames that the headers name, and how often."""
    unstamped: int = 0
    """Messages whose stamp was never set."""
    lone: array[int] = field(default_factory=lambda: array("q"))
    """Stamps that were left out, since they are of another time than their neighbours."""

    def take(self, stamp_ns: int, log_ns: int, frame_id: str) -> None:
        """Take a message."""
        if stamp_ns <= 0:  # before 1970 there is none
            self.unstamped += 1
            return
        self.stamps.append(stamp_ns)
        self.logs.append(log_ns)
        self.frame_ids[frame_name(frame_id)] += 1

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Forget the other messages; `which` is (N,)."""
        stamps, logs = self.stamps_ns[which], self.logs_ns[which]
        self.stamps, self.logs = array("q", stamps), array("q", logs)

    def leave_out_lone(self) -> None:
        """Forget messages whose stamps are not of the time of their neighbours."""
        lone = lone_stamps(self.stamps_ns, self.logs_ns)
        if lone.any():
            self.lone += array("q", self.stamps_ns[lone])
            self.keep(~lone)

    @property
    def stamps_ns(self) -> Stamps:
        """(N,) their times."""
        return np.frombuffer(self.stamps, np.int64)

    @property
    def logs_ns(self) -> Stamps:
        """(N,) when they were recorded."""
        return np.frombuffer(self.logs, np.int64)


@dataclass
class Survey:
    """What a bag, or a drive of several, holds of the sensors."""

    streams: dict[str, Stream] = field(default_factory=dict)
    """By topic."""
    infos: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    """Calibrations by topic: when one that differs from the one before came, and the message."""
    edges: Edges = field(default_factory=Edges)
    """Transforms."""
    odometry: Edges = field(default_factory=Edges)
    """Motion by odometry, the only edge."""
    class_names: Counter[str] = field(default_factory=Counter)
    """Classes of the labels, and how many boxes have each."""
    label_ids: dict[int, dict[int, Counter[str]]] = field(default_factory=dict)
    """`id` of the boxes of each message by its bytes' hash, by the time of the labels, in ns."""
    shared_ids: set[str] = field(default_factory=set)
    """What boxes of one message share as `id`, the empty one included, so that it tells none of
    them from the others."""

    def keep_calibrations(self, span_ns: tuple[int, int]) -> None:
        """Forget intrinsics and mountings that did not hold between two log times."""
        self.infos = {topic: told_within(told, span_ns) for topic, told in self.infos.items()}
        for edges in (self.edges, self.odometry):
            for edge in edges.by_child.values():
                edge.keep(span_ns)


def survey_bag(
    bag: Path, topics: SensorTopics, base_frame: str, progress: Callable[[float], object]
) -> Survey:
    """Go through a bag once.

    Args:
        bag: its folder or file.
        topics: those that are read, as far as they are in this bag.
        base_frame: of the vehicle, for odometry that names none.
        progress: called with the share that is done, now and then.

    Raises:
        BagError: the bag is damaged.
    """
    survey = Survey()
    bodies: dict[str, bytes] = {}
    with BagReader(bag) as reader:
        there = reader.topics
        wanted = [t for t in (*topics.all, STATIC_TOPIC, MOVING_TOPIC) if t in there]
        told_ns = begin_ns = reader.begin_ns
        for recorded in reader.raw(wanted) if wanted else ():
            if recorded.stamp_ns - told_ns > _TOLD_NS:
                told_ns = recorded.stamp_ns
                progress((told_ns - begin_ns) / max(1, reader.end_ns - begin_ns))
            try:
                _look(survey, reader, recorded, base_frame, bodies)
            except DataError as error:
                raise BagError(f"{bag}: {recorded.topic}: {error}") from error
    for stream in survey.streams.values():
        stream.leave_out_lone()
    survey.edges.leave_out_lone()
    survey.odometry.leave_out_lone()
    return survey


def _look(
    survey: Survey, reader: BagReader, recorded: Recorded, base_frame: str, bodies: dict[str, bytes]
) -> None:
    topic, kind = recorded.topic, recorded.msgtype
    if kind == TRANSFORMS:
        message = reader.decoded(recorded)
        survey.edges.add(message, recorded.stamp_ns, static=topic == STATIC_TOPIC)
        return
    if kind == ODOMETRY:
        survey.odometry.add_odometry(reader.decoded(recorded), recorded.stamp_ns, base_frame)
        return
    head = peek_header(recorded.data)
    if kind == INFO:
        # By the bytes behind the header: calibrations come with every image, and hardly ever
        # differ.
        body = recorded.data[head.end :]
        if bodies.get(topic) != body:
            bodies[topic] = body
            known = survey.infos.setdefault(topic, [])
            known.append((recorded.stamp_ns, reader.decoded(recorded)))
        return
    # Images and clouds stay undecoded; labels are small, and their classes are needed.
    stream = survey.streams.setdefault(topic, Stream(kind))
    stream.take(head.stamp_ns, recorded.stamp_ns, head.frame_id)
    if kind == BOXES:
        message = reader.decoded(recorded)
        survey.class_names.update(class_of(d) for d in message.detections if d.results)
        # Several messages of one time are one set of labels, unless they are one message.
        told = survey.label_ids.setdefault(head.stamp_ns, {})
        told[hash(recorded.data)] = Counter(detection.id for detection in message.detections)
        ids = sum(told.values(), Counter())
        survey.shared_ids.update(own for own, count in ids.items() if count > 1 or not own)


def class_of(detection: Any) -> str:
    """Name of the class that a `vision_msgs/Detection3D` most likely is."""
    best = max(detection.results, key=lambda result: result.hypothesis.score)
    return str(best.hypothesis.class_id)


def join(surveys: Mapping[Path, Survey]) -> Survey:
    """What several bags of one drive hold together; what two of them have is counted once.

    Raises:
        BagError: two bags are of the same time and tell different things, so that they are of two
            drives.
    """
    bags = list(surveys)
    for i, first in enumerate(bags):
        for second in bags[i + 1 :]:
            _refuse_other_drive(first, second, surveys[first], surveys[second])
    whole = Survey()
    for survey in surveys.values():
        for topic, stream in survey.streams.items():
            known = whole.streams.setdefault(topic, Stream(stream.msgtype))
            known.stamps += stream.stamps
            known.logs += stream.logs
            known.frame_ids += stream.frame_ids
            known.unstamped += stream.unstamped
            known.lone += stream.lone
        for topic, infos in survey.infos.items():
            whole.infos.setdefault(topic, []).extend(infos)
        whole.edges.merge(survey.edges)
        whole.odometry.merge(survey.odometry)
        whole.class_names += survey.class_names
        whole.shared_ids |= survey.shared_ids
    for infos in whole.infos.values():
        # By when they came: a calibration is compared with the first one.
        infos.sort(key=lambda known: known[0])
    for stream in whole.streams.values():
        _once(stream)
    return whole


def _once(stream: Stream) -> None:
    """Sort by the time of recording, and take out what two bags or a driver told twice."""
    stamps, logs = stream.stamps_ns, stream.logs_ns
    _, first = np.unique(stamps, return_index=True)
    order = first[np.argsort(logs[first], kind="stable")]
    stream.stamps, stream.logs = array("q", stamps[order]), array("q", logs[order])


def _refuse_other_drive(first: Path, second: Path, a: Survey, b: Survey) -> None:
    for topic in a.streams.keys() & b.streams.keys():
        if a.streams[topic].msgtype != b.streams[topic].msgtype:
            raise BagError(f"{first} and {second} have other types on {topic}: convert them apart")
        one, two = np.unique(a.streams[topic].stamps_ns), np.unique(b.streams[topic].stamps_ns)
        if not len(one) or not len(two):
            continue
        begin_ns, end_ns = max(one[0], two[0]), min(one[-1], two[-1])
        one, two = (s[(s >= begin_ns) & (s <= end_ns)] for s in (one, two))
        fewer = min(len(one), len(two))
        # one at the seam may be the last of a bag and missing in the other
        if fewer > 2 and len(np.intersect1d(one, two)) < fewer / 2:
            raise BagError(
                f"{first} and {second} overlap by {(end_ns - begin_ns) / 1e9:.1f} s, in which "
                f"{topic} has other messages in each, so that they are of two drives: convert them "
                "one by one"
            )
