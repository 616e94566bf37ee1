# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a start at any moment by a line and an exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

NODE = ("node", "--ros-args", "-p", "device:=cpu")
COMMAND = ("command", "bench", "--device", "cpu")


def catches(process: subprocess.Popen[str], number: int) -> bool:
    """Whether the program has a handler of a signal by now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def start(entry: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"from labeldistill_ros.entry import {entry}; {entry}()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listens_to_sigint,
    )


@pytest.mark.parametrize("words", [NODE, COMMAND])
@pytest.mark.parametrize(
    ("after_s", "number"),
    [(0.05, signal.SIGTERM), (0.2, signal.SIGINT), (0.5, signal.SIGTERM), (1.0, signal.SIGINT)],
)
def test_a_start_ends(words: tuple[str, ...], number: signal.Signals, after_s: float) -> None:
    process = start(*words)
    # Python itself starts within 50 ms, or later on a busy machine; nothing can be done before.
    while not catches(process, signal.SIGTERM):
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(after_s)
    process.send_signal(number)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number, told
    (line,) = told.splitlines()
    assert line.startswith(f"ended by {number.name}")


def test_an_ignored_signal_stays_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from labeldistill_ros.early_signals import end_at_signals, started\n"
        "end_at_signals(); print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "started(); print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3, done.stderr


def _listens_to_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
