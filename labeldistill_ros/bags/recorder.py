# SPDX-License-Identifier: Apache-2.0
"""Topics into a bag, as the bytes that came over the wire."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_full_topic_name import validate_full_topic_name

from labeldistill_core.errors import BagError, ConfigError
from labeldistill_core.names import shown
from labeldistill_ros.bags.partial_folder import EARLY
from labeldistill_ros.bags.recover import recover_abandoned
from labeldistill_ros.bags.replay import message_class
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagOutput, BagWriter, reliable
from labeldistill_ros.messages.bag_family import typestore

_LOG = logging.getLogger(__name__)
_DISCOVERY_S = 0.2
_FLUSH_S = 1.0
_DEPTH = 200
SILENT_S = 5.0
"""After so long without a message, it is said what is missing."""
_EARLY_BYTES = 2**28
"""So much is kept in memory until simulated time begins."""


def scoring_topics(detector: str = "/detector") -> dict[str, str]:
    """What scoring needs: the detector's boxes, what became of each set, samples, truth and poses.

    Args:
        detector: full name of the node.

    Returns:
        Name to type.
    """
    detector = _full_name(detector)
    return {
        f"{detector}/detections": "vision_msgs/msg/Detection3DArray",
        f"{detector}/detections_table": "sensor_msgs/msg/PointCloud2",
        f"{detector}/status": "diagnostic_msgs/msg/DiagnosticArray",
        SAMPLE_TOPIC: "std_msgs/msg/String",
        TRUTH_TOPIC: "vision_msgs/msg/Detection3DArray",
        "/tf": "tf2_msgs/msg/TFMessage",
        "/tf_static": "tf2_msgs/msg/TFMessage",
    }


def _full_name(name: str) -> str:
    """With a slash before it and none behind, as ROS wants it.

    Raises:
        ConfigError: ROS refuses it.
    """
    name = "/" + name.strip("/")
    try:
        validate_full_topic_name(name)
    except InvalidTopicNameException as error:
        raise ConfigError(f"{name!r} is no full name of a topic or node: {error}") from error
    return name


@dataclass(frozen=True)
class RecordOptions(BagOutput):
    """What is recorded, and how."""

    topics: tuple[str, ...] = ()
    """Topics to record; those of the detector and what scores them when none is given."""
    detector: str = "/detector"
    """Name, with its namespace, of the node whose topics are recorded by default."""


@dataclass(frozen=True, eq=False)
class _Early:
    """A message that came before simulated time began."""

    wall_ns: int
    topic: str
    data: bytes


@dataclass(eq=False)
class _Topic:
    """A topic that is subscribed to."""

    msgtype: str
    qos: QoSProfile
    subscription: Any

    @property
    def latched(self) -> bool:
        return bool(self.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL)


class Recorder:
    """Writes everything that comes on some topics until it is closed; a context manager.

    Messages are logged at the node's time: simulated time when it has `use_sim_time`. Subscribes
    at once to topics whose type is known, and to others when somebody offers them; when a publisher
    comes that offers less than was asked for, less is asked for. If the process is killed, all but
    the last second can be recovered, which the next recorder of the same path does first.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        options: RecordOptions = RecordOptions(),  # noqa: B008 - frozen
        *,
        expects_silence: bool = False,
    ) -> None:
        """Subscribe to the topics.

        Args:
            node: spun by the caller.
            path: folder of the bag.
            options: what is recorded, and how.
            expects_silence: do not warn that nothing comes; the caller waits for a publisher.

        Raises:
            BagError: the bag is there already.
            ConfigError: a name that no topic can have.
        """
        types = scoring_topics(options.detector)
        self._node = node
        self._topics = tuple(dict.fromkeys(map(_full_name, options.topics or types)))
        self._bag = BagWriter(path, storage=options.storage, force=options.force, keep=True)
        recover_abandoned(Path(path), options.storage)
        self._bag.__enter__()
        self._storage = options.storage
        self._early: list[_Early] = []
        self._early_bytes = self._early_lost = self._early_safe = 0
        self._early_bag: BagWriter | None = None
        self._known: dict[str, _Topic | None] = {}
        self._open = True
        self._begun_s, self._told_silent = time.monotonic(), expects_silence
        for topic in self._topics:
            if topic in types:
                self._subscribe(topic, types[topic])
        # steady, since simulated time may stand still until the player starts
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [
            node.create_timer(_FLUSH_S, self._keep, clock=steady),
            node.create_timer(_DISCOVERY_S, self._discover, clock=steady),
        ]

    @property
    def counts(self) -> dict[str, int]:
        """Messages by topic so far."""
        return {topic: self._bag.counts.get(topic, 0) for topic in self._topics}

    @property
    def discovered(self) -> tuple[str, ...]:
        """Topics whose type is known, so that their messages are taken."""
        return tuple(self._known)

    @property
    def waiting_for_clock(self) -> tuple[int, int]:
        """Messages that wait for simulated time to begin, and how many of them are on disk."""
        return len(self._early), self._early_safe

    def close(self) -> dict[str, int]:
        """Stop and complete the bag; messages by topic. A second call does nothing."""
        if self._open:
            self._open = False
            self._withdraw()
            if self._early:
                _LOG.warning(
                    "simulated time never began: %d messages are logged at wall time",
                    len(self._early),
                )
            with ExitStack() as stack:
                stack.push(self._bag)
                self._write_early(None)
                for topic, known in self._known.items():
                    if known is not None:
                        self._bag.connect(topic, known.msgtype, reliable(latched=known.latched))
            if silent := [topic for topic, count in self.counts.items() if not count]:
                _LOG.warning("no message was recorded of %s", ", ".join(silent))
        return self.counts

    def __enter__(self) -> Recorder:
        """Recording has begun already."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Complete the bag, also after an error: what came until then is worth keeping."""
        self.close()

    def _withdraw(self) -> None:
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for known in self._known.values():
            if known is not None:
                self._node.destroy_subscription(known.subscription)

    def _discover(self) -> None:
        offered: dict[str, list[str]] = {}
        if len(self._known) < len(self._topics):
            offered = dict(self._node.get_topic_names_and_types())
        for topic in self._topics:
            if topic not in self._known:
                if topic in offered:
                    self._subscribe(topic, offered[topic][0])
            elif (known := self._known[topic]) is not None:
                self._adapt(topic, known)
        waited_s = time.monotonic() - self._begun_s
        if waited_s > SILENT_S and not self._told_silent:
            self._told_silent = True
            if self._early:
                _LOG.warning(
                    "simulated time has not begun, so nobody publishes /clock: %d messages wait "
                    "for it; start the player, or record without simulated time",
                    len(self._early),
                )
            elif not any(self.counts.values()):
                _LOG.warning("nothing has come for %.0f s: %s", waited_s, ", ".join(self._silent()))

    def _silent(self) -> list[str]:
        """Topics without a message, each with what is known of the reason."""
        came = {early.topic for early in self._early}
        return [
            f"{topic} ({self._why_silent(topic)})"
            for topic, count in self.counts.items()
            if not count and topic not in came
        ]

    def _why_silent(self, topic: str) -> str:
        known = self._known.get(topic)
        if known is None:
            return "not subscribed to" if topic in self._known else "nobody offers it"
        offers = self._node.get_publishers_info_by_topic(topic)
        if not offers:
            return "no publisher"
        others = sorted({o.topic_type for o in offers} - {known.msgtype})
        return f"its type is {others[0]}, not {known.msgtype}" if others else "nothing published"

    def _adapt(self, topic: str, known: _Topic) -> None:
        """Ask for no more than the publishers offer, who may have come after the subscription."""
        if not self._node.count_publishers(topic):
            return
        wanted = self._qos(topic)
        lower = known.qos.reliability, wanted.reliability
        lossy = lower == (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
        # what is latched comes again to a new subscription, so not after something was recorded
        late = wanted.durability != known.qos.durability and (
            known.latched or not self._bag.counts.get(topic)
        )
        if not lossy and not late:
            return
        if not lossy:
            wanted.reliability = known.qos.reliability
        if not late:
            wanted.durability = known.qos.durability
        self._node.destroy_subscription(known.subscription)
        known.qos = wanted
        known.subscription = self._subscription(topic, known.msgtype, wanted)
        _LOG.info("%s: subscribed to anew, as its publishers offer it", topic)

    def _subscribe(self, topic: str, msgtype: str) -> None:
        self._known[topic] = None
        try:
            if msgtype not in typestore().types:
                raise BagError(
                    f"{topic}: no definition of the type {shown(msgtype)} to store in the bag"
                )
            qos = self._qos(topic)
            subscription = self._subscription(topic, msgtype, qos)
        except BagError as error:
            _LOG.error("not recorded: %s", error)
            return
        self._known[topic] = _Topic(msgtype, qos, subscription)

    def _subscription(self, topic: str, msgtype: str, qos: QoSProfile) -> Any:
        take = partial(self._take, topic)
        return self._node.create_subscription(message_class(msgtype), topic, take, qos, raw=True)

    def _qos(self, topic: str) -> QoSProfile:
        """A profile that every publisher fits.

        Reliable unless a publisher is not, so that nothing is lost that need not be.
        """
        offers = [o.qos_profile for o in self._node.get_publishers_info_by_topic(topic)]
        best_effort = any(o.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers)
        durable = [o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers]
        profile = QoSProfile(depth=_DEPTH)
        if best_effort:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if all(durable) if durable else topic == "/tf_static":
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return profile

    def _take(self, topic: str, data: bytes) -> None:
        if not self._open:
            return
        now_ns = int(self._node.get_clock().now().nanoseconds)
        if now_ns > 0:
            if self._early:
                self._write_early(now_ns)
            self._write(self._bag, topic, bytes(data), now_ns)
            return
        # simulated time has not begun; the transforms of /tf_static come this early
        self._early.append(_Early(time.time_ns(), topic, bytes(data)))
        self._early_bytes += len(data)
        if self._early_bytes > _EARLY_BYTES:
            self._early_lost += 1
            if self._early_lost == 1:
                _LOG.warning("simulated time has not begun: messages are dropped, the memory ends")
            self._early_bytes -= len(self._early.pop().data)

    def _write(self, bag: BagWriter, topic: str, data: bytes, stamp_ns: int) -> None:
        known = self._known[topic]
        if known is not None:
            qos = None if topic in bag.counts else reliable(latched=known.latched)
            bag.write(topic, known.msgtype, data, stamp_ns, qos)

    def _write_early(self, stamp_ns: int | None) -> None:
        """Log what waited for simulated time; at wall time when None."""
        for early in self._early:
            self._write(self._bag, early.topic, early.data, stamp_ns or early.wall_ns)
        self._early.clear()
        self._early_bytes = self._early_safe = 0
        if self._early_bag is not None:
            self._early_bag.discard()
            self._early_bag = None

    def _keep(self) -> None:
        """Make sure that a killed process has lost nothing of what came until now."""
        if self._early_safe < len(self._early):
            if self._early_bag is None:
                folder = self._bag.partial / EARLY
                self._early_bag = BagWriter(folder, storage=self._storage, keep=True)
                self._early_bag.__enter__()
            for early in self._early[self._early_safe :]:
                self._write(self._early_bag, early.topic, early.data, early.wall_ns)
            self._early_safe = len(self._early)
            self._early_bag.flush()
        self._bag.flush()
