# SPDX-License-Identifier: Apache-2.0
"""Start offset, pause, step and QoS of a replay, over real DDS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosReliability
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.controls import Controls, keys, services
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.replay import Replay, ReplayOptions, replay
from labeldistill_ros.bags.sensors import image_topic
from labeldistill_ros.bags.writer import BagWriter, reliable
from labeldistill_ros.messages.bag_family import BAG

FRONT = image_topic("CAM_FRONT")


@pytest.fixture
def player(ros_context: Context) -> Iterator[Node]:
    node = Node("replay", context=ros_context)
    yield node
    node.destroy_node()


def test_a_start_offset_keeps_what_is_latched(bag: Path, player: Node) -> None:
    whole = replay(bag, player, ReplayOptions(rate=50))
    late = replay(bag, player, ReplayOptions(rate=50, start_s=0.8))
    assert late.counts["/tf_static"] == 1
    with BagReader(bag) as reader:
        first_ns = next(reader.raw()).stamp_ns
        images = [r.stamp_ns - first_ns for r in reader.raw([FRONT])]
    assert late.counts[FRONT] == sum(ns >= 800_000_000 for ns in images)
    assert 0 < late.counts[FRONT] < whole.counts[FRONT] == 5
    assert len(whole.late_ms) == sum(whole.counts.values())
    assert whole.late(50) <= whole.late(99) <= whole.late(100)
    with pytest.raises(BagError, match="--start 60 is beyond the end of .*first, which is 1.0"):
        replay(bag, player, ReplayOptions(start_s=60))


def test_pause_and_step_by_services(bag: Path, player: Node, ros_context: Context) -> None:
    controls, told = Controls(paused=True), list[Replay]()
    client = Node("client", context=ros_context)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(client)
    options = ReplayOptions(topics=(FRONT, "/tf"), step_s=0.3, clock=False)
    before_s = time.monotonic()
    with services(player, controls):
        thread = threading.Thread(
            target=lambda: told.append(replay(bag, player, options, controls=controls))
        )
        thread.start()
        pause: Client[Any, Any] = client.create_client(SetBool, "/replay/pause")
        step: Client[Any, Any] = client.create_client(Trigger, "/replay/step")
        assert pause.wait_for_service(10)
        assert step.wait_for_service(10)

        def call(client: Client[Any, Any], request: object) -> Any:
            future = client.call_async(request)
            executor.spin_until_future_complete(future, 10)
            return future.result()

        time.sleep(1.2)  # longer than the bag, which stands still
        assert thread.is_alive()
        assert call(step, Trigger.Request()).success
        time.sleep(0.8)
        assert thread.is_alive()
        reply = call(pause, SetBool.Request(data=False))
        assert reply.message == "running"
        assert not call(step, Trigger.Request()).success
        thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - before_s > 1.2 + 0.8
    with BagReader(bag) as reader:
        assert told[0].counts == {topic: reader.counts()[topic] for topic in (FRONT, "/tf")}
    assert told[0].late(50) < 100  # the pause counts as nobody's lateness
    executor.shutdown()
    client.destroy_node()


def test_stopping_a_paused_replay(bag: Path, player: Node) -> None:
    controls = Controls(paused=True)
    threading.Timer(0.3, controls.stopped.set).start()
    done = replay(bag, player, ReplayOptions(), controls=controls)
    assert done.rounds == 0
    assert sum(done.counts.values()) == 0


def test_qos_is_that_of_the_bag(player: Node, tmp_path: Path) -> None:
    lossy = reliable(3)._replace(reliability=QosReliability.BEST_EFFORT)
    with BagWriter(tmp_path / "bag") as writer:
        for topic, qos in {
            "/lossy": lossy,
            "/safe": reliable(7),
            "/kept": reliable(latched=True),
        }.items():
            text = BAG.make("std_msgs/msg/String", data="x")
            for stamp_ns in (1, 3_000_000_000):
                writer.write(topic, "std_msgs/msg/String", text, stamp_ns, qos)
    stop = threading.Event()
    thread = threading.Thread(
        target=replay,
        args=(tmp_path / "bag", player, ReplayOptions(), lambda: not stop.is_set()),
    )
    thread.start()
    try:
        end = time.monotonic() + 8
        found: dict[str, tuple[object, object]] = {}
        while len(found) < 3 and time.monotonic() < end:
            for topic in ("/lossy", "/safe", "/kept"):
                for info in player.get_publishers_info_by_topic(topic):
                    found[topic] = (info.qos_profile.reliability, info.qos_profile.durability)
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    volatile, latched = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
    assert found == {
        "/lossy": (ReliabilityPolicy.BEST_EFFORT, volatile),
        "/safe": (ReliabilityPolicy.RELIABLE, volatile),
        "/kept": (ReliabilityPolicy.RELIABLE, latched),
    }


def test_keys_that_come_together_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = os.openpty()
    controls = Controls(paused=True)
    with (
        open(terminal, closefd=False) as stream,
        monkeypatch.context() as patched,
    ):
        patched.setattr("sys.stdin", stream)
        with keys(controls) as there:
            assert there
            os.write(keyboard, b"ssxsq")
            assert controls.stopped.wait(5)
    assert [controls.take_step() for _ in range(4)] == [True, True, True, False]
    os.close(keyboard)
    os.close(terminal)


def test_all_that_is_latched_reaches_who_comes_late(
    player: Node, ros_context: Context, tmp_path: Path
) -> None:
    """A vehicle has a static broadcaster for each of its sensors."""
    kind, many = "std_msgs/msg/String", 30
    with BagWriter(tmp_path / "bag") as writer:
        for number in range(many):
            text = BAG.make(kind, data=str(number))
            writer.write("/kept", kind, text, number, reliable(1, latched=True))
        writer.write("/plain", kind, BAG.make(kind, data=""), 20_000_000_000)
    stop, heard = threading.Event(), list[str]()
    thread = threading.Thread(
        target=replay,
        args=(tmp_path / "bag", player, ReplayOptions(), lambda: not stop.is_set()),
    )
    thread.start()
    late = Node("late", context=ros_context)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(late)
    try:
        time.sleep(1.5)
        qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        late.create_subscription(String, "/kept", lambda m: heard.append(m.data), qos)
        end = time.monotonic() + 10
        while len(heard) < many and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
    finally:
        stop.set()
        thread.join()
        executor.shutdown()
        late.destroy_node()
    assert heard == [str(number) for number in range(many)]


def test_steps_only_count_while_paused() -> None:
    controls = Controls()
    assert not controls.step()
    assert controls.pause() is True
    assert controls.step()
    assert controls.take_step()
    assert not controls.take_step()
    assert controls.pause() is False
