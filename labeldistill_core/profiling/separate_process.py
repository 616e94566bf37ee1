# SPDX-License-Identifier: Apache-2.0
"""What steps take in a process of their own."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from labeldistill_core.processes import worker_pool
from labeldistill_core.profiling.stage_clock import time_ms


@dataclass(frozen=True)
class Apart:
    """What steps in a process of their own took."""

    first_ms: float
    """The first step, in which libraries set themselves up."""
    times_ms: list[float]
    """Durations of the later calls, in milliseconds."""
    peak_mib: float
    """Largest memory while they ran, libraries included; of the device on CUDA."""


def measure_apart(
    make: Callable[[], Callable[[], object]], device: str, repeats: int, warm_up: int = 1
) -> Apart:
    """Time and memory of steps in a process of their own.

    What only the preparation needs is not counted where the system tells (Linux).

    Args:
        make: prepares the step; it must be possible to send it to another process.
        device: on CUDA, the memory of the device is counted.
        repeats: after `warm_up` steps.
        warm_up: one or more.
    """
    # Spawned: a forked process would begin with this one's memory and its libraries warmed up.
    with worker_pool(1, "spawn") as process:
        steps = (warm_up, repeats)
        return process.submit(_measure, make, device, steps, torch.get_num_threads()).result()


def _measure(
    make: Callable[[], Callable[[], object]], device: str, steps: tuple[int, int], threads: int
) -> Apart:
    # A spawned process would take torch's own choice, whatever this one was told.
    torch.set_num_threads(threads)
    step, place = make(), torch.device(device)
    # What the preparation left would count as memory of the steps.
    gc.collect()
    status, peaks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    elif status.exists():
        # Linux keeps one peak for a process, and preparing may need more than the steps.
        peaks.write_text("5")  # forgets the peak so far
    warm_ms, times_ms = ([time_ms(step, place) for _ in range(count)] for count in steps)
    return Apart(warm_ms[0], times_ms, _peak_mib(place, status))


def _peak_mib(place: torch.device, status: Path) -> float:
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**20
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS tells bytes, other systems KiB.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
