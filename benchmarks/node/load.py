# SPDX-License-Identifier: Apache-2.0
"""The node under load: what comes in and out, how late, what it adds, and whether memory stays.

The vehicle runs in a process of its own, so that its work is not counted as the node's.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context

from benchmarks.node.overhead import Alone, SeenSets, overhead, work_timed
from labeldistill_core.cameras import CAMERAS
from labeldistill_core.processes import end_with_parent
from labeldistill_ros.outputs.publishers import STAGES
from labeldistill_ros.testing.simulated_drive import SimulatedDrive
from labeldistill_ros.testing.vehicle import Vehicle, VehicleFaults

_PARTS = 5
"""The time is cut into so many parts, to see whether figures grow."""
# Of some 650 MiB: in ten minutes at 12 Hz a leak of one KiB a set is seen.
_MEMORY_GROWTH = 0.01
_LATENCY_GROWTH = 1.5
# What the node may take of a set's time; the rest is the detector's.
_OWN_SHARE = 0.1
_HARVEST_S = 5.0
_COLLECT_S = 10.0
"""For so long sets are collected that the detector then gets alone."""


@dataclass(frozen=True)
class LoadOptions:
    """What goes through the node, and for how long."""

    seconds: float = 600.0
    """Seconds of load, after the detector alone was measured and the node has warmed up."""
    rate_hz: float = 12.0
    """Images a second of each camera."""
    image_size: tuple[int, int] = (1600, 900)
    """Width and height of the images in pixels."""
    model: Path | None = None
    """Student checkpoint that the node runs; the demo's when not given."""
    device: str = "cpu"
    """Where the node's detector runs: cpu, cuda:0 and so on, or auto."""
    precision: str = "float32"
    """Number format of the convolutions."""
    warm_s: float = 60.0
    """Seconds of load before anything is counted, in which the heap takes its form."""


def _drive(period_s: float, size_px: tuple[int, int], stop: Event, sent: Any) -> None:
    """The vehicle's process."""
    end_with_parent()
    context = Context()
    rclpy.init(context=context)
    vehicle = Vehicle(context, period_s=period_s, size_px=size_px, packed_boxes=True)
    while not stop.wait(0.05):
        sent.value = vehicle.sent
    vehicle.close()
    context.try_shutdown()


def run_load(options: LoadOptions) -> dict[str, Any]:
    """Figures of the node, and whether they are good.

    The detector alone is measured before and after the load, with the node inactive and the
    vehicle driving on.
    """
    context = multiprocessing.get_context("spawn")
    stop, sent = context.Event(), context.Value("q", 0)
    arguments = (1 / options.rate_hz, options.image_size, stop, sent)
    process = context.Process(target=_drive, args=arguments, daemon=True)
    process.start()
    parameters = {"device": options.device, "precision": options.precision}
    # the vehicle of this process only listens
    quiet = VehicleFaults(silent=set(CAMERAS), no_info=set(CAMERAS), no_poses=True)
    vehicle = {"period_s": 1.0, "size_px": options.image_size, "packed_boxes": True}
    seen = SeenSets()
    try:
        with SimulatedDrive(options.model, parameters, quiet, seen.add, **vehicle) as run:
            _warm(run, min(_COLLECT_S, options.warm_s))
            alone = _alone(run, seen)
            _warm(run, options.warm_s)
            found, work_ms, detector_ms = _measure(run, options, sent)
            alone += _alone(run, seen)
    finally:
        stop.set()
        process.join(10)
    added = overhead(work_ms, detector_ms, alone)
    good = bool(found["passed"] and added["share_outside_detector"] < _OWN_SHARE)
    return {**found, "overhead": added, "passed": good}


def _warm(run: SimulatedDrive, seconds: float) -> None:
    """Let it work for a while."""
    before = run.processed
    if run.vehicle.wait(lambda: run.processed >= before + 3, 60.0) is None:
        raise RuntimeError("the node processed nothing within a minute")
    time.sleep(seconds)


def _alone(run: SimulatedDrive, seen: SeenSets) -> list[Alone]:
    """The newest sets through the detector alone."""
    run.node.trigger_deactivate()
    try:
        return seen.alone(run.detector, run.vehicle.jpeg)
    finally:
        run.node.trigger_activate()


def _measure(
    run: SimulatedDrive, options: LoadOptions, sent: Any
) -> tuple[dict[str, Any], list[float], list[float]]:
    """Figures of the loaded node; the worker's and the detector's milliseconds of each set."""
    session = run.node.session
    assert session is not None
    begin_sync, begin_sets = dict(session.intake.synchronizer.counts), dict(session.health.counts)
    run.vehicle.listen()
    run.detector_ms.clear()
    begin_sent, rows = sent.value, list[dict[str, float]]()
    memory: list[list[dict[str, int]]] = []
    with work_timed(session.intake.worker, lambda: run.processed) as work_ms:
        for _ in range(_PARTS):
            # By parts, since growth is what is looked for, not a level.
            memory.append([])
            end = time.monotonic() + options.seconds / _PARTS
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(_HARVEST_S, left))
                # kept as numbers: the statuses themselves would look like a leak
                rows += [_stages(s) for s in run.vehicle.sets if s["outcome"] == "processed"]
                run.vehicle.listen()
                memory[-1].append(_memory_kib())
    stages = {name: [row[name] for row in rows] for name in rows[0]}
    total = np.array(stages["total"])
    p95 = [float(np.percentile(part, 95)) for part in np.array_split(total, _PARTS)]
    # Medians of each part: one sample may fall into a set that is just decoded.
    private, shared = (
        [int(np.median([entry[kind] for entry in part])) for part in memory]
        for kind in ("private", "shared")
    )
    growth = private[-1] / private[0] - 1
    sync = {k: v - begin_sync.get(k, 0) for k, v in session.intake.synchronizer.counts.items()}
    counts = {k: v - begin_sets.get(k, 0) for k, v in session.health.counts.items()}
    flat = p95[-1] < _LATENCY_GROWTH * p95[0]
    figures = {
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
        "stages_ms": {name: float(np.median(ms)) for name, ms in stages.items()},
        "memory_kib_by_fifth": private,
        "memory_growth": growth,
        "shared_memory_kib_by_fifth": shared,
        "passed": bool(run.mixed == 0 and flat and growth < _MEMORY_GROWTH),
    }
    return figures, work_ms, run.detector_ms


def _stages(status: dict[str, str]) -> dict[str, float]:
    """The times of a set that its status tells."""
    return {stage: float(status[f"{stage}_ms"]) for stage in STAGES if f"{stage}_ms" in status}


def _memory_kib() -> dict[str, int]:
    """Resident memory of this process.

    Private is its own; shared are the pages of the transport's segments that it has touched, which
    are at most the segments' size and belong to the participants that write to them.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {
        name: int(rest.split()[0])
        for name, rest in (x.split(":", 1) for x in lines)
        if "kB" in rest
    }
    return {"private": kib["RssAnon"] + kib["RssFile"], "shared": kib["RssShmem"]}
