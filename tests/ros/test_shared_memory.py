# SPDX-License-Identifier: Apache-2.0
"""Segments of processes that are gone are removed, those of living ones never."""

import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labeldistill_ros.shared_memory import kill_node, remove_abandoned_segments

SHARED = Path("/dev/shm")
PARTICIPANT = """
import sys, time
import labeldistill_ros, rclpy
rclpy.init()
node = rclpy.create_node("sleeper")
print("up", flush=True)
time.sleep(60)
"""


def segment(folder: Path, name: str = "fastdds_0123456789abcdef", age_s: float = 60.0) -> Path:
    """A segment of 100 bytes and its lock file, which nobody holds."""
    (folder / name).write_bytes(bytes(100))
    lock = folder / f"{name}_el"
    lock.touch()
    os.utime(lock, (time.time() - age_s, time.time() - age_s))
    return folder / name


def test_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    segment(tmp_path)
    segment(tmp_path, "fastrtps_fedcba9876543210")
    assert remove_abandoned_segments(tmp_path) == 200
    assert not list(tmp_path.iterdir())


def test_what_a_process_holds_stays(tmp_path: Path) -> None:
    held = segment(tmp_path)
    with (tmp_path / f"{held.name}_el").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_abandoned_segments(tmp_path) == 0
    assert held.exists()
    assert (tmp_path / f"{held.name}_el").exists()


def test_a_lock_file_that_was_just_made_stays(tmp_path: Path) -> None:
    assert remove_abandoned_segments(segment(tmp_path, age_s=0.0).parent) == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["fastdds_port7411", "sem.fastdds_port7411_mutex", "another"])
def test_other_files_stay(tmp_path: Path, name: str) -> None:
    assert remove_abandoned_segments(segment(tmp_path, name).parent) == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_lock_without_its_segment_goes_too(tmp_path: Path) -> None:
    segment(tmp_path).unlink()
    assert remove_abandoned_segments(tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert remove_abandoned_segments(tmp_path / "none") == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs /dev/shm")
def test_a_killed_node_leaves_no_segment_and_a_living_one_keeps_its_own() -> None:
    command = [sys.executable, "-c", PARTICIPANT]
    nodes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for node in nodes:
            assert node.stdout is not None
            assert node.stdout.readline() == "up\n"
        killed, living = (segments_of(node.pid) for node in nodes)
        time.sleep(1.1)  # what is younger may be about to be locked
        kill_node(nodes[0])
        assert killed
        assert not any(path.exists() for path in killed)
        assert living
        assert all(path.exists() for path in living)
    finally:
        for node in nodes:
            kill_node(node)
    assert not any(path.exists() for path in living)


def segments_of(pid: int) -> set[Path]:
    """The segments whose locks a process has open, and these locks."""
    opened = (Path(os.readlink(link)) for link in Path(f"/proc/{pid}/fd").iterdir())
    locks = {path for path in opened if re.fullmatch(r"fastdds_[0-9a-f]{16}_el", path.name)}
    return locks | {path.with_name(path.name.removesuffix("_el")) for path in locks}
