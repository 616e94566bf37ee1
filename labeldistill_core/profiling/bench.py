# SPDX-License-Identifier: Apache-2.0
"""What a detector costs on this device, by stage: the figures of `labeldistill bench`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
import tyro
from typing_extensions import Self

from labeldistill_core.checkpoints import load_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.config_files import read_config
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.options import StudentFields, take_single_fields
from labeldistill_core.presets import Preset, find_preset
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.busy_process import busy_process
from labeldistill_core.profiling.latency import measure_steps
from labeldistill_core.profiling.separate_process import measure_apart
from labeldistill_core.profiling.stage_clock import percentiles
from labeldistill_core.profiling.ways import Way, ways_on
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision, resolve_device
from labeldistill_core.runtime.loading import refuse_no_compiler

_BESIDE = "step beside a busy process"
WHOLES = ("step", _BESIDE, "end to end")
"""Rows of the stages that hold others: in a sum of the parts they would count twice."""
_SETTLE_S = 1.5
"""Three times as long as `runtime.free_cores` counts before it changes the number of threads."""


@dataclass(frozen=True)
class BenchOptions:
    """Which networks are measured, and how."""

    presets: tuple[str, ...] = ("r50_256x704_4key", "demo")
    """Names of the networks to measure; their weights are random."""
    config: Path | None = None
    """Configuration of one's own whose network is measured instead of the presets; its weights are
    random. Single fields of it, or of each of the presets, are options as well, such as
    --student.grid.cell-m; `labeldistill config --help` lists them."""
    single_fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Arguments among which those fields are, since each network has values of its own."""
    model: Path | None = None
    """Student checkpoint to measure instead of the presets."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda:0 and so on, or auto."""
    precisions: tuple[Precision, ...] = ("float32", "auto")
    """Number formats of the convolutions, each measured in turn."""
    compile: bool = False
    """Measure the last precision with `torch.compile` as well."""
    repeats: int = 10
    """Steps that are measured, after the history is full."""
    threads: int | None = None
    """Threads of an operation on the CPU; torch's choice when not given."""

    def __post_init__(self) -> None:
        """Refuse numbers that are not positive."""
        if self.repeats < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError("--repeats and --threads must be 1 or more")
        if self.model and self.config:
            raise ConfigError("--model has its own configuration: give it or --config")
        if self.model and self.single_fields:
            raise ConfigError(
                "--student fields are of random networks; with --model the "
                "network is as it was trained"
            )

    @classmethod
    def prepared(cls, args: Sequence[str]) -> tuple[Self, list[str]]:
        """Defaults of the command line, with the single fields that are given, and the rest."""
        _, rest = take_single_fields(args, StudentFields(find_preset("demo").student))
        return cls(single_fields=tuple(args) if len(rest) < len(args) else ()), rest

    @property
    def place(self) -> torch.device:
        """The device.

        Raises:
            ConfigError: it is not there.
        """
        return resolve_device(self.device)

    @property
    def ways(self) -> list[Way]:
        """How the networks are computed there."""
        return ways_on(self.place, self.precisions, self.compile)

    def networks(self) -> dict[str, Student]:
        """The networks by name.

        Raises:
            ConfigError: there is no such preset.
            CheckpointError: the model is missing, damaged or not a student's.
        """
        if self.model:
            return {self.model.stem: load_student(self.model).student}
        if self.config:
            presets = [read_config(self.config)]
        else:
            presets = [find_preset(name) for name in self.presets]
        return {preset.name: random_student(self._student(preset)) for preset in presets}

    def _student(self, preset: Preset) -> StudentConfig:
        """The network of a preset, with the single fields that are given."""
        return take_single_fields(self.single_fields, StudentFields(preset.student))[0].student


def bench(options: BenchOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure networks from JPEG bytes to boxes, by stage, on this device.

    Yields:
        The name of each network and its figures, see `measure_ways`.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    networks, ways = options.networks(), options.ways
    if options.compile:
        refuse_no_compiler(options.place)  # before the other ways are measured
    for name, student in networks.items():
        with without_notices():
            yield name, measure_ways(student, str(options.place), ways, options.repeats)


def surroundings(device: torch.device) -> dict[str, Any]:
    """What figures of speed depend on besides the network: commit, machine, its load, device."""
    return {
        "commit": commit(),
        "machine": machine(),
        "load": os.getloadavg()[0],
        "device": str(device),
    }


def random_student(config: StudentConfig) -> Student:
    """A network whose weights are random, the same each time."""
    # The same weights give the same number of boxes, on which the time of suppression depends.
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
    # By the median: a single step that something else held up must not decide.
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
    # Each way starts a process of its own, which takes longer than its steps.
    return max(2, repeats // 3)


def measure_way(detector: Detector, way: Way, repeats: int) -> dict[str, Any]:
    """`stages` with their percentiles in milliseconds, `sets_s` (a second) and a GPU's `graph`."""
    times = measure_steps(detector, repeats, way.device_decode)
    if detector.device.type == "cpu":
        times[_BESIDE] = _beside_a_busy_process(detector, repeats)
    graph = {"graph": detector.engine.graph} if detector.device.type == "cuda" else {}
    return {
        "stages": {name: percentiles(values) for name, values in times.items()},
        "sets_s": 1e3 * repeats / sum(times["end to end"]),
        **graph,
    }


def _beside_a_busy_process(detector: Detector, repeats: int) -> list[float]:
    """Milliseconds of steps; the detector is given the time to see that a core is taken."""
    with busy_process():
        begin = time.monotonic()
        while time.monotonic() - begin < _SETTLE_S:
            measure_steps(detector, 1)
        return measure_steps(detector, repeats)["step"]


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
            # A second apart, so that the history is in use as it was in training.
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
