# SPDX-License-Identifier: Apache-2.0
"""A bag onto topics, with the timing it was recorded with.

The true time between messages is kept (divided by the rate), since bursts overrun DDS buffers.
`/clock` carries the log time; nodes with `use_sim_time` follow it at any rate.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException, NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability, QosReliability
from rosgraph_msgs.msg import Clock

from labeldistill_core.errors import BagError
from labeldistill_core.names import shown
from labeldistill_ros.bags.controls import Controls
from labeldistill_ros.bags.reader import BagReader, Recorded

_LOG = logging.getLogger(__name__)

_NS = 1_000_000_000
_END_NS = 2**31 * _NS
"""Beyond all times that `builtin_interfaces/Time` can tell, 2038."""
_TICK_S = 0.01
"""Wall-clock time between clock messages at most; divided by the rate when that is above 1."""
_POLL_S = 0.02
_SETTLE_S = 0.25
"""After the last subscriber was found; it may find us a little later, and has other topics."""
_DEEPEST = 1000
"""Longest queue of a publisher, whatever the bag says."""
_LONG_GAP_S = 60.0
"""A wait for the next message that is told."""
_ACK_S = 2.0
"""How long the end waits, for all topics together, until reliable subscribers have everything."""
_MOST_TOLD = 5


@dataclass(frozen=True)
class ReplayOptions:
    """How a bag is played: how fast, what of it, and from where."""

    rate: float = 1.0
    """How many times faster than it was recorded the bag is played."""
    topics: tuple[str, ...] = ()
    """Topics to play; all topics of the bag when this is empty."""
    loop: bool = False
    """Start again at the end of the bag, where time jumps back to its beginning."""
    wait_for_s: Annotated[float, tyro.conf.arg(name="wait-for")] = 0.0
    """Seconds to wait at most until the detector listens, which it does while it is active."""
    detector: str = "/detector"
    """Node that is waited for. Empty: until every image topic has any subscriber, which a viewer is
    as well; where no images are played, every topic."""
    clock: bool = True
    """Publish the time of the bag on `/clock`."""
    start_s: Annotated[float, tyro.conf.arg(name="start")] = 0.0
    """Seconds of the bag to skip; what was latched before is published first."""
    step_s: Annotated[float, tyro.conf.arg(name="step")] = 0.5
    """Seconds of the bag that one step plays while the replay is paused."""

    def __post_init__(self) -> None:
        """Refuse what cannot be played."""
        if self.start_s < 0 or self.step_s <= 0:
            raise BagError("the start offset cannot be negative, and a step must be above 0")
        if not self.rate > 0:
            raise BagError(f"rate is {self.rate:g}; it must be above 0")


@dataclass(frozen=True)
class Replay:
    """What a replay has published."""

    counts: dict[str, int]
    """Number of messages that were published, by topic."""
    rounds: int
    """How often the bag was played to its end."""
    wall_s: float
    """Seconds that the replay took, by the wall clock."""
    late_ms: tuple[float, ...]
    """Milliseconds by which each message came too late, by the wall clock."""

    def late(self, percentile: float) -> float:
        """Percentile of the lateness in milliseconds; 0 when nothing was played."""
        return float(np.percentile(self.late_ms, percentile)) if self.late_ms else 0.0


def message_class(msgtype: str) -> Any:
    """The installed Python class of a type such as `std_msgs/msg/String`.

    Raises:
        BagError: its package is not installed, or it is no name of a type.
    """
    package, _, name = msgtype.partition("/msg/")
    if not (package.isidentifier() and name.isidentifier()):
        raise BagError(f"{shown(msgtype)} is no message type")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise BagError(
            f"the message type {msgtype} is not installed: install {package}, or "
            "choose other topics"
        ) from error


def replay(
    bag: Path,
    node: Node,
    options: ReplayOptions = ReplayOptions(),  # noqa: B008 - frozen
    keep_going: Callable[[], bool] = lambda: True,
    controls: Controls | None = None,
) -> Replay:
    """Publish the messages of a bag through a node; returns at the end.

    The node need not be spun.

    Args:
        bag: folder.
        node: makes the publishers, which are gone afterwards.
        options: how.
        keep_going: asked before each message; false ends the replay early.
        controls: pause and step, if wanted.

    Raises:
        BagError: the bag is unreadable or shorter than the start offset, lacks a topic, has no
            message to play or a type that is not installed, or nobody subscribed in time.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(BagReader(bag))
        # A recorded /clock would contradict the one that the replay makes from the log time.
        topics = options.topics or tuple(t for t in reader.topics if t != "/clock")
        reader.require(*topics)
        publishers: dict[str, Publisher[Any]] = {}
        for topic in topics:
            kind = message_class(reader.topics[topic])
            try:
                publishers[topic] = node.create_publisher(kind, topic, _qos(reader, topic))
            except (InvalidTopicNameException, NameValidationException) as error:
                raise BagError(f"{bag}: {shown(topic)} is no name of a topic in ROS") from error
            stack.callback(node.destroy_publisher, publishers[topic])
        clock = None
        if options.clock:
            clock = _Clock(node.create_publisher(Clock, "/clock", 10), options.rate)
            stack.callback(node.destroy_publisher, clock.publisher)
        if options.wait_for_s:
            # Images are what the detector lives on; markers or truth may have no subscriber.
            images = {t: p for t, p in publishers.items() if reader.topics[t].endswith("Image")}
            if options.detector and images:
                _wait_for_detector(node, images, options, keep_going)
            else:
                _wait_for_subscribers(images or publishers, options.wait_for_s, keep_going)
        if options.start_s >= reader.duration_s > 0:
            raise BagError(
                f"--start {options.start_s:g} is beyond the end of {bag}, which is "
                f"{reader.duration_s:.1f} s long"
            )
        controls = controls or Controls()
        player = _Player(publishers, clock, options, keep_going, controls)
        start_s, rounds = time.monotonic(), 0
        while player.play(_from_start(reader, topics, options.start_s)):
            rounds += 1
            if not sum(player.counts.values()):
                raise BagError(
                    f"nothing to play: {bag} has no message of {_named(topics)} from "
                    f"--start {options.start_s:g} on"
                )
            # What is latched alone takes no time, so that it would be repeated without end.
            if not options.loop or not player.late_s:
                break
        wall_s = time.monotonic() - start_s
        end_s = time.monotonic() + _ACK_S
        for publisher in publishers.values():
            # A publisher that is destroyed drops what reliable subscribers have not acknowledged
            # yet, so the last messages would be missing without this. One that was killed never
            # acknowledges, on none of its topics.
            left_s = max(0.0, end_s - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=left_s))
        late_ms = tuple(1e3 * late_s for late_s in player.late_s)
        return Replay(dict(player.counts), rounds, wall_s, late_ms)


def _named(topics: Sequence[str]) -> str:
    names = ", ".join(map(shown, topics[:_MOST_TOLD])) or "any topic"
    return f"{names} and {more} more" if (more := len(topics) - _MOST_TOLD) > 0 else names


class _Clock:
    """`/clock`, which never says the same time twice in a row."""

    def __init__(self, publisher: Publisher[Any], rate: float) -> None:
        self.publisher = publisher
        self.tick_s = _TICK_S / max(rate, 1.0)
        self._last_ns = -1

    def tell(self, now_ns: int) -> None:
        if now_ns != self._last_ns:
            stamp = Time(sec=now_ns // _NS, nanosec=now_ns % _NS)
            self.publisher.publish(Clock(clock=stamp))
            self._last_ns = now_ns


class _Player:
    def __init__(
        self,
        publishers: dict[str, Publisher[Any]],
        clock: _Clock | None,
        options: ReplayOptions,
        keep_going: Callable[[], bool],
        controls: Controls,
    ) -> None:
        self._publishers, self._clock = publishers, clock
        self._rate, self._step_ns = options.rate, round(options.step_s * _NS)
        self._keep_going, self._controls = keep_going, controls
        self._step_end_ns = -1
        self.counts: Counter[str] = Counter(dict.fromkeys(publishers, 0))
        self.late_s: list[float] = []

    def play(self, messages: Iterable[tuple[Recorded, bool]]) -> bool:
        """One round; false when it was ended early."""
        first_ns: int | None = None
        start_s = time.monotonic()
        self._step_end_ns = -1
        for recorded, timed in messages:
            if not timed:
                self._publish(recorded)
                continue
            if not 0 <= recorded.stamp_ns < _END_NS:
                raise BagError(
                    f"a message of {recorded.topic} has the log time {recorded.stamp_ns} ns, which "
                    "ROS cannot tell; `labeldistill bag recover` leaves such messages out"
                )
            if first_ns is None:
                # From the first timed message: latched ones before it go out at once and keep no
                # time.
                first_ns, start_s = recorded.stamp_ns, time.monotonic()
            start_s += self._hold(recorded.stamp_ns)
            # From the start and not from the message before, so that delays do not add up over a
            # bag.
            due_s = start_s + (recorded.stamp_ns - first_ns) / _NS / self._rate
            if (gap_s := due_s - time.monotonic()) > _LONG_GAP_S:
                _LOG.warning("the next message comes in %.0f s: %s", gap_s, recorded.topic)
            while (wait_s := due_s - time.monotonic()) > 0:
                if not self._going():
                    return False
                now_ns = recorded.stamp_ns - round(wait_s * self._rate * _NS)
                # A pause moves the start, as if time had stood still.
                held_s = self._hold(now_ns)
                start_s, due_s = start_s + held_s, due_s + held_s
                if self._clock is None:
                    time.sleep(min(wait_s, _POLL_S))
                elif not held_s:
                    self._clock.tell(now_ns)
                    time.sleep(min(wait_s, self._clock.tick_s))
            if not self._going():
                return False
            self.late_s.append(max(0.0, time.monotonic() - due_s))
            if self._clock:
                # The clock before the message: a node that looks up a transform at this stamp must
                # not see it in the future.
                self._clock.tell(recorded.stamp_ns)
            self._publish(recorded)
        return True

    def _going(self) -> bool:
        return self._keep_going() and not self._controls.stopped.is_set()

    def _publish(self, recorded: Recorded) -> None:
        # rclpy publishes bytes as a serialized message, so nothing is decoded and encoded again.
        self._publishers[recorded.topic].publish(recorded.data)
        self.counts[recorded.topic] += 1

    def _hold(self, now_ns: int) -> float:
        """Wait while the replay is paused and no step is under way; how long that took."""
        begin_s = time.monotonic()
        held = False
        while self._controls.paused and now_ns >= self._step_end_ns and self._going():
            if self._controls.take_step():
                self._step_end_ns = now_ns + self._step_ns
                break
            held = True
            time.sleep(_POLL_S)
        return time.monotonic() - begin_s if held else 0.0


def _from_start(
    reader: BagReader, topics: Sequence[str], start_s: float
) -> Iterator[tuple[Recorded, bool]]:
    """Messages, and whether they keep their time; of those before the start the latched ones."""
    begin_ns: int | None = None
    latched = {topic for topic in topics if _is_latched(reader, topic)}
    for recorded in reader.raw(topics):
        # The bag's first message of these topics begins the count; messages come in the order of
        # log time.
        begin_ns = begin_ns or recorded.stamp_ns + round(start_s * _NS)
        if recorded.stamp_ns >= begin_ns:
            yield recorded, True
        elif recorded.topic in latched:
            yield recorded, False


def _is_latched(reader: BagReader, topic: str) -> bool:
    recorded = reader.qos(topic)
    kept = recorded is not None and recorded.durability == QosDurability.TRANSIENT_LOCAL
    # A bag may tell no QoS for it, and a static transform that is not latched never reaches those
    # who subscribe later.
    return kept or topic == "/tf_static"


def _qos(reader: BagReader, topic: str) -> QoSProfile:
    """The recorded profile: latched, best effort, depth; reliable, which all take, if unknown.

    The queue holds ten messages at least, as several come at once at high rates.
    """
    recorded = reader.qos(topic)
    profile = QoSProfile(depth=min(_DEEPEST, max(10, recorded.depth if recorded else 0)))
    if _is_latched(reader, topic):
        # One publisher stands for all that were recorded, each of which kept its own newest.
        profile.depth = min(_DEEPEST, max(profile.depth, reader.counts()[topic]))
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    if recorded is not None and recorded.reliability == QosReliability.BEST_EFFORT:
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
    return profile


def _wait_for_detector(
    node: Node,
    images: Mapping[str, Publisher[Any]],
    options: ReplayOptions,
    keep_going: Callable[[], bool],
) -> None:
    end_s = time.monotonic() + options.wait_for_s
    before: set[str] = set()
    settled_s = 0.0
    while keep_going():
        # The detector subscribes while it is active, and to no image otherwise.
        heard = {t for t, p in images.items() if _listens(node, p.topic_name, options.detector)}
        now_s = time.monotonic()
        if heard != before or not heard:
            before, settled_s = heard, now_s + _SETTLE_S
        if now_s > settled_s:
            return
        if now_s > end_s:
            raise BagError(
                f"{options.detector} listens to none of {', '.join(images)} after "
                f"{options.wait_for_s:g} s; is it running and active, in the same ROS_DOMAIN_ID, "
                "with these topics? --detector names another node, or with '' takes any subscriber"
            )
        time.sleep(_POLL_S)


def _listens(node: Node, topic: str, name: str) -> bool:
    whole = {
        f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        for info in node.get_subscriptions_info_by_topic(topic)
    }
    return f"/{name.lstrip('/')}" in whole


def _wait_for_subscribers(
    publishers: Mapping[str, Publisher[Any]], wait_s: float, keep_going: Callable[[], bool]
) -> None:
    end_s = time.monotonic() + wait_s
    while keep_going():
        alone = [t for t, p in publishers.items() if not p.get_subscription_count()]
        if not alone:
            time.sleep(_SETTLE_S)
            return
        if time.monotonic() > end_s:
            raise BagError(f"nobody subscribed to {', '.join(alone)} within {wait_s:g} s")
        time.sleep(_POLL_S)
