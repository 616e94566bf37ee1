# SPDX-License-Identifier: Apache-2.0
"""Long work in several processes: results, failures, and what stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from labeldistill_core.errors import ConfigError, LabelDistillError, StoppedError
from labeldistill_core.experiments import processes
from labeldistill_core.experiments.processes import in_processes
from tests.support import process_work
from tests.support.process_work import is_gone


def test_results_come_in_order_and_processes_are_kept(tmp_path: Path) -> None:
    outputs = [tmp_path / str(i) / "output.txt" for i in range(5)]
    found = list(in_processes(process_work.square, range(5), outputs, 2))
    assert [square for _, square in found] == [0, 1, 4, 9, 16]
    assert len({pid for pid, _ in found}) == 2
    for i, output in enumerate(outputs):
        assert output.read_text() == f"number {i}\nechoed {i}\n"


def test_the_first_that_fails_ends_all(tmp_path: Path) -> None:
    sleeper, outputs = tmp_path / "sleeper", [tmp_path / f"{i}.txt" for i in range(6)]
    with pytest.raises(ConfigError, match="no such thing"):
        list(in_processes(process_work.fail_beside, [sleeper] * 6, outputs, 2))
    assert is_gone(int(sleeper.read_text()))
    assert sum("ConfigError: no such thing" in o.read_text() for o in outputs[:2]) == 1
    assert not any(output.exists() for output in outputs[2:])


def test_nobody_waits_for_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LEAVE_S", 120.0)
    begin_s = time.monotonic()
    with pytest.raises(ConfigError, match="no such thing"):
        list(in_processes(process_work.fail, [0], [tmp_path / "0.txt"], 1))
    assert time.monotonic() - begin_s < 120.0


def test_an_output_that_cannot_be_written_costs_no_result() -> None:
    assert list(in_processes(process_work.say_later, ["word"], [Path("/dev/full")], 1)) == ["word"]


def test_an_output_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"(File exists|Not a directory).*file"):
        list(in_processes(process_work.square, [1], [tmp_path / "file" / "output.txt"], 1))


def test_who_has_no_more_work_leaves_quietly(tmp_path: Path) -> None:
    # The first works on while the others have ended, one after the other.
    seconds = [8.0, 0.0, 0.5, 1.0]
    outputs = [tmp_path / f"{i}.txt" for i in range(len(seconds))]
    assert list(in_processes(process_work.take, seconds, outputs, len(seconds))) == seconds
    assert [output.read_text() for output in outputs] == [""] * len(seconds)


def test_who_leaves_gives_back_what_it_has(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from labeldistill_core.experiments.processes import in_processes
from tests.support.process_work import keep_a_lock
outputs = [Path({str(tmp_path)!r}) / str(i) for i in range(3)]
list(in_processes(keep_a_lock, range(3), outputs, 2))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "leaked" not in ended.stderr


def test_a_training_that_was_stopped_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="repeat the command to go on") as told:
        list(in_processes(process_work.stop, [0], [tmp_path / "0.txt"], 2))
    assert told.value.signal == signal.SIGTERM


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabelDistillError, match=r"writes .*0\.txt was ended, perhaps for want of"):
        list(in_processes(process_work.end_itself, [0], [tmp_path / "0.txt"], 2))


@contextmanager
def parent_of(work: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has one process do such work, which has begun; ended with the block."""
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        f"from tests.support.process_work import {work}\n"
        "from labeldistill_core.exit_codes import exit_code\n"
        "from labeldistill_core.experiments.processes import in_processes\n"
        "def call():\n"
        f"    list(in_processes({work}, [Path('{tmp_path}/pid')], [Path('{tmp_path}/o')], 1))\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(exit_code(call, 'parent'))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script], env=environment, start_new_session=True, text=True,
        stderr=subprocess.PIPE,
    ) as parent:  # fmt: skip
        try:
            until = time.monotonic() + 60.0
            while not (tmp_path / "pid").exists() and time.monotonic() < until:
                time.sleep(0.05)
            yield parent
        finally:
            parent.kill()


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    with parent_of("sleep", tmp_path):
        pass  # which ends by a kill
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["the parent", "all"])
def test_what_the_parent_is_told_lets_processes_save(
    tmp_path: Path, number: signal.Signals, to: str
) -> None:
    with parent_of("save_when_told", tmp_path) as parent:
        send = os.kill if to == "the parent" else os.killpg
        send(parent.pid, number)
        begun = time.monotonic()
        _, told = parent.communicate(timeout=60)
        took_s = time.monotonic() - begun
    assert parent.returncode == 128 + number
    assert told.splitlines()[-1] == "stopped, repeat the command to go on"
    assert (tmp_path / "pid.saved").exists()
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert took_s < 10.0


def test_processes_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    for place in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        processes.share_machine(place, 4)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert threads == [4, 4, 4]
    assert taken == ["4", "6", "4"]
