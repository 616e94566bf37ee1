# SPDX-License-Identifier: Apache-2.0
"""What processes of the tests do, where they can import it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from labeldistill_core.errors import ConfigError, StoppedError
from labeldistill_core.signals import StopRequest

_FOREVER_S = 300.0
_lock: Any = None


def square(number: int) -> tuple[int, int]:
    print("number", number, flush=True)
    subprocess.run(["echo", "echoed", str(number)], check=True)
    time.sleep(0.2 if number == 0 else 0.0)
    return os.getpid(), number**2


def say_later(word: str) -> str:
    """What is said is written behind the call, even by an interpreter without buffers."""
    sys.stdout = os.fdopen(1, "w", closefd=False)
    print(word)
    return word


def fail_beside(sleeper: Path) -> None:
    """The first call sleeps and says who it is, the second fails once it does."""
    mine = sleeper.with_name("mine")
    try:
        mine.touch(exist_ok=False)
    except FileExistsError:
        while not sleeper.exists():
            time.sleep(0.02)
        raise ConfigError("no such thing") from None
    sleep(sleeper)


def fail(_: int) -> None:
    raise ConfigError("no such thing")


def sleep(pid_file: Path) -> None:
    draft = pid_file.with_suffix(".draft")
    draft.write_text(str(os.getpid()))
    draft.rename(pid_file)
    time.sleep(_FOREVER_S)


def take(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def keep_a_lock(_: int) -> None:
    """As a progress bar does: the system's semaphore is given back when the process leaves."""
    global _lock
    _lock = multiprocessing.get_context("spawn").Lock()


def stop(_: int) -> None:
    """As a training ends that is told to."""
    raise StoppedError("stopped at step 3, repeat the command to go on", signal.SIGTERM)


def save_when_told(pid_file: Path) -> None:
    """As a training does: a stop lets it save, which takes a while, and a second one does not."""
    told: list[int] = []

    def receive(number: int) -> None:
        if told:
            raise StoppedError("stopped without saving", number)
        told.append(number)

    with StopRequest(receive):
        pid_file.write_text(str(os.getpid()))
        until = time.monotonic() + _FOREVER_S
        while not told and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(1.0)
        pid_file.with_suffix(".saved").touch()
    raise StoppedError("saved", told[0])


def end_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process has ended, or does so in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def wait_for(file: Path | None) -> bool:
    """Whether a file came within a minute; at once when none is waited for."""
    until = time.monotonic() + 60
    while file is not None and not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return file is None or file.exists()
