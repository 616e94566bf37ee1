# SPDX-License-Identifier: Apache-2.0
"""What a detector costs on this device, by stage: the figures of `labeldistill bench`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from labeldistill_core.checkpoints import load_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import write_json
from labeldistill_core.network.student import Student
from labeldistill_core.presets import preset_config
from labeldistill_core.profiling.apart import measure_apart
from labeldistill_core.profiling.latency import measure_steps
from labeldistill_core.profiling.scene import frame_set
from labeldistill_core.profiling.timing import percentiles
from labeldistill_core.profiling.ways import Way, ways_on
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision, resolve_device


def bench(
    presets: tuple[str, ...] = ("r50_256x704_4key", "demo"),
    model: Path | None = None,
    device: str = "cpu",
    precisions: tuple[Precision, ...] = ("float32", "auto"),
    compile: bool = False,
    repeats: int = 10,
    threads: int | None = None,
    json: Path | None = None,
) -> None:
    """Measure the detector from JPEG bytes to boxes, by stage, on this device.

    On a GPU the last precision is also measured in a CUDA graph, with images prepared on the CPU,
    resized on the GPU, and decoded there, too.

    Args:
        presets: names of the networks; their weights are random.
        model: student checkpoint to measure instead of the presets.
        device: cpu, cuda:0 and so on, or auto.
        precisions: of the convolutions.
        compile: measure the last precision with `torch.compile` as well.
        repeats: of a step, after the history is full.
        threads: of an operation on the CPU; torch's choice when none is given.
        json: file to write the figures to.

    Raises:
        ConfigError: no such preset, precision or device, or a number that is not positive.
        CheckpointError: the model is missing, damaged or not a student's.
    """
    check_repeats(repeats, threads)
    if model:
        networks = {model.stem: load_student(model).student}
    else:
        networks = {name: random_student(preset_config(name)) for name in presets}
    place = resolve_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    ways = ways_on(place, precisions, compile)
    figures: dict[str, Any] = {
        "command": f"labeldistill bench --device {device}",
        "commit": commit(),
        "machine": machine(),
        "load": os.getloadavg()[0],
        "device": str(place),
        "presets": {},
    }
    print(figures["machine"])
    for name, student in networks.items():
        with without_notices():
            found = measure_ways(student, str(place), ways, repeats)
        figures["presets"][name] = found
        print(f"\n{name}\n{table(found)}", flush=True)
        if json:
            write_json(json, figures)


def check_repeats(repeats: int, threads: int | None) -> None:
    """Refuse numbers that are not positive, and set the number of threads.

    Raises:
        ConfigError: one is not positive.
    """
    if repeats < 1 or (threads is not None and threads < 1):
        raise ConfigError("--repeats and --threads must be 1 or more")
    if threads:
        torch.set_num_threads(threads)


def random_student(config: StudentConfig) -> Student:
    """A network whose weights are random, the same each time."""
    torch.manual_seed(0)
    return Student(config).eval()


def measure_ways(
    student: Student, device: str, ways: Sequence[Way], repeats: int
) -> dict[str, Any]:
    """Figures of one network.

    Args:
        student: the network.
        device: where it runs.
        ways: how.
        repeats: of a step, after the history is full.

    Returns:
        `runs` by way, each with `stages`, `sets_s`, and where a process of its own was started
        `first_step_ms` and `peak_mib`; and the name of the `fastest`.
    """
    runs: dict[str, Any] = {}
    by_name: dict[str, Way] = {}
    for way in ways:
        detector = way.detector(student, device)
        name = way.name(detector)
        runs[name], by_name[name] = measure_way(detector, way, repeats), way
    fastest = min(runs, key=lambda name: runs[name]["stages"]["end to end"]["p50"])
    for name, run in runs.items():
        # to begin anew on a GPU takes long
        if name == fastest or device == "cpu":
            prepare = _Streaming(student.config, device, by_name[name])
            apart = measure_apart(prepare, device, few(repeats), student.config.frames)
            run |= {"first_step_ms": apart.first_ms, "peak_mib": apart.peak_mib}
    return {"runs": runs, "fastest": fastest}


def few(repeats: int) -> int:
    """How often what takes long is repeated."""
    return max(2, repeats // 3)


def measure_way(detector: Detector, way: Way, repeats: int) -> dict[str, Any]:
    """`stages` with their percentiles in milliseconds, `sets_s` (a second) and a GPU's `graph`."""
    times = measure_steps(detector, repeats, way.device_decode)
    graph = {"graph": detector.engine.graph} if detector.device.type == "cuda" else {}
    return {
        "stages": {name: percentiles(values) for name, values in times.items()},
        "sets_s": 1e3 * repeats / sum(times["end to end"]),
        **graph,
    }


def table(found: Mapping[str, Any]) -> str:
    """The stages of all precisions side by side, milliseconds, as Markdown."""
    runs = found["runs"]
    head = "| stage, ms p50 / p95 / p99 | " + " | ".join(runs) + " |"
    lines = [head, "|---" * (len(runs) + 1) + "|"]
    for stage in dict.fromkeys(stage for run in runs.values() for stage in run["stages"]):
        cells = [run["stages"].get(stage) for run in runs.values()]
        row = " | ".join(
            f"{c['p50']:.1f} / {c['p95']:.1f} / {c['p99']:.1f}" if c else "" for c in cells
        )
        lines.append(f"| {stage} | {row} |")
    if "published" in found:
        published = found["published"]["step"]
        lines.append(f"| step, published way | {published['p50']:.0f} |" + " |" * (len(runs) - 1))
    for name, key in (
        ("first step", "first_step_ms"),
        ("sets a second", "sets_s"),
        ("peak memory, MiB", "peak_mib"),
        ("GPU at work, ms", "busy_ms"),
        ("CUDA graph", "graph"),
    ):
        cells = [run.get(key, "") for run in runs.values()]
        if any(cells):
            row = " | ".join(f"{c:.1f}" if isinstance(c, float) else c for c in cells)
            lines.append(f"| {name} | {row} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Streaming:
    """Prepares steps of a detector."""

    config: StudentConfig
    device: str
    way: Way

    def __call__(self) -> Callable[[], object]:
        detector = self.way.detector(Student(self.config), self.device)
        seconds = count()

        def step() -> None:
            detector.detect(frame_set(float(next(seconds)), self.config))

        return step


@contextmanager
def without_notices() -> Iterator[None]:
    """A detector tells of each history that it drops, and here it drops many."""
    logger = logging.getLogger("labeldistill_core.runtime")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
