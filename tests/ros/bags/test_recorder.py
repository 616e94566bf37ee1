# SPDX-License-Identifier: Apache-2.0
"""A recorder that hears nothing at first: publishers that come late, and time that never begins."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from labeldistill_ros.bags import recorder as module
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder, RecordOptions
from labeldistill_ros.bags.recover import recover

TEXT = RecordOptions(("/text",))
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """A node that records, and others beside it, spun by the test."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.executor = SingleThreadedExecutor(context=context)

    def node(self, name: str, *, sim_time: bool = False) -> Node:
        clock = Parameter("use_sim_time", value=sim_time)
        node = Node(name, context=self.context, parameter_overrides=[clock])
        self.executor.add_node(node)
        return node

    def until(self, done: Callable[[], bool], limit_s: float = 20) -> bool:
        end = time.monotonic() + limit_s
        while not done() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return done()


@pytest.fixture
def rig(ros_context: Context) -> Rig:
    return Rig(ros_context)


def test_a_publisher_that_offers_less_comes_late(rig: Rig, tmp_path: Path) -> None:
    """A detector that waits for images makes their topic known before the driver is there."""
    rig.node("detector").create_subscription(String, "/lossy", print, qos_profile_sensor_data)
    rig.node("other").create_subscription(String, "/label", print, 1)
    with Recorder(
        rig.node("recorder"), tmp_path / "bag", RecordOptions(("/lossy", "/label"))
    ) as recorder:
        assert rig.until(lambda: len(recorder.discovered) == 2)
        driver = rig.node("driver")
        driver.create_publisher(String, "/label", LATCHED).publish(String(data="once"))
        lossy = driver.create_publisher(String, "/lossy", qos_profile_sensor_data)

        def heard() -> bool:
            lossy.publish(String(data="x"))
            return all(recorder.counts.values())

        assert rig.until(heard)
    with BagReader(tmp_path / "bag") as reader:
        assert [m.data for _, m in reader.messages(["/label"])] == ["once"]


def test_silence_is_told_with_its_reason(
    rig: Rig,
    ros_domain_id: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    other = Context()  # one participant refuses two types of a topic
    rclpy.init(context=other, domain_id=ros_domain_id)
    odd = Node("odd", context=other)
    odd.create_publisher(String, "/tf", 1)
    topics = ("/tf", "/tf_static", "/nowhere")
    with Recorder(rig.node("recorder"), tmp_path / "bag", RecordOptions(topics)):
        assert rig.until(lambda: "nothing has come" in caplog.text)
    odd.destroy_node()
    rclpy.shutdown(context=other)
    told = caplog.text
    assert "/tf (its type is std_msgs/msg/String, not tf2_msgs/msg/TFMessage)" in told
    assert "/tf_static (no publisher), /nowhere (nobody offers it)" in told
    assert "no message was recorded of /tf, /tf_static, /nowhere" in told


def test_simulated_time_that_never_begins(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    text = rig.node("speaker").create_publisher(String, "/text", LATCHED)
    begin_ns = time.time_ns()
    recorder = Recorder(
        rig.node("recorder", sim_time=True), tmp_path / "bag", RecordOptions(("/text",))
    )
    assert rig.until(lambda: "/text" in recorder.discovered)
    for number in range(3):
        text.publish(String(data=str(number)))
        assert rig.until(lambda number=number: recorder.waiting_for_clock[0] > number)  # type: ignore[misc]
    assert rig.until(lambda: "nobody publishes /clock: 3 messages wait for it" in caplog.text)
    (left,) = tmp_path.glob(".bag.partial-*")
    assert rig.until(lambda: any(f.stat().st_size > 500 for f in left.rglob("early.mcap")))
    shutil.copytree(left, tmp_path / "killed")
    assert recover(tmp_path / "killed", tmp_path / "saved") == {"/text": 3}
    assert recorder.close() == {"/text": 3}
    assert "simulated time never began: 3 messages are logged at wall time" in caplog.text
    with BagReader(tmp_path / "bag") as reader:
        stamps = [recorded.stamp_ns for recorded in reader.raw()]
    assert begin_ns < stamps[0] < stamps[1] < stamps[2] < time.time_ns()


def test_what_came_before_simulated_time_begins(rig: Rig, tmp_path: Path) -> None:
    speaker = rig.node("speaker")
    text, clock = (speaker.create_publisher(*t, 10) for t in ((String, "/text"), (Clock, "/clock")))
    with Recorder(
        rig.node("recorder", sim_time=True), tmp_path / "bag", RecordOptions(("/text",))
    ) as recorder:
        assert rig.until(lambda: "/text" in recorder.discovered)
        text.publish(String(data="early"))
        assert rig.until(lambda: all(recorder.waiting_for_clock))
        now = Clock()
        now.clock.sec = 100

        def begun() -> bool:
            clock.publish(now)
            text.publish(String(data="late"))
            return recorder.counts["/text"] > 1

        assert rig.until(begun)
    with BagReader(tmp_path / "bag") as reader:
        assert {recorded.stamp_ns for recorded in reader.raw()} == {100 * 10**9}
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
