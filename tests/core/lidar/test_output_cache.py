# SPDX-License-Identifier: Apache-2.0
"""What a teacher said is kept on disk: whole or not at all, for all processes, within bounds."""

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import struct
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from labeldistill_core.lidar import output_cache
from labeldistill_core.lidar.output_cache import OutputCache
from tests.support.odd_places import ODD, put_there

LIMIT = 1 << 30
RECORD = 1 << 16
"""Bytes of a record and of the header, as the tensors here are small."""


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def tensors(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator).half() for shape in ((3, 8, 8), (2, 4))]


def opened(folder: Path, limit: int = LIMIT, teacher: str = "teacher") -> OutputCache:
    return OutputCache(folder, (teacher,), limit)


def holds(cache: OutputCache, number: int) -> bool:
    found = cache.read(key(number))
    if found is None:
        return False
    for one, other in zip(found, tensors(number), strict=True):
        assert torch.equal(one, other)
    return True


def filled(folder: Path, count: int = 3) -> Path:
    cache = opened(folder)
    for number in range(count):
        cache.write(key(number), tensors(number))
    (file,) = folder.glob("*.outputs")
    return file


def test_what_was_written_is_read_by_all(tmp_path: Path) -> None:
    before, writer = opened(tmp_path), opened(tmp_path)
    assert before.read(key(0)) is None
    for number in range(3):
        writer.write(key(number), tensors(number))
    assert holds(writer, 1)
    assert not holds(before, 0)  # began when there was no file
    after = opened(tmp_path)
    assert holds(after, 0)
    writer.write(key(3), tensors(3))
    assert holds(after, 3)
    before.write(key(3), tensors(3))  # finds that it is there
    assert holds(before, 2)
    (file,) = tmp_path.glob("*.outputs")
    assert file.stat().st_size == 5 * RECORD
    assert not holds(opened(tmp_path, teacher="another"), 0)


def test_a_changed_tensor_does_not_change_what_is_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    found = opened(tmp_path).read(key(0))
    assert found is not None
    found[0].zero_()
    assert holds(opened(tmp_path), 0)


def write_many(folder: Path, first: int, count: int) -> None:
    cache = opened(folder)
    for number in range(first, first + count):
        cache.write(key(number), tensors(number))


def test_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    # Each half of the keys is written by two of them.
    writers = [
        context.Process(target=write_many, args=(tmp_path, 20 * (i % 2), 20)) for i in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    cache = opened(tmp_path)
    assert all(holds(cache, number) for number in range(40))
    (file,) = tmp_path.glob("*.outputs")
    assert file.stat().st_size == 41 * RECORD


def test_a_killed_process_leaves_whole_records(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    writer = multiprocessing.get_context("fork").Process(
        target=write_many, args=(tmp_path, 1, 10_000)
    )
    writer.start()
    (file,) = tmp_path.glob("*.outputs")
    until = time.monotonic() + 30
    while file.stat().st_size < 20 * RECORD and time.monotonic() < until:
        time.sleep(0.002)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    cache, count = opened(tmp_path), 0
    while holds(cache, count):
        count += 1
    assert count >= 19
    cache.write(key(count), tensors(count))  # the lock is free
    assert holds(opened(tmp_path), count)


@pytest.mark.parametrize("rest", [100, RECORD // 2])
def test_a_record_that_was_cut_short_is_written_over(tmp_path: Path, rest: int) -> None:
    file = filled(tmp_path)
    os.truncate(file, 3 * RECORD + rest)
    cache = opened(tmp_path)
    assert holds(cache, 1)
    assert not holds(cache, 2)
    cache.write(key(2), tensors(2))
    assert all(holds(opened(tmp_path), number) for number in range(3))
    assert file.stat().st_size == 4 * RECORD


def test_a_file_that_is_cut_short_in_use_is_filled_again(tmp_path: Path) -> None:
    file = filled(tmp_path)
    cache = opened(tmp_path)
    os.truncate(file, 2 * RECORD)
    assert holds(cache, 0)
    assert not holds(cache, 2)
    cache.write(key(2), tensors(2))
    cache.write(key(1), tensors(1))
    for reader in (cache, opened(tmp_path)):
        assert all(holds(reader, number) for number in range(3))


@pytest.mark.parametrize("place", [3, 17, 200], ids=["key", "check sum", "tensor"])
def test_a_damaged_record_is_made_anew(tmp_path: Path, place: int) -> None:
    file = filled(tmp_path)
    with file.open("r+b") as stream:
        stream.seek(2 * RECORD + place)
        old = stream.read(1)
        stream.seek(2 * RECORD + place)
        stream.write(bytes([old[0] ^ 4]))
    cache = opened(tmp_path)
    assert holds(cache, 0)
    assert not holds(cache, 1)
    assert holds(cache, 2)
    cache.write(key(1), tensors(1))
    assert holds(cache, 1)
    assert all(holds(opened(tmp_path), number) for number in range(3))


@pytest.mark.parametrize("damage", ["empty", "header", "text"])
def test_a_file_with_a_damaged_header_is_begun_anew(tmp_path: Path, damage: str) -> None:
    file = filled(tmp_path)
    if damage == "empty":
        os.truncate(file, 0)
    else:
        with file.open("r+b") as stream:
            stream.seek(0 if damage == "header" else 20)
            stream.write(b"?")
    cache = opened(tmp_path)
    assert not holds(cache, 0)
    cache.write(key(0), tensors(0))
    assert holds(opened(tmp_path), 0)
    assert not holds(opened(tmp_path), 1)


def test_another_format_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(output_cache, "FORMAT", output_cache.FORMAT + 1)
    assert not holds(opened(tmp_path), 0)


def test_the_limit_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = opened(tmp_path, 3 * RECORD)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            cache.write(key(number), tensors(number))
    assert [holds(cache, number) for number in range(4)] == [True, True, False, False]
    (told,) = caplog.messages
    assert f"2 samples are kept in {tmp_path} and no more" in told
    assert "--teacher-cache-gib" in told
    assert sum(file.stat().st_size for file in tmp_path.glob("*.outputs")) == 3 * RECORD


def test_without_a_limit_above_zero_nothing_is_kept(tmp_path: Path) -> None:
    opened(tmp_path / "cache", 0).write(key(0), tensors(0))
    assert not (tmp_path / "cache").exists()


def test_teachers_that_nobody_uses_make_room(tmp_path: Path) -> None:
    limit = 6 * RECORD
    old, used = opened(tmp_path, limit, "old"), opened(tmp_path, limit, "used")
    for cache in (old, used):
        cache.write(key(0), tensors(0))
    del old
    new = opened(tmp_path, limit, "new")
    for number in range(5):
        new.write(key(number), tensors(number))
    assert [holds(new, number) for number in range(5)] == [True, True, True, False, False]
    assert holds(opened(tmp_path, teacher="used"), 0)
    assert not holds(opened(tmp_path, teacher="old"), 0)


def test_a_disk_that_is_nearly_full_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(tmp_path)
    cache.write(key(0), tensors(0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 29))
    cache.write(key(1), tensors(1))
    assert "1 samples are kept" in caplog.text
    assert "the disk is nearly full" in caplog.text
    assert holds(cache, 0)
    assert not holds(cache, 1)


def test_a_full_disk_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(tmp_path)
    cache = opened(tmp_path)
    write = os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        if offset % RECORD:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:100], offset)

    monkeypatch.setattr(os, "pwrite", full)
    cache.write(key(7), tensors(7))
    cache.write(key(8), tensors(8))
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.text
    assert file.stat().st_size == 4 * RECORD
    assert holds(cache, 2)


def test_a_folder_that_cannot_be_written_to_costs_only_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    cache = opened(file / "cache")
    cache.write(key(0), tensors(0))
    assert cache.read(key(0)) is None
    assert f"0 samples are kept in {file / 'cache'} and no more: Not a directory" in caplog.text


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("is_lock", [False, True])
def test_something_else_in_the_place_of_the_file_costs_only_time(
    tmp_path: Path, what: str, is_lock: bool
) -> None:
    file = filled(tmp_path)
    place = tmp_path / ".lock" if is_lock else file
    place.unlink()
    put_there(place, what)
    cache = opened(tmp_path)
    cache.write(key(0), tensors(0))
    assert cache.read(key(0)) is None or holds(cache, 0)


def test_what_is_there_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    plain = Path.open

    def read_only(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "+" in mode or "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return plain(self, mode, *args, **more)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(os, "utime", refuse)
    cache = opened(tmp_path)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert holds(cache, 0)
    cache.write(key(9), tensors(9))
    assert "3 samples are kept" in caplog.text
    assert "Read-only file system" in caplog.text


@pytest.mark.parametrize("shapes", ["[[-16,2]]", "[[0]]", "[[1000000000,1000000000]]", "[[2,2]]"])
def test_shapes_that_no_teacher_gives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shapes: str
) -> None:
    """A header whose check sum is right and whose shapes are not."""
    file = filled(tmp_path)
    text = shapes.encode()
    head = struct.pack("<8sII", b"LDTEACH\n", len(text), zlib.crc32(text)) + text
    file.write_bytes(head.ljust(RECORD, b"\0") + file.read_bytes()[RECORD:])
    cache = opened(tmp_path)
    assert cache.read(key(0)) is None or shapes == "[[2,2]]"
    cache.write(key(9), tensors(9))
    assert holds(cache, 9) or "tensors of other shapes: remove it" in caplog.text
