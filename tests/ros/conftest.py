# SPDX-License-Identifier: Apache-2.0
"""Every ROS test talks alone: a DDS domain of its own, on this machine only."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context

# DDS derives UDP ports from the domain; above 101 they meet Linux's ephemeral ports.
_domains = (1 + number % 101 for number in itertools.count(os.getpid()))


@pytest.fixture(autouse=True)
def ros_domain_id(monkeypatch: pytest.MonkeyPatch, repository: Path) -> int:
    """The domain of this test, set in the environment of the test and of what it starts."""
    domain = next(_domains)
    old_fast_dds = os.environ.get("ROS_DISTRO") in {"humble", "jazzy"}
    profile = f"{'FASTRTPS' if old_fast_dds else 'FASTDDS'}_DEFAULT_PROFILES_FILE"
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv(profile, str(repository / "config" / "fastdds.xml"))
    if os.environ.get("ROS_DISTRO") == "humble":
        monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    else:
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return domain


@pytest.fixture
def ros_context(ros_domain_id: int) -> Iterator[Context]:
    """A ROS context of this test's own, shut down after it; pass it to nodes and executors."""
    context = Context()
    rclpy.init(context=context, domain_id=ros_domain_id)
    yield context
    context.try_shutdown()
