# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.bags.to_nuscenes`: a recording to a data root, beside a copy of the bag."""

from __future__ import annotations

import json as json_module
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bags.recorded import Recording, write_recording
from labeldistill_core.console import Flat, run_command
from labeldistill_core.errors import BagError
from labeldistill_core.files import write_json
from labeldistill_core.processes import end_with_parent
from labeldistill_core.provenance import commit, machine

_MIB = 2**20


@dataclass(frozen=True)
class DriveOptions:
    """What is recorded, and with how many processes it is converted."""

    seconds: tuple[float, ...] = (20.0, 80.0)
    """Lengths of the drives; the peak of memory should be the same for all."""
    width_px: int = 1600
    """Of the images."""
    height_px: int = 900
    """Of the images."""
    lidar: bool = True
    """Whether there are scans too."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of processes."""


def drives(options: Flat[DriveOptions], json: Path | None = None) -> None:
    """Measure the conversion of made-up drives against copying their bags, and its memory.

    Args:
        options: what is recorded, and how it is converted.
        json: file to write the figures to.
    """
    rows = [_drive(seconds, options) for seconds in options.seconds]
    figures = {"commit": commit(), "machine": machine(), "load": os.getloadavg()[0], "drives": rows}
    if json:
        write_json(json, figures)
    print(json_module.dumps(figures, indent=1))


def _drive(seconds: float, options: DriveOptions) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="drives-") as name:
        folder = Path(name)
        bag = folder / "drive"
        size_px = (options.width_px, options.height_px)
        write_recording(bag, Recording(seconds, size_px, options.lidar))
        mb = sum(f.stat().st_size for f in bag.iterdir()) / 1e6
        os.sync()  # what was written before is not written during what is timed
        start = time.perf_counter()
        shutil.copytree(bag, folder / "copy")
        row: dict[str, Any] = {"seconds": seconds, "mb": mb}
        row["copy_mb_s"] = mb / (time.perf_counter() - start)
        shutil.rmtree(folder / "copy")
        for workers in options.workers:
            os.sync()
            row[f"{workers} workers"] = _convert(bag, folder / "root", workers, mb)
            shutil.rmtree(folder / "root")
        return row


def _convert(bag: Path, root: Path, workers: int, mb: float) -> dict[str, Any]:
    """As users call it, in a process of its own, whose start counts."""
    words = ["bag", "to-nuscenes", str(bag), str(root), "--workers", str(workers)]
    start = time.perf_counter()
    command = [sys.executable, "-m", "labeldistill_ros.cli", *words]
    done = subprocess.Popen(command, preexec_fn=end_with_parent)
    # Not `wait`: the usage of this one child and its workers, not of all children so far.
    _, status, usage = os.wait4(done.pid, 0)
    took_s = time.perf_counter() - start
    if status:
        raise BagError(f"the conversion of {bag} failed")
    return {
        "took_s": took_s,
        "mb_s": mb / took_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": _peak_mib(usage),
    }


def _peak_mib(usage: resource.struct_rusage) -> float:
    """Of the largest of the process and its workers, which the system counts with it."""
    # Linux counts in KiB, others in bytes.
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else _MIB)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command("python -m benchmarks.bags.to_nuscenes", drives, args)


if __name__ == "__main__":
    sys.exit(main())
