# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, whatever they are and whatever stands in their place."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from labeldistill_core import files
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_columns import ResultBox
from labeldistill_core.evaluation.result_file import write_results
from labeldistill_core.files import (
    clear_partial,
    one_at_a_time,
    read_bounded,
    refuse_unwritable,
    sole_user,
    whole_file,
    write_json,
    write_whole,
)


class _Broken(Mapping[str, list[ResultBox]]):
    """Results whose second sample cannot be had."""

    def __getitem__(self, token: str) -> list[ResultBox]:
        if token == "b":
            raise DataError("no such sample")
        return []

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __len__(self) -> int:
        return 3


def test_results_that_are_cut_off_leave_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, {"a": []})
    before = file.read_bytes()
    with pytest.raises(DataError, match="no such sample"):
        write_results(file, _Broken())
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"first", b"second"):  # the target is absent at first
        write_whole(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content


@pytest.mark.parametrize(
    "write", [lambda p: write_json(p, [1]), lambda p: write_results(p, {"a": []})]
)
def test_a_pipe_is_written_to(tmp_path: Path, write: Callable[[Path], None]) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(10)
    assert read[0].strip()
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with whole_file(file) as first, whole_file(file) as second:
        first.write_bytes(b"1" * 10)
        second.write_bytes(b"2" * 20)
        assert first.name.endswith(".partial")
    # of the last to end
    assert file.read_bytes() == b"1" * 10
    assert list(tmp_path.iterdir()) == [file]

    def fail() -> None:
        with whole_file(file) as third:
            third.write_bytes(b"3")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert file.read_bytes() == b"1" * 10
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(DataError, match=r"file has more than .* MiB, which no such file has"):
        read_bounded(file, 4)
    with pytest.raises(DataError, match="/dev/zero is a pipe, a device or a socket"):
        read_bounded(Path("/dev/zero"), 1 << 20)
    os.mkfifo(pipe)  # without a writer
    with pytest.raises(DataError, match="pipe is a pipe, a device or a socket"):
        read_bounded(pipe, 5)
    ends = os.pipe()
    os.write(ends[1], b"12345")
    os.close(ends[1])
    assert read_bounded(Path(f"/dev/fd/{ends[0]}"), 5) == b"12345"
    os.close(ends[0])


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_was_printed_stays_where_the_output_is_a_file(name: str, tmp_path: Path) -> None:
    code = (
        "import pathlib; from labeldistill_core.files import write_whole\n"
        f"print('before'); write_whole(pathlib.Path({name!r}), b'content\\n'); print('after')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\ncontent\nafter\n"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("figures")
    with pytest.raises(NotADirectoryError, match="Not a directory: '.*/file/x.json'"):
        refuse_unwritable(file / "x.json")
    with pytest.raises(NotADirectoryError, match="Not a directory: '.*/file/x.json'"):
        write_whole(file / "x.json", b"")
    with pytest.raises(OSError, match="'/proc/x.json'"):
        refuse_unwritable(Path("/proc/x.json"))
    with (
        pytest.raises(NotADirectoryError, match="Not a directory: '.*/file/.lock'"),
        sole_user(file / ".lock", "another one"),
    ):
        pass
    assert file.read_text() == "figures"


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    file = tmp_path / "net[1].bin"
    left = tmp_path / "net[1].bin.0123abcd.partial"
    stays = [
        tmp_path / name
        for name in ("net[1].bin", "net[1].bin.mine.partial", "net1.bin.0123abcd.partial")
    ]
    for each in (left, *stays):
        each.write_bytes(b"half")
    # which may be being written now
    clear_partial(file, older_s=600.0)
    assert left.exists()
    clear_partial(file, tmp_path / "none" / "file")
    assert sorted(tmp_path.iterdir()) == sorted(stays)


def test_a_name_is_too_long_before_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / f"{'x' * 240}.json"
    for attempt in (refuse_unwritable, partial(write_whole, data=b"")):
        with pytest.raises(OSError, match=r"File name too long: '.*x\.json'"):
            attempt(file)
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_folder_for_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "LONGEST_WAIT_S", 0.2)
    number = os.open(tmp_path, os.O_RDONLY)  # as the shell's `flock` before it starts a command
    fcntl.flock(number, fcntl.LOCK_EX)
    with one_at_a_time(tmp_path):
        assert f"{tmp_path} is locked by another process, and not waited for" in caplog.text
    os.close(number)
    with one_at_a_time(tmp_path / "gone"):
        write_json(tmp_path / "gone" / "figures.json", {})
    caplog.clear()
    with one_at_a_time(tmp_path):
        assert caplog.text == ""


def test_one_after_the_other_adds_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    code = f"""
from pathlib import Path
from labeldistill_core.files import one_at_a_time
for _ in range(200):
    with one_at_a_time(Path({str(tmp_path)!r})):
        file = Path({str(file)!r})
        file.write_text(str(int(file.read_text()) + 1))
"""
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    assert file.read_text() == "400"
    with one_at_a_time(tmp_path):
        assert [each.name for each in tmp_path.iterdir()] == ["count"]
