# SPDX-License-Identifier: Apache-2.0
"""Every ROS test talks alone: a DDS domain of its own, on this machine only."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import COURSE, save_tiny


def _own_domains() -> Iterator[int]:
    """Numbers from 1 to 101, one after the other; those of two workers of xdist never meet.

    DDS derives UDP ports from the domain; above 101 they meet Linux's ephemeral ports.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = 101 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return (1 + worker * share + number % share for number in itertools.count(os.getpid()))


_domains = _own_domains()


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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a small student with random weights."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def vehicle(ros_context: Context) -> Iterator[Vehicle]:
    """A vehicle with six cameras that drives step by step."""
    vehicle = Vehicle(ros_context, course=COURSE)
    vehicle.listen_to_pictures()
    yield vehicle
    vehicle.close()


@pytest.fixture
def detector(ros_context: Context, tiny_model: Path) -> Iterator[Callable[..., RunningNode]]:
    """Starts a detector node with the parameters that it is called with."""
    running: list[RunningNode] = []

    def start(model: Path = tiny_model, **parameters: object) -> RunningNode:
        values: dict[str, Any] = {"device": "cpu", "score_threshold": 0.0, **parameters}
        running.append(RunningNode(ros_context, model, **values))
        return running[-1]

    yield start
    for node in running:
        node.close()


@pytest.fixture
def spun(ros_context: Context) -> Iterator[Node]:
    """A node that is spun in a thread."""
    node, stop = Node("recorder", context=ros_context), threading.Event()
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.02)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    stop.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
