# SPDX-License-Identifier: Apache-2.0
"""Bags whose metadata, parts, compression or tables are other than a recorder leaves them."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import yaml
import zstandard

from labeldistill_core.errors import LabelDistillError
from labeldistill_ros.bags import decompression
from labeldistill_ros.bags.reader import BagReader, read_marks
from labeldistill_ros.bags.recover import recover
from labeldistill_ros.bags.writer import BagWriter, Storage
from labeldistill_ros.messages.bag_family import BAG
from tests.support.damage import BEGIN_NS, MESSAGES, write_small_bag

Edit = Callable[[dict[str, Any]], object]


def small_bag(path: Path, storage: Storage = "mcap") -> Path:
    write_small_bag(path, storage=storage)
    return path


def file_of(bag: Path) -> Path:
    return next(file for file in bag.iterdir() if file.suffix in (".mcap", ".db3"))


def edit(bag: Path, change: Edit) -> None:
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(content))


def number_of_messages(bag: Path) -> int:
    with BagReader(bag) as reader:
        found = len(list(reader.raw()))
        assert found == sum(reader.counts().values())
        assert reader.duration_s == pytest.approx(0.1 * (MESSAGES - 1))
    return found


def topic(about: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = about["topics_with_message_count"][0]
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda about: topic(about).update(message_count=1), "/text': it tells of 1 of 'std_msgs"),
        (lambda about: about["topics_with_message_count"].pop(0), "it tells of no messages, there"),
        (
            lambda about: topic(about)["topic_metadata"].update(type="std_msgs/msg/Header"),
            "15 of 'std_msgs/msg/Header' messages, there are 15 of 'std_msgs/msg/String'",
        ),
        (lambda about: topic(about)["topic_metadata"].update(name="/none"), "over 2 topics"),
        (lambda about: topic(about)["topic_metadata"].update(offered_qos_profiles=""), ""),
        (lambda about: about["duration"].update(nanoseconds=10**18), ""),
        (lambda about: about["starting_time"].update(nanoseconds_since_epoch=5), ""),
        (lambda about: about.update(version=99, storage_identifier="sqlite3"), ""),
    ],
)
def test_files_are_right_where_metadata_disagree(
    change: Edit, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = small_bag(tmp_path / "bag")
    edit(bag, change)
    assert number_of_messages(bag) == MESSAGES
    assert told in caplog.text
    assert bool(told) == ("its metadata.yaml disagrees with its files" in caplog.text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[]", "it has no rosbag2_bagfile_information"),
        (b"[" * 100_000, "exceeded maximum nesting depth"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"rosbag2_bagfile_information: {relative_file_paths: 5}", "TypeError"),
        (b"a: \x1b[31m", "control characters are not allowed"),
    ],
    ids=["list", "deep", "bytes", "types", "controls"],
)
def test_metadata_that_are_none(text: bytes, told: str, tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag")
    (bag / "metadata.yaml").write_bytes(text)
    with pytest.raises(LabelDistillError, match=re.escape(told)) as error:
        BagReader(bag)
    assert str(error.value).startswith(f"{bag}/metadata.yaml is no metadata of a readable bag: ")
    assert str(error.value).isprintable()


def test_aliases_that_stand_for_gigabytes_cost_nothing(tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag")
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("bcdefghijk", "abcdefghij", strict=True):
        text += f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]\n"
    file = bag / "metadata.yaml"
    file.write_text(text + file.read_text().replace("custom_data: {}", "custom_data: *k"))
    assert number_of_messages(bag) == MESSAGES
    with pytest.raises(LabelDistillError, match="custom_data that are no texts"):
        read_marks(bag)


def test_a_byte_order_mark_and_other_line_ends(tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag")
    file = bag / "metadata.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert number_of_messages(bag) == MESSAGES


def test_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = small_bag(tmp_path / "bag")
    file = file_of(bag)
    copy = bag / "copy of it.mcap"
    shutil.copyfile(file, copy)
    assert number_of_messages(bag) == MESSAGES
    assert "'copy of it.mcap' is in its folder, but not in its metadata.yaml" in caplog.text
    file.unlink()
    with pytest.raises(LabelDistillError, match=r"lacks 1 of its 1 files, 'bag.mcap': copy them"):
        BagReader(bag)
    (bag / "metadata.yaml").unlink()
    assert number_of_messages(bag) == MESSAGES
    shutil.copyfile(copy, file)
    assert number_of_messages(bag) == MESSAGES
    assert "'copy of it.mcap' holds the same as 'bag.mcap', and is left out" in caplog.text
    assert sum(recover(bag, tmp_path / "out").values()) == MESSAGES


def compressed(bag: Path, mode: str) -> Path:
    file = file_of(bag)
    packed = file.with_name(f"{file.name}.zstd")
    packed.write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    change = {"relative_file_paths": [packed.name], "compression_format": "zstd"}
    edit(bag, lambda about: about.update(change, compression_mode=mode))
    return packed


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_files_that_are_compressed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = small_bag(tmp_path / "bag", storage)
    packed = compressed(bag, "FILE")
    assert number_of_messages(bag) == MESSAGES
    monkeypatch.setattr(decompression, "RESERVE_BYTES", 2**60)
    with (
        pytest.raises(LabelDistillError, match="stands for more than there is room for"),
        BagReader(bag),
    ):
        pass
    monkeypatch.undo()
    metadata = (bag / "metadata.yaml").read_bytes()
    (bag / "metadata.yaml").unlink()
    assert number_of_messages(bag) == MESSAGES
    assert number_of_messages(packed) == MESSAGES
    assert sum(recover(bag, tmp_path / "again").values()) == MESSAGES
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(LabelDistillError, match="is no readable bag: .*end"), BagReader(bag):
        pass
    (bag / "metadata.yaml").write_bytes(metadata)
    with pytest.raises(LabelDistillError, match="is no readable bag: .*end"), BagReader(bag):
        pass


def test_a_recording_that_was_killed_while_it_compressed(tmp_path: Path) -> None:
    """Splits that are complete are compressed, the last ones lie there as they are."""
    bag = tmp_path / "bag"
    bag.mkdir()
    storages: list[tuple[Storage, bool]] = [("mcap", False), ("mcap", True), ("sqlite3", False)]
    for number, (storage, zstd) in enumerate(storages):
        write_small_bag(tmp_path / str(number), storage=storage, zstd=zstd)
        small = file_of(tmp_path / str(number))
        file = bag / f"bag_{number}{small.suffix}"
        shutil.copy(small, file)
        if number < 2:
            (bag / f"{file.name}.zstd").write_bytes(zstandard.compress(file.read_bytes()))
        if number == 0:
            file.unlink()
    assert number_of_messages(bag) == 3 * MESSAGES
    packed = bag / "bag_0.mcap.zstd"
    packed.write_bytes(packed.read_bytes()[:-20])
    saved = sum(recover(bag, tmp_path / "saved").values())
    assert 2 * MESSAGES <= saved <= 3 * MESSAGES


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = small_bag(tmp_path / "bag")

    def none(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(decompression, "TemporaryDirectory", none)
    assert sum(recover(bag, tmp_path / "again").values()) == MESSAGES
    compressed(bag, "FILE")
    with pytest.raises(LabelDistillError, match="no folder for temporary files: .*set TMPDIR"):
        recover(bag, tmp_path / "other")


def test_messages_that_are_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = small_bag(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(file_of(bag)) as base:
        for number, data in base.execute("SELECT id, data FROM messages").fetchall():
            packed = zstandard.compress(data)
            base.execute("UPDATE messages SET data = ? WHERE id = ?", (packed, number))
    edit(bag, lambda about: about.update(compression_format="zstd", compression_mode="MESSAGE"))
    assert number_of_messages(bag) == MESSAGES
    assert number_of_messages(file_of(bag)) == MESSAGES  # without the metadata
    assert sum(recover(bag, tmp_path / "again").values()) == MESSAGES
    monkeypatch.setattr(decompression, "LARGEST_BYTES", 100)
    with (
        pytest.raises(LabelDistillError, match="stands for more than 100 bytes"),
        BagReader(bag) as reader,
    ):
        list(reader.raw())


def test_a_chunk_that_stands_for_more_than_its_head_tells(tmp_path: Path) -> None:
    write_small_bag(tmp_path / "bag", zstd=True)
    file = file_of(tmp_path / "bag")
    data = bytearray(file.read_bytes())
    # in the index of chunks, behind the size when compressed
    at = data.rindex(b"\x04\0\0\0zstd") + 16
    size = int.from_bytes(data[at : at + 8], "little")
    data[at : at + 8] = (size - 1).to_bytes(8, "little")
    file.write_bytes(data)
    with (
        pytest.raises(LabelDistillError, match=f"stands for more than {size - 1} bytes"),
        BagReader(tmp_path / "bag") as reader,
    ):
        list(reader.raw())
    with pytest.raises(Exception, match="stands for more than 1000 bytes"):
        decompression.zstd_bytes(zstandard.compress(bytes(10**6)), 1000)
    assert decompression.zstd_bytes(zstandard.compress(bytes(10**6)), 10**6) == bytes(10**6)
    with pytest.raises(Exception, match="stands for more than 1000 bytes"):
        decompression.lz4_bytes(lz4.frame.compress(bytes(10**6)), 1000)
    assert decompression.lz4_bytes(lz4.frame.compress(bytes(10**8)), 10**8) == bytes(10**8)


def changed(bag: Path, *statements: str) -> Path:
    with sqlite3.connect(file_of(bag)) as base:
        for statement in statements:
            base.execute(statement)
    base.close()
    return bag


UNTYPED = (
    "CREATE TABLE m (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp, data)",
    "INSERT INTO m SELECT * FROM messages",
    "DROP TABLE messages",
    "ALTER TABLE m RENAME TO messages",
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("data = 1000000000000", "has no bytes or no time"),
        ("data = 'text'", "has no bytes or no time"),
        ("data = NULL", "NoneType"),
        ("timestamp = 1.5", "has no bytes or no time"),
        ("timestamp = 'x'", "has no bytes or no time"),
    ],
)
def test_values_that_no_recorder_writes(value: str, told: str, tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag", "sqlite3")
    changed(bag, *UNTYPED, f"UPDATE messages SET {value} WHERE id = 3")
    with pytest.raises(LabelDistillError, match=told), BagReader(bag) as reader:
        list(reader.raw())
    assert sum(recover(bag, tmp_path / "out").values()) == MESSAGES - 1


ENDLESS = (
    "DROP TABLE messages",
    "CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id, 1 AS topic_id, id AS timestamp, zeroblob(1000) AS data FROM n",
)


COMPUTED = (
    "DROP TABLE messages",
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
    "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL)",
    "INSERT INTO messages (topic_id, timestamp) VALUES (1, 1)",
)


@pytest.mark.parametrize("statements", [ENDLESS, COMPUTED])
def test_tables_without_end_are_refused(statements: tuple[str, ...], tmp_path: Path) -> None:
    bag = changed(small_bag(tmp_path / "bag", "sqlite3"), *statements)
    with pytest.raises(LabelDistillError, match="messages is no plain table"), BagReader(bag):
        pass
    with pytest.raises(LabelDistillError, match="messages is no plain table"):
        recover(bag, tmp_path / "out")


def test_messages_of_no_topic_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = small_bag(tmp_path / "bag", "sqlite3")
    changed(bag, "UPDATE messages SET topic_id = 77 WHERE id BETWEEN 2 AND 20")
    assert number_of_messages(bag) == MESSAGES - 19
    assert "19 messages are of no topic, and are left out" in caplog.text


def test_a_bag_that_changes_while_it_is_read(tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag")
    with BagReader(bag) as reader:
        messages = reader.raw()
        next(messages)
        with file_of(bag).open("ab") as file:
            file.write(b"more")
        with pytest.raises(LabelDistillError, match="bag changed while it was read: wait until"):
            list(messages)


def test_negative_keys_are_messages_too(tmp_path: Path) -> None:
    bag = changed(small_bag(tmp_path / "bag", "sqlite3"), "UPDATE messages SET id = -id")
    assert number_of_messages(bag) == MESSAGES
    assert sum(recover(bag, tmp_path / "out").values()) == MESSAGES


def test_a_name_that_means_something_in_a_uri(tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag", "sqlite3").rename(tmp_path / "a#b?c=%41 'x'")
    assert number_of_messages(bag) == MESSAGES
    assert sum(recover(bag, tmp_path / "out").values()) == MESSAGES


def test_a_log_beside_a_database_is_told_and_recovered(tmp_path: Path) -> None:
    """As a killed recorder leaves it."""
    bag, left = small_bag(tmp_path / "bag", "sqlite3"), tmp_path / "left"
    base = sqlite3.connect(file_of(bag), isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute(
        "INSERT INTO messages (topic_id, timestamp, data) "
        "SELECT topic_id, timestamp + 1, data FROM messages"
    )
    shutil.copytree(bag, left)
    base.close()
    before = {file: file.read_bytes() for file in left.iterdir()}
    with pytest.raises(LabelDistillError, match=r"has messages in bag.db3-wal that are not in it"):
        BagReader(left)
    assert sum(recover(left, tmp_path / "out").values()) == 2 * MESSAGES
    assert {file: file.read_bytes() for file in left.iterdir()} == before


@pytest.mark.parametrize("kept", ["metadata.yaml", ""])
def test_pipes_are_not_waited_for(kept: str, tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag")
    file = file_of(bag)
    file.unlink()
    os.mkfifo(file)
    if not kept:
        (bag / "metadata.yaml").unlink()
    for path in (bag, file, Path("/dev/zero")):
        with pytest.raises(LabelDistillError, match="pipe|lacks 1 of its|has no file of one"):
            BagReader(path)
    if kept:
        (bag / "metadata.yaml").unlink()
    os.mkfifo(bag / "metadata.yaml")
    with pytest.raises(LabelDistillError, match="metadata.yaml is a pipe"):
        BagReader(bag)


@pytest.mark.parametrize("name", ["lock", "replaced", "metadata.yaml", ".hidden", "a\nb", "-"])
def test_a_bag_may_have_any_name(name: str, tmp_path: Path) -> None:
    kind = "std_msgs/msg/String"
    for force in (False, True):
        with BagWriter(tmp_path / name, force=force) as writer:
            writer.write("/text", kind, BAG.make(kind, data="a"), BEGIN_NS)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with BagReader(tmp_path / name) as reader:
        assert reader.counts() == {"/text": 1}


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelDistillError, match="this name is no text in UTF-8"):
        BagWriter(tmp_path / os.fsdecode(b"\xff\xfe"))
