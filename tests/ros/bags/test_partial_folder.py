# SPDX-License-Identifier: Apache-2.0
"""What killed, failed and crossing writers of a bag leave, and what nobody may take away."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from labeldistill_core.errors import BagError
from labeldistill_ros.bags import writer as writing
from labeldistill_ros.bags.partial_folder import abandoned
from labeldistill_ros.bags.recover import recover, recover_abandoned
from labeldistill_ros.bags.writer import BagWriter
from tests.support.full_disk import files_no_larger_than
from tests.support.killed_writers import (
    COUNT,
    counts,
    killed,
    make,
    write,
)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_recovered_may_get_the_name_of_the_recording(keep: bool, tmp_path: Path) -> None:
    left = killed(tmp_path / "run", keep=keep)
    assert recover(left, tmp_path / "run") == {"/text": COUNT}
    assert left.is_dir()
    assert counts(tmp_path / "run") == {"/text": COUNT}


def test_no_other_writer_takes_a_recording_away(tmp_path: Path) -> None:
    left = killed(tmp_path / "run")
    make(tmp_path / "run", 3)
    assert counts(tmp_path / "run") == {"/text": 3}
    assert recover(left, tmp_path / "again") == {"/text": COUNT}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_cannot_be_recovered_now_stays(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", storage=storage)
    with files_no_larger_than(100_000):
        assert recover_abandoned(tmp_path / "run") == []
    assert f"what an earlier recording left stays in {left}" in caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert recover_abandoned(tmp_path / "run") == [tmp_path / "run.recovered-1"]
    assert counts(tmp_path / "run.recovered-1") == {"/text": COUNT}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.recovered-1"]


def test_a_recording_without_a_byte_is_cleared_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", count=0)
    for file in left.glob("run/*"):
        file.write_bytes(b"")
    assert recover_abandoned(tmp_path / "run") == []
    assert not caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert not left.exists()


def test_two_writers_of_one_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag)
        with pytest.raises(BagError, match="run is being written by another process"):
            BagWriter(tmp_path / "run", force=True).__enter__()
    assert counts(tmp_path / "run") == {"/text": COUNT}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_recording_that_is_interrupted_at_its_end(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(writing, "metadata_text", fail)

    def run() -> None:
        with BagWriter(tmp_path / "run", keep=True) as bag:
            write(bag)

    with pytest.raises(error):
        run()
    monkeypatch.undo()
    (left,) = tmp_path.glob(".run.partial-*")
    assert recover(left, tmp_path / "run") == {"/text": COUNT}


def test_folders_without_a_name_are_cleared_away(tmp_path: Path) -> None:
    old, new = (tmp_path / f".run.partial-new-{number}" for number in (1, 2))
    for folder in (old, new):
        (folder / "run").mkdir(parents=True)
    os.utime(old, (0, 0))
    make(tmp_path / "run", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "run"]


def test_starters_do_not_take_each_other_away(tmp_path: Path) -> None:
    """A process that looks at a folder holds its lock for a moment."""
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag)
        lock = bag.partial / "run.lock"
        with lock.open("rb") as looking:
            assert lock.stat().st_size == 0
            with pytest.raises(BlockingIOError):
                fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert abandoned(tmp_path / "run") == []
    left = killed(tmp_path / "other")
    with (left / "other.lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert abandoned(tmp_path / "other") == [left]


def test_what_two_recordings_left_is_not_made_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        killed(tmp_path / name)
    with pytest.raises(BagError, match="holds 2 bags, .*: recover them one by one"):
        recover(tmp_path, tmp_path.with_name("out"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_without_a_message_is_cleared_away(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path / "run", storage=storage, count=0)
    assert recover_abandoned(tmp_path / "run") == []
    assert not caplog.text
    with BagWriter(tmp_path / "run", keep=True) as bag:
        write(bag, 3)
    assert not left.exists()


def test_several_bags_are_not_made_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with BagWriter(tmp_path / "runs" / name) as bag:
            write(bag, 3)
    with pytest.raises(BagError, match="holds 2 bags, 'one', 'two': recover them one by one"):
        recover(tmp_path / "runs", tmp_path / "out")
