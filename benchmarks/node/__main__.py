# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.node failures|load|hostile`."""

from __future__ import annotations

import json as json_module
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.node.failure_table import SCENES
from benchmarks.node.failures import as_json, run_scene
from benchmarks.node.hostile import HostileOptions, run_hostile
from benchmarks.node.load import LoadOptions, run_load
from benchmarks.node.processes import run_refusals, run_signals
from labeldistill_core.console import Flat, run_command, tell_written
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.files import write_json
from labeldistill_ros.isolated_domain import own_domain


def failures(json: Path | None = None, model: Path | None = None) -> int:
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
    if json:
        write_json(json, as_json(rows))
    width = max(len(row.event) for row in rows)
    print(f"\n{'':4} {'event':<{width}} {'detect':>8} {'recover':>8}  what it did")
    for row in rows:
        times = [f"{t:.2f} s" if t is not None else "" for t in (row.detected_s, row.recovered_s)]
        mark = "ok" if row.passed else "FAIL"
        print(f"{mark:4} {row.event:<{width}} {times[0]:>8} {times[1]:>8}  {row.observed}")
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows)} rows, {failed} failed")
    tell_written(json)
    return MISSED if failed else 0


def load(options: Flat[LoadOptions], json: Path | None = None) -> int:
    """Six cameras of JPEG images through the running node; exits with 1 when it does not hold.

    The cameras and the node share this machine's cores.

    Args:
        options: what goes through the node, and for how long.
        json: file to write the figures to.
    """
    with own_domain():
        found = run_load(options)
    if json:
        write_json(json, found)
    print(json_module.dumps(found, indent=1))
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB")
    return 0 if found["passed"] else MISSED


def hostile(options: Flat[HostileOptions], json: Path | None = None) -> int:
    """Hostile messages at every door of a running node; exits with 1 when it does not recover.

    Cameras, intruder and node share this machine's cores.

    Args:
        options: how much of what comes in.
        json: file to write the figures to.
    """
    with own_domain():
        found = run_hostile(options)
    if json:
        write_json(json, found)
    print(json_module.dumps(found, indent=1))
    return 0 if found["passed"] else MISSED


def main(args: Sequence[str] | None = None) -> int:
    """Run the named benchmark; returns its exit code."""
    commands = dict[str, Callable[..., int]](failures=failures, load=load, hostile=hostile)
    return run_command("python -m benchmarks.node", commands, args)


if __name__ == "__main__":
    sys.exit(main())
