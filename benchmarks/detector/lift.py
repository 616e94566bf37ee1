# SPDX-License-Identifier: Apache-2.0
"""Pooling and streaming against plain ways that compute the same.

Both sides of a comparison run in turns in one process on the same data and weights, and their
medians are compared.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.detector.pooling import measure_pooling
from benchmarks.detector.report import Report
from benchmarks.detector.streaming import measure_streaming
from labeldistill_core.console import Flat
from labeldistill_core.errors import ConfigError
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.files import write_json
from labeldistill_core.network.student import Student
from labeldistill_core.presets import find_preset
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.loading import torch_engine


@dataclass(frozen=True)
class LiftOptions:
    """Which network is measured, and how."""

    preset: str = "r50_256x704_4key"
    """Name of the network to measure; its weights are random."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda:0 and so on, or auto."""
    repeats: int = 3
    """Streaming steps and forwards of all frames that are measured, after one to warm up; the
    small operations are repeated ten times as often."""
    threads: int | None = None
    """Threads of an operation on the CPU; torch's choice when not given. With other work on the
    machine, a thread that waits for its core holds up the small operations, and one thread measures
    them best."""

    def __post_init__(self) -> None:
        """Refuse numbers that are not positive."""
        if self.repeats < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError("--repeats and --threads must be 1 or more")


def bench_lift(options: Flat[LiftOptions], json: Path | None = None) -> int:
    """Measure pooling and streaming; exits with 1 when a fast way gives another result.

    Args:
        options: which network is measured, and how.
        json: file to write the figures to.
    """
    report = measure(options)
    if json:
        write_json(json, asdict(report))
    print(f"preset {options.preset}, {report.table()}")
    return 0 if report.equal else MISSED


def measure(options: LiftOptions) -> Report:
    """All measurements of one network with random weights.

    Raises:
        ConfigError: there is no such preset or device.
    """
    config, repeats = find_preset(options.preset).student, options.repeats
    if options.threads:
        torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    student = Student(config).eval().to(memory_format=torch.channels_last)
    # its maps are looked at, and it gets the images that the network gets
    engine = torch_engine(student, device=options.device, fixed_shapes=False)
    detector = Detector(engine, device_resize=False)
    student = student.to(detector.device)
    # on GPUs torch lets cuDNN round float32 to 10 bits, in which equal results would differ
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pooling, differences, single_ms = measure_pooling(student, 10 * repeats)
        streaming, difference = measure_streaming(student, detector, repeats)
    return Report(
        str(detector.device),
        torch.get_num_threads(),
        load,
        os.cpu_count() or 1,
        (*pooling, streaming),
        {**differences, "streaming, maps": difference},
        single_ms,
    )
