# SPDX-License-Identifier: Apache-2.0
"""Bags with wrong, missing and added bytes: read or refused by a sentence, and saved from."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recover import recover
from labeldistill_ros.bags.writer import Storage
from tests.support.damage import MESSAGES, damaged, write_small_bag
from tests.support.fuzzing import fuzz

KINDS: tuple[tuple[Storage, bool], ...] = (("mcap", False), ("mcap", True), ("sqlite3", False))
Message = tuple[str, int, bytes]


def messages_of(bag: Path) -> set[Message]:
    """Read and decode all of a bag."""
    found = set()
    with BagReader(bag) as reader:
        for recorded in reader.raw():
            reader.decoded(recorded)
            found.add((recorded.topic, recorded.stamp_ns, recorded.data))
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Storage, bool], Path]:
    folder = tmp_path_factory.mktemp("sound")
    for storage, zstd in KINDS:
        write_small_bag(folder / f"{storage}{zstd}", storage=storage, zstd=zstd)
    return lambda storage, zstd: folder / f"{storage}{zstd}"


def file_of(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3"))


def read_and_recovered(sound: Path, data: bytes) -> tuple[set[Message] | None, set[Message]]:
    """What the reader, and what recovery makes of a bag with these bytes; None when refused."""
    with TemporaryDirectory() as folder:
        bag, out = Path(folder, "bag"), Path(folder, "out")
        shutil.copytree(sound, bag)
        file_of(bag).write_bytes(data)
        try:
            read = messages_of(bag)
        except BagError:
            read = None
        try:
            recover(bag, out)
        except BagError:
            return read, set()
        return read, messages_of(out)


@fuzz(30)
@example(seed=99, kind=("mcap", True))  # two definitions of one type
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_damaged_bags_are_read_or_refused(
    sound: Callable[[Storage, bool], Path], seed: int, kind: tuple[Storage, bool]
) -> None:
    bag = sound(*kind)
    read_and_recovered(bag, damaged(file_of(bag).read_bytes(), seed))


@fuzz(25)
@example(share=0.015625, bit=0, head=True)  # "ros2", the profile
@example(share=0.0286, bit=0, head=True)  # a chunk becomes an index of messages
@example(share=0.115234375, bit=0, head=True)  # by a random search
@given(share=st.floats(0, 1), bit=st.integers(0, 7), head=st.booleans())
def test_one_wrong_bit_costs_one_message_at_most(
    sound: Callable[[Storage, bool], Path], share: float, bit: int, head: bool
) -> None:
    bag = sound("mcap", False)
    data = bytearray(file_of(bag).read_bytes())
    data[round(share * (min(len(data), 1500 if head else len(data)) - 1))] ^= 1 << bit
    _, saved = read_and_recovered(bag, bytes(data))
    whole = {(topic, data) for topic, _, data in messages_of(bag)}
    assert len(whole) == MESSAGES
    assert len(whole & {(topic, data) for topic, _, data in saved}) >= MESSAGES - 1


def leaves_of_messages(data: bytes | bytearray) -> list[int]:
    """Offsets of the pages of the table of messages that hold rows, the fullest last."""
    size = int.from_bytes(data[16:18], "big")
    leaves = [at for at in range(size, len(data), size) if data[at] == 0x0D]
    return sorted(leaves, key=lambda at: int.from_bytes(data[at + 3 : at + 5], "big"))


def key_of_row(data: bytes | bytearray, page: int, row: int) -> int:
    """Offset of the key of a row: after the length of its payload, in groups of seven bits."""
    cell = 8 + 2 * row
    at = page + int.from_bytes(data[page + cell : page + cell + 2], "big")
    while data[at] & 0x80:
        at += 1
    return at + 1


def test_keys_that_go_back_end(sound: Callable[[Storage, bool], Path]) -> None:
    bag = sound("sqlite3", False)
    data = bytearray(file_of(bag).read_bytes())
    page = leaves_of_messages(data)[-1]
    key = key_of_row(data, page, 3)
    assert 1 < data[key] < 128, "a key of one byte"
    data[key] = 0
    _, saved = read_and_recovered(bag, bytes(data))
    assert len(saved) >= MESSAGES // 2


def test_a_largest_key_that_cannot_be_ends(
    sound: Callable[[Storage, bool], Path], tmp_path: Path
) -> None:
    bag = sound("sqlite3", False)
    copy = shutil.copy(file_of(bag), tmp_path)
    with closing(sqlite3.connect(copy)) as base, base:
        base.execute(
            "INSERT INTO messages SELECT ?, topic_id, timestamp, data FROM messages LIMIT 1",
            (2**62,),
        )
    data = bytearray(Path(copy).read_bytes())
    data[leaves_of_messages(data)[-1]] = 0xFF
    _, saved = read_and_recovered(bag, bytes(data))
    assert saved
