# SPDX-License-Identifier: Apache-2.0
"""Topics into a bag, as the bytes that came over the wire."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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
from labeldistill_ros.bags.recover import recover_abandoned
from labeldistill_ros.bags.replay import message_class
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter, Storage, reliable
from labeldistill_ros.messages.bag_family import typestore

_LOG = logging.getLogger(__name__)
_DISCOVERY_S = 0.2
_FLUSH_S = 1.0
_DEPTH = 200


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
class RecordOptions:
    """What is recorded, and how."""

    topics: tuple[str, ...] = ()
    """Topics to record; those of the detector and what scores them when none is given."""
    detector: str = "/detector"
    """Name, with its namespace, of the node whose topics are recorded by default."""
    storage: Storage = "mcap"
    """File format of the bag."""
    force: bool = False
    """Replace a bag that is there already."""


class Recorder:
    """Writes everything that comes on some topics until it is closed; a context manager.

    Messages are logged at the node's time: simulated time when it has `use_sim_time`. Subscribes
    at once to topics whose type is known, and to others when somebody offers them. If the process
    is killed, all but the last second can be recovered, which the next recorder of the same path
    does first.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        options: RecordOptions = RecordOptions(),  # noqa: B008 - frozen
    ) -> None:
        """Subscribe to the topics.

        Args:
            node: spun by the caller.
            path: folder of the bag.
            options: what is recorded, and how.

        Raises:
            BagError: the bag is there already.
            ConfigError: a name that no topic can have.
        """
        types = scoring_topics(options.detector)
        self._node, self._topics = node, tuple(map(_full_name, options.topics or types))
        self._bag = BagWriter(path, storage=options.storage, force=options.force, keep=True)
        recover_abandoned(Path(path), options.storage)
        self._bag.__enter__()
        self._early: list[Callable[[int], None]] = []
        self._subscriptions: list[Any] = []
        self._known: set[str] = set()
        self._open = True
        for topic in self._topics:
            if topic in types:
                self._subscribe(topic, types[topic])
        # steady, since simulated time may stand still until the player starts
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [node.create_timer(_FLUSH_S, self._bag.flush, clock=steady)]
        if set(self._topics) - self._known:
            self._timers.append(node.create_timer(_DISCOVERY_S, self._discover, clock=steady))

    @property
    def counts(self) -> dict[str, int]:
        """Messages by topic so far."""
        return {topic: self._bag.counts.get(topic, 0) for topic in self._topics}

    def close(self) -> dict[str, int]:
        """Stop and complete the bag; messages by topic. A second call does nothing."""
        if self._open:
            self._open = False
            self._withdraw()
            self._flush(self._now_ns() or time.time_ns())
            self._bag.__exit__(None, None, None)
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
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _discover(self) -> None:
        offered = dict(self._node.get_topic_names_and_types())
        for topic in set(self._topics) - self._known:
            if topic in offered:
                self._subscribe(topic, offered[topic][0])

    def _subscribe(self, topic: str, msgtype: str) -> None:
        self._known.add(topic)
        try:
            if msgtype not in typestore().types:
                raise BagError(f"{topic}: no definition of the type {msgtype} to store in the bag")
            kind = message_class(msgtype)
        except BagError as error:
            _LOG.error("not recorded: %s", error)
            return
        qos, latched = self._qos(topic)
        self._bag.connect(topic, msgtype, reliable(latched=latched))
        self._subscriptions.append(
            self._node.create_subscription(
                kind, topic, partial(self._take, topic, msgtype), qos, raw=True
            )
        )

    def _qos(self, topic: str) -> tuple[QoSProfile, bool]:
        """A profile that every publisher fits, and whether the topic is latched.

        Reliable unless a publisher is not, so that nothing is lost that need not be.
        """
        offers = [o.qos_profile for o in self._node.get_publishers_info_by_topic(topic)]
        best_effort = any(o.reliability == ReliabilityPolicy.BEST_EFFORT for o in offers)
        durable = [o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers]
        latched = all(durable) if durable else topic == "/tf_static"
        profile = QoSProfile(depth=_DEPTH)
        if best_effort:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if latched:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return profile, latched

    def _take(self, topic: str, msgtype: str, data: bytes) -> None:
        if not self._open:
            return
        write = partial(self._bag.write, topic, msgtype, bytes(data))
        now_ns = self._now_ns()
        if now_ns:
            self._flush(now_ns)
            write(now_ns)
        else:  # simulated time has not begun; the transforms of /tf_static come this early
            self._early.append(write)

    def _flush(self, stamp_ns: int) -> None:
        for write in self._early:
            write(stamp_ns)
        self._early.clear()

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
