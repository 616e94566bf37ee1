# SPDX-License-Identifier: Apache-2.0
"""Bags onto topics and back, over real DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosbags.interfaces import QosDurability
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.errors import BagError, ConfigError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder, RecordOptions
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.sensors import image_topic
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter, reliable
from labeldistill_ros.cli import main
from labeldistill_ros.messages import stamp_to_ns
from labeldistill_ros.messages.bag_family import BAG, typestore
from tests.support.bag_rig import profile_of

pytestmark = pytest.mark.real_time

FRONT = image_topic("CAM_FRONT")


class Listener:
    """A node that is spun in a thread."""

    def __init__(self, context: Context, name: str, *, sim_time: bool = False) -> None:
        override = [Parameter("use_sim_time", value=sim_time)]
        self.node = Node(name, context=context, parameter_overrides=override)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self.heard: list[tuple[float, str, Any]] = []

    def listen(self, kind: type, topic: str, qos: QoSProfile | int) -> None:
        def take(received: Any) -> None:
            self.heard.append((time.monotonic(), topic, received))

        self.node.create_subscription(kind, topic, take, qos)

    def start(self) -> None:
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.02)

    def messages(self, topic: str) -> list[Any]:
        return [received for _, name, received in self.heard if name == topic]

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def player(ros_context: Context) -> Iterator[Node]:
    node = Node("player", context=ros_context)
    yield node
    node.destroy_node()


@pytest.fixture
def listener(ros_context: Context) -> Iterator[Listener]:
    listener = Listener(ros_context, "listener")
    yield listener
    listener.close()


def test_bytes_times_and_clock(bag: Path, player: Node, listener: Listener) -> None:
    listener.listen(CompressedImage, FRONT, qos_profile_sensor_data)
    listener.listen(String, SAMPLE_TOPIC, 10)
    listener.listen(Clock, "/clock", QoSProfile(depth=500))
    listener.start()
    rate = 2.0
    topics = (FRONT, SAMPLE_TOPIC, "/tf")
    done = replay(bag, player, ReplayOptions(rate=rate, topics=topics, wait_for_s=5, detector=""))
    time.sleep(0.2)
    with BagReader(bag) as reader:
        wanted = [m for _, m in reader.messages([FRONT])]
        recorded = [r.stamp_ns for r in reader.raw(topics)]
        counts = {topic: reader.counts()[topic] for topic in topics}
    assert done.counts == counts
    assert done.rounds == 1
    images = listener.messages(FRONT)
    assert [bytes(m.data) for m in images] == [bytes(m.data) for m in wanted]
    assert [m.header.frame_id for m in images] == ["cam_front_optical_frame"] * len(wanted)
    assert len(listener.messages(SAMPLE_TOPIC)) == 3

    duration_s = (recorded[-1] - recorded[0]) / 1e9 / rate
    assert duration_s <= done.wall_s < duration_s + 1.0
    arrivals = np.array([at for at, topic, _ in listener.heard if topic == FRONT])
    stamps = np.array([stamp_to_ns(m.header.stamp) for m in images]) / 1e9 / rate
    np.testing.assert_allclose(arrivals - arrivals[0], stamps - stamps[0], atol=0.25)

    clock = [stamp_to_ns(m.clock) for m in listener.messages("/clock")]
    assert clock == sorted(set(clock))
    assert (clock[0], clock[-1]) == (recorded[0], recorded[-1])
    assert len(clock) >= 100 * duration_s * 0.3
    assert set(recorded) <= set(clock)


@pytest.mark.parametrize("kind", [Detection3DArray, LabelInfo, MarkerArray, TFMessage, CameraInfo])
def test_type_hashes_are_those_of_ros(player: Node, kind: type) -> None:
    player.create_publisher(kind, "/x", 1)
    end = time.monotonic() + 5
    while not (found := player.get_publishers_info_by_topic("/x")) and time.monotonic() < end:
        time.sleep(0.02)
    if not hasattr(found[0], "topic_type_hash"):
        pytest.skip("this distribution has no type hashes")
    hashed = found[0].topic_type_hash
    name = found[0].topic_type
    text = f"RIHS{hashed.version:02d}_{bytes(hashed.value).hex()}"
    assert typestore().hash_rihs01(name) == text


def test_late_subscribers_get_the_static_transforms(
    bag: Path, player: Node, ros_context: Context
) -> None:
    stop = threading.Event()
    options = ReplayOptions(rate=0.2, topics=("/tf_static", FRONT), clock=False)
    thread = threading.Thread(target=replay, args=(bag, player, options, lambda: not stop.is_set()))
    thread.start()
    time.sleep(0.5)
    late = Listener(ros_context, "late")
    try:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        late.listen(TFMessage, "/tf_static", latched)
        late.start()
        end = time.monotonic() + 5
        while not late.heard and time.monotonic() < end:
            time.sleep(0.02)
        assert len(late.messages("/tf_static")[0].transforms) == 7
    finally:
        stop.set()
        thread.join()
        late.close()


def test_a_loop_ends_when_told(bag: Path, player: Node) -> None:
    rounds = iter(range(40))
    done = replay(
        bag,
        player,
        ReplayOptions(rate=1000, topics=(SAMPLE_TOPIC,), loop=True),
        lambda: next(rounds, None) is not None,
    )
    assert done.rounds > 1
    assert done.counts[SAMPLE_TOPIC] > 3


def test_a_viewer_is_not_the_detector(
    bag: Path, ros_context: Context, player: Node, listener: Listener
) -> None:
    listener.listen(CompressedImage, FRONT, qos_profile_sensor_data)
    options = ReplayOptions(topics=(FRONT, "/tf"), rate=50, wait_for_s=1.0, detector="car/detector")
    with pytest.raises(BagError, match="car/detector listens to none of /cam_front/image_raw"):
        replay(bag, player, options)
    node = Node("detector", namespace="car", context=ros_context)
    node.create_subscription(CompressedImage, FRONT, lambda _: None, qos_profile_sensor_data)
    assert replay(bag, player, options).rounds == 1
    node.destroy_node()


def test_replay_refuses(bag: Path, player: Node, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="rate is 0; it must be above 0"):
        ReplayOptions(rate=0)
    with pytest.raises(BagError, match="lacks the topic /nothing; it has: .*/tf_static"):
        replay(bag, player, ReplayOptions(topics=("/nothing",)))
    with pytest.raises(BagError, match=f"nobody subscribed to {FRONT} within 0.1 s"):
        replay(bag, player, ReplayOptions(topics=(FRONT, "/tf"), wait_for_s=0.1, detector=""))
    with pytest.raises(BagError, match="no bag"):
        replay(tmp_path / "none", player)
    assert player.count_publishers(FRONT) == 0


def test_a_type_that_is_not_installed(player: Node, tmp_path: Path) -> None:
    kind = "stereo_msgs/msg/DisparityImage"
    with BagWriter(tmp_path / "bag") as writer:
        writer.connect("/disparity", kind)
        text = BAG.make("std_msgs/msg/String", data="x")
        writer.write("/text", "std_msgs/msg/String", text, 1)
    import labeldistill_ros.bags.replay as module

    with pytest.raises(BagError, match="my_msgs/msg/Thing is not installed: install my_msgs"):
        module.message_class("my_msgs/msg/Thing")
    assert replay(tmp_path / "bag", player, ReplayOptions(topics=("/text",))).rounds == 1


def test_recorded_is_what_was_played(
    bag: Path, player: Node, ros_context: Context, tmp_path: Path
) -> None:
    ear = Listener(ros_context, "recorder", sim_time=True)
    topics = (FRONT, SAMPLE_TOPIC, TRUTH_TOPIC, "/tf", "/tf_static", "/detector/status")
    recorder = Recorder(ear.node, tmp_path / "out", RecordOptions(topics))
    ear.start()
    try:
        # a publisher that the recorder can find, as a camera is there before it is recorded
        player.create_publisher(CompressedImage, FRONT, 10)
        time.sleep(0.5)
        played = tuple(t for t in topics if t != "/detector/status")
        done = replay(bag, player, ReplayOptions(rate=2, topics=played, wait_for_s=5, detector=""))
        time.sleep(0.3)
    finally:
        ear.close()
    counts = recorder.close()
    assert recorder.close() == counts
    assert counts == {**done.counts, "/detector/status": 0}
    with BagReader(bag) as first, BagReader(tmp_path / "out") as second:
        assert second.topics["/detector/status"] == "diagnostic_msgs/msg/DiagnosticArray"
        for topic in played:
            ours, theirs = (list(r.raw([topic])) for r in (second, first))
            assert sorted(m.data for m in ours) == sorted(m.data for m in theirs)
            late_s = [(a.stamp_ns - b.stamp_ns) / 1e9 for a, b in zip(ours, theirs, strict=True)]
            assert min(late_s) > -0.05, topic
            assert max(late_s) < 1.0, topic
    score = score_bag(tmp_path / "out", topic=TRUTH_TOPIC)
    assert score.coverage.matched == score.coverage.samples == 3
    assert score.metrics.mean_ap > 0.3


def test_a_bag_with_nothing_to_play(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ros_context: Context
) -> None:
    kind, out = "std_msgs/msg/String", str(tmp_path / "bag")
    with BagWriter(tmp_path / "bag") as writer:
        writer.connect("/silent", kind)
        for second in range(3):
            stamp_ns = (1_600_000_000 + second) * 10**9
            writer.write("/text", kind, BAG.make(kind, data="a"), stamp_ns)
            writer.write("/other", kind, BAG.make(kind, data="b"), stamp_ns + 10**9)
    assert main(["bag", "replay", out, "--topics", "/silent", "--loop"]) == 2
    told = capsys.readouterr().err
    assert "nothing to play" in told
    assert "has no message of '/silent' from --start 0 on" in told
    assert main(["bag", "replay", out, "--topics", "/text", "--start", "2.5"]) == 2
    assert "has no message of '/text' from --start 2.5 on" in capsys.readouterr().err


def test_what_is_latched_alone_is_played_once(tmp_path: Path, ros_context: Context) -> None:
    node = Node("player", context=ros_context)
    kind, begin_ns = "std_msgs/msg/String", 1_600_000_000 * 10**9
    with BagWriter(tmp_path / "bag") as writer:
        text = BAG.make(kind, data="a")
        writer.write("/latched", kind, text, begin_ns, reliable(latched=True))
        writer.write("/text", kind, text, begin_ns + 10**10)
    options = ReplayOptions(topics=("/latched",), start_s=5.0, loop=True)
    done = replay(tmp_path / "bag", node, options)
    assert (done.counts, done.rounds) == ({"/latched": 1}, 1)
    node.destroy_node()


def test_the_recorder_keeps_what_is_there(bag: Path, ros_context: Context, tmp_path: Path) -> None:
    node = Node("recorder", context=ros_context)
    with pytest.raises(BagError, match="is there already"):
        Recorder(node, bag)
    with Recorder(node, tmp_path / "other", RecordOptions(("/tf",))):
        pass
    with BagReader(tmp_path / "other") as reader:
        assert reader.counts() == {"/tf": 0}
    with Recorder(node, tmp_path / "left", RecordOptions(detector="left/detector/")):
        pass
    with BagReader(tmp_path / "left") as reader:
        assert {"/left/detector/detections", "/left/detector/status"} < set(reader.counts())
    for wrong in ("~", "left car"):
        with pytest.raises(ConfigError, match=f"'/{wrong}' is no full name"):
            Recorder(node, tmp_path / "wrong", RecordOptions(detector=wrong))
    assert not list(tmp_path.glob(".wrong*"))
    with pytest.raises(BagError, match="no message on /left/detector/detections: was the det"):
        score_bag(bag, tmp_path / "left", topic="/left/detector/detections")
    node.destroy_node()


def test_all_cameras_arrive(bag: Path, player: Node, listener: Listener) -> None:
    topics = tuple(image_topic(camera) for camera in CAMERAS)
    for topic in topics:
        listener.listen(CompressedImage, topic, qos_profile_sensor_data)
    listener.start()
    done = replay(bag, player, ReplayOptions(rate=2, topics=topics, wait_for_s=5, detector=""))
    time.sleep(0.2)
    assert {t: len(listener.messages(t)) for t in topics} == done.counts


def test_the_recorder_finds_latched_and_best_effort_topics(
    player: Node, ros_context: Context, tmp_path: Path
) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    player.create_publisher(String, "/label", latched).publish(String(data="early"))
    lossy = player.create_publisher(String, "/lossy", qos_profile_sensor_data)
    ear = Listener(ros_context, "recorder")
    options = RecordOptions(("/label", "/lossy", "/nobody"))
    recorder = Recorder(ear.node, tmp_path / "out", options)
    ear.start()
    end = time.monotonic() + 8
    while not all(recorder.counts[t] for t in ("/label", "/lossy")) and time.monotonic() < end:
        lossy.publish(String(data="x"))
        time.sleep(0.05)
    ear.close()
    counts = recorder.close()
    assert (counts["/label"], counts["/nobody"]) == (1, 0)
    assert counts["/lossy"] > 0
    with BagReader(tmp_path / "out") as reader:
        assert profile_of(reader, "/label").durability == QosDurability.TRANSIENT_LOCAL


def test_the_commands(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal each: one records until Ctrl-C, the other replays."""
    out = tmp_path / "out"
    topics = [TRUTH_TOPIC, SAMPLE_TOPIC, "/tf"]
    command = [sys.executable, "-m", "labeldistill_ros.cli", "bag", "record", str(out)]
    recorder = subprocess.Popen(
        [*command, "--topics", *topics, "--use-sim-time"], stdout=subprocess.PIPE, text=True
    )
    try:
        # not the images, so it waits for a subscriber of every topic: the recorder is there then
        arguments = ["--topics", *topics, "--rate", "2", "--wait-for", "60"]
        assert main(["bag", "replay", str(bag), *arguments]) == 0
        time.sleep(0.3)
    finally:
        recorder.send_signal(signal.SIGINT)
        told, _ = recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    assert f"      3  {TRUTH_TOPIC}" in told
    assert "late by p50" in capsys.readouterr().out
    score = score_bag(out, topic=TRUTH_TOPIC)
    assert score.coverage.matched == 3
    assert main(["bag", "replay", str(bag), "--rate", "-1"]) == 2
    assert "rate is -1; it must be above 0" in capsys.readouterr().err
