# SPDX-License-Identifier: Apache-2.0
"""Transforms and odometry of a bag, at all of its times."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from labeldistill_core.frames import Transform
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.inputs.odometry import OdometryPoses
from labeldistill_ros.inputs.transforms import Lookup, TransformBuffer
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.parameters import Parameters

_LOG = logging.getLogger(__name__)

Tell = Callable[[str], object]


def read_transforms(bag: BagReader, tell: Tell = _LOG.warning) -> TransformBuffer:
    """All transforms of a bag, at all times; what cannot be taken is told, in sentences."""
    buffer = _endless_buffer(tell)
    for topic in ("/tf", "/tf_static"):
        if topic not in bag.topics:
            continue
        for _, message in bag.messages([topic]):
            for stamped in message.transforms:
                turn, shift = stamped.transform.rotation, stamped.transform.translation
                buffer.add(
                    stamped.header.frame_id,
                    stamped.child_frame_id,
                    stamp_of(stamped),
                    (turn.w, turn.x, turn.y, turn.z),
                    (shift.x, shift.y, shift.z),
                    static=topic == "/tf_static",
                )
    return buffer


def read_poses(bag: BagReader, parameters: Parameters, tell: Tell = _LOG.warning) -> Lookup:
    """Poses from where the parameters say that the node takes them; see `read_transforms`.

    Raises:
        BagError: the topic of the odometry is missing.
    """
    transforms = _lookup_in(read_transforms(bag, tell))
    if parameters.ego_motion_source != "odometry":
        return transforms
    topic, fixed, base = parameters.odometry_topic, parameters.fixed_frame, parameters.base_frame
    buffer = _endless_buffer(tell)
    poses = OdometryPoses(_lookup_in(buffer), transforms, topic, fixed, base)
    for _, message in bag.messages([topic]):
        turn, place = message.pose.pose.orientation, message.pose.pose.position
        buffer.add(
            fixed,
            poses.body_of(message.child_frame_id),
            stamp_of(message),
            (turn.w, turn.x, turn.y, turn.z),
            (place.x, place.y, place.z),
        )
    return poses.lookup


def _endless_buffer(tell: Tell) -> TransformBuffer:
    # Nothing is forgotten and nothing is a jump: a bag is read to its end before anybody asks.
    return TransformBuffer(keep_s=math.inf, jump_s=math.inf, tell=tell)


def _lookup_in(buffer: TransformBuffer) -> Lookup:
    """Lookups that wait for nothing, since all that there is has been read."""

    def lookup(target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        return buffer.lookup(target, source, stamp_ns)

    return lookup
