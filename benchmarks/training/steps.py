# SPDX-License-Identifier: Apache-2.0
"""What a training step costs, by stage and by part.

Weights are random and all stages see the same samples. A step is the forward, the losses, the
backward and AdamW, as `labeldistill train` does them, without its logging.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from tyro.conf import Positional

from benchmarks.detector.published import materialized_pool
from benchmarks.timing import peak_mib
from benchmarks.training.sparse import measure_sparse
from labeldistill_core.console import Flat
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset, LidarSample, StudentDataset, StudentSample
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.distillation import distiller as distilling
from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import write_json
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.sparse import Backend, has_spconv
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.lidar.teacher_cache import CachedTeacher
from labeldistill_core.network import student as student_network
from labeldistill_core.network.student import Student
from labeldistill_core.options import TablesOptions
from labeldistill_core.presets import find_preset
from labeldistill_core.profiling.latency import replaced
from labeldistill_core.profiling.stage_clock import StageClock, time_ms
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.training import label_encoder as label_training
from labeldistill_core.training import student as student_training
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage

_SEED = 1
"""Seed of the augmentation, so that all stages see the same samples."""


@dataclass(frozen=True)
class TrainingStepOptions(TablesOptions):
    """What is trained for the measurement, and how often."""

    preset: str = "demo"
    """Name of the configuration whose networks are trained."""
    device: str = "cpu"
    """Where the networks are trained: cpu, cuda:0 and so on, or auto."""
    batch_size: int = 0
    """Samples of a step; as many as the preset's recipe takes when 0."""
    repeats: int = 5
    """Steps of each stage that are measured, after one to warm up."""

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing."""
        if self.batch_size < 0:
            raise ConfigError("--batch-size must be 0 or more")
        if self.repeats < 1:
            raise ConfigError("--repeats must be 1 or more")


def bench_training(
    dataroot: Positional[Path], options: Flat[TrainingStepOptions], json: Path | None = None
) -> None:
    """Measure a training step of each stage, the fused pooling in it, and sparse convolution.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        options: what is trained, and how often.
        json: file to write the figures to.
    """
    with TemporaryDirectory() as folder:
        _bench(TrainingBench(dataroot, options, Path(folder)), options, json)


def _bench(bench: TrainingBench, options: TrainingStepOptions, json: Path | None) -> None:
    stages, sparse = dict[str, Any](), dict[str, Any]()
    figures: dict[str, Any] = {
        "preset": options.preset,
        "batch_size": bench.size,
        "device": str(bench.device),
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "commit": commit(),
        "load": os.getloadavg()[0],
    }
    for name, row in bench.steps():
        stages[name] = row
        parts = "  ".join(f"{part} {share:.0%}" for part, share in row["share"].items())
        print(f"{name:<32} {row['samples_s']:7.2f} samples/s  {row['peak_mib']:6.0f} MiB  {parts}")
    fused, plain = (stages[f"student, {name}"] for name in ("no teachers", "materialized lift"))
    ratio = plain["step_ms"] / fused["step_ms"]
    print(f"materialized lift over fused pooling: {ratio:.2f}")
    for backend, found in bench.sparse():
        sparse[backend] = found
        print(
            f"{backend}: voxelize {found['voxelize_ms']:.1f} ms, sparse {found['sparse_ms']:.1f} "
            f"ms, dense {found['dense_ms']:.1f} ms for {found['samples']} samples"
        )
    if json:
        figures |= {"stages": stages, "materialized_over_fused": ratio, "sparse": sparse}
        write_json(json, figures)


class TrainingBench:
    """Samples and networks of one preset, and what training them costs."""

    def __init__(self, dataroot: Path, options: TrainingStepOptions, folder: Path) -> None:
        """Open the data root.

        Args:
            dataroot: nuScenes data root, real or synthetic.
            options: what is trained, and how often.
            folder: for the teacher's outputs.

        Raises:
            ConfigError: there is no such preset or device.
            DataError: the tables are missing or damaged.
        """
        self.preset, self.device = find_preset(options.preset), resolve_device(options.device)
        self.recipe, self.config = self.preset.recipes.student, self.preset.student
        self.size = options.batch_size or self.recipe.batch_size
        self._repeats, self._folder = options.repeats, folder
        tables = NuScenesTables(dataroot, options.version)
        scenes = split_scenes(tables, "all")
        points = Points(self.preset.teacher.sweeps)
        self._students = StudentDataset(
            tables, scenes, self.config, self.recipe.augmentation, points
        )
        self._lidar = LidarDataset(
            tables, scenes, self.config.cameras, self.recipe.augmentation, points
        )

    def steps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each way of training and what a step of it costs, one after the other."""
        for name, make in self.stages().items():
            yield name, self.step(*make)

    def sparse(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each backend of sparse convolution and its figures, see `measure_sparse`."""
        backends: list[Backend] = ["torch"]
        if self.device.type != "cpu" and has_spconv():
            backends.append("spconv")
        for backend in backends:
            yield backend, measure_sparse(self.teacher(backend), self.clouds(), self._repeats)

    def teacher(self, backend: Backend = "auto") -> Teacher:
        """A teacher with random weights, on the device and in evaluation mode."""
        torch.manual_seed(0)
        return Teacher(self.preset.teacher, backend).to(self.device).eval()

    def clouds(self) -> list[Tensor]:
        """Points of the samples of one batch, (P, 5) each, on the device."""
        return [self._lidar[i].points[0].to(self.device) for i in range(self.size)]

    def stages(self) -> dict[str, tuple[Stage, bool, torch.dtype | None]]:
        """Each way of training: the stage, whether with a materialized lift, autocast's type."""
        encoder = LabelEncoder(self.preset.label_encoder)
        half = torch.bfloat16
        student = StudentStage(self.config, self.recipe)

        def distilled(teacher: Teacher | CachedTeacher) -> Stage:
            distiller = Distiller(DistillationConfig(), self.config, teacher, encoder)
            return StudentStage(self.config, self.recipe, distiller)

        # The warm-up writes what all measured steps read.
        kept = CachedTeacher(self.teacher(), self._folder, "random weights", 1 << 40)
        labels = LabelEncoderStage(self.preset.label_encoder, self.recipe, self.teacher().cpu())
        return {
            "teacher": (TeacherStage(self.preset.teacher, self.recipe), False, half),
            "label encoder": (labels, False, half),
            "student, no teachers": (student, False, half),
            "student, materialized lift": (student, True, half),
            "student, distilled": (distilled(kept), False, half),
            "student, distilled, float32": (distilled(kept), False, None),
        }

    def step(self, stage: Stage, materialized: bool, dtype: torch.dtype | None) -> dict[str, Any]:
        """Time, memory and share of the parts of one step."""
        start = time.perf_counter()
        sample = self._sample(stage)
        load_ms = (time.perf_counter() - start) * 1e3
        sample = sample.to(self.device)
        stage = stage.to(self.device).train()
        optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad])
        loss = torch.zeros(())

        def forward() -> None:
            nonlocal loss
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                loss = torch.stack(list(stage.losses(sample).values())).sum()

        def backward() -> None:
            loss.backward()

        def update() -> None:
            optimizer.step()
            optimizer.zero_grad()

        parts: dict[str, Callable[[], None]] = {
            "forward": forward, "backward": backward, "optimizer": update,
        }  # fmt: skip
        # The naive lift in the place of the pooling and nothing else changed, so that the ratio is
        # that of pooling alone.
        lift = replaced(student_network, "pool", materialized_pool) if materialized else None
        with lift or nullcontext():
            rounds = [
                {name: time_ms(part, self.device) for name, part in parts.items()}
                for _ in range(self._repeats + 1)
            ][1:]
            peak = peak_mib(lambda: [part() for part in parts.values()], self.device)
            within = self._within(stage, forward)
        found = {name: median(r[name] for r in rounds) for name in parts}
        step_ms = sum(found.values())
        return {
            "step_ms": step_ms,
            "samples_s": self.size / step_ms * 1e3,
            "share": {name: value / step_ms for name, value in found.items()},
            "forward_share": {name: value / sum(within.values()) for name, value in within.items()},
            "load_ms": load_ms,
            # A process that loads is one of several beside the step, so the share is their number.
            "loading_processes_needed": load_ms / step_ms,
            "peak_mib": peak,
        }

    def _within(self, stage: Stage, forward: Callable[[], None]) -> dict[str, float]:
        """Milliseconds of the parts of a forward, and of all else."""
        clock = StageClock(self.device)
        with ExitStack() as measured:
            for name, module in _networks(stage, self.device):
                for handle in (
                    module.register_forward_pre_hook(lambda *_, n=name: clock.start(n)),
                    module.register_forward_hook(lambda *_, n=name: clock.stop(n)),
                ):
                    measured.callback(handle.remove)
            for name, owner, attribute in _FUNCTIONS:
                timed = _timed(getattr(owner, attribute), name, clock)
                measured.enter_context(replaced(owner, attribute, timed))
            whole_ms = time_ms(forward, self.device)
        spent = clock.take()
        return {**spent, "else": whole_ms - sum(spent.values())}

    def _sample(self, stage: Stage) -> Any:
        keys = [(index, _SEED) for index in range(self.size)]
        if isinstance(stage, StudentStage):
            return StudentSample.collate([self._students[key] for key in keys])
        return LidarSample.collate([self._lidar[key] for key in keys])


_FUNCTIONS: tuple[tuple[str, Any, str], ...] = (
    ("tables", Student, "pooling_table"),
    ("pooling", student_network, "pool"),
    ("targets", student_training, "build_targets"),
    ("losses", student_training, "detection_loss"),
    ("losses", student_training, "depth_loss"),
    ("losses", distilling, "feature_loss"),
    ("losses", distilling, "response_loss"),
    ("targets and losses", label_training, "head_losses"),
)
"""Parts of a forward that are no networks: name, and where the function stands that is called."""


def _networks(stage: Stage, device: torch.device) -> Iterator[tuple[str, nn.Module]]:
    """Networks that a forward calls, by the name of their part; those of a list share one."""
    named = dict(stage.network.named_children())
    if isinstance(stage, LabelEncoderStage):
        frozen = stage.frozen(device)
        named |= {"frozen neck": frozen.neck, "frozen head": frozen.head}
    if isinstance(stage, StudentStage) and stage.distiller is not None:
        named |= stage.distiller.teachers(device)
        named |= {"adaptors": nn.ModuleList(stage.distiller.children())}
    for name, module in named.items():
        for part in module if isinstance(module, nn.ModuleList) else [module]:
            yield name, part


def _timed(function: Callable[..., Any], name: str, clock: StageClock) -> Callable[..., Any]:
    def timed(*args: Any, **more: Any) -> Any:
        clock.start(name)
        try:
            return function(*args, **more)
        finally:
            clock.stop(name)

    return timed
