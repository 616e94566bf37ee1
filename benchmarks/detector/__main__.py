# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.detector stages|accuracy|lift|targets|page|compare`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.detector.accuracy import bench_accuracy
from benchmarks.detector.lift import bench_lift
from benchmarks.detector.page import bench_compare, bench_page
from benchmarks.detector.stages import stages
from benchmarks.detector.targets import bench_targets
from labeldistill_core.console import run_command
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device

COMMANDS: dict[str, Callable[..., Any]] = {
    "stages": stages,
    "accuracy": bench_accuracy,
    "lift": bench_lift,
    "targets": bench_targets,
    "page": bench_page,
    "compare": bench_compare,
}
"""Benchmarks by their names."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the named benchmark; returns its exit code."""
    keep_freed_memory(resolve_device("auto"))
    return run_command("python -m benchmarks.detector", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
