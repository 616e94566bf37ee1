# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.node failures|load`."""

from __future__ import annotations

import json as json_module
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.node.failure_table import SCENES
from benchmarks.node.failures import as_json, run_scene
from benchmarks.node.load import LoadOptions, run_load
from benchmarks.node.processes import run_refusals, run_signals
from labeldistill_core.console import run_command
from labeldistill_core.files import write_json
from labeldistill_ros.isolated_domain import own_domain


def failures(
    json: Path = Path("benchmarks/results/failures.json"), model: Path | None = None
) -> int:
    """Do every event of the failure table to a running node over DDS; exits with 1 if one fails.

    Args:
        json: file to write the rows to.
        model: student checkpoint; the demo's when not given.
    """
    rows = []
    with own_domain():
        for scene in SCENES:
            rows += run_scene(scene, model)
            print(f"{scene.name}: done")
        rows += run_refusals(model) + run_signals(model)
    write_json(json, as_json(rows))
    width = max(len(row.event) for row in rows)
    print(f"\n{'':4} {'event':<{width}} {'detect':>8} {'recover':>8}  what it did")
    for row in rows:
        times = [f"{t:.2f} s" if t is not None else "" for t in (row.detected_s, row.recovered_s)]
        mark = "ok" if row.passed else "FAIL"
        print(f"{mark:4} {row.event:<{width}} {times[0]:>8} {times[1]:>8}  {row.observed}")
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows)} rows, {failed} failed; written to {json}")
    return int(failed > 0)


def load(
    seconds: float = 600.0,
    rate_hz: float = 12.0,
    image_size: tuple[int, int] = (1600, 900),
    model: Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
    json: Path | None = None,
) -> int:
    """Six cameras of JPEG images through the running node; exits with 1 when it does not hold.

    The cameras and the node share this machine's cores.

    Args:
        seconds: how long, after the detector alone was measured and a minute to warm up.
        rate_hz: of each camera.
        image_size: width and height in pixels.
        model: student checkpoint; the demo's when not given.
        device: cpu, cuda:0 and so on.
        precision: of the convolutions.
        json: file to write the figures to.
    """
    with own_domain():
        found = run_load(LoadOptions(seconds, rate_hz, image_size, model, device, precision))
    if json:
        write_json(json, found)
    print(json_module.dumps(found, indent=1))
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB")
    return int(not found["passed"])


def main(args: Sequence[str] | None = None) -> int:
    """Run the named benchmark; returns its exit code."""
    return run_command("python -m benchmarks.node", {"failures": failures, "load": load}, args)


if __name__ == "__main__":
    sys.exit(main())
