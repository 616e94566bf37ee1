# SPDX-License-Identifier: Apache-2.0
"""What comes to a node while a lifecycle manager has it load a model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_parameters
from std_srvs.srv import SetBool, Trigger

from labeldistill_core import Detector
from labeldistill_core.errors import ConfigError
from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.node.spinning import Spinner
from labeldistill_ros.node.stopping import StopSignals
from labeldistill_ros.parameters import Parameters

CALLS = 40
CONFIGURE = 1


class Loading:
    """A detector that takes as long to load as it is told."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _: Parameters) -> Detector:
        self.begun.set()
        self.may_end.wait(5)
        raise ConfigError("no model")


@pytest.fixture
def loading() -> Loading:
    return Loading()


@pytest.fixture
def node(ros_context: Context, loading: Loading) -> Iterator[DetectorNode]:
    node = DetectorNode(context=ros_context, load=loading)
    yield node
    node.close()
    node.destroy_node()


def configure(client_node: Node) -> None:
    client: Any = client_node.create_client(ChangeState, "/detector/change_state")
    assert client.wait_for_service(10)
    request = ChangeState.Request()
    request.transition.id = CONFIGURE
    client.call_async(request)


def test_whoever_asks_meanwhile_is_answered_afterwards(
    ros_context: Context, node: DetectorNode, loading: Loading, spun: Node
) -> None:
    executor, stop = SingleThreadedExecutor(context=ros_context), threading.Event()
    executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    clients: list[Any] = [
        spun.create_client(kind, f"/detector/{name}", qos_profile=qos_profile_parameters)
        for kind, name in ((SetBool, "enable"), (Trigger, "relearn_offsets"))
    ]
    assert all(client.wait_for_service(10) for client in clients)
    configure(spun)
    assert loading.begun.wait(10)
    calls = [
        client.call_async(client.srv_type.Request()) for client in clients for _ in range(CALLS)
    ]
    answered = threading.Event()
    calls[-1].add_done_callback(lambda _: answered.set())
    loading.may_end.set()
    answered.wait(5)
    stop.set()
    thread.join()
    executor.shutdown()
    assert [call for call in calls if not call.done()] == []


def test_a_signal_ends_the_loading(
    ros_context: Context, node: DetectorNode, loading: Loading, spun: Node
) -> None:
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ending}
    signals = StopSignals()
    signals.running, signals.loading = True, lambda: node.loading
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(node)

    def end() -> None:
        loading.begun.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def spin() -> None:
        spinner = Spinner(executor)
        while node.loading or not loading.begun.is_set():
            spinner.spin_once(timeout_s=0.1)

    thread = threading.Thread(target=end)
    thread.start()
    configure(spun)
    try:
        with pytest.raises(KeyboardInterrupt):
            spin()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        executor.shutdown()
    thread.join()
    assert signals.number == signal.SIGTERM
    assert not node.loading
