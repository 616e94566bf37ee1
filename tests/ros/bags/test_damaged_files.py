# SPDX-License-Identifier: Apache-2.0
"""Bags with wrong, missing and added bytes: read or refused by a sentence, and saved from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
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
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_damaged_bags_are_read_or_refused(
    sound: Callable[[Storage, bool], Path], seed: int, kind: tuple[Storage, bool]
) -> None:
    bag = sound(*kind)
    read_and_recovered(bag, damaged(file_of(bag).read_bytes(), seed))


@fuzz(25)
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
