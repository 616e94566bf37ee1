# SPDX-License-Identifier: Apache-2.0
"""Steps in turns, and the memory of a step."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from labeldistill_core.profiling.stage_clock import time_ms

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes to the terminal


def alternate(
    steps: Sequence[Callable[[], object]], repeats: int, device: torch.device
) -> list[float]:
    """Median times in milliseconds of steps that run in turns, after two rounds to warm up."""
    # In turns, since the speed of a machine drifts: what slows it down slows all steps alike.
    rounds = [[time_ms(step, device) for step in steps] for _ in range(repeats + 2)]
    return [median(values) for values in zip(*rounds[2:], strict=True)]


def peak_mib(step: Callable[[], object], device: torch.device) -> float:
    """Most memory that a step holds at once beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        # On a CPU torch has no counter of the peak; its profiler records each change, in order.
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [e for e in events if e["name"] == "[memory]"]
    changes = [e["args"]["Bytes"] for e in sorted(memory, key=lambda e: e["args"]["Ev Idx"])]
    return float(np.cumsum([0, *changes]).max()) / 2**20
