# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to the cameras of a vehicle: images, and the newest `camera_info` of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

from rclpy.lifecycle import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from labeldistill_ros.event_callbacks import SubscriptionEventCallbacks
from labeldistill_ros.inputs.publishers import node_of, several, unheard, words_of
from labeldistill_ros.inputs.telling import logged
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.messages.calibration import AmbiguityWatch

ImageMessage: TypeAlias = "Image | CompressedImage"

_QUIET_S = 60.0
"""Before a publisher that comes again is told again."""


def _qos() -> QoSProfile:
    """A new profile for each subscription, since overrides are written into it."""
    return QoSProfile(
        # Sensor data: best effort takes from reliable publishers as well, and a lost image is
        # better than a late one.
        depth=5,
        reliability=qos_profile_sensor_data.reliability,
        durability=qos_profile_sensor_data.durability,
        history=qos_profile_sensor_data.history,
    )


def _overridable() -> QoSOverridingOptions:
    """What `qos_overrides` parameters may change; rclpy's default leaves durability out."""
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        )
    )


def _kind(topics: CameraTopics) -> type[Any]:
    kind: type[Any] = CompressedImage if topics.compressed else Image
    return kind


class CameraSubscriptions:
    """Subscribes to all cameras; ends with `close`."""

    def __init__(
        self,
        node: Node,
        topics: Mapping[str, CameraTopics],
        rectified: bool,
        on_image: Callable[[str, ImageMessage], None],
    ) -> None:
        """Subscribe to images and calibrations of all cameras.

        Args:
            node: the node.
            topics: by camera.
            rectified: the images are rectified.
            on_image: called with the camera's name and each image, in the thread that spins.
        """
        self._node, self._topics = node, topics
        self.infos: dict[str, CameraInfo] = {}
        """Newest `camera_info` by camera."""
        self._ambiguity = AmbiguityWatch(rectified=rectified)
        self._asked: dict[str, QoSProfile] = {}
        self._incompatible: set[str] = set()
        self._told: set[bytes] = set()
        self._tell = logged(node, _QUIET_S)
        self._latched: set[str] = set()
        self._subscriptions: list[Subscription[Any]] = []
        with ExitStack() as undo:
            # Half of the subscriptions would go on calling into a node that failed to activate.
            undo.callback(self.close)
            for camera, topic in topics.items():
                self._subscribe(_kind(topic), topic.image, self._caller(on_image, camera))
                self._subscribe(CameraInfo, topic.info, self._caller(self._on_info, camera))
            undo.pop_all()

    def _subscribe(self, kind: type[Any], topic: str, callback: Callable[[Any], None]) -> None:
        # no handler of another type, which `why_silent` tells: each one costs time at every wait
        events = SubscriptionEventCallbacks(
            incompatible_qos=self._caller(self._on_incompatible, topic),
            use_default_callbacks=False,
        )
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            _qos(),
            qos_overriding_options=_overridable(),
            event_callbacks=events,
        )
        self._subscriptions.append(subscription)
        self._asked[topic] = subscription.qos_profile

    def ask_for_latched_infos(self) -> None:
        """Subscribe also to what was published before this node came, where that is offered.

        A volatile subscription, which every publisher satisfies, does not get it; one that asks
        for it gets nothing from volatile publishers. So the second comes on top, and only where
        somebody offers: each subscription costs time at every wait.
        """
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,  # what is kept is sent to no best-effort reader
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        for camera in self.without_info():
            topic = self._topics[camera].info
            if camera in self._latched or not self._offers_latched(topic):
                continue
            self._latched.add(camera)
            self._subscriptions.append(
                self._node.create_subscription(
                    CameraInfo,
                    topic,
                    self._caller(self._on_info, camera),
                    latched,
                    event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
                )
            )

    def _offers_latched(self, topic: str) -> bool:
        return any(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            and info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            for info in self._node.get_publishers_info_by_topic(topic)
        )

    @staticmethod
    def _caller(callback: Callable[[str, object], None], camera: str) -> Callable[[object], None]:
        def call(message: object) -> None:
            callback(camera, message)

        return call

    def close(self) -> None:
        """Unsubscribe from all topics of the cameras."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_info(self, camera: str, info: CameraInfo) -> None:
        self.infos[camera] = info
        if text := self._ambiguity.look(camera, self._topics[camera].info, info):
            self._node.get_logger().warning(text)

    def _on_incompatible(self, topic: str, _: object) -> None:
        """A publisher offers less than the subscription asks for, so nothing comes from it."""
        self._incompatible.add(topic)
        self.tell_incompatible()

    def tell_incompatible(self) -> None:
        """Log a WARN for each publisher from which nothing can come; once a publisher.

        One that comes and goes is told once a minute. To be called from time to time: the
        event may come before the name of the publisher's node.
        """
        found: dict[bytes, str] = {}
        for topic in self._incompatible:
            found |= unheard(self._node, topic, self._asked[topic])
        for gid, text in found.items():
            if gid not in self._told:
                self._tell(text)
        self._told = set(found)  # publishers that come and go must not fill the memory

    def unheard(self) -> list[str]:
        """One sentence for each publisher from which nothing can come."""
        found: dict[bytes, str] = {}
        for topic, asked in self._asked.items():
            found |= unheard(self._node, topic, asked)
        return list(found.values())

    def shared(self) -> dict[str, str]:
        """Cameras on one of whose topics several publishers are; a sentence by camera."""
        texts = {
            camera: several(self._node, topic.image) or several(self._node, topic.info)
            for camera, topic in self._topics.items()
        }
        return {camera: f"{camera}: {text}" for camera, text in texts.items() if text}

    def why_silent(self, camera: str) -> str:
        """What is known about a camera from which no image comes."""
        topic, wanted = self._topics[camera].image, _kind(self._topics[camera]).__name__
        publishers = self._node.get_publishers_info_by_topic(topic)
        topic = self._node.resolve_topic_name(topic)
        if not publishers:
            other, transport = self._topics[camera].of_other_transport
            mend = "check the topic, camera_prefix, transport and ROS_DOMAIN_ID"
            if self._node.get_publishers_info_by_topic(other):
                resolved = self._node.resolve_topic_name(other)
                mend = f"but {resolved} is: set transport to {transport}, and image_topic if given"
            return (
                f"{camera}: nobody publishes {topic} (sensor_msgs/msg/{wanted}, best effort); "
                + mend
            )
        told = []
        for info in publishers:
            reliability = words_of(info.qos_profile.reliability)
            told.append(f"{node_of(info)} publishes {info.topic_type}, {reliability}")
        # A reliable publisher fits, so what is lost is lost on the way: large images by buffers.
        fits = any(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            and info.topic_type.endswith(f"/{wanted}")
            for info in publishers
        )
        mend = "; start it and this node with the Fast DDS profile config/fastdds.xml" * fits
        return (
            f"{camera}: no image comes on {topic} (sensor_msgs/msg/{wanted}, best effort); "
            f"{len(publishers)} publisher{'s' * (len(publishers) > 1)}: {'; '.join(told)}{mend}"
        )

    def without_info(self) -> list[str]:
        """Cameras whose `camera_info` has not come."""
        return [camera for camera in self._topics if camera not in self.infos]

    def why_without_info(self, camera: str) -> str:
        """What is known about a camera whose `camera_info` does not come."""
        topic = self._node.resolve_topic_name(self._topics[camera].info)
        count = self._node.count_publishers(topic)
        return (
            f"{camera}: images come, but no camera_info on {topic} (publishers: {count}); its "
            f"images cannot be used; see the parameter cameras.{camera}.info_topic"
        )
