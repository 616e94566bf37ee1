# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.training.loader`: how many GPUs the loading processes of one machine feed.

Samples are loaded as a training loads them, in forked processes of one thread each, and what one
core does is multiplied. A step's own work on the CPU and the disk are not simulated: the table says
what they have to do.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor
from tyro.conf import Positional

from benchmarks.tables.measure import memory_mib
from labeldistill_core.console import Flat, run_command
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import write_json
from labeldistill_core.lidar.points import Points
from labeldistill_core.options import TablesOptions
from labeldistill_core.presets import find_preset
from labeldistill_core.processes import end_with_parent
from labeldistill_core.provenance import commit, given_command, machine

_PREFETCH = 2
"""Batches that torch's `DataLoader` has each process load ahead."""
_MIB, _GB = 1 << 20, 1e9


@dataclass(frozen=True)
class LoaderOptions(TablesOptions):
    """What is loaded, and the machine that is computed."""

    preset: str = "r50_256x704_4key"
    """Name of the configuration whose student is trained."""
    lidar: bool = True
    """Whether a LiDAR teacher's points are loaded as well."""
    samples: int = 100
    """Samples that each process loads while it is watched; those of the root come again."""
    processes: int = 2
    """Processes that load at the same time."""
    cores: int = 64
    """Cores of the machine that is computed."""
    gpus: int = 8
    """GPUs of that machine; the process of each takes a core."""
    batch_size: int = 8
    """Samples of a step, on each GPU."""

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing."""
        if min(self.samples, self.processes, self.gpus, self.batch_size) < 1:
            raise ConfigError("--samples, --processes, --gpus and --batch-size must be 1 or more")
        if self.cores <= self.gpus:
            raise ConfigError("--cores must be more than --gpus, whose processes take one each")


def bench_loader(
    dataroot: Positional[Path], options: Flat[LoaderOptions], json: Path | None = None
) -> None:
    """Measure one core that loads, and compute what a machine of many cores feeds.

    Args:
        dataroot: nuScenes data root; few samples are enough, since they are loaded again and again.
        options: what is loaded, and for which machine.
        json: file to write the figures to.
    """
    data = _dataset(dataroot, options)
    fork = multiprocessing.get_context("fork")
    results: Any = fork.SimpleQueue()
    together = fork.Barrier(options.processes)
    loaders = [
        fork.Process(target=_load, args=(data, options, together, results))
        for _ in range(options.processes)
    ]
    for loader in loaders:
        loader.start()
    found = [results.get() for _ in loaders]
    for loader in loaders:
        loader.join()
    measured = {name: sum(f[name] for f in found) / len(found) for name in found[0]}
    measured["file_mb"] = _file_bytes(data, dataroot, options) / 1e6
    computed = compute(measured, options)
    for title, figures in (("one process", measured), ("the machine", computed)):
        print(f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if json:
        about = {"command": given_command("python -m benchmarks.training.loader")}
        about |= {"machine": machine(), "commit": commit(), "load": f"{os.getloadavg()[0]:.1f}"}
        write_json(json, {**about, "measured": measured, "computed": computed})


def compute(measured: dict[str, float], options: LoaderOptions) -> dict[str, float]:
    """What the machine does when every core that loads does as much as the measured one.

    Args:
        measured: of one process, see `bench_loader`.
        options: the machine.
    """
    workers = (options.cores - options.gpus) // options.gpus
    samples_s = options.gpus * workers / measured["cpu_s_a_sample"]
    ahead = options.gpus * (workers * _PREFETCH + 1) * options.batch_size
    memory = measured["own_mib"] * options.gpus * workers
    return {
        "workers_a_gpu": workers,
        "samples_s": samples_s,
        "samples_s_a_gpu": samples_s / options.gpus,
        "epoch_min_of_28130": 28130 / samples_s / 60,
        "disk_gb_s": samples_s * measured["file_mb"] * 1e6 / _GB,
        "shared_memory_gib": ahead * measured["sample_mib"] / 1024,
        "to_each_gpu_gb_s": samples_s / options.gpus * measured["sample_mib"] * _MIB / _GB,
        "memory_of_loaders_gib": memory / 1024,
    }


def _dataset(dataroot: Path, options: LoaderOptions) -> StudentDataset:
    preset, tables = find_preset(options.preset), NuScenesTables(dataroot, options.version)
    points = Points(preset.teacher.sweeps) if options.lidar else None
    # Partial, since a handful of samples is enough.
    data = StudentDataset(
        tables, split_scenes(tables, "all"), preset.student, preset.recipes.student.augmentation,
        points, partial=True, sample=preset.samples,
    )  # fmt: skip
    tokens, frames = data.tokens, preset.student.frames
    if len(tokens) < frames:
        raise ConfigError(f"{dataroot} has {len(tokens)} whole samples: {frames} are needed")
    # Where a scene begins, frames stand in for one another and are read once; samples of whatever
    # time take their place, so that each sample has all of its images.
    data.frame_tokens = [
        own if len(set(own)) == frames else tuple((tokens * 2)[index : index + frames])
        for index, own in enumerate(data.frame_tokens)
    ]
    return data


def _load(data: StudentDataset, options: LoaderOptions, together: Any, results: Any) -> None:
    end_with_parent()
    torch.set_num_threads(1)  # as torch has it in loading processes
    sample = StudentSample.collate([data[index % len(data), 0] for index in range(4)])
    together.wait()
    before, begin, begin_s = memory_mib(), process_time(), perf_counter()
    for index in range(options.samples):
        sample = data[index % len(data), index]
    cpu_s, wall_s = process_time() - begin, perf_counter() - begin_s
    after = memory_mib()
    together.wait()
    results.put(
        {
            "cpu_s_a_sample": cpu_s / options.samples,
            "wall_s_a_sample": wall_s / options.samples,
            "sample_mib": sum(tensor.nbytes for tensor in _tensors(sample)) / _MIB,
            "own_mib": after["anonymous"],
            "growth_mib": after["anonymous"] - before["anonymous"],
        }
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _file_bytes(data: StudentDataset, dataroot: Path, options: LoaderOptions) -> float:
    """Mean size of the files of a sample: images of all its frames, and LiDAR scans."""
    preset, tables = find_preset(options.preset), NuScenesTables(dataroot, options.version)
    config, sweeps = preset.student, preset.teacher.sweeps
    camera, scan = [], []
    for token in data.tokens:
        camera += [tables.cameras(token)[name].path.stat().st_size for name in config.cameras]
        if tables.has_scan(token):
            scan.append(tables.lidar(token).path.stat().st_size)
    each = sum(camera) / len(data.tokens)
    scans = 1 + (sweeps.past + sweeps.future if options.lidar else 0)
    return each * config.frames + sum(scan) / max(1, len(scan)) * scans


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code."""
    return run_command("python -m benchmarks.training.loader", bench_loader, args)


if __name__ == "__main__":
    sys.exit(main())
