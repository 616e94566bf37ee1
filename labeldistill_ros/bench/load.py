# SPDX-License-Identifier: Apache-2.0
"""The node under load: what comes in, what goes out, how late, and whether memory stays.

The vehicle runs in a process of its own, so that its work is not counted as the node's.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.bench.running import Run
from labeldistill_ros.bench.vehicle import Faults, Vehicle

_PARTS = 5
"""The time is cut into so many parts, to see whether figures grow."""
_MEMORY_GROWTH = 0.01
_HARVEST_S = 5.0
_OWN = ("decode_images", "publish", "transforms")
"""The node's own work: all that is not waiting for images or for the detector."""
_LATENCY_GROWTH = 1.5


@dataclass(frozen=True)
class LoadOptions:
    """What to put through."""

    seconds: float = 600.0
    """How long, after warming up."""
    rate_hz: float = 12.0
    """Of each camera."""
    image_size: tuple[int, int] = (1600, 900)
    """Width and height, pixels."""
    model: Path | None = None
    """Checkpoint; the demo's when None."""
    device: str = "cpu"
    """Of the detector."""
    precision: str = "float32"
    """Of the convolutions."""
    warm_s: float = 10.0
    """Before anything is counted."""


def _drive(period_s: float, size_px: tuple[int, int], stop: Event, sent: Any) -> None:
    """The vehicle's process."""
    context = Context()
    rclpy.init(context=context)
    vehicle = Vehicle(context, period_s=period_s, size_px=size_px)
    while not stop.wait(0.05):
        sent.value = vehicle.sent
    vehicle.close()
    context.try_shutdown()


def run_load(options: LoadOptions) -> dict[str, Any]:
    """Figures of the node, and whether they are good: no mixed set, flat memory and latency."""
    context = multiprocessing.get_context("spawn")
    stop, sent = context.Event(), context.Value("q", 0)
    arguments = (1 / options.rate_hz, options.image_size, stop, sent)
    process = context.Process(target=_drive, args=arguments, daemon=True)
    process.start()
    parameters = {"device": options.device, "precision": options.precision}
    # the vehicle of this process only listens
    quiet = Faults(silent=set(CAMERAS), no_info=set(CAMERAS), no_poses=True)
    try:
        with Run(options.model, parameters, quiet, period_s=1.0) as run:
            if run.vehicle.wait(lambda: run.processed >= 3, 60.0) is None:
                raise RuntimeError("the node processed nothing within a minute")
            time.sleep(options.warm_s)
            return _measure(run, options, sent)
    finally:
        stop.set()
        process.join(10)


def _measure(run: Run, options: LoadOptions, sent: Any) -> dict[str, Any]:
    active = run.node._active
    assert active is not None
    begin_sync, begin_sets = dict(active.synchronizer.counts), dict(active.health.counts)
    run.vehicle.listen()
    run.detector_ms.clear()
    begin_sent, memory = sent.value, [_memory_kib()]
    rows: list[tuple[float, ...]] = []
    for _ in range(_PARTS):
        end = time.monotonic() + options.seconds / _PARTS
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_HARVEST_S, left))
            # what the statuses say is kept as numbers: they themselves would look like a leak
            rows += [
                tuple(float(status[f"{name}_ms"]) for name in ("total", *_OWN))
                for status in run.vehicle.sets
                if status["outcome"] == "processed"
            ]
            run.vehicle.listen()
        memory.append(_memory_kib())
    total, *own_ms = np.array(rows).T
    parts = np.array_split(total, _PARTS)
    detector, own = sum(run.detector_ms[: len(rows)]), float(np.sum(own_ms))
    p95 = [float(np.percentile(part, 95)) for part in parts]
    growth = memory[-1] / memory[1] - 1
    sync = {k: v - begin_sync.get(k, 0) for k, v in active.synchronizer.counts.items()}
    counts = {k: v - begin_sets.get(k, 0) for k, v in active.health.counts.items()}
    flat = p95[-1] < _LATENCY_GROWTH * p95[0]
    return {
        "options": {**asdict(options), "model": str(options.model or "demo")},
        "images_sent": sent.value - begin_sent,
        "images_received": sync.get("received", 0),
        "sets_paired": sync.get("complete", 0),
        "sets_processed": counts.get("processed", 0),
        "sets_dropped": counts.get("dropped", 0),
        "sets_mixed": run.mixed,
        "processed_hz": counts.get("processed", 0) / options.seconds,
        "latency_ms": {f"p{p}": float(np.percentile(total, p)) for p in (50, 95, 99)},
        "latency_p95_ms_by_fifth": p95,
        "memory_kib_by_fifth": memory,
        "memory_growth": growth,
        "node_share": own / (own + detector),
        "node_ms": {name: float(np.median(ms)) for name, ms in zip(_OWN, own_ms, strict=True)},
        "passed": bool(run.mixed == 0 and flat and growth < _MEMORY_GROWTH),
    }


def _memory_kib() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
