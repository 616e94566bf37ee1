# SPDX-License-Identifier: Apache-2.0
"""Every ROS test talks alone: a DDS domain of its own, on this machine only."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from labeldistill_ros.isolated_domain import domain_environment, free_domain
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import COURSE, save_tiny


@pytest.fixture(autouse=True)
def ros_domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The domain of this test, set in the environment of the test and of what it starts."""
    with free_domain() as domain:
        for name, value in domain_environment(domain).items():
            monkeypatch.setenv(name, value)
        yield domain


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


def turn_away(vehicle: Vehicle) -> None:
    """Leave the detector without anyone who listens to boxes and markers."""
    for subscription in list(vehicle.node.subscriptions):
        if subscription.topic_name.startswith(("/detector/detections", "/detector/markers")):
            vehicle.node.destroy_subscription(subscription)
    vehicle.expect(
        lambda: not vehicle.node.count_subscribers("/detector/markers"), "nobody listens"
    )
