# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most, and what a network asks of it."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from labeldistill_core.bench.timing import time_ms


def peak_gflops(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Fastest of some products of square matrices, 1e9 operations a second."""
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best_ms = min(time_ms(lambda: one @ two, device) for _ in range(8))
    return float(2 * size**3 / best_ms / 1e6)


def copy_gb_s(device: torch.device, mib: int = 256) -> float:
    """Fastest of some copies, bytes read and written in 1e9 a second."""
    source = torch.ones(mib * 2**18, device=device)
    target = torch.empty_like(source)
    best_ms = min(time_ms(lambda: target.copy_(source), device) for _ in range(8))
    return float(2 * source.nbytes / best_ms / 1e6)


def count_work(step: Callable[[], object], network: nn.Module) -> tuple[float, float]:
    """What a step computes and moves.

    Returns:
        1e9 operations of convolutions and matrix products, and 1e9 bytes that they read and
        write when nothing stays in a cache between them.
    """
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        weights = sum(p.nbytes for p in module.parameters())
        moved += inputs[0].nbytes + weights + output.nbytes

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    try:
        with FlopCounterMode(display=False) as counter:
            step()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() / 1e9, moved / 1e9


def measure_apart(
    make: Callable[[], Callable[[], object]], device: str, repeats: int
) -> tuple[list[float], float]:
    """Time and memory of steps in a process of their own.

    Args:
        make: prepares the step; it must be possible to send it to another process.
        device: on CUDA, the memory of the device is counted.
        repeats: after one to warm up.

    Returns:
        Milliseconds of each step, and the largest memory in MiB while they ran, libraries
        included. What only the preparation needs is not counted where the system tells (Linux).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_measure, make, device, repeats, torch.get_num_threads()).result()


def _measure(
    make: Callable[[], Callable[[], object]], device: str, repeats: int, threads: int
) -> tuple[list[float], float]:
    torch.set_num_threads(threads)
    step, place = make(), torch.device(device)
    gc.collect()
    status, peaks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    elif status.exists():
        peaks.write_text("5")  # forgets the peak so far
    times_ms = [time_ms(step, place) for _ in range(repeats + 1)][1:]
    if place.type == "cuda":
        return times_ms, torch.cuda.max_memory_allocated(place) / 2**20
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return times_ms, int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return times_ms, peak / (2**20 if sys.platform == "darwin" else 2**10)
