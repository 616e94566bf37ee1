# SPDX-License-Identifier: Apache-2.0
"""The command that measures.

Both sides of a comparison run in turns in one process on the same data and weights, and their
medians are compared.
"""

from __future__ import annotations

import json as json_module
import os
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.detector.pooling import measure_pooling
from benchmarks.detector.report import Report
from benchmarks.detector.streaming import measure_streaming
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.presets import find_preset
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.loading import torch_engine


def bench_lift(
    preset: str = "r50_256x704_4key",
    device: str = "cpu",
    repeats: int = 3,
    threads: int | None = None,
    json: Path | None = None,
) -> int:
    """Measure pooling and streaming; exits with 1 when a fast way gives another result.

    Args:
        preset: name of the network; its weights are random.
        device: cpu, cuda:0 and so on, or auto.
        repeats: of the streaming step and the forward of all frames, after one to warm up; the
            small operations are repeated ten times as often.
        threads: of an operation on the CPU; torch's choice when none is given. With other work on
            the machine, a thread that waits for its core holds up the small operations, and one
            thread measures them best.
        json: file to write the figures to.

    Raises:
        ConfigError: no such preset or device, or a number that is not positive.
    """
    if repeats < 1 or (threads is not None and threads < 1):
        raise ConfigError("--repeats and --threads must be 1 or more")
    if threads:
        torch.set_num_threads(threads)
    report = measure(find_preset(preset).student, device=device, repeats=repeats)
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(asdict(report), indent=1) + "\n")
    print(f"preset {preset}, {report.table()}")
    return 0 if report.equal else 1


def measure(config: StudentConfig, *, device: str = "cpu", repeats: int = 3) -> Report:
    """All measurements of one network with random weights.

    Args:
        config: of the network.
        device: cpu, cuda:0 and so on, or auto.
        repeats: as in `bench_lift`.

    Raises:
        ConfigError: the device is not there.
    """
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    student = Student(config).eval().to(memory_format=torch.channels_last)
    # its maps are looked at, and it gets the images that the network gets
    engine = torch_engine(student, device=device, fixed_shapes=False)
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
