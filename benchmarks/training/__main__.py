# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.training`: what a training step costs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.training.steps import bench_training
from labeldistill_core.console import run_command
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device


def main(args: Sequence[str] | None = None) -> int:
    """Run the named benchmark; returns its exit code."""
    keep_freed_memory(resolve_device("auto"))  # as `labeldistill train` does
    return run_command("python -m benchmarks.training", bench_training, args)


if __name__ == "__main__":
    sys.exit(main())
