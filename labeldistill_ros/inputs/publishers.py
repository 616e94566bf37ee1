# SPDX-License-Identifier: Apache-2.0
"""What is known of the publishers of a topic: who cannot be heard, and how many there are."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

_UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"
"""What rmw calls the node of a publisher that it knows before it knows the node."""


def node_of(info: Any) -> str:
    """Whole name of the node behind a publisher."""
    if info.node_name == _UNKNOWN_NODE:
        return "a node whose name is not known"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def words_of(policy: object) -> str:
    """A value of a QoS policy as words, such as "best effort"."""
    return str(getattr(policy, "name", policy)).lower().replace("_", " ")


def unheard(node: Node, topic: str, asked: QoSProfile) -> dict[bytes, str]:
    """Publishers that offer less than a subscription asks for, so that nothing comes from them.

    Args:
        node: with the subscription.
        topic: as the subscription was given it.
        asked: the subscription's profile.

    Returns:
        A sentence by the publisher's global id; publishers whose node is not known yet are left
        out.
    """
    found, name = {}, node.resolve_topic_name(topic)  # as remapping has it
    for info in node.get_publishers_info_by_topic(topic):
        fits, reason = qos_check_compatible(info.qos_profile, asked)
        if info.node_name == _UNKNOWN_NODE or fits != QoSCompatibility.ERROR:
            continue
        policy = _policy(info.qos_profile, asked)
        offered = words_of(getattr(info.qos_profile, policy)) if policy else reason
        mend = f"set qos_overrides.{name}.subscription.{policy}, or " if policy else ""
        found[bytes(info.endpoint_gid)] = (
            f"{node_of(info)} publishes {name} with {policy or 'a QoS'} {offered}, which is less "
            f"than this node asks for: nothing can come from it; {mend}change the publisher"
        )
    return found


def _policy(offered: QoSProfile, asked: QoSProfile) -> str:
    """The policy by which the two do not fit; empty where it is a rarer one."""
    best_effort = offered.reliability == ReliabilityPolicy.BEST_EFFORT
    if best_effort and asked.reliability == ReliabilityPolicy.RELIABLE:
        return "reliability"
    volatile = offered.durability == DurabilityPolicy.VOLATILE
    if volatile and asked.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        return "durability"
    return ""


def several(node: Node, topic: str) -> str:
    """That more than one publisher is on a topic of one sensor; else empty."""
    name = node.resolve_topic_name(topic)  # as remapping has it, which counting leaves out
    if node.count_publishers(name) < 2:  # asked for often, and cheaper than who they are
        return ""
    publishers = node.get_publishers_info_by_topic(topic)
    names = " and ".join(sorted(map(node_of, publishers)))
    return (
        f"{len(publishers)} publishers are on {name}: {names}; their messages mix: stop all but one"
    )
