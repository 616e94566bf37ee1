# SPDX-License-Identifier: Apache-2.0
"""The node as a process, before, during and after minutes of hostile messages at every door.

Six healthy cameras drive on all the time. Memory, threads and descriptors are those of the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from benchmarks.node.intruder import Intruder, finite, healthy_clock
from benchmarks.node.processes import node_command
from labeldistill_core.processes import end_with_parent
from labeldistill_ros.shared_memory import kill_node
from labeldistill_ros.testing.vehicle import Vehicle

_START_S = 90.0
_CLOCK_S = 0.02
_SAMPLE_S = 1.0
_SETTLE_S = 15.0
"""After the hostile messages, before it is counted again: a moving frame that was taken by another
gives way after 10 s."""
# What is in work when a phase ends is counted in the next.
_LEAST_RATE = 0.9
_MEMORY_GROWTH = 0.2
"""From before to after: freed memory is kept for the next set, so the largest image that a
camera_info of 33 megapixels allows leaves its mark."""
_DECODED_MIB = 400
"""Of two threads that decode such images at once, each in two copies."""
_FEW = 8
"""Threads or descriptors that DDS keeps of participants that came and went."""


@dataclass(frozen=True)
class HostileOptions:
    """How much of what comes in."""

    minutes: float = 5.0
    """Minutes of hostile messages."""
    calm_s: float = 60.0
    """Seconds before and after, in which only the healthy cameras send."""
    per_second: float = 40.0
    """Hostile messages and calls a second."""
    rate_hz: float = 5.0
    """Images a second of each healthy camera."""
    image_size: tuple[int, int] = (400, 225)
    """Width and height of the healthy images in pixels."""
    model: Path | None = None
    """Student checkpoint that the node runs; the demo's when not given."""
    seed: int = 1
    """Of what is drawn."""


def run_hostile(options: HostileOptions) -> dict[str, Any]:
    """Figures of the three phases, and whether they are good."""
    values = {"device": "cpu", "use_sim_time": "true"}
    values |= {"model": str(options.model)} if options.model else {}
    context = Context()
    rclpy.init(context=context)
    vehicle = Vehicle(context, period_s=1 / options.rate_hz, size_px=options.image_size)
    node = rclpy.create_node("intruder", context=context)
    stop, executor = threading.Event(), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    # Right times come between the intruder's wrong ones, as from a simulator that goes on.
    clock, intruder = healthy_clock(node), Intruder(node, vehicle.jpeg, options.seed)
    node.create_timer(_CLOCK_S, clock)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    log = Path(tempfile.mkdtemp()) / "node.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            node_command(values), stdout=output, stderr=output, preexec_fn=end_with_parent
        )
    try:
        if vehicle.wait(lambda: vehicle.boxes, _START_S) is None:
            raise TimeoutError(f"no boxes within {_START_S:g} s: {log.read_text()[-500:]}")
        phases = {"before": _phase(vehicle, process.pid, options.calm_s)}
        until_s = time.monotonic() + 60 * options.minutes
        hostile = threading.Thread(target=_act, args=(intruder, options.per_second, until_s))
        hostile.start()
        phases["during"] = _phase(vehicle, process.pid, 60 * options.minutes)
        hostile.join()
        time.sleep(_SETTLE_S)
        phases["after"] = _phase(vehicle, process.pid, options.calm_s)
        # A node that was treated so still has to end when it is told to.
        asked_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        stopped_s = time.monotonic() - asked_s
    finally:
        kill_node(process)
        stop.set()
        thread.join(5)
        executor.shutdown()
        vehicle.close()
        node.destroy_node()
        context.try_shutdown()
    # What the node repeats of the intruder's messages need not be UTF-8.
    told = log.read_text(errors="replace")
    return {
        "options": {**asdict(options), "model": str(options.model or "demo")},
        "sent": dict(intruder.sent),
        "load_of_machine": os.getloadavg()[1],
        "phases": phases,
        "exit_code": code,
        "stopped_s": round(stopped_s, 2),
        "tracebacks": told.count("Traceback (most recent call last)"),
        "log_lines": told.count("\n"),
        "longest_log_line": max(map(len, told.splitlines()), default=0),
        "passed": _good(phases) and code == 0 and "Traceback" not in told,
    }


def _act(intruder: Intruder, per_second: float, until_s: float) -> None:
    while time.monotonic() < until_s:
        intruder.act()
        time.sleep(1 / per_second)


def _phase(vehicle: Vehicle, pid: int, seconds: float) -> dict[str, Any]:
    """What the node did and took in some seconds."""
    vehicle.listen()
    sets: list[dict[str, str]] = []
    memory: list[float] = []
    threads = descriptors = 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(_SAMPLE_S)
        sets += vehicle.sets
        vehicle.listen()
        memory.append(_status_of(pid, "VmRSS") / 1024)
        threads = max(threads, round(_status_of(pid, "Threads")))
        descriptors = max(descriptors, len(os.listdir(f"/proc/{pid}/fd")))
    outcomes = [values["outcome"] for values in sets]
    ms = finite([float(v["total_ms"]) for v in sets if v["outcome"] == "processed"])
    return {
        "sets_a_second": round(outcomes.count("processed") / seconds, 2),
        "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "unforeseen": int(sets[-1]["sets_unforeseen"]) if sets else 0,
        "latency_ms": {f"p{p}": round(float(np.percentile(ms, p)), 1) for p in (50, 95)}
        if ms
        else {},
        "memory_mib_by_fifth": [round(float(np.median(p))) for p in np.array_split(memory, 5)],
        "memory_mib_most": round(max(memory)),
        "threads": threads,
        "descriptors": descriptors,
    }


def _status_of(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return float(line.split()[1])
    return float("nan")


def _good(phases: dict[str, dict[str, Any]]) -> bool:
    before, during, after = (phases[name] for name in ("before", "during", "after"))
    allowed_mib = (1 + _MEMORY_GROWTH) * before["memory_mib_by_fifth"][-1]
    return bool(
        after["sets_a_second"] >= _LEAST_RATE * before["sets_a_second"] > 0
        and after["memory_mib_by_fifth"][-1] <= allowed_mib
        and during["memory_mib_most"] <= before["memory_mib_most"] + _DECODED_MIB
        and after["threads"] <= before["threads"] + _FEW
        and after["descriptors"] <= before["descriptors"] + _FEW
        and phases["after"]["unforeseen"] == 0
    )
