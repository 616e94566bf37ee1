# SPDX-License-Identifier: Apache-2.0
"""Commands that measure the running node."""

from __future__ import annotations

import json as json_module
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labeldistill_ros.bench.failures import SCENES, as_json, run_scene
from labeldistill_ros.bench.load import LoadOptions, run_load
from labeldistill_ros.bench.processes import run_refusals, run_signals
from labeldistill_ros.resources import shared_file


@contextmanager
def own_domain() -> Iterator[None]:
    """A ROS domain on this machine, with the Fast DDS profile, unless the user set one."""
    chosen = {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(shared_file("config/fastdds.xml")),
    }
    added = {key: value for key, value in chosen.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


def bench_node(
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
    json.parent.mkdir(parents=True, exist_ok=True)
    json.write_text(json_module.dumps(as_json(rows), indent=1) + "\n")
    width = max(len(row.event) for row in rows)
    print(f"\n{'':4} {'event':<{width}} {'detect':>8} {'recover':>8}  what it did")
    for row in rows:
        times = [f"{t:.2f} s" if t is not None else "" for t in (row.detected_s, row.recovered_s)]
        mark = "ok" if row.passed else "FAIL"
        print(f"{mark:4} {row.event:<{width}} {times[0]:>8} {times[1]:>8}  {row.observed}")
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows)} rows, {failed} failed; written to {json}")
    return int(failed > 0)


def bench_load(
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
        seconds: how long, after ten seconds to warm up.
        rate_hz: of each camera.
        image_size: width and height in pixels.
        model: student checkpoint; the demo's when not given.
        device: cpu, cuda:0 and so on.
        precision: of the convolutions.
        json: file to write the figures to.
    """
    with own_domain():
        found = run_load(LoadOptions(seconds, rate_hz, image_size, model, device, precision))
    text = json_module.dumps(found, indent=1)
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(text + "\n")
    print(text)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB")
    return int(not found["passed"])
