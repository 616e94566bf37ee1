# SPDX-License-Identifier: Apache-2.0
"""As many threads as there are cores that other processes leave free.

Work is shared equally between threads, so an operation ends with the slowest of them. Where another
process runs on one of the cores, that thread takes twice the time, or waits for a whole time slice,
at each of hundreds of operations: with a thread less the step is faster, and as steady as on a
machine of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_WINDOW_S = 0.5
"""Time over which use of the cores is counted; the system counts in hundredths of a second."""
_ENOUGH = 0.65
"""Part of a core that is enough for a thread. One busy process beside two threads on two cores gets
between a half and two thirds of a core, and has to be seen."""


@dataclass(frozen=True)
class CoreUse:
    """Counters since the system and this process started, in seconds."""

    wall_s: float
    """Time of a steady clock."""
    busy_s: float
    """Time that this process's cores were in use, by anyone."""
    own_s: float
    """Time that this process used, on all cores."""


def core_use(stat: Path = Path("/proc/stat")) -> CoreUse | None:
    """What was used so far; None where the system does not tell (only Linux does)."""
    try:
        lines = stat.read_text().splitlines()
        cores = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return None
    busy = 0
    for line in lines:
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _waiting, *rest = map(int, counts[:8])
            # Processes of low priority give way to this one, unless it has a low one itself.
            busy += user + system + sum(rest) + (nice if os.nice(0) > 0 else 0)
    return CoreUse(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())


def free_cores(before: CoreUse, now: CoreUse, cores: int) -> float:
    """Cores that other processes left free in a span of time, between 0 and `cores`."""
    others_s = (now.busy_s - before.busy_s) - (now.own_s - before.own_s)
    return min(max(cores - others_s / (now.wall_s - before.wall_s), 0.0), float(cores))


class FittedThreads:
    """Chooses torch's number of threads for each step on the CPU."""

    def __init__(self) -> None:
        """Begin with all threads.

        Where `OMP_NUM_THREADS` is set, the number stays as it is.
        """
        self._last = None if "OMP_NUM_THREADS" in os.environ else core_use()
        self._free = float("inf")

    @contextmanager
    def __call__(self) -> Iterator[int]:
        """Torch's threads are as many as fit, at most as many as they were; then as they were."""
        most = torch.get_num_threads()
        fitting = self._fitting(most)
        if fitting == most:
            yield most
            return
        torch.set_num_threads(fitting)
        try:
            yield fitting
        finally:
            torch.set_num_threads(most)

    def _fitting(self, most: int) -> int:
        if self._last is None:
            return most
        if time.monotonic() - self._last.wall_s >= _WINDOW_S and (now := core_use()):
            cores = len(os.sched_getaffinity(0))
            self._free, self._last = free_cores(self._last, now, cores), now
        return int(min(max(self._free + 1 - _ENOUGH, 1), most))
