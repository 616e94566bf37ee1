# SPDX-License-Identifier: Apache-2.0
"""Bags of other kinds are refused by name, and metadata that say too little are passed by."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recover import recover
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages.bag_family import BAG
from tests.support.damage import BEGIN_NS, MESSAGES, write_small_bag


@pytest.fixture
def ros1(tmp_path: Path) -> Path:
    path, store = tmp_path / "old.bag", get_typestore(Stores.ROS1_NOETIC)
    kind = "std_msgs/msg/String"
    with Ros1Writer(path) as writer:
        connection = writer.add_connection("/chatter", kind, typestore=store)
        text = store.types[kind](data="hello")
        writer.write(connection, BEGIN_NS, store.serialize_ros1(text, kind))
    return path


@pytest.fixture
def foxglove(tmp_path: Path) -> Path:
    schema = "foxglove.CompressedImage", "protobuf", b"\x0a\x04test"
    messages = {"/CAM_FRONT": ("protobuf", b"\x08\x01")}
    return write_mcap(tmp_path / "drive.mcap", "", schema, messages)


def write_mcap(
    path: Path, profile: str, schema: tuple[str, str, bytes], messages: dict[str, tuple[str, bytes]]
) -> Path:
    """A file of one schema, with one message on each topic: its encoding and its bytes."""
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile, "other software")
        schema_id = writer.register_schema(*schema)
        for topic, (encoding, data) in messages.items():
            channel = writer.register_channel(topic, encoding, schema_id)
            writer.add_message(channel, BEGIN_NS, data, BEGIN_NS)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def read(path: Path, _: Path) -> None:
    with BagReader(path) as reader:
        list(reader.raw())


@pytest.mark.parametrize("use", [read, recover])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("ros1", r"old.bag is a bag of ROS 1.*rosbags-convert"),
        ("foxglove", r"drive.mcap is an MCAP file of the profile '', not of ROS 2"),
    ],
)
def test_bags_of_other_kinds_are_named(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    told: str,
    use: Callable[[Path, Path], object],
) -> None:
    with pytest.raises(BagError, match=told):
        use(request.getfixturevalue(kind), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_topics_of_other_encodings_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "cdr", b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00"
    messages = {"/text": text, "/odd": ("json", b"{}"), "/evil\nname": text}
    schema = "std_msgs/msg/String", "ros2msg", b"string data"
    path = write_mcap(tmp_path / "mixed.mcap", "ros2", schema, messages)
    assert recover(path, tmp_path / "out") == {"/text": 1}
    assert "'/odd' is left out, with 1 messages: its messages are json" in caplog.text
    assert r"'/evil\nname' is left out, with 1 messages: ROS has no topics" in caplog.text
    assert "that are not whole" not in caplog.text


def test_a_type_that_only_the_bag_knows_is_saved(tmp_path: Path) -> None:
    schema = "my_msgs/msg/Level", "ros2msg", b"float64 level\n"
    messages = {"/level": ("cdr", b"\x00\x01\x00\x00" + bytes(8))}
    path = write_mcap(tmp_path / "own.mcap", "ros2", schema, messages)
    assert recover(path, tmp_path / "out") == {"/level": 1}
    with BagReader(tmp_path / "out") as reader:
        assert [message.level for _, message in reader.messages(["/level"])] == [0.0]


@pytest.mark.parametrize("metadata", ["none", "empty"])
def test_metadata_that_name_no_files(tmp_path: Path, metadata: str) -> None:
    """As `ros2 bag reindex` leaves them."""
    bag = tmp_path / "bag"
    write_small_bag(bag)
    file = bag / "metadata.yaml"
    if metadata == "none":
        file.unlink()
    else:
        text = re.sub(r"message_count: \d+", "message_count: 0", file.read_text())
        text = re.sub(r"relative_file_paths:\n.*\n", "relative_file_paths: []\n", text)
        text = re.sub(
            r"topics_with_message_count:\n(.*\n)*?  compression",
            "topics_with_message_count: []\n  compression",
            text,
        )
        file.write_text(text)
    with BagReader(bag) as reader:
        assert len(list(reader.raw())) == sum(reader.counts().values()) == MESSAGES
        assert reader.duration_s == pytest.approx(0.1 * (MESSAGES - 1))
    if metadata == "empty":
        with pytest.raises(BagError, match="is there already"):
            BagWriter(bag)


def test_an_empty_or_cut_off_bag_does_not_block_the_next(tmp_path: Path) -> None:
    kind, bag = "std_msgs/msg/String", tmp_path / "bag"
    with BagWriter(bag) as writer:
        writer.connect("/text", kind)
    with BagWriter(bag) as writer:
        writer.write("/text", kind, BAG.make(kind, data="a"), BEGIN_NS)
    with pytest.raises(BagError, match="is there already"):
        BagWriter(bag)
    shutil.rmtree(bag)
    bag.mkdir()
    (bag / "bag_0.mcap").write_bytes(b"\x89MCAP0\r\n")  # as a killed recorder of ROS leaves it
    with BagWriter(bag, force=True) as writer:
        writer.write("/text", kind, BAG.make(kind, data="b"), BEGIN_NS)
    with BagReader(bag) as reader:
        assert reader.counts() == {"/text": 1}


def test_a_process_of_the_same_number_does_not_block(tmp_path: Path) -> None:
    """In containers every recorder has the same number."""
    kind = "std_msgs/msg/String"
    first = BagWriter(tmp_path / "bag").__enter__()
    left = first.partial
    shutil.copytree(left, tmp_path / "left")
    first.discard()
    (tmp_path / "left").rename(left)
    with BagWriter(tmp_path / "bag") as second:
        assert second.partial == left
        second.write("/text", kind, BAG.make(kind, data="a"), BEGIN_NS)
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == {"/text": 1}


@pytest.mark.parametrize("length", range(8, 24))
def test_an_mcap_file_that_ends_in_its_first_record(tmp_path: Path, length: int) -> None:
    file = tmp_path / "cut.mcap"
    whole = b"\x89MCAP0\r\n\x01" + (8 + 14).to_bytes(8, "little") + b"\x04\0\0\0ros2" + bytes(14)
    file.write_bytes(whole[:length])
    with pytest.raises(BagError, match="is no readable bag"):
        read(file, tmp_path)
