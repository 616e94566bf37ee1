# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most, and what a GPU does for a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from labeldistill_core.profiling.bench_images import JpegSource
from labeldistill_core.profiling.stage_clock import time_ms
from labeldistill_core.runtime.detector import Detector


def peak_gflops(dtype: torch.dtype, device: torch.device) -> float:
    """Fastest of some products of square matrices, 1e9 operations a second."""
    size = 8192 if device.type == "cuda" else 2048  # a launch must not count
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best_ms = min(time_ms(lambda: one @ two, device) for _ in range(8))
    return float(2 * size**3 / best_ms / 1e6)


def copy_gb_s(device: torch.device) -> float:
    """Fastest of some copies, bytes read and written in 1e9 a second."""
    mib = 1024 if device.type == "cuda" else 256
    source = torch.ones(mib * 2**18, device=device)
    target = torch.empty_like(source)
    best_ms = min(time_ms(lambda: target.copy_(source), device) for _ in range(8))
    return float(2 * source.nbytes / best_ms / 1e6)


@dataclass(frozen=True)
class GpuTime:
    """What a GPU does for a step."""

    busy_ms: float
    """Kernels and copies, without the gaps between them."""
    kernels_ms: dict[str, float]
    """The longest of them by name, with the time of all that have this name."""


def gpu_time(step: Callable[[], object], repeats: int, longest: int = 20) -> GpuTime:
    """Time that a GPU works for a step, mean of `repeats`, also within a CUDA graph."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            step()
        torch.cuda.synchronize()
    spent: dict[str, float] = {}
    for event in profile.key_averages():  # a name may come more than once
        spent.setdefault(event.key, 0.0)
        spent[event.key] += event.self_device_time_total / 1e3 / repeats
    by_time = sorted(spent.items(), key=lambda item: -item[1])
    return GpuTime(sum(spent.values()), dict(by_time[:longest]))


def measure_gpu(detector: Detector, repeats: int, device_decode: bool = False) -> GpuTime:
    """What a GPU does for a step, from JPEG bytes to boxes; as `measure_steps`."""
    detector.reset("next measurement")
    with JpegSource(detector.config, detector.device if device_decode else None) as source:
        for _ in range(detector.config.frames + 1):
            detector.detect(source.take())
        return gpu_time(lambda: detector.detect(source.take()), repeats)
