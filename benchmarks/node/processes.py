# SPDX-License-Identifier: Apache-2.0
"""Lines of the failure table that concern the node as a process: how it starts and ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import rclpy
from rclpy.context import Context

from benchmarks.node.failures import Row
from labeldistill_core.processes import end_with_parent
from labeldistill_ros.shared_memory import kill_node
from labeldistill_ros.testing.vehicle import Vehicle

_NODE = [sys.executable, "-m", "labeldistill_ros.node", "--ros-args"]
_START_S = 60.0
# `ros2 launch` sends SIGTERM five seconds after SIGINT; a process that takes that long gets both.
_END_S = 1.0


def node_command(parameters: dict[str, str]) -> list[str]:
    """The command line of a node with these parameters."""
    return [*_NODE, *(part for k, v in parameters.items() for part in ("-p", f"{k}:={v}"))]


def run_refusals(model: Path | None) -> list[Row]:
    """Starts that must fail: exit code 2 and a message that names the thing."""
    known = {"device": "cpu", **({"model": str(model)} if model else {})}
    cases = (
        ("the model file is missing", {"model": "/nowhere/none.safetensors"}, "no checkpoint at"),
        ("the model's hash differs", {**known, "model_sha256": "a1" * 32}, "this is another model"),
        ("no such device", {**known, "device": "cuda:99"}, "cuda:99"),
        ("impossible parameter", {**known, "sync.tolerance": "7.0"}, "use a value from 0.001 to 1"),
        ("approximate_time without its library", {**known, "sync.policy": "approximate_time"}, ""),
    )
    rows = []
    for event, parameters, text in cases:
        if not text:
            try:
                import message_filters  # noqa: F401
            except ImportError:
                text = "needs message_filters"
            else:
                continue
        start_s = time.monotonic()
        done = subprocess.run(
            node_command(parameters), capture_output=True, text=True, timeout=_START_S
        )
        # A refusal is one sentence; with a traceback nobody reads it.
        said = text in done.stderr and "Traceback" not in done.stderr
        rows.append(
            Row(
                event,
                f"started with {' '.join(f'{k}:={v[:12]}' for k, v in parameters.items())}",
                f"exit code {done.returncode}, {'names it' if said else done.stderr[-300:]}",
                round(time.monotonic() - start_s, 3),
                None,
                done.returncode == 2 and said,
            )
        )
    return rows


def run_signals(model: Path | None) -> list[Row]:
    """SIGINT and SIGTERM while sets are in work: code 0 in under a second."""
    rows = []
    values = {"device": "cpu", **({"model": str(model)} if model else {})}
    for number in (signal.SIGINT, signal.SIGTERM):
        context = Context()
        rclpy.init(context=context)
        vehicle = Vehicle(context)
        process = subprocess.Popen(
            node_command(values), stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent
        )
        try:
            works = vehicle.wait(lambda v=vehicle: v.boxes, _START_S) is not None  # type: ignore[misc]
            start_s = time.monotonic()
            process.send_signal(number)
            told = process.communicate(timeout=20)[1]
            took_s = time.monotonic() - start_s
        finally:
            kill_node(process)
            vehicle.close()
            context.try_shutdown()
        clean = works and process.returncode == 0 and "Traceback" not in told
        rows.append(
            Row(
                f"{number.name} while it works",
                "signal sent to the process",
                f"exit code {process.returncode}" if works else f"no boxes: {told[-300:]}",
                round(took_s, 3),
                None,
                clean and took_s < _END_S,
            )
        )
    return rows
