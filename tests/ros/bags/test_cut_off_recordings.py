# SPDX-License-Identifier: Apache-2.0
"""Recordings that end early: by a signal, by a kill, on a full disk; and what is recovered."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from mcap.reader import make_reader
from mcap.records import Channel
from mcap.stream_reader import StreamReader
from rclpy.context import Context
from rclpy.node import Node
from rosbags.interfaces import QosDurability

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError
from labeldistill_ros.bags import writer
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder, RecordOptions
from labeldistill_ros.bags.recover import recover
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter, Storage
from labeldistill_ros.cli import main
from labeldistill_ros.messages.bag_family import BAG
from tests.support.bag_rig import profile_of
from tests.support.full_disk import files_no_larger_than
from tests.support.nuscenes_fixture import SCENES, VERSION

pytestmark = pytest.mark.real_time

TOPICS = (SAMPLE_TOPIC, TRUTH_TOPIC, "/tf", "/tf_static")
STORAGES = ("mcap", "sqlite3")


def convert(root: Path, out: Path, storage: Storage = "mcap") -> Path:
    options = ConversionOptions(storage=storage)
    convert_scene(NuScenesTables(root, VERSION), SCENES[0], out, options)
    return out


@pytest.fixture(scope="module")
def bag(shared_dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(shared_dataroot, tmp_path_factory.mktemp("bags") / "first")


class Looping:
    """Plays a bag again and again until it is closed."""

    def __init__(self, bag: Path, context: Context) -> None:
        self._node, self._stop = Node("player", context=context), threading.Event()
        options = ReplayOptions(rate=2, topics=TOPICS, loop=True, clock=False)
        going = (bag, self._node, options, lambda: not self._stop.is_set())
        self._thread = threading.Thread(target=replay, args=going)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()


@pytest.fixture
def looping(bag: Path, ros_context: Context) -> Iterator[None]:
    player = Looping(bag, ros_context)
    yield
    player.close()


def safe_bytes(files: Callable[[], Iterable[Path]]) -> int:
    """Bytes that outlive a kill: none while SQLite has a journal, by which it would take back."""
    size = 0
    for file in files():
        with suppress(FileNotFoundError):  # it went between listing and asking
            size += file.stat().st_size
    # Asked afterwards: without one now, what the file has grown to is committed.
    return 0 if any(file.name.endswith("-journal") for file in files()) else size


def record_until(out: Path, number: signal.Signals, storage: str) -> str:
    """End a recording with a signal while messages come; what it told."""
    command = [sys.executable, "-m", "labeldistill_ros.cli", "bag", "record", str(out)]
    command += ["--topics", *TOPICS, "--storage", storage]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            files = partial(out.parent.glob, f".{out.name}.partial-{process.pid}/*/*")
            if safe_bytes(files) > 100_000:  # after more than one flush
                break
            time.sleep(0.05)
        process.send_signal(number)
        told, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == (-number if number == signal.SIGKILL else 0), told
    return told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording(looping: None, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    told = record_until(out, number, "mcap")
    with BagReader(out) as reader:
        counts = reader.counts()
        assert sum(counts.values()) == len(list(reader.raw()))
    assert all(counts[topic] for topic in TOPICS)
    for topic, count in counts.items():
        assert f"{count:7d}  {topic}\n" in told
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_killed_recording_is_recovered_by_the_next(
    looping: None, bag: Path, tmp_path: Path, storage: str
) -> None:
    out = tmp_path / "mit Leerzeichen" / "übel"
    record_until(out, signal.SIGKILL, storage)
    (left,) = out.parent.iterdir()
    assert left.name.startswith(".übel.partial-")
    told = record_until(out, signal.SIGINT, storage)
    assert "an earlier recording was cut off" in told
    again = out.with_name("übel.recovered-1")
    assert sorted(out.parent.iterdir()) == [out, again]
    with BagReader(bag) as first, BagReader(again) as second:
        # another process gets the bytes of a message padded
        known, kept = (
            {r.data + bytes(-len(r.data) % 4) for r in reader.raw([TRUTH_TOPIC, SAMPLE_TOPIC])}
            for reader in (first, second)
        )
        assert kept <= known
        counts = second.counts()
        assert min(counts[topic] for topic in TOPICS) > 0
        assert profile_of(second, "/tf_static").durability == QosDurability.TRANSIENT_LOCAL


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, storage: Storage) -> None:
    def record() -> None:
        with BagWriter(tmp_path / "bag", storage=storage, keep=True) as bag:
            for stamp_ns in range(1000):
                text = BAG.make("std_msgs/msg/String", data="x" * 1000)
                bag.write("/text", "std_msgs/msg/String", text, stamp_ns)
                bag.flush()

    with files_no_larger_than(300_000), pytest.raises(BagError, match="cannot write") as error:
        record()
    (left,) = tmp_path.iterdir()
    assert f"`labeldistill bag recover {left} OUT`" in str(error.value)
    counts = recover(left, tmp_path / "recovered")
    assert 100 < counts["/text"] < 300
    assert left.is_dir()


def test_every_chunk_has_messages(tmp_path: Path) -> None:
    """rosbag2 plays no MCAP file with a chunk that has no index of messages."""
    kind = "std_msgs/msg/String"
    with BagWriter(tmp_path / "bag", keep=True) as bag:
        for topic in ("/first", "/silent"):
            bag.connect(topic, kind)
        bag.flush()
        bag.write("/first", kind, BAG.make(kind, data="a"), 1)
        bag.flush()
        bag.connect("/late", "std_msgs/msg/Header")
        bag.flush()
        bag.flush()
        bag.write("/first", kind, BAG.make(kind, data="b"), 2)
        bag.connect("/last", kind)
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
        assert summary is not None
        assert [bool(c.message_index_offsets) for c in summary.chunk_indexes] == [True, True]
        file.seek(0)
        records = list(StreamReader(file, emit_chunks=True).records)
    # topics whose messages are yet to come can be recovered from the file too
    assert {r.topic for r in records if isinstance(r, Channel)} >= {"/first", "/silent", "/late"}
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == {"/first": 2, "/silent": 0, "/late": 0, "/last": 0}
        assert [text.data for _, text in reader.messages(["/first"])] == ["a", "b"]
    assert recover(tmp_path / "bag", tmp_path / "again") == {"/first": 2}


def truncate(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: round(file.stat().st_size * share)])


@pytest.mark.parametrize("storage", STORAGES)
def test_a_truncated_bag(
    shared_dataroot: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    storage: Storage,
) -> None:
    whole = convert(shared_dataroot, tmp_path / "whole", storage)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (file,) = (path for path in cut.iterdir() if path.suffix in (".mcap", ".db3"))
    truncate(file, 0.7)
    with (
        pytest.raises(BagError, match="cut is no readable bag.*labeldistill bag recover"),
        BagReader(cut) as reader,
    ):
        list(reader.raw())
    assert main(["bag", "recover", str(cut), str(tmp_path / "saved")]) == 0
    told = capsys.readouterr().out
    with BagReader(whole) as first, BagReader(tmp_path / "saved") as second:
        kept = list(second.raw())
        assert 10 < len(kept) < len(list(first.raw()))
        everything = {(r.topic, r.stamp_ns, r.data) for r in first.raw()}
        assert {(r.topic, r.stamp_ns, r.data) for r in kept} <= everything
        assert f"{second.counts()['/tf']:7d}  /tf\n" in told


def test_an_empty_file_and_a_lost_metadata(bag: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bag, broken)
    (broken / "metadata.yaml").unlink()
    counts = recover(broken, tmp_path / "again")
    with BagReader(bag) as reader:
        assert counts == reader.counts()
    shutil.copy(bag / "metadata.yaml", broken)
    (broken / "first.mcap").write_bytes(b"")
    with pytest.raises(BagError, match="broken is no readable bag"), BagReader(broken):
        pass
    with pytest.raises(BagError, match="no message in it is whole"):
        recover(broken, tmp_path / "other")
    with pytest.raises(BagError, match="has no file of a bag"):
        recover(tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_recorder_on_a_full_disk_says_where_its_messages_are(
    ros_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node("recorder", context=ros_context)
    recorder = Recorder(node, tmp_path / "out", RecordOptions(("/tf",)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "metadata_text", full)
    with pytest.raises(BagError, match="No space left on device; what was written until then is"):
        recorder.close()
    assert list(tmp_path.glob(".out.partial-*/out/out.mcap"))
    node.destroy_node()
