# SPDX-License-Identifier: Apache-2.0
"""Bags that define their types in IDL, in part, or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mcap.writer import Writer

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recover import recover
from tests.support.damage import BEGIN_NS, write_small_bag

COUNT = 5
TEXT = "/text", "std_msgs/msg/String", "ros2msg", "string data", b"\0\1\0\0\2\0\0\0a\0"
PART = "=" * 80 + "\n"
LEVEL = (
    f'{PART}IDL: my_msgs/msg/Level\n#include "my_msgs/msg/Part.idl"\n'
    "module my_msgs { module msg { struct Level { my_msgs::msg::Part part; double level; }; }; };\n"
    f"{PART}IDL: my_msgs/msg/Part\n"
    "module my_msgs { module msg { struct Part { double x; }; }; };\n"
)
PLAIN = "module my_msgs { module msg { struct Level { double x; double level; }; }; };\n"
Topic = tuple[str, str, str, str, bytes]


def write_mcap(path: Path, *topics: Topic) -> Path:
    """Topics by name, type, encoding and text of the definition, with the bytes of a message."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2")
        for name, kind, encoding, text, data in topics:
            schema = writer.register_schema(kind, encoding, text.encode())
            channel = writer.register_channel(name, "cdr", schema)
            for number in range(COUNT):
                stamp_ns = BEGIN_NS + number
                writer.add_message(channel, stamp_ns, data, stamp_ns)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def write_sqlite3(folder: Path, *topics: Topic) -> Path:
    """The same as a file of Iron and later."""
    write_small_bag(folder, storage="sqlite3")
    (folder / "metadata.yaml").unlink()
    (file,) = folder.glob("*.db3")
    with sqlite3.connect(file) as base:
        for table in ("topics", "messages", "message_definitions"):
            base.execute(f"DELETE FROM {table}")
        for number, (name, kind, encoding, text, data) in enumerate(topics, 1):
            base.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '', '')", (number, name, kind))
            base.execute(
                "INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition, "
                "type_description_hash) VALUES (?, ?, ?, '')",
                (kind, encoding, text),
            )
            for count in range(COUNT):
                base.execute(
                    "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
                    (number, BEGIN_NS + count, data),
                )
    return file


def write(storage: str, path: Path, *topics: Topic) -> Path:
    if storage == "mcap":
        return write_mcap(path.with_suffix(".mcap"), *topics)
    return write_sqlite3(path, *topics)


def decoded(bag: Path, topic: str) -> list[Any]:
    with BagReader(bag) as reader:
        return [message for _, message in reader.messages([topic])]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("text", [LEVEL, PLAIN], ids=["parts", "one"])
def test_types_in_idl(storage: str, text: str, tmp_path: Path) -> None:
    topic = "/level", "my_msgs/msg/Level", "ros2idl", text, b"\0\1\0\0" + bytes(16)
    bag = write(storage, tmp_path / "idl", topic)
    assert [m.level for m in decoded(bag, "/level")] == [0.0] * COUNT
    assert recover(bag, tmp_path / "out") == {"/level": COUNT}
    assert [m.level for m in decoded(tmp_path / "out", "/level")] == [0.0] * COUNT


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("encoding", ["unknown", ""])
def test_a_type_that_the_recorder_had_no_definition_of(
    storage: str, encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = "/own", "my_msgs/msg/Thing", encoding, "", TEXT[-1]
    bag = write(storage, tmp_path / "bag", TEXT, own)
    assert [m.data for m in decoded(bag, "/text")] == ["a"] * COUNT
    with BagReader(bag) as reader:
        assert reader.counts() == {"/text": COUNT, "/own": COUNT}
    with pytest.raises(BagError, match="definition of 'my_msgs/msg/Thing' is not in the bag"):
        decoded(bag, "/own")
    assert recover(bag, tmp_path / "out") == {"/text": COUNT}
    assert f"'/own' is left out, with {COUNT} messages: the definition of its type" in caplog.text
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_known_type_without_a_definition(storage: str, tmp_path: Path) -> None:
    number = "/number", "std_msgs/msg/Int32", "", "", b"\0\1\0\0\5\0\0\0"
    bag = write(storage, tmp_path / "bag", TEXT, number)
    assert [m.data for m in decoded(bag, "/number")] == [5] * COUNT
    assert recover(bag, tmp_path / "out") == {"/text": COUNT, "/number": COUNT}


def test_definitions_that_lean_on_others_of_the_bag(tmp_path: Path) -> None:
    part = "/part", "my_msgs/msg/Part", "ros2msg", "float64 x\n", b"\0\1\0\0" + bytes(8)
    whole = "/whole", "my_msgs/msg/Whole", "ros2msg", "my_msgs/Part part\n", part[-1]
    own = "/own", "my_msgs/msg/Own", "ros2msg", "std_msgs/String text\n", TEXT[-1]
    bag = write_mcap(tmp_path / "bag.mcap", part, whole, own)
    assert [m.part.x for m in decoded(bag, "/whole")] == [0.0] * COUNT
    assert [m.text.data for m in decoded(bag, "/own")] == ["a"] * COUNT
    assert recover(bag, tmp_path / "out") == {"/part": COUNT, "/whole": COUNT, "/own": COUNT}
    lite = write_sqlite3(tmp_path / "lite", part, whole)
    assert recover(lite, tmp_path / "out_lite") == {"/part": COUNT, "/whole": COUNT}
    text = f"my_msgs/Part part\n{PART}MSG: my_msgs/Part\nint64 x\n"
    other = "/other", "my_msgs/msg/Other", "ros2msg", text, part[-1]
    named = (
        "/named",
        "my_msgs/msg/Named",
        "ros2msg",
        text.replace("int64", "uint8 K=1\nfloat64"),
        b"",
    )
    bag = write_mcap(tmp_path / "constants.mcap", part, named, whole)
    assert len(decoded(bag, "/whole")) == COUNT
    for topics in ((part, other, whole), (other, part, whole)):
        bag = write_mcap(tmp_path / "differ.mcap", *topics)
        with pytest.raises(BagError, match="cannot be read, or lacks a type in it"):
            decoded(bag, "/whole")
    alone = write_mcap(tmp_path / "alone.mcap", whole)
    with pytest.raises(BagError, match="'my_msgs/msg/Whole' cannot be read, or lacks a type in it"):
        decoded(alone, "/whole")


def test_silent_topics_are_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_sqlite3(tmp_path / "bag", TEXT, ("/own", "my_msgs/msg/Thing", "unknown", "", b""))
    with sqlite3.connect(file) as base:
        base.execute("DELETE FROM messages WHERE topic_id = 2")
    assert recover(file, tmp_path / "out") == {"/text": COUNT}
    assert not caplog.text


def test_a_bag_in_which_nothing_can_be_saved_says_why(tmp_path: Path) -> None:
    own = "/own", "my_msgs/msg/Thing", "unknown", "", TEXT[-1]
    bag = write_mcap(tmp_path / "bag.mcap", own)
    with pytest.raises(BagError, match=f"whole: '/own' is left out, with {COUNT} messages: the"):
        recover(bag, tmp_path / "out")


def test_the_first_bags_of_ros_2(tmp_path: Path) -> None:
    """Their tables have no profiles, and no definitions."""
    file = write_sqlite3(tmp_path / "bag", TEXT)
    with sqlite3.connect(file) as base:
        for name in ("message_definitions", "schema", "metadata"):
            base.execute(f"DROP TABLE {name}")
        for column in ("offered_qos_profiles", "type_description_hash"):
            base.execute(f"ALTER TABLE topics DROP COLUMN {column}")
    assert [m.data for m in decoded(file, "/text")] == ["a"] * COUNT
    assert recover(file, tmp_path / "out") == {"/text": COUNT}


def test_times_that_ros_cannot_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_sqlite3(tmp_path / "bag", TEXT)
    with sqlite3.connect(file) as base:
        base.execute("UPDATE messages SET timestamp = -5 WHERE id = 1")
        base.execute("UPDATE messages SET timestamp = ? WHERE id = 2", (2**62,))
    assert recover(file, tmp_path / "out") == {"/text": COUNT - 2}
    assert "2 messages are left out whose time is before 1970 or after 2038" in caplog.text
    assert "damaged" not in caplog.text
